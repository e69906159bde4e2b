//! Products of features that turn with the scene: with weights of each edge's own, and without weights.
use super::conv::Linear;
use super::irreps::{Path, weights};
use super::simd::dispatch;
use super::{Frozen, View, pool};
use candle_core::{Result, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Edges whose weights are in memory at a time: those of one edge are thousands, those of a scene would be gigabytes.
const TILE: usize = 32;

/// What each edge carries (e3nn's FullyConnectedTensorProduct): hidden [B, E, H], from which a linear map makes the edge's weights; the
/// sender's features [B, E, A]; its direction's harmonics [B, E, S] → [B, E, out].
pub struct Edgewise {
    paths: Vec<Path>,
    weights: Linear,
    sizes: [usize; 4],
    detail: String,
}

impl Edgewise {
    /// From the paths of [`super::irreps::connected`], the widths of features, harmonics and result, and the linear map's weight
    /// [weights of the paths, H] and bias. `detail` is what tells it from others: its irreps.
    pub fn new(
        paths: Vec<Path>,
        [a, s, out]: [usize; 3],
        weight: &Tensor,
        bias: Tensor,
        detail: String,
    ) -> Result<Edgewise> {
        let (n, h) = weight.dims2()?;
        if n != weights(&paths) {
            candle_core::bail!("{} paths take {} weights, got {n}", paths.len(), weights(&paths));
        }
        Ok(Edgewise { paths, weights: Linear::new(weight, bias)?, sizes: [h, a, s, out], detail })
    }

    /// How many weights an edge has.
    fn count(&self) -> usize {
        weights(&self.paths)
    }

    /// Each input's part for tiles of edges.
    fn tiles<'a>(&self, inputs: &[View<'a>]) -> Vec<[&'a [f32]; 3]> {
        let [h, a, s, _] = self.sizes;
        let parts = inputs[0].data.chunks(TILE * h).zip(inputs[1].data.chunks(TILE * a));
        parts.zip(inputs[2].data.chunks(TILE * s)).map(|((x, y), z)| [x, y, z]).collect()
    }
}

/// Some edges on the way back: hidden features, features and harmonics, the result's cotangent, and the gradients of the three.
struct Tile<'a> {
    given: [&'a [f32]; 3],
    cot: &'a [f32],
    to: [&'a mut [f32]; 3],
}

impl Edgewise {
    fn pull_tile(&self, tile: Tile) {
        let ([h, a, s, width], count) = (self.sizes, self.count());
        let Tile { given: [hidden, x, y], cot, to: [of_hidden, of_x, of_y] } = tile;
        let n = hidden.len() / h;
        let (mut w, mut of_w, mut near) = (pool::take(n * count), pool::zeros(n * count), vec![0.0; width]);
        let dims = [n, h];
        let view = [View { data: hidden, dims: &dims }];
        self.weights.run(&view, &mut w, false);
        for e in 0..n {
            let given = [&x[e * a..][..a], &y[e * s..][..s], &w[e * count..][..count], &cot[e * width..][..width]];
            let to = [&mut of_x[e * a..][..a], &mut of_y[e * s..][..s], &mut of_w[e * count..][..count]];
            dispatch(Back(&self.paths, given, &mut near, to));
        }
        for pulled in self.weights.pull(&view, &of_w, false) {
            of_hidden.copy_from_slice(&pulled);
            pool::give(pulled);
        }
        pool::give(w);
        pool::give(of_w);
    }
}

/// Coefficients of a path for one edge: M[i][k] = Σ_j C[i][j][k] s[j], in a buffer for the largest kinds.
type Joint = [f32; 25];

fn joined(path: &Path, s: &[f32]) -> Joint {
    let (di, dj, dk) = (path.a.0.each(), path.b.0.each(), path.out.0.each());
    let mut m = [0f32; 25];
    for i in 0..di {
        for j in 0..dj {
            let s = s[path.b.1 + j];
            for k in 0..dk {
                m[i * dk + k] += path.joint[(i * dj + j) * dk + k] as f32 * s;
            }
        }
    }
    m
}

/// The vector `u` of a path's features, joined: z[k] = Σ_i x[u][i] M[i][k].
fn met(path: &Path, a: &[f32], m: &Joint, u: usize) -> [f32; 5] {
    let (di, dk) = (path.a.0.each(), path.out.0.each());
    let mut z = [0f32; 5];
    for i in 0..di {
        let x = a[path.a.1 + u * di + i];
        for k in 0..dk {
            z[k] += x * m[i * dk + k];
        }
    }
    z
}

/// One edge: features, harmonics and weights to the result, by way of a buffer in which components come first.
struct Forward<'a>(&'a [Path], [&'a [f32]; 3], &'a mut [f32], &'a mut [f32]);
impl WithSimd for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Forward(paths, [a, s, w], near, out) = self;
        near.fill(0.0);
        for path in paths {
            let (n, dk) = (path.out.0.mul, path.out.0.each());
            let m = joined(path, s);
            for u in 0..path.a.0.mul {
                let z = met(path, a, &m, u);
                let w = &w[path.weights + u * n..][..n];
                for (z, to) in z[..dk].iter().zip(near[path.out.1..].chunks_exact_mut(n)) {
                    to.iter_mut().zip(w).for_each(|(t, w)| *t += z * w);
                }
            }
        }
        for path in paths {
            let (n, dk) = (path.out.0.mul, path.out.0.each());
            for v in 0..n {
                for k in 0..dk {
                    out[path.out.1 + v * dk + k] = near[path.out.1 + k * n + v];
                }
            }
        }
    }
}

/// The pull-back of one edge: from the result's cotangent to those of features, harmonics and weights, which start as zeros.
struct Back<'a>(&'a [Path], [&'a [f32]; 4], &'a mut [f32], [&'a mut [f32]; 3]);
impl WithSimd for Back<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Back(paths, [a, s, w, g], near, [of_a, of_s, of_w]) = self;
        for path in paths {
            let (n, dk) = (path.out.0.mul, path.out.0.each());
            for v in 0..n {
                for k in 0..dk {
                    near[path.out.1 + k * n + v] = g[path.out.1 + v * dk + k];
                }
            }
        }
        for path in paths {
            let (n, di, dj, dk) = (path.out.0.mul, path.a.0.each(), path.b.0.each(), path.out.0.each());
            let m = joined(path, s);
            let mut of_m = [0f32; 25];
            for u in 0..path.a.0.mul {
                let z = met(path, a, &m, u);
                let (w, to) = (&w[path.weights + u * n..][..n], &mut of_w[path.weights + u * n..][..n]);
                for k in 0..dk {
                    let g = &near[path.out.1 + k * n..][..n];
                    let mut lanes = [0f32; 8];
                    for (w, g) in w.chunks(8).zip(g.chunks(8)) {
                        lanes.iter_mut().zip(w).zip(g).for_each(|((l, w), g)| *l += w * g);
                    }
                    to.iter_mut().zip(g).for_each(|(t, g)| *t += z[k] * g);
                    let of_z: f32 = lanes.iter().sum();
                    for i in 0..di {
                        let at = path.a.1 + u * di + i;
                        of_a[at] += of_z * m[i * dk + k];
                        of_m[i * dk + k] += of_z * a[at];
                    }
                }
            }
            for i in 0..di {
                for j in 0..dj {
                    for k in 0..dk {
                        of_s[path.b.1 + j] += path.joint[(i * dj + j) * dk + k] as f32 * of_m[i * dk + k];
                    }
                }
            }
        }
    }
}

/// The same product in candle's operations, with weights [E, n] where there are some: rows of features and harmonics to rows of results.
fn composed(paths: &[Path], a: &Tensor, s: &Tensor, w: Option<&Tensor>, out: usize) -> Result<Tensor> {
    let e = a.dim(0)?;
    let mut runs: Vec<(usize, Tensor)> = vec![];
    for path in paths {
        let (di, dj, dk, mul) = (path.a.0.each(), path.b.0.each(), path.out.0.each(), path.a.0.mul);
        let n = path.out.0.mul;
        // [j, i, k]
        let c: Vec<f64> = (0..dj)
            .flat_map(|j| (0..di).flat_map(move |i| (0..dk).map(move |k| (i * dj + j) * dk + k)))
            .map(|at| path.joint[at])
            .collect();
        let c = Tensor::from_vec(c, (dj, di * dk), a.device())?.to_dtype(a.dtype())?;
        let m = s.narrow(1, path.b.1, dj)?.contiguous()?.matmul(&c)?.reshape((e, di, dk))?;
        let x = a.narrow(1, path.a.1, mul * di)?.contiguous()?.reshape((e, mul, di))?;
        let z = x.matmul(&m)?;
        let z = match w {
            Some(w) => {
                let w = w.narrow(1, path.weights, mul * n)?.contiguous()?.reshape((e, mul, n))?;
                w.transpose(1, 2)?.contiguous()?.matmul(&z)?
            }
            None => z,
        };
        let z = z.reshape((e, n * dk))?;
        match runs.iter_mut().find(|(at, _)| *at == path.out.1) {
            Some((_, sum)) => *sum = (&*sum + z)?,
            None => runs.push((path.out.1, z)),
        }
    }
    runs.sort_by_key(|(at, _)| *at);
    // a run that no path leads to stays 0
    let mut parts = vec![];
    let mut end = 0;
    for (at, z) in runs {
        if at > end {
            parts.push(Tensor::zeros((e, at - end), a.dtype(), a.device())?);
        }
        end = at + z.dim(1)?;
        parts.push(z);
    }
    if end < out {
        parts.push(Tensor::zeros((e, out - end), a.dtype(), a.device())?);
    }
    Tensor::cat(&parts, 1)
}

/// Fails unless all have as many rows, of these widths.
fn rows(inputs: &[&[usize]], widths: &[usize], out: usize) -> std::result::Result<Vec<usize>, String> {
    let lead = |d: &[usize]| d.split_last().map(|(_, rest)| rest.to_vec());
    let fits = inputs.iter().zip(widths).all(|(d, w)| d.last() == Some(w) && lead(d) == lead(inputs[0]));
    match lead(inputs[0]) {
        Some(rest) if fits => Ok([&rest[..], &[out]].concat()),
        _ => Err(format!("expected as many rows of {widths:?}, got {inputs:?}")),
    }
}

fn flat(t: &Tensor) -> Result<Tensor> {
    t.contiguous()?.flatten_to(t.rank() - 2)
}

impl Frozen for Edgewise {
    fn name(&self) -> &'static str {
        "edgewise product"
    }
    fn detail(&self) -> String {
        self.detail.clone()
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        let [h, a, s, out] = self.sizes;
        rows(inputs, &[h, a, s], out)
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let ([h, a, s, width], count) = (self.sizes, self.count());
        out.fill(0.0);
        let tile = |([hidden, x, y], out): ([&[f32]; 3], &mut [f32])| {
            let n = hidden.len() / h;
            let (mut w, mut near) = (pool::take(n * count), vec![0.0; width]);
            self.weights.run(&[View { data: hidden, dims: &[n, h] }], &mut w, false);
            let edges = x.chunks_exact(a).zip(y.chunks_exact(s)).zip(w.chunks_exact(count));
            for (((x, y), w), out) in edges.zip(out.chunks_exact_mut(width)) {
                dispatch(Forward(&self.paths, [x, y, w], &mut near, out));
            }
            pool::give(w);
        };
        let work = self.tiles(inputs).into_iter().zip(out.chunks_mut(TILE * width)).collect::<Vec<_>>();
        match par {
            true => work.into_par_iter().for_each(tile),
            false => work.into_iter().for_each(tile),
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let [h, a, s, width] = self.sizes;
        let [mut of_hidden, mut of_x, mut of_y] = [0, 1, 2].map(|k| pool::zeros(inputs[k].data.len()));
        let to = of_hidden.chunks_mut(TILE * h).zip(of_x.chunks_mut(TILE * a)).zip(of_y.chunks_mut(TILE * s));
        let given = self.tiles(inputs).into_iter().zip(cot.chunks(TILE * width));
        let work: Vec<Tile> =
            given.zip(to).map(|((given, cot), ((h, x), y))| Tile { given, cot, to: [h, x, y] }).collect();
        match par {
            true => work.into_par_iter().for_each(|t| self.pull_tile(t)),
            false => work.into_iter().for_each(|t| self.pull_tile(t)),
        }
        vec![of_hidden, of_x, of_y]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.compose_with(inputs, &Frozen::weights(self)?)
    }
    fn weights(&self) -> Result<Vec<Tensor>> {
        Frozen::weights(&self.weights)
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> Result<Tensor> {
        let [_, _, _, width] = self.sizes;
        let w = self.weights.compose_with(&[&flat(inputs[0])?], weights)?;
        let out = composed(&self.paths, &flat(inputs[1])?, &flat(inputs[2])?, Some(&w), width)?;
        let lead = &inputs[1].dims()[..inputs[1].rank() - 1];
        out.reshape([lead, &[width]].concat())
    }
}

/// The same without weights, of single vectors (e3nn's FullTensorProduct): [.., A] and [.., S] → [.., out].
pub struct Coupled {
    paths: Vec<Path>,
    sizes: [usize; 3],
}

impl Coupled {
    /// From the paths of [`super::irreps::full`] and the widths of both and of the result.
    pub fn new(paths: Vec<Path>, sizes: [usize; 3]) -> Coupled {
        Coupled { paths, sizes }
    }
}

impl Frozen for Coupled {
    fn name(&self) -> &'static str {
        "product of kinds"
    }
    fn detail(&self) -> String {
        format!("{:?}", self.sizes)
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        let [a, s, out] = self.sizes;
        rows(inputs, &[a, s], out)
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let [a, s, width] = self.sizes;
        let rows = inputs[0].data.chunks_exact(a).zip(inputs[1].data.chunks_exact(s));
        for ((x, y), out) in rows.zip(out.chunks_exact_mut(width)) {
            for path in &self.paths {
                let z = met(path, x, &joined(path, y), 0);
                let dk = path.out.0.each();
                out[path.out.1..][..dk].copy_from_slice(&z[..dk]);
            }
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let [a, s, width] = self.sizes;
        let (mut of_x, mut of_y) = (pool::zeros(inputs[0].data.len()), pool::zeros(inputs[1].data.len()));
        let rows = inputs[0].data.chunks_exact(a).zip(inputs[1].data.chunks_exact(s)).zip(cot.chunks_exact(width));
        for (((x, y), g), (to_x, to_y)) in rows.zip(of_x.chunks_exact_mut(a).zip(of_y.chunks_exact_mut(s))) {
            for path in &self.paths {
                let (di, dj, dk) = (path.a.0.each(), path.b.0.each(), path.out.0.each());
                let m = joined(path, y);
                for i in 0..di {
                    for k in 0..dk {
                        let g = g[path.out.1 + k];
                        to_x[path.a.1 + i] += g * m[i * dk + k];
                        for j in 0..dj {
                            let c = path.joint[(i * dj + j) * dk + k] as f32;
                            to_y[path.b.1 + j] += c * x[path.a.1 + i] * g;
                        }
                    }
                }
            }
        }
        vec![of_x, of_y]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let out = composed(&self.paths, &flat(inputs[0])?, &flat(inputs[1])?, None, self.sizes[2])?;
        let lead = &inputs[0].dims()[..inputs[0].rank() - 1];
        out.reshape([lead, &[self.sizes[2]]].concat())
    }
}
