//! PLY (Turk 1994): the positions of its vertices, from text and from bytes of either order; everything else in the file is passed over.
use super::Points;
use crate::{Error, Kind, Result};
use std::io::Write;

/// The longest header that is read.
const HEADER: usize = 1 << 16;

fn fault(m: impl Into<String>) -> Error {
    Error::new(Kind::Format, m)
}

/// A type of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    F32,
    F64,
}

/// All names of types.
const NAMES: [(&str, Number); 16] = [
    ("char", Number::I8),
    ("int8", Number::I8),
    ("uchar", Number::U8),
    ("uint8", Number::U8),
    ("short", Number::I16),
    ("int16", Number::I16),
    ("ushort", Number::U16),
    ("uint16", Number::U16),
    ("int", Number::I32),
    ("int32", Number::I32),
    ("uint", Number::U32),
    ("uint32", Number::U32),
    ("float", Number::F32),
    ("float32", Number::F32),
    ("double", Number::F64),
    ("float64", Number::F64),
];

impl Number {
    fn named(name: &str, line: usize) -> Result<Number> {
        let found = NAMES.iter().find(|(n, _)| *n == name).map(|(_, t)| *t);
        found.ok_or_else(|| fault(format!("line {line}: `{name}` is no type of PLY")))
    }
    fn size(self) -> usize {
        match self {
            Number::I8 | Number::U8 => 1,
            Number::I16 | Number::U16 => 2,
            Number::I32 | Number::U32 | Number::F32 => 4,
            Number::F64 => 8,
        }
    }
    /// Whether an f32 holds all of its values.
    fn fits_single(self) -> bool {
        !matches!(self, Number::I32 | Number::U32 | Number::F64)
    }
    fn decode(self, b: &[u8], big: bool) -> f64 {
        fn array<const N: usize>(b: &[u8], big: bool) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(&b[..N]);
            if big {
                out.reverse();
            }
            out
        }
        match self {
            Number::I8 => f64::from(b[0] as i8),
            Number::U8 => f64::from(b[0]),
            Number::I16 => f64::from(i16::from_le_bytes(array(b, big))),
            Number::U16 => f64::from(u16::from_le_bytes(array(b, big))),
            Number::I32 => f64::from(i32::from_le_bytes(array(b, big))),
            Number::U32 => f64::from(u32::from_le_bytes(array(b, big))),
            Number::F32 => f64::from(f32::from_le_bytes(array(b, big))),
            Number::F64 => f64::from_le_bytes(array(b, big)),
        }
    }
}

#[derive(Debug)]
struct Property {
    name: String,
    /// The type of a list's length.
    list: Option<Number>,
    of: Number,
}

#[derive(Debug)]
struct Element {
    name: String,
    count: usize,
    properties: Vec<Property>,
}

/// How the numbers are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Ascii,
    Little,
    Big,
}

struct Header {
    body: Body,
    elements: Vec<Element>,
    /// Where the numbers begin.
    end: usize,
}

fn header(bytes: &[u8]) -> Result<Header> {
    let head = &bytes[..bytes.len().min(HEADER)];
    if !(head.starts_with(b"ply\n") || head.starts_with(b"ply\r")) {
        return Err(match crate::files::sniff::instead(head, "PLY file", &[]) {
            Some(e) => e,
            None => fault("no PLY file: it does not begin with `ply`").hint("clouds are also read as .xyz and .npy"),
        });
    }
    let (mut at, mut line) = (0, 0);
    let (mut body, mut elements) = (None, Vec::<Element>::new());
    loop {
        let rest = &head[at..];
        let Some(length) = rest.iter().position(|b| *b == b'\n') else {
            return Err(fault("the header has no `end_header`").hint("the file may be cut off"));
        };
        line += 1;
        at += length + 1;
        let text =
            std::str::from_utf8(&rest[..length]).map_err(|_| fault(format!("line {line}: the header is no text")))?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let wrong = |m: &str| Err(fault(format!("line {line}: {m}")));
        match words[..] {
            ["ply"] if line == 1 => {}
            ["format", name, "1.0"] if body.is_none() => {
                body = Some(match name {
                    "ascii" => Body::Ascii,
                    "binary_little_endian" => Body::Little,
                    "binary_big_endian" => Body::Big,
                    _ => return wrong(&format!("`{name}` is no format of PLY")),
                });
            }
            ["format", ..] => return wrong("the format must stand there once, with version 1.0"),
            [] | ["comment", ..] | ["obj_info", ..] => {}
            ["element", name, count] => {
                let Ok(count) = count.parse::<usize>() else {
                    return wrong(&format!("`{count}` is no number of elements"));
                };
                if elements.iter().any(|e| e.name == name) {
                    return wrong(&format!("the element `{name}` is there twice"));
                }
                elements.push(Element { name: name.into(), count, properties: vec![] });
            }
            ["property", ref rest @ ..] => {
                let Some(element) = elements.last_mut() else { return wrong("a property before the first element") };
                let property = match *rest {
                    ["list", length, of, name] => Property {
                        name: name.into(),
                        list: Some(Number::named(length, line)?),
                        of: Number::named(of, line)?,
                    },
                    [of, name] => Property { name: name.into(), list: None, of: Number::named(of, line)? },
                    _ => return wrong("a property is a type and a name"),
                };
                if element.properties.iter().any(|p| p.name == property.name) {
                    return wrong(&format!("the property `{}` is there twice", property.name));
                }
                element.properties.push(property);
            }
            ["end_header"] => break,
            _ => return wrong("this is no line of a PLY's header"),
        }
    }
    match body {
        Some(body) => Ok(Header { body, elements, end: at }),
        None => Err(fault("the header names no format")),
    }
}

/// Takes numbers from the body, in order.
struct Numbers<'a> {
    body: Body,
    rest: &'a [u8],
}

impl<'a> Numbers<'a> {
    fn next(&mut self, of: Number) -> std::result::Result<f64, String> {
        const CUT: &str = "the file ends there";
        if self.body != Body::Ascii {
            let (own, rest) = self.rest.split_at_checked(of.size()).ok_or(CUT)?;
            self.rest = rest;
            return Ok(of.decode(own, self.body == Body::Big));
        }
        let blanks = self.rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        self.rest = &self.rest[blanks..];
        let length = self.rest.iter().take_while(|b| !b.is_ascii_whitespace()).count();
        let (word, rest) = self.rest.split_at(length);
        if word.is_empty() {
            return Err(CUT.into());
        }
        self.rest = rest;
        let text = String::from_utf8_lossy(word);
        let number = match of {
            Number::F32 => text.parse::<f32>().map(f64::from),
            _ => text.parse::<f64>(),
        };
        number.map_err(|_| format!("`{}` is no number", text.chars().take(40).collect::<String>()))
    }
    /// Passes over `count` numbers of a type.
    fn skip(&mut self, of: Number, count: usize) -> std::result::Result<(), String> {
        if self.body == Body::Ascii {
            return (0..count).try_for_each(|_| self.next(of).map(drop));
        }
        let bytes = count.checked_mul(of.size()).filter(|n| *n <= self.rest.len());
        self.rest = &self.rest[bytes.ok_or("the file ends there")?..];
        Ok(())
    }
    /// The length of a list.
    fn length(&mut self, of: Number) -> std::result::Result<usize, String> {
        let n = self.next(of)?;
        // every entry is a byte at least
        match n >= 0.0 && n.fract() == 0.0 && n <= self.rest.len() as f64 {
            true => Ok(n as usize),
            false => Err(format!("a list of {n} entries, and {} bytes are left", self.rest.len())),
        }
    }
}

/// The positions of the vertices: in f64 where the file has them so (or as 32-bit integers), else in f32.
///
/// Errors name the line of the header, or the vertex, that is at fault.
pub fn read(bytes: &[u8]) -> Result<Points> {
    let Header { body, elements, end } = header(bytes)?;
    let mut numbers = Numbers { body, rest: &bytes[end..] };
    for element in &elements {
        let place = |i: usize, m: String| {
            fault(format!("{} {i} of {}: {m}", element.name, element.count)).hint("the file may be cut off or damaged")
        };
        let smallest: usize = element
            .properties
            .iter()
            .map(|p| if body == Body::Ascii { 1 } else { p.list.unwrap_or(p.of).size() })
            .sum();
        // no more elements than bytes, whatever the header says
        if element.count.checked_mul(smallest.max(1)).is_none_or(|n| n > numbers.rest.len() + 1) && element.count > 0 {
            let m = format!(
                "{} elements `{}` cannot be in the {} bytes that follow",
                element.count,
                element.name,
                numbers.rest.len()
            );
            return Err(fault(m).hint("the file may be cut off or damaged"));
        }
        if element.name != "vertex" {
            for i in 0..element.count {
                for p in &element.properties {
                    let skipped = match p.list {
                        None => numbers.skip(p.of, 1),
                        Some(length) => numbers.length(length).and_then(|n| numbers.skip(p.of, n)),
                    };
                    skipped.map_err(|m| place(i, m))?;
                }
            }
            continue;
        }
        let axis = |name: &str| {
            let found = element.properties.iter().position(|p| p.name == name && p.list.is_none());
            found.ok_or_else(|| {
                fault(format!("its vertices have no `{name}`")).hint("a cloud's vertices have x, y and z")
            })
        };
        let axes = [axis("x")?, axis("y")?, axis("z")?];
        let single = axes.iter().all(|a| element.properties[*a].of.fits_single());
        let (mut narrow, mut exact) = (vec![], vec![]);
        for i in 0..element.count {
            let mut point = [0.0; 3];
            for (k, p) in element.properties.iter().enumerate() {
                match (p.list, axes.iter().position(|a| *a == k)) {
                    (None, Some(a)) => point[a] = numbers.next(p.of).map_err(|m| place(i, m))?,
                    (None, None) => numbers.skip(p.of, 1).map_err(|m| place(i, m))?,
                    (Some(length), _) => {
                        numbers.length(length).and_then(|n| numbers.skip(p.of, n)).map_err(|m| place(i, m))?;
                    }
                }
            }
            match single {
                true => narrow.extend(point.map(|v| v as f32)),
                false => exact.extend(point),
            }
        }
        return Ok(if single { Points::Single(narrow) } else { Points::Double(exact) });
    }
    Err(fault("it has no element `vertex`").hint("a PLY of a cloud has vertices with x, y and z"))
}

/// Writes vertices with x, y and z, and nothing else, little-endian or as text.
pub fn write(f: &mut dyn Write, points: &Points, ascii: bool) -> std::io::Result<()> {
    let (kind, count) = match points {
        Points::Single(v) => ("float", v.len() / 3),
        Points::Double(v) => ("double", v.len() / 3),
    };
    let format = if ascii { "ascii" } else { "binary_little_endian" };
    writeln!(
        f,
        "ply\nformat {format} 1.0\nelement vertex {count}\nproperty {kind} x\nproperty {kind} y\nproperty {kind} z\nend_header"
    )?;
    match (points, ascii) {
        (_, true) => super::xyz::write(f, points),
        (Points::Single(v), _) => v.iter().try_for_each(|v| f.write_all(&v.to_le_bytes())),
        (Points::Double(v), _) => v.iter().try_for_each(|v| f.write_all(&v.to_le_bytes())),
    }
}
