//! Control characters of text from outside, made visible: a terminal obeys them.
use std::borrow::Cow;

/// What stands for a control character; the character itself where it is none, or a newline or tab.
fn picture(c: char) -> Option<char> {
    match c {
        '\n' | '\t' => None,
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + c as u32),
        '\u{7f}' => Some('\u{2421}'),
        // the 8-bit forms of ESC and a letter
        '\u{80}'..='\u{9f}' => Some('␛'),
        // what turns the direction of the text around
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Some('\u{fffd}'),
        _ => None,
    }
}

/// `text` with pictures in place of control characters (`␛` for escape), newlines and tabs aside.
pub fn clean(text: &str) -> Cow<'_, str> {
    match text.chars().any(|c| picture(c).is_some()) {
        false => text.into(),
        true => text.chars().map(|c| picture(c).unwrap_or(c)).collect::<String>().into(),
    }
}

/// [`clean`] for a terminal; a file or a pipe gets what was written.
pub fn for_terminal<'a>(to: &impl std::io::IsTerminal, text: &'a str) -> Cow<'a, str> {
    if to.is_terminal() { clean(text) } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn control_characters_are_seen() {
        assert_eq!(clean("\u{1b}]0;x\u{7}\r\n\tσ\u{7f}\u{9b}2J\u{202e}"), "␛]0;x␇␍\n\tσ␡␛2J\u{fffd}");
        assert!(matches!(clean("plain σ\n"), std::borrow::Cow::Borrowed(_)));
    }
}
