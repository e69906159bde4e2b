//! What needs a GPU: run with a CUDA build (`.ci/cuda test --release --features cudnn --test cuda -- --include-ignored`) on a
//! machine that has one. The first test is about a machine that has none.
use candle_core::{DType, Device, Tensor, Var};
use ld3sh::Kind;
use ld3sh::denoise::{Cond, Denoiser, Network, Prediction, Query};
use ld3sh::host::Quiet;
use ld3sh::nets::edm::{self, Config};
use ld3sh::nets::kernels::{
    AddScale, Attention, Concat, Conv, Down2, Frozen, GroupNorm, Linear, MaxPool, Modulation, Pad, Relu, Resample,
    Silu, Up2, Waves, apply,
};
use ld3sh::tensor::device::parse_device;
use std::process::Command;
use std::sync::Arc;

/// The first GPU.
fn gpu() -> Device {
    parse_device("cuda").unwrap_or_else(|e| panic!("{}", e.message()))
}

#[test]
fn a_missing_gpu_is_one_clear_error() {
    let Err(e) = parse_device("cuda") else { return };
    assert_eq!(e.kind(), Kind::Device);
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_ld3sh")).args(args).output().unwrap();
    let failed = run(&["--device", "cuda", "-e", "print(1 + 1)"]);
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(!failed.status.success() && failed.stdout.is_empty());
    assert!(said.contains(e.message()), "{said}");
    assert_eq!(said.matches("error").count(), 1, "{said}");
    assert!(!said.contains("panicked"), "{said}");
    let works = run(&["-e", "print(1 + 1)"]);
    assert!(works.status.success() && works.stdout == b"2\n");
}

fn numbers(seed: u64, dims: &[usize]) -> Tensor {
    let mut s = seed * 2 + 1;
    let mut next = || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((s >> 57) as f32 - 64.0) / 64.0
    };
    let v: Vec<f32> = (0..dims.iter().product()).map(|_| next()).collect();
    Tensor::from_vec(v, dims, &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest entry of `b`.
fn error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (values(a), values(b));
    let top = b.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    a.iter().zip(&b).fold(0.0, |m: f64, (a, b)| if a.is_nan() { f64::NAN } else { m.max((a - b).abs() / top) })
}

fn tolerance(t: DType) -> f64 {
    match t {
        DType::F32 => 3e-5,
        DType::F16 => 5e-3,
        _ => 4e-2,
    }
}

/// The value and the gradients of ⟨cot, op(inputs)⟩.
fn differentiated(op: &Arc<dyn Frozen>, inputs: &[Tensor]) -> Vec<Tensor> {
    let inputs: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let refs: Vec<&Tensor> = inputs.iter().map(|v| v.as_tensor()).collect();
    let y = apply(op, &refs).unwrap();
    let cot = numbers(99, y.dims()).to_dtype(y.dtype()).unwrap().to_device(y.device()).unwrap();
    let grads = (&y * &cot).unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = |v: &Var| grads.get(v).unwrap().clone();
    [y.clone()].into_iter().chain(inputs.iter().map(gradient)).collect()
}

/// An operation, and the shapes of its inputs.
type Case = (Arc<dyn Frozen>, Vec<&'static [usize]>);

#[test]
#[ignore = "needs a GPU"]
fn operations_agree_with_the_cpu() {
    let gpu = gpu();
    let conv = |k: [usize; 2], stride, padding| -> Arc<dyn Frozen> {
        let weight = (numbers(1, &[24, 16, k[0], k[1]]) / 4.0).unwrap();
        Arc::new(Conv::with(weight, numbers(2, &[24]), stride, padding).unwrap())
    };
    let norm = |m| -> Arc<dyn Frozen> {
        Arc::new(GroupNorm::new(numbers(3, &[64]), numbers(4, &[64]), 16, 1e-5, m, true).unwrap())
    };
    let tent = [1.0, 3.0, 3.0, 1.0];
    let cases: Vec<Case> = vec![
        (conv([3, 3], 1, 1), vec![&[2, 17, 9, 16]]),
        (conv([3, 3], 2, 1), vec![&[2, 17, 10, 16]]),
        (conv([1, 1], 1, 0), vec![&[2, 5, 7, 16]]),
        (conv([5, 3], 1, 2), vec![&[3, 8, 8, 16]]),
        (Arc::new(Linear::new(&numbers(1, &[33, 20]), numbers(2, &[33])).unwrap()), vec![&[2, 3, 5, 20]]),
        (norm(Modulation::None), vec![&[2, 33, 31, 64]]),
        (norm(Modulation::Add), vec![&[2, 9, 8, 64], &[2, 64]]),
        (norm(Modulation::ScaleShift), vec![&[3, 8, 8, 64], &[3, 128]]),
        (Arc::new(Attention { heads: 1 }), vec![&[3, 16, 16, 96]]),
        (Arc::new(Attention { heads: 4 }), vec![&[2, 7, 9, 192]]),
        (Arc::new(AddScale(0.7)), vec![&[2, 8, 8, 5], &[2, 8, 8, 5]]),
        (Arc::new(AddScale(1.0)), vec![&[2, 8, 8, 5], &[2, 8, 8, 5]]),
        (Arc::new(Concat), vec![&[2, 8, 8, 5], &[2, 8, 8, 3]]),
        (Arc::new(Silu), vec![&[2, 8, 8, 5]]),
        (Arc::new(Relu), vec![&[2, 8, 8, 5]]),
        (Arc::new(Up2), vec![&[2, 8, 6, 5]]),
        (Arc::new(Down2), vec![&[2, 8, 6, 5]]),
        (Arc::new(Pad(2)), vec![&[2, 8, 6, 5]]),
        (Arc::new(Resample::up(&tent)), vec![&[2, 8, 6, 5]]),
        (Arc::new(Resample::down(&tent)), vec![&[2, 8, 6, 5]]),
        (Arc::new(MaxPool { window: 3, stride: 2, ceil: true }), vec![&[2, 9, 8, 5]]),
        (Arc::new(Waves::positional(32, true, true)), vec![&[5]]),
    ];
    for (op, shapes) in &cases {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let inputs: Vec<Tensor> = shapes.iter().enumerate().map(|(i, d)| numbers(i as u64 + 5, d)).collect();
            let there: Vec<Tensor> =
                inputs.iter().map(|t| t.to_device(&gpu).unwrap().to_dtype(dtype).unwrap()).collect();
            let (wanted, got) = (differentiated(op, &inputs), differentiated(op, &there));
            for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
                assert_eq!(got.dtype(), dtype);
                let e = error(got, wanted);
                assert!(e < tolerance(dtype), "{} {shapes:?} in {dtype:?}: {i} is off by {e:e}", op.name());
            }
        }
    }
}

/// A network of each architecture.
const NETWORKS: [&str; 3] = [
    r#"{"img_resolution": 16, "img_channels": 3, "model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8], "augment_dim": 9}"#,
    r#"{"img_resolution": 16, "img_channels": 3, "model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8], "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]}"#,
    r#"{"model_type": "DhariwalUNet", "img_resolution": 16, "img_channels": 3, "model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8], "label_dim": 5}"#,
];

#[test]
#[ignore = "needs a GPU"]
fn networks_agree_with_the_cpu() {
    let gpu = gpu();
    for json in NETWORKS {
        let config = Config::parse(json).unwrap();
        let (x, cot) = (numbers(1, &[3, 3, 16, 16]), numbers(2, &[3, 3, 16, 16]));
        let sigma = [0.05, 1.5, 40.0];
        let on = |device: &Device, dtype| {
            let net = edm::random_in(&config, 7, device, dtype).unwrap();
            let d = net.denoiser().unwrap();
            let x = (&x * 2.0).unwrap().to_device(device).unwrap();
            let q = Query { x: &(&x).into(), t: &sigma, cond: &Cond::None };
            let (m, pull) = d.linearize(&Quiet, &q, Prediction::Data).unwrap();
            let g = pull(&Quiet, &cot.to_device(device).unwrap().into()).unwrap();
            [m.into_tensor().unwrap(), g.x.into_tensor().unwrap(), Tensor::new(g.t, &Device::Cpu).unwrap()]
        };
        let wanted = on(&Device::Cpu, DType::F32);
        for (dtype, tolerance) in [(DType::F32, 2e-4), (DType::F16, 2e-2), (DType::BF16, 1e-1)] {
            let got = on(&gpu, dtype);
            for (what, (got, wanted)) in
                ["D", "its gradient in x", "its gradient in t"].iter().zip(got.iter().zip(&wanted))
            {
                let e = error(got, wanted);
                assert!(e < tolerance, "{json} in {dtype:?}: {what} is off by {e:e}");
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn the_same_inputs_give_the_same_bits() {
    let gpu = gpu();
    let net = edm::random(&Config::parse(NETWORKS[0]).unwrap(), 3, &gpu).unwrap();
    let (x, c) = (numbers(1, &[2, 3, 16, 16]).to_device(&gpu).unwrap(), numbers(2, &[2]).to_device(&gpu).unwrap());
    let run = || values(&net.forward(&Quiet, &x, &c, &Cond::None).unwrap());
    assert_eq!(run(), run());
}
