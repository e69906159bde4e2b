//! Convolutions by cuDNN, channels-last. Descriptors and the algorithm are chosen once for each shape, the workspace is kept.
use super::cuda::Cuda;
use super::{Array, Convolution, index};
use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cudnn::{
    self, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, CudnnError, FilterDescriptor, TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop,
};
use candle_core::cuda_backend::gemm_reduced_precision_f32;
use candle_core::{DType, Error, Result};
use half::{bf16, f16};
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

/// More memory than this is not worth an algorithm.
const WORKSPACE: usize = 1 << 30;

/// What a choice depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    device: DeviceId,
    dtype: DType,
    x: [usize; 4],
    out: [usize; 4],
    kernel: [usize; 2],
    stride: usize,
    padding: [usize; 2],
    tf32: bool,
}

/// A choice: `None` where cuDNN has no algorithm for this shape.
type Chosen = Option<Rc<dyn Any>>;

/// cuDNN on this thread: its handles belong to one.
#[derive(Default)]
struct State {
    /// `None` where the library is missing.
    handles: HashMap<DeviceId, Option<Arc<Cudnn>>>,
    plans: HashMap<Key, Chosen>,
    /// As large as any plan has asked for.
    workspaces: HashMap<DeviceId, CudaSlice<u8>>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// All that a launch needs besides memory.
struct Plan<T: CudnnDataType> {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<T>,
    w: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
    algorithm: cudnn::sys::cudnnConvolutionFwdAlgo_t,
    workspace: usize,
}

impl<T: CudnnDataType> Plan<T> {
    fn new(handle: &Arc<Cudnn>, key: &Key) -> std::result::Result<Self, CudnnError> {
        use cudnn::sys::cudnnMathType_t::*;
        let format = cudnn::sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let mode = cudnn::sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let c = |n: usize| n as i32;
        let ([b, h, w, cin], [_, oh, ow, cout]) = (key.x.map(c), key.out.map(c));
        let [kh, kw] = key.kernel.map(c);
        let mut conv = handle.create_conv2d::<f32>(key.padding.map(c), [c(key.stride); 2], [1, 1], mode)?;
        // cuDNN's default would be TF32
        conv.set_math_type(match (key.dtype, key.tf32) {
            (DType::F32, false) => CUDNN_FMA_MATH,
            (DType::F32, true) => CUDNN_DEFAULT_MATH,
            _ => CUDNN_TENSOR_OP_MATH,
        })?;
        // dimensions are named in this order whatever the layout
        let x = handle.create_4d_tensor::<T>(format, [b, cin, h, w])?;
        let y = handle.create_4d_tensor::<T>(format, [b, cout, oh, ow])?;
        let w = handle.create_4d_filter::<T>(format, [cout, cin, kh, kw])?;
        let forward = ConvForward { conv: &conv, x: &x, w: &w, y: &y };
        let algorithm = forward.pick_algorithm()?;
        let workspace = forward.get_workspace_size(algorithm)?;
        Ok(Plan { conv, x, w, y, algorithm, workspace })
    }
}

/// Memory by its address, as cuDNN's interface wants it.
struct Raw<'a, T> {
    pointer: CUdeviceptr,
    len: usize,
    stream: &'a Arc<CudaStream>,
    of: PhantomData<T>,
}

impl<T> DeviceSlice<T> for Raw<'_, T> {
    fn len(&self) -> usize {
        self.len
    }
    fn stream(&self) -> &Arc<CudaStream> {
        self.stream
    }
}
impl<T> DevicePtr<T> for Raw<'_, T> {
    fn device_ptr<'a>(&'a self, _: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.pointer, SyncOnDrop::Sync(None))
    }
}
impl<T> DevicePtrMut<T> for Raw<'_, T> {
    fn device_ptr_mut<'a>(&'a mut self, _: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.pointer, SyncOnDrop::Sync(None))
    }
}

/// Enqueues a convolution; false where cuDNN is not there or has no algorithm for it.
pub(super) fn convolve(m: &Cuda, c: &Convolution) -> Result<bool> {
    match c.x.dtype {
        DType::F32 => typed::<f32>(m, c, (1.0, 0.0)),
        DType::F16 => typed::<f16>(m, c, (f16::ONE, f16::ZERO)),
        DType::BF16 => typed::<bf16>(m, c, (bf16::ONE, bf16::ZERO)),
        _ => Ok(false),
    }
}

fn typed<T: CudnnDataType + Copy + 'static>(m: &Cuda, c: &Convolution, scalars: (T, T)) -> Result<bool> {
    // a size beyond 32 bits is no algorithm's
    for n in [c.x_dims, c.out_dims].iter().map(|d| d.iter().product()) {
        index(n)?;
    }
    let device = m.device.id();
    let tf32 = gemm_reduced_precision_f32();
    let (dtype, stride) = (c.x.dtype, c.stride);
    let key = Key { device, dtype, x: c.x_dims, out: c.out_dims, kernel: c.kernel, stride, padding: c.padding, tf32 };
    STATE.with_borrow_mut(|state| {
        let handle = match state.handles.get(&device) {
            Some(handle) => handle.clone(),
            None => {
                // SAFETY: only looks whether the library can be loaded
                let handle = match unsafe { cudnn::sys::is_culib_present() } {
                    true => Some(Cudnn::new(m.device.cuda_stream()).map_err(Error::wrap)?),
                    false => None,
                };
                state.handles.insert(device, handle.clone());
                handle
            }
        };
        let Some(handle) = handle else { return Ok(false) };
        let chosen = state.plans.entry(key.clone()).or_insert_with(|| match Plan::<T>::new(&handle, &key) {
            Ok(plan) if plan.workspace <= WORKSPACE => Some(Rc::new(plan) as Rc<dyn Any>),
            _ => None,
        });
        let Some(plan) = chosen.clone().and_then(|p| p.downcast::<Plan<T>>().ok()) else { return Ok(false) };
        let stream = m.device.cuda_stream();
        let large = state.workspaces.get(&device).is_some_and(|w| w.len() >= plan.workspace);
        if !large {
            // SAFETY: scratch memory that cuDNN writes before it reads
            state.workspaces.insert(device, unsafe { m.device.alloc::<u8>(plan.workspace.max(1)) }?);
        }
        let raw = |a: Array, len: usize| {
            Ok::<_, Error>(Raw::<T> { pointer: m.pointer(a)?, len, stream: &stream, of: PhantomData })
        };
        let [_, _, _, cin] = c.x_dims;
        let weights = c.out_dims[3] * c.kernel[0] * c.kernel[1] * cin;
        let x = raw(c.x, c.x_dims.iter().product())?;
        let w = raw(c.weight, weights)?;
        let mut y = raw(c.out, c.out_dims.iter().product())?;
        let forward = ConvForward { conv: &plan.conv, x: &plan.x, w: &plan.w, y: &plan.y };
        // SAFETY: the arrays have the sizes and the layout of the descriptors
        let done =
            unsafe { forward.launch(plan.algorithm, state.workspaces.get_mut(&device), scalars, &x, &w, &mut y) };
        if done.is_err() {
            // what heuristics promise is not always supported
            state.plans.insert(key, None);
        }
        Ok(done.is_ok())
    })
}
