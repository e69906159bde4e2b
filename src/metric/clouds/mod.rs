//! Point clouds as metrics see them: coordinate by coordinate, padded to whole vectors, in f32 or f64 as they came.
mod assignment;
mod chamfer;
mod frame;
mod occupancy;
mod pull;
mod sets;

pub use assignment::{assigned, earth_mover, mean_matched};
pub use chamfer::{chamfer, nearest};
pub use frame::{Frame, frame};
pub use occupancy::{Occupancy, occupancy};
pub use pull::chamfer_loss;
pub use sets::{Compared, Distance, compare, distances};

use crate::tensor::memory;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Numbers of one coordinate that are looked at together; what is left over of the last ones is infinitely far away.
const LANES: usize = 8;

/// A number of a cloud.
pub trait Number:
    Copy
    + Send
    + Sync
    + PartialOrd
    + Into<f64>
    + std::ops::Sub<Output = Self>
    + std::ops::Add<Output = Self>
    + std::ops::Mul<Output = Self>
    + 'static
{
    /// No distance is larger.
    const FAR: Self;
}

impl Number for f32 {
    const FAR: f32 = f32::INFINITY;
}
impl Number for f64 {
    const FAR: f64 = f64::INFINITY;
}

/// Clouds of equal size: x of all points of a cloud, then y, then z.
#[derive(Debug, Clone)]
pub struct Columns<T> {
    data: Vec<T>,
    points: usize,
    padded: usize,
}

impl<T: Number> Columns<T> {
    fn new(values: &[T], points: usize) -> Columns<T> {
        let padded = points.next_multiple_of(LANES);
        let mut data = Vec::with_capacity(values.len() / points.max(1) * padded);
        for cloud in values.chunks_exact(3 * points) {
            for axis in 0..3 {
                data.extend(cloud.iter().skip(axis).step_by(3));
                data.resize(data.len() + padded - points, T::FAR);
            }
        }
        Columns { data, points, padded }
    }
    /// x, y and z of one cloud.
    fn cloud(&self, i: usize) -> One<'_, T> {
        let all = &self.data[i * 3 * self.padded..][..3 * self.padded];
        let axis = |k: usize| &all[k * self.padded..][..self.padded];
        One { axes: [axis(0), axis(1), axis(2)], points: self.points }
    }
}

/// One cloud.
#[derive(Clone, Copy)]
pub struct One<'a, T> {
    axes: [&'a [T]; 3],
    points: usize,
}

impl<T: Number> One<'_, T> {
    fn point(&self, i: usize) -> [T; 3] {
        self.axes.map(|a| a[i])
    }
}

/// A set of clouds.
#[derive(Debug, Clone)]
pub enum Clouds {
    /// Of f32 (and narrower).
    Single(Columns<f32>),
    /// Of f64.
    Double(Columns<f64>),
}

impl Clouds {
    /// Of a tensor [B, N, 3], B and N at least 1, or of one cloud [N, 3].
    ///
    /// Errors: another shape, no clouds or points, and the cloud and point of a number that is not finite.
    pub fn new(what: &str, x: &Tensor) -> Result<Clouds> {
        let (count, points) = sizes(what, x)?;
        memory::room(
            what,
            count.saturating_mul(3 * points.next_multiple_of(LANES)).saturating_mul(x.dtype().size_in_bytes()),
        )?;
        let x = x.detach().to_device(&Device::Cpu)?.flatten_all()?;
        let finite = |bad: Option<usize>| match bad {
            Some(at) => {
                let (cloud, point) = (at / (3 * points), at / 3 % points);
                let m = format!("{what}: point {point} of cloud {cloud} is not finite");
                Err(Error::value(m).hint("leave such clouds out, or look at what made them"))
            }
            None => Ok(()),
        };
        Ok(match x.dtype() {
            DType::F64 => {
                let v: Vec<f64> = x.to_vec1()?;
                finite(v.iter().position(|v| !v.is_finite()))?;
                Clouds::Double(Columns::new(&v, points))
            }
            _ => {
                let v: Vec<f32> = x.to_dtype(DType::F32)?.to_vec1()?;
                finite(v.iter().position(|v| !v.is_finite()))?;
                Clouds::Single(Columns::new(&v, points))
            }
        })
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Clouds::Single(c) => c.data.len() / (3 * c.padded),
            Clouds::Double(c) => c.data.len() / (3 * c.padded),
        }
    }
    /// Whether there are none, which [`Clouds::new`] refuses.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Points of each.
    pub fn points(&self) -> usize {
        match self {
            Clouds::Single(c) => c.points,
            Clouds::Double(c) => c.points,
        }
    }
    /// The same in f64.
    fn double(&self) -> Columns<f64> {
        match self {
            Clouds::Single(c) => {
                Columns { data: c.data.iter().map(|v| f64::from(*v)).collect(), points: c.points, padded: c.padded }
            }
            Clouds::Double(c) => c.clone(),
        }
    }
    /// Point `i` of cloud `k`.
    fn point(&self, k: usize, i: usize) -> [f64; 3] {
        match self {
            Clouds::Single(c) => c.cloud(k).point(i).map(f64::from),
            Clouds::Double(c) => c.cloud(k).point(i),
        }
    }
}

/// Clouds and points of a tensor [B, N, 3] or [N, 3].
pub(super) fn sizes(what: &str, x: &Tensor) -> Result<(usize, usize)> {
    let wrong = |m: &str| {
        let m = format!("{what}: {m}, got {:?}", x.dims());
        Err(Error::shape(m, &[x.dims()]).hint("clouds are [B, N, 3]: B clouds of N points x, y, z"))
    };
    match *x.dims() {
        [count, points, 3] if count * points > 0 => Ok((count, points)),
        [points, 3] if points > 0 => Ok((1, points)),
        [.., 3] if x.elem_count() == 0 => wrong("there are no points"),
        _ => wrong("expected clouds [B, N, 3] or one cloud [N, 3]"),
    }
}

/// Two sets in one type of numbers: f32 where both are.
enum Pair {
    Single(Columns<f32>, Columns<f32>),
    Double(Columns<f64>, Columns<f64>),
}

impl Pair {
    fn of(a: &Clouds, b: &Clouds) -> Pair {
        match (a, b) {
            (Clouds::Single(a), Clouds::Single(b)) => Pair::Single(a.clone(), b.clone()),
            _ => Pair::Double(a.double(), b.double()),
        }
    }
}
