//! More charts: bars with errors, histograms, heat maps, and several plots on one sheet.
use super::axis::Axis;
use super::plot::{COLORS, EM, FAINT, GRID, INK, LinesOptions, Plot, label, sized, width_of};
use super::scene::{At, Rgb, Scene, Shape};
use crate::{Error, Result};

/// Bars of one colour, one for each group.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// Their name in the legend; may be empty.
    pub name: String,
    /// Heights from 0; what is not finite is left out.
    pub values: Vec<f64>,
    /// How far the error goes up and down from each height.
    pub errors: Option<Vec<f64>>,
}

/// Room around a plot, and what stands there.
fn frame(scene: &mut Scene, o: &LinesOptions, [left, right, top, bottom]: [f64; 4]) {
    let (middle, h) = ((left + right) / 2.0, o.size.1 as f64);
    let s = &mut scene.shapes;
    if !o.title.is_empty() {
        s.push(Shape::Text(o.title.clone(), (middle, 22.0), At::Center, EM * 1.25, INK));
    }
    if !o.x_label.is_empty() {
        s.push(label(&o.x_label, (middle, h - 16.0), At::Center, INK));
    }
    if !o.y_label.is_empty() {
        s.push(label(&o.y_label, (18.0, (top + bottom) / 2.0), At::Upright, INK));
    }
}

fn room(what: &str, [left, right, top, bottom]: [f64; 4], o: &LinesOptions) -> Result<()> {
    if right - left >= 60.0 && bottom - top >= 40.0 {
        return Ok(());
    }
    let e = Error::value(format!("{what}: {}×{} leaves no room for the plot", o.size.0, o.size.1));
    Err(e.hint("make it larger, or shorten the names"))
}

/// Bars in groups, from 0, with their errors. Axes are linear.
///
/// Errors: no groups, bars with another number of values than groups, nothing finite.
pub fn bars(groups: &[String], bars: &[Bars], o: &LinesOptions) -> Result<Plot> {
    for b in bars {
        let other = |n: usize| n != groups.len();
        if other(b.values.len()) || b.errors.as_ref().is_some_and(|e| other(e.len())) {
            let m = format!("plot::bars: `{}` has {} values for {} groups", b.name, b.values.len(), groups.len());
            return Err(Error::shape(m, &[&[b.values.len()], &[groups.len()]]));
        }
    }
    let error = |b: &Bars, i: usize| b.errors.as_ref().map_or(0.0, |e| e[i]);
    let ends = |b: &Bars| {
        (0..groups.len()).flat_map(|i| [b.values[i] - error(b, i), b.values[i] + error(b, i)]).collect::<Vec<_>>()
    };
    let values: Vec<f64> = bars.iter().flat_map(ends).filter(|v| v.is_finite()).collect();
    if values.is_empty() {
        return Err(Error::value("plot::bars: there is no bar to draw").hint("values must be finite"));
    }
    let axis = Axis::over(values.iter().copied().chain([0.0]), false, true);
    let mut scene = sized(o.size.0, o.size.1)?;
    let (w, h) = (o.size.0 as f64, o.size.1 as f64);
    let ticks = axis.ticks((h / 60.0) as usize);
    let tick_width = ticks.iter().map(|t| width_of(&t.1)).fold(0.0, f64::max);
    let named: Vec<(usize, &Bars)> = bars.iter().enumerate().filter(|(_, b)| !b.name.is_empty()).collect();
    let legend = named.iter().map(|(_, b)| width_of(&b.name)).fold(0.0, f64::max);
    let left = 24.0 + tick_width + if o.y_label.is_empty() { 0.0 } else { 22.0 };
    let right = if legend > 0.0 { w - legend - 44.0 } else { w - 20.0 };
    let top = if o.title.is_empty() { 16.0 } else { 44.0 };
    let bottom = h - 34.0 - if o.x_label.is_empty() { 0.0 } else { 20.0 };
    let place = [left, right, top, bottom];
    room("plot::bars", place, o)?;
    let y = |v: f64| bottom - axis.place(v) * (bottom - top);
    let s = &mut scene.shapes;
    for (v, t) in &ticks {
        s.push(Shape::Line(vec![(left, y(*v)), (right, y(*v))], GRID, 1.0, 1.0));
        s.push(label(t, (left - 8.0, y(*v)), At::Right, FAINT));
    }
    let group = (right - left) / groups.len() as f64;
    let width = group * 0.8 / bars.len().max(1) as f64;
    for (i, name) in groups.iter().enumerate() {
        let start = left + group * (i as f64 + 0.1);
        // names that would run into each other are left out by turns
        let every = (groups.iter().map(|g| width_of(g)).fold(0.0, f64::max) / group).ceil().max(1.0) as usize;
        if i % every == 0 {
            s.push(label(name, (start + group * 0.4, bottom + 15.0), At::Center, FAINT));
        }
        for (k, b) in bars.iter().enumerate().filter(|(_, b)| b.values[i].is_finite()) {
            let (x, v, e) = (start + width * k as f64, b.values[i], error(b, i));
            let inset = if bars.len() > 1 { 0.06 * width } else { 0.0 };
            s.push(Shape::Rect((x + inset, y(0.0)), (x + width - inset, y(v)), COLORS[k % COLORS.len()], 1.0));
            if e.is_finite() && e > 0.0 {
                let m = x + width / 2.0;
                s.push(Shape::Line(vec![(m, y(v - e)), (m, y(v + e))], INK, 1.0, 1.2));
            }
        }
    }
    s.push(Shape::Line(vec![(left, y(0.0)), (right, y(0.0))], FAINT, 1.0, 1.0));
    for (row, (k, b)) in named.iter().enumerate() {
        let y = top + 8.0 + 20.0 * row as f64;
        s.push(Shape::Rect((right + 14.0, y - 5.0), (right + 24.0, y + 5.0), COLORS[k % COLORS.len()], 1.0));
        s.push(label(&b.name, (right + 32.0, y), At::Left, INK));
    }
    frame(&mut scene, o, place);
    Ok(Plot(scene))
}

/// How many values fall into each of `bins` equal intervals, as bars.
///
/// Errors: no finite value, no bins.
pub fn histogram(values: &[f64], bins: usize, o: &LinesOptions) -> Result<Plot> {
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let (low, high) = finite.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |m, v| (m.0.min(*v), m.1.max(*v)));
    if finite.is_empty() || !(1..=1000).contains(&bins) {
        return Err(Error::value(format!("plot::histogram: {} finite values in {bins} bins", finite.len()))
            .hint("from 1 to 1000 bins"));
    }
    let width = if high > low { (high - low) / bins as f64 } else { 1.0 };
    let mut counts = vec![0.0; bins];
    finite.iter().for_each(|v| counts[(((v - low) / width) as usize).min(bins - 1)] += 1.0);
    let named = |i: usize| crate::files::table::number(low + (i as f64 + 0.5) * width, 3);
    let groups: Vec<String> = (0..bins).map(named).collect();
    bars(&groups, &[Bars { name: String::new(), values: counts, errors: None }], o)
}

/// A table of numbers as colours, from the first row at the top.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    /// Rows of equal length; what is not finite stays white.
    pub values: Vec<Vec<f64>>,
    /// Names of rows and of columns; may be empty.
    pub names: [Vec<String>; 2],
    /// Colours by the logarithm.
    pub log: bool,
    /// Write the numbers into the cells.
    pub numbers: bool,
}

/// Dark to light, of even steps to the eye and to those who see no red or green (Viridis, at equal distances).
const SCALE: [Rgb; 9] = [
    [68, 1, 84],
    [71, 45, 123],
    [59, 82, 139],
    [44, 114, 142],
    [33, 145, 140],
    [40, 174, 128],
    [94, 201, 98],
    [173, 220, 48],
    [253, 231, 37],
];

fn color(part: f64) -> Rgb {
    let at = part.clamp(0.0, 1.0) * (SCALE.len() - 1) as f64;
    let (i, f) = ((at as usize).min(SCALE.len() - 2), at);
    let f = f - i as f64;
    [0, 1, 2].map(|c| (f64::from(SCALE[i][c]) * (1.0 - f) + f64::from(SCALE[i + 1][c]) * f).round() as u8)
}

/// Draws a heat map with its scale on the right.
///
/// Errors: rows of different lengths, no cells, nothing finite, names that are not as many as rows or columns.
pub fn heat(heat: &Heat, o: &LinesOptions) -> Result<Plot> {
    let (rows, columns) = (heat.values.len(), heat.values.first().map_or(0, Vec::len));
    if rows * columns == 0 || heat.values.iter().any(|r| r.len() != columns) {
        return Err(Error::value("plot::heat: needs rows of one length, and at least one cell"));
    }
    for (names, n) in heat.names.iter().zip([rows, columns]) {
        if !names.is_empty() && names.len() != n {
            let m = format!("plot::heat: {} names for {n} rows or columns", names.len());
            return Err(Error::shape(m, &[&[names.len()], &[n]]));
        }
    }
    let good = |v: &f64| v.is_finite() && !(heat.log && *v <= 0.0);
    let values: Vec<f64> = heat.values.iter().flatten().copied().filter(good).collect();
    if values.is_empty() {
        return Err(Error::value("plot::heat: there is no finite value").hint("values must be positive on a log scale"));
    }
    let axis = Axis::tight(values.iter().copied(), heat.log);
    let mut scene = sized(o.size.0, o.size.1)?;
    let (w, h) = (o.size.0 as f64, o.size.1 as f64);
    let ticks = axis.ticks(6);
    let scale_width = ticks.iter().map(|t| width_of(&t.1)).fold(0.0, f64::max) + 52.0;
    let name_width = heat.names[0].iter().map(|n| width_of(n)).fold(0.0, f64::max);
    let left = 20.0 + name_width + if o.y_label.is_empty() { 0.0 } else { 22.0 };
    let (right, top) = (w - scale_width, if o.title.is_empty() { 16.0 } else { 44.0 });
    let below = if heat.names[1].is_empty() { 12.0 } else { 30.0 } + if o.x_label.is_empty() { 0.0 } else { 24.0 };
    let place = [left, right, top, h - below];
    room("plot::heat", place, o)?;
    let (dx, dy) = ((right - left) / columns as f64, (h - below - top) / rows as f64);
    let s = &mut scene.shapes;
    for (i, row) in heat.values.iter().enumerate() {
        let y = top + dy * i as f64;
        if let Some(name) = heat.names[0].get(i) {
            s.push(label(name, (left - 8.0, y + dy / 2.0), At::Right, FAINT));
        }
        for (j, v) in row.iter().enumerate().filter(|(_, v)| good(v)) {
            let (x, part) = (left + dx * j as f64, axis.place(*v));
            s.push(Shape::Rect((x, y), (x + dx, y + dy), color(part), 1.0));
            let text = crate::files::table::number(*v, 3);
            if heat.numbers && width_of(&text) < dx - 4.0 && dy > EM {
                let ink = if part > 0.55 { INK } else { [255; 3] };
                s.push(label(text, (x + dx / 2.0, y + dy / 2.0), At::Center, ink));
            }
        }
    }
    for (j, name) in heat.names[1].iter().enumerate() {
        s.push(label(name, (left + dx * (j as f64 + 0.5), h - below + 15.0), At::Center, FAINT));
    }
    const STEPS: usize = 64;
    let (bar, tall) = (right + 16.0, h - below - top);
    for k in 0..STEPS {
        let y = |k: usize| h - below - tall * k as f64 / STEPS as f64;
        s.push(Shape::Rect((bar, y(k)), (bar + 14.0, y(k + 1)), color((k as f64 + 0.5) / STEPS as f64), 1.0));
    }
    for (v, t) in &ticks {
        s.push(label(t, (bar + 22.0, h - below - tall * axis.place(*v)), At::Left, FAINT));
    }
    frame(&mut scene, o, place);
    Ok(Plot(scene))
}

/// Several plots on one sheet, row by row, `columns` in a row.
///
/// Errors: no plots, no columns, a sheet that is too large.
pub fn facets(plots: &[&Plot], columns: usize) -> Result<Plot> {
    if plots.is_empty() || columns == 0 {
        return Err(Error::value("plot::facets: needs at least one plot and one column"));
    }
    let columns = columns.min(plots.len());
    let side =
        |of: fn(&Plot) -> usize, which: &mut dyn Iterator<Item = usize>| which.map(|i| of(plots[i])).max().unwrap_or(0);
    let rows = plots.len().div_ceil(columns);
    let widths: Vec<usize> =
        (0..columns).map(|c| side(|p| p.0.width, &mut (c..plots.len()).step_by(columns))).collect();
    let heights: Vec<usize> =
        (0..rows).map(|r| side(|p| p.0.height, &mut (r * columns..((r + 1) * columns).min(plots.len())))).collect();
    let mut scene = sized(widths.iter().sum(), heights.iter().sum())?;
    for (i, plot) in plots.iter().enumerate() {
        let (r, c) = (i / columns, i % columns);
        let (dx, dy) = (widths[..c].iter().sum::<usize>() as f64, heights[..r].iter().sum::<usize>() as f64);
        scene.shapes.extend(plot.0.shapes.iter().map(|s| s.moved(dx, dy)));
    }
    Ok(Plot(scene))
}
