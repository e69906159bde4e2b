//! Convolutions by cuDNN, channels-last. Descriptors and the algorithm are chosen once for each shape, the workspace is kept.
use super::cuda::Cuda;
use super::{Convolution, index};
use crate::host;
use candle_core::cuda_backend::cudarc::cudnn::result::{self as dnn, CudnnError};
use candle_core::cuda_backend::cudarc::cudnn::sys::{self, cudnnMathType_t, cudnnStatus_t};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::cuda_backend::gemm_reduced_precision_f32;
use candle_core::cuda_backend::{DeviceId, WrapErr};
use candle_core::{DType, Error, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More memory than this is not worth an algorithm.
const WORKSPACE: usize = 1 << 30;
/// Set to leave cuDNN out.
pub(super) const LEAVE_OUT: &str = "LD3SH_NO_CUDNN";
/// Parts of cuDNN 9, which it loads itself, and ends the process where one is missing.
const PARTS: [&std::ffi::CStr; 3] = [c"libcudnn_graph.so.9", c"libcudnn_ops.so.9", c"libcudnn_cnn.so.9"];

/// Shapes for which cuDNN was used, and all that were met.
static USED: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// For how many of the shapes that were met cuDNN is used.
pub(super) fn used() -> [usize; 2] {
    [0, 1].map(|i| USED[i].load(Ordering::Relaxed))
}

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

impl Key {
    fn data_type(&self) -> Option<sys::cudnnDataType_t> {
        match self.dtype {
            DType::F32 => Some(sys::cudnnDataType_t::CUDNN_DATA_FLOAT),
            DType::F16 => Some(sys::cudnnDataType_t::CUDNN_DATA_HALF),
            DType::BF16 => Some(sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16),
            _ => None,
        }
    }
    /// cuDNN's own default would be TF32.
    fn math(&self) -> cudnnMathType_t {
        match (self.dtype, self.tf32) {
            (DType::F32, false) => cudnnMathType_t::CUDNN_FMA_MATH,
            (DType::F32, true) => cudnnMathType_t::CUDNN_DEFAULT_MATH,
            _ => cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        }
    }
}

/// cuDNN on this thread: its handles belong to one.
#[derive(Default)]
struct State {
    /// `None` where cuDNN is left out, or is not there.
    handles: HashMap<DeviceId, Option<sys::cudnnHandle_t>>,
    /// `None` where cuDNN has no algorithm for this shape.
    plans: HashMap<Key, Option<Rc<Plan>>>,
    /// As large as any plan has asked for.
    workspaces: HashMap<DeviceId, CudaSlice<u8>>,
}

thread_local! {
    /// Not taken down at the end: after a fault of the GPU cuDNN cannot be, and the process ends anyway.
    static STATE: ManuallyDrop<RefCell<State>> = ManuallyDrop::default();
}

/// All that a launch needs besides memory.
struct Plan {
    conv: sys::cudnnConvolutionDescriptor_t,
    x: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    algorithm: sys::cudnnConvolutionFwdAlgo_t,
    workspace: usize,
}

impl Plan {
    /// `None` where no algorithm computes this as it is wanted within the workspace.
    fn new(handle: sys::cudnnHandle_t, key: &Key) -> std::result::Result<Option<Self>, CudnnError> {
        let Some(of) = key.data_type() else { return Ok(None) };
        let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let c = |n: usize| n as i32;
        let ([b, h, w, cin], [_, oh, ow, cout]) = (key.x.map(c), key.out.map(c));
        let ([kh, kw], [ph, pw], stride) = (key.kernel.map(c), key.padding.map(c), c(key.stride));
        let sums = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        // descriptors of a shape are made once and kept until the process ends
        let conv = dnn::create_convolution_descriptor()?;
        let (x, y, weight) =
            (dnn::create_tensor_descriptor()?, dnn::create_tensor_descriptor()?, dnn::create_filter_descriptor()?);
        // SAFETY: the descriptors were made above and are whole; there is room for as many choices as are asked for
        unsafe {
            dnn::set_convolution2d_descriptor(conv, ph, pw, stride, stride, 1, 1, mode, sums)?;
            dnn::set_convolution_math_type(conv, key.math())?;
            // dimensions are named in this order whatever the layout
            dnn::set_tensor4d_descriptor(x, format, of, [b, cin, h, w])?;
            dnn::set_tensor4d_descriptor(y, format, of, [b, cout, oh, ow])?;
            dnn::set_filter4d_descriptor(weight, of, format, [cout, cin, kh, kw])?;
            let mut choices: [sys::cudnnConvolutionFwdAlgoPerf_t; 16] = std::mem::zeroed();
            let mut count = 0;
            dnn::get_convolution_forward_algorithm(
                handle,
                x,
                weight,
                conv,
                y,
                choices.len() as i32,
                &raw mut count,
                choices.as_mut_ptr(),
            )?;
            // the heuristics rank algorithms of every kind of arithmetic; of these only what was asked for is right
            let right = |p: &&sys::cudnnConvolutionFwdAlgoPerf_t| {
                p.status == cudnnStatus_t::CUDNN_STATUS_SUCCESS && p.mathType == key.math() && p.memory <= WORKSPACE
            };
            let count = usize::try_from(count).unwrap_or(0).min(choices.len());
            let Some(best) = choices[..count].iter().find(right) else { return Ok(None) };
            let workspace = dnn::get_convolution_forward_workspace_size(handle, x, weight, conv, y, best.algo)?;
            let plan = Plan { conv, x, w: weight, y, algorithm: best.algo, workspace };
            Ok((workspace <= WORKSPACE).then_some(plan))
        }
    }
}

/// Whether cuDNN computes what it was asked for, so that a fallback for this shape is right; all else is a fault.
fn unsupported(e: CudnnError) -> bool {
    // from 3000 to 3999, as cuDNN numbers them, with what earlier versions called it
    (3000..4000).contains(&(e.0 as u32))
}

fn failed(what: &str, e: CudnnError) -> Error {
    Error::Msg(format!("cuDNN {what}: {e:?}; without cuDNN it runs with {LEAVE_OUT}=1 in the environment"))
}

/// The library's handle on this thread; `None` where it is left out or not there, which is told once.
fn handle(stream: &Arc<CudaStream>) -> Result<Option<sys::cudnnHandle_t>> {
    if std::env::var_os(LEAVE_OUT).is_some_and(|v| !v.is_empty() && v != "0") {
        return Ok(None);
    }
    // SAFETY: only looks whether the library can be loaded
    if !unsafe { sys::is_culib_present() } {
        host::note("cuDNN 9 was not found (libcudnn): convolutions are slower, and differ in their rounding");
        return Ok(None);
    }
    #[cfg(unix)]
    for part in PARTS {
        // SAFETY: loads a library that cuDNN loads by the same name, and leaves it loaded
        if unsafe { libc::dlopen(part.as_ptr(), libc::RTLD_NOW) }.is_null() {
            let part = part.to_string_lossy();
            let m =
                format!("cuDNN is not whole: {part} cannot be loaded; install the rest of it, or set {LEAVE_OUT}=1");
            return Err(Error::Msg(m));
        }
    }
    stream.context().bind_to_thread().w()?;
    let handle = dnn::create_handle().map_err(|e| failed("does not start", e))?;
    // SAFETY: a handle made above, and a stream that lives as long as its device, which is kept
    unsafe { dnn::set_stream(handle, stream.cu_stream() as sys::cudaStream_t) }
        .map_err(|e| failed("does not start", e))?;
    Ok(Some(handle))
}

/// Enqueues a convolution; false where cuDNN is not there or has no algorithm for it.
pub(super) fn convolve(m: &Cuda, c: &Convolution) -> Result<bool> {
    // a size beyond 32 bits is no algorithm's
    for n in [c.x_dims, c.out_dims].iter().map(|d| d.iter().product()) {
        index(n)?;
    }
    let device = m.device.id();
    let tf32 = gemm_reduced_precision_f32();
    let (dtype, stride) = (c.x.dtype, c.stride);
    let key = Key { device, dtype, x: c.x_dims, out: c.out_dims, kernel: c.kernel, stride, padding: c.padding, tf32 };
    let line = m.device.cuda_stream();
    STATE.with(|state| {
        let state = &mut *state.borrow_mut();
        let handle = match state.handles.get(&device) {
            Some(handle) => *handle,
            None => *state.handles.entry(device).or_insert(handle(&line)?),
        };
        let Some(handle) = handle else { return Ok(false) };
        let plan = match state.plans.get(&key) {
            Some(plan) => plan.clone(),
            None => {
                let plan = match Plan::new(handle, &key) {
                    Ok(plan) => plan.map(Rc::new),
                    Err(e) if unsupported(e) => None,
                    Err(e) => return Err(failed("cannot choose an algorithm", e)),
                };
                USED[0].fetch_add(plan.is_some().into(), Ordering::Relaxed);
                USED[1].fetch_add(1, Ordering::Relaxed);
                state.plans.insert(key.clone(), plan.clone());
                plan
            }
        };
        let Some(plan) = plan else { return Ok(false) };
        let large = state.workspaces.get(&device).is_some_and(|w| w.len() >= plan.workspace);
        if !large {
            // SAFETY: scratch memory that cuDNN writes before it reads
            state.workspaces.insert(device, unsafe { m.device.alloc::<u8>(plan.workspace.max(1)) }?);
        }
        let space = state.workspaces.get(&device).map_or(0, |w| w.device_ptr(&line).0);
        let (one, zero) = (1f32, 0f32);
        let [x, w, y] = [m.pointer(c.x)?, m.pointer(c.weight)?, m.pointer(c.out)?];
        // SAFETY: the arrays have the sizes and the layout of the descriptors, the workspace is as large as the plan says; the
        // scalars are f32, as cuDNN wants them for f32, f16 and bf16
        let done = unsafe {
            dnn::convolution_forward(
                handle,
                (&raw const one).cast(),
                plan.x,
                x as *const c_void,
                plan.w,
                w as *const c_void,
                plan.conv,
                plan.algorithm,
                space as *mut c_void,
                plan.workspace,
                (&raw const zero).cast(),
                plan.y,
                y as *mut c_void,
            )
        };
        match done {
            Ok(()) => Ok(true),
            // what heuristics promise is not always supported
            Err(e) if unsupported(e) => {
                USED[0].fetch_sub(1, Ordering::Relaxed);
                state.plans.insert(key, None);
                Ok(false)
            }
            Err(e) => Err(failed("fails", e)),
        }
    })
}
