//! Criterion benches of the frozen kernels in both directions: `cargo bench --bench kernels`.
use candle_core::{Device, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use ld3sh::nets::kernels::{
    AddScale, Attention, Concat, Conv, Down2, Frozen, GroupNorm, Linear, Modulation, Up2, View,
};
use std::hint::black_box;

fn normal(dims: &[usize]) -> Tensor {
    Tensor::randn(0f32, 0.1, dims, &Device::Cpu).expect("a tensor")
}

fn op(c: &mut Criterion, name: &str, op: &dyn Frozen, dims: &[&[usize]]) {
    let inputs: Vec<Vec<f32>> = dims.iter().map(|d| values(&normal(d))).collect();
    let views: Vec<View> = inputs.iter().zip(dims).map(|(x, dims)| View { data: x, dims }).collect();
    let mut out = values(&normal(&op.dims(dims).expect("shapes that fit")));
    c.bench_function(&format!("{name} forward"), |b| b.iter(|| op.run(black_box(&views), &mut out, true)));
    c.bench_function(&format!("{name} gradient"), |b| b.iter(|| op.pull(black_box(&views), &out, true)));
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().and_then(|t| t.to_vec1()).expect("f32 values")
}

fn kernels(c: &mut Criterion) {
    for (channels, size) in [(128, 32), (256, 16), (64, 64), (256, 32)] {
        let conv = Conv::new(normal(&[channels, channels, 3, 3]), normal(&[channels])).expect("a convolution");
        op(c, &format!("3×3 convolution 2×{channels}×{size}²"), &conv, &[&[2, size, size, channels]]);
    }
    let conv = Conv::with(normal(&[128, 128, 3, 3]), normal(&[128]), 2, 1).expect("a convolution");
    op(c, "3×3 convolution with stride 2, 2×128×32²", &conv, &[&[2, 32, 32, 128]]);
    let linear = Linear::new(&normal(&[256, 512]), normal(&[256])).expect("a linear map");
    op(c, "1×1 convolution 2×512→256×16²", &linear, &[&[2, 16, 16, 512]]);
    for modulation in [Modulation::None, Modulation::Add, Modulation::ScaleShift] {
        let norm = GroupNorm::new(normal(&[128]), normal(&[128]), 32, 1e-6, modulation, true).expect("a norm");
        let x: &[usize] = &[2, 32, 32, 128];
        let name = format!("group norm + SiLU ({modulation:?}) 2×128×32²");
        match modulation {
            Modulation::None => op(c, &name, &norm, &[x]),
            Modulation::Add => op(c, &name, &norm, &[x, &[2, 128]]),
            Modulation::ScaleShift => op(c, &name, &norm, &[x, &[2, 256]]),
        }
    }
    op(c, "attention 2×256×16², 4 heads", &Attention { heads: 4 }, &[&[2, 16, 16, 768]]);
    op(c, "upsampling 2×128×16²", &Up2, &[&[2, 16, 16, 128]]);
    op(c, "downsampling 2×128×32²", &Down2, &[&[2, 32, 32, 128]]);
    op(c, "scaled sum 2×128×32²", &AddScale(0.7), &[&[2, 32, 32, 128], &[2, 32, 32, 128]]);
    op(c, "concatenation 2×(128+128)×32²", &Concat, &[&[2, 32, 32, 128], &[2, 32, 32, 128]]);
}

criterion_group!(benches, kernels);
criterion_main!(benches);
