//! What a network is told of vectors between places: their spherical harmonics, bumps along their length, the length; and a direction
//! that is given one.
use super::{Frozen, View, pool};
use candle_core::{D, DType, Result, Tensor};

/// Below this length a vector has no direction: its harmonics of kinds 1 and 2 are 0, and its length has no gradient.
const SHORT: f64 = 1e-12;

/// Real spherical harmonics of kinds 0, 1 and 2 of a vector's direction, each component of variance 1 (e3nn's "component"): [.., 3] → [.., 9].
/// Kind 1 is √3 (x, y, z).
pub struct Harmonics;

/// exp(−½ (|v| − c)²/Δ²) for `count` centres c at equal distances Δ from `range[0]` to `range[1]`: [.., 3] → [.., count].
pub struct Bumps {
    /// The first centre and the last.
    pub range: [f64; 2],
    /// How many.
    pub count: usize,
}

/// |v|: [.., 3] → [.., 1].
pub struct Length;

/// v/|v| times a number: [.., 3] and [.., 1] → [.., 3]; 0 where v is.
pub struct Directed;

/// Fails unless these are vectors.
fn vectors(dims: &[usize], channels: usize) -> std::result::Result<Vec<usize>, String> {
    match dims.split_last() {
        Some((3, rest)) => Ok([rest, &[channels]].concat()),
        _ => Err(format!("expected [.., 3], got {dims:?}")),
    }
}

/// A vector's direction and length, in f64: squares of short ones would vanish in f32.
fn direction(v: &[f32]) -> ([f64; 3], f64) {
    let v = [v[0], v[1], v[2]].map(f64::from);
    let n = crate::geometry::vectors::length(v);
    (if n > SHORT { v.map(|x| x / n) } else { [0.0; 3] }, n)
}

/// What a gradient in the direction is in the vector.
fn onto_vector(u: [f64; 3], n: f64, g: [f64; 3]) -> [f64; 3] {
    if n <= SHORT {
        return [0.0; 3];
    }
    let along = u[0] * g[0] + u[1] * g[1] + u[2] * g[2];
    [0, 1, 2].map(|k| (g[k] - along * u[k]) / n)
}

/// The same in candle's operations: directions [.., 3] and lengths [.., 1], with a gradient of 0 where there is no direction.
fn composed(v: &Tensor) -> Result<(Tensor, Tensor)> {
    let square = v.sqr()?.sum_keepdim(D::Minus1)?;
    // f32 cannot square what is shorter than this
    let least = if v.dtype() == DType::F64 { SHORT } else { 1e-18 };
    let long = square.detach().gt(least * least)?.to_dtype(v.dtype())?;
    let safe = ((&square * &long)? + (1.0 - &long)?)?.sqrt()?;
    let u = v.broadcast_mul(&long)?.broadcast_div(&safe)?;
    Ok((u, (safe * long)?))
}

impl Frozen for Harmonics {
    fn name(&self) -> &'static str {
        "spherical harmonics"
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        vectors(inputs[0], 9)
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        for (v, out) in inputs[0].data.chunks_exact(3).zip(out.chunks_exact_mut(9)) {
            let ([x, y, z], _) = direction(v);
            let (a, b) = (3f64.sqrt(), 15f64.sqrt());
            let second = [x * z, x * y, (2.0 * y * y - x * x - z * z) / 12f64.sqrt(), y * z, 0.5 * (z * z - x * x)];
            out[0] = 1.0;
            out[1..4].iter_mut().zip([x, y, z]).for_each(|(o, v)| *o = (a * v) as f32);
            out[4..].iter_mut().zip(second).for_each(|(o, v)| *o = (b * v) as f32);
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(inputs[0].data.len());
        for ((v, g), to) in inputs[0].data.chunks_exact(3).zip(cot.chunks_exact(9)).zip(grad.chunks_exact_mut(3)) {
            let ([x, y, z], n) = direction(v);
            let g: [f64; 9] = std::array::from_fn(|k| f64::from(g[k]));
            let (a, b, c) = (3f64.sqrt(), 15f64.sqrt(), 1.0 / 12f64.sqrt());
            let of = [
                a * g[1] + b * (z * g[4] + y * g[5] - 2.0 * c * x * g[6] - x * g[8]),
                a * g[2] + b * (x * g[5] + 4.0 * c * y * g[6] + z * g[7]),
                a * g[3] + b * (x * g[4] - 2.0 * c * z * g[6] + y * g[7] + z * g[8]),
            ];
            to.iter_mut().zip(onto_vector([x, y, z], n, of)).for_each(|(t, v)| *t = v as f32);
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (u, _) = composed(inputs[0])?;
        let last = u.rank() - 1;
        let [x, y, z] = [u.narrow(last, 0, 1)?, u.narrow(last, 1, 1)?, u.narrow(last, 2, 1)?];
        let (a, b) = (3f64.sqrt(), 15f64.sqrt());
        let (xx, yy, zz) = (x.sqr()?, y.sqr()?, z.sqr()?);
        let middle = (((&yy * 2.0)? - &xx)? - &zz)?;
        let second = [
            ((&x * &z)? * b)?,
            ((&x * &y)? * b)?,
            (middle * (b / 12f64.sqrt()))?,
            ((&y * &z)? * b)?,
            ((zz - xx)? * (0.5 * b))?,
        ];
        let first = [x.ones_like()?, (x * a)?, (y * a)?, (z * a)?];
        Tensor::cat(&first.iter().chain(&second).collect::<Vec<_>>(), last)
    }
}

impl Bumps {
    fn spacing(&self) -> f64 {
        (self.range[1] - self.range[0]) / (self.count.max(2) - 1) as f64
    }
    fn centre(&self, k: usize) -> f64 {
        self.range[0] + k as f64 * self.spacing()
    }
}

impl Frozen for Bumps {
    fn name(&self) -> &'static str {
        "bumps along a length"
    }
    fn detail(&self) -> String {
        format!("{} from {} to {}", self.count, self.range[0], self.range[1])
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        vectors(inputs[0], self.count)
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let scale = 1.0 / self.spacing();
        for (v, out) in inputs[0].data.chunks_exact(3).zip(out.chunks_exact_mut(self.count)) {
            let (_, n) = direction(v);
            for (k, o) in out.iter_mut().enumerate() {
                let d = ((n - self.centre(k)) * scale) as f32;
                *o = (-0.5 * d * d).exp();
            }
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let scale = 1.0 / self.spacing();
        let mut grad = pool::take(inputs[0].data.len());
        let all = inputs[0].data.chunks_exact(3).zip(cot.chunks_exact(self.count)).zip(grad.chunks_exact_mut(3));
        for ((v, g), to) in all {
            let (u, n) = direction(v);
            let mut slope = 0.0;
            for (k, g) in g.iter().enumerate() {
                let d = ((n - self.centre(k)) * scale) as f32;
                slope -= g * d * (-0.5 * d * d).exp();
            }
            to.iter_mut().zip(u).for_each(|(t, u)| *t = (f64::from(slope) * scale * u) as f32);
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (_, n) = composed(inputs[0])?;
        let centres: Vec<f64> = (0..self.count).map(|k| self.centre(k)).collect();
        let centres = Tensor::new(centres, n.device())?.to_dtype(n.dtype())?;
        let d = (n.broadcast_sub(&centres)? * (1.0 / self.spacing()))?;
        (d.sqr()? * -0.5)?.exp()
    }
}

impl Frozen for Length {
    fn name(&self) -> &'static str {
        "length"
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        vectors(inputs[0], 1)
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        for (v, out) in inputs[0].data.chunks_exact(3).zip(out) {
            *out = direction(v).1 as f32;
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(inputs[0].data.len());
        for ((v, g), to) in inputs[0].data.chunks_exact(3).zip(cot).zip(grad.chunks_exact_mut(3)) {
            to.iter_mut().zip(direction(v).0).for_each(|(t, u)| *t = g * u as f32);
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        Ok(composed(inputs[0])?.1)
    }
}

impl Frozen for Directed {
    fn name(&self) -> &'static str {
        "direction by length"
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match (vectors(inputs[0], 1)?, inputs[1]) {
            (wanted, given) if wanted == given => Ok(inputs[0].to_vec()),
            (wanted, given) => Err(format!("expected {wanted:?} beside the vectors, got {given:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        for ((v, s), out) in inputs[0].data.chunks_exact(3).zip(inputs[1].data).zip(out.chunks_exact_mut(3)) {
            out.iter_mut().zip(direction(v).0).for_each(|(o, u)| *o = s * u as f32);
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let (mut of_v, mut of_s) = (pool::take(inputs[0].data.len()), pool::take(inputs[1].data.len()));
        let given = inputs[0].data.chunks_exact(3).zip(inputs[1].data).zip(cot.chunks_exact(3));
        for (((v, s), g), (to, slot)) in given.zip(of_v.chunks_exact_mut(3).zip(&mut of_s)) {
            let (u, n) = direction(v);
            let g = [g[0], g[1], g[2]].map(f64::from);
            *slot = crate::geometry::vectors::dot(u, g) as f32;
            let g = g.map(|g| g * f64::from(*s));
            to.iter_mut().zip(onto_vector(u, n, g)).for_each(|(t, v)| *t = v as f32);
        }
        vec![of_v, of_s]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        composed(inputs[0])?.0.broadcast_mul(inputs[1])
    }
}
