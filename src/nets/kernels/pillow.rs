//! Bicubic resizing of 8-bit pictures as Pillow has it, which is what feature networks see whose tools read files. Rows come before columns,
//! as in every version before 13; since then pictures much higher than wide are done the other way round, and rounded otherwise.
use super::windows::Windows;
use super::{Frozen, View, pool};
use candle_core::{Device, Tensor};

/// The picture at another size: values in [−1, 1] become bytes, rows and then columns are averaged over four pixels, or over what a new
/// pixel covers where it shrinks, and bytes again after each. [B, H, W, C] → [B, size, size, C]. Gradients go through the rounding.
pub struct Pillow {
    /// Height and width of the result.
    pub size: usize,
    /// Whether the middle square is cut out first; else all of the picture is squeezed into one.
    pub crop: bool,
}

/// Weights are whole numbers of 2⁻²².
const BITS: u32 = 22;

/// Pixels of an axis that one of the result is made of: the first, and a weight for each.
type Taps = Vec<(usize, Vec<i32>)>;

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

fn byte(sum: i64) -> u8 {
    ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

impl Pillow {
    /// The rows (or columns) of an axis that are looked at: where they begin, and how many.
    fn span(&self, n: usize, other: usize) -> (usize, usize) {
        match self.crop && n > other {
            true => ((n - other) / 2, other),
            false => (0, n),
        }
    }

    /// For an axis of `n` pixels; none where it stays as it is.
    fn taps(&self, n: usize) -> Option<Taps> {
        if n == self.size {
            return None;
        }
        let scale = n as f64 / self.size as f64;
        let wide = scale.max(1.0);
        let one = |i: usize| {
            let centre = (i as f64 + 0.5) * scale;
            let first = (centre - 2.0 * wide + 0.5).max(0.0) as usize;
            let end = ((centre + 2.0 * wide + 0.5) as usize).min(n);
            let each: Vec<f64> = (first..end).map(|k| cubic((k as f64 - centre + 0.5) / wide)).collect();
            let sum: f64 = each.iter().sum();
            let whole = |w: &f64| (w / sum * f64::from(1u32 << BITS)).round() as i32;
            (first, each.iter().map(whole).collect())
        };
        Some((0..self.size).map(one).collect())
    }

    /// One axis of `n` entries with `inner` bytes each.
    fn axis(&self, x: Vec<u8>, n: usize, inner: usize) -> Vec<u8> {
        let Some(taps) = self.taps(n) else { return x };
        let mut out = Vec::with_capacity(x.len() / n * self.size);
        let mut sums = vec![0i64; inner];
        for x in x.chunks_exact(n * inner) {
            for (first, weights) in &taps {
                sums.fill(0);
                for (x, w) in x[first * inner..].chunks_exact(inner).zip(weights) {
                    sums.iter_mut().zip(x).for_each(|(s, x)| *s += i64::from(*w) * i64::from(*x));
                }
                out.extend(sums.iter().map(|s| byte(*s)));
            }
        }
        out
    }

    /// Its transpose, in f32.
    fn axis_back(&self, cot: &[f32], grad: &mut [f32], n: usize, inner: usize) {
        let Some(taps) = self.taps(n) else { return grad.copy_from_slice(cot) };
        grad.fill(0.0);
        let unit = 1.0 / (1u32 << BITS) as f32;
        for (cot, grad) in cot.chunks_exact(self.size * inner).zip(grad.chunks_exact_mut(n * inner)) {
            for (cot, (first, weights)) in cot.chunks_exact(inner).zip(&taps) {
                for (grad, w) in grad[first * inner..].chunks_exact_mut(inner).zip(weights) {
                    let w = *w as f32 * unit;
                    grad.iter_mut().zip(cot).for_each(|(g, c)| *g += w * c);
                }
            }
        }
    }

    fn one(&self, x: &[f32], [h, w, c]: [usize; 3], out: &mut [f32]) {
        let ((top, rows), (left, columns)) = (self.span(h, w), self.span(w, h));
        let line = |y: usize| x[((top + y) * w + left) * c..][..columns * c].iter();
        let bytes = (0..rows).flat_map(line).map(|v| (v * 127.5 + 127.5).round() as u8).collect();
        let across = self.axis(bytes, columns, c);
        let both = self.axis(across, rows, self.size * c);
        out.iter_mut().zip(both).for_each(|(o, b)| *o = f32::from(b) / 127.5 - 1.0);
    }

    /// One axis as a matrix [size, n].
    fn matrix(&self, n: usize, like: &Tensor) -> candle_core::Result<Tensor> {
        let mut m = vec![0f64; self.size * n];
        match self.taps(n) {
            Some(taps) => {
                for (i, (first, weights)) in taps.iter().enumerate() {
                    let row = m[i * n + first..].iter_mut().zip(weights);
                    row.for_each(|(m, w)| *m = f64::from(*w) / f64::from(1u32 << BITS));
                }
            }
            None => (0..n).for_each(|i| m[i * n + i] = 1.0),
        }
        Tensor::from_vec(m, (self.size, n), &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())
    }
}

/// Whole numbers from 0 to 255, with the slope of what they are made of.
fn rounded(x: &Tensor) -> candle_core::Result<Tensor> {
    let whole = (x.detach() + 0.5)?.floor()?.clamp(0.0, 255.0)?;
    x + (whole - x.detach())?
}

impl Frozen for Pillow {
    fn name(&self) -> &'static str {
        "bicubic resizing of bytes"
    }
    fn detail(&self) -> String {
        format!("to {0}×{0}, {1}", self.size, if self.crop { "the middle square" } else { "all of it" })
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [b, h, w, c] if h * w * c > 0 => Ok(vec![b, self.size, self.size, c]),
            ref d => Err(format!("expected [B, H, W, C], got {d:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let View { data, dims } = inputs[0];
        let [_, h, w, c] = *dims else { return };
        let lens = [h * w * c, self.size * self.size * c];
        Windows::images(data, out, lens, par, |x, out| self.one(x, [h, w, c], out));
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let [b, h, w, c] = *inputs[0].dims else { return vec![] };
        let ((top, rows), (left, columns)) = (self.span(h, w), self.span(w, h));
        let mut across = pool::take(b * rows * self.size * c);
        self.axis_back(cot, &mut across, rows, self.size * c);
        let mut inside = pool::take(b * rows * columns * c);
        self.axis_back(&across, &mut inside, columns, c);
        pool::give(across);
        let mut grad = pool::zeros(b * h * w * c);
        for (grad, inside) in grad.chunks_exact_mut(h * w * c).zip(inside.chunks_exact(rows * columns * c)) {
            for (y, line) in inside.chunks_exact(columns * c).enumerate() {
                grad[((top + y) * w + left) * c..][..columns * c].copy_from_slice(line);
            }
        }
        pool::give(inside);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let (b, h, w, c) = inputs[0].dims4()?;
        let ((top, rows), (left, columns)) = (self.span(h, w), self.span(w, h));
        let x = inputs[0].narrow(1, top, rows)?.narrow(2, left, columns)?.contiguous()?;
        let x = rounded(&x.affine(127.5, 127.5)?)?;
        // columns are the third dimension: each row is a matrix [columns, C]
        let across = self.matrix(columns, &x)?.unsqueeze(0)?.broadcast_matmul(&x.reshape((b * rows, columns, c))?)?;
        let across = rounded(&across)?.reshape((b, rows, self.size * c))?;
        let both = rounded(&self.matrix(rows, &x)?.unsqueeze(0)?.broadcast_matmul(&across)?)?;
        both.affine(1.0 / 127.5, -1.0)?.reshape((b, self.size, self.size, c))
    }
}
