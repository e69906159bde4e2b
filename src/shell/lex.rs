//! A tolerant lexer of Rhai for what is being typed: it never fails, and tells what is still open at the end.
//!
//! Rhai's own tokenizer drops the places of blanks and comments and stops at the first error; an editor needs both.

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A word of the language: `let`, `fn`, `true`, …
    Keyword,
    /// Any other word.
    Name,
    /// A number.
    Number,
    /// A string, character or the text of a template, with its quotes.
    Text,
    /// A comment.
    Comment,
    /// An opening bracket: `(`, `[`, `{`, `#{`, `${`.
    Open,
    /// A closing bracket.
    Close,
    /// An operator or punctuation.
    Operator,
}

/// A piece of text: bytes `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// The first byte.
    pub start: usize,
    /// The byte behind the last one.
    pub end: usize,
}

impl Token {
    /// The token's text.
    pub fn of<'a>(&self, text: &'a str) -> &'a str {
        &text[self.start..self.end]
    }
}

/// What the end of the text is inside of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// Code.
    Code,
    /// A comment `/* … `.
    Comment,
    /// A string in double quotes; a newline ends it with an error.
    String,
    /// A template in backquotes, or a raw string: both may span lines.
    Lines,
}

/// A text in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lexed {
    /// The tokens, in order; blanks are between them.
    pub tokens: Vec<Token>,
    /// Where the text ends.
    pub inside: Inside,
    /// The brackets that are open at the end: their indices in `tokens`, innermost last.
    pub open: Vec<usize>,
    /// Whether a closing bracket has no match.
    pub mismatch: bool,
}

/// The words of the language.
pub const KEYWORDS: &[&str] = &[
    "as", "break", "catch", "const", "continue", "do", "else", "export", "false", "fn", "for", "global", "if",
    "import", "in", "is", "let", "loop", "private", "return", "switch", "this", "throw", "true", "try", "until",
    "while",
];

/// Operators of more than one character, the longer first.
const OPERATORS: &[&str] = &[
    "**=", "<<=", ">>=", "..=", "...", "!in", "::", "=>", "->", "==", "!=", "<=", ">=", "&&", "||", "??", "?.", "**",
    "<<", ">>", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "..",
];

/// Splits `text` into tokens.
pub fn lex(text: &str) -> Lexed {
    let mut lexer = Lexer { text, at: 0, tokens: vec![], open: vec![], mismatch: false };
    let inside = lexer.run();
    Lexed { tokens: lexer.tokens, inside, open: lexer.open, mismatch: lexer.mismatch }
}

/// Whether `c` may stand in a word.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
    open: Vec<usize>,
    mismatch: bool,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }
    fn push(&mut self, kind: Kind, len: usize) {
        if len > 0 {
            self.tokens.push(Token { kind, start: self.at, end: self.at + len });
        }
        self.at += len;
    }
    fn open(&mut self, len: usize) {
        self.open.push(self.tokens.len());
        self.push(Kind::Open, len);
    }
    /// How many bytes of the rest are words.
    fn word(&self) -> usize {
        self.rest().find(|c| !is_word(c)).unwrap_or(self.rest().len())
    }

    fn run(&mut self) -> Inside {
        while let Some(c) = self.rest().chars().next() {
            let rest = self.rest();
            let inside = match c {
                c if c.is_whitespace() => {
                    self.at += c.len_utf8();
                    Inside::Code
                }
                '"' => self.string(),
                '#' if rest[1..].trim_start_matches('#').starts_with('"') => self.raw(),
                '`' => self.template(1),
                '\'' => self.character(),
                '/' if rest.starts_with("//") => {
                    self.push(Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
                    Inside::Code
                }
                '/' if rest.starts_with("/*") => self.comment(),
                '#' if rest.starts_with("#!") && self.at == 0 => {
                    self.push(Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
                    Inside::Code
                }
                _ => self.code(c),
            };
            if inside != Inside::Code {
                return inside;
            }
        }
        Inside::Code
    }

    /// A string in double quotes, which ends at the line's end at the latest, but for a `\` there.
    fn string(&mut self) -> Inside {
        let rest = self.rest();
        let mut escaped = false;
        for (i, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '\n' | '"' => {
                    self.push(Kind::Text, i + usize::from(c == '"'));
                    return Inside::Code;
                }
                _ => {}
            }
        }
        self.push(Kind::Text, rest.len());
        if escaped { Inside::Lines } else { Inside::String }
    }
    /// A raw string `#"…"#`.
    fn raw(&mut self) -> Inside {
        let rest = self.rest();
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        let end = format!("\"{}", &rest[..hashes]);
        match rest[hashes + 1..].find(&end) {
            Some(i) => {
                self.push(Kind::Text, hashes + 1 + i + end.len());
                Inside::Code
            }
            None => {
                self.push(Kind::Text, rest.len());
                Inside::Lines
            }
        }
    }
    /// A character: at most an escape and a quote away.
    fn character(&mut self) -> Inside {
        let rest = self.rest();
        let mut chars = rest.char_indices().skip(1);
        let end = match chars.next() {
            Some((_, '\\')) => chars.skip(1).find(|(_, c)| *c == '\'' || *c == '\n'),
            Some(_) => chars.next(),
            None => None,
        };
        match end {
            Some((i, '\'')) => self.push(Kind::Text, i + 1),
            _ => self.push(Kind::Operator, 1),
        }
        Inside::Code
    }
    /// The text of a template up to its end or to code in it.
    fn template(&mut self, from: usize) -> Inside {
        let rest = self.rest();
        let mut i = from;
        while i < rest.len() {
            match &rest.as_bytes()[i..] {
                [b'`', b'`', ..] => i += 2,
                [b'`', ..] => {
                    self.push(Kind::Text, i + 1);
                    return Inside::Code;
                }
                [b'\\', b'$', b'{', ..] => i += 3,
                [b'$', b'{', ..] => {
                    self.push(Kind::Text, i);
                    self.open(2);
                    return Inside::Code;
                }
                _ => i += 1,
            }
        }
        self.push(Kind::Text, rest.len());
        Inside::Lines
    }
    fn comment(&mut self) -> Inside {
        let rest = self.rest();
        let (mut depth, mut i) = (0, 0);
        while i < rest.len() {
            match &rest.as_bytes()[i..] {
                [b'/', b'*', ..] => (depth, i) = (depth + 1, i + 2),
                [b'*', b'/', ..] => (depth, i) = (depth - 1, i + 2),
                _ => i += 1,
            }
            if depth == 0 {
                self.push(Kind::Comment, i);
                return Inside::Code;
            }
        }
        self.push(Kind::Comment, rest.len());
        Inside::Comment
    }
    fn code(&mut self, c: char) -> Inside {
        let rest = self.rest();
        match c {
            '0'..='9' => self.number(),
            c if is_word(c) => {
                let len = self.word();
                let keyword = KEYWORDS.contains(&&rest[..len]);
                self.push(if keyword { Kind::Keyword } else { Kind::Name }, len);
            }
            '#' if rest.starts_with("#{") => self.open(2),
            '?' if rest.starts_with("?[") => self.open(2),
            '(' | '[' | '{' => self.open(1),
            ')' | ']' | '}' => return self.close(c),
            _ => {
                let long = OPERATORS.iter().find(|o| rest.starts_with(**o));
                self.push(Kind::Operator, long.map_or(c.len_utf8(), |o| o.len()));
            }
        }
        Inside::Code
    }
    fn number(&mut self) {
        let rest = self.rest();
        let mut len = self.word();
        let decimal = !rest.starts_with("0x") && !rest.starts_with("0b") && !rest.starts_with("0o");
        // a dot belongs to the number unless a range or a method follows
        if decimal && rest[len..].starts_with('.') {
            let next = rest[len + 1..].chars().next();
            if next.is_none_or(|c| c != '.' && (!is_word(c) || c.is_ascii_digit())) {
                let fraction = &rest[len + 1..];
                len += 1 + fraction.find(|c| !is_word(c)).unwrap_or(fraction.len());
            }
        }
        let exponent = decimal && rest[..len].ends_with(['e', 'E']);
        if exponent && rest[len..].starts_with(['+', '-']) {
            let digits = &rest[len + 1..];
            len += 1 + digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        }
        self.push(Kind::Number, len);
    }
    fn close(&mut self, c: char) -> Inside {
        let opening = self.open.last().map(|i| self.tokens[*i].of(self.text)).unwrap_or_default();
        let fits = matches!((opening.chars().last(), c), (Some('('), ')') | (Some('['), ']') | (Some('{'), '}'));
        if fits {
            self.open.pop();
        }
        self.mismatch |= !fits;
        self.push(Kind::Close, 1);
        if fits && opening == "${" { self.template(0) } else { Inside::Code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces() {
        use Kind::*;
        let cases: &[(&str, &[(Kind, &str)])] = &[
            ("let x = 1.5e-3;", &[(Keyword, "let"), (Name, "x"), (Operator, "="), (Number, "1.5e-3"), (Operator, ";")]),
            ("0..n", &[(Number, "0"), (Operator, ".."), (Name, "n")]),
            ("1.max(2)", &[(Number, "1"), (Operator, "."), (Name, "max"), (Open, "("), (Number, "2"), (Close, ")")]),
            ("a::b", &[(Name, "a"), (Operator, "::"), (Name, "b")]),
            ("`a${b}c`", &[(Text, "`a"), (Open, "${"), (Name, "b"), (Close, "}"), (Text, "c`")]),
            (r"`\${b}`", &[(Text, r"`\${b}`")]),
            (r#""a\"b" x"#, &[(Text, r#""a\"b""#), (Name, "x")]),
            ("#\"a\n\"#", &[(Text, "#\"a\n\"#")]),
            ("'('", &[(Text, "'('")]),
            ("1 // (\n2", &[(Number, "1"), (Comment, "// ("), (Number, "2")]),
            ("/* /* */ */x", &[(Comment, "/* /* */ */"), (Name, "x")]),
            ("é == \"ü", &[(Name, "é"), (Operator, "=="), (Text, "\"ü")]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            let found: Vec<_> = lex(text).tokens.iter().map(|t| (t.kind, t.of(text))).collect();
            assert_eq!(&found, expected, "{text}");
        }
    }

    #[test]
    fn ends() {
        for (text, inside, open) in [
            ("f(1", Inside::Code, 1),
            ("\"abc", Inside::String, 0),
            ("\"abc\\", Inside::Lines, 0),
            ("`abc", Inside::Lines, 0),
            ("`${f(", Inside::Code, 2),
            ("#\"a\"", Inside::Lines, 0),
            ("/* a", Inside::Comment, 0),
            ("f(1)", Inside::Code, 0),
        ] {
            let l = lex(text);
            assert_eq!((l.inside, l.open.len(), l.mismatch), (inside, open, false), "{text}");
        }
        assert!(lex("1)").mismatch);
    }

    #[test]
    fn tokens_cover_any_text_in_order() {
        for text in ["'\\", "#", "##\"", "`${`${", "}}`", "é'", "0x", "1.", "1.e", "\u{7f}\0", "?[", "…", "//", "/*"]
        {
            let l = lex(text);
            let mut at = 0;
            for t in &l.tokens {
                assert!(t.start >= at && t.end > t.start, "{text:?}");
                assert!(text[at..t.start].trim().is_empty(), "{text:?}");
                at = t.end;
            }
            assert!(text[at..].trim().is_empty(), "{text:?}");
        }
    }
}
