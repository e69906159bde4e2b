//! Frozen operations on a GPU, as sequences of launches: the same sequence is enqueued on CUDA ([`cuda`], with that feature) and
//! run by an ordinary compiler's build of the same kernels in tests, since few machines that build this have a GPU.
//!
//! An operation describes its launches in `OPERATION.rs` here, a child of the module that holds its weights. The kernels are in
//! `cu/`. Arrays are contiguous and channels-last, in f32, f16 or bf16; every sum is f32.
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "cudnn")]
mod cudnn;

use candle_core::{DType, Result};
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// For how many of the shapes of convolutions that were met on GPUs cuDNN is used: `[used, met]`. None where it is not built in.
pub fn cudnn_used() -> Option<[usize; 2]> {
    #[cfg(feature = "cudnn")]
    return Some(cudnn::used());
    #[cfg(not(feature = "cudnn"))]
    None
}

/// A contiguous array in a machine's memory, or the part of one that starts at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// The number of its memory.
    pub id: usize,
    /// The element at which it begins.
    pub offset: usize,
    /// The type of its elements.
    pub dtype: DType,
}

impl Array {
    /// The rest, from element `n` on.
    pub fn at(self, n: usize) -> Array {
        Array { offset: self.offset + n, ..self }
    }
}

/// An input of an operation.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The values.
    pub array: Array,
    /// The shape.
    pub dims: &'a [usize],
}

/// An argument of a kernel, in the order and of the type that its source has.
#[derive(Clone, Copy)]
pub enum Arg {
    /// A pointer.
    Array(Array),
    /// A pointer to nothing, where a kernel does not look.
    Null,
    /// An `int`.
    Int(i32),
    /// A `float`.
    Float(f32),
}

impl From<Array> for Arg {
    fn from(a: Array) -> Arg {
        Arg::Array(a)
    }
}
impl From<Option<Array>> for Arg {
    fn from(a: Option<Array>) -> Arg {
        a.map_or(Arg::Null, Arg::Array)
    }
}
impl From<f32> for Arg {
    fn from(v: f32) -> Arg {
        Arg::Float(v)
    }
}
impl From<usize> for Arg {
    // what a launch counts fits (see `index`), and sizes divide it
    fn from(v: usize) -> Arg {
        Arg::Int(v as i32)
    }
}
impl From<isize> for Arg {
    fn from(v: isize) -> Arg {
        Arg::Int(v as i32)
    }
}
impl From<bool> for Arg {
    fn from(v: bool) -> Arg {
        Arg::Int(v.into())
    }
}

/// The arguments of a launch, each turned into an [`Arg`].
macro_rules! args {
    ($($a:expr),* $(,)?) => { &[$($crate::nets::kernels::gpu::Arg::from($a)),*] as &[$crate::nets::kernels::gpu::Arg] };
}
pub(super) use args;

/// A matrix of a product: row-major, `ld` elements from row to row, `step` from one matrix of a batch to the next.
#[derive(Clone, Copy)]
pub struct Matrix {
    /// The first element.
    pub array: Array,
    /// Elements from row to row.
    pub ld: usize,
    /// Elements from matrix to matrix.
    pub step: usize,
    /// Whether its transpose is meant.
    pub transposed: bool,
}

impl Matrix {
    /// A single matrix.
    pub fn new(array: Array, ld: usize) -> Matrix {
        Matrix { array, ld, step: 0, transposed: false }
    }
    /// The transpose of what is stored.
    pub fn t(self) -> Matrix {
        Matrix { transposed: true, ..self }
    }
    /// A batch.
    pub fn each(self, step: usize) -> Matrix {
        Matrix { step, ..self }
    }
}

/// out [m, n] = a [m, k] · b [k, n], or that much more; `a` and `b` are of one type, `out` of the same or f32.
#[derive(Clone, Copy)]
pub struct Gemm {
    /// Rows, columns, and the length of the sums.
    pub size: [usize; 3],
    /// The left matrix.
    pub a: Matrix,
    /// The right matrix.
    pub b: Matrix,
    /// The result; its `transposed` has no meaning.
    pub out: Matrix,
    /// Whether the product is added to what `out` holds.
    pub add: bool,
    /// How many matrices there are.
    pub batch: usize,
}

/// The same as BLAS has it, which counts by columns: out [m, n] = a [m, k] · b [k, n], where element (i, j) of a matrix lies at
/// i + j · ld, or at j + i · ld where it is transposed.
pub struct ByColumns {
    /// m, n and k.
    pub size: [usize; 3],
    /// The left matrix.
    pub a: Matrix,
    /// The right matrix.
    pub b: Matrix,
    /// The result.
    pub out: Matrix,
}

impl Gemm {
    /// What is a row for us is a column for BLAS: it is asked for the transpose, bᵀ · aᵀ.
    pub fn by_columns(&self) -> ByColumns {
        let [m, n, k] = self.size;
        ByColumns { size: [n, m, k], a: self.b, b: self.a, out: self.out }
    }
}

/// A convolution with stride as a library may compute it: x [B, h, w, cin], weight [cout, kh, kw, cin], out [B, oh, ow, cout].
#[derive(Clone, Copy)]
pub struct Convolution {
    /// The images.
    pub x: Array,
    /// B, h, w, cin.
    pub x_dims: [usize; 4],
    /// The weights, of the same type.
    pub weight: Array,
    /// kh, kw.
    pub kernel: [usize; 2],
    /// Pixels between taps of neighbours.
    pub stride: usize,
    /// Zeros on each side, by axis.
    pub padding: [usize; 2],
    /// The result, without bias.
    pub out: Array,
    /// B, oh, ow, cout.
    pub out_dims: [usize; 4],
}

/// Gives the values of a constant.
pub type Make<'a> = &'a dyn Fn() -> Result<Vec<f32>>;

/// What enqueues work on a GPU, in order, or does the same.
pub trait Machine {
    /// Elements of intermediate values that an operation should hold at a time, where it can cut its work (64 MiB in f32).
    fn room(&self) -> usize {
        1 << 24
    }
    /// Memory with any content.
    fn alloc(&mut self, n: usize, dtype: DType) -> Result<Array>;
    /// Constants, uploaded when they are first asked for.
    fn constant(&mut self, kept: &Kept, name: &'static str, dtype: DType, make: Make) -> Result<Array>;
    /// Launches a kernel whose T is `t`, with one thread for each of `n`; `n` is its first argument.
    fn each(&mut self, kernel: &'static str, t: DType, n: usize, args: &[Arg]) -> Result<()>;
    /// Launches a kernel whose T is `t`, with one block of threads for each of `n` rows.
    fn rows(&mut self, kernel: &'static str, t: DType, n: usize, args: &[Arg]) -> Result<()>;
    /// A product of matrices.
    fn gemm(&mut self, g: &Gemm) -> Result<()>;
    /// A convolution, if there is a library for it: otherwise false, and nothing is done.
    fn convolve(&mut self, _: &Convolution) -> Result<bool> {
        Ok(false)
    }
}

/// A frozen operation that has kernels; shapes have been checked by [`super::Frozen::dims`].
pub trait Gpu {
    /// Whether inputs after the first may be of another type.
    fn mixed(&self) -> bool {
        false
    }
    /// Enqueues the forward pass; the result is in the first input's type.
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array>;
    /// Enqueues the pull-back: a gradient for each input, in its type. Two may be the same array, or the cotangent.
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>>;
}

/// An operation's constants on the devices that have used it, by name and type.
#[derive(Default)]
pub struct Kept(Mutex<Vec<Entry>>);

struct Entry {
    name: &'static str,
    dtype: DType,
    value: Arc<dyn Any + Send + Sync>,
}

impl Kept {
    /// The constant of this name and type that `fits`, or what `make` gives, kept from now on.
    pub fn get<V: Send + Sync + 'static>(
        &self,
        name: &'static str,
        dtype: DType,
        fits: impl Fn(&V) -> bool,
        make: impl FnOnce() -> Result<V>,
    ) -> Result<Arc<V>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for e in entries.iter().filter(|e| e.name == name && e.dtype == dtype) {
            if let Ok(value) = e.value.clone().downcast::<V>()
                && fits(&value)
            {
                return Ok(value);
            }
        }
        let value = Arc::new(make()?);
        entries.push(Entry { name, dtype, value: value.clone() });
        Ok(value)
    }
}

/// A count as the kernels' 32-bit indices have it.
pub fn index(n: usize) -> Result<i32> {
    i32::try_from(n)
        .map_err(|_| candle_core::Error::Msg(format!("{n} elements are too many for one operation on a GPU")))
}

/// The product of sizes.
pub(super) fn count(dims: &[usize]) -> usize {
    dims.iter().product()
}

/// The array itself where it is f32, and otherwise a copy that is.
pub fn widened(m: &mut dyn Machine, input: Input) -> Result<Array> {
    if input.array.dtype == DType::F32 {
        return Ok(input.array);
    }
    let n = count(input.dims);
    let out = m.alloc(n, DType::F32)?;
    m.each("widen", input.array.dtype, n, args![input.array, out])?;
    Ok(out)
}

/// An f32 array of `n` elements in another type.
pub fn narrowed(m: &mut dyn Machine, a: Array, n: usize, dtype: DType) -> Result<Array> {
    if dtype == DType::F32 {
        return Ok(a);
    }
    let out = m.alloc(n, dtype)?;
    m.each("narrow", dtype, n, args![a, out])?;
    Ok(out)
}
