//! What is done to a picture between its source and a batch.
use super::Picture;
use crate::files::image::Image;
use crate::tensor::memory;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use image::imageops::{FilterType, resize};
use image::{ImageBuffer, Luma, Pixel, Rgb};

/// The names of the filters, the default first. All of them average over what a new pixel covers where a picture shrinks, as Pillow's
/// do ("antialiased").
pub const FILTERS: [&str; 3] = ["lanczos", "bicubic", "bilinear"];

fn filter(name: &str) -> FilterType {
    match name {
        "bicubic" => FilterType::CatmullRom,
        "bilinear" => FilterType::Triangle,
        _ => FilterType::Lanczos3,
    }
}

/// To what size, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resize {
    /// Rows and columns of the result, at least 1 each.
    pub size: [usize; 2],
    /// Whether the middle is cut out, in the result's proportions; else all of the picture is squeezed into them.
    pub crop: bool,
    /// One of [`FILTERS`].
    pub filter: &'static str,
}

/// How each picture is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prepare {
    /// To one size.
    pub resize: Option<Resize>,
    /// To 1 channel (grey: 0.299 R + 0.587 G + 0.114 B, as Pillow's `L`) or 3.
    pub channels: Option<usize>,
}

impl Prepare {
    /// The picture as numbers [C, H, W]: bytes go to [−1, 1] in f32.
    ///
    /// # Errors
    /// Numbers are not resized.
    pub(super) fn apply(&self, picture: Picture) -> Result<Tensor> {
        let mut image = match picture {
            Picture::Bytes(image) => image,
            Picture::Values(t) => return self.leave(t),
        };
        match self.channels {
            Some(1) if image.channels == 3 => image = grey(&image),
            Some(3) => image = image.to_rgb(),
            _ => {}
        }
        if let Some(to) = &self.resize {
            image = to.apply(image)?;
        }
        image.to_tensor()
    }
    fn leave(&self, t: Tensor) -> Result<Tensor> {
        let same =
            self.resize.is_none_or(|to| t.dims()[1..] == to.size) && self.channels.is_none_or(|c| t.dims()[0] == c);
        match same {
            true => Ok(t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?),
            false => {
                let e = Error::value(format!("data: the numbers {:?} are taken as they are", t.dims()));
                Err(e.hint("only pictures of 8 bits (uint8) are resized or made grey"))
            }
        }
    }
}

/// As Pillow's `convert("L")`, which rounds this sum of 16-bit weights.
fn grey(image: &Image) -> Image {
    let one = |p: &[u8]| {
        let [r, g, b] = [p[0], p[1], p[2]].map(u32::from);
        ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
    };
    Image { channels: 1, data: image.data.chunks_exact(3).map(one).collect(), ..*image }
}

impl Resize {
    fn apply(&self, image: Image) -> Result<Image> {
        let [height, width] = self.size;
        let image = if self.crop { middle(image, width, height) } else { image };
        if [image.width, image.height] == [width, height] {
            return Ok(image);
        }
        // the rows are brought to their new length in f32 first
        memory::room("a picture's new size", image.height.saturating_mul(width).saturating_mul(4 * image.channels))?;
        let filter = filter(self.filter);
        let data = match image.channels {
            1 => scale::<Luma<u8>>(&image, width, height, filter),
            _ => scale::<Rgb<u8>>(&image, width, height, filter),
        };
        let data =
            data.ok_or_else(|| Error::value(format!("data: no picture of {width}×{height} pixels can be made")))?;
        Ok(Image { width, height, channels: image.channels, data })
    }
}

fn scale<P: Pixel<Subpixel = u8> + 'static>(
    image: &Image,
    width: usize,
    height: usize,
    filter: FilterType,
) -> Option<Vec<u8>> {
    let side = |n: usize| u32::try_from(n).ok();
    let [w, h, to_w, to_h] = [side(image.width)?, side(image.height)?, side(width)?, side(height)?];
    let from: ImageBuffer<P, &[u8]> = ImageBuffer::from_raw(w, h, &image.data[..])?;
    Some(resize(&from, to_w, to_h, filter).into_raw())
}

/// The largest part with these proportions from the middle.
fn middle(image: Image, width: usize, height: usize) -> Image {
    let (w, h) = (image.width, image.height);
    // rounded, at least a pixel
    let share = |side: usize, of: usize, by: usize| ((side * of + by / 2) / by).max(1);
    let [cut_w, cut_h] = match w * height > h * width {
        true => [share(h, width, height).min(w), h],
        false => [w, share(w, height, width).min(h)],
    };
    if [cut_w, cut_h] == [w, h] {
        return image;
    }
    let (left, top, c) = ((w - cut_w) / 2, (h - cut_h) / 2, image.channels);
    let rows = (top..top + cut_h).map(|y| &image.data[(y * w + left) * c..(y * w + left + cut_w) * c]);
    Image { width: cut_w, height: cut_h, channels: c, data: rows.flatten().copied().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_cut() {
        let wide = Image { width: 5, height: 2, channels: 1, data: (0..10).collect() };
        assert_eq!(middle(wide.clone(), 8, 8).data, [1, 2, 6, 7]);
        assert_eq!(middle(wide, 5, 1).data, [0, 1, 2, 3, 4]);
        let tall = Image { width: 1, height: 5, channels: 3, data: (0..15).collect() };
        assert_eq!(middle(tall, 1, 1).data, [6, 7, 8]);
    }
    #[test]
    fn grey_is_pillows() {
        let image = Image { width: 3, height: 1, channels: 3, data: vec![255, 0, 0, 0, 255, 0, 10, 20, 30] };
        assert_eq!(grey(&image).data, [76, 150, 18]);
    }
    #[test]
    fn shrinking_averages() {
        let checks = Image {
            width: 64,
            height: 64,
            channels: 1,
            data: (0..4096).map(|i| if (i + i / 64) % 2 == 0 { 0 } else { 255 }).collect(),
        };
        for filter in FILTERS {
            let small = Resize { size: [8, 8], crop: false, filter }.apply(checks.clone()).unwrap();
            assert!(small.data.iter().all(|v| (120..=135).contains(v)), "{filter}: {:?}", small.data);
        }
    }
}
