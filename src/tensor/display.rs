//! How tensors print: values aligned as in numpy, long ones cut with …, then shape, dtype, device and range.
use super::create;
use super::device::device_name;
use crate::Result;
use candle_core::Tensor;

/// More values than this are cut to the edges.
const MOST: usize = 1000;
/// How many values of each edge remain.
const EDGE: usize = 3;
/// Lines are folded before this width, unless told otherwise.
const WIDTH: usize = 100;

/// The values and a line about them; a scalar is its number alone (so that texts can embed it).
pub fn text(t: &Tensor) -> String {
    text_within(t, WIDTH)
}

/// The same as [`text`], in lines of at most `width` columns where the values allow it.
pub fn text_within(t: &Tensor, width: usize) -> String {
    let scalar = t.rank() == 0;
    let values = values(t, width.min(WIDTH));
    let made = if scalar { values } else { values.and_then(|v| Ok(format!("{v}\n{}", summary(t)?))) };
    made.unwrap_or_else(|e| format!("<tensor {:?} {}: {}>", t.dims(), t.dtype().as_str(), e.message()))
}

/// One line: shape, dtype, device, range.
pub fn line(t: &Tensor) -> String {
    let value = || {
        if t.rank() == 0 { Ok(format!("{} (scalar {})", values(t, WIDTH)?, t.dtype().as_str())) } else { summary(t) }
    };
    value().unwrap_or_else(|e| format!("<tensor {:?} {}: {}>", t.dims(), t.dtype().as_str(), e.message()))
}

fn summary(t: &Tensor) -> Result<String> {
    let mut s = format!("{:?} {} {}", t.dims(), t.dtype().as_str(), device_name(t.device()));
    if t.is_variable() {
        s += " variable";
    }
    let v = create::to_f64(t)?;
    let known: Vec<f64> = v.iter().copied().filter(|v| !v.is_nan()).collect();
    if let Some(first) = known.first() {
        let low = known.iter().fold(*first, |a, b| a.min(*b));
        let high = known.iter().fold(*first, |a, b| a.max(*b));
        let f = |v: f64| if t.dtype().is_int() { format!("{v}") } else { short(v) };
        s += &format!(", {} … {}", f(low), f(high));
    }
    match v.len() - known.len() {
        0 => {}
        n => s += &format!(", {n} NaN"),
    }
    Ok(s)
}

/// A number in about six digits.
fn short(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return special(v);
    }
    let size = v.abs();
    if !(1e-4..1e7).contains(&size) {
        return format!("{v:.4e}");
    }
    let digits = (5 - size.log10().floor() as i32).clamp(0, 9) as usize;
    let s = format!("{v:.digits$}");
    if s.contains('.') { s.trim_end_matches('0').trim_end_matches('.').to_string() } else { s }
}
fn special(v: f64) -> String {
    match v {
        v if v.is_nan() => "nan".into(),
        f64::INFINITY => "inf".into(),
        f64::NEG_INFINITY => "-inf".into(),
        _ => "0".into(),
    }
}

fn values(t: &Tensor, most: usize) -> Result<String> {
    if t.rank() == 0 {
        let v = super::reduce::item(t)?;
        return Ok(if t.dtype().is_int() { create::to_i64(t)?[0].to_string() } else { short(v) });
    }
    if t.elem_count() == 0 {
        return Ok("[]".into());
    }
    let cut = t.elem_count() > MOST;
    // only what is shown is formatted (and, on a GPU, fetched)
    let shown: Vec<Vec<Option<usize>>> = t
        .dims()
        .iter()
        .map(|&n| match cut && n > 2 * EDGE {
            false => (0..n).map(Some).collect(),
            true => (0..EDGE).map(Some).chain([None]).chain((n - EDGE..n).map(Some)).collect(),
        })
        .collect();
    let mut part = t.detach();
    for (d, rows) in shown.iter().enumerate() {
        let rows: Vec<i64> = rows.iter().flatten().map(|r| *r as i64).collect();
        if rows.len() < part.dims()[d] {
            part = super::index::take(&part, d, &rows, &[rows.len()])?;
        }
    }
    let cells = if t.dtype().is_int() {
        create::to_i64(&part)?.iter().map(i64::to_string).collect()
    } else {
        aligned(&create::to_f64(&part)?)
    };
    let width = cells.iter().map(String::len).max().unwrap_or(0);
    let mut cells = cells.into_iter().map(|c| format!("{c:>width$}"));
    Ok(nested(&mut cells, &shown, 1, (width, most)))
}

/// All values with the same number of decimals, as few as four significant digits of the largest need.
fn aligned(v: &[f64]) -> Vec<String> {
    let finite: Vec<f64> = v.iter().copied().filter(|v| v.is_finite() && *v != 0.0).map(f64::abs).collect();
    let high = finite.iter().fold(0.0f64, |a, b| a.max(*b));
    let low = finite.iter().fold(f64::INFINITY, |a, b| a.min(*b));
    let whole = finite.iter().all(|v| v.fract() == 0.0);
    let science = high >= 1e8 || (!whole && (high < 1e-4 || high / low > 1e5 || high >= 1e6));
    let one = |v: f64| match v {
        v if !v.is_finite() => special(v),
        v if science => format!("{v:.4e}"),
        v if whole => format!("{v}."),
        v => format!("{v:.4}"),
    };
    v.iter().map(|v| one(*v)).collect()
}

fn nested(
    cells: &mut impl Iterator<Item = String>,
    shown: &[Vec<Option<usize>>],
    indent: usize,
    (width, most): (usize, usize),
) -> String {
    let Some((rows, inner)) = shown.split_first() else { return cells.next().unwrap_or_default() };
    let mut out = String::from("[");
    let mut column = indent;
    for (i, row) in rows.iter().enumerate() {
        if i > 0 {
            out.push(',');
            if !inner.is_empty() {
                // a blank line between matrices, as in numpy
                out.push_str(&"\n".repeat(inner.len()));
                out.push_str(&" ".repeat(indent));
            } else if column + width + 2 > most {
                out.push('\n');
                out.push_str(&" ".repeat(indent));
                column = indent;
            } else {
                out.push(' ');
                column += 2;
            }
        }
        match row {
            None => out.push('…'),
            Some(_) => out.push_str(&nested(cells, inner, indent + 1, (width, most))),
        }
        column += width;
    }
    out.push(']');
    out
}
