//! JPEG files: the pictures in them, and pictures as such files.
use super::image::{Image, MOST_PIXELS};
use crate::host::note;
use crate::tensor::memory;
use crate::{Error, Kind, Result};
use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::metadata::Orientation;
use image::{ColorType, ExtendedColorType, ImageDecoder};

/// Whether a file begins as a JPEG file.
pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xff\xd8\xff")
}

fn incomplete(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Format, format!("not a complete JPEG file: {why}")).hint("make or download it again")
}

/// The picture in a JPEG file: grey, or in three colours.
pub(super) fn decode(bytes: &[u8]) -> Result<Image> {
    // the decoder fills what is missing with grey. These two markers cannot stand within the data of a picture
    let last = |marker: &[u8]| bytes.windows(2).rposition(|w| w == marker);
    if last(b"\xff\xd9").is_none_or(|end| last(b"\xff\xda").is_some_and(|start| start > end)) {
        return Err(incomplete("its end is missing"));
    }
    let mut decoder = JpegDecoder::new(std::io::Cursor::new(bytes)).map_err(incomplete)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    if width.checked_mul(height).is_none_or(|p| p > MOST_PIXELS || p == 0) {
        return Err(Error::new(Kind::Format, format!("a JPEG of {width}×{height} pixels is too large")));
    }
    if decoder.orientation().is_ok_and(|o| o != Orientation::NoTransforms) {
        note("the picture says that it is to be turned: it is read as it is stored");
    }
    let channels = match decoder.color_type() {
        ColorType::L8 => 1,
        ColorType::Rgb8 => 3,
        other => return Err(Error::new(Kind::Format, format!("a JPEG with values of {other:?} is not read"))),
    };
    let size = width * height * channels;
    memory::room("a picture", size)?;
    let mut data = vec![0; size];
    decoder.read_image(&mut data).map_err(incomplete)?;
    Ok(Image { width, height, channels, data })
}

/// The picture as a JPEG file's bytes; `quality` from 1 to 100.
pub(super) fn encode(image: &Image, quality: u8) -> Result<Vec<u8>> {
    let side =
        |n: usize| u16::try_from(n).map_err(|_| Error::value("image: a JPEG has at most 65535 pixels on a side"));
    let (width, height) = (side(image.width)?, side(image.height)?);
    let color = if image.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut out = vec![];
    JpegEncoder::new_with_quality(&mut out, quality)
        .encode(&image.data, width.into(), height.into(), color)
        .map_err(|e| Error::new(Kind::Internal, format!("cannot encode JPEG: {e}")))?;
    Ok(out)
}
