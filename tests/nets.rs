//! The EDM networks against reference numbers, the frozen kernels against naive f64 loops, and hostile files.
use candle_core::{D, DType, Device, Tensor, Var};
use ld3sh::denoise::{Cond, Network};
use ld3sh::host::Quiet;
use ld3sh::nets::edm::{self, Config, EdmNet, Source};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture(name), &Device::Cpu).unwrap()
}

fn max(t: &Tensor) -> f64 {
    t.to_dtype(DType::F64).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// The largest difference, relative to the largest entry of `b`.
fn error(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
    max(&(&a - &b).unwrap()) / max(&b)
}

/// EDM's preconditioning with gradients in x and σ by the chain rule: D = c_skip x + c_out F(c_in x, ln σ / 4).
fn denoise(net: &EdmNet, x: &Tensor, sigma: &Tensor, cond: &Cond, cot: &Tensor) -> [Tensor; 3] {
    let sd = net.meta().sigma_data;
    let s = sigma.reshape(((), 1, 1, 1)).unwrap().to_dtype(DType::F64).unwrap();
    let (x64, cot) = (x.to_dtype(DType::F64).unwrap(), cot.to_dtype(DType::F64).unwrap());
    let total = (s.sqr().unwrap() + sd * sd).unwrap();
    let root = total.sqrt().unwrap();
    let c_in = root.recip().unwrap();
    let c_out = ((&s * sd).unwrap() / &root).unwrap();
    let c_skip = (total.recip().unwrap() * (sd * sd)).unwrap();
    let c_noise = (sigma.to_dtype(DType::F64).unwrap().log().unwrap() / 4.0).unwrap();
    let (f, pull) = net.linearize(&Quiet, &x64.broadcast_mul(&c_in).unwrap(), &c_noise, cond).unwrap();
    let d = (x64.broadcast_mul(&c_skip).unwrap() + f.broadcast_mul(&c_out).unwrap()).unwrap();
    let (gx_in, gc) = pull(&Quiet, &cot.broadcast_mul(&c_out).unwrap()).unwrap();
    let gx = (cot.broadcast_mul(&c_skip).unwrap() + gx_in.broadcast_mul(&c_in).unwrap()).unwrap();
    let sum = |a: &Tensor, b: &Tensor| (a * b).unwrap().flatten_from(1).unwrap().sum(D::Minus1).unwrap();
    // dc_skip/dσ = −2σ sd²/t², dc_out/dσ = sd³/t^1.5, dc_in/dσ = −σ/t^1.5, with t = σ² + sd²
    let s = s.flatten_all().unwrap();
    let t = total.flatten_all().unwrap();
    let t15 = (&t * t.sqrt().unwrap()).unwrap();
    let skip = ((&s * (-2.0 * sd * sd)).unwrap() / t.sqr().unwrap()).unwrap();
    let out = (t15.recip().unwrap() * (sd * sd * sd)).unwrap();
    let inp = (s.neg().unwrap() / &t15).unwrap();
    let mut g = ((&gc / 4.0).unwrap() / &s).unwrap();
    for (a, b, c) in [(&cot, &x64, &skip), (&cot, &f, &out), (&gx_in, &x64, &inp)] {
        g = (g + (sum(a, b) * c).unwrap()).unwrap();
    }
    [d, gx, g]
}

fn parity(net: &EdmNet, io: &HashMap<String, Tensor>, tolerance: f64) {
    let cond = io.get("io.class_labels").map_or(Cond::None, |l| Cond::Rows(l.clone()));
    let got = denoise(net, &io["io.x"], &io["io.sigma"], &cond, &io["io.cotangent"]);
    for (got, name) in got.iter().zip(["io.denoised", "io.grad_x", "io.grad_sigma"]) {
        let e = error(got, &io[name]);
        eprintln!("{name}: {e:.2e}");
        assert!(e < tolerance, "{name} is off by {e:e}");
    }
}

fn tiny() -> Source {
    Source::Path(fixture("edm/ddpmpp_edm.weights.safetensors"))
}

#[test]
fn edm_fixture_matches_in_value_and_both_gradients() {
    let io = read("edm/ddpmpp_edm.io.safetensors");
    parity(&edm::load(&tiny(), &Device::Cpu, DType::F32).unwrap(), &io, 2e-4);
    parity(&edm::load(&tiny(), &Device::Cpu, DType::F64).unwrap(), &io, 2e-4);
}

#[test]
fn builtin_network_matches_in_value_and_both_gradients() {
    let io = read("fashion28-edm.io.safetensors");
    let net = edm::load(&Source::Builtin("fashion28"), &Device::Cpu, DType::F32).unwrap();
    assert_eq!(net.meta().classes[9], "ankle boot");
    parity(&net, &io, 2e-4);
    parity(&edm::load(&Source::Builtin("fashion28"), &Device::Cpu, DType::F64).unwrap(), &io, 2e-4);
}
