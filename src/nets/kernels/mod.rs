//! Frozen operations: fast forward and input gradient on f32 CPU tensors, compositions of candle operations elsewhere.
//!
//! Images are [B, H, W, C] here (channels innermost): every kernel then works on whole vectors of channels. An operation is
//! used in two ways: [`apply`] makes it a candle operation, and [`crate::nets::tape`] runs it on plain buffers.
mod adaptive;
mod arithmetic;
mod arrange;
mod attention;
mod average;
mod bilinear;
mod categories;
mod choice;
mod clip;
mod conv;
mod curve;
mod deviation;
mod direct;
mod directions;
mod edges;
mod edgewise;
mod embedding;
mod function;
mod gelu;
pub mod gpu;
mod half;
mod heads;
mod held;
pub mod irreps;
mod join;
mod layer_norm;
mod lines;
mod maxpool;
mod mix;
mod nearest;
mod norm;
mod op;
mod pillow;
mod pointwise;
pub mod pool;
mod product;
mod reduce;
mod relu;
mod resample;
mod rms_norm;
mod root_pool;
mod rows;
mod shaped;
pub mod simd;
mod split;
mod squash;
mod strided;
mod tokens;
mod windows;
mod winograd;
mod within;

pub use adaptive::{Gated, Modulate};
pub use arithmetic::{Arithmetic, Broadcast, Fixed, Side};
pub use arrange::{Cut, Moved, Offset, Rotary};
pub use attention::{Attention, CrossAttention, MaskedAttention, RelativeAttention};
pub use average::{AveragePool, GlobalMean};
pub use bilinear::{Bilinear, Corners};
pub use categories::Categories;
pub use choice::{Choice, Choose, Where};
pub use clip::Clip;
pub use conv::{Conv, Linear, exact, set_exact};
pub use curve::Curve;
pub use deviation::Deviation;
pub use directions::{Bumps, Directed, Harmonics, Length};
pub use edges::{Arrive, Gather, Spread, Widen};
pub use edgewise::{Coupled, Edgewise};
pub use embedding::Waves;
pub use function::{FUNCTIONS, Function};
pub use gelu::{Geglu, Gelu};
pub use join::Join;
pub use layer_norm::LayerNorm;
pub use maxpool::MaxPool;
pub use mix::Mix;
pub use nearest::Nearest;
pub use norm::{GroupNorm, Modulation};
pub use op::Op;
pub use pillow::Pillow;
pub(crate) use pointwise::accumulate;
pub use pointwise::{AddScale, Concat, Down2, Scale, Silu, Up2};
pub use product::Product;
pub use reduce::{Reduce, Softmax};
pub use relu::{Channels, Relu};
pub use resample::{Pad, Resample};
pub use rms_norm::RmsNorm;
pub use root_pool::RootPool;
pub use rows::{Largest, Lookup};
pub use shaped::Shaped;
pub use split::Split;
pub use squash::Squash;
pub use strided::{Reshaped, Strided};
pub use tokens::{Pick, TokenEmbedding};
pub use windows::{Depthwise, LargestIn, Windows};
pub use within::Within;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Shape, Storage, Tensor};
use std::sync::Arc;

/// An f32 array as a kernel sees it, contiguous, row-major.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The values; empty in [`Frozen::pull`] where [`Frozen::saves`] says that they are not needed.
    pub data: &'a [f32],
    /// The shape.
    pub dims: &'a [usize],
}

/// An operation with a single result whose weights are constant: gradients are wanted for its inputs only. Each is an [`Op`] of a
/// graph, too.
///
/// Kernels may assume what [`Frozen::dims`] has checked. `par` allows a kernel to spread over threads; results are the
/// same bits either way, and those of a sample do not depend on the other samples in its batch.
pub trait Frozen: Send + Sync {
    /// A name for errors.
    fn name(&self) -> &'static str;
    /// The result's shape; a message that names expected and actual where the inputs do not fit.
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String>;
    /// Computes the result into `out`, which has the right length and any content.
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool);
    /// Whether [`Frozen::pull`] looks at the inputs' values.
    fn saves(&self) -> bool {
        false
    }
    /// The gradients with respect to the inputs, one each, given the result's cotangent.
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>>;
    /// The same function in candle operations, correct to differentiate, for f64 and for other devices.
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor>;
    /// Its weights as tensors, in the type and on the device of the composed form.
    fn weights(&self) -> candle_core::Result<Vec<Tensor>> {
        Ok(vec![])
    }
    /// [`Frozen::compose`] with these in the place of [`Frozen::weights`], differentiable in them too: for training.
    fn compose_with(&self, inputs: &[&Tensor], _weights: &[Tensor]) -> candle_core::Result<Tensor> {
        self.compose(inputs)
    }
    /// What distinguishes it from others of its name: sizes and options, not weights.
    fn detail(&self) -> String {
        String::new()
    }
    /// Whether it joins optional values: where only some of its inputs are given, the result is the one that is.
    fn joins(&self) -> bool {
        false
    }
    /// Its kernels for a GPU in f32, f16 and bf16, where it has some; otherwise the composed form runs there too.
    fn gpu(&self) -> Option<&dyn gpu::Gpu> {
        None
    }
}

/// Applies a frozen operation to tensors, differentiably.
pub fn apply(op: &Arc<dyn Frozen>, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
    let shapes: Vec<&[usize]> = inputs.iter().map(|t| t.dims()).collect();
    op.dims(&shapes).map_err(|e| candle_core::Error::Msg(format!("{}: {e}", op.name())))?;
    #[cfg(feature = "cuda")]
    if gpu::cuda::takes(op, inputs) {
        return gpu::cuda::apply(op, inputs);
    }
    let fast = inputs.iter().all(|t| t.device().is_cpu() && t.dtype() == DType::F32);
    match inputs {
        [a] if fast => a.contiguous()?.apply_op1(Custom(op.clone())),
        [a, b] if fast => a.contiguous()?.apply_op2(&b.contiguous()?, Custom(op.clone())),
        [a, b, c] if fast => a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, Custom(op.clone())),
        // candle has no operations of more inputs
        _ => op.compose(inputs),
    }
}

struct Custom(Arc<dyn Frozen>);

fn view<'a>(s: &'a CpuStorage, l: &'a Layout) -> candle_core::Result<View<'a>> {
    let Some((start, end)) = l.contiguous_offsets() else {
        candle_core::bail!("a frozen operation needs contiguous inputs")
    };
    Ok(View { data: &s.as_slice::<f32>()?[start..end], dims: l.dims() })
}

impl Custom {
    fn forward(&self, inputs: &[View]) -> candle_core::Result<(CpuStorage, Shape)> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|v| v.dims).collect();
        let dims = self.0.dims(&shapes).map_err(candle_core::Error::Msg)?;
        let mut out = vec![0.0; dims.iter().product()];
        self.0.run(inputs, &mut out, true);
        Ok((CpuStorage::F32(out), Shape::from(dims)))
    }
    fn backward(&self, inputs: &[&Tensor], cot: &Tensor) -> candle_core::Result<Vec<Tensor>> {
        let cot = cot.contiguous()?;
        let held: Vec<_> = inputs.iter().chain([&&cot]).map(|t| t.storage_and_layout()).collect();
        let views = held
            .iter()
            .map(|(s, l)| match &**s {
                Storage::Cpu(s) => view(s, l),
                _ => candle_core::bail!("a frozen operation's gradient left the CPU"),
            })
            .collect::<candle_core::Result<Vec<_>>>()?;
        let (cot, views) = match views.split_last() {
            Some((cot, views)) => (cot.data, views),
            None => (&[][..], &views[..]),
        };
        let grads = self.0.pull(views, cot, true);
        grads.into_iter().zip(inputs).map(|(g, t)| Tensor::from_vec(g, t.shape(), t.device())).collect()
    }
}

impl CustomOp1 for Custom {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.forward(&[view(s, l)?])
    }
    fn bwd(&self, a: &Tensor, _: &Tensor, cot: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(self.backward(&[a], cot)?.pop())
    }
}

impl CustomOp2 for Custom {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.forward(&[view(s1, l1)?, view(s2, l2)?])
    }
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        cot: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let mut grads = self.backward(&[a, b], cot)?;
        let second = grads.pop();
        Ok((grads.pop(), second))
    }
}

impl CustomOp3 for Custom {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.forward(&[view(s1, l1)?, view(s2, l2)?, view(s3, l3)?])
    }
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        cot: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut grads = self.backward(&[a, b, c], cot)?.into_iter();
        Ok((grads.next(), grads.next(), grads.next()))
    }
}

/// The values of a weight on the host, in f32.
pub(crate) fn host_f32(t: &Tensor) -> candle_core::Result<Vec<f32>> {
    t.to_dtype(DType::F32)?.to_device(&candle_core::Device::Cpu)?.flatten_all()?.to_vec1()
}

/// Checks an image's shape [B, H, W, C] with a given number of channels.
fn image(dims: &[usize], channels: usize) -> Result<[usize; 4], String> {
    match *dims {
        [b, h, w, c] if c == channels => Ok([b, h, w, c]),
        _ => Err(format!("expected [B, H, W, {channels}], got {dims:?}")),
    }
}
