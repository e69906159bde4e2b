//! The Chamfer distance: the mean squared distance to the nearest point of the other cloud, both ways, summed.
//!
//! All distances between two clouds are looked at once: each serves the nearest point of both ends. At the sizes of clouds (a few
//! thousand points) that is faster than a search tree, which visits a hundred points and the way to them for each.
use super::{Clouds, Columns, LANES, Number, One, Pair};
use crate::nets::kernels::simd::dispatch;
use crate::{Error, Result, host};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Points that are compared with the same ones of the other cloud in turn.
const ROWS: usize = 4;

/// Squared distances of one point to some.
#[inline(always)]
fn squares<T: Number>(p: [T; 3], [x, y, z]: [&[T; LANES]; 3]) -> [T; LANES] {
    std::array::from_fn(|l| {
        let (dx, dy, dz) = (p[0] - x[l], p[1] - y[l], p[2] - z[l]);
        dx * dx + dy * dy + dz * dz
    })
}

/// Squared distances from each point of the first cloud to the nearest of the second, and the other way round.
struct Nearest<'a, T>(One<'a, T>, One<'a, T>, [&'a mut [T]; 2]);

impl<T: Number> WithSimd for Nearest<'_, T> {
    type Output = ();
    #[inline(always)]
    // indices run over several arrays of vectors at once
    #[allow(clippy::needless_range_loop)]
    fn with_simd<S: Simd>(self, _: S) {
        let Nearest(a, b, [to_a, to_b]) = self;
        to_b.fill(T::FAR);
        for start in (0..a.points).step_by(ROWS) {
            // the last points come twice rather than fewer at a time
            let rows: [[T; 3]; ROWS] = std::array::from_fn(|r| a.point((start + r).min(a.points - 1)));
            let mut near = [[T::FAR; LANES]; ROWS];
            let [x, y, z] = b.axes.map(|axis| axis.as_chunks::<LANES>().0);
            // arrays of a vector's length, which the compiler keeps in vectors
            for (((x, y), z), to) in x.iter().zip(y).zip(z).zip(to_b.as_chunks_mut::<LANES>().0) {
                let mut best = *to;
                for r in 0..ROWS {
                    let d = squares(rows[r], [x, y, z]);
                    near[r] = std::array::from_fn(|l| if d[l] < near[r][l] { d[l] } else { near[r][l] });
                    best = std::array::from_fn(|l| if d[l] < best[l] { d[l] } else { best[l] });
                }
                *to = best;
            }
            for (r, near) in near.iter().enumerate().take(a.points - start) {
                to_a[start + r] = near.iter().fold(T::FAR, |m, v| if *v < m { *v } else { m });
            }
        }
    }
}

/// Room for the nearest distances of two clouds.
pub(super) struct Scratch<T>([Vec<T>; 2]);

impl<T: Number> Scratch<T> {
    pub fn new(a: &Columns<T>, b: &Columns<T>) -> Self {
        Scratch([vec![T::FAR; a.padded], vec![T::FAR; b.padded]])
    }
    /// The distance of two clouds.
    pub fn distance(&mut self, a: One<T>, b: One<T>) -> f64 {
        let [to_a, to_b] = &mut self.0;
        dispatch(Nearest(a, b, [to_a, to_b]));
        let mean = |v: &[T], n: usize| v[..n].iter().map(|d| (*d).into()).sum::<f64>() / n as f64;
        mean(to_a, a.points) + mean(to_b, b.points)
    }
}

fn paired<T: Number>(a: &Columns<T>, b: &Columns<T>, count: usize) -> Result<Vec<f64>> {
    let stop = host::Stop::here();
    let one = |scratch: &mut Scratch<T>, i: usize| match stop.requested() {
        true => Err(Error::cancelled()),
        false => Ok(scratch.distance(a.cloud(i), b.cloud(i))),
    };
    (0..count).into_par_iter().map_init(|| Scratch::new(a, b), one).collect()
}

/// The Chamfer distance of each cloud to the one at its place: (1/N) Σ min ‖x − y‖² + (1/M) Σ min ‖y − x‖², as PyTorch3D and
/// diffusion-point-cloud have it (squared, and both ways summed).
///
/// In the arithmetic of the clouds, f32 where both are; sums in f64. Errors where there are not as many of both.
pub fn chamfer(a: &Clouds, b: &Clouds) -> Result<Vec<f64>> {
    if a.len() != b.len() {
        let m = format!("chamfer: {} and {} clouds cannot be paired", a.len(), b.len());
        return Err(Error::shape(m, &[&[a.len(), a.points(), 3], &[b.len(), b.points(), 3]])
            .hint("`metric::cloud_distances` compares each of one set with each of the other"));
    }
    match Pair::of(a, b) {
        Pair::Single(x, y) => paired(&x, &y, a.len()),
        Pair::Double(x, y) => paired(&x, &y, a.len()),
    }
}

/// The Chamfer distances of cloud `i` of `a` to clouds `from..to` of `b`, one after the other, for each `i` of `rows`, in parallel.
pub(super) fn rows<T: Number>(
    a: &Columns<T>,
    b: &Columns<T>,
    rows: std::ops::Range<usize>,
    columns: impl Fn(usize) -> std::ops::Range<usize> + Sync,
) -> Result<Vec<Vec<f64>>> {
    let stop = host::Stop::here();
    let one = |scratch: &mut Scratch<T>, i: usize| {
        let distance = |j: usize| match stop.requested() {
            true => Err(Error::cancelled()),
            false => Ok(scratch.distance(a.cloud(i), b.cloud(j))),
        };
        columns(i).map(distance).collect::<Result<Vec<f64>>>()
    };
    rows.into_par_iter().map_init(|| Scratch::new(a, b), one).collect()
}

/// For each point of a cloud of `a` the nearest of the cloud at its place in `b`, by number; the first of several.
pub fn nearest(a: &Clouds, b: &Clouds) -> Vec<u32> {
    fn of<T: Number>(a: &Columns<T>, b: &Columns<T>, count: usize) -> Vec<u32> {
        let one = |i: usize| {
            let (a, b) = (a.cloud(i), b.cloud(i));
            let mut found = vec![0u32; a.points];
            dispatch(Numbers(a, b, &mut found));
            found
        };
        (0..count).into_par_iter().flat_map_iter(one).collect()
    }
    let count = a.len().min(b.len());
    match Pair::of(a, b) {
        Pair::Single(x, y) => of(&x, &y, count),
        Pair::Double(x, y) => of(&x, &y, count),
    }
}

/// The number of the nearest point for each of the first cloud.
struct Numbers<'a, T>(One<'a, T>, One<'a, T>, &'a mut [u32]);

impl<T: Number> WithSimd for Numbers<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Numbers(a, b, out) = self;
        for (i, out) in out.iter_mut().enumerate() {
            let p = a.point(i);
            let (mut near, mut at) = ([T::FAR; LANES], [0u32; LANES]);
            let [x, y, z] = b.axes.map(|axis| axis.as_chunks::<LANES>().0);
            for (k, ((x, y), z)) in (0u32..).zip(x.iter().zip(y).zip(z)) {
                let d = squares(p, [x, y, z]);
                at = std::array::from_fn(|l| if d[l] < near[l] { k } else { at[l] });
                near = std::array::from_fn(|l| if d[l] < near[l] { d[l] } else { near[l] });
            }
            let number = |l: usize| at[l] * LANES as u32 + l as u32;
            let better =
                |best: usize, l: usize| near[l] < near[best] || (near[l] == near[best] && number(l) < number(best));
            *out = number((1..LANES).fold(0, |best, l| if better(best, l) { l } else { best }));
        }
    }
}
