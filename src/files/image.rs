//! 8-bit images: from tensors in [−1, 1] and back, grids, and files: PNG, and JPEG (`jpeg.rs`).
use super::{atomic, jpeg, sniff};
use crate::host::note;
use crate::tensor::{aside, memory};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::panic::catch_unwind;
use std::path::Path;

/// The most pixels that an image may have (a PNG header can claim 2⁶²).
pub(super) const MOST_PIXELS: usize = 1 << 28;

/// A grey or RGB picture with 8 bits per channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Rows from the top, pixels from the left, channels together: `width · height · channels` bytes.
    pub data: Vec<u8>,
}

/// The quality of a JPEG where none is given.
pub const QUALITY: u8 = 92;

/// How [`grid`] lays out a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct GridOptions {
    /// Pictures per row; by default about as many as rows.
    pub cols: Option<usize>,
    /// Pixels per pixel, ≥ 1.
    pub scale: usize,
    /// Pixels between pictures and around them (not scaled).
    pub pad: usize,
    /// The grey level between pictures.
    pub background: u8,
}

impl Default for GridOptions {
    fn default() -> Self {
        GridOptions { cols: None, scale: 1, pad: 2, background: 255 }
    }
}

impl Image {
    /// A picture of one colour (`rgb`; grey pictures take its first number).
    pub fn filled(width: usize, height: usize, channels: usize, rgb: [u8; 3]) -> Result<Self> {
        let pixels = width.checked_mul(height).filter(|p| *p <= MOST_PIXELS && *p > 0);
        let Some(pixels) = pixels else {
            let e = Error::value(format!("an image of {width}×{height} pixels cannot be made"));
            return Err(e.hint(format!("an image has between 1 and {MOST_PIXELS} pixels")));
        };
        memory::room("a picture", pixels.saturating_mul(channels))?;
        let data = match channels {
            1 => vec![rgb[0]; pixels],
            3 => rgb.repeat(pixels),
            _ => return Err(Error::value(format!("an image has 1 or 3 channels, not {channels}"))),
        };
        Ok(Image { width, height, channels, data })
    }

    /// From a tensor [H, W], [C, H, W] or [B, C, H, W] with B = 1 and C = 1 or 3, values in [−1, 1] (cut off
    /// outside; NaN is drawn black).
    pub fn from_tensor(t: &Tensor) -> Result<Self> {
        let mut batch = from_batch("image", t)?;
        match (batch.len(), batch.pop()) {
            (1, Some(image)) => Ok(image),
            (n, _) => {
                let e = Error::shape(format!("image: a batch of {n} is not one picture"), &[t.dims()]);
                Err(e.hint("use `image::grid` for a batch"))
            }
        }
    }

    /// A tensor [C, H, W] in f32 with values in [−1, 1].
    pub fn to_tensor(&self) -> Result<Tensor> {
        let t = Tensor::from_slice(&self.data, (self.height, self.width, self.channels), &Device::Cpu)?;
        Ok(t.permute((2, 0, 1))?.to_dtype(DType::F32)?.affine(2.0 / 255.0, -1.0)?.contiguous()?)
    }

    /// The same picture in three channels.
    pub fn to_rgb(&self) -> Image {
        if self.channels == 3 {
            return self.clone();
        }
        Image { channels: 3, data: self.data.iter().flat_map(|g| [*g; 3]).collect(), ..*self }
    }

    /// Each pixel `k`×`k` times.
    pub fn enlarged(&self, k: usize) -> Result<Image> {
        if k == 0 {
            return Err(Error::value("image: scale must be at least 1, not 0"));
        }
        let (w, h) = (self.width.saturating_mul(k), self.height.saturating_mul(k));
        let mut out = Image::filled(w, h, self.channels, [0; 3])?;
        for y in 0..h {
            for x in 0..w {
                let c = self.channels;
                let (from, to) = (((y / k) * self.width + x / k) * c, (y * w + x) * c);
                out.data[to..to + c].copy_from_slice(&self.data[from..from + c]);
            }
        }
        Ok(out)
    }

    /// Copies `other` (same number of channels) to (x, y); what does not fit is cut off.
    pub(crate) fn paste(&mut self, other: &Image, x: usize, y: usize) {
        let c = self.channels.min(other.channels);
        let w = other.width.min(self.width.saturating_sub(x));
        for row in 0..other.height.min(self.height.saturating_sub(y)) {
            let (from, to) = (row * other.width * c, ((y + row) * self.width + x) * c);
            self.data[to..to + w * c].copy_from_slice(&other.data[from..from + w * c]);
        }
    }

    /// Mixes `rgb` into the pixel (x, y); outside the picture nothing happens.
    pub(crate) fn blend(&mut self, x: i64, y: i64, rgb: [u8; 3], alpha: f32) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x < self.width && y < self.height {
            let at = (y * self.width + x) * self.channels;
            for (p, c) in self.data[at..at + self.channels].iter_mut().zip(rgb) {
                *p = (f32::from(*p) * (1.0 - alpha) + f32::from(c) * alpha).round() as u8;
            }
        }
    }

    /// The picture as a PNG file's bytes.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let mut out = vec![];
        let bad = |e: png::EncodingError| Error::new(Kind::Internal, format!("cannot encode PNG: {e}"));
        let side = |n: usize| u32::try_from(n).map_err(|_| Error::value("image: too large for PNG"));
        let mut encoder = png::Encoder::new(&mut out, side(self.width)?, side(self.height)?);
        encoder.set_color(if self.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(bad)?;
        writer.write_image_data(&self.data).map_err(bad)?;
        writer.finish().map_err(bad)?;
        Ok(out)
    }

    /// Writes a file as a whole; the name must end in `.png`, or in `.jpg` or `.jpeg`, which loses some of it.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_with(path, QUALITY)
    }
    /// Writes a file as [`Image::save`] does; `quality` of a JPEG is from 1 to 100.
    pub fn save_with(&self, path: impl AsRef<Path>, quality: u8) -> Result<()> {
        let path = path.as_ref();
        let png = require_extension(path, &["png", "jpg", "jpeg"])? == "png";
        if !(1..=100).contains(&quality) {
            return Err(Error::value(format!("image: the quality of a JPEG must be from 1 to 100, not {quality}")));
        }
        let image = self.clone();
        let bytes = aside::run(self.data.len(), move || match png {
            true => image.to_png(),
            false => jpeg::encode(&image, quality),
        })?;
        atomic::write(path, &bytes)
    }
    /// The picture in a file's bytes, PNG or JPEG by their beginning.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if !jpeg::is_jpeg(bytes) {
            return Image::from_png(bytes);
        }
        catch_unwind(|| jpeg::decode(bytes)).unwrap_or_else(|_| {
            let e = Error::new(Kind::Format, "not a complete JPEG file: the decoder failed at it");
            Err(e.hint("make or download it again"))
        })
    }

    /// From a PNG file's bytes. Palettes and 16 bits are brought to 8 bits per channel; transparency is laid over
    /// white.
    pub fn from_png(bytes: &[u8]) -> Result<Self> {
        if let Some(e) = sniff::instead(&bytes[..bytes.len().min(512)], "PNG file", &["a PNG picture"]) {
            return Err(e);
        }
        // the decoder panics at some damaged files
        catch_unwind(|| Self::decode(bytes)).unwrap_or_else(|_| Err(incomplete("the decoder failed at it")))
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |e: png::DecodingError| incomplete(&e.to_string());
        let mut options = png::DecodeOptions::default();
        // a damaged chunk of transparency or gamma decides what is seen, too
        options.set_skip_ancillary_crc_failures(false);
        let mut decoder = png::Decoder::new_with_options(std::io::Cursor::new(bytes), options);
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        decoder.set_limits(png::Limits { bytes: 8 * MOST_PIXELS });
        let (w, h) = {
            let info = decoder.read_header_info().map_err(bad)?;
            (info.width as usize, info.height as usize)
        };
        if w.checked_mul(h).is_none_or(|p| p > MOST_PIXELS) {
            return Err(Error::new(Kind::Format, format!("a PNG of {w}×{h} pixels is too large")));
        }
        let mut reader = decoder.read_info().map_err(bad)?;
        let size = reader.output_buffer_size().ok_or_else(|| Error::new(Kind::Format, "the PNG is too large"))?;
        memory::room("a picture", size)?;
        let mut data = vec![0; size];
        let info = reader.next_frame(&mut data).map_err(bad)?;
        // reads to the end: a truncated tail is an error, not a picture
        reader.finish().map_err(bad)?;
        if reader.info().bit_depth == png::BitDepth::Sixteen {
            note("the picture has 16 bits per channel: it is read with 8");
        }
        if reader.info().is_animated() {
            note("the picture is animated: the first frame is read");
        }
        data.truncate(info.buffer_size());
        let alpha = info.color_type.samples().checked_sub(1).filter(|n| n % 2 == 1);
        if alpha.is_some_and(|n| data.chunks_exact(n + 1).any(|p| p[n] < 255)) {
            note("the picture is transparent in places: it is laid over white");
        }
        let over_white = |v: u8, a: u8| ((u32::from(v) * u32::from(a) + 255 * (255 - u32::from(a)) + 127) / 255) as u8;
        let (channels, data) = match info.color_type {
            png::ColorType::Grayscale => (1, data),
            png::ColorType::Rgb => (3, data),
            png::ColorType::GrayscaleAlpha => (1, data.chunks_exact(2).map(|p| over_white(p[0], p[1])).collect()),
            png::ColorType::Rgba => {
                (3, data.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|i| over_white(p[i], p[3]))).collect())
            }
            png::ColorType::Indexed => return Err(Error::new(Kind::Format, "the PNG's palette is missing")),
        };
        Ok(Image { width: w, height: h, channels, data })
    }

    /// Reads a PNG or JPEG file, whatever its name.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = atomic::read(path)?;
        // what a picture unpacks to may be a thousand times as much
        aside::run(bytes.len().saturating_mul(1000), move || Image::from_bytes(&bytes))
            .map_err(|e| e.context(path.display()))
    }
}

/// A batch [B, C, H, W] (or one picture) in rows of `cols`, from the top left.
pub fn grid(t: &Tensor, o: &GridOptions) -> Result<Image> {
    let batch = from_batch("image::grid", t)?;
    let Some(first) = batch.first() else {
        return Err(Error::shape("image::grid: the batch is empty", &[t.dims()]));
    };
    let cols = match o.cols {
        Some(0) => return Err(Error::value("image::grid: cols must be at least 1, not 0")),
        Some(c) => c.min(batch.len()),
        None => (1..=batch.len()).find(|c| c * c >= batch.len()).unwrap_or(1),
    };
    let rows = batch.len().div_ceil(cols);
    let step = |side: usize| side.saturating_mul(o.scale).saturating_add(o.pad);
    let (dx, dy) = (step(first.width), step(first.height));
    let (w, h) = (dx.saturating_mul(cols).saturating_add(o.pad), dy.saturating_mul(rows).saturating_add(o.pad));
    let mut out = Image::filled(w, h, first.channels, [o.background; 3])?;
    for (i, image) in batch.iter().enumerate() {
        out.paste(&image.enlarged(o.scale)?, o.pad + (i % cols) * dx, o.pad + (i / cols) * dy);
    }
    Ok(out)
}

/// The pictures in a tensor [H, W], [C, H, W] or [B, C, H, W].
pub(crate) fn from_batch(what: &str, t: &Tensor) -> Result<Vec<Image>> {
    let dims = match *t.dims() {
        [h, w] => Some((1, 1, h, w)),
        [c, h, w] => Some((1, c, h, w)),
        [b, c, h, w] => Some((b, c, h, w)),
        _ => None,
    };
    let Some((b, c @ (1 | 3), h, w)) = dims else {
        let m = format!("{what}: needs [H, W], [C, H, W] or [B, C, H, W] with C = 1 or 3, not {:?}", t.dims());
        return Err(Error::shape(m, &[t.dims()]));
    };
    if b == 0 || h == 0 || w == 0 {
        return Err(Error::shape(format!("{what}: the tensor is empty ({:?})", t.dims()), &[t.dims()]));
    }
    let t = t.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.reshape((b, c, h, w))?;
    let values = t.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1::<f32>()?;
    let nan = values.iter().filter(|v| v.is_nan()).count();
    if nan > 0 {
        note(&format!("{what}: {nan} of {} values are NaN, and are drawn black", values.len()));
    }
    // a cast from float to integer is 0 for NaN
    let bytes: Vec<u8> = values.iter().map(|v| ((v.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8).collect();
    Ok(bytes.chunks_exact(h * w * c).map(|d| Image { width: w, height: h, channels: c, data: d.to_vec() }).collect())
}

fn incomplete(why: &str) -> Error {
    Error::new(Kind::Format, format!("not a complete PNG file: {why}")).hint("make or download it again")
}

/// Fails unless the file name ends in one of `known`.
pub(crate) fn require_extension(path: &Path, known: &[&str]) -> Result<String> {
    let e = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    if known.contains(&e.as_str()) {
        return Ok(e);
    }
    let names = known.iter().map(|k| format!("`.{k}`")).collect::<Vec<_>>().join(" or ");
    Err(Error::value(format!("cannot write `{}`: the name must end in {names}", path.display())))
}
