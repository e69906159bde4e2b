//! numpy's `.npy` and `.npz`, in and out. Nothing is executed (object arrays are refused), sizes are checked before
//! memory is taken, and files are replaced as a whole.
use super::atomic;
use crate::tensor::aside;
use crate::tensor::dtype::check_size;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::io::{Cursor, Read, Write};
use std::path::Path;

/// A header longer than this is no header (numpy's own limit is 10,000).
const LONGEST_HEADER: usize = 1 << 16;
/// An archive that unpacks to more than this and to more than [`RATIO`] times its size is taken for a trap.
const SUSPICIOUS: u64 = 2 << 30;
const RATIO: u64 = 100;

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
}

impl Element {
    pub(super) fn size(self) -> usize {
        match self {
            Element::Same(d) => d.size_in_bytes(),
            Element::Bool | Element::I8 => 1,
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
        }
    }
    /// A tensor from little-endian bytes, exactly as many as `shape` needs.
    pub(super) fn decode(self, bytes: &[u8], shape: &[usize]) -> Result<Tensor> {
        let cpu = &Device::Cpu;
        if bytes.is_empty() {
            return Ok(Tensor::zeros(shape, self.dtype(), cpu)?);
        }
        Ok(match self {
            Element::Same(d) => Tensor::from_raw_buffer(bytes, d, shape, cpu)?,
            Element::Bool => Tensor::from_vec(bytes.iter().map(|b| (*b != 0) as u8).collect(), shape, cpu)?,
            Element::I8 => {
                let v: Vec<i64> = bytes.iter().map(|b| *b as i8 as i64).collect();
                Tensor::from_vec(v, shape, cpu)?.to_dtype(DType::I16)?
            }
            Element::U16 => {
                let v: Vec<u32> = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]) as u32).collect();
                Tensor::from_vec(v, shape, cpu)?
            }
            Element::U64 => {
                let one = |b: &[u8]| {
                    let v = b.iter().rev().fold(0u64, |v, b| v << 8 | *b as u64);
                    i64::try_from(v)
                        .map_err(|_| Error::new(Kind::Format, format!("the unsigned integer {v} does not fit in i64")))
                };
                Tensor::from_vec(bytes.chunks_exact(8).map(one).collect::<Result<Vec<i64>>>()?, shape, cpu)?
            }
        })
    }
}

/// The values of a tensor as little-endian bytes.
pub(super) fn encode(t: &Tensor) -> Result<Vec<u8>> {
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

fn broken(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Format, format!("not a valid npy array: {why}"))
}

/// The text behind `'key':` in the header's dictionary.
fn field<'a>(text: &'a str, key: &str) -> Result<&'a str> {
    let find = |q: char| text.find(&format!("{q}{key}{q}")).map(|i| &text[i + key.len() + 2..]);
    let rest = find('\'').or_else(|| find('"')).ok_or_else(|| broken(format!("the header has no `{key}`")))?;
    let rest =
        rest.trim_start().strip_prefix(':').ok_or_else(|| broken(format!("the header's `{key}` has no value")))?;
    Ok(rest.trim_start())
}

fn parse_header(text: &str) -> Result<Header> {
    let descr = field(text, "descr")?;
    let quote = descr.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let code = quote.and_then(|q| descr[1..].split_once(q)).map(|(code, _)| code).ok_or_else(|| {
        let e = Error::new(Kind::Format, "npy: structured arrays (records) cannot be read");
        e.hint("save the fields as separate arrays")
    })?;
    let (order, name) = match code.chars().next() {
        Some(c) if matches!(c, '<' | '>' | '|' | '=') => (c, &code[1..]),
        _ => ('<', code),
    };
    let element = match name {
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
        n if n.starts_with('O') => {
            let e = Error::new(Kind::Format, "npy: an array of Python objects is a pickle, and is not read");
            return Err(e.hint("save numbers: `np.save(path, array.astype('float32'))`"));
        }
        _ => {
            let e = Error::new(Kind::Format, format!("npy: dtype '{code}' is not supported"));
            return Err(e.hint("known: bool, int8 to int64, uint8 to uint64, float16, float32, float64"));
        }
    };
    let fortran = match field(text, "fortran_order")? {
        f if f.starts_with("True") => true,
        f if f.starts_with("False") => false,
        _ => return Err(broken("`fortran_order` is neither True nor False")),
    };
    let list = field(text, "shape")?.strip_prefix('(').and_then(|s| s.split_once(')')).map(|(s, _)| s);
    let list = list.ok_or_else(|| broken("`shape` is not a tuple"))?;
    let shape = list
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.trim_end_matches('L').parse().map_err(|_| broken(format!("the size `{s}` in its shape"))))
        .collect::<Result<Vec<usize>>>()?;
    if shape.len() > 32 {
        return Err(broken(format!("{} dimensions", shape.len())));
    }
    Ok(Header { element, big_endian: order == '>', fortran, shape })
}

/// Reads one array from `r`; an array of more than `most` bytes is the error `too_large`, before memory is taken.
fn read_from(r: &mut impl Read, most: u64, too_large: fn(&[usize], usize) -> Error) -> Result<Tensor> {
    let mut exact = |n: usize, what: &str| -> Result<Vec<u8>> {
        let mut buffer = vec![];
        r.by_ref().take(n as u64).read_to_end(&mut buffer).map_err(|e| broken(format!("{what}: {e}")))?;
        match buffer.len() == n {
            true => Ok(buffer),
            false => Err(broken(format!("{what} ends after {} of {n} bytes", buffer.len()))),
        }
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
    let h = parse_header(&String::from_utf8_lossy(&text))?;
    check_size("npy", &h.shape, DType::F64)?;
    let n: usize = h.shape.iter().product();
    let need = n * h.element.size();
    if need as u64 > most {
        return Err(too_large(&h.shape, need));
    }
    let mut bytes = exact(need, "the data")?;
    if h.big_endian {
        bytes.chunks_exact_mut(h.element.size()).for_each(<[u8]>::reverse);
    }
    if h.fortran && h.shape.len() > 1 {
        let turned: Vec<usize> = h.shape.iter().rev().copied().collect();
        let order: Vec<usize> = (0..h.shape.len()).rev().collect();
        return Ok(h.element.decode(&bytes, &turned)?.permute(order)?.contiguous()?);
    }
    h.element.decode(&bytes, &h.shape)
}

/// Reads a `.npy` file. Bools and u8 give u8, i8 i16, u16 u32, u64 i64, all others their own dtype; on the CPU.
pub fn read_npy(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    let bytes = atomic::read(path)?;
    let size = bytes.len() as u64;
    let too_large = |shape: &[usize], need: usize| {
        broken(format!("shape {shape:?} needs {need} bytes, more than the file has")).shapes(&[shape])
    };
    read_from(&mut Cursor::new(bytes), size, too_large).map_err(|e| e.context(path.display()))
}

/// Reads a `.npz` archive: names and arrays, in the archive's order.
pub fn read_npz(path: impl AsRef<Path>) -> Result<Vec<(String, Tensor)>> {
    let path = path.as_ref();
    let bytes = atomic::read(path)?;
    let size = bytes.len() as u64;
    read_archive(bytes, size).map_err(|e| e.context(path.display()))
}

fn read_archive(bytes: Vec<u8>, size: u64) -> Result<Vec<(String, Tensor)>> {
    let bad = |e: zip::result::ZipError| Error::new(Kind::Format, format!("not a valid npz archive: {e}"));
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(bad)?;
    let mut out: Vec<(String, Tensor)> = vec![];
    // compressed zeros take a thousandth of their size: what all arrays may take together is bounded by the file's
    let mut left = SUSPICIOUS.max(size.saturating_mul(RATIO));
    let too_large = |shape: &[usize], need: usize| {
        let m =
            format!("npz: shape {shape:?} needs {need} bytes: all arrays together take over {RATIO} times the file");
        Error::new(Kind::Memory, m).hint("if you trust the file, save it without compression")
    };
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(bad)?;
        let name = entry.name().map_err(bad)?.into_owned();
        let Some(name) = name.strip_suffix(".npy").map(str::to_string) else { continue };
        if out.iter().any(|(n, _)| *n == name) {
            return Err(Error::new(Kind::Format, format!("npz: the name `{name}` appears twice")));
        }
        let t = read_from(&mut entry, left, too_large).map_err(|e| e.context(format!("array `{name}`")))?;
        left = left.saturating_sub((t.elem_count() * t.dtype().size_in_bytes()) as u64);
        out.push((name, t));
    }
    match out.is_empty() && size > 22 {
        true => Err(Error::new(Kind::Format, "a zip archive without arrays").hint("a .npz file holds .npy entries")),
        false => Ok(out),
    }
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
