//! Plots: lines over axes, and schedules side by side; PNG or SVG by the file's name.
use super::axis::Axis;
use super::scene::{At, Rgb, Scene, Shape};
use super::text;
use crate::discretize::Schedule;
use crate::files::atomic;
use crate::files::image::{Image, require_extension};
use crate::real::Real;
use crate::{Error, Kind, Result};
use std::path::Path;

pub(super) const INK: Rgb = [34, 34, 40];
pub(super) const FAINT: Rgb = [105, 105, 115];
pub(super) const GRID: Rgb = [228, 228, 233];
/// Okabe and Ito's colours, told apart by all eyes, the darker first.
pub(super) const COLORS: [Rgb; 7] =
    [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [120, 94, 240], [86, 180, 233], [230, 159, 0]];
pub(super) const EM: f64 = 13.0;

/// One line of [`lines`].
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend; may be empty.
    pub name: String,
    /// Positions; as many as `y`.
    pub x: Vec<f64>,
    /// Values; the line is broken at values that are not finite (or not positive, on a log axis).
    pub y: Vec<f64>,
    /// Connect the points.
    pub line: bool,
    /// Mark the points.
    pub points: bool,
    /// Low and high ends of a band around the values; as many as `y`.
    pub band: Option<[Vec<f64>; 2]>,
}

/// What [`lines`] draws around its series.
#[derive(Debug, Clone, PartialEq)]
pub struct LinesOptions {
    /// Above the plot.
    pub title: String,
    /// Below the horizontal axis.
    pub x_label: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// A logarithmic horizontal axis.
    pub log_x: bool,
    /// A logarithmic vertical axis.
    pub log_y: bool,
    /// Width and height in units (a PNG has two pixels per unit).
    pub size: (usize, usize),
}

impl Default for LinesOptions {
    fn default() -> Self {
        let s = String::new;
        LinesOptions { title: s(), x_label: s(), y_label: s(), log_x: false, log_y: false, size: (720, 440) }
    }
}

/// In what the steps of [`schedules`] are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// The noise schedule's own time.
    Time,
    /// The noise level σ/α, on a logarithmic axis.
    Sigma,
    /// λ = ln α − ln σ.
    Lambda,
}

/// What [`schedules`] draws around the steps.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulesOptions {
    /// In what steps are measured.
    pub space: Space,
    /// Above the plot.
    pub title: String,
    /// The width in units; the height follows from the number of schedules.
    pub width: usize,
}

/// A finished plot.
#[derive(Debug, Clone)]
pub struct Plot(pub(super) Scene);

impl Plot {
    /// Width and height in units.
    pub fn size(&self) -> (usize, usize) {
        (self.0.width, self.0.height)
    }
    /// Draws it with `scale` pixels per unit, 1 to 8.
    pub fn to_image(&self, scale: usize) -> Result<Image> {
        if !(1..=8).contains(&scale) {
            return Err(Error::value(format!("plot: scale must be within [1, 8], not {scale}")));
        }
        self.0.to_image(scale)
    }
    /// As an SVG document.
    pub fn to_svg(&self) -> String {
        self.0.to_svg()
    }
    /// Writes a file as a whole: `.png` with `scale` pixels per unit, or `.svg`.
    pub fn save(&self, path: impl AsRef<Path>, scale: usize) -> Result<()> {
        let path = path.as_ref();
        match require_extension(path, &["png", "svg"])?.as_str() {
            "svg" => atomic::write(path, self.to_svg().as_bytes()),
            _ => atomic::write(path, &self.to_image(scale)?.to_png()?),
        }
    }
}

pub(super) fn sized(width: usize, height: usize) -> Result<Scene> {
    for side in [width, height] {
        if !(150..=8000).contains(&side) {
            return Err(Error::value(format!("plot: width and height must be within [150, 8000], not {side}")));
        }
    }
    Ok(Scene { width, height, shapes: vec![] })
}

pub(super) fn width_of(s: &str) -> f64 {
    f64::from(text::width(s, EM as f32))
}

pub(super) fn label(s: impl Into<String>, at: (f64, f64), place: At, rgb: Rgb) -> Shape {
    Shape::Text(s.into(), at, place, EM, rgb)
}

/// Lines and points over two axes, with a legend on the right.
///
/// Errors: no series, x and y of different lengths, nothing finite to draw, a size outside [150, 8000].
pub fn lines(series: &[Series], o: &LinesOptions) -> Result<Plot> {
    if let Some(s) = series.iter().find(|s| s.x.len() != s.y.len()) {
        let m = format!("plot::lines: series `{}` has {} x but {} y", s.name, s.x.len(), s.y.len());
        return Err(Error::shape(m, &[&[s.x.len()], &[s.y.len()]]));
    }
    let good = |x: f64, y: f64| x.is_finite() && y.is_finite() && !(o.log_x && x <= 0.0) && !(o.log_y && y <= 0.0);
    let pairs = |s: &Series, y: &[f64]| s.x.iter().copied().zip(y.iter().copied()).collect::<Vec<_>>();
    let of_band = |s: &Series| s.band.iter().flatten().flat_map(|y| pairs(s, y)).collect::<Vec<_>>();
    let drawn = || series.iter().flat_map(|s| [pairs(s, &s.y), of_band(s)].concat()).filter(|p| good(p.0, p.1));
    if let Some(s) = series.iter().find(|s| s.band.iter().flatten().any(|y| y.len() != s.x.len())) {
        let m =
            format!("plot::lines: the band of series `{}` has not as many values as its {} points", s.name, s.x.len());
        return Err(Error::shape(m, &[&[s.x.len()]]));
    }
    if drawn().next().is_none() {
        let e = Error::value("plot::lines: there is no point to draw");
        return Err(e.hint("points must be finite, and positive on a log axis"));
    }
    let x_axis = Axis::over(drawn().map(|p| p.0), o.log_x, false);
    let y_axis = Axis::over(drawn().map(|p| p.1), o.log_y, true);
    let mut scene = sized(o.size.0, o.size.1)?;
    let (w, h) = (o.size.0 as f64, o.size.1 as f64);
    let y_ticks = y_axis.ticks((h / 60.0) as usize);
    let tick_width = y_ticks.iter().map(|t| width_of(&t.1)).fold(0.0, f64::max);
    let named = || series.iter().enumerate().filter(|(_, s)| !s.name.is_empty());
    let legend = named().map(|(_, s)| width_of(&s.name)).fold(0.0, f64::max);
    let left = 16.0 + tick_width + 8.0 + if o.y_label.is_empty() { 0.0 } else { 22.0 };
    let right = if legend > 0.0 { w - legend - 54.0 } else { w - 20.0 };
    let top = if o.title.is_empty() { 16.0 } else { 44.0 };
    let bottom = h - 34.0 - if o.x_label.is_empty() { 0.0 } else { 20.0 };
    if right - left < 60.0 || bottom - top < 40.0 {
        let e = Error::value(format!("plot::lines: {}×{} leaves no room for the plot", o.size.0, o.size.1));
        return Err(e.hint("make it larger, or shorten the names in the legend"));
    }
    let px = |v: f64| left + x_axis.place(v) * (right - left);
    let py = |v: f64| bottom - y_axis.place(v) * (bottom - top);
    let s = &mut scene.shapes;
    for (v, t) in &y_ticks {
        s.push(Shape::Line(vec![(left, py(*v)), (right, py(*v))], GRID, 1.0, 1.0));
        s.push(label(t, (left - 8.0, py(*v)), At::Right, FAINT));
    }
    for (v, t) in x_axis.ticks(((right - left) / 80.0) as usize) {
        s.push(Shape::Line(vec![(px(v), top), (px(v), bottom)], GRID, 1.0, 1.0));
        s.push(label(t, (px(v), bottom + 15.0), At::Center, FAINT));
    }
    s.push(Shape::Line(vec![(left, top), (left, bottom), (right, bottom)], FAINT, 1.0, 1.0));
    for (i, one) in series.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        if let Some([low, high]) = &one.band {
            let whole: Vec<(f64, f64, f64)> = (0..one.x.len()).map(|i| (one.x[i], low[i], high[i])).collect();
            for piece in whole.split(|(x, l, h)| !good(*x, *l) || !good(*x, *h)).filter(|p| p.len() > 1) {
                let there = piece.iter().map(|(x, _, h)| (px(*x), py(*h)));
                let back = piece.iter().rev().map(|(x, l, _)| (px(*x), py(*l)));
                s.push(Shape::Area(there.chain(back).collect(), color, 0.18));
            }
        }
        let points: Vec<(f64, f64)> = one.x.iter().copied().zip(one.y.iter().copied()).collect();
        for piece in points.split(|p| !good(p.0, p.1)) {
            let piece: Vec<(f64, f64)> = piece.iter().map(|p| (px(p.0), py(p.1))).collect();
            let dots = one.points || (one.line && piece.len() == 1);
            if one.line && piece.len() > 1 {
                s.push(Shape::Line(piece.clone(), color, 1.0, 2.0));
            }
            if dots {
                s.extend(piece.iter().map(|p| Shape::Dot(*p, 3.6, color, true)));
            }
        }
    }
    for (row, (i, one)) in named().enumerate() {
        let (color, y) = (COLORS[i % COLORS.len()], top + 8.0 + 20.0 * row as f64);
        if one.line {
            s.push(Shape::Line(vec![(right + 14.0, y), (right + 36.0, y)], color, 1.0, 2.0));
        }
        if one.points || !one.line {
            s.push(Shape::Dot((right + 25.0, y), 3.6, color, true));
        }
        s.push(label(&one.name, (right + 42.0, y), At::Left, INK));
    }
    let middle = (left + right) / 2.0;
    if !o.title.is_empty() {
        s.push(Shape::Text(o.title.clone(), (middle, 22.0), At::Center, EM * 1.25, INK));
    }
    if !o.x_label.is_empty() {
        s.push(label(&o.x_label, (middle, h - 16.0), At::Center, INK));
    }
    if !o.y_label.is_empty() {
        s.push(label(&o.y_label, (18.0, (top + bottom) / 2.0), At::Upright, INK));
    }
    Ok(Plot(scene))
}

/// One strip per schedule: a tick at each step from noise (left) to data (right), with faint lines that follow each
/// step from strip to strip where neighbours have as many. Decoupled evaluation times are rings.
///
/// Errors: no schedule, steps that are not numbers.
pub fn schedules(all: &[Schedule], o: &SchedulesOptions) -> Result<Plot> {
    if all.is_empty() {
        return Err(Error::value("plot::schedules: there is no schedule to draw"));
    }
    let measure = |s: &Schedule, t: &candle_core::Tensor| -> Result<Vec<f64>> {
        let bad = |e: candle_core::Error| Error::from(e).context("plot::schedules");
        let t: Vec<f64> = t.detach().to_dtype(candle_core::DType::F64).and_then(|t| t.to_vec1()).map_err(bad)?;
        let of = |t: f64| match o.space {
            Space::Time => t,
            Space::Sigma => s.noise.ve_sigma(&Real::from(t)).v(),
            Space::Lambda => s.noise.lambda(&Real::from(t)).v(),
        };
        Ok(t.into_iter().map(of).collect())
    };
    let mut strips = vec![];
    for s in all {
        let eval = match &s.t_eval {
            Some(t) => measure(s, t)?,
            None => vec![],
        };
        strips.push((s.name.as_str(), measure(s, &s.t)?, eval));
    }
    let log = o.space == Space::Sigma;
    let good = |v: &f64| v.is_finite() && !(log && *v <= 0.0);
    let values = || strips.iter().flat_map(|s| s.1.iter().chain(&s.2)).copied().filter(good);
    if values().next().is_none() {
        return Err(Error::new(Kind::Value, "plot::schedules: no step is a finite number"));
    }
    let axis = Axis::tight(values(), log);
    let strip = 46.0;
    let top = if o.title.is_empty() { 14.0 } else { 46.0 };
    let bottom = top + strip * strips.len() as f64;
    let mut scene = sized(o.width, (bottom + 52.0).max(150.0) as usize)?;
    let names = strips.iter().map(|s| width_of(s.0)).fold(0.0, f64::max);
    let (left, right) = (16.0 + names + 18.0, o.width as f64 - 30.0);
    if right - left < 80.0 {
        return Err(Error::value("plot::schedules: the names leave no room for the plot").hint("make it wider"));
    }
    // time runs from left to right: from T to 0, from much noise to little, from small λ to large
    let place = |v: f64| if o.space == Space::Lambda { axis.place(v) } else { 1.0 - axis.place(v) };
    // a step at σ = 0 or λ = ∞ has its place at the end of the axis
    let px = |v: f64| left + 8.0 + if good(&v) { place(v) } else { 1.0 } * (right - left - 16.0);
    let s = &mut scene.shapes;
    for (v, t) in axis.ticks(((right - left) / 80.0) as usize) {
        s.push(Shape::Line(vec![(px(v), top), (px(v), bottom)], GRID, 1.0, 1.0));
        s.push(label(t, (px(v), bottom + 15.0), At::Center, FAINT));
    }
    let row = |i: usize| top + strip * (i as f64 + 0.5);
    for (i, pair) in strips.windows(2).enumerate() {
        if pair[0].1.len() == pair[1].1.len() {
            for (a, b) in pair[0].1.iter().zip(&pair[1].1) {
                let link = vec![(px(*a), row(i) + 11.0), (px(*b), row(i + 1) - 11.0)];
                s.push(Shape::Line(link, FAINT, 0.35, 1.0));
            }
        }
    }
    for (i, (name, steps, eval)) in strips.iter().enumerate() {
        let (y, color) = (row(i), COLORS[i % COLORS.len()]);
        s.push(Shape::Rect((left, y - 11.0), (right, y + 11.0), color, 0.07));
        s.push(Shape::Line(vec![(left, y), (right, y)], color, 0.35, 1.0));
        s.push(label(*name, (left - 12.0, y), At::Right, INK));
        for v in steps {
            s.push(Shape::Line(vec![(px(*v), y - 10.0), (px(*v), y + 10.0)], color, 1.0, 2.2));
        }
        s.extend(eval.iter().map(|v| Shape::Dot((px(*v), y), 4.2, color, false)));
    }
    let axis_label = match o.space {
        Space::Time => "time t",
        Space::Sigma => "noise level σ",
        Space::Lambda => "half log-SNR λ",
    };
    s.push(label(axis_label, ((left + right) / 2.0, bottom + 36.0), At::Center, INK));
    if !o.title.is_empty() {
        s.push(Shape::Text(o.title.clone(), ((left + right) / 2.0, 24.0), At::Center, EM * 1.25, INK));
    }
    Ok(Plot(scene))
}
