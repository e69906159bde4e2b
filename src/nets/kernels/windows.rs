//! Operations on windows of channels-last images that other frameworks' graphs have: max pooling with padding, depthwise convolutions.
use super::{Frozen, View, host_f32, pool};
use crate::tensor::conv::{Geometry, conv2d};
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// Where windows lie along both axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Height and width.
    pub size: [usize; 2],
    /// From one to the next.
    pub stride: [usize; 2],
    /// From one entry to the next within a window.
    pub dilation: [usize; 2],
    /// Pixels that are missing before and after.
    pub padding: [[usize; 2]; 2],
}

impl Windows {
    /// How many there are along an axis of `n` pixels; none where none fits.
    pub fn count(&self, axis: usize, n: usize) -> Option<usize> {
        let reach = (self.size[axis].checked_sub(1)?) * self.dilation[axis] + 1;
        let [before, after] = self.padding[axis];
        Some((n + before + after).checked_sub(reach)? / self.stride[axis].max(1) + 1)
    }
    fn dims(&self, dims: &[usize]) -> std::result::Result<Vec<usize>, String> {
        match *dims {
            [b, h, w, c] => match (self.count(0, h), self.count(1, w)) {
                (Some(h), Some(w)) => Ok(vec![b, h, w, c]),
                _ => Err(format!("no window of {:?} fits into {h}×{w} pixels", self.size)),
            },
            ref d => Err(format!("expected [B, H, W, C], got {d:?}")),
        }
    }
    /// The pixel that entry `k` of window `i` sees along an axis, if it is one.
    #[inline(always)]
    fn at(&self, axis: usize, i: usize, k: usize, n: usize) -> Option<usize> {
        (i * self.stride[axis] + k * self.dilation[axis]).checked_sub(self.padding[axis][0]).filter(|p| *p < n)
    }
    /// Calls `f(window, entry, pixel)` for every pixel of every window of one image.
    pub(super) fn each(&self, [h, w]: [usize; 2], [oh, ow]: [usize; 2], mut f: impl FnMut(usize, usize, usize)) {
        for oy in 0..oh {
            for ky in 0..self.size[0] {
                let Some(y) = self.at(0, oy, ky, h) else { continue };
                for ox in 0..ow {
                    for kx in 0..self.size[1] {
                        let Some(x) = self.at(1, ox, kx, w) else { continue };
                        f(oy * ow + ox, ky * self.size[1] + kx, y * w + x);
                    }
                }
            }
        }
    }
    /// Runs `one` on each image.
    pub(super) fn images(
        from: &[f32],
        to: &mut [f32],
        [a, b]: [usize; 2],
        par: bool,
        one: impl Fn(&[f32], &mut [f32]) + Sync,
    ) {
        if par {
            from.par_chunks_exact(a.max(1)).zip(to.par_chunks_exact_mut(b.max(1))).for_each(|(f, t)| one(f, t));
        } else {
            from.chunks_exact(a.max(1)).zip(to.chunks_exact_mut(b.max(1))).for_each(|(f, t)| one(f, t));
        }
    }
    fn told(&self) -> String {
        let Windows { size, stride, dilation, padding } = self;
        format!("window {size:?}, stride {stride:?}, dilation {dilation:?}, padding {padding:?}")
    }
}

/// The largest value in windows, of those pixels that are there: [B, H, W, C] → [B, H', W', C].
pub struct LargestIn(pub Windows);

impl LargestIn {
    /// The largest values of one image, and the pixel of each.
    fn one(&self, x: &[f32], dims: &[usize], out: &mut [f32], mut place: Option<&mut [u32]>) {
        let (h, w, c) = (dims[1], dims[2], dims[3]);
        let size = [self.0.count(0, h).unwrap_or(0), self.0.count(1, w).unwrap_or(0)];
        out.fill(f32::NEG_INFINITY);
        self.0.each([h, w], size, |to, _, pixel| {
            let (x, out) = (&x[pixel * c..][..c], &mut out[to * c..][..c]);
            match &mut place {
                None => out.iter_mut().zip(x).for_each(|(o, x)| *o = if *x > *o || x.is_nan() { *x } else { *o }),
                Some(place) => {
                    for ((o, x), p) in out.iter_mut().zip(x).zip(&mut place[to * c..][..c]) {
                        if *x > *o || x.is_nan() {
                            (*o, *p) = (*x, pixel as u32);
                        }
                    }
                }
            }
        });
    }
}

impl Frozen for LargestIn {
    fn name(&self) -> &'static str {
        "max pooling"
    }
    fn detail(&self) -> String {
        self.0.told()
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        self.0.dims(inputs[0])
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let View { data, dims } = inputs[0];
        let n = dims[0].max(1);
        let size = [data.len() / n, out.len() / n];
        Windows::images(data, out, size, par, |x, out| self.one(x, dims, out, None));
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let View { data, dims } = inputs[0];
        let (n, c) = (dims[0].max(1), dims[3].max(1));
        let (a, b) = (data.len() / n, cot.len() / n);
        let mut grad = pool::zeros(data.len());
        let one = |(x, (cot, grad)): (&[f32], (&[f32], &mut [f32]))| {
            let (mut most, mut place) = (pool::take(b), vec![0u32; b]);
            self.one(x, dims, &mut most, Some(&mut place));
            for (i, (g, p)) in cot.iter().zip(&place).enumerate() {
                grad[*p as usize * c + i % c] += g;
            }
            pool::give(most);
        };
        let (a, b1) = (a.max(1), b.max(1));
        if par {
            data.par_chunks_exact(a)
                .zip(cot.par_chunks_exact(b1).zip(grad.par_chunks_exact_mut(a)))
                .for_each(|(x, (cot, grad))| one((x, (cot, grad))));
        } else {
            data.chunks_exact(a)
                .zip(cot.chunks_exact(b1).zip(grad.chunks_exact_mut(a)))
                .for_each(|(x, (cot, grad))| one((x, (cot, grad))));
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        // each entry of all windows as an image of its own; what is missing is below everything
        let x = inputs[0];
        let (_, h, w, _) = x.dims4()?;
        let size = [self.0.count(0, h).unwrap_or(0), self.0.count(1, w).unwrap_or(0)];
        let own = |e: crate::Error| candle_core::Error::Msg(e.to_string());
        let mut most: Option<Tensor> = None;
        for ky in 0..self.0.size[0] {
            for kx in 0..self.0.size[1] {
                let along = |axis: usize, k: usize, n: usize| -> Result<(Tensor, Tensor)> {
                    let at: Vec<Option<usize>> = (0..size[axis]).map(|i| self.0.at(axis, i, k, n)).collect();
                    let index: Vec<u32> = at.iter().map(|p| p.unwrap_or(0) as u32).collect();
                    let floor: Vec<f64> = at.iter().map(|p| if p.is_some() { 0.0 } else { -1e30 }).collect();
                    let floor = Tensor::from_vec(floor, size[axis], x.device())?.to_dtype(x.dtype())?;
                    Ok((Tensor::from_vec(index, size[axis], x.device())?, floor))
                };
                let ((iy, fy), (ix, fx)) = (along(0, ky, h)?, along(1, kx, w)?);
                let seen = x.contiguous()?.index_select(&iy, 1)?.index_select(&ix, 2)?;
                let seen = seen
                    .broadcast_add(&fy.reshape((1, size[0], 1, 1))?)?
                    .broadcast_add(&fx.reshape((1, 1, size[1], 1))?)?;
                most = Some(match most {
                    None => seen,
                    Some(m) => {
                        crate::tensor::arith::binary(crate::tensor::arith::Op::Maximum, &m, &seen).map_err(own)?
                    }
                });
            }
        }
        most.ok_or_else(|| candle_core::Error::Msg("a window of no pixels".into()))
    }
}

/// A convolution of each channel by itself: [B, H, W, C] → [B, H', W', C].
pub struct Depthwise {
    windows: Windows,
    /// [C, 1, kh, kw], for the composed form.
    weight: Tensor,
    bias: Tensor,
    /// [taps, C].
    taps: Vec<f32>,
    shift: Vec<f32>,
}

impl Depthwise {
    /// From weights [C, 1, kh, kw] and a bias [C].
    pub fn new(weight: Tensor, bias: Tensor, windows: Windows) -> Result<Depthwise> {
        let (c, _, kh, kw) = weight.dims4()?;
        let taps = host_f32(&weight.reshape((c, kh * kw))?.t()?.contiguous()?)?;
        let shift = host_f32(&bias)?;
        Ok(Depthwise { windows: Windows { size: [kh, kw], ..windows }, weight, bias, taps, shift })
    }
    fn size(&self, dims: &[usize]) -> [usize; 2] {
        [self.windows.count(0, dims[1]).unwrap_or(0), self.windows.count(1, dims[2]).unwrap_or(0)]
    }
}

impl Frozen for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise convolution"
    }
    fn detail(&self) -> String {
        self.windows.told()
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match inputs[0].last() {
            Some(c) if *c == self.shift.len() => self.windows.dims(inputs[0]),
            _ => Err(format!("expected [B, H, W, {}], got {:?}", self.shift.len(), inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let View { data, dims } = inputs[0];
        let (n, c, size) = (dims[0].max(1), dims[3], self.size(dims));
        let lens = [data.len() / n, out.len() / n];
        Windows::images(data, out, lens, par, |x, out| {
            out.chunks_exact_mut(c).for_each(|o| o.copy_from_slice(&self.shift));
            self.windows.each([dims[1], dims[2]], size, |to, k, pixel| {
                let (x, w) = (&x[pixel * c..][..c], &self.taps[k * c..][..c]);
                out[to * c..][..c].iter_mut().zip(x).zip(w).for_each(|((o, x), w)| *o += x * w);
            });
        });
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let dims = inputs[0].dims;
        let (n, c, size) = (dims[0].max(1), dims[3], self.size(dims));
        let mut grad = pool::zeros(dims.iter().product());
        let lens = [cot.len() / n, grad.len() / n];
        Windows::images(cot, &mut grad, lens, par, |cot, grad| {
            self.windows.each([dims[1], dims[2]], size, |from, k, pixel| {
                let (g, w) = (&cot[from * c..][..c], &self.taps[k * c..][..c]);
                grad[pixel * c..][..c].iter_mut().zip(g).zip(w).for_each(|((o, g), w)| *o += g * w);
            });
        });
        vec![grad]
    }
    fn weights(&self) -> Result<Vec<Tensor>> {
        Ok(vec![self.weight.clone(), self.bias.clone()])
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.compose_with(inputs, &Frozen::weights(self)?)
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> Result<Tensor> {
        let Windows { stride, dilation, padding, .. } = self.windows;
        let image = inputs[0].permute((0, 3, 1, 2))?.contiguous()?;
        let [[top, bottom], [left, right]] = padding;
        let image = image.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?;
        let c = weights[0].dim(0)?;
        // strides that differ: every pixel, and then those that are wanted
        let alike = stride[0] == stride[1];
        if dilation[0] != dilation[1] {
            candle_core::bail!("a depthwise convolution is composed with one dilation for both axes");
        }
        let geometry =
            Geometry { stride: if alike { stride[0] } else { 1 }, padding: 0, dilation: dilation[0], groups: c };
        let cast = |t: &Tensor| t.to_device(image.device())?.to_dtype(image.dtype());
        let y = conv2d(&image, &cast(&weights[0])?, Some(&cast(&weights[1])?), geometry);
        let mut y = y.map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        if !alike {
            for (axis, s) in stride.iter().enumerate() {
                let n = y.dim(2 + axis)?;
                let at: Vec<u32> = (0..n).step_by(*s).map(|i| i as u32).collect();
                y = y.contiguous()?.index_select(&Tensor::new(&at[..], y.device())?, 2 + axis)?;
            }
        }
        y.permute((0, 2, 3, 1))?.contiguous()
    }
}
