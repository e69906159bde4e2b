//! Pooling in windows and over dimensions.
use super::super::lower::{Lower, Step, V};
use super::super::num::{Num, Size};
use super::axes_of;
use super::images::{as_image, as_it_was, windows};
use crate::nets::kernels::{Function, Largest, LargestIn, MaxPool, Mix, Reduce, Windows};
use crate::{Error, Kind, Result};

/// The windows of a pooling.
struct Pooled {
    /// The image that goes with them.
    image: V,
    /// Where they lie; those that begin within the image may reach over its end if asked.
    at: Windows,
    /// How many there are along both axes.
    counts: [usize; 2],
    /// The padding that the file tells.
    told: [[usize; 2]; 2],
}

/// The windows that an operation asks for.
fn pooled(low: &mut Lower, step: &Step) -> Result<Pooled> {
    let x = step.input(0)?;
    let Some(size) = step.ints("kernel_shape").map(<[i64]>::to_vec) else {
        return Err(Error::new(Kind::Format, "its windows have no size"));
    };
    let one = |i: i64| usize::try_from(i).ok().filter(|i| (1..1 << 20).contains(i));
    let size = match (&size[..], low.rank(x)) {
        (&[w], 3) => one(w).map(|w| [1, w]),
        (&[h, w], 4) => one(h).zip(one(w)).map(|(h, w)| [h, w]),
        _ => None,
    };
    let size = size.ok_or_else(|| Error::new(Kind::Format, "its windows do not fit its images"))?;
    let mut at = windows(low, step, x, size, false)?;
    let image = as_image(low, x)?;
    let told = at.padding;
    let mut counts = [0; 2];
    for axis in 0..2 {
        let n = low.sizes(image)[2 + axis].fixed().unwrap_or(0);
        let reach = (size[axis] - 1) * at.dilation[axis] + 1;
        if step.int("ceil_mode", 0) != 0 {
            let all = n + at.padding[axis][0] + at.padding[axis][1];
            let mut count = all.saturating_sub(reach).div_ceil(at.stride[axis]) + 1;
            // a window must begin within the image or its padding before it
            if (count - 1) * at.stride[axis] >= n + at.padding[axis][0] {
                count -= 1;
            }
            let end = (count.max(1) - 1) * at.stride[axis] + reach;
            at.padding[axis][1] = end.saturating_sub(n + at.padding[axis][0]).max(at.padding[axis][1]);
        }
        let none = || Error::new(Kind::Format, format!("no window of {size:?} fits its image"));
        counts[axis] = at.count(axis, n).ok_or_else(none)?;
    }
    Ok(Pooled { image, at, counts, told })
}

/// The largest value in windows.
pub fn max(low: &mut Lower, step: &Step) -> Result<V> {
    let rank = low.rank(step.input(0)?);
    let Pooled { image: x, at, .. } = pooled(low, step)?;
    let square = at.size[0] == at.size[1] && at.stride[0] == at.stride[1];
    let y = match square && at.dilation == [1, 1] && at.padding == [[0; 2]; 2] {
        true => low.image(MaxPool { window: at.size[0], stride: at.stride[0], ceil: false }, x)?,
        false => low.image(LargestIn(at), x)?,
    };
    as_it_was(low, y, rank)
}

/// The mean in windows: of those pixels that are there, or of the padding too.
pub fn average(low: &mut Lower, step: &Step) -> Result<V> {
    let rank = low.rank(step.input(0)?);
    let Pooled { image: mut x, at, counts, told } = pooled(low, step)?;
    let with_padding = step.int("count_include_pad", 0) != 0;
    for axis in 0..2 {
        let n = low.sizes(x)[2 + axis].fixed().unwrap_or(0);
        let [before, after] = told[axis];
        let taps = |j: usize| -> Vec<(usize, f64)> {
            let places = (0..at.size[axis]).map(|k| j * at.stride[axis] + k * at.dilation[axis]);
            let inside: Vec<usize> = places.clone().filter_map(|p| p.checked_sub(before)).filter(|p| *p < n).collect();
            let all = if with_padding { places.filter(|p| *p < n + before + after).count() } else { inside.len() };
            inside.into_iter().map(|p| (p, 1.0 / all.max(1) as f64)).collect()
        };
        if (at.size[axis], at.stride[axis], at.padding[axis]) == (1, 1, [0, 0]) {
            continue;
        }
        let all: Vec<_> = (0..counts[axis]).map(taps).collect();
        x = low.along(x, 2 + axis, |dim| Mix::new("average pooling", dim, n, all))?;
    }
    as_it_was(low, x, rank)
}

/// The mean of all pixels.
pub fn global_average(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let dims = (2..low.rank(x)).collect();
    over(low, x, dims, true, |dims, keep| Reduce { mean: true, dims, keep })
}

/// The largest of all pixels.
pub fn global_max(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let dims = (2..low.rank(x)).collect();
    largest(low, x, dims, true, false)
}

fn over(low: &mut Lower, x: V, dims: Vec<usize>, keep: bool, op: impl FnOnce(Vec<usize>, bool) -> Reduce) -> Result<V> {
    if dims.iter().any(|d| low.sizes(x)[*d].fixed().is_none()) {
        return Err(Error::value("it runs the samples of a batch together"));
    }
    if keep && low.only_last(x) {
        let dims = dims.iter().map(|d| low.dim_in_last(x, *d)).collect();
        return low.image(op(dims, true), x);
    }
    low.apply(op(dims, keep), x)
}

/// The largest or smallest over dimensions.
pub fn largest(low: &mut Lower, x: V, dims: Vec<usize>, keep: bool, smallest: bool) -> Result<V> {
    let rank = low.rank(x);
    let gone: Option<Vec<usize>> = dims.iter().map(|d| low.sizes(x)[*d].fixed()).collect();
    let Some(gone) = gone else { return Err(Error::value("it runs the samples of a batch together")) };
    let kept: Vec<usize> = (0..rank).filter(|d| !dims.contains(d)).collect();
    let sizes = low.sizes(x).to_vec();
    let y = low.permuted(x, &[&kept[..], &dims].concat())?;
    let left: Vec<Size> = kept.iter().map(|d| sizes[*d]).collect();
    let y = low.reshaped(y, [&left[..], &[Size::Fixed(gone.iter().product())]].concat())?;
    let y = low.apply(Largest { smallest }, y)?;
    let whole = (0..rank).map(|d| if dims.contains(&d) { Size::Fixed(1) } else { sizes[d] }).collect();
    low.reshaped(y, if keep { whole } else { left })
}

/// Reductions over axes.
pub fn reduce(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let (rank, keep, op) = (low.rank(x), step.int("keepdims", 1) != 0, &*step.node.op);
    let dims = match axes_of(low, step, 1, rank)?.filter(|d| !d.is_empty()) {
        Some(dims) => dims,
        None if step.int("noop_with_empty_axes", 0) != 0 => return Ok(x),
        None => (0..rank).collect(),
    };
    // sizes that are multiplied, and numbers of them
    if let (Some(all), true) = (
        low.known(x).map(<[Num]>::to_vec),
        dims.len() == rank && ["ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin"].contains(&op),
    ) {
        let more = |a: Num, b: &Num| match op {
            "ReduceProd" => a.times(*b),
            "ReduceSum" => a.plus(*b),
            _ => Ok(if a.less(*b)? == (op == "ReduceMax") { *b } else { a }),
        };
        if let Some((first, rest)) = all.split_first() {
            let made = rest.iter().try_fold(*first, more)?;
            let sizes = if keep { vec![Size::Fixed(1); rank] } else { vec![] };
            return Ok(low.nums(low.val(x).elem, sizes, vec![made]));
        }
    }
    let (sum, mean) = (|dims, keep| Reduce { mean: false, dims, keep }, |dims, keep| Reduce { mean: true, dims, keep });
    match op {
        "ReduceSum" => over(low, x, dims, keep, sum),
        "ReduceMean" => over(low, x, dims, keep, mean),
        "ReduceMax" => largest(low, x, dims, keep, false),
        "ReduceMin" => largest(low, x, dims, keep, true),
        "ReduceSumSquare" | "ReduceL2" => {
            let square = low.each(Function::Square, x)?;
            let y = over(low, square, dims, keep, sum)?;
            if op == "ReduceL2" { low.each(Function::Sqrt, y) } else { Ok(y) }
        }
        _ => Err(Error::value("products over dimensions are computed of sizes only")),
    }
}
