//! Pictures in half blocks: two pixels above each other per character.
use crate::files::image::Image;

/// A picture of at most `columns` characters by `rows` lines; each line switches its colours off at its end.
pub fn half_blocks(image: &Image, columns: usize, rows: usize, true_color: bool) -> String {
    let (w, h) = fitted(image.width, image.height, columns.max(1), 2 * rows.max(1));
    let small = resized(&image.to_rgb(), w, h);
    let pixel = |x: usize, y: usize| -> [u8; 3] {
        let at = (y * w + x) * 3;
        [small[at], small[at + 1], small[at + 2]]
    };
    let mut out = String::new();
    for y in (0..h).step_by(2) {
        let mut last = None;
        for x in 0..w {
            let (top, bottom) = (pixel(x, y), (y + 1 < h).then(|| pixel(x, y + 1)));
            if last != Some((top, bottom)) {
                out += &color(38, top, true_color);
                out += &bottom.map_or("\x1b[49m".into(), |b| color(48, b, true_color));
                last = Some((top, bottom));
            }
            out.push('▀');
        }
        out += "\x1b[0m";
        if y + 2 < h {
            out.push('\n');
        }
    }
    out
}

/// The escape sequence for a colour of the foreground (38) or background (48).
fn color(layer: u8, [r, g, b]: [u8; 3], true_color: bool) -> String {
    match true_color {
        true => format!("\x1b[{layer};2;{r};{g};{b}m"),
        false => format!("\x1b[{layer};5;{}m", nearest(r, g, b)),
    }
}

/// The nearest of the 256 colours: the 6×6×6 cube or the 24 greys.
fn nearest(r: u8, g: u8, b: u8) -> u8 {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let step = |v: u8| (0u8..6).min_by_key(|i| LEVELS[usize::from(*i)].abs_diff(v)).unwrap_or(0);
    let distance =
        |a: [u8; 3]| -> u32 { a.into_iter().zip([r, g, b]).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum() };
    let [i, j, k] = [r, g, b].map(step);
    let cube = [i, j, k].map(|i| LEVELS[usize::from(i)]);
    let mean = (u32::from(r) + u32::from(g) + u32::from(b)) / 3;
    // greys are 8, 18, …, 238
    let grey = (mean.saturating_sub(3) / 10).min(23) as u8;
    match distance(cube) <= distance([8 + 10 * grey; 3]) {
        true => 16 + 36 * i + 6 * j + k,
        false => 232 + grey,
    }
}

/// The size at which a picture is drawn within `w`×`h` pixels: smaller by any factor, or larger by a whole one, so that
/// tiny ones can be seen. At least 1×1.
pub fn fitted(width: usize, height: usize, w: usize, h: usize) -> (usize, usize) {
    let (width, height) = (width.max(1), height.max(1));
    if width <= w && height <= h {
        let k = (w.min(32) / width).min(h.min(32) / height).max(1);
        return (width * k, height * k);
    }
    let scale = (w as f64 / width as f64).min(h as f64 / height as f64);
    let side = |n: usize, most: usize| ((n as f64 * scale).round() as usize).clamp(1, most.max(1));
    (side(width, w), side(height, h))
}

/// The picture in `w`×`h` pixels, each the mean of those that it covers.
pub fn resized(image: &Image, w: usize, h: usize) -> Vec<u8> {
    let c = image.channels;
    let span = |i: usize, from: usize, to: usize| {
        let start = i * from / to;
        start..((i + 1) * from / to).max(start + 1).min(from)
    };
    let mut out = Vec::with_capacity(w * h * c);
    for y in 0..h {
        let rows = span(y, image.height, h);
        for x in 0..w {
            let columns = span(x, image.width, w);
            let n = (rows.len() * columns.len()).max(1);
            for channel in 0..c {
                let sum: usize = rows
                    .clone()
                    .flat_map(|r| columns.clone().map(move |x| (r * image.width + x) * c + channel))
                    .map(|at| usize::from(image.data[at]))
                    .sum();
                out.push(((sum + n / 2) / n) as u8);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: usize, height: usize, channels: usize) -> Image {
        let data = (0..width * height * channels).map(|i| (i * 37 % 256) as u8).collect();
        Image { width, height, channels, data }
    }

    #[test]
    fn one_character_is_two_pixels() {
        let i = Image { width: 1, height: 2, channels: 1, data: vec![0, 255] };
        let drawn = half_blocks(&i, 1, 1, true);
        assert_eq!(drawn, "\x1b[38;2;0;0;0m\x1b[48;2;255;255;255m▀\x1b[0m");
        assert_eq!(half_blocks(&i, 1, 1, false), "\x1b[38;5;16m\x1b[48;5;231m▀\x1b[0m");
        // an odd last row has nothing below
        let i = Image { width: 33, height: 1, channels: 3, data: vec![9; 99] };
        assert!(half_blocks(&i, 40, 10, true).contains("\x1b[49m"));
    }

    #[test]
    fn any_picture_fits_any_terminal() {
        for (w, h) in [(1, 1), (1, 500), (500, 1), (3, 7), (64, 64), (300, 20)] {
            for c in [1, 3] {
                for (columns, rows) in [(0, 0), (1, 1), (1, 40), (40, 1), (80, 24)] {
                    let drawn = half_blocks(&image(w, h, c), columns, rows, true);
                    assert!(drawn.lines().count() <= rows.max(1), "{w}×{h} in {columns}×{rows}");
                    let widest = drawn.lines().map(|l| l.matches('▀').count()).max().unwrap_or(0);
                    assert!((1..=columns.max(1)).contains(&widest), "{w}×{h} in {columns}×{rows}: {widest}");
                }
            }
        }
    }

    #[test]
    fn means_and_colours() {
        let i = Image { width: 2, height: 2, channels: 1, data: vec![0, 100, 100, 200] };
        assert_eq!(resized(&i, 1, 1), [100]);
        assert_eq!(resized(&i, 4, 2), [0, 0, 100, 100, 100, 100, 200, 200]);
        assert_eq!([nearest(255, 0, 0), nearest(128, 128, 128), nearest(0, 0, 0)], [196, 244, 16]);
        assert_eq!(fitted(8, 8, 80, 48), (32, 32));
        assert_eq!(fitted(100, 50, 80, 48), (80, 40));
    }
}
