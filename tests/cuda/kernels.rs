//! The CUDA kernels without a GPU: an ordinary C++ compiler builds the same sources, and the same launches run on the host, with
//! every array between guards. Values and gradients are compared with the CPU's kernels, for each type of images.
use crate::host::{Host, Way};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use ld3sh::nets::kernels::gpu::Input;
use ld3sh::nets::kernels::{
    AddScale, Attention, Channels, Concat, Conv, Down2, Frozen, GroupNorm, Linear, MaxPool, Modulation, Pad, Relu,
    Resample, Silu, Up2, View, Waves, Within, set_exact,
};
use std::sync::Arc;

const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Numbers in [−1, 1] that every type holds exactly.
pub fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed * 2 + 1;
    let mut next = || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((s >> 57) as f32 - 64.0) / 64.0
    };
    (0..n).map(|_| next()).collect()
}

pub fn tensor(seed: u64, dims: &[usize]) -> Tensor {
    Tensor::from_vec(numbers(dims.iter().product(), seed), dims, &Device::Cpu).unwrap()
}

/// The precision of a type, with room for the values in between that have it too.
fn tolerance(t: DType) -> f32 {
    match t {
        DType::F32 => 4e-6,
        DType::F16 => 2e-3,
        _ => 1.6e-2,
    }
}

/// Fails unless all values agree, relative to the largest one (or to 0.1: some gradients are sums that vanish), within `times` a
/// type's precision.
pub fn close(what: &str, t: DType, got: &[f32], wanted: &[f32], times: f32) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let top = wanted.iter().fold(0.1f32, |m, v| m.max(v.abs()));
    for (i, (a, b)) in got.iter().zip(wanted).enumerate() {
        let off = (a - b).abs() / top;
        assert!(
            off <= times * tolerance(t),
            "{what} in {t:?}: element {i} is {a}, not {b} (off by {off:e} of the largest)"
        );
    }
}

/// An input's shape and values, and a type where that is not the images'.
#[derive(Clone)]
pub struct Given {
    pub dims: Vec<usize>,
    pub values: Vec<f32>,
    pub own: Option<DType>,
}

pub fn given(seed: u64, dims: &[usize]) -> Given {
    Given { dims: dims.to_vec(), values: numbers(dims.iter().product(), seed), own: None }
}

/// Compares launches with the CPU's kernels, in every type and several ways of running them.
pub fn check(what: &str, op: &dyn Frozen, inputs: &[Given]) {
    for t in TYPES {
        check_in(what, op, inputs, t);
    }
}

fn check_in(what: &str, op: &dyn Frozen, inputs: &[Given], t: DType) {
    // Winograd's error would hide what is looked for
    set_exact(true);
    let shapes: Vec<&[usize]> = inputs.iter().map(|g| &*g.dims).collect();
    let dims = op.dims(&shapes).unwrap();
    let n = dims.iter().product();
    let cot = numbers(n, 77);
    let views: Vec<View> = inputs.iter().map(|g| View { data: &g.values, dims: &g.dims }).collect();
    let mut value = vec![f32::NAN; n];
    op.run(&views, &mut value, false);
    let grads = op.pull(&views, &cot, false);
    let mut first = None;
    let large = Way { room: 1 << 24, ..Way::default() };
    for way in [large, Way { backwards: true, ..large }, Way { room: 1, ..large }, Way { library: true, ..large }] {
        let what = format!("{what}, {way:?}");
        let mut host = Host::new(way);
        let arrays: Vec<_> = inputs.iter().map(|g| host.input(&g.values, g.own.unwrap_or(t))).collect();
        let given: Vec<Input> = arrays.iter().zip(&shapes).map(|(array, dims)| Input { array: *array, dims }).collect();
        let gpu = op.gpu().unwrap();
        let out = gpu.enqueue(&mut host, &given).unwrap();
        let got = host.values(out, n);
        close(&format!("{what}: value"), t, &got, &value, 1.0);
        let cotangent = host.input(&cot, t);
        let pulled = gpu.enqueue_pull(&mut host, &given, cotangent).unwrap();
        assert_eq!(pulled.len(), inputs.len(), "{what}");
        let mut bits = vec![got];
        for (i, (array, (wanted, g))) in pulled.iter().zip(grads.iter().zip(inputs)).enumerate() {
            assert_eq!(array.dtype, g.own.unwrap_or(t), "{what}: the type of gradient {i}");
            let got = host.values(*array, g.values.len());
            close(&format!("{what}: gradient {i}"), t, &got, wanted, 1.0);
            bits.push(got);
        }
        // no order of threads, and no cut into parts, changes a bit
        match &first {
            None => first = Some(bits),
            Some(first) if !way.library => assert!(*first == bits, "{what} in {t:?}: the order of threads matters"),
            Some(_) => {}
        }
    }
}

fn conv(k: [usize; 2], cin: usize, cout: usize, stride: usize, padding: usize) -> Conv {
    Conv::with(tensor(1, &[cout, cin, k[0], k[1]]), tensor(2, &[cout]), stride, padding).unwrap()
}

#[test]
fn convolutions_of_any_size_stride_and_padding() {
    for (k, cin, cout, stride, padding, image) in [
        ([3, 3], 5, 7, 1, 1, [2, 7, 9]),
        ([3, 3], 1, 1, 1, 1, [1, 1, 1]),
        ([3, 3], 4, 3, 2, 1, [2, 7, 8]),
        ([3, 3], 2, 5, 2, 0, [1, 8, 5]),
        ([1, 1], 6, 4, 1, 0, [3, 4, 5]),
        ([5, 5], 3, 2, 1, 2, [1, 6, 5]),
        ([2, 4], 3, 2, 3, 3, [2, 5, 7]),
        ([7, 1], 2, 3, 1, 0, [1, 9, 4]),
        ([3, 3], 2, 2, 1, 4, [1, 3, 2]),
        ([3, 3], 33, 40, 1, 1, [1, 4, 3]),
    ] {
        let op = conv(k, cin, cout, stride, padding);
        check(
            &format!("{k:?} {cin}→{cout}, stride {stride}, padding {padding}, of {image:?}"),
            &op,
            &[given(3, &[&image[..], &[cin]].concat())],
        );
    }
}

#[test]
fn a_library_gets_what_it_can_compute() {
    let images = given(3, &[2, 5, 6, 4]);
    for (stride, times) in [(1, 2), (2, 1)] {
        let op = conv([3, 3], 4, 3, stride, 1);
        let dims = &images.dims[..];
        let mut host = Host::new(Way { library: true, room: 1 << 24, ..Way::default() });
        let x = Input { array: host.input(&images.values, DType::F32), dims };
        let gpu = op.gpu().unwrap();
        gpu.enqueue(&mut host, &[x]).unwrap();
        let cot = host.input(&numbers(op.dims(&[dims]).unwrap().iter().product(), 4), DType::F32);
        gpu.enqueue_pull(&mut host, &[x], cot).unwrap();
        // with a stride the gradient is no convolution
        assert_eq!(host.launched.iter().filter(|k| **k == "convolve").count(), times, "stride {stride}");
    }
}

#[test]
fn linear_maps_of_rows_and_images() {
    let op = Linear::new(&tensor(1, &[7, 5]), tensor(2, &[7])).unwrap();
    for dims in [&[3, 5][..], &[2, 3, 4, 5], &[5], &[1, 5]] {
        check(&format!("linear map of {dims:?}"), &op, &[given(3, dims)]);
    }
}

#[test]
fn group_norm_with_every_modulation() {
    let mut seed = 10;
    for (groups, per, image) in
        [(4, 4, [2, 9, 17]), (1, 3, [3, 1, 1]), (5, 1, [2, 3, 5]), (2, 8, [1, 32, 33]), (32, 4, [2, 4, 4])]
    {
        for modulation in [Modulation::None, Modulation::Add, Modulation::ScaleShift] {
            for silu in [false, true] {
                seed += 10;
                let c = groups * per;
                let (weight, bias) = (tensor(seed, &[c]), tensor(seed + 1, &[c]));
                let op = GroupNorm::new(weight, bias, groups, 1e-5, modulation, silu).unwrap();
                let mut inputs = vec![given(seed + 2, &[&image[..], &[c]].concat())];
                let what = format!("group norm {groups}×{per} of {image:?}, {modulation:?}, silu {silu}");
                let width = match modulation {
                    Modulation::None => {
                        check(&what, &op, &inputs);
                        continue;
                    }
                    Modulation::Add => c,
                    Modulation::ScaleShift => 2 * c,
                };
                // embeddings are f32, whatever the images are; and of the images' type
                inputs.push(given(seed + 3, &[image[0], width]));
                for own in [Some(DType::F32), None] {
                    inputs[1].own = own;
                    check(&format!("{what}, embedding {own:?}"), &op, &inputs);
                }
            }
        }
    }
}

#[test]
fn group_norm_of_values_far_from_zero() {
    let c = 8;
    let op = GroupNorm::new(tensor(1, &[c]), tensor(2, &[c]), 2, 1e-6, Modulation::Add, true).unwrap();
    let mut x = given(3, &[2, 16, 16, c]);
    // a mean a thousand times the deviation: a difference of squares would lose all digits
    x.values.iter_mut().for_each(|v| *v += 1024.0);
    let inputs = [x, given(4, &[2, c])];
    // the last bit of the mean is 1e-4 of the deviation
    check_in_within(&op, &inputs, DType::F32, 1e-3);
}

/// As [`check_in`], forward only, with another tolerance.
fn check_in_within(op: &dyn Frozen, inputs: &[Given], t: DType, tolerance: f32) {
    let shapes: Vec<&[usize]> = inputs.iter().map(|g| &*g.dims).collect();
    let n = op.dims(&shapes).unwrap().iter().product();
    let views: Vec<View> = inputs.iter().map(|g| View { data: &g.values, dims: &g.dims }).collect();
    let mut value = vec![f32::NAN; n];
    op.run(&views, &mut value, false);
    let mut host = Host::new(Way { room: 1 << 24, ..Way::default() });
    let arrays: Vec<_> = inputs.iter().map(|g| host.input(&g.values, t)).collect();
    let given: Vec<Input> = arrays.iter().zip(&shapes).map(|(array, dims)| Input { array: *array, dims }).collect();
    let out = op.gpu().unwrap().enqueue(&mut host, &given).unwrap();
    let got = host.values(out, n);
    let off = got.iter().zip(&value).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(off < tolerance, "off by {off:e}");
}

#[test]
fn attention_with_any_number_of_heads_and_tokens() {
    for (heads, d, image) in
        [(1, 8, [3, 2, 2]), (2, 4, [2, 3, 5]), (3, 5, [1, 1, 1]), (1, 6, [2, 10, 14]), (4, 16, [1, 12, 12])]
    {
        let op = Attention { heads };
        check(
            &format!("{heads} heads of {d} on {image:?}"),
            &op,
            &[given(heads as u64, &[&image[..], &[3 * heads * d]].concat())],
        );
    }
    // scores that would overflow without the shift
    let mut large = given(5, &[1, 3, 3, 12]);
    large.values.iter_mut().for_each(|v| *v *= 64.0);
    check_in("attention of large values", &Attention { heads: 1 }, &[large], DType::F32);
}

#[test]
fn the_small_operations() {
    let image = [2, 6, 4, 5];
    for s in [1.0, std::f64::consts::FRAC_1_SQRT_2] {
        check("scaled sum", &AddScale(s), &[given(1, &image), given(2, &image)]);
    }
    check("silu", &Silu, &[given(1, &[3, 37])]);
    check("relu", &Relu, &[given(1, &[3, 37])]);
    check("concatenation", &Concat, &[given(1, &[2, 3, 4, 5]), given(2, &[2, 3, 4, 2])]);
    check("upsampling", &Up2, &[given(1, &[2, 3, 5, 3])]);
    check("downsampling", &Down2, &[given(1, &image)]);
    check("padding", &Pad(2), &[given(1, &image)]);
    let box_filter = [1.0, 1.0];
    let tent = [1.0, 3.0, 3.0, 1.0];
    let long = [1.0, 2.0, 3.0, 4.0, 2.0, 1.0];
    for filter in [&box_filter[..], &tent, &long] {
        check(&format!("down by {filter:?}"), &Resample::down(filter), &[given(1, &[2, 8, 6, 3])]);
        check(&format!("up by {filter:?}"), &Resample::up(filter), &[given(1, &[2, 3, 5, 3])]);
    }
    check("down inside", &Resample::down_inside(&tent), &[given(1, &[1, 8, 6, 2])]);
    let map = Channels::new([(1.5, 0.25), (-0.5, 1.0), (2.0, -1.0)]);
    check("channels", &map, &[given(1, &[2, 3, 2, 3])]);
    check("one channel to three", &map, &[given(1, &[2, 3, 2, 1])]);
}

#[test]
fn max_pooling_with_ties() {
    for (window, stride, ceil) in [(2, 2, false), (3, 2, false), (3, 2, true), (3, 1, false), (2, 3, true)] {
        let op = MaxPool { window, stride, ceil };
        let mut x = given(1, &[2, 7, 8, 3]);
        // few values, so that windows have equal largest ones
        x.values.iter_mut().for_each(|v| *v = (*v * 2.0).round() / 2.0);
        check(&format!("pooling {window}, stride {stride}, ceil {ceil}"), &op, &[x]);
    }
}

#[test]
fn noise_embeddings() {
    for op in [
        Waves::positional(8, true, true),
        Waves::positional(6, false, false),
        Waves::fourier(&[0.3, -7.25, 16.0], true),
    ] {
        let mut level = given(1, &[5]);
        level.values.iter_mut().for_each(|v| *v *= 4.0);
        check("waves", &op, &[level]);
    }
    // VP tells its networks numbers up to 999: angles need more than f32's digits
    let level = Given { dims: vec![3], values: vec![998.625, 0.0078125, 513.3125], own: None };
    check_in("waves of large numbers", &Waves::positional(64, true, true), &[level], DType::F32);
}

#[test]
fn an_operation_in_a_wider_type_has_the_kernels_of_the_operation() {
    let norm = GroupNorm::new(tensor(1, &[8]), tensor(2, &[8]), 2, 1e-5, Modulation::None, true).unwrap();
    check("within", &Within { op: Arc::new(norm), dtype: DType::F32 }, &[given(3, &[2, 3, 4, 8])]);
}

#[test]
fn half_precision_on_the_host_is_ieee() {
    // through a kernel that only converts: every f16 and bf16 survives, and f32 rounds to nearest even
    for (t, round) in
        [(DType::F16, (|v| f16::from_f32(v).to_f32()) as fn(f32) -> f32), (DType::BF16, |v| bf16::from_f32(v).to_f32())]
    {
        let mut values: Vec<f32> = (0..=u16::MAX)
            .map(|b| if t == DType::F16 { f16::from_bits(b).to_f32() } else { bf16::from_bits(b).to_f32() })
            .filter(|v| !v.is_nan())
            .collect();
        values.extend((0..200_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9))).filter(|v| !v.is_nan()));
        let mut host = Host::new(Way { room: 1, ..Way::default() });
        let x = host.input(&values, DType::F32);
        let out = ld3sh::nets::kernels::gpu::narrowed(&mut host, x, values.len(), t).unwrap();
        let input = Input { array: out, dims: &[values.len()] };
        let back = ld3sh::nets::kernels::gpu::widened(&mut host, input).unwrap();
        let got = host.values(back, values.len());
        for (v, got) in values.iter().zip(got) {
            assert_eq!(got.to_bits(), round(*v).to_bits(), "{v:e} in {t:?}");
        }
    }
}
