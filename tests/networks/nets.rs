//! The EDM networks against reference numbers, the frozen kernels against naive f64 loops, and hostile files.
use crate::cases::cases;
use candle_core::{D, DType, Device, Tensor, Var};
use ld3sh::Kind;
use ld3sh::denoise::{Cond, Network};
use ld3sh::host::Quiet;
use ld3sh::model::{self, Source};
use ld3sh::nets::edm::{self, Config};
use ld3sh::nets::kernels::{
    AddScale, Attention, Concat, Conv, Down2, Frozen, GroupNorm, Linear, Modulation, Pad, Resample, Silu, Up2, Waves,
    apply,
};
use ld3sh::nets::network::Net;
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
pub fn error(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
    max(&(&a - &b).unwrap()) / max(&b)
}

/// EDM's preconditioning with gradients in x and σ by the chain rule: D = c_skip x + c_out F(c_in x, ln σ / 4).
fn denoise(net: &Net, x: &Tensor, sigma: &Tensor, cond: &Cond, cot: &Tensor) -> [Tensor; 3] {
    let ld3sh::denoise::Predicts::EdmF { sigma_data: sd } = net.card().predicts else { panic!() };
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

fn parity(net: &Net, io: &HashMap<String, Tensor>, tolerance: f64) {
    let cond = io.get("io.class_labels").map_or(Cond::None, |l| Cond::classes(l.clone()));
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
    parity(&model::denoiser(&tiny(), &Device::Cpu, DType::F32).unwrap(), &io, 2e-4);
    parity(&model::denoiser(&tiny(), &Device::Cpu, DType::F64).unwrap(), &io, 2e-4);
}

#[test]
fn edm_fixture_matches_from_its_pickle_too() {
    let net = model::denoiser(&Source::Path(fixture("edm/ddpmpp_edm.pkl")), &Device::Cpu, DType::F32).unwrap();
    parity(&net, &read("edm/ddpmpp_edm.io.safetensors"), 2e-4);
}

#[test]
fn builtin_network_matches_in_value_and_both_gradients() {
    let io = read("fashion28-edm.io.safetensors");
    let net = model::denoiser(&Source::Builtin("fashion28"), &Device::Cpu, DType::F32).unwrap();
    assert_eq!(net.card().classes[9], "ankle boot");
    parity(&net, &io, 2e-4);
    parity(&model::denoiser(&Source::Builtin("fashion28"), &Device::Cpu, DType::F64).unwrap(), &io, 2e-4);
}

/// A small generator, so that the tests need no crate for it: uniform in [−1, 1).
pub struct Lcg(pub u64);

impl Lcg {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
    pub fn tensor(&mut self, dims: &[usize]) -> Tensor {
        let v: Vec<f64> = (0..dims.iter().product()).map(|_| self.next()).collect();
        Tensor::from_vec(v, dims, &Device::Cpu).unwrap()
    }
}

pub fn f32(t: &Tensor) -> Tensor {
    t.to_dtype(DType::F32).unwrap()
}

pub fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// 3×3 convolution by its definition, on [B, H, W, C].
fn naive_conv(x: &Tensor, w: &Tensor, bias: &Tensor) -> Tensor {
    let ((b, h, wd, cin), cout) = (x.dims4().unwrap(), w.dim(0).unwrap());
    let (x, k, bias) = (flat(x), flat(w), flat(bias));
    let mut out = vec![0.0; b * h * wd * cout];
    for (i, o) in out.iter_mut().enumerate() {
        let (co, px, py, n) = (i % cout, i / cout % wd, i / cout / wd % h, i / cout / wd / h);
        *o = bias[co];
        for (dy, dx) in (0..9).map(|t| (t / 3, t % 3)) {
            let (y, xx) = (py + dy, px + dx);
            if (1..=h).contains(&y) && (1..=wd).contains(&xx) {
                for ci in 0..cin {
                    let v = x[((n * h + y - 1) * wd + xx - 1) * cin + ci];
                    *o += v * k[((co * cin + ci) * 3 + dy) * 3 + dx];
                }
            }
        }
    }
    Tensor::from_vec(out, (b, h, wd, cout), &Device::Cpu).unwrap()
}

/// The gradient of ⟨cot, f(x)⟩ along every input, by candle's backward.
fn backward(op: &Arc<dyn Frozen>, inputs: &[Tensor], cot: &Tensor) -> (Tensor, Vec<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let refs: Vec<&Tensor> = vars.iter().map(|v| v.as_tensor()).collect();
    let y = apply(op, &refs).unwrap();
    let grads = (&y * cot.to_dtype(y.dtype()).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
    (y.detach(), refs.iter().map(|t| grads.get(t).unwrap().clone()).collect())
}

/// Checks an operation: its composed f64 form against central differences, and its f32 kernel against that form. A gradient may
/// be off by rounding of what it was made from, too: where a softmax is nearly 0 or 1, little is left of differences between large numbers.
pub fn check(f64_op: Arc<dyn Frozen>, f32_op: Arc<dyn Frozen>, inputs: &[Tensor], tolerance: f64) {
    let mut rng = Lcg(7);
    let refs: Vec<&Tensor> = inputs.iter().collect();
    let y = apply(&f64_op, &refs).unwrap();
    let cot = rng.tensor(y.dims());
    let (_, exact) = backward(&f64_op, inputs, &cot);
    let value = |inputs: &[Tensor]| -> f64 {
        let refs: Vec<&Tensor> = inputs.iter().collect();
        (apply(&f64_op, &refs).unwrap() * &cot).unwrap().sum_all().unwrap().to_scalar().unwrap()
    };
    for i in 0..inputs.len() {
        let direction = rng.tensor(inputs[i].dims());
        let moved = |eps: f64| {
            let mut v = inputs.to_vec();
            v[i] = (&v[i] + (&direction * eps).unwrap()).unwrap();
            value(&v)
        };
        let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        let analytic: f64 = (&exact[i] * &direction).unwrap().sum_all().unwrap().to_scalar().unwrap();
        assert!((numeric - analytic).abs() < 1e-6 * (1.0 + analytic.abs()), "{}: {numeric} {analytic}", f64_op.name());
    }
    let small: Vec<Tensor> = inputs.iter().map(f32).collect();
    let (y32, grads) = backward(&f32_op, &small, &cot);
    let e = error(&y32, &y);
    assert!(e < tolerance, "{} of {:?}: value off by {e:e}", f32_op.name(), inputs[0].dims());
    let largest = exact.iter().map(max).fold(0.0, f64::max);
    for (i, (g, exact)) in grads.iter().zip(&exact).enumerate() {
        let off = max(&(g.to_dtype(DType::F64).unwrap() - exact).unwrap());
        let bound = tolerance * max(exact) + 1e-6 * largest;
        assert!(
            off < bound,
            "{} of {:?}: gradient {i} off by {off:e}, over {bound:e}",
            f32_op.name(),
            inputs[0].dims()
        );
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn convolution_matches_its_definition(
        b in 1usize..4, h in 1usize..15, w in 1usize..15,
        cin in prop::sample::select(vec![1usize, 3, 8, 16, 17, 33]),
        cout in prop::sample::select(vec![1usize, 3, 8, 16, 20, 70]),
        seed in 0u64..1000,
    ) {
        let mut rng = Lcg(seed);
        let (x, k, bias) = (rng.tensor(&[b, h, w, cin]), rng.tensor(&[cout, cin, 3, 3]), rng.tensor(&[cout]));
        let wide: Arc<dyn Frozen> = Arc::new(Conv::new(k.clone(), bias.clone()).unwrap());
        let fast: Arc<dyn Frozen> = Arc::new(Conv::new(f32(&k), f32(&bias)).unwrap());
        prop_assert!(error(&apply(&fast, &[&f32(&x)]).unwrap(), &naive_conv(&x, &k, &bias)) < 2e-5);
        check(wide, fast, &[x], 2e-5);
    }

    #[test]
    fn linear_map_matches_the_composed_form(
        rows in 1usize..300, cin in 1usize..70, cout in 1usize..140, seed in 0u64..1000,
    ) {
        let mut rng = Lcg(seed);
        let (x, k, bias) = (rng.tensor(&[rows, cin]), rng.tensor(&[cout, cin]), rng.tensor(&[cout]));
        let wide = Arc::new(Linear::new(&k, bias.clone()).unwrap());
        check(wide, Arc::new(Linear::new(&f32(&k), f32(&bias)).unwrap()), &[x], 1e-5);
    }

    #[test]
    fn group_norm_matches_the_composed_form(
        b in 1usize..4, h in 1usize..9, w in 2usize..9, groups in 1usize..6, per in 2usize..8,
        mode in 0usize..3, silu: bool, seed in 0u64..1000,
    ) {
        let (mut rng, c) = (Lcg(seed), groups * per);
        let mode = [Modulation::None, Modulation::Add, Modulation::ScaleShift][mode];
        let (weight, bias) = (rng.tensor(&[c]), rng.tensor(&[c]));
        let mut inputs = vec![rng.tensor(&[b, h, w, c])];
        match mode {
            Modulation::None => {}
            Modulation::Add => inputs.push(rng.tensor(&[b, c])),
            Modulation::ScaleShift => inputs.push(rng.tensor(&[b, 2 * c])),
        }
        let make = |w: &Tensor, b: &Tensor| -> Arc<dyn Frozen> {
            Arc::new(GroupNorm::new(w.clone(), b.clone(), groups, 1e-6, mode, silu).unwrap())
        };
        check(make(&weight, &bias), make(&f32(&weight), &f32(&bias)), &inputs, 2e-4);
    }

    #[test]
    fn attention_matches_the_composed_form(
        b in 1usize..4, h in 1usize..8, w in 1usize..8, heads in 1usize..4, d in 1usize..40, seed in 0u64..1000,
    ) {
        let x = (Lcg(seed).tensor(&[b, h, w, 3 * heads * d]) * 2.0).unwrap();
        check(Arc::new(Attention { heads }), Arc::new(Attention { heads }), &[x], 1e-5);
    }

    #[test]
    fn small_operations_match_the_composed_form(
        b in 1usize..4, h in 1usize..6, w in 1usize..6, c in 1usize..40, seed in 0u64..1000,
    ) {
        let mut rng = Lcg(seed);
        let x = rng.tensor(&[b, 2 * h, 2 * w, c]);
        let y = rng.tensor(&[b, 2 * h, 2 * w, c]);
        let wider = rng.tensor(&[b, 2 * h, 2 * w, c + 3]);
        check(Arc::new(Up2), Arc::new(Up2), std::slice::from_ref(&x), 1e-5);
        check(Arc::new(Down2), Arc::new(Down2), std::slice::from_ref(&x), 1e-5);
        for filter in [&[1.0, 3.0, 3.0, 1.0][..], &[2.0, 1.0], &[1.0, -2.0, 5.0, 4.0, 0.0, 1.0]] {
            let pair = |make: fn(&[f64]) -> Resample, x: &Tensor| {
                check(Arc::new(make(filter)), Arc::new(make(filter)), std::slice::from_ref(x), 1e-5);
            };
            pair(Resample::up, &x);
            pair(Resample::down, &x);
            let padding = Resample::padding(filter);
            let pad: Arc<dyn Frozen> = Arc::new(Pad(padding));
            check(pad.clone(), pad.clone(), std::slice::from_ref(&x), 1e-5);
            let padded = apply(&pad, &[&x]).unwrap();
            pair(Resample::down_inside, &padded);
            let apart: Arc<dyn Frozen> = Arc::new(Resample::down_inside(filter));
            let whole: Arc<dyn Frozen> = Arc::new(Resample::down(filter));
            prop_assert!(error(&apply(&apart, &[&padded]).unwrap(), &apply(&whole, &[&x]).unwrap()) < 1e-12);
        }
        check(Arc::new(Silu), Arc::new(Silu), &[(&x * 9.0).unwrap()], 1e-5);
        check(Arc::new(AddScale(0.7)), Arc::new(AddScale(0.7)), &[x.clone(), y], 1e-5);
        check(Arc::new(Concat), Arc::new(Concat), &[x, wider], 1e-5);
        // of many levels: a single one's gradient is a sum that may cancel to nothing, and no measure of an error
        for (endpoint, sines_first) in [(true, true), (false, false)] {
            let waves = || Arc::new(Waves::positional(2 * c + 2, endpoint, sines_first));
            check(waves(), waves(), &[rng.tensor(&[b + 20])], 1e-5);
        }
        let frequencies = flat(&rng.tensor(&[c]));
        let waves = || Arc::new(Waves::fourier(&frequencies, true));
        check(waves(), waves(), &[rng.tensor(&[b + 20])], 1e-5);
    }
}

#[test]
fn a_sample_does_not_depend_on_its_batch_or_on_threads() {
    let net = model::denoiser(&Source::Builtin("fashion28"), &Device::Cpu, DType::F32).unwrap();
    let mut rng = Lcg(3);
    let (x, c) = (f32(&rng.tensor(&[19, 1, 28, 28])), f32(&rng.tensor(&[19])));
    let rows = Cond::classes(f32(&rng.tensor(&[19, 10])));
    let all = |x: &Tensor, c: &Tensor, rows: &Cond| {
        let (y, pull) = net.linearize(&Quiet, x, c, rows).unwrap();
        let (gx, gc) = pull(&Quiet, &y).unwrap();
        assert_eq!(flat(&net.forward(&Quiet, x, c, rows).unwrap()), flat(&y));
        [flat(&y), flat(&gx), flat(&gc)]
    };
    let whole = all(&x, &c, &rows);
    for i in [0, 7, 18] {
        let (x, c, rows) = (x.narrow(0, i, 1).unwrap(), c.narrow(0, i, 1).unwrap(), rows.narrow(i, 1).unwrap());
        let single = all(&x, &c, &rows);
        for (single, whole) in single.iter().zip(&whole) {
            let n = single.len();
            assert_eq!(single[..], whole[i * n..(i + 1) * n]);
        }
    }
    let (x, c) = (x.narrow(0, 0, 3).unwrap(), c.narrow(0, 0, 3).unwrap());
    let run = || flat(&forward_unconditional(&x, &c));
    for threads in [1, 3, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(run), run());
    }
}

fn forward_unconditional(x: &Tensor, c: &Tensor) -> Tensor {
    let net = model::denoiser(&Source::Builtin("fashion28"), &Device::Cpu, DType::F32).unwrap();
    net.forward(&Quiet, x, c, &Cond::None).unwrap()
}

#[test]
fn candles_backward_agrees_with_the_tape() {
    let net = model::denoiser(&tiny(), &Device::Cpu, DType::F32).unwrap();
    let mut rng = Lcg(5);
    let (x, c, cot) = (rng.tensor(&[2, 3, 16, 16]), rng.tensor(&[2]), f32(&rng.tensor(&[2, 3, 16, 16])));
    let (x, c) = (Var::from_tensor(&f32(&x)).unwrap(), Var::from_tensor(&f32(&c)).unwrap());
    let y = net.forward(&Quiet, x.as_tensor(), c.as_tensor(), &Cond::None).unwrap();
    let grads = (&y * &cot).unwrap().sum_all().unwrap().backward().unwrap();
    let (out, pull) = net.linearize(&Quiet, x.as_tensor(), c.as_tensor(), &Cond::None).unwrap();
    let (gx, gc) = pull(&Quiet, &cot).unwrap();
    assert!(error(&out, &y) < 1e-6);
    assert!(error(&gx, grads.get(x.as_tensor()).unwrap()) < 1e-5);
    assert!(error(&gc, grads.get(c.as_tensor()).unwrap()) < 1e-5);
}

#[test]
fn a_random_network_is_reproducible_and_bounded() {
    let json = r#"{"img_resolution": 12, "img_channels": 2, "model_channels": 8, "channel_mult": [1, 3], "num_blocks": 2, "attn_resolutions": [12], "label_dim": 3}"#;
    let config = Config::parse(json).unwrap();
    let (a, b) = (edm::random(&config, 1, &Device::Cpu).unwrap(), edm::random(&config, 1, &Device::Cpu).unwrap());
    let mut rng = Lcg(5);
    let (x, c) = (f32(&rng.tensor(&[2, 2, 12, 12])), f32(&rng.tensor(&[2])));
    let run = |n: &Net| flat(&n.forward(&Quiet, &x, &c, &Cond::None).unwrap());
    assert_eq!(run(&a), run(&b));
    assert_eq!(a.hash(), b.hash());
    assert_ne!(run(&a), run(&edm::random(&config, 2, &Device::Cpu).unwrap()));
    let huge = Config { model_channels: 2048, channel_mult: vec![16], channel_mult_emb: 1, ..config };
    assert_eq!(edm::random(&huge, 1, &Device::Cpu).err().unwrap().kind(), Kind::Memory);
}

#[test]
fn wrong_inputs_are_named() {
    let net = model::denoiser(&Source::Builtin("fashion28"), &Device::Cpu, DType::F32).unwrap();
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let fails = |x: &[usize], c: usize, cond: Cond, part: &str| {
        let e = net.forward(&Quiet, &zeros(x), &zeros(&[c]), &cond).err().unwrap();
        assert!(e.message().contains(part), "{e}");
    };
    fails(&[2, 3, 28, 28], 2, Cond::None, "[B, 1, 28, 28]");
    fails(&[2, 1, 28], 2, Cond::None, "[B, 1, 28, 28]");
    fails(&[0, 1, 28, 28], 0, Cond::None, "[B, 1, 28, 28]");
    fails(&[2, 1, 28, 28], 3, Cond::None, "c_noise");
    fails(&[2, 1, 28, 28], 2, Cond::classes(zeros(&[2, 9])), "[2, 10]");
    fails(&[2, 1, 28, 28], 2, Cond::classes(zeros(&[1, 10])), "[2, 10]");
    fails(&[2, 1, 28, 28], 2, Cond::Opaque(std::rc::Rc::new(1)), "tensors as its conditions");
    let plain = model::denoiser(&tiny(), &Device::Cpu, DType::F32).unwrap();
    let e =
        plain.forward(&Quiet, &zeros(&[1, 3, 16, 16]), &zeros(&[1]), &Cond::classes(zeros(&[1, 10]))).err().unwrap();
    assert!(e.message().contains("no classes"), "{e}");
}

type Header = serde_json::Map<String, serde_json::Value>;

/// The small network's file taken apart: header and data.
fn taken_apart() -> (Header, Vec<u8>) {
    let bytes = std::fs::read(fixture("edm/ddpmpp_edm.weights.safetensors")).unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + n]).unwrap(), bytes[8 + n..].to_vec())
}

fn together(header: &Header, data: &[u8]) -> Vec<u8> {
    let header = serde_json::to_vec(header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, data].concat()
}

/// Loads these bytes from a file, which must fail as a format error that contains `part` and the file's name.
fn refused(bytes: &[u8], part: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let e = model::denoiser(&Source::Path(path), &Device::Cpu, DType::F32).err().expect(part);
    assert_eq!(e.kind(), Kind::Format, "{e}");
    assert!(e.to_string().contains(part) && e.to_string().contains("net.safetensors"), "{part}: {e}");
}

/// The small network's file with one entry of its configuration replaced.
fn with_config(key: &str, value: serde_json::Value) -> Vec<u8> {
    let (mut header, data) = taken_apart();
    let config = header["__metadata__"]["config"].as_str().unwrap().to_string();
    let mut config: Header = serde_json::from_str(&config).unwrap();
    config.insert(key.into(), value);
    header["__metadata__"]["config"] = serde_json::to_string(&config).unwrap().into();
    together(&header, &data)
}

#[test]
fn damaged_files_are_refused() {
    let (header, data) = taken_apart();
    let whole = together(&header, &data);
    refused(&[], "safetensors");
    refused(&whole[..whole.len() / 2], "safetensors");
    refused(&whole[..100], "safetensors");
    refused(&[&u64::MAX.to_le_bytes()[..], &whole[8..]].concat(), "safetensors");
    refused(b"PK\x03\x04 not a safetensors file at all", "safetensors");
    let name = "model.enc.16x16_conv.weight";
    let mut lying = header.clone();
    lying[name]["shape"] = serde_json::json!([1u64 << 40, 1u64 << 40, 3, 3]);
    refused(&together(&lying, &data), "safetensors");
    let mut transposed = header.clone();
    transposed[name]["shape"] = serde_json::json!([3, 16, 3, 3]);
    refused(&together(&transposed, &data), name);
    let mut renamed = header.clone();
    let entry = renamed.remove(name).unwrap();
    renamed.insert("model.enc.16x16_conv.weigth".into(), entry.clone());
    refused(&together(&renamed, &data), name);
    let mut surplus = header.clone();
    let end = data.len();
    surplus.insert(
        "model.extra".into(),
        serde_json::json!({"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}),
    );
    refused(&together(&surplus, &[&data[..], &[0; 4]].concat()), "model.extra");
    let mut integers = header.clone();
    integers[name]["dtype"] = "I32".into();
    refused(&together(&integers, &data), "I32");
    let mut bare = header.clone();
    bare.remove("__metadata__");
    refused(&together(&bare, &data), "metadata");
    let mut other = header.clone();
    other["__metadata__"]["precond"] = "XPrecond".into();
    refused(&together(&other, &data), "VPPrecond");
    let mut nan = data.clone();
    let at = entry["data_offsets"][0].as_u64().unwrap() as usize;
    for bad in [f32::NAN, f32::INFINITY] {
        nan[at..at + 4].copy_from_slice(&bad.to_le_bytes());
        refused(&together(&header, &nan), name);
    }
}

#[test]
fn absurd_configurations_are_refused() {
    use serde_json::json;
    for (key, value, part) in [
        ("model_channels", json!(1u64 << 40), "model_channels"),
        ("model_channels", json!(-1), "config"),
        ("model_channels", json!(17), "even"),
        ("model_channels", json!(32), "shape"),
        ("channel_mult", json!([]), "channel_mult"),
        ("channel_mult", json!([1, 2, 2, 2, 2, 2]), "halved"),
        ("channel_mult", json!(vec![1; 40]), "channel_mult"),
        ("channel_mult", json!([1, 0]), "channel_mult"),
        ("num_blocks", json!(1_000_000), "num_blocks"),
        ("num_blocks", json!(2), "missing"),
        ("img_resolution", json!(0), "img_resolution"),
        ("img_channels", json!(1000), "img_channels"),
        ("label_dim", json!(1u64 << 60), "label_dim"),
        ("label_dim", json!(10), "map_label"),
        ("sigma_data", json!(0.0), "sigma_data"),
        ("sigma_min", json!(90.0), "sigma_min"),
        ("model_type", json!("DhariwalUNet"), "affine.weight"),
        ("model_type", json!("UNet"), "SongUNet, DhariwalUNet"),
        ("model_type", json!(3), "model_type"),
        ("embedding_type", json!("fourier"), "model.map_noise.freqs"),
        ("encoder_type", json!("residual"), "aux_residual"),
        ("encoder_type", json!("skip"), "aux_down"),
        ("encoder_type", json!("odd"), "standard, skip, residual"),
        ("decoder_type", json!("skip"), "aux_norm"),
        ("resample_filter", json!([1, 3, 3, 1]), "resample_filter"),
        ("resample_filter", json!([1, 2]), "resample_filter"),
        ("resample_filter", json!([1, -1]), "resample_filter"),
        ("resample_filter", json!([1, 2, 1]), "resample_filter"),
        ("resample_filter", json!([]), "resample_filter"),
        ("M", json!(0), "`M`"),
        ("C_1", json!(0), "C_1"),
        ("epsilon_t", json!(2), "epsilon_t"),
        ("sigma_max", json!(0.001), "noise levels"),
        ("new_idea", json!(true), "new_idea"),
    ] {
        refused(&with_config(key, value), part);
    }
    let e = model::denoiser(&Source::Path("no/such/file".into()), &Device::Cpu, DType::F32).err().unwrap();
    assert_eq!(e.kind(), Kind::Io);
    let e = model::denoiser(&Source::Builtin("fashion82"), &Device::Cpu, DType::F32).err().unwrap();
    assert!(e.to_string().contains("fashion28"), "{e}");
    assert!(model::denoiser(&tiny(), &Device::Cpu, DType::U8).is_err());
}

#[test]
fn half_precision_weights_are_converted() {
    let tensors: HashMap<String, Tensor> = read("edm/ddpmpp_edm.weights.safetensors");
    let (header, _) = taken_apart();
    let meta = header["__metadata__"].as_object().unwrap();
    let meta = meta.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_string())).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("half.safetensors");
    let half: HashMap<String, Tensor> =
        tensors.into_iter().map(|(k, t)| (k, t.to_dtype(DType::BF16).unwrap())).collect();
    safetensors::serialize_to_file(&half, Some(meta), &path).unwrap();
    let net = model::denoiser(&Source::Path(path), &Device::Cpu, DType::F32).unwrap();
    parity(&net, &read("edm/ddpmpp_edm.io.safetensors"), 0.05);
}
