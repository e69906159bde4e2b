//! Pictures in the protocols of terminals that draw pixels.
use super::blocks::{fitted, resized};
use crate::files::image::Image;
use crate::{Error, Kind, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest piece of data that kitty takes at a time.
const CHUNK: usize = 4096;
/// A character's size in pixels, where the terminal does not scale pictures itself.
const CELL: (usize, usize) = (10, 20);

/// How many columns a picture takes: as many as its pixels need, small ones more, none beyond the terminal's edges.
fn cells(image: &Image, columns: usize, rows: usize) -> usize {
    let (w, _) = fitted(image.width, image.height, columns.max(1) * CELL.0, rows.max(1) * CELL.1);
    // 320 pixels at least, where there is room
    let wanted = w.div_ceil(CELL.0).max(32);
    let by_height = rows.max(1) * 2 * image.width.max(1) / image.height.max(1);
    wanted.min(columns).min(by_height).max(1)
}

/// kitty's graphics protocol: a PNG in pieces; the terminal scales it to whole columns and answers nothing.
///
/// # Errors
/// As [`Image::to_png`].
pub fn kitty(image: &Image, columns: usize, rows: usize) -> Result<String> {
    let data = STANDARD.encode(image.to_png()?);
    let mut out = String::new();
    let mut pieces = data.as_bytes().chunks(CHUNK).peekable();
    let mut keys = format!("a=T,f=100,q=2,c={},", cells(image, columns, rows));
    while let Some(piece) = pieces.next() {
        let more = u8::from(pieces.peek().is_some());
        out += &format!("\x1b_G{keys}m={more};{}\x1b\\", String::from_utf8_lossy(piece));
        keys.clear();
    }
    Ok(out)
}

/// iTerm2's inline images.
///
/// # Errors
/// As [`Image::to_png`].
pub fn iterm(image: &Image, columns: usize, rows: usize) -> Result<String> {
    let png = image.to_png()?;
    let (width, size, data) = (cells(image, columns, rows), png.len(), STANDARD.encode(png));
    Ok(format!("\x1b]1337;File=inline=1;size={size};width={width};preserveAspectRatio=1:{data}\x07"))
}

/// Sixels, at characters of 10×20 pixels.
///
/// # Errors
/// If the encoder fails.
pub fn sixel(image: &Image, columns: usize, rows: usize) -> Result<String> {
    let (w, h) = (cells(image, columns, rows) * CELL.0, rows.max(1) * CELL.1);
    let scale = (w as f64 / image.width.max(1) as f64).min(h as f64 / image.height.max(1) as f64);
    let side = |n: usize| ((n as f64 * scale) as usize).max(1);
    let (w, h) = (side(image.width), side(image.height));
    let rgb = resized(&image.to_rgb(), w, h);
    let rgba = rgb.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
    let failed = |e: icy_sixel::SixelError| Error::new(Kind::Internal, format!("cannot encode sixels: {e}"));
    icy_sixel::SixelImage::try_from_rgba(rgba, w, h).map_err(failed)?.encode().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: usize, height: usize) -> Image {
        // noise, which no compression makes smaller
        let mut state = 1u32;
        let noise = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let data = (0..width * height * 3).map(noise).collect();
        Image { width, height, channels: 3, data }
    }

    #[test]
    fn kitty_pieces_join_to_the_picture() {
        let i = image(100, 80);
        let sent = kitty(&i, 80, 24).unwrap();
        assert!(sent.starts_with("\x1b_Ga=T,f=100,q=2,c=32,m=1;"), "{}", &sent[..40]);
        let pieces: Vec<&str> = sent.split("\x1b\\").filter(|p| !p.is_empty()).collect();
        assert!(pieces.len() > 2);
        assert!(pieces.last().unwrap().starts_with("\x1b_Gm=0;"));
        let data: String = pieces.iter().map(|p| p.split_once(';').unwrap().1).collect();
        assert_eq!(Image::from_png(&STANDARD.decode(data).unwrap()).unwrap(), i);
    }

    #[test]
    fn iterm_and_sixel() {
        let i = image(20, 10);
        let sent = iterm(&i, 80, 24).unwrap();
        assert!(sent.starts_with("\x1b]1337;File=inline=1;size=") && sent.ends_with('\x07'));
        let sent = sixel(&i, 80, 24).unwrap();
        assert!(sent.starts_with("\x1bP") && sent.ends_with("\x1b\\"), "{:?}", &sent[..20]);
        let back = icy_sixel::SixelImage::decode(sent.as_bytes()).unwrap();
        // whole bands of six rows
        assert_eq!((back.width, back.height), (320, 162));
    }

    #[test]
    fn sizes_within_the_terminal() {
        for (w, h) in [(1, 1), (1, 3000), (3000, 1), (28, 28), (720, 440)] {
            for (columns, rows) in [(0, 0), (1, 1), (40, 10), (80, 24)] {
                let c = cells(&image(w, h), columns, rows);
                assert!((1..=columns.max(1)).contains(&c), "{w}×{h} in {columns}×{rows}: {c}");
            }
        }
        assert_eq!(cells(&image(720, 440), 120, 50), 72);
        assert!(sixel(&image(1, 300), 1, 1).is_ok());
    }
}
