//! Devices by name, and the device on which new tensors are made.
use crate::{Error, Kind, Result};
use candle_core::{Device, Tensor};
use std::cell::RefCell;
#[cfg(feature = "cuda")]
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

thread_local! {
    static DEFAULT: RefCell<Device> = const { RefCell::new(Device::Cpu) };
}

/// The device for new tensors: the CPU unless [`set_default_device`] said otherwise on this thread.
pub fn default_device() -> Device {
    DEFAULT.with(|d| d.borrow().clone())
}

/// Makes `device` the one for new tensors of this thread (the script's).
pub fn set_default_device(device: Device) {
    DEFAULT.with(|d| *d.borrow_mut() = device);
}

/// A tensor on the CPU of so many values or fewer is a constant, and is taken to the GPU where it meets a tensor there.
const CONSTANT: usize = 4096;

/// The device on which tensors meet in an operation: the one on which they lie, or a GPU where all others are constants of the CPU; the
/// one for new tensors where there are none.
///
/// # Errors
/// [`Kind::Device`] where a larger tensor lies elsewhere.
pub fn meeting<'a>(what: &str, tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<Device> {
    let tensors: Vec<&Tensor> = tensors.into_iter().collect();
    let devices = || tensors.iter().map(|t| t.device());
    let Some(device) = devices().find(|d| !d.is_cpu()).or_else(|| devices().next()) else {
        return Ok(default_device());
    };
    let comes = |t: &Tensor| t.device().same_device(device) || t.device().is_cpu() && t.elem_count() <= CONSTANT;
    if let Some(t) = tensors.iter().find(|t| !comes(t)) {
        let (x, y) = (device_name(t.device()), device_name(device));
        let e = Error::new(Kind::Device, format!("{what}: one tensor lies on {x}, another on {y}"));
        return Err(e.hint("move one with `x.to(\"…\")`"));
    }
    Ok(device.clone())
}

/// The name of a device as [`parse_device`] reads it: `cpu`, `cuda:0`, ….
pub fn device_name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// What is known of a GPU and its libraries, by name; nothing of the CPU.
pub fn card(device: &Device) -> Vec<(&'static str, String)> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        use candle_core::cuda_backend::cudarc::cublas::sys as blas;
        use candle_core::cuda_backend::cudarc::driver::sys;
        let stream = device.cuda_stream();
        let context = stream.context();
        let mut all = vec![];
        all.extend(context.name().ok().map(|name| ("GPU", name)));
        all.extend(context.compute_capability().ok().map(|(major, minor)| ("capability", format!("{major}.{minor}"))));
        all.extend(context.total_mem().ok().map(|n| ("memory", format!("{} MiB", n >> 20))));
        let mut version = 0;
        // SAFETY: writes one integer
        if unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().is_ok() {
            all.push(("driver", format!("CUDA {}.{}", version / 1000, version % 1000 / 10)));
        }
        // SAFETY: writes one integer, of the device's own handle
        if unsafe { blas::cublasGetVersion_v2(*device.cublas_handle().handle(), &raw mut version) }.result().is_ok() {
            all.push(("cuBLAS", format!("{}.{}.{}", version / 10000, version / 100 % 100, version % 100)));
        }
        #[cfg(feature = "cudnn")]
        {
            use candle_core::cuda_backend::cudarc::cudnn;
            // SAFETY: only looks whether the library can be loaded
            let there = unsafe { cudnn::sys::is_culib_present() };
            let version = there.then(cudnn::result::get_version);
            let spoken = version.map(|v| format!("{}.{}.{}", v / 10000, v / 100 % 100, v % 100));
            all.push(("cuDNN", spoken.unwrap_or_else(|| "not found".into())));
        }
        return all;
    }
    let _ = device;
    vec![]
}

/// The device called `cpu`, `cuda` or `cuda:n`.
///
/// # Errors
/// [`Kind::Name`] for another name; [`Kind::Device`] if CUDA is not built in, has no driver, or has no such device.
pub fn parse_device(name: &str) -> Result<Device> {
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => 0,
        _ => match name.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(n) => n,
            None => return Err(Error::unknown("device", name, ["cpu", "cuda", "cuda:0"])),
        },
    };
    cuda(index)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device> {
    Err(Error::new(Kind::Device, "this build of ld3sh has no CUDA")
        .hint("use `cpu`, or build with `.ci/cuda build --release --features cudnn`"))
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device> {
    use candle_core::cuda_backend::cudarc::{cublas, curand, driver};
    // libraries are looked for when they are first used, and candle panics where one is missing
    // SAFETY: these only look whether a library can be loaded
    let there =
        unsafe { [driver::sys::is_culib_present(), cublas::sys::is_culib_present(), curand::sys::is_culib_present()] };
    let names = ["libcuda", "libcublas", "libcurand"];
    let missing: Vec<&str> = names.into_iter().zip(there).filter(|(_, there)| !there).map(|(name, _)| name).collect();
    if !there[0] {
        let e = Error::new(
            Kind::Device,
            format!("cannot use `cuda:{index}`: no NVIDIA driver for CUDA was found (libcuda)"),
        );
        return Err(e.hint("install the driver, 580 or newer, or use `cpu`"));
    }
    if !missing.is_empty() {
        let e = Error::new(Kind::Device, format!("cannot use `cuda:{index}`: {} not found", missing.join(" and ")));
        return Err(e.hint("install CUDA 13, or put the folders of these libraries on LD_LIBRARY_PATH"));
    }
    static DEVICES: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = devices.get(&index) {
        return Ok(device.clone());
    }
    let device = open(index)?;
    // kept until the process ends: a device is one stream, on which all work stands in order
    devices.insert(index, device.clone());
    Ok(device)
}

/// The oldest driver and GPU that this build's kernels run on: CUDA 13's, and compute capability 8.0.
#[cfg(feature = "cuda")]
const OLDEST: (i32, [i32; 2]) = (13000, [8, 0]);

#[cfg(feature = "cuda")]
fn open(index: usize) -> Result<Device> {
    use candle_core::cuda_backend::cudarc::driver::{result as cu, sys};
    let refuse = |what: String| Error::new(Kind::Device, format!("cannot use `cuda:{index}`: {what}"));
    let told = |e: sys::CUresult| refuse(crate::error::of_driver(e).unwrap_or_else(|| format!("{e:?}")));
    cu::init().map_err(|e| told(e.0))?;
    let mut driver = 0;
    // SAFETY: writes one integer
    unsafe { sys::cuDriverGetVersion(&raw mut driver) }.result().map_err(|e| told(e.0))?;
    let spoken = |v: i32| format!("{}.{}", v / 1000, v % 1000 / 10);
    if driver < OLDEST.0 {
        let m = format!("the NVIDIA driver is of CUDA {}, and this build needs {}", spoken(driver), spoken(OLDEST.0));
        return Err(refuse(m).hint("install a newer driver (580 or newer), or use `cpu`"));
    }
    let ordinal = i32::try_from(index).unwrap_or(i32::MAX);
    let gpu = cu::device::get(ordinal).map_err(|e| {
        let count = cu::device::get_count().unwrap_or(0);
        told(e.0).hint(match count {
            1 => "there is one GPU, `cuda:0`".to_string(),
            n => format!("there are {n} GPUs, from `cuda:0`"),
        })
    })?;
    use sys::CUdevice_attribute_enum as A;
    let parts = [A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR];
    // SAFETY: `gpu` came from the driver
    let [major, minor] = parts.map(|p| unsafe { cu::device::get_attribute(gpu, p) }.unwrap_or(0));
    if [major, minor] < OLDEST.1 {
        let [a, b] = OLDEST.1;
        let m = format!("its compute capability is {major}.{minor}, and this build's kernels need {a}.{b}");
        return Err(refuse(m).hint("use a newer GPU (Ampere or later), or `cpu`"));
    }
    let made = Device::new_cuda_with_stream(index).map_err(|e| refuse(Error::from(e).message().to_string()))?;
    if let Device::Cuda(device) = &made {
        use candle_core::cuda_backend::cudarc::cublas::sys as blas;
        // sums of products in half precision are f32 throughout
        let math = blas::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
        // SAFETY: the device's own handle
        let set = unsafe { blas::cublasSetMathMode(*device.cublas_handle().handle(), math) };
        set.result().map_err(|e| refuse(format!("cuBLAS: {e:?}")))?;
        // SAFETY: all work of this process stands on the device's one stream, in order, so that no event has to say when memory
        // is free
        unsafe { device.disable_event_tracking() };
        // the pool keeps what it has: giving memory back to the driver at each wait, as it does by itself, takes longer than kernels
        let mut keep = u64::MAX;
        // SAFETY: a pool and an attribute of the driver's, with a value of the attribute's type
        let kept = unsafe {
            cu::device::get_default_mem_pool(gpu).and_then(|pool| {
                let release = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
                cu::mem_pool::set_attribute(pool, release, (&raw mut keep).cast())
            })
        };
        // a GPU without pools allocates otherwise
        let _ = kept;
    }
    Ok(made)
}
