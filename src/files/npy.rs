//! numpy's `.npy` and `.npz`, in and out. Nothing is executed (object arrays are refused), sizes are checked before
//! memory is taken, checksums when all is read, and files are replaced as a whole.
use super::torch::{Archive, Data, RATIO, SUSPICIOUS, is_zip};
use super::{atomic, literal, sniff};
use crate::host::{check_cancelled, note};
use crate::tensor::dtype::{check_size, elements};
use crate::tensor::{aside, memory};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use literal::Literal;
use std::io::{Cursor, Read, Write};
use std::path::Path;

/// A header longer than this is no header (numpy's own limit is 10,000).
const LONGEST_HEADER: usize = 1 << 16;
/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// What one value is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    /// A dtype that tensors have too.
    Same(DType),
    /// One byte, not 0 for true: a u8 mask.
    Bool,
    /// Read as i16.
    I8,
    /// Read as u32.
    U16,
    /// Read as i64; larger values are an error.
    U64,
    /// Four bits of exponent, three of mantissa, no infinities: read as f32.
    F8E4M3,
    /// Five bits of exponent, two of mantissa: read as f32.
    F8E5M2,
}

impl Element {
    pub(super) fn size(self) -> usize {
        match self {
            Element::Same(d) => d.size_in_bytes(),
            Element::Bool | Element::I8 | Element::F8E4M3 | Element::F8E5M2 => 1,
            Element::U16 => 2,
            Element::U64 => 8,
        }
    }
    /// The dtype that a tensor of these gets.
    pub(super) fn dtype(self) -> DType {
        match self {
            Element::Same(d) => d,
            Element::Bool => DType::U8,
            Element::I8 => DType::I16,
            Element::U16 => DType::U32,
            Element::U64 => DType::I64,
            Element::F8E4M3 | Element::F8E5M2 => DType::F32,
        }
    }
    /// A tensor from little-endian bytes, exactly as many as `shape` needs.
    pub(super) fn decode(self, bytes: &[u8], shape: &[usize]) -> Result<Tensor> {
        self.read(&mut &*bytes, false, shape)
    }
    /// A tensor from the bytes of `r`: what is in memory meanwhile is the tensor and a piece of the file.
    fn read(self, r: &mut dyn Read, big_endian: bool, shape: &[usize]) -> Result<Tensor> {
        let n: usize = shape.iter().product();
        macro_rules! tensor {
            ($one:expr) => {
                Tensor::from_vec(values(r, n, big_endian, $one)?, shape, &Device::Cpu)?
            };
        }
        Ok(match self {
            Element::Same(DType::U8) => tensor!(|b: [u8; 1]| Ok(b[0])),
            Element::Same(DType::U32) => tensor!(|b| Ok(u32::from_le_bytes(b))),
            Element::Same(DType::I16) => tensor!(|b| Ok(i16::from_le_bytes(b))),
            Element::Same(DType::I32) => tensor!(|b| Ok(i32::from_le_bytes(b))),
            Element::Same(DType::I64) => tensor!(|b| Ok(i64::from_le_bytes(b))),
            Element::Same(DType::BF16) => tensor!(|b| Ok(half::bf16::from_le_bytes(b))),
            Element::Same(DType::F16) => tensor!(|b| Ok(half::f16::from_le_bytes(b))),
            Element::Same(DType::F32) => tensor!(|b| Ok(f32::from_le_bytes(b))),
            Element::Same(DType::F64) => tensor!(|b| Ok(f64::from_le_bytes(b))),
            Element::Same(d) => return Err(Error::new(Kind::Format, format!("a tensor of dtype {d:?} is not read"))),
            Element::Bool => tensor!(|b: [u8; 1]| Ok((b[0] != 0) as u8)),
            Element::I8 => tensor!(|b: [u8; 1]| Ok(b[0] as i8 as i16)),
            Element::U16 => tensor!(|b| Ok(u16::from_le_bytes(b) as u32)),
            Element::U64 => tensor!(|b| {
                let v = u64::from_le_bytes(b);
                i64::try_from(v)
                    .map_err(|_| Error::new(Kind::Format, format!("the unsigned integer {v} does not fit in i64")))
            }),
            Element::F8E4M3 => tensor!(|b: [u8; 1]| Ok(e4m3(b[0]))),
            // the upper half of an f16
            Element::F8E5M2 => tensor!(|b: [u8; 1]| Ok(half::f16::from_le_bytes([0, b[0]]).to_f32())),
        })
    }
}

/// The number that the byte stands for in E4M3 (bias 7, all ones is NaN, no infinities).
fn e4m3(b: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(b >> 3 & 15), f32::from(b & 7));
    let size = match (exponent, b & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * (-6f32).exp2(),
        _ => (1.0 + mantissa / 8.0) * ((exponent - 7) as f32).exp2(),
    };
    if b & 0x80 == 0 { size } else { -size }
}

/// `n` values of `N` bytes each.
fn values<T, const N: usize>(
    r: &mut dyn Read,
    n: usize,
    big_endian: bool,
    one: impl Fn([u8; N]) -> Result<T>,
) -> Result<Vec<T>> {
    let mut out = vec![];
    let none = |_| Error::new(Kind::Memory, format!("there is no memory for {n} values"));
    out.try_reserve_exact(n).map_err(none)?;
    let mut piece = vec![0; PIECE.min(n * N)];
    while out.len() < n {
        check_cancelled()?;
        let now = &mut piece[..PIECE.min((n - out.len()) * N) / N * N];
        fill(r, now, "the data", out.len() * N, n * N)?;
        for bytes in now.chunks_exact_mut(N) {
            if big_endian {
                bytes.reverse();
            }
            // chunks of N bytes are arrays of N bytes
            out.push(one(bytes.try_into().unwrap_or([0; N]))?);
        }
    }
    Ok(out)
}

/// Fills `to` from `r`; `before` bytes of `all` came already.
fn fill(r: &mut dyn Read, to: &mut [u8], what: &str, before: usize, all: usize) -> Result<()> {
    let mut have = 0;
    while have < to.len() {
        match r.read(&mut to[have..]).map_err(|e| broken(format!("{what}: {e}")))? {
            0 => return Err(broken(format!("{what} ends after {} of {all} bytes", before + have))),
            n => have += n,
        }
    }
    Ok(())
}

/// The values of a tensor as little-endian bytes.
pub(super) fn encode(t: &Tensor) -> Result<Vec<u8>> {
    memory::room("writing a tensor", t.elem_count().saturating_mul(t.dtype().size_in_bytes()))?;
    let t = t.clone();
    aside::run(aside::load(&[&t]), move || bytes_of(&t))
}

fn bytes_of(t: &Tensor) -> Result<Vec<u8>> {
    let t = t.detach().to_device(&Device::Cpu)?.flatten_all()?;
    macro_rules! bytes {
        ($ty:ty) => {
            t.to_vec1::<$ty>()?.iter().flat_map(|v| v.to_le_bytes()).collect()
        };
    }
    Ok(match t.dtype() {
        DType::U8 => t.to_vec1::<u8>()?,
        DType::U32 => bytes!(u32),
        DType::I16 => bytes!(i16),
        DType::I32 => bytes!(i32),
        DType::I64 => bytes!(i64),
        DType::BF16 => bytes!(half::bf16),
        DType::F16 => bytes!(half::f16),
        DType::F32 => bytes!(f32),
        DType::F64 => bytes!(f64),
        d => return Err(Error::new(Kind::Type, format!("a tensor of dtype {} cannot be written", d.as_str()))),
    })
}

struct Header {
    element: Element,
    big_endian: bool,
    fortran: bool,
    shape: Vec<usize>,
}

/// What a header describes: an array that is read here, or a sound one that is not, with the reason.
enum Described {
    Array(Header),
    Other(Error),
}

fn broken(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Format, format!("not a valid npy array: {why}"))
}

/// The type of a numpy code without its byte order.
fn element(name: &str) -> Option<Element> {
    Some(match name {
        "f2" => Element::Same(DType::F16),
        "f4" => Element::Same(DType::F32),
        "f8" => Element::Same(DType::F64),
        "i2" => Element::Same(DType::I16),
        "i4" => Element::Same(DType::I32),
        "i8" => Element::Same(DType::I64),
        "u1" => Element::Same(DType::U8),
        "u4" => Element::Same(DType::U32),
        "b1" | "?" => Element::Bool,
        "i1" => Element::I8,
        "u2" => Element::U16,
        "u8" => Element::U64,
        _ => return None,
    })
}

/// Reads a header: a dictionary as Python writes it, with the keys `descr`, `fortran_order` and `shape`, each once and no other.
fn parse_header(text: &str) -> Result<Described> {
    let Literal::Dict(entries) = literal::parse(text).map_err(|why| broken(format!("the header: {why}")))? else {
        return Err(broken("the header is no dictionary"));
    };
    let of = |key: &str| {
        let mut found = entries.iter().filter(|(k, _)| k == key).map(|(_, v)| v);
        match (found.next(), found.next()) {
            (Some(v), None) => Ok(v),
            (None, _) => Err(broken(format!("the header has no `{key}`"))),
            _ => Err(broken(format!("the header has `{key}` twice"))),
        }
    };
    if let Some((other, _)) = entries.iter().find(|(k, _)| !["descr", "fortran_order", "shape"].contains(&k.as_str())) {
        return Err(broken(format!("the header has an entry `{other}`")));
    }
    let Literal::Bool(fortran) = *of("fortran_order")? else {
        return Err(broken("`fortran_order` is neither True nor False"));
    };
    let Literal::Tuple(sizes) = of("shape")? else { return Err(broken("`shape` is not a tuple")) };
    let size = |v: &Literal| match v {
        Literal::Int(n) => usize::try_from(*n).map_err(|_| broken(format!("the size `{n}` in its shape"))),
        other => Err(broken(format!("the size `{other:?}` in its shape"))),
    };
    let shape = sizes.iter().map(size).collect::<Result<Vec<usize>>>()?;
    if shape.len() > 32 {
        return Err(broken(format!("{} dimensions", shape.len())));
    }
    let Literal::Text(code) = of("descr")? else {
        let e = Error::new(Kind::Format, "npy: structured arrays (records) cannot be read");
        return Ok(Described::Other(e.hint("save the fields as separate arrays")));
    };
    let (order, name) = match code.chars().next() {
        Some(c) if matches!(c, '<' | '>' | '|' | '=') => (c, &code[1..]),
        _ => ('<', code.as_str()),
    };
    match element(name) {
        Some(element) => Ok(Described::Array(Header { element, big_endian: order == '>', fortran, shape })),
        None if name.starts_with('O') => {
            let e = Error::new(Kind::Format, "npy: an array of Python objects is a pickle, and is not read");
            Ok(Described::Other(e.hint("save numbers: `np.save(path, array.astype('float32'))`")))
        }
        None => {
            let e = Error::new(Kind::Format, format!("npy: dtype '{code}' is not supported"));
            Ok(Described::Other(e.hint("known: bool, int8 to int64, uint8 to uint64, float16, float32, float64")))
        }
    }
}

/// Reads one array from `r`; an array of more than `most` bytes is the error `too_large`, before memory is taken. A sound array of a
/// kind that is not read is an error in the result.
fn read_from(r: &mut dyn Read, most: u64, too_large: fn(&[usize], usize) -> Error) -> Result<Result<Tensor>> {
    let mut exact = |n: usize, what: &str| -> Result<Vec<u8>> {
        let mut buffer = vec![0; n];
        fill(r, &mut buffer, what, 0, n)?;
        Ok(buffer)
    };
    let magic = exact(8, "the magic number")?;
    if &magic[..6] != b"\x93NUMPY" {
        return Err(broken("it does not begin with the magic number"));
    }
    let length = match magic[6] {
        1 => exact(2, "the header")?,
        2 | 3 => exact(4, "the header")?,
        v => return Err(broken(format!("version {v} is not known"))),
    };
    let length = length.iter().rev().fold(0usize, |n, b| n << 8 | *b as usize);
    if length > LONGEST_HEADER {
        return Err(broken(format!("a header of {length} bytes")));
    }
    let text = exact(length, "the header")?;
    let h = match parse_header(&String::from_utf8_lossy(&text))? {
        Described::Array(h) => h,
        Described::Other(why) => return Ok(Err(why)),
    };
    let n = elements(&h.shape).and_then(|n| n.checked_mul(h.element.size()));
    match n {
        Some(need) if need as u64 <= most => {}
        Some(need) if need < 1 << 40 => return Err(too_large(&h.shape, need)),
        _ => drop(check_size("npy", &h.shape, DType::F64)?),
    }
    check_size("npy", &h.shape, h.element.dtype())?;
    if h.fortran && h.shape.len() > 1 {
        let turned: Vec<usize> = h.shape.iter().rev().copied().collect();
        let order: Vec<usize> = (0..h.shape.len()).rev().collect();
        return Ok(Ok(h.element.read(r, h.big_endian, &turned)?.permute(order)?.contiguous()?));
    }
    Ok(Ok(h.element.read(r, h.big_endian, &h.shape)?))
}

/// The array in the bytes of a `.npy` file.
pub fn from_bytes(bytes: &[u8]) -> Result<Tensor> {
    read_from(&mut &*bytes, bytes.len() as u64, larger_than_the_file)?
}

fn larger_than_the_file(shape: &[usize], need: usize) -> Error {
    broken(format!("shape {shape:?} needs {need} bytes, more than the file has")).shapes(&[shape])
}

/// Reads a `.npy` file. Bools and u8 give u8, i8 i16, u16 u32, u64 i64, all others their own dtype; on the CPU. What follows the array in
/// the file is told by a note.
pub fn read_npy(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    let (mut file, meta) = atomic::open(path)?;
    let named = |e: Error| e.context(path.display());
    let array = read_from(&mut file, meta.len(), larger_than_the_file).map_err(|e| {
        let head = atomic::head(path).unwrap_or_default();
        named(sniff::instead(&head, "npy file", &["a numpy array"]).unwrap_or(e))
    })?;
    let array = array.map_err(named)?;
    let mut rest = vec![];
    let more = file.take(6).read_to_end(&mut rest).map_err(|e| Error::io(path, "read", e))?;
    match (more, rest.starts_with(b"\x93NUMPY")) {
        (0, _) => {}
        (_, true) => note(&format!("`{}` holds further arrays behind the first, which are not read", path.display())),
        (_, false) => note(&format!("`{}` has further bytes behind the array, which are not read", path.display())),
    }
    Ok(array)
}

/// Reads a `.npz` archive: names and arrays, in the archive's order. Entries that are no arrays of numbers are left out with a note.
pub fn read_npz(path: impl AsRef<Path>) -> Result<Vec<(String, Tensor)>> {
    let path = path.as_ref();
    let data = Data::file(atomic::open(path)?.0).map_err(|e| Error::io(path, "read", e))?;
    read_archive(&data).map_err(|e| e.context(path.display()))
}

/// The arrays of an npz archive.
pub fn read_archive(data: &Data) -> Result<Vec<(String, Tensor)>> {
    let head = data.head(512)?;
    if !is_zip(&head) {
        let other = sniff::instead(&head, "npz archive", &[]);
        return Err(other.unwrap_or_else(|| Error::new(Kind::Format, "not a valid npz archive: it is no zip archive")));
    }
    let bad = |f: super::pickle::Fault| Error::new(Kind::Format, format!("not a valid npz archive: {f}"));
    let archive = Archive::open(data).map_err(bad)?;
    let mut out: Vec<(String, Tensor)> = vec![];
    let mut unread: Vec<Error> = vec![];
    // compressed zeros take a thousandth of their size: what all arrays may take together is bounded by the file's
    let mut left = SUSPICIOUS.max(data.len().saturating_mul(RATIO)) as u64;
    let too_large = |shape: &[usize], need: usize| {
        let m =
            format!("npz: shape {shape:?} needs {need} bytes: all arrays together take over {RATIO} times the file");
        Error::new(Kind::Memory, m).hint("if you trust the file, save it without compression")
    };
    for entry in archive.names() {
        let Some(name) = entry.strip_suffix(".npy") else {
            unread.push(Error::new(Kind::Format, format!("`{entry}` is no array")));
            continue;
        };
        let named = |e: Error| e.context(format!("array `{name}`"));
        let Some(content) = archive.get(entry).map_err(bad)? else { continue };
        let mut reader = content.reader();
        match read_from(&mut reader, left, too_large).map_err(named)? {
            Ok(t) => {
                left = left.saturating_sub((t.elem_count() * t.dtype().size_in_bytes()) as u64);
                out.push((name.to_string(), t));
            }
            Err(why) => unread.push(named(why)),
        }
        // the checksum is compared at the end of the entry
        let more = std::io::copy(&mut reader, &mut std::io::sink()).map_err(|e| named(broken(e)))?;
        if more > 0 && out.last().is_some_and(|(n, _)| n == name) {
            note(&format!("array `{name}` has {more} further bytes behind it, which are not read"));
        }
    }
    if out.is_empty()
        && let Some(why) = unread.pop()
    {
        return Err(why);
    }
    unread.iter().for_each(|why| note(&format!("left out: {}", why.message())));
    Ok(out)
}

/// The bytes before an array's values in the npy format, version 1.0.
pub(super) fn header(code: &str, dims: &[usize]) -> Vec<u8> {
    let shape: String = dims.iter().map(|d| format!("{d}, ")).collect();
    let shape = if dims.len() == 1 { shape.trim_end() } else { shape.trim_end_matches(", ") };
    let mut text = format!("{{'descr': '{code}', 'fortran_order': False, 'shape': ({shape}), }}");
    // magic, version and length take 10 bytes; the data begins at a multiple of 64
    let pad = 63 - (10 + text.len()) % 64;
    text.push_str(&" ".repeat(pad));
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out
}

/// One array in the npy format, version 1.0: what stands before the values, and these.
fn npy_bytes(t: &Tensor) -> Result<[Vec<u8>; 2]> {
    let code = match t.dtype() {
        DType::U8 => "|u1",
        DType::U32 => "<u4",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::F16 => "<f2",
        DType::F64 => "<f8",
        _ => "<f4",
    };
    // numpy has no bf16: it is written as f32, which holds it exactly
    let t = if code == "<f4" { t.to_dtype(DType::F32)? } else { t.clone() };
    Ok([header(code, t.dims()), encode(&t)?])
}

/// Writes a `.npy` file (bf16 as f32).
pub fn write_npy(path: impl AsRef<Path>, t: &Tensor) -> Result<()> {
    let parts = npy_bytes(t)?;
    atomic::write_with(path, |f| parts.iter().try_for_each(|p| f.write_all(p)))
}

/// Writes an uncompressed `.npz` archive, as `np.savez`; the same arrays give the same bytes.
pub fn write_npz(path: impl AsRef<Path>, arrays: &[(String, Tensor)]) -> Result<()> {
    let path = path.as_ref();
    let failed =
        |e: std::io::Error| crate::host::check_cancelled().err().unwrap_or_else(|| Error::io(path, "write", e));
    let mut zip = zip::ZipWriter::new(Cursor::new(vec![]));
    for (name, t) in arrays {
        if name.is_empty() || name.contains(['/', '\\', '\0']) {
            return Err(Error::value(format!("npz: `{name}` cannot name an array")));
        }
        let parts = npy_bytes(t)?;
        let size: usize = parts.iter().map(Vec::len).sum();
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(size as u64 >= u32::MAX as u64);
        zip.start_file(format!("{name}.npy"), options).map_err(|e| failed(e.into()))?;
        for piece in parts.iter().flat_map(|p| p.chunks(atomic::PIECE)) {
            atomic::stopped().and_then(|()| zip.write_all(piece)).map_err(failed)?;
        }
    }
    let done = zip.finish().map_err(|e| failed(e.into()))?;
    atomic::write(path, &done.into_inner())
}
