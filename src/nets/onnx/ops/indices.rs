//! Entries picked, repeated and padded along dimensions.
use super::super::data::Elem;
use super::super::lower::{Lower, Step, V};
use super::super::num::{Num, Size};
use super::{Note, axes, axis, elementwise, numbers};
use crate::nets::kernels::{Arithmetic, Fixed, Lookup, Mix, Strided};
use crate::{Error, Kind, Result};
use candle_core::{Device, Tensor};

/// Entries `at` of a dimension whose size does not grow with the batch.
pub fn picked(low: &mut Lower, v: V, dim: usize, at: Vec<usize>) -> Result<V> {
    let n = low.sizes(v)[dim];
    if n.fixed().is_some_and(|n| at.iter().copied().eq(0..n)) {
        return Ok(v);
    }
    let Some(n) = n.fixed() else {
        let e = Error::value("it takes some of the samples of a batch");
        return Err(e.hint("do what it is for (guidance?) outside the network: `guided(net, scale)`"));
    };
    if let Some(v) = numbers::picked(low, v, dim, &at) {
        return Ok(v);
    }
    let by = at.get(1).map_or(1, |b| b.wrapping_sub(at[0]));
    let even = !at.is_empty() && (1..=n).contains(&by) && at.iter().enumerate().all(|(i, a)| *a == at[0] + i * by);
    match even {
        true => low.along(v, dim, |dim| Strided::Slice { dim, start: at[0], len: at.len(), step: by }),
        false => low.along(v, dim, |dim| Mix::picked(dim, n, at)),
    }
}

/// Parts of dimensions.
pub fn slice(low: &mut Lower, step: &Step) -> Result<V> {
    let mut x = step.input(0)?;
    let rank = low.rank(x);
    let [starts, ends] = [1, 2].map(|i| step.input(i).map(|v| (v, low.known(v).map(<[Num]>::to_vec))));
    let ((sv, starts), (ev, ends)) = (starts?, ends?);
    let plain = |v: V, k: Option<Vec<Num>>| -> Result<Vec<Num>> {
        match k {
            Some(k) => Ok(k),
            None => Ok(low.whole(v, "its bounds")?.into_iter().map(Num::from).collect()),
        }
    };
    let (starts, ends) = (plain(sv, starts)?, plain(ev, ends)?);
    let dims = match step.maybe(3) {
        Some(v) => axes(&low.whole(v, "its axes")?, rank)?,
        None => (0..starts.len().min(rank)).collect(),
    };
    let steps = match step.maybe(4) {
        Some(v) => low.whole(v, "its steps")?,
        None => vec![1; starts.len()],
    };
    if dims.len() != starts.len() || starts.len() != ends.len() || ends.len() != steps.len() {
        return Err(Error::new(Kind::Format, "its bounds, axes and steps are not alike in number"));
    }
    for (((d, from), to), by) in dims.into_iter().zip(starts).zip(ends).zip(steps) {
        let size = low.sizes(x)[d];
        let Some(n) = size.fixed() else {
            // all samples, or some
            if from == 0.into() && by == 1 && (to == size.into() || (to.per == 0 && to.fixed >= i64::from(i32::MAX))) {
                continue;
            }
            return picked(low, x, d, vec![]);
        };
        let (n, from, to) = (n as i64, from.plain()?, to.plain()?);
        let place = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
        let at: Vec<usize> = match by {
            0 => return Err(Error::new(Kind::Format, "a step of 0")),
            by if by > 0 => {
                (place(from).clamp(0, n)..place(to).clamp(0, n)).step_by(by as usize).map(|i| i as usize).collect()
            }
            by => {
                let (first, end) =
                    (place(from).clamp(-1, n - 1), if to < -n { -1 } else { place(to).clamp(-1, n - 1) });
                let by = by.unsigned_abs() as i64;
                (0..)
                    .map(|k| first.saturating_sub(by.saturating_mul(k)))
                    .take_while(|i| *i > end)
                    .map(|i| i as usize)
                    .collect()
            }
        };
        if at.is_empty() && low.in_graph(x) {
            return Err(Error::new(Kind::Format, format!("entries {from} to {to} of {n} are none")));
        }
        x = picked(low, x, d, at)?;
    }
    Ok(x)
}

/// A value in parts.
pub fn split(low: &mut Lower, step: &Step) -> Result<Vec<V>> {
    let x = step.input(0)?;
    let dim = axis(step.int("axis", 0), low.rank(x))?;
    let Some(n) = low.sizes(x)[dim].fixed() else { return picked(low, x, dim, vec![]).map(|v| vec![v]) };
    let lens: Vec<usize> = match step.maybe(1) {
        Some(v) => low.whole(v, "its sizes")?.into_iter().map(|i| usize::try_from(i).unwrap_or(usize::MAX)).collect(),
        None => {
            let parts = step.int("num_outputs", step.node.outputs.len() as i64).clamp(1, n.max(1) as i64) as usize;
            let each = n.div_ceil(parts).max(1);
            (0..parts).map(|i| n.saturating_sub(i * each).min(each)).collect()
        }
    };
    if lens.iter().fold(0usize, |a, b| a.saturating_add(*b)) != n {
        return Err(Error::new(Kind::Format, format!("parts of {lens:?} are not {n}")));
    }
    let mut at = 0;
    let mut parts = vec![];
    for len in lens {
        parts.push(picked(low, x, dim, (at..at + len).collect())?);
        at += len;
    }
    Ok(parts)
}

/// Entries by number.
pub fn gather(low: &mut Lower, step: &Step) -> Result<V> {
    let (x, at) = (step.input(0)?, step.input(1)?);
    let dim = axis(step.int("axis", 0), low.rank(x))?;
    if low.in_graph(at) {
        return lookup(low, x, at, dim);
    }
    let size = low.sizes(x)[dim];
    let places = low.whole(at, "the numbers of the entries")?;
    let Some(n) = size.fixed() else { return picked(low, x, dim, vec![]) };
    let place = |i: &i64| {
        let j = if *i < 0 { i + n as i64 } else { *i };
        let found = usize::try_from(j).ok().filter(|j| *j < n);
        found.ok_or_else(|| Error::new(Kind::Format, format!("there is no entry {i} in {n}")))
    };
    let places = places.iter().map(place).collect::<Result<Vec<_>>>()?;
    let (mut sizes, new) = (low.sizes(x).to_vec(), low.sizes(at).to_vec());
    let y = picked(low, x, dim, places)?;
    sizes.splice(dim..=dim, new);
    low.reshaped(y, sizes)
}

/// Rows of a constant table by numbers that come from an input: of classes, of tokens.
fn lookup(low: &mut Lower, x: V, at: V, dim: usize) -> Result<V> {
    let Some(table) = low.tensor(x, false)? else {
        return Err(Error::value("it picks values that are computed by numbers that are computed"));
    };
    if dim != 0 || low.sizes(x).iter().any(|s| s.fixed().is_none()) {
        return Err(Error::value("it picks by numbers that are computed along another axis than the first"));
    }
    let rows = table.dim(0)?;
    if let Some(Note::Classes(n)) = low.val(at).note
        && n > rows
    {
        return Err(Error::value(format!("it picks from a table of {rows} rows, but there are {n} classes"))
            .hint(format!("say `classes: {rows}`, or fewer")));
    }
    let rest = table.elem_count().checked_div(rows).unwrap_or(0);
    let sizes: Vec<Size> = [low.sizes(at), &low.sizes(x)[1..]].concat();
    let elem = low.val(x).elem;
    let y = low.apply(Lookup(Fixed::new(&table.reshape((rows, rest))?)?), at)?;
    let y = low.reshaped(y, sizes)?;
    let mut v = low.val(y).clone();
    v.elem = elem;
    Ok(low.value(v))
}

/// A value several times along dimensions.
pub fn tile(low: &mut Lower, step: &Step) -> Result<V> {
    let mut x = step.input(0)?;
    let times = low.whole(step.input(1)?, "how often")?;
    for (d, k) in times.into_iter().enumerate() {
        let k = usize::try_from(k).ok().filter(|_| d < low.rank(x));
        let k = k.ok_or_else(|| Error::new(Kind::Format, "its numbers do not fit the value"))?;
        if k == 1 {
            continue;
        }
        let Some(n) = low.sizes(x)[d].fixed() else { return picked(low, x, d, vec![]) };
        let mut dims = low.at_one(x);
        dims[d] = n.saturating_mul(k);
        low.room(&dims)?;
        x = picked(low, x, d, (0..n * k).map(|i| i % n).collect())?;
    }
    Ok(x)
}

/// More entries around a value.
pub fn pad(low: &mut Lower, step: &Step) -> Result<V> {
    let mut x = step.input(0)?;
    let (rank, mode) = (low.rank(x), step.text("mode", "constant"));
    let pads = low.whole(step.input(1)?, "how many")?;
    let value = match step.maybe(2) {
        Some(v) => low
            .floats(v)?
            .and_then(|f| f.first().copied())
            .ok_or_else(|| Error::value("what it pads with is computed"))?,
        None => 0.0,
    };
    let dims = match step.maybe(3) {
        Some(v) => axes(&low.whole(v, "its axes")?, rank)?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * dims.len() {
        return Err(Error::new(Kind::Format, format!("{} numbers for {} dimensions", pads.len(), dims.len())));
    }
    let mut missing = low.at_one(x).iter().map(|n| vec![false; *n]).collect::<Vec<_>>();
    for (i, d) in dims.iter().enumerate() {
        let (before, after) = (pads[i], pads[i + dims.len()]);
        if (before, after) == (0, 0) {
            continue;
        }
        let Some(n) = low.sizes(x)[*d].fixed() else { return picked(low, x, *d, vec![]) };
        let n = n as i64;
        let all = n.saturating_add(before).saturating_add(after);
        if all <= 0 || before.abs() > 1 << 24 || after.abs() > 1 << 24 {
            return Err(Error::new(Kind::Format, format!("{before} and {after} around {n}")));
        }
        let from = |j: i64| -> Option<usize> {
            let i = j - before;
            let i = match &*mode {
                "edge" => i.clamp(0, n - 1),
                "wrap" => i.rem_euclid(n),
                "reflect" if n > 1 => {
                    let m = i.rem_euclid(2 * (n - 1));
                    if m < n { m } else { 2 * (n - 1) - m }
                }
                "reflect" => 0,
                _ => i,
            };
            usize::try_from(i).ok().filter(|i| (*i as i64) < n)
        };
        if !["constant", "edge", "wrap", "reflect"].contains(&&*mode) {
            return Err(Error::new(Kind::Format, format!("there is no mode `{mode}`")));
        }
        let places: Vec<Option<usize>> = (0..all).map(from).collect();
        missing[*d] = places.iter().map(Option::is_none).collect();
        let taps: Vec<Vec<(usize, f64)>> = places.iter().map(|p| p.iter().map(|p| (*p, 1.0)).collect()).collect();
        x = low.along(x, *d, |dim| Mix::new("padding", dim, n as usize, taps))?;
    }
    if value == 0.0 || mode != "constant" {
        return Ok(x);
    }
    // the zeros become what was asked for
    let dims: Vec<usize> = missing.iter().map(Vec::len).collect();
    let n = low.room(&dims)?;
    let outside = |mut i: usize| {
        (0..dims.len()).rev().any(|d| {
            let at = i % dims[d];
            i /= dims[d];
            missing[d][at]
        })
    };
    let fill: Vec<f32> = (0..n).map(|i| if outside(i) { value } else { 0.0 }).collect();
    let fill = low.fixed(Tensor::from_vec(fill, dims, &Device::Cpu)?);
    elementwise::binary(low, Arithmetic::Sum, x, fill)
}

/// Sums of all entries up to each.
pub fn cum_sum(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let a = low.whole(step.input(1)?, "its axis")?;
    let dim = axis(a.first().copied().unwrap_or(0), low.rank(x))?;
    let Some(n) = low.sizes(x)[dim].fixed().filter(|n| *n <= 4096) else {
        return Err(Error::value("sums along this many entries are not run"));
    };
    let (open, back) = (step.int("exclusive", 0) != 0, step.int("reverse", 0) != 0);
    let upto = |j: usize, i: usize| if back { i > j || (i == j && !open) } else { i < j || (i == j && !open) };
    let taps: Vec<Vec<(usize, f64)>> =
        (0..n).map(|j| (0..n).filter(|i| upto(j, *i)).map(|i| (i, 1.0)).collect()).collect();
    low.along(x, dim, |dim| Mix::new("running sums", dim, n, taps))
}

/// A triangle of matrices, with zeros elsewhere.
pub fn trilu(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let (upper, rank, elem) = (step.int("upper", 1) != 0, low.rank(x), low.val(x).elem);
    let k = match step.maybe(1) {
        Some(v) => low.whole(v, "its diagonal")?.first().copied().unwrap_or(0),
        None => 0,
    };
    let [Some(n), Some(m)] = [2, 1].map(|i| rank.checked_sub(i).and_then(|d| low.sizes(x)[d].fixed())) else {
        return Err(Error::value("it takes a triangle of no fixed matrix"));
    };
    low.room(&[n, m])?;
    let kept = |i: usize| {
        let off = (i % m) as i64 - (i / m) as i64;
        if upper { off >= k } else { off <= k }
    };
    let mask: Vec<Num> = (0..n * m).map(|i| numbers::truth(kept(i))).collect();
    let mask = low.nums(Elem::Bool, vec![Size::Fixed(n), Size::Fixed(m)], mask);
    let chosen = numbers::zipped(low, mask, x, elem, |keep, v| Ok(if keep == 0.into() { 0.into() } else { v }))?;
    match chosen {
        Some(v) => Ok(v),
        None => {
            let zero = elementwise::number(low, 0.0)?;
            low.sides([mask, x, zero], elem, crate::nets::kernels::Where)
        }
    }
}

/// Rows with a one at a number.
pub fn one_hot(low: &mut Lower, step: &Step) -> Result<V> {
    let (at, depth) = (step.input(0)?, low.whole(step.input(1)?, "its depth")?);
    let values = low.floats(step.input(2)?)?;
    let (Some(&[off, on]), Some(n)) = (values.as_deref(), depth.first().filter(|n| (1..1 << 24).contains(*n))) else {
        return Err(Error::new(Kind::Format, "its depth or values are none"));
    };
    let rank = low.rank(at) + 1;
    let dim = axis(step.int("axis", -1), rank)?;
    let mut sizes = low.sizes(at).to_vec();
    sizes.insert(dim, Size::Fixed(1));
    let at = low.reshaped(at, sizes)?;
    let mut shape = vec![1; rank];
    shape[dim] = *n as usize;
    let all = low.fixed(Tensor::arange(0f32, *n as f32, &Device::Cpu)?.reshape(shape)?);
    let here = low.sides([at, all], Elem::Float, |sides| crate::nets::kernels::Choose {
        op: crate::nets::kernels::Choice::Equal,
        sides,
    })?;
    let gap = elementwise::number(low, f64::from(on - off))?;
    let scaled = elementwise::binary(low, Arithmetic::Product, here, gap)?;
    let off = elementwise::number(low, f64::from(off))?;
    elementwise::binary(low, Arithmetic::Sum, scaled, off)
}
