//! Build script of the patched candle-kernels (see `.ci/cuda`): kernels as PTX only, nothing linked statically.
use cudaforge::{KernelBuilder, Result};
use std::env;
use std::path::PathBuf;

/// Sources that upstream compiles into the static library.
const STATIC: [&str; 3] = ["moe_*.cu", "mmvq_gguf.cu", "mmq_*.cu"];

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-env-changed=LD3SH_NO_NVCC");
    let to = PathBuf::from(env::var("OUT_DIR").unwrap()).join("ptx.rs");
    if env::var_os("LD3SH_NO_NVCC").is_some() {
        let mut text = String::new();
        for entry in std::fs::read_dir("src")? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "cu") {
                let name = path.file_stem().unwrap().to_string_lossy().to_uppercase();
                text += &format!("#[allow(dead_code)]\npub const {name}: &str = \"// candle {name}\";\n");
            }
        }
        std::fs::write(to, text)?;
        return Ok(());
    }
    let build = KernelBuilder::new().source_dir("src").exclude(&STATIC);
    build.arg("--expt-relaxed-constexpr").arg("-std=c++17").arg("-O3").build_ptx()?.write(&to)?;
    Ok(())
}
