//! Operations with a backward of our own: the forward is computed outside candle's graph by any means, and enters the
//! graph as one node.
//!
//! A backward closure receives the operation's arguments, its result and the cotangent, all detached and contiguous, and
//! returns the cotangents of the arguments. It is asked only for what is tracked: `want[k]` says so.
use super::grad;
use crate::Result;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Shape, Storage, Tensor};
use std::sync::Mutex;

/// What a backward closure gets.
pub struct Back<'a> {
    /// The arguments of the forward pass.
    pub args: &'a [Tensor],
    /// Its result.
    pub out: &'a Tensor,
    /// The cotangent of the result.
    pub g: &'a Tensor,
    /// Which arguments' cotangents are wanted.
    pub want: &'a [bool],
}

type Backward = Box<dyn Fn(&Back) -> Result<Vec<Option<Tensor>>> + Send + Sync>;

struct Node {
    name: &'static str,
    /// The finished result, handed over (and let go) by the forward pass.
    out: Mutex<Option<Tensor>>,
    backward: Backward,
}

/// Gives the already computed `out` the backward `backward` with respect to `args` (one to three tensors on one device).
/// The closure returns one cotangent for each argument, `None` where `want` is false. Without a tracked argument, or
/// inside `no_grad`, `out` comes back as it is.
pub fn op(
    name: &'static str,
    args: &[&Tensor],
    out: Tensor,
    backward: impl Fn(&Back) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
) -> Result<Tensor> {
    let out = out.detach();
    if !args.iter().any(|a| grad::is_tracked(a)) {
        return Ok(out);
    }
    let node = Node { name, out: Mutex::new(Some(out.contiguous()?)), backward: Box::new(backward) };
    Ok(match args {
        [a] => a.apply_op1(node)?,
        [a, b] => a.apply_op2(b, node)?,
        [a, b, c] => a.apply_op3(b, c, node)?,
        _ => return Err(crate::Error::new(crate::Kind::Internal, format!("{name}: too many arguments"))),
    })
}

/// [`op`] for one argument: the closure maps (argument, result, cotangent) to the argument's cotangent.
pub fn op1(
    name: &'static str,
    x: &Tensor,
    out: Tensor,
    backward: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    op(name, &[x], out, move |b| Ok(vec![Some(backward(&b.args[0], b.out, b.g)?)]))
}

/// Sums `g` down to `shape`, from which it was broadcast.
pub fn sum_to(g: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if g.dims() == shape {
        return Ok(g.clone());
    }
    let extra = g.rank() - shape.len();
    let dims: Vec<usize> =
        (0..g.rank()).filter(|&i| i < extra || (shape[i - extra] == 1 && g.dims()[i] != 1)).collect();
    Ok(g.sum_keepdim(dims)?.reshape(shape)?)
}

impl Node {
    fn take(&self) -> candle_core::Result<Tensor> {
        match self.out.lock() {
            Ok(mut out) => out.take(),
            Err(_) => None,
        }
        .ok_or_else(|| candle_core::Error::Msg(format!("{}: the result was handed over already", self.name)))
    }
    fn cpu(&self) -> candle_core::Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let mut out = self.take()?;
        // a view into a larger storage is cut out; most results fill theirs
        let fills = match &*out.storage_and_layout().0 {
            Storage::Cpu(s) => len(s) == out.elem_count(),
            _ => return Err(self.wrong_device()),
        };
        if !fills {
            out = out.force_contiguous()?;
        }
        let (storage, layout) = out.storage_and_layout();
        let Storage::Cpu(s) = &*storage else { return Err(self.wrong_device()) };
        Ok((s.try_clone(layout)?, out.shape().clone()))
    }
    #[cfg(feature = "cuda")]
    fn cuda(&self) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let out = self.take()?.force_contiguous()?;
        let (storage, layout) = out.storage_and_layout();
        let Storage::Cuda(s) = &*storage else { return Err(self.wrong_device()) };
        Ok((s.try_clone(layout)?, out.shape().clone()))
    }
    fn wrong_device(&self) -> candle_core::Error {
        candle_core::Error::Msg(format!("{}: the result lies on another device than its arguments", self.name))
    }
    fn back(&self, args: &[&Tensor], out: &Tensor, g: &Tensor) -> candle_core::Result<Vec<Option<Tensor>>> {
        let want: Vec<bool> = args.iter().map(|a| a.track_op() && a.dtype().is_float()).collect();
        let args: Vec<Tensor> = args.iter().map(|a| a.detach()).collect();
        let b = Back { args: &args, out: &out.detach(), g: &g.detach().contiguous()?, want: &want };
        let cots = (self.backward)(&b).map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        // candle needs a cotangent for every tracked argument
        let mut all = Vec::with_capacity(args.len());
        for ((cot, want), a) in cots.into_iter().zip(&want).zip(&args) {
            all.push(match (cot, want) {
                (_, false) => None,
                (Some(c), true) if c.dims() == a.dims() => Some(c),
                (Some(c), true) => Some(c.reshape(a.shape())?),
                (None, true) => Some(a.zeros_like()?),
            });
        }
        Ok(all)
    }
}

/// The values that a storage holds.
pub(super) fn len(s: &CpuStorage) -> usize {
    match s {
        CpuStorage::U8(v) => v.len(),
        CpuStorage::U32(v) => v.len(),
        CpuStorage::I64(v) => v.len(),
        CpuStorage::BF16(v) => v.len(),
        CpuStorage::F16(v) => v.len(),
        CpuStorage::F32(v) => v.len(),
        CpuStorage::F64(v) => v.len(),
        // never a result of ours: takes the careful path
        _ => usize::MAX,
    }
}

impl CustomOp1 for Node {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.cpu()
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &candle_core::CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        self.cuda()
    }
    fn bwd(&self, a: &Tensor, out: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(self.back(&[a], out, g)?.pop().flatten())
    }
}

impl CustomOp2 for Node {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.cpu()
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &candle_core::CudaStorage,
        _: &Layout,
        _: &candle_core::CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        self.cuda()
    }
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        out: &Tensor,
        g: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let mut c = self.back(&[a, b], out, g)?.into_iter();
        Ok((c.next().flatten(), c.next().flatten()))
    }
}

impl CustomOp3 for Node {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.cpu()
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &candle_core::CudaStorage,
        _: &Layout,
        _: &candle_core::CudaStorage,
        _: &Layout,
        _: &candle_core::CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        self.cuda()
    }
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        out: &Tensor,
        g: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut c = self.back(&[a, b, c], out, g)?.into_iter();
        Ok((c.next().flatten(), c.next().flatten(), c.next().flatten()))
    }
}
