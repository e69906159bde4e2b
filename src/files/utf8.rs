//! Text from bytes: UTF-8, with or without a byte order mark.
use super::sniff;
use crate::{Error, Kind, Result};

/// The text of `bytes`, which came from `name`; a byte order mark before it is skipped. Errors say where it is no UTF-8, and what it is
/// instead where that can be told.
pub fn decode(mut bytes: Vec<u8>, name: &str) -> Result<String> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    // UTF-16 without a mark: every other byte of what is meant for people is 0
    let wide = |b: &[u8]| matches!(b, [0, a, 0, b, ..] | [a, 0, b, 0, ..] if a.is_ascii_graphic() && b.is_ascii());
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || wide(&bytes) {
        return Err(Error::new(Kind::Format, format!("`{name}` is UTF-16 text")).hint("save it as UTF-8"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let what = sniff::sniff(e.as_bytes());
        let line = 1 + e.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
        let m = format!("`{name}` is not UTF-8 text (line {line}, byte {at})");
        match what {
            Some((what, hint)) => Error::new(Kind::Format, format!("{m} but {what}")).hint(hint),
            None => Error::new(Kind::Format, m).hint("save it as UTF-8"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn marks() {
        assert_eq!(decode(b"\xef\xbb\xbfprint(2)".to_vec(), "x").unwrap(), "print(2)");
        assert_eq!(decode(b"a".to_vec(), "x").unwrap(), "a");
        for bytes in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a", b"l\0e\0t\0", b"\0l\0e\0t"] {
            assert!(decode(bytes.to_vec(), "x").unwrap_err().message().contains("UTF-16"), "{bytes:?}");
        }
        assert!(decode(b"a\n\xc3(".to_vec(), "x").unwrap_err().message().contains("line 2"));
        assert!(decode(b"\xff\xd8\xff\xe0".to_vec(), "x").unwrap_err().message().contains("JPEG"));
    }
}
