//! Compiles the CUDA kernels to PTX, with the `cuda` feature; otherwise does nothing.
use std::env;
use std::path::Path;
use std::process::Command;

const SOURCES: &str = "src/nets/kernels/gpu/cu";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for name in ["LD3SH_NO_NVCC", "CUDA_HOME", "CUDA_COMPUTE_CAP"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed={SOURCES}");
    let arch = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "80".into());
    let out = env::var("OUT_DIR").expect("cargo sets it");
    for (element, name) in [("float", "f32"), ("half_t", "f16"), ("bfloat_t", "bf16")] {
        let to = Path::new(&out).join(format!("{name}.ptx"));
        if env::var_os("LD3SH_NO_NVCC").is_some() {
            // type checks need a file, and no compiler; the tests' pretend driver has the kernels by this name
            std::fs::write(to, format!("// ld3sh {element}")).expect("the output folder can be written");
            continue;
        }
        let mut nvcc = Command::new("nvcc");
        nvcc.args(["--ptx", "-O3", "-std=c++17"])
            .arg(format!("-arch=compute_{arch}"))
            .arg(format!("-DELEMENT={element}"));
        let status = nvcc.arg(format!("{SOURCES}/kernels.cu")).arg("-o").arg(to).status();
        match status {
            Ok(s) if s.success() => {}
            Ok(s) => panic!("nvcc failed ({s}): the CUDA kernels do not compile"),
            Err(e) => panic!("nvcc cannot be started ({e}): build with `.ci/cuda build --release --features cudnn`"),
        }
    }
}
