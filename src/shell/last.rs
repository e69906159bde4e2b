//! `_`, the value of the last input that had one.
//!
//! To Rhai `_` is the rest of a `switch`, not a name. Where an input uses it as a value, the tokenizer is told so.
use super::lex::{Kind, lex};
use rhai::Position;
use std::cell::RefCell;

/// The variable's name.
pub const NAME: &str = "_";

thread_local! {
    /// Where the text that is being parsed has `_` as a value: line and column from 1.
    static PLACES: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Whether the `_` at that place of the text that is being parsed is a value.
pub fn is_value(at: Position) -> bool {
    let (Some(line), Some(column)) = (at.line(), at.position()) else { return false };
    PLACES.with_borrow(|p| p.contains(&(line, column)))
}

/// Parses `text` by `f`, with `_` as a variable.
pub fn parsing<T>(text: &str, f: impl FnOnce() -> T) -> T {
    PLACES.set(places(text));
    let parsed = f();
    PLACES.take();
    parsed
}

/// Where `_` is a value: not a case of a `switch`, and not where a name is declared.
fn places(text: &str) -> Vec<(usize, usize)> {
    if !text.contains(NAME) {
        return vec![];
    }
    let l = lex(text);
    let code: Vec<_> = l.tokens.iter().filter(|t| t.kind != Kind::Comment).collect();
    let word = |i: Option<usize>| i.and_then(|i| code.get(i)).map_or("", |t| t.of(text));
    let value = |i: usize| {
        let (before, after) = (word(i.checked_sub(1)), word(Some(i + 1)));
        let declared = matches!(before, "let" | "const" | "for" | "fn") || before == "|" && matches!(after, "|" | ",");
        let case = matches!(after, "=>" | "if");
        !declared && !case && !matches!(before, "." | "::")
    };
    let here = code.iter().enumerate().filter(|(i, t)| t.of(text) == NAME && value(*i));
    let place = |start: usize| {
        let before = &text[..start];
        let line = before.rfind('\n').map_or(0, |i| i + 1);
        (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
    };
    here.map(|(_, t)| place(t.start)).collect()
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn values_and_cases() {
        for (text, found) in [
            ("_", &[(1, 1)][..]),
            ("é + _ * _.x", &[(1, 5), (1, 9)]),
            ("f(1,\n  _)", &[(2, 3)]),
            ("`a ${_}`", &[(1, 6)]),
            ("switch x { 1 => _, _ => 2 }", &[(1, 17)]),
            ("switch x { _ if y => 2 }", &[]),
            ("let _ = 1", &[]),
            ("|_| 1", &[]),
            ("a_b + \"_\" // _", &[]),
        ] {
            assert_eq!(places(text), found, "{text}");
        }
    }
}
