//! Convolutions, and channels that become pixels.
use super::super::lower::{Lower, Step, V};
use super::super::num::Size;
use super::indices::picked;
use crate::nets::kernels::{Conv, Depthwise, Join, Linear, Mix, Reshaped, Side, Strided, Windows};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};

/// A pair of numbers for the two axes of images, of which rows of values have the second only.
fn pair(step: &Step, name: &str, axes: usize, default: usize) -> Result<[usize; 2]> {
    let Some(all) = step.ints(name) else { return Ok([default; 2]) };
    let one = |i: i64| usize::try_from(i).ok().filter(|i| *i < 1 << 20);
    let all: Option<Vec<usize>> = all.iter().map(|i| one(*i)).collect();
    match (all.as_deref(), axes) {
        (Some(&[w]), 1) => Ok([default, w]),
        (Some(&[h, w]), 2) => Ok([h, w]),
        _ => Err(Error::new(Kind::Format, format!("`{name}` does not fit {axes} axes"))),
    }
}

/// Where the windows of a convolution or pooling lie over an image of these sizes; `transposed` ones have no padding of their own kind.
pub fn windows(low: &Lower, step: &Step, x: V, size: [usize; 2], transposed: bool) -> Result<Windows> {
    let axes = low.rank(x) - 2;
    let (stride, dilation) = (pair(step, "strides", axes, 1)?, pair(step, "dilations", axes, 1)?);
    if stride.contains(&0) || dilation.contains(&0) || size.contains(&0) {
        return Err(Error::new(Kind::Format, "its strides, dilations and kernel must be at least 1"));
    }
    let mut padding = [[0; 2]; 2];
    let one = |i: i64| usize::try_from(i).ok().filter(|i| *i < 1 << 20);
    if let Some(all) = step.ints("pads") {
        let all: Option<Vec<usize>> = all.iter().map(|i| one(*i)).collect();
        padding = match (all.as_deref(), axes) {
            (Some(&[a, b]), 1) => [[0, 0], [a, b]],
            (Some(&[t, l, b, r]), 2) => [[t, b], [l, r]],
            _ => return Err(Error::new(Kind::Format, "its padding is negative, or does not fit its axes")),
        };
    }
    let auto = step.text("auto_pad", "NOTSET");
    if auto == "SAME_UPPER" || auto == "SAME_LOWER" {
        let dims: Vec<usize> = low.sizes(x)[2..].iter().filter_map(|s| s.fixed()).collect();
        for axis in 2 - axes..2 {
            let n = dims.get(axis + axes - 2).copied().unwrap_or(1);
            let reach = (size[axis] - 1) * dilation[axis] + 1;
            let all = match transposed {
                false => ((n.div_ceil(stride[axis]) - 1) * stride[axis] + reach).saturating_sub(n),
                true => reach.saturating_sub(stride[axis]),
            };
            let more = all - all / 2;
            padding[axis] = if auto == "SAME_UPPER" { [all / 2, more] } else { [more, all / 2] };
        }
    } else if auto != "NOTSET" && auto != "VALID" {
        return Err(Error::new(Kind::Format, format!("there is no padding `{auto}`")));
    }
    Ok(Windows { size, stride, dilation, padding })
}

/// Rows of values as images of one row, and images as they are.
pub fn as_image(low: &mut Lower, x: V) -> Result<V> {
    let sizes = low.sizes(x).to_vec();
    match (sizes.len(), low.is_image(x)) {
        (4, true) => Ok(x),
        (3, true) => low.reshaped(x, vec![sizes[0], sizes[1], Size::Fixed(1), sizes[2]]),
        (5, _) => Err(Error::value("volumes (three spatial dimensions) are not run")),
        _ => Err(Error::value(format!(
            "it takes images [B, C, H, W] of fixed sizes, got {}",
            super::super::num::told(&sizes)
        ))),
    }
}

/// Back to as many dimensions as there were.
pub fn as_it_was(low: &mut Lower, y: V, rank: usize) -> Result<V> {
    if rank == 4 {
        return Ok(y);
    }
    let s = low.sizes(y).to_vec();
    low.reshaped(y, vec![s[0], s[1], s[3]])
}

/// Weights as [out, in, kh, kw].
fn kernel(low: &Lower, v: V, rank: usize) -> Result<Tensor> {
    let w = low.weight(v, "kernel")?;
    match (w.dims(), rank) {
        (&[_, _, _, _], 4) => Ok(w),
        (&[o, i, k], 3) => Ok(w.reshape((o, i, 1, k))?),
        (d, _) => Err(Error::new(Kind::Format, format!("its kernel has shape {d:?} for {rank} dimensions"))),
    }
}

fn bias(low: &Lower, v: Option<V>, out: usize) -> Result<Tensor> {
    let b = match v {
        None => return Ok(Tensor::zeros(out, low.dtype(), low.device())?),
        Some(v) => low.tensor(v, false)?.ok_or_else(|| Error::value("its bias is computed from the input"))?,
    };
    match b.elem_count() == out {
        true => Ok(b.flatten_all()?),
        false => Err(Error::new(Kind::Format, format!("its bias has {} values for {out} channels", b.elem_count()))),
    }
}

/// A kernel with gaps between its taps as one without, whose taps there are 0.
fn without_gaps(w: &Tensor, [dh, dw]: [usize; 2]) -> Result<Tensor> {
    let (o, i, kh, kw) = w.dims4()?;
    let (h, wide) = ((kh - 1) * dh + 1, (kw - 1) * dw + 1);
    let all = w.to_dtype(DType::F64)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f64>()?;
    let mut out = vec![0f64; o * i * h * wide];
    for (at, v) in all.iter().enumerate() {
        let (x, y, plane) = (at % kw, at / kw % kh, at / (kw * kh));
        out[(plane * h + y * dh) * wide + x * dw] = *v;
    }
    Ok(Tensor::from_vec(out, (o, i, h, wide), &Device::Cpu)?.to_dtype(w.dtype())?.to_device(w.device())?)
}

/// A convolution.
pub fn conv(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let rank = low.rank(x);
    let image = as_image(low, x)?;
    let w = kernel(low, step.input(1)?, rank)?;
    let (out, inner, kh, kw) = w.dims4()?;
    let groups = step.int("group", 1).max(1) as usize;
    let cin = low.sizes(image)[1].fixed().unwrap_or(0);
    if inner.checked_mul(groups) != Some(cin) || out % groups != 0 {
        return Err(Error::new(
            Kind::Format,
            format!("its kernel {:?} in {groups} groups does not fit {cin} channels", w.dims()),
        ));
    }
    let at = windows(low, step, x, [kh, kw], false)?;
    let b = bias(low, step.maybe(2), out)?;
    let y = convolved(low, image, &w, &b, at, groups)?;
    as_it_was(low, y, rank)
}

/// A convolution of images in groups of channels.
fn convolved(low: &mut Lower, x: V, w: &Tensor, b: &Tensor, at: Windows, groups: usize) -> Result<V> {
    let (out, inner, ..) = w.dims4()?;
    if groups == 1 {
        return whole(low, x, w, b, at);
    }
    if inner == 1 && out == groups {
        let w = w.to_dtype(low.dtype())?;
        let even = at.dilation[0] == at.dilation[1];
        let (w, at) = match even {
            true => (w, at),
            false => (without_gaps(&w, at.dilation)?, Windows { dilation: [1, 1], ..at }),
        };
        return low.image(Depthwise::new(w, b.clone(), at)?, x);
    }
    let each = out / groups;
    let mut parts = vec![];
    for g in 0..groups {
        let part = picked(low, x, 1, (g * inner..(g + 1) * inner).collect())?;
        let w = w.narrow(0, g * each, each)?.contiguous()?;
        parts.push(whole(low, part, &w, &b.narrow(0, g * each, each)?.contiguous()?, at)?);
    }
    low.images(Join { dim: 3, parts: vec![Side::Input; groups] }, &parts)
}

fn whole(low: &mut Lower, x: V, w: &Tensor, b: &Tensor, at: Windows) -> Result<V> {
    let (out, cin, ..) = w.dims4()?;
    let w = if at.dilation == [1, 1] { w.clone() } else { without_gaps(w, at.dilation)? };
    if (&w.dims()[2..], at.stride, at.padding) == (&[1, 1][..], [1, 1], [[0; 2]; 2]) {
        return low.image(Linear::new(&w.reshape((out, cin))?, b.clone())?, x);
    }
    let [sy, sx] = at.stride;
    if sy == sx {
        return low.image(Conv::oblong(w, b.clone(), sy, at.padding)?, x);
    }
    // every pixel, and then those that are wanted
    let mut y = low.image(Conv::oblong(w, b.clone(), 1, at.padding)?, x)?;
    for (dim, by) in [(2, sy), (3, sx)] {
        let n = low.sizes(y)[dim].fixed().unwrap_or(0);
        y = picked(low, y, dim, (0..n).step_by(by).collect())?;
    }
    Ok(y)
}

/// A transposed convolution: pixels set apart by zeros, and a convolution by the kernel turned about.
pub fn conv_transpose(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let rank = low.rank(x);
    let image = as_image(low, x)?;
    let w = kernel(low, step.input(1)?, rank)?;
    let (cin, each, kh, kw) = w.dims4()?;
    let groups = step.int("group", 1).max(1) as usize;
    if low.sizes(image)[1] != Size::Fixed(cin) || cin % groups != 0 {
        return Err(Error::new(
            Kind::Format,
            format!("its kernel {:?} does not fit {}", w.dims(), super::super::num::told(low.sizes(image))),
        ));
    }
    if step.ints("output_shape").is_some() {
        return Err(Error::value("a transposed convolution with the shape of its result given is not run")
            .hint("export it with `output_padding` instead"));
    }
    let at = windows(low, step, x, [kh, kw], true)?;
    let more = pair(step, "output_padding", rank - 2, 0)?;
    let out = each.checked_mul(groups).ok_or_else(|| Error::new(Kind::Format, "its channels are too many"))?;
    let b = bias(low, step.maybe(2), out)?;
    let plain = groups == 1 && rank == 4 && at.dilation == [1, 1] && at.padding == [[0; 2]; 2] && more == [0, 0];
    if plain && at.stride == [kh, kw] {
        return patches(low, image, &w, &b);
    }
    let mut spread = image;
    for axis in 0..2 {
        let n = low.sizes(spread)[2 + axis].fixed().unwrap_or(0);
        let by = at.stride[axis];
        if by > 1 && n > 0 {
            let taps = (0..(n - 1) * by + 1).map(|j| if j % by == 0 { vec![(j / by, 1.0)] } else { vec![] });
            spread = low.along(spread, 2 + axis, |dim| Mix::new("pixels set apart", dim, n, taps))?;
        }
    }
    // [in, out / groups, …] as [out, in / groups, …], taps from the end
    let inner = cin / groups;
    let turned =
        w.reshape((groups, inner, each, kh * kw))?.transpose(1, 2)?.contiguous()?.reshape((out, inner, kh * kw))?;
    let back: Vec<u32> = (0..(kh * kw) as u32).rev().collect();
    let turned = turned.to_dtype(low.dtype())?.index_select(&Tensor::new(&back[..], turned.device())?, 2)?;
    let turned = turned.reshape((out, inner, kh, kw))?;
    let mut padding = [[0; 2]; 2];
    for axis in 0..2 {
        let reach = (at.size[axis] - 1) * at.dilation[axis];
        for (side, missing) in padding[axis].iter_mut().enumerate() {
            let own = if side == 1 { reach + more[axis] } else { reach };
            *missing = own
                .checked_sub(at.padding[axis][side])
                .ok_or_else(|| Error::value("its padding is larger than its kernel, which is not run"))?;
        }
    }
    let at = Windows { stride: [1, 1], padding, ..at };
    let y = convolved(low, spread, &turned, &b, at, groups)?;
    as_it_was(low, y, rank)
}

/// A transposed convolution whose windows lie side by side: a linear map of each pixel to a patch.
fn patches(low: &mut Lower, x: V, w: &Tensor, b: &Tensor) -> Result<V> {
    let (cin, out, kh, kw) = w.dims4()?;
    let &[batch, _, Size::Fixed(h), Size::Fixed(wide)] = low.sizes(x) else {
        return Err(Error::new(Kind::Format, "it takes images of fixed sizes"));
    };
    let matrix = w.permute((2, 3, 1, 0))?.contiguous()?.reshape((kh * kw * out, cin))?;
    let each = b.reshape((1, out))?.broadcast_as((kh * kw, out))?.contiguous()?.flatten_all()?;
    let y = low.image(Linear::new(&matrix, each)?, x)?;
    // inside: [B, H, W, kh, kw, C] → [B, H, kh, W, kw, C]
    let id = low.last(y)?;
    let y = low.placed(id, super::super::data::Elem::Float, false);
    let inside = Reshaped(vec![batch.fixed(), Some(h), Some(wide), Some(kh), Some(kw), Some(out)]);
    let y = low.apply(inside, y)?;
    let y = low.apply(Strided::Permute(vec![0, 1, 3, 2, 4, 5]), y)?;
    let y = low.reshaped(y, vec![batch, Size::Fixed(h * kh), Size::Fixed(wide * kw), Size::Fixed(out)])?;
    low.permuted(y, &super::super::values::from_last(4))
}

/// The sizes of images, and a block's edge.
fn blocks(low: &Lower, step: &Step, x: V) -> Result<([Size; 4], [usize; 4])> {
    let &[b, Size::Fixed(c), Size::Fixed(h), Size::Fixed(w)] = low.sizes(x) else {
        return Err(Error::value("it takes images [B, C, H, W] of fixed sizes"));
    };
    let n = usize::try_from(step.int("blocksize", 0)).ok().filter(|n| (1..1 << 12).contains(n));
    let n = n.ok_or_else(|| Error::new(Kind::Format, "its blocks have no size"))?;
    Ok(([b, Size::Fixed(c), Size::Fixed(h), Size::Fixed(w)], [c, h, w, n]))
}

/// Channels become blocks of pixels.
pub fn depth_to_space(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let ([b, ..], [c, h, w, n]) = blocks(low, step, x)?;
    if c % (n * n) != 0 {
        return Err(Error::new(Kind::Format, format!("{c} channels are no blocks of {n}×{n}")));
    }
    let (f, out) = (Size::Fixed, c / (n * n));
    let (split, order) = match &*step.text("mode", "DCR") {
        "CRD" => (vec![b, f(out), f(n), f(n), f(h), f(w)], [0, 1, 4, 2, 5, 3]),
        _ => (vec![b, f(n), f(n), f(out), f(h), f(w)], [0, 3, 4, 1, 5, 2]),
    };
    let y = low.reshaped(x, split)?;
    let y = low.permuted(y, &order)?;
    low.reshaped(y, vec![b, f(out), f(h * n), f(w * n)])
}

/// Blocks of pixels become channels.
pub fn space_to_depth(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let ([b, ..], [c, h, w, n]) = blocks(low, step, x)?;
    if h % n != 0 || w % n != 0 {
        return Err(Error::new(Kind::Format, format!("{h}×{w} pixels are no blocks of {n}×{n}")));
    }
    let f = Size::Fixed;
    let y = low.reshaped(x, vec![b, f(c), f(h / n), f(n), f(w / n), f(n)])?;
    let y = low.permuted(y, &[0, 3, 5, 1, 2, 4])?;
    low.reshaped(y, vec![b, f(c * n * n), f(h / n), f(w / n)])
}
