//! Text drawn from the built-in font, so that images and plots look the same on every machine.
use ab_glyph::{Font, FontRef, PxScale, ScaleFont};
use std::sync::LazyLock;

static SANS: LazyLock<FontRef<'static>> = LazyLock::new(|| {
    FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT).expect("the compiled-in font is valid")
});

fn scaled(em: f32) -> ab_glyph::PxScaleFont<&'static FontRef<'static>> {
    let font = &*SANS;
    // a PxScale is ascent − descent; typographers' sizes are in ems
    let per_em = font.units_per_em().map_or(1.0, |u| font.height_unscaled() / u);
    font.as_scaled(PxScale::from(em * per_em))
}

/// The width, and the heights above and below the baseline, of one line of text at `em` pixels.
pub(super) fn measure(text: &str, em: f32) -> (f32, f32, f32) {
    let font = scaled(em);
    let mut width = 0.0;
    each_glyph(text, em, |_, end| width = end);
    (width, font.ascent(), -font.descent())
}

/// Calls `draw(x, y, coverage)` for every pixel of `text`, relative to the left end of the baseline, y downwards.
pub(super) fn draw(text: &str, em: f32, mut draw: impl FnMut(i32, i32, f32)) {
    each_glyph(text, em, |glyph, _| {
        if let Some(outline) = SANS.outline_glyph(glyph) {
            let b = outline.px_bounds();
            outline.draw(|x, y, c| draw(b.min.x as i32 + x as i32, b.min.y as i32 + y as i32, c.clamp(0.0, 1.0)));
        }
    });
}

fn each_glyph(text: &str, em: f32, mut f: impl FnMut(ab_glyph::Glyph, f32)) {
    let font = scaled(em);
    let (mut x, mut last) = (0.0, None);
    for c in text.chars().filter(|c| !c.is_control()) {
        let id = font.glyph_id(c);
        if let Some(last) = last {
            x += font.kern(last, id);
        }
        let glyph = id.with_scale_and_position(font.scale(), ab_glyph::point(x, 0.0));
        x += font.h_advance(id);
        last = Some(id);
        f(glyph, x);
    }
}
