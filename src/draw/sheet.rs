//! Contact sheets: one labelled row of pictures per method, same noise in the same column.
use super::text;
use crate::files::image::{Image, from_batch};
use crate::{Error, Result};
use candle_core::Tensor;

const INK: [u8; 3] = [30, 30, 34];
const FAINT: [u8; 3] = [110, 110, 118];

/// What a contact sheet carries beside its pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct SheetOptions {
    /// Pixels per pixel; by default as many as make a picture at least 72 pixels high.
    pub scale: Option<usize>,
    /// Pixels between pictures.
    pub pad: usize,
    /// A line above everything.
    pub title: Option<String>,
    /// Captions above the columns.
    pub columns: Vec<String>,
    /// The height of the letters' em in pixels.
    pub font: f64,
}

impl Default for SheetOptions {
    fn default() -> Self {
        SheetOptions { scale: None, pad: 4, title: None, columns: vec![], font: 15.0 }
    }
}

/// Draws rows of (label, pictures [B, C, H, W]); a label's further lines are drawn smaller below its first. Rows may
/// have different numbers of pictures, all of one size.
pub fn sheet(rows: &[(String, Tensor)], o: &SheetOptions) -> Result<Image> {
    if !(o.font >= 4.0 && o.font <= 400.0) {
        return Err(Error::value(format!("image::sheet: font must be within [4, 400] pixels, not {}", o.font)));
    }
    let images = rows
        .iter()
        .map(|(label, t)| from_batch(&format!("image::sheet, row `{label}`"), t))
        .collect::<Result<Vec<_>>>()?;
    let Some(first) = images.first().and_then(|r| r.first()) else {
        return Err(Error::value("image::sheet: there are no rows").hint("pass [[label, tensor], …]"));
    };
    let (w, h) = (first.width, first.height);
    if let Some(i) = images.iter().position(|r| r.iter().any(|p| (p.width, p.height) != (w, h))) {
        let m = format!("image::sheet: row `{}` has pictures of another size than {h}×{w}", rows[i].0);
        return Err(Error::shape(m, &[rows[0].1.dims(), rows[i].1.dims()]));
    }
    let scale = match o.scale {
        Some(0) => return Err(Error::value("image::sheet: scale must be at least 1, not 0")),
        Some(s) => s,
        None => 72usize.div_ceil(h),
    };
    let em = o.font as f32;
    let small = em * 0.85;
    let line = (em * 1.4).ceil() as usize;
    let margin = em.ceil() as usize;
    let lines = |label: &str| -> Vec<(String, f32)> {
        label.lines().enumerate().map(|(i, l)| (l.to_string(), if i == 0 { em } else { small })).collect()
    };
    let label_width =
        rows.iter().flat_map(|(l, _)| lines(l)).map(|(l, em)| text::width(&l, em)).fold(0.0, f32::max).ceil();
    let left = margin + label_width as usize + if label_width > 0.0 { margin } else { 0 };
    let cols = images.iter().map(Vec::len).max().unwrap_or(0);
    let title_height = if o.title.is_some() { line + margin / 2 } else { 0 };
    let top = margin + title_height + if o.columns.is_empty() { 0 } else { line };
    let (cell_w, cell_h) = (w.saturating_mul(scale), h.saturating_mul(scale));
    let (dx, dy) = (cell_w.saturating_add(o.pad), cell_h.saturating_add(o.pad));
    let width = dx.saturating_mul(cols).saturating_add(left + margin).saturating_sub(o.pad);
    let height = dy.saturating_mul(rows.len()).saturating_add(top + margin).saturating_sub(o.pad);
    // the title may be wider than the pictures
    let title_width = o.title.as_ref().map_or(0.0, |t| text::width(t, em * 1.15)).ceil() as usize;
    let mut out = Image::filled(width.max(title_width + 2 * margin), height, 3, [255; 3])?;

    if let Some(title) = &o.title {
        write(&mut out, title, em * 1.15, margin as f32, margin as f32 + em, INK);
    }
    for (i, caption) in o.columns.iter().take(cols).enumerate() {
        let x = (left + i * dx) as f32 + (cell_w as f32 - text::width(caption, small)) / 2.0;
        write(&mut out, caption, small, x, top as f32 - em * 0.4, FAINT);
    }
    for (r, ((label, _), row)) in rows.iter().zip(&images).enumerate() {
        let y = top + r * dy;
        let lines = lines(label);
        let block: f32 = lines.iter().map(|(_, em)| em * 1.3).sum();
        let mut baseline = y as f32 + (cell_h as f32 - block) / 2.0;
        for (i, (l, em)) in lines.iter().enumerate() {
            baseline += em * 1.3;
            write(&mut out, l, *em, margin as f32, baseline - em * 0.3, if i == 0 { INK } else { FAINT });
        }
        for (i, image) in row.iter().enumerate() {
            out.paste(&image.to_rgb().enlarged(scale)?, left + i * dx, y);
        }
    }
    Ok(out)
}

/// One line of text with the left end of its baseline at (x, y).
fn write(out: &mut Image, line: &str, em: f32, x: f32, y: f32, rgb: [u8; 3]) {
    let (x, y) = (x.round() as i64, y.round() as i64);
    text::draw(line, em, |dx, dy, c| out.blend(x + i64::from(dx), y + i64::from(dy), rgb, c));
}
