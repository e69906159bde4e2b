//! Syntax colours, and the pair of brackets at the cursor.
use super::validator::is_command;
use crate::shell::lex::{Kind, Lexed, Token, lex};

/// How a piece of the input is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As the terminal draws text.
    Plain,
    /// A word of the language.
    Keyword,
    /// A string.
    Text,
    /// A number.
    Number,
    /// A comment.
    Comment,
    /// A function or namespace.
    Function,
    /// A command of the shell: `:time`, `help`, `!ls`.
    Command,
    /// One of the brackets at the cursor.
    Pair,
    /// A closing bracket without a match.
    Wrong,
}

impl Style {
    /// The escape sequence that switches it on. The 16 colours of every terminal, so that its theme holds.
    fn code(self) -> &'static str {
        match self {
            Style::Plain => "",
            Style::Keyword => "\x1b[35m",
            Style::Text => "\x1b[32m",
            Style::Number => "\x1b[36m",
            Style::Comment => "\x1b[90m",
            Style::Function => "\x1b[34m",
            Style::Command => "\x1b[33m",
            Style::Pair => "\x1b[1;4m",
            Style::Wrong => "\x1b[31m",
        }
    }
}

/// The pieces of `text` that are not plain, in order: byte range and style. With `cursor`, the bracket there (or just
/// before it) and its partner are marked.
pub fn spans(text: &str, cursor: Option<usize>) -> Vec<(std::ops::Range<usize>, Style)> {
    if is_command(text) {
        let start = text.len() - text.trim_start().len();
        let len = text[start..].find(char::is_whitespace).unwrap_or(text.len() - start);
        return vec![(start..start + len, Style::Command)];
    }
    let l = lex(text);
    let pair = cursor.and_then(|c| pair_at(&l, text, c));
    let style = |i: usize, t: &Token| match t.kind {
        _ if pair.is_some_and(|(a, b)| i == a || i == b) => Style::Pair,
        Kind::Keyword => Style::Keyword,
        Kind::Text => Style::Text,
        Kind::Number => Style::Number,
        Kind::Comment => Style::Comment,
        Kind::Close if unmatched(&l, text, i) => Style::Wrong,
        Kind::Name if matches!(l.tokens.get(i + 1).map(|n| n.of(text)), Some("(" | "::")) => Style::Function,
        _ => Style::Plain,
    };
    let styled = l.tokens.iter().enumerate().map(|(i, t)| (t.start..t.end, style(i, t)));
    styled.filter(|(_, s)| *s != Style::Plain).collect()
}

/// The opening bracket's index for each closing one's, as far as they fit.
fn partners(l: &Lexed, text: &str) -> Vec<(usize, Option<usize>)> {
    let (mut open, mut found): (Vec<usize>, _) = (vec![], vec![]);
    for (i, t) in l.tokens.iter().enumerate() {
        match t.kind {
            Kind::Open => open.push(i),
            Kind::Close => {
                let fits = |o: &usize| {
                    let o = l.tokens[*o].of(text).chars().last();
                    matches!((o, t.of(text)), (Some('('), ")") | (Some('['), "]") | (Some('{'), "}"))
                };
                let partner = open.last().copied().filter(fits);
                if partner.is_some() {
                    open.pop();
                }
                found.push((i, partner));
            }
            _ => {}
        }
    }
    found
}

fn unmatched(l: &Lexed, text: &str, close: usize) -> bool {
    l.mismatch && partners(l, text).iter().any(|(c, o)| *c == close && o.is_none())
}

/// The indices of the bracket at (or else just before) byte `cursor`, and of its partner.
fn pair_at(l: &Lexed, text: &str, cursor: usize) -> Option<(usize, usize)> {
    let bracket = |t: &Token| matches!(t.kind, Kind::Open | Kind::Close);
    let at = l.tokens.iter().position(|t| bracket(t) && (t.start..t.end).contains(&cursor));
    let at = at.or_else(|| l.tokens.iter().position(|t| bracket(t) && t.end == cursor))?;
    let pairs = partners(l, text);
    pairs.into_iter().find_map(|(c, o)| o.filter(|o| c == at || *o == at).map(|o| (o, c)))
}

/// Whether a bracket with a partner is at the cursor.
pub fn at_bracket(text: &str, cursor: usize) -> bool {
    !is_command(text) && pair_at(&lex(text), text, cursor).is_some()
}

/// `text` with escape sequences for its colours.
pub fn paint(text: &str, cursor: Option<usize>) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut at = 0;
    for (range, style) in spans(text, cursor) {
        out.push_str(&text[at..range.start]);
        // an escape sequence per line: a terminal may reset colours at a line's end
        for (i, line) in text[range.clone()].split('\n').enumerate() {
            if i > 0 {
                out.push('\n');
            }
            out.push_str(style.code());
            out.push_str(line);
            out.push_str("\x1b[0m");
        }
        at = range.end;
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, cursor: Option<usize>) -> Vec<(&str, Style)> {
        spans(text, cursor).into_iter().map(|(r, s)| (&text[r], s)).collect()
    }

    #[test]
    fn colours() {
        use Style::*;
        assert_eq!(
            found("let x = solver::unipc(3, \"bh1\"); // best", None),
            [
                ("let", Keyword),
                ("solver", Function),
                ("unipc", Function),
                ("3", Number),
                ("\"bh1\"", Text),
                ("// best", Comment)
            ]
        );
        assert_eq!(found(":time f(1)", None), [(":time", Command)]);
        assert_eq!(found("x.len", None), []);
        assert_eq!(found("f)", None), [(")", Wrong)]);
        assert_eq!(found("let`", None), [("let", Keyword), ("`", Text)]);
    }

    #[test]
    fn pairs() {
        use Style::Pair;
        assert_eq!(found("(a[1])", Some(0)), [("(", Pair), ("1", Style::Number), (")", Pair)]);
        assert_eq!(found("(a)", Some(3)), [("(", Pair), (")", Pair)]);
        // the one under the cursor before the one in front of it
        assert_eq!(found("()[]", Some(2)), [("[", Pair), ("]", Pair)]);
        assert_eq!(found("(\")\"", Some(0)), [("\")\"", Style::Text)]);
        assert!(at_bracket("(a)", 0) && !at_bracket("(a", 0) && !at_bracket("a", 9));
    }

    #[test]
    fn painting_keeps_the_text() {
        for text in ["let a = `x\ny`;\n// é\n)(", "", "\n\n", "fn f() { /* a\nb */ }", "  :vars x"] {
            let painted = paint(text, Some(1));
            let mut plain = String::new();
            let mut parts = painted.split('\x1b');
            plain.push_str(parts.next().unwrap());
            for p in parts {
                plain.push_str(&p[p.find('m').unwrap() + 1..]);
            }
            assert_eq!(plain, text);
        }
        assert_eq!(paint("let", None), "\x1b[35mlet\x1b[0m");
    }
}
