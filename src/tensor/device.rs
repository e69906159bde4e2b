//! Devices by name, and the device on which new tensors are made.
use crate::{Error, Kind, Result};
use candle_core::Device;
use std::cell::RefCell;

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

/// The name of a device as [`parse_device`] reads it: `cpu`, `cuda:0`, ….
pub fn device_name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
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
    Device::new_cuda(index)
        .map_err(|e| Error::new(Kind::Device, format!("cannot use `cuda:{index}`: {}", Error::from(e).message())))
}
