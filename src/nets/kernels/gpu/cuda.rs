//! The CUDA machine: kernels from embedded PTX, products by cuBLAS, convolutions by cuDNN where that is built in.
//!
//! nvcc compiles the kernels ahead of time: what does not compile fails the build and not a user's run, and nothing but the
//! driver is needed to load them, which finishes the compilation for its GPU once and caches it. All work of a device goes
//! through candle's one stream, so launches see each other's results in order, and memory is freed in that order too.
use super::{Arg, Array, ByColumns, Convolution, Gemm, Input, Kept, Machine, Make, Matrix, index};
use crate::nets::kernels::Frozen;
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cublas::{result::gemm_strided_batched_ex, sys};
use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr, gemm_reduced_precision_f32};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Error, Layout, Result, Shape, Storage,
    Tensor, bail,
};
use half::{bf16, f16};
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

/// Threads of a block: any number will do for kernels that work element by element.
const BLOCK: u32 = 256;
/// As `ROW_THREADS` in `cu/device.cuh`.
const ROW_BLOCK: u32 = 128;

/// The module of a type of images, and its PTX.
fn module(t: DType) -> Result<(&'static str, &'static str)> {
    Ok(match t {
        DType::F32 => ("ld3sh_f32", include_str!(concat!(env!("OUT_DIR"), "/f32.ptx"))),
        DType::F16 => ("ld3sh_f16", include_str!(concat!(env!("OUT_DIR"), "/f16.ptx"))),
        DType::BF16 => ("ld3sh_bf16", include_str!(concat!(env!("OUT_DIR"), "/bf16.ptx"))),
        _ => bail!("there are no kernels for {}", t.as_str()),
    })
}

/// cuBLAS's name of a type.
fn data_type(t: DType) -> Result<sys::cudaDataType> {
    Ok(match t {
        DType::F32 => sys::cudaDataType_t::CUDA_R_32F,
        DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
        DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
        _ => bail!("there are no products of {}", t.as_str()),
    })
}

enum Memory<'a> {
    /// An operation's input.
    Given(&'a CudaStorage),
    /// Allocated here: a result, or freed when the machine is dropped.
    Own(CudaStorage),
    /// A constant.
    Kept(Arc<CudaStorage>),
    /// A result that was taken.
    Taken,
}

/// Enqueues one operation's work on a device.
pub(super) struct Cuda<'a> {
    pub(super) device: CudaDevice,
    memory: Vec<Memory<'a>>,
}

impl<'a> Cuda<'a> {
    fn new(device: CudaDevice) -> Self {
        Cuda { device, memory: vec![] }
    }
    fn give(&mut self, storage: &'a CudaStorage, layout: &Layout) -> Result<Array> {
        let Some((offset, _)) = layout.contiguous_offsets() else {
            bail!("a frozen operation needs contiguous inputs")
        };
        self.memory.push(Memory::Given(storage));
        Ok(Array { id: self.memory.len() - 1, offset, dtype: storage.dtype() })
    }
    /// Takes a result out.
    fn take(&mut self, a: Array) -> Result<CudaStorage> {
        match std::mem::replace(&mut self.memory[a.id], Memory::Taken) {
            Memory::Own(s) if a.offset == 0 => Ok(s),
            _ => bail!("a result that is not memory of its own"),
        }
    }
    /// Where an array lies on the device.
    pub(super) fn pointer(&self, a: Array) -> Result<CUdeviceptr> {
        fn of<T>(s: &CudaSlice<T>, offset: usize) -> CUdeviceptr {
            let stream = s.stream().clone();
            s.device_ptr(&stream).0 + (offset * size_of::<T>()) as CUdeviceptr
        }
        let storage = match &self.memory[a.id] {
            Memory::Given(s) => s,
            Memory::Own(s) => s,
            Memory::Kept(s) => &**s,
            Memory::Taken => bail!("a result was used after it was taken"),
        };
        Ok(match &storage.slice {
            CudaStorageSlice::F32(s) => of(s, a.offset),
            CudaStorageSlice::F16(s) => of(s, a.offset),
            CudaStorageSlice::BF16(s) => of(s, a.offset),
            _ => bail!("there are no kernels for {}", storage.dtype().as_str()),
        })
    }
    fn own(&mut self, slice: CudaStorageSlice, dtype: DType) -> Array {
        self.memory.push(Memory::Own(CudaStorage { slice, device: self.device.clone() }));
        Array { id: self.memory.len() - 1, offset: 0, dtype }
    }
    fn launch(&self, kernel: &str, t: DType, grid: u32, block: u32, args: &[Arg]) -> Result<()> {
        enum Value {
            Pointer(CUdeviceptr),
            Int(i32),
            Float(f32),
        }
        let (name, ptx) = module(t)?;
        let f = self.device.get_or_load_custom_func(kernel, name, ptx)?;
        let value = |a: &Arg| {
            Ok(match *a {
                Arg::Array(a) => Value::Pointer(self.pointer(a)?),
                Arg::Null => Value::Pointer(0),
                Arg::Int(v) => Value::Int(v),
                Arg::Float(v) => Value::Float(v),
            })
        };
        let values = args.iter().map(value).collect::<Result<Vec<_>>>()?;
        let mut builder = f.builder();
        for v in &values {
            match v {
                Value::Pointer(p) => builder.arg(p),
                Value::Int(v) => builder.arg(v),
                Value::Float(v) => builder.arg(v),
            };
        }
        let config = LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (block, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the operations give each kernel its arguments in number, type and size; the tests run the same launches on
        // the host with every access checked
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }
}

impl Machine for Cuda<'_> {
    fn alloc(&mut self, n: usize, dtype: DType) -> Result<Array> {
        // SAFETY: whoever allocates an array enqueues kernels that write all of it before any reads it
        let slice = unsafe {
            match dtype {
                DType::F32 => CudaStorageSlice::F32(self.device.alloc::<f32>(n)?),
                DType::F16 => CudaStorageSlice::F16(self.device.alloc::<f16>(n)?),
                DType::BF16 => CudaStorageSlice::BF16(self.device.alloc::<bf16>(n)?),
                _ => bail!("there are no kernels for {}", dtype.as_str()),
            }
        };
        Ok(self.own(slice, dtype))
    }

    fn constant(&mut self, kept: &Kept, name: &'static str, dtype: DType, make: Make) -> Result<Array> {
        let device = self.device.clone();
        let here = |s: &CudaStorage| s.device.id() == device.id();
        let upload = || {
            let v = make()?;
            let slice = match dtype {
                DType::F32 => CudaStorageSlice::F32(device.clone_htod(&v)?),
                DType::F16 => {
                    CudaStorageSlice::F16(device.clone_htod(&v.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>())?)
                }
                DType::BF16 => CudaStorageSlice::BF16(
                    device.clone_htod(&v.iter().map(|v| bf16::from_f32(*v)).collect::<Vec<_>>())?,
                ),
                _ => bail!("there are no kernels for {}", dtype.as_str()),
            };
            Ok(CudaStorage { slice, device: device.clone() })
        };
        let storage = kept.get(name, dtype, here, upload)?;
        self.memory.push(Memory::Kept(storage));
        Ok(Array { id: self.memory.len() - 1, offset: 0, dtype })
    }

    fn each(&mut self, kernel: &'static str, t: DType, n: usize, args: &[Arg]) -> Result<()> {
        let count = index(n)?;
        match n {
            0 => Ok(()),
            _ => self.launch(kernel, t, (count as u32).div_ceil(BLOCK), BLOCK, &[&[Arg::Int(count)], args].concat()),
        }
    }

    fn rows(&mut self, kernel: &'static str, t: DType, n: usize, args: &[Arg]) -> Result<()> {
        match index(n)? {
            0 => Ok(()),
            grid => self.launch(kernel, t, grid as u32, ROW_BLOCK, args),
        }
    }

    fn gemm(&mut self, g: &Gemm) -> Result<()> {
        let ByColumns { size: [m, n, k], a, b, out } = g.by_columns();
        if m * n * k * g.batch == 0 {
            return Ok(());
        }
        let turn = |x: &Matrix| match x.transposed {
            true => sys::cublasOperation_t::CUBLAS_OP_T,
            false => sys::cublasOperation_t::CUBLAS_OP_N,
        };
        let compute = match a.array.dtype == DType::F32 && gemm_reduced_precision_f32() {
            true => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            false => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let (alpha, beta) = (1f32, if g.add { 1f32 } else { 0.0 });
        let blas = self.device.cublas_handle();
        let pointer = |x: &Matrix| Ok::<_, Error>(self.pointer(x.array)? as *mut c_void);
        // SAFETY: the matrices lie within their arrays, as the tests check on the host; alpha and beta are floats, as the
        // type of computation says
        unsafe {
            gemm_strided_batched_ex(
                *blas.handle(),
                turn(&a),
                turn(&b),
                index(m)?,
                index(n)?,
                index(k)?,
                &raw const alpha as *const c_void,
                pointer(&a)?,
                data_type(a.array.dtype)?,
                index(a.ld)?,
                a.step as i64,
                pointer(&b)?,
                data_type(b.array.dtype)?,
                index(b.ld)?,
                b.step as i64,
                &raw const beta as *const c_void,
                pointer(&out)?,
                data_type(out.array.dtype)?,
                index(out.ld)?,
                out.step as i64,
                index(g.batch)?,
                compute,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
            )
        }
        .w()
    }

    #[cfg(feature = "cudnn")]
    fn convolve(&mut self, c: &Convolution) -> Result<bool> {
        super::cudnn::convolve(self, c)
    }
    #[cfg(not(feature = "cudnn"))]
    fn convolve(&mut self, _: &Convolution) -> Result<bool> {
        Ok(false)
    }
}

/// Whether an operation has kernels for these inputs.
pub(in crate::nets::kernels) fn takes(op: &Arc<dyn Frozen>, inputs: &[&Tensor]) -> bool {
    let fits = |t: &&Tensor| t.device().is_cuda() && matches!(t.dtype(), DType::F32 | DType::F16 | DType::BF16);
    let alike = inputs.windows(2).all(|w| w[0].dtype() == w[1].dtype());
    op.gpu().is_some_and(|gpu| alike || gpu.mixed()) && inputs.len() <= 3 && inputs.iter().all(fits)
}

/// Applies an operation to up to three tensors on a GPU, differentiably.
pub(in crate::nets::kernels) fn apply(op: &Arc<dyn Frozen>, inputs: &[&Tensor]) -> Result<Tensor> {
    match inputs {
        [a] => a.contiguous()?.apply_op1(Op(op.clone())),
        [a, b] => a.contiguous()?.apply_op2(&b.contiguous()?, Op(op.clone())),
        [a, b, c] => a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, Op(op.clone())),
        _ => bail!("a frozen operation takes one to three inputs"),
    }
}

struct Op(Arc<dyn Frozen>);

impl Op {
    fn gpu(&self) -> Result<&dyn super::Gpu> {
        self.0.gpu().ok_or_else(|| Error::Msg(format!("{} has no kernels", self.0.name())))
    }

    fn forward(&self, inputs: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|(_, l)| l.dims()).collect();
        let dims = self.0.dims(&shapes).map_err(Error::Msg)?;
        let mut m = Cuda::new(inputs[0].0.device.clone());
        let arrays = inputs.iter().map(|(s, l)| m.give(s, l)).collect::<Result<Vec<_>>>()?;
        let inputs: Vec<Input> = arrays.into_iter().zip(shapes).map(|(array, dims)| Input { array, dims }).collect();
        let out = self.gpu()?.enqueue(&mut m, &inputs)?;
        Ok((m.take(out)?, Shape::from(dims)))
    }

    fn backward(&self, inputs: &[&Tensor], cot: &Tensor) -> Result<Vec<Tensor>> {
        let cot = cot.detach().contiguous()?;
        let held: Vec<_> = inputs.iter().chain([&&cot]).map(|t| t.storage_and_layout()).collect();
        let mut arrays = vec![];
        let mut machine: Option<Cuda> = None;
        for (s, l) in &held {
            let Storage::Cuda(s) = &**s else { bail!("a frozen operation's gradient left the GPU") };
            arrays.push(machine.get_or_insert_with(|| Cuda::new(s.device.clone())).give(s, l)?);
        }
        let (Some(mut m), Some(last)) = (machine, arrays.pop()) else { bail!("a gradient without a cotangent") };
        let views: Vec<Input> =
            arrays.into_iter().zip(inputs).map(|(array, t)| Input { array, dims: t.dims() }).collect();
        let grads = self.gpu()?.enqueue_pull(&mut m, &views, last)?;
        let mut out: Vec<Tensor> = vec![];
        for (i, (grad, t)) in grads.iter().zip(inputs).enumerate() {
            let same = grads[..i].iter().position(|g| g == grad);
            out.push(match same {
                _ if *grad == last => cot.clone(),
                Some(j) => out[j].clone(),
                None => {
                    let finished = Finished(Mutex::new(Some(m.take(*grad)?)), t.shape().clone());
                    cot.apply_op1_no_bwd(&finished)?
                }
            });
        }
        Ok(out)
    }
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{} was meant for a GPU", self.0.name())
    }
    fn cuda_fwd(&self, s: &CudaStorage, l: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward(&[(s, l)])
    }
    fn bwd(&self, a: &Tensor, _: &Tensor, cot: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.backward(&[a], cot)?.pop())
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{} was meant for a GPU", self.0.name())
    }
    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward(&[(s1, l1), (s2, l2)])
    }
    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, cot: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut grads = self.backward(&[a, b], cot)?;
        let second = grads.pop();
        Ok((grads.pop(), second))
    }
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("{} was meant for a GPU", self.0.name())
    }
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.forward(&[(s1, l1), (s2, l2), (s3, l3)])
    }
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        cot: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut grads = self.backward(&[a, b, c], cot)?.into_iter();
        Ok((grads.next(), grads.next(), grads.next()))
    }
}

/// Hands finished memory over as a tensor: candle makes tensors from storage in operations only.
struct Finished(Mutex<Option<CudaStorage>>, Shape);

impl CustomOp1 for Finished {
    fn name(&self) -> &'static str {
        "finished gradient"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("a gradient was meant for a GPU")
    }
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(storage) = taken else { bail!("a gradient was handed over twice") };
        Ok((storage, self.1.clone()))
    }
}
