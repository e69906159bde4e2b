//! What a file is by its content, whatever its name says: for the error that a reader gives.
use crate::{Error, Kind};

const AGAIN: &str = "download it again, and see that the address is that of the file itself";
const PICTURE: &str = "PNG and JPEG are what pictures are read from: convert it first";

/// How files of a kind begin, what they are, and what to do with one.
const BEGINNINGS: [(&[u8], &str, &str); 23] = [
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file that it stands for: `git lfs pull`"),
    (b"\x93NUMPY", "a numpy array", "read it with `load`, under a name that ends in .npy"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", "read it with `image::load`"),
    (b"PK\x03\x04", "a zip archive", "`load` reads .npz, `checkpoint::open` what torch.save writes"),
    (b"PK\x05\x06", "an empty zip archive", "it holds nothing"),
    (b"\x80\x02", "a pickle", "read it with `checkpoint::open`"),
    (b"\x80\x03", "a pickle", "read it with `checkpoint::open`"),
    (b"\x80\x04", "a pickle", "read it with `checkpoint::open`"),
    (b"\x80\x05", "a pickle", "read it with `checkpoint::open`"),
    (b"\xff\xd8\xff", "a JPEG picture", "read it with `image::load`"),
    (b"GIF8", "a GIF picture", PICTURE),
    (b"RIFF", "a WebP picture or a sound", PICTURE),
    (b"II*\0", "a TIFF picture", PICTURE),
    (b"MM\0*", "a TIFF picture", PICTURE),
    (b"%PDF", "a PDF document", PICTURE),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "save what it holds as .npz or .safetensors"),
    (b"\x1f\x8b", "a gzip file", "unpack it first"),
    (b"BZh", "a bzip2 file", "unpack it first"),
    (b"\xfd7zXZ", "an xz file", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it first"),
    (b"GGUF", "a GGUF file of quantized weights", "they are not read: get the .safetensors or .ckpt of the model"),
    (b"\x7fELF", "a program", AGAIN),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
];

/// What a file whose first bytes (512 or all) are `head` is, and what to do, where that can be told.
pub fn sniff(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let text = head[..head.len().min(512)].trim_ascii_start();
    let page = [&b"<!doctype"[..], b"<html", b"<?xml"];
    let page = page.iter().any(|p| text.get(..p.len()).is_some_and(|h| h.eq_ignore_ascii_case(p)));
    let header = head.first_chunk::<8>().map(|n| u64::from_le_bytes(*n)).is_some_and(|n| n < 1 << 40);
    match () {
        _ if head.is_empty() => Some(("an empty file", AGAIN)),
        _ if page => Some(("a web page", AGAIN)),
        _ if head.get(257..262) == Some(b"ustar") => {
            Some(("a tar archive, as PyTorch wrote before 0.2", "unpack it, or save it again with a newer PyTorch"))
        }
        _ if header && head.get(8) == Some(&b'{') => Some((
            "a safetensors file",
            "read it with `checkpoint::open` or `load`, under a name that ends in .safetensors",
        )),
        _ => BEGINNINGS.iter().find(|(begin, ..)| head.starts_with(begin)).map(|(_, what, hint)| (*what, *hint)),
    }
}

/// The error for a file that is something else than `wanted` (`PNG file`); `None` where it may be that: it is one of `fine`, or
/// nothing that is known.
pub fn instead(head: &[u8], wanted: &str, fine: &[&str]) -> Option<Error> {
    let (what, hint) = sniff(head).filter(|(what, _)| !fine.contains(what))?;
    Some(Error::new(Kind::Format, format!("no {wanted} but {what}")).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let what = |head: &[u8]| sniff(head).map(|k| k.0);
        assert_eq!(what(b""), Some("an empty file"));
        assert_eq!(what(b"\n <!DOCTYPE HTML><title>"), Some("a web page"));
        assert_eq!(what(b"\x50\0\0\0\0\0\0\0{\"a\":"), Some("a safetensors file"));
        assert_eq!(what(b"\xff\xd8\xff\xe0JFIF"), Some("a JPEG picture"));
        assert_eq!(what(b"{\"format\": 1}"), None);
        assert!(instead(b"PK\x03\x04", "npz archive", &["a zip archive"]).is_none());
        assert_eq!(
            instead(b"GIF89a", "PNG file", &[]).map(|e| e.message().to_string()),
            Some("no PNG file but a GIF picture".into())
        );
    }
}
