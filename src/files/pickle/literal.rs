//! The literals of the text protocol (0), as Python writes them.

/// A byte string as `repr` writes it: in quotes, with escapes.
pub fn quoted(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.trim_ascii();
    let (first, last) = (*line.first()?, *line.last()?);
    if line.len() < 2 || first != last || !matches!(first, b'\'' | b'"') {
        return None;
    }
    let mut rest = line[1..line.len() - 1].iter().copied().peekable();
    let mut out = vec![];
    while let Some(b) = rest.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        match rest.next()? {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'v' => out.push(11),
            b'\n' => {}
            q @ (b'\\' | b'\'' | b'"') => out.push(q),
            b'x' => {
                let mut digit = || (rest.next()? as char).to_digit(16);
                out.push((digit()? * 16 + digit()?) as u8);
            }
            d @ b'0'..=b'7' => {
                let mut v = (d - b'0') as u32;
                for _ in 0..2 {
                    match rest.peek() {
                        Some(d @ b'0'..=b'7') => v = v * 8 + (*d - b'0') as u32,
                        _ => break,
                    }
                    rest.next();
                }
                out.push(v as u8);
            }
            // as Python: what is no escape stays as it is
            other => out.extend([b'\\', other]),
        }
    }
    Some(out)
}

/// Text in Python's "raw-unicode-escape": Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
pub fn raw_unicode(line: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(line.len());
    let mut i = 0;
    while i < line.len() {
        let digits = match (line[i], line.get(i + 1)) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            (b, _) => {
                out.push(b as char);
                i += 1;
                continue;
            }
        };
        let code = std::str::from_utf8(line.get(i + 2..i + 2 + digits)?).ok()?;
        let code = u32::from_str_radix(code, 16).ok()?;
        // half of a surrogate pair stands for itself in Python; there is no such character here
        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        i += 2 + digits;
    }
    Some(out)
}

/// The most digits of a decimal integer, Python's own limit.
pub const DIGITS: usize = 4300;

/// A decimal integer of at most [`DIGITS`] digits as little-endian two's complement.
pub fn decimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || digits.len() > DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // 18 digits at a time, in words of 32 bits so that products fit into 128
    let mut words: Vec<u32> = vec![];
    let first = digits.len() % 18;
    let groups = [&digits[..first]]
        .into_iter()
        .chain(digits.as_bytes()[first..].chunks(18).filter_map(|c| str::from_utf8(c).ok()));
    for group in groups.filter(|g| !g.is_empty()) {
        let mut carry = group.parse::<u64>().ok()? as u128;
        for w in &mut words {
            let v = *w as u128 * 10u128.pow(group.len() as u32) + carry;
            (*w, carry) = (v as u32, v >> 32);
        }
        while carry > 0 {
            words.push(carry as u32);
            carry >>= 32;
        }
    }
    let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).chain([0]).collect();
    if text.starts_with('-') {
        let mut borrow = true;
        for b in &mut bytes {
            let (v, over) = (!*b).overflowing_add(borrow as u8);
            (*b, borrow) = (v, over);
        }
    }
    Some(bytes)
}

/// A little-endian two's complement integer, if it fits.
pub fn small(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let mut low = [fill; 8];
    for (i, b) in bytes.iter().enumerate() {
        match low.get_mut(i) {
            Some(l) => *l = *b,
            None if *b != fill => return None,
            None => {}
        }
    }
    let v = i64::from_le_bytes(low);
    ((v < 0) == negative).then_some(v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_all_sizes() {
        for v in [0, 1, -1, 127, 128, -128, -129, 255, i64::MAX, i64::MIN, 1 << 40, -(1 << 40)] {
            let bytes = decimal(&v.to_string()).unwrap();
            assert_eq!(small(&bytes), Some(v));
        }
        assert_eq!(small(&decimal("9223372036854775808").unwrap()), None);
        assert_eq!(small(&decimal("-9223372036854775809").unwrap()), None);
        // the first number of every PyTorch file of the old kind
        assert_eq!(&decimal("119547037146038801333356").unwrap()[..10], b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19");
        assert_eq!((decimal(""), decimal("-"), decimal("1_0"), decimal(&"9".repeat(4301))), (None, None, None, None));
        assert_eq!(decimal(&"9".repeat(4300)).unwrap().len(), 1789);
        assert_eq!(small(&[]), Some(0));
    }

    #[test]
    fn strings_as_python_writes_them() {
        assert_eq!(quoted(br"'a\n\x41\101\\\'\q'").unwrap(), b"a\nAA\\'\\q");
        assert_eq!(quoted(b"\"it's\"").unwrap(), b"it's");
        for bad in [&b"'"[..], b"", b"'a\"", b"'\\'", b"'\\x4'", b"abc"] {
            assert_eq!(quoted(bad), None, "{bad:?}");
        }
        assert_eq!(raw_unicode(b"\xe9\\u20ac\\U0001f600\\n").unwrap(), "é€😀\\n");
        assert_eq!((raw_unicode(b"\\u20a"), raw_unicode(b"\\u")), (None, None));
    }
}
