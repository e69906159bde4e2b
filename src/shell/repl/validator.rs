//! Whether an input is complete, or Enter shall begin another line of it.
use crate::shell::lex::{Inside, Kind, Token, lex};

/// Words that want a block.
const BLOCK: &[&str] = &["fn", "if", "else", "while", "until", "loop", "for", "switch", "try", "catch", "do"];
/// Operators that may end an input.
const CLOSING: &[&str] = &[";", "!", "?", "??", ":"];

/// Whether the input is for the shell, not for the engine: such an input is one line.
pub fn is_command(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with(':')
        || text.starts_with('!') && !text.contains('\n')
        || ["help", "apropos"].iter().any(|w| {
            let rest = text.strip_prefix(w);
            rest.is_some_and(|r| r.is_empty() || r.starts_with(' ') && !r.trim_start().starts_with(['=', '.', '(']))
        })
}

/// Whether a bracket, template or comment is open at the end of `text`, an operator waits for its right side, or a word
/// like `fn` for its block.
pub fn is_open(text: &str) -> bool {
    if is_command(text) {
        return false;
    }
    let l = lex(text);
    // the parser reports a bracket that does not match
    if l.mismatch {
        return false;
    }
    match l.inside {
        Inside::Comment | Inside::Lines => return true,
        // a newline would not end it either: the parser reports it
        Inside::String => return false,
        Inside::Code => {}
    }
    if !l.open.is_empty() {
        return true;
    }
    // an empty line ends what no bracket holds open
    if text.trim_end_matches([' ', '\t']).ends_with('\n') {
        return false;
    }
    let code: Vec<Token> = l.tokens.into_iter().filter(|t| t.kind != Kind::Comment).collect();
    let Some(last) = code.last() else { return false };
    let waits = last.kind == Kind::Operator && !CLOSING.contains(&last.of(text));
    waits || wants_block(text, &code)
}

/// Whether the last statement has a word like `fn` without the block that belongs to it.
fn wants_block(text: &str, code: &[Token]) -> bool {
    let (mut depth, mut wants, mut after_block) = (0usize, false, false);
    for (t, next) in code.iter().zip(code.iter().skip(1).map(Some).chain([None])) {
        let word = t.of(text);
        // `a if b else c` is no `else` that a block could follow: the parser reports it
        if depth == 0 && word == "else" && next.is_some_and(|n| !matches!(n.of(text), "{" | "if")) {
            return false;
        }
        match t.kind {
            Kind::Open if depth == 0 && word == "{" => (depth, wants) = (1, false),
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::Operator if depth == 0 && word == ";" => wants = false,
            // `do { … } while x` has its block before
            Kind::Keyword if depth == 0 && BLOCK.contains(&word) => {
                wants = !(after_block && matches!(word, "while" | "until"));
            }
            _ => {}
        }
        after_block = t.kind == Kind::Close && word == "}";
    }
    wants
}

/// How far the next line of an open input is indented: four blanks for each line that left brackets open.
pub fn indent(text: &str) -> usize {
    let l = lex(text);
    if l.inside != Inside::Code {
        return 0;
    }
    let line = |i: &usize| text[..l.tokens[*i].start].matches('\n').count();
    let mut lines: Vec<usize> = l.open.iter().map(line).collect();
    lines.dedup();
    4 * lines.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_and_closed_input() {
        for open in [
            "fn f(x) {",
            "[1, 2",
            "f(1,",
            "`a ${b",
            "`abc",
            "/* a",
            "/* /* */",
            "#{ a: 1",
            "'(' (",
            "1 +",
            "let x =",
            "a &&",
            "x.",
            "1 + // one",
            "fn f(x)",
            "if a == 1",
            "if a { 1 } else",
            "if a { 1 } else if b",
            "f(\n",
            "fn f() {\n\n",
            "while x < 3",
            "let y = if a { 1 } else",
            "\"a \\",
        ] {
            assert!(is_open(open), "{open}");
        }
        for closed in [
            "",
            "1 + 1",
            "f(1)",
            "\"(\"",
            "'('",
            "// (",
            "/* ( */ 1",
            "`${f(`a`)}`",
            "1)",
            "\"\\\"\"",
            "`a\nb`",
            "'\\'' + 1",
            "#{ a: 1 }",
            "\"abc",
            "fn f(x) { x }",
            "if a { 1 } else { 2 }",
            "do { a += 1 } while a < 3",
            "do { a += 1; } until a > 3",
            "let f = |x| x;",
            "unipc?",
            ":time f(",
            "!ls (",
            "help +",
            "apropos \"(\"",
            "import \"ld3\" as ld3",
            "let y = 5 if a else 3",
            "def f(x):",
            "x??",
            "let x =\n",
            "if a == 1\n    ",
        ] {
            assert!(!is_open(closed), "{closed}");
        }
    }

    #[test]
    fn commands_and_variables_of_their_name() {
        assert!(is_command(":vars") && is_command("help") && is_command("help unipc") && is_command("!ls"));
        assert!(!is_command("help = 3") && !is_command("helper") && !is_command("a :b"));
    }

    #[test]
    fn indentation() {
        for (text, n) in [
            ("fn f() {", 4),
            ("f(g(", 4),
            ("f(\n    g(", 8),
            ("fn f() {\n    if a {\n        1\n    }", 4),
            ("fn f() {\n}", 0),
            ("`a", 0),
            ("1 +", 0),
        ] {
            assert_eq!(indent(text), n, "{text}");
        }
    }
}
