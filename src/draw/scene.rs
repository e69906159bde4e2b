//! A drawing as data: lines, rectangles, dots and text, written as SVG or drawn onto a bitmap with smooth edges.
use super::text;
use crate::Result;
use crate::files::image::Image;
use ab_glyph_rasterizer::{Point, Rasterizer, point};
use std::fmt::Write;

/// Red, green, blue.
pub(super) type Rgb = [u8; 3];

/// Where a text stands relative to its point, which is at half the height of a capital letter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum At {
    Left,
    Center,
    Right,
    /// Centered, read from below.
    Upright,
}

/// One thing to draw. Coordinates are in units of the scene, y downwards.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// A line through points: colour, opacity, width.
    Line(Vec<(f64, f64)>, Rgb, f64, f64),
    /// The area within a polygon: colour, opacity.
    Area(Vec<(f64, f64)>, Rgb, f64),
    /// A filled rectangle between two corners: colour, opacity.
    Rect((f64, f64), (f64, f64), Rgb, f64),
    /// A disc, white with a rim of 1.6 when not filled: center, radius, colour, filled.
    Dot((f64, f64), f64, Rgb, bool),
    /// Text: point, place, em, colour.
    Text(String, (f64, f64), At, f64, Rgb),
}

impl Shape {
    /// The same at another place.
    pub fn moved(&self, dx: f64, dy: f64) -> Shape {
        let to = |p: &(f64, f64)| (p.0 + dx, p.1 + dy);
        let all = |points: &[(f64, f64)]| points.iter().map(to).collect();
        match self {
            Shape::Line(points, rgb, alpha, width) => Shape::Line(all(points), *rgb, *alpha, *width),
            Shape::Area(points, rgb, alpha) => Shape::Area(all(points), *rgb, *alpha),
            Shape::Rect(a, b, rgb, alpha) => Shape::Rect(to(a), to(b), *rgb, *alpha),
            Shape::Dot(p, r, rgb, filled) => Shape::Dot(to(p), *r, *rgb, *filled),
            Shape::Text(text, p, place, em, rgb) => Shape::Text(text.clone(), to(p), *place, *em, *rgb),
        }
    }
}

/// A white sheet and what is drawn on it, in order.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub width: usize,
    pub height: usize,
    pub shapes: Vec<Shape>,
}

const RIM: f64 = 1.6;
/// Half the height of a capital letter, in ems.
const HALF_CAPITAL: f64 = 0.35;

impl Scene {
    /// An SVG document. Viewers draw its text in their sans-serif font.
    pub fn to_svg(&self) -> String {
        let (w, h) = (self.width, self.height);
        let mut s = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
             font-family=\"Ubuntu, Helvetica, Arial, sans-serif\">\n<rect width=\"{w}\" height=\"{h}\" fill=\"#fff\"/>\n"
        );
        let color = |c: &Rgb| format!("#{:02x}{:02x}{:02x}", c[0], c[1], c[2]);
        for shape in &self.shapes {
            // writing to a String cannot fail
            let _ = match shape {
                Shape::Line(points, rgb, alpha, width) => {
                    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.2},{y:.2}")).collect();
                    writeln!(
                        s,
                        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-opacity=\"{alpha}\" \
                         stroke-width=\"{width}\" stroke-linejoin=\"round\" stroke-linecap=\"round\"/>",
                        points.join(" "),
                        color(rgb)
                    )
                }
                Shape::Area(points, rgb, alpha) => {
                    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.2},{y:.2}")).collect();
                    let (points, rgb) = (points.join(" "), color(rgb));
                    writeln!(s, "<polygon points=\"{points}\" fill=\"{rgb}\" fill-opacity=\"{alpha}\"/>")
                }
                Shape::Rect(a, b, rgb, alpha) => {
                    let (x, y, w, h) = (a.0.min(b.0), a.1.min(b.1), (b.0 - a.0).abs(), (b.1 - a.1).abs());
                    writeln!(
                        s,
                        "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{w:.2}\" height=\"{h:.2}\" fill=\"{}\" \
                         fill-opacity=\"{alpha}\"/>",
                        color(rgb)
                    )
                }
                Shape::Dot((x, y), r, rgb, true) => {
                    writeln!(s, "<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"{r}\" fill=\"{}\"/>", color(rgb))
                }
                Shape::Dot((x, y), r, rgb, false) => writeln!(
                    s,
                    "<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"{:.2}\" fill=\"#fff\" stroke=\"{}\" \
                     stroke-width=\"{RIM}\"/>",
                    r - RIM / 2.0,
                    color(rgb)
                ),
                Shape::Text(line, (x, y), at, em, rgb) => {
                    let anchor = match at {
                        At::Left => "start",
                        At::Right => "end",
                        At::Center | At::Upright => "middle",
                    };
                    let turn = match at {
                        At::Upright => format!(" transform=\"rotate(-90 {x:.2} {y:.2})\""),
                        _ => String::new(),
                    };
                    writeln!(
                        s,
                        "<text x=\"{x:.2}\" y=\"{y:.2}\" dy=\"{HALF_CAPITAL}em\" text-anchor=\"{anchor}\" \
                         font-size=\"{em}\" fill=\"{}\"{turn}>{}</text>",
                        color(rgb),
                        escape(line)
                    )
                }
            };
        }
        s.push_str("</svg>\n");
        s
    }

    /// A bitmap with `scale` pixels per unit.
    pub fn to_image(&self, scale: usize) -> Result<Image> {
        let mut image =
            Image::filled(self.width.saturating_mul(scale), self.height.saturating_mul(scale), 3, [255; 3])?;
        let k = scale as f64;
        for shape in &self.shapes {
            match shape {
                Shape::Line(points, rgb, alpha, width) => {
                    fill(&mut image, &stroke(points, width / 2.0, k), *rgb, *alpha);
                }
                Shape::Area(points, rgb, alpha) => {
                    fill(&mut image, &[points.iter().map(|p| at(*p, k)).collect()], *rgb, *alpha);
                }
                Shape::Rect(a, b, rgb, alpha) => {
                    let (x0, x1, y0, y1) = (a.0.min(b.0), a.0.max(b.0), a.1.min(b.1), a.1.max(b.1));
                    let corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)];
                    fill(&mut image, &[corners.map(|p| at(p, k)).to_vec()], *rgb, *alpha);
                }
                Shape::Dot(center, r, rgb, filled) => {
                    fill(&mut image, &[disc(*center, *r, k)], *rgb, 1.0);
                    if !filled {
                        fill(&mut image, &[disc(*center, r - RIM, k)], [255; 3], 1.0);
                    }
                }
                Shape::Text(line, p, place, em, rgb) => write(&mut image, line, *p, *place, *em, *rgb, k),
            }
        }
        Ok(image)
    }
}

fn at(p: (f64, f64), k: f64) -> Point {
    point((p.0 * k) as f32, (p.1 * k) as f32)
}

fn disc(center: (f64, f64), r: f64, k: f64) -> Vec<Point> {
    const CORNERS: usize = 48;
    (0..CORNERS)
        .map(|i| {
            let a = std::f64::consts::TAU * i as f64 / CORNERS as f64;
            at((center.0 + r * a.cos(), center.1 + r * a.sin()), k)
        })
        .collect()
}

/// The polygons of a line with round ends and round sharp joins, all turning the same way (so that their areas add up).
fn stroke(points: &[(f64, f64)], half: f64, k: f64) -> Vec<Vec<Point>> {
    // discs on a smooth line would only blur its edge
    let sharp = |w: &[(f64, f64)]| {
        let (a, b) = ((w[1].0 - w[0].0, w[1].1 - w[0].1), (w[2].0 - w[1].0, w[2].1 - w[1].1));
        let along = (a.0 * b.0 + a.1 * b.1) / (a.0.hypot(a.1) * b.0.hypot(b.1));
        // a segment of no length has no direction (NaN): it counts as sharp
        (along.is_nan() || along <= 0.96).then_some(w[1])
    };
    let ends = points.first().into_iter().chain(points.last()).copied();
    let mut out: Vec<Vec<Point>> = ends.chain(points.windows(3).filter_map(sharp)).map(|p| disc(p, half, k)).collect();
    for w in points.windows(2) {
        let (a, b) = (w[0], w[1]);
        let length = (b.0 - a.0).hypot(b.1 - a.1);
        if length > 0.0 {
            let n = (-(b.1 - a.1) / length * half, (b.0 - a.0) / length * half);
            let quad = [(a.0 - n.0, a.1 - n.1), (b.0 - n.0, b.1 - n.1), (b.0 + n.0, b.1 + n.1), (a.0 + n.0, a.1 + n.1)];
            out.push(quad.map(|p| at(p, k)).to_vec());
        }
    }
    out
}

/// Fills the union of polygons.
fn fill(image: &mut Image, polygons: &[Vec<Point>], rgb: Rgb, alpha: f64) {
    let points = || polygons.iter().flatten();
    let (w, h) = (image.width as f32, image.height as f32);
    let (x0, y0) = points().fold((w, h), |m, p| (m.0.min(p.x), m.1.min(p.y)));
    let (x1, y1) = points().fold((0f32, 0f32), |m, p| (m.0.max(p.x), m.1.max(p.y)));
    let (x0, y0) = (x0.max(0.0).floor(), y0.max(0.0).floor());
    let (x1, y1) = (x1.min(w).ceil(), y1.min(h).ceil());
    if !(x1 > x0 && y1 > y0) {
        return;
    }
    // what lies outside is moved to the edge: plots do not draw there
    let inside = |p: &Point| point((p.x.clamp(x0, x1)) - x0, (p.y.clamp(y0, y1)) - y0);
    let mut raster = Rasterizer::new((x1 - x0) as usize, (y1 - y0) as usize);
    for polygon in polygons {
        for (i, p) in polygon.iter().enumerate() {
            raster.draw_line(inside(p), inside(&polygon[(i + 1) % polygon.len()]));
        }
    }
    raster.for_each_pixel_2d(|x, y, c| {
        if c > 0.0 {
            image.blend(x0 as i64 + i64::from(x), y0 as i64 + i64::from(y), rgb, c.min(1.0) * alpha as f32);
        }
    });
}

fn write(image: &mut Image, line: &str, p: (f64, f64), place: At, em: f64, rgb: Rgb, k: f64) {
    let em = (em * k) as f32;
    let width = f64::from(text::width(line, em));
    let dx = match place {
        At::Left => 0.0,
        At::Center | At::Upright => -width / 2.0,
        At::Right => -width,
    };
    let (dx, dy) = (dx.round() as i64, (HALF_CAPITAL * f64::from(em)).round() as i64);
    let (px, py) = ((p.0 * k).round() as i64, (p.1 * k).round() as i64);
    text::draw(line, em, |x, y, c| {
        let (x, y) = (i64::from(x) + dx, i64::from(y) + dy);
        let (x, y) = if place == At::Upright { (y, -x) } else { (x, y) };
        image.blend(px + x, py + y, rgb, c);
    });
}

/// Text for XML; characters that XML does not have are left out.
pub fn escape(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_pieces_of_a_line_do_not_cancel() {
        let back_and_forth = vec![(5.0, 10.0), (35.0, 10.0), (20.0, 10.0), (20.0, 30.0), (5.0, 10.0)];
        let scene = Scene { width: 40, height: 40, shapes: vec![Shape::Line(back_and_forth, [0; 3], 1.0, 4.0)] };
        let image = scene.to_image(2).unwrap();
        let grey = |x: usize, y: usize| image.data[(y * 80 + x) * 3];
        assert!([(20, 20), (60, 20), (40, 20), (40, 50), (11, 20)].iter().all(|&(x, y)| grey(x, y) < 8));
        assert_eq!((grey(60, 40), grey(60, 27)), (255, 255));
    }

    #[test]
    fn svg_text_is_escaped() {
        let t = Shape::Text("a<b & \u{1}c".into(), (1.0, 1.0), At::Left, 10.0, [0; 3]);
        assert!(Scene { width: 9, height: 9, shapes: vec![t] }.to_svg().contains(">a&lt;b &amp; c</text>"));
    }
}
