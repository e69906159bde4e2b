//! Text drawn from the built-in font, so that images and plots look the same on every machine.
use ab_glyph::{Font, FontRef, PxScale, ScaleFont};
use std::sync::LazyLock;

static FONTS: LazyLock<[FontRef<'static>; 2]> = LazyLock::new(|| {
    [epaint_default_fonts::UBUNTU_LIGHT, epaint_default_fonts::HACK_REGULAR]
        .map(|bytes| FontRef::try_from_slice(bytes).expect("the compiled-in fonts are valid"))
});

/// The font for `c`: the second one has signs that the first lacks.
fn font_of(c: char) -> &'static FontRef<'static> {
    let fonts = &*FONTS;
    fonts.iter().find(|f| f.glyph_id(c).0 != 0).unwrap_or(&fonts[0])
}

fn scaled(font: &'static FontRef<'static>, em: f32) -> ab_glyph::PxScaleFont<&'static FontRef<'static>> {
    // a PxScale is ascent − descent; typographers' sizes are in ems
    let per_em = font.units_per_em().map_or(1.0, |u| font.height_unscaled() / u);
    font.as_scaled(PxScale::from(em * per_em))
}

/// The width of one line of text at `em` pixels.
pub(super) fn width(text: &str, em: f32) -> f32 {
    let mut width = 0.0;
    each_glyph(text, em, |_, _, end| width = end);
    width
}

/// Calls `draw(x, y, coverage)` for every pixel of `text`, relative to the left end of the baseline, y downwards.
pub(super) fn draw(text: &str, em: f32, mut draw: impl FnMut(i32, i32, f32)) {
    each_glyph(text, em, |font, glyph, _| {
        if let Some(outline) = font.outline_glyph(glyph) {
            let b = outline.px_bounds();
            outline.draw(|x, y, c| draw(b.min.x as i32 + x as i32, b.min.y as i32 + y as i32, c.clamp(0.0, 1.0)));
        }
    });
}

fn each_glyph(text: &str, em: f32, mut f: impl FnMut(&'static FontRef<'static>, ab_glyph::Glyph, f32)) {
    let (mut x, mut last) = (0.0, None);
    for c in text.chars().filter(|c| !c.is_control()) {
        let face = font_of(c);
        let font = scaled(face, em);
        let id = font.glyph_id(c);
        if let Some((before, last)) = last
            && std::ptr::eq(before, face)
        {
            x += font.kern(last, id);
        }
        let glyph = id.with_scale_and_position(font.scale(), ab_glyph::point(x, 0.0));
        x += font.h_advance(id);
        last = Some((face, id));
        f(face, glyph, x);
    }
}
