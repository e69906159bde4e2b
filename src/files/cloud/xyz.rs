//! Clouds as plain text: a point a line, x y z, perhaps with more numbers behind them.
use super::Points;
use crate::{Error, Kind, Result};
use std::io::Write;

/// The longest line that is quoted in an error.
const QUOTED: usize = 40;

fn fault(line: usize, m: impl std::fmt::Display) -> Error {
    Error::new(Kind::Format, format!("line {line}: {m}"))
}

/// The points of a text. Numbers stand apart by blanks, commas or semicolons; empty lines and what follows `#` or `//` is left out, and
/// so are numbers behind the third (colours, normals), of which every line has as many.
pub fn read(bytes: &[u8]) -> Result<Points> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        fault(line, "this is no text").hint("a cloud as text has a point x y z on each line; is it a PLY?")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut out = vec![];
    let mut columns = None;
    for (i, line) in text.lines().enumerate() {
        let line = line.split("//").next().unwrap_or_default();
        let line = line.split('#').next().unwrap_or_default();
        let separator = |c: char| c.is_whitespace() || c == ',' || c == ';';
        let mut count = 0;
        for word in line.split(separator).filter(|w| !w.is_empty()) {
            count += 1;
            let number: f32 = word.parse().map_err(|_| {
                let word: String = word.chars().take(QUOTED).collect();
                let e = fault(i + 1, format!("`{word}` is no number"));
                let symbol = count == 1 && word.chars().all(|c| c.is_ascii_alphabetic());
                e.hint(match symbol {
                    true => "a molecule's XYZ, with an element on each line, is no cloud: leave the first column out",
                    false => "each line is a point: x y z",
                })
            })?;
            if count <= 3 {
                out.push(number);
            }
        }
        match (count, columns) {
            (0, _) => {}
            (1 | 2, _) => {
                let e = fault(i + 1, format!("{count} numbers, and a point has three"));
                return Err(e.hint("a count of points before them is left out here: take the line away"));
            }
            (n, Some(before)) if n != before => {
                return Err(fault(i + 1, format!("{n} numbers, and {before} on the lines before"))
                    .hint("the file may be cut off"));
            }
            (n, _) => columns = Some(n),
        }
    }
    Ok(Points::Single(out))
}

/// Writes a line for each point, in as many digits as tell it exactly.
pub fn write(f: &mut dyn Write, points: &Points) -> std::io::Result<()> {
    match points {
        Points::Single(v) => v.chunks_exact(3).try_for_each(|p| writeln!(f, "{} {} {}", p[0], p[1], p[2])),
        Points::Double(v) => v.chunks_exact(3).try_for_each(|p| writeln!(f, "{} {} {}", p[0], p[1], p[2])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_programs_write_them() {
        let read = |text: &str| read(text.as_bytes()).map_err(|e| e.to_string());
        assert_eq!(
            read("1 2 3\n\n# no point\n-4.5e-1, 5;6 // there\n"),
            Ok(Points::Single(vec![1.0, 2.0, 3.0, -0.45, 5.0, 6.0]))
        );
        assert_eq!(
            read("\u{feff}1 2 3 255 0 0\r\n4 5 6 255 0 0\r\n"),
            Ok(Points::Single(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
        );
        for (text, words) in [
            ("1 2 3\n4 5\n", "line 2: 2 numbers, and a point has three"),
            ("1 2 3\n4 5 6 7\n", "line 2: 4 numbers, and 3 on the lines before"),
            ("C 1 2 3\n", "molecule"),
            ("1 2 x\n", "line 1: `x` is no number"),
            ("2\n1 2 3\n4 5 6\n", "count of points"),
        ] {
            let e = read(text).unwrap_err();
            assert!(e.contains(words), "{text:?}: {e}");
        }
        assert!(super::read(b"1 2 3\n\xff\xfe").unwrap_err().to_string().contains("line 2: this is no text"));
    }
}
