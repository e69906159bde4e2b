//! The idx files of MNIST and those like it, packed by gzip or not.
use super::arrays::{self, Arrays};
use crate::files::atomic;
use crate::tensor::dtype::elements;
use crate::tensor::memory;
use crate::{Error, Kind, Result};
use candle_core::{Device, Tensor};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most bytes that are read of one file.
const MOST: u64 = 1 << 36;

/// Whether a file begins as an idx file of bytes, or as gzip.
pub(super) fn is_idx(head: &[u8]) -> bool {
    head.starts_with(&[0, 0, 8]) && matches!(head.get(3), Some(1..=4))
}

/// Pictures [N, H, W] and, where the file beside them that is named alike has them, their labels.
pub(super) fn open(path: &Path, labels: bool) -> Result<Arrays> {
    let pixels = read(path)?;
    if pixels.rank() != 3 {
        let e =
            Error::new(Kind::Format, format!("`{}` holds no pictures but {:?} bytes", path.display(), pixels.dims()));
        return Err(e.hint("name the file of pictures: `…-images-idx3-ubyte`"));
    }
    let beside = if labels { partner(path) } else { None };
    let classes = beside.map(|file| -> Result<Vec<i64>> {
        let t = read(&file)?;
        Ok(t.flatten_all()?.to_vec1::<u8>()?.into_iter().map(i64::from).collect())
    });
    arrays::of(&pixels, classes.transpose()?, &path.display().to_string())
}

/// The file of labels beside a file of pictures.
fn partner(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let other = name.replace("images", "labels").replace("idx3", "idx1");
    let bare = other.strip_suffix(".gz").unwrap_or(&other).to_string();
    let file = [other.clone(), bare.clone(), format!("{bare}.gz")].map(|n| path.with_file_name(n));
    file.into_iter().find(|f| f.as_path() != path && f.exists())
}

/// The bytes of an idx file as a tensor of its dimensions.
fn read(path: &Path) -> Result<Tensor> {
    let named = |e: Error| e.context(path.display());
    let (file, _) = atomic::open(path)?;
    let mut head = [0; 2];
    let packed = atomic::head(path)?.starts_with(b"\x1f\x8b");
    let mut reader: Box<dyn Read> = match packed {
        true => Box::new(flate2::read::MultiGzDecoder::new(std::io::BufReader::new(file)).take(MOST)),
        false => Box::new(std::io::BufReader::new(file).take(MOST)),
    };
    let cut = |e: std::io::Error| named(Error::new(Kind::Format, format!("the idx file is cut off or damaged: {e}")));
    let wrong = |m: String| named(Error::new(Kind::Format, m));
    reader.read_exact(&mut head).map_err(cut)?;
    let mut kind = [0; 2];
    reader.read_exact(&mut kind).map_err(cut)?;
    let [code, rank] = kind;
    if head != [0, 0] || !(1..=4).contains(&rank) {
        return Err(wrong("no idx file: it does not begin with two zeros, a type and a number of dimensions".into()));
    }
    if code != 8 {
        return Err(wrong(format!("an idx file of type 0x{code:02x}: only bytes (0x08) are read")));
    }
    let mut dims = vec![];
    for _ in 0..rank {
        let mut n = [0; 4];
        reader.read_exact(&mut n).map_err(cut)?;
        dims.push(u32::from_be_bytes(n) as usize);
    }
    let size = elements(&dims).filter(|n| (*n as u64) < MOST);
    let size = size.ok_or_else(|| wrong(format!("an idx file of {dims:?} bytes is too large")))?;
    memory::room("the idx file", size)?;
    let mut bytes = vec![];
    let got = reader.by_ref().take(size as u64).read_to_end(&mut bytes).map_err(cut)?;
    if got < size {
        return Err(wrong(format!("the idx file is cut off: it holds {got} of {size} bytes")));
    }
    // the rest of a gzip file holds its checksum
    let more = std::io::copy(&mut reader, &mut std::io::sink()).map_err(cut)?;
    if more > 0 {
        return Err(wrong(format!("the idx file has {more} bytes more than its {dims:?}")));
    }
    Ok(Tensor::from_vec(bytes, dims, &Device::Cpu)?)
}
