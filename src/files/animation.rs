//! Pictures one after the other in one file: GIF, and PNG that moves (APNG).
use super::atomic;
use super::image::{Image, require_extension};
use crate::tensor::aside;
use crate::{Error, Kind, Result};
use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, Frame, ImageBuffer, Rgba};
use std::path::Path;
use std::time::Duration;

/// How frames are shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Frames a second, from 0.1 to 50 (which is the most that GIF has).
    pub fps: f64,
    /// How often all frames are shown; 0 is for ever.
    pub repeat: u16,
    /// Seconds that the last frame stands longer.
    pub rest: f64,
}

/// Frames a second.
const FPS: [f64; 2] = [0.1, 50.0];
/// Thousandths of a second that a frame may stand.
const LONGEST: f64 = 60_000.0;

/// Writes `frames`, all of one size, as `.gif` or `.png` as a whole or not at all.
///
/// GIF has 256 colours for each frame, chosen from it; APNG has all of them.
///
/// # Errors
/// No frames, frames of different sizes, another ending, times out of range.
pub fn save(frames: Vec<Image>, path: impl AsRef<Path>, timing: Timing) -> Result<()> {
    let path = path.as_ref();
    let ending = require_extension(path, &["gif", "png"])?;
    let Some(first) = frames.first() else { return Err(Error::value("animation: there are no frames")) };
    let dims = |i: &Image| [i.channels, i.height, i.width];
    if let Some(i) = frames.iter().position(|f| dims(f) != dims(first)) {
        let m = format!("animation: frame {i} is {:?} where the first is {:?}", dims(&frames[i]), dims(first));
        return Err(Error::shape(m, &[&dims(first), &dims(&frames[i])]));
    }
    let Timing { fps, rest, .. } = timing;
    if !(FPS[0]..=FPS[1]).contains(&fps) {
        return Err(Error::value(format!("animation: fps must be from {} to {}, not {fps}", FPS[0], FPS[1])));
    }
    let each = 1000.0 / fps;
    if !(0.0..=(LONGEST - each) / 1000.0).contains(&rest) {
        return Err(Error::value(format!(
            "animation: rest must be from 0 to {} seconds, not {rest}",
            LONGEST / 1000.0
        )));
    }
    let last = frames.len() - 1;
    let times: Vec<f64> = (0..frames.len()).map(|i| each + if i == last { 1000.0 * rest } else { 0.0 }).collect();
    let load = frames.len().saturating_mul(first.data.len());
    let bytes = aside::run(load, move || match ending.as_str() {
        "gif" => gif(&frames, &times, timing.repeat),
        _ => apng(&frames, &times, timing.repeat),
    })?;
    atomic::write(path, &bytes)
}

fn gif(frames: &[Image], times: &[f64], repeat: u16) -> Result<Vec<u8>> {
    let bad = |e: image::ImageError| Error::new(Kind::Internal, format!("cannot encode GIF: {e}"));
    let mut out = vec![];
    // 10 of 30: colours are chosen from every tenth pixel
    let mut encoder = GifEncoder::new_with_speed(&mut out, 10);
    encoder.set_repeat(if repeat == 0 { Repeat::Infinite } else { Repeat::Finite(repeat) }).map_err(bad)?;
    for (frame, ms) in frames.iter().zip(times) {
        crate::host::check_cancelled()?;
        let rgb = frame.to_rgb();
        let rgba: Vec<u8> = rgb.data.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
        let side = |n: usize| u16::try_from(n).map(u32::from).map_err(|_| Error::value("animation: too large for GIF"));
        let buffer: Option<ImageBuffer<Rgba<u8>, _>> = ImageBuffer::from_raw(side(rgb.width)?, side(rgb.height)?, rgba);
        let buffer = buffer.ok_or_else(|| Error::new(Kind::Internal, "a frame without its pixels"))?;
        let delay = Delay::from_saturating_duration(Duration::from_secs_f64(ms / 1000.0));
        encoder.encode_frame(Frame::from_parts(buffer, 0, 0, delay)).map_err(bad)?;
    }
    drop(encoder);
    Ok(out)
}

fn apng(frames: &[Image], times: &[f64], repeat: u16) -> Result<Vec<u8>> {
    let bad = |e: png::EncodingError| Error::new(Kind::Internal, format!("cannot encode PNG: {e}"));
    let side = |n: usize| u32::try_from(n).map_err(|_| Error::value("animation: too large for PNG"));
    let mut out = vec![];
    let mut encoder = png::Encoder::new(&mut out, side(frames[0].width)?, side(frames[0].height)?);
    encoder.set_color(if frames[0].channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_animated(side(frames.len())?, repeat.into()).map_err(bad)?;
    let mut writer = encoder.write_header().map_err(bad)?;
    for (frame, ms) in frames.iter().zip(times) {
        crate::host::check_cancelled()?;
        // at most LONGEST
        writer.set_frame_delay(ms.round() as u16, 1000).map_err(bad)?;
        writer.write_image_data(&frame.data).map_err(bad)?;
    }
    writer.finish().map_err(bad)?;
    Ok(out)
}
