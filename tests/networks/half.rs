//! Weights that stay in the 16 bits of their checkpoint: the bits of the widened ones, in half of the memory.
use super::nets::{Lcg, f32, flat};
use crate::helpers::latent as fixture;
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::{Cond, Network};
use ld3sh::host::Quiet;
use ld3sh::model::{self, Source};
use ld3sh::nets::family::{Part, Role};
use ld3sh::nets::kernels::{Conv, Frozen, Linear, View};
use ld3sh::nets::network::Net;
use std::collections::HashMap;
use std::path::Path;

/// Value and gradient of an operation on one image.
fn both(op: &dyn Frozen, x: &Tensor) -> [Vec<f32>; 2] {
    let (data, dims) = (flat(x).iter().map(|v| *v as f32).collect::<Vec<_>>(), x.dims());
    let view = [View { data: &data, dims }];
    let shape = op.dims(&[dims]).unwrap();
    let mut out = vec![f32::NAN; shape.iter().product()];
    op.run(&view, &mut out, true);
    let grad = op.pull(&view, &out, true).swap_remove(0);
    [out, grad]
}

fn bits(all: &[Vec<f32>; 2]) -> Vec<u32> {
    all.iter().flatten().map(|v| v.to_bits()).collect()
}

#[test]
fn kernels_give_the_bits_of_the_widened_weights() {
    let mut rng = Lcg(5);
    let (x, bias) = (f32(&rng.tensor(&[2, 9, 7, 21])), f32(&rng.tensor(&[35])));
    for dtype in [DType::F16, DType::BF16] {
        // small ones too, which have no leading 1 in f16
        let weight = (rng.tensor(&[35, 21, 3, 3]) * 1e-3).unwrap().to_dtype(dtype).unwrap();
        let wide = weight.to_dtype(DType::F32).unwrap();
        for (stride, padding) in [(1, [1, 1]), (2, [1, 1]), (1, [0, 2])] {
            let of = |w: &Tensor| Conv::padded(w.clone(), bias.clone(), stride, padding).unwrap();
            let (half, whole) = (of(&weight), of(&wide));
            assert_eq!(bits(&both(&half, &x)), bits(&both(&whole, &x)), "{dtype:?}, stride {stride}");
            assert!(half.bytes() < whole.bytes() * 6 / 10, "{} of {} bytes", half.bytes(), whole.bytes());
            assert_eq!(flat(&half.weights().unwrap()[0]), flat(&wide));
        }
        let of = |w: &Tensor| {
            Linear::new(&w.narrow(2, 0, 1).unwrap().narrow(3, 0, 1).unwrap().reshape((35, 21)).unwrap(), bias.clone())
        };
        let (half, whole) = (of(&weight).unwrap(), of(&wide).unwrap());
        assert_eq!(bits(&both(&half, &x)), bits(&both(&whole, &x)), "{dtype:?}, linear");
        assert!(half.bytes() < whole.bytes() * 7 / 10, "{} of {} bytes", half.bytes(), whole.bytes());
    }
}

fn net(path: &Path) -> Net {
    match model::load(&Source::Path(path.into()), &Device::Cpu, DType::F32).unwrap().remove(&Role::Denoiser) {
        Some(Part::Denoiser(net)) => net,
        _ => panic!("no denoiser"),
    }
}

#[test]
fn a_network_of_16_bits_is_that_of_its_widened_weights() {
    let from = fixture("ldm_uncond.weights.safetensors");
    let all = candle_core::safetensors::load(&from, &Device::Cpu).unwrap();
    let bytes = std::fs::read(&from).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, change: &dyn Fn(&Tensor) -> candle_core::Result<Tensor>| {
        let tensors: HashMap<&str, Tensor> = all.iter().map(|(n, t)| (&**n, change(t).unwrap())).collect();
        let path = dir.path().join(name);
        safetensors::serialize_to_file(&tensors, header.metadata().clone(), &path).unwrap();
        net(&path)
    };
    let io = candle_core::safetensors::load(fixture("ldm_uncond.io.safetensors"), &Device::Cpu).unwrap();
    for dtype in [DType::F16, DType::BF16] {
        let half = write("half.safetensors", &|t| t.to_dtype(dtype));
        let wide = write("wide.safetensors", &|t| t.to_dtype(dtype)?.to_dtype(DType::F32));
        let run = |net: &Net| {
            let (y, pull) = net.linearize(&Quiet, &io["io.x"], &io["io.t"], &Cond::None).unwrap();
            let (gx, gt) = pull(&Quiet, &io["io.cotangent"]).unwrap();
            [y, gx, gt].map(|t| flat(&t))
        };
        assert_eq!(run(&half), run(&wide), "{dtype:?}");
    }
}

#[test]
fn every_finite_number_of_16_bits_is_widened_exactly() {
    let finite: Vec<u16> = (0..=u16::MAX).filter(|b| b & 0x7c00 != 0x7c00).collect();
    let n = finite.len();
    let of_f16: Vec<half::f16> = finite.iter().map(|b| half::f16::from_bits(*b)).collect();
    // as bf16 they are finite, too
    let of_bf16: Vec<half::bf16> = finite.iter().map(|b| half::bf16::from_bits(*b)).collect();
    let one = Tensor::ones((1, 1, 1, 1), DType::F32, &Device::Cpu).unwrap();
    let bias = Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
    for weight in [Tensor::from_vec(of_f16, (n, 1), &Device::Cpu), Tensor::from_vec(of_bf16, (n, 1), &Device::Cpu)] {
        let weight = weight.unwrap();
        let wide = weight.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let op = Linear::new(&weight, bias.clone()).unwrap();
        assert_eq!(both(&op, &one)[0], wide);
    }
}
