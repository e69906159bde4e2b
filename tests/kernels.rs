//! The frozen kernels against naive f64 loops, on every instruction set of this machine, with any number of threads.
use candle_core::{DType, Device, Tensor};
use ld3sh::nets::kernels::{
    Attention, Conv, Frozen, Geglu, Gelu, GroupNorm, LayerNorm, Linear, Modulation, View, set_exact, simd,
};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The instruction set and the exact mode belong to the process: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Uniform numbers in [−1, 1) that f32 holds exactly.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed * 2 + 1;
    (0..n)
        .map(|_| {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (s >> 41) as f32 / (1u64 << 22) as f32 - 1.0
        })
        .collect()
}

fn tensor(v: &[f32], dims: &[usize]) -> Tensor {
    Tensor::from_slice(v, dims, &Device::Cpu).unwrap()
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    b: usize,
    h: usize,
    w: usize,
    cin: usize,
    cout: usize,
    k: [usize; 2],
    stride: usize,
    padding: usize,
}

impl Shape {
    fn out(&self) -> [usize; 2] {
        let size = |n: usize, k: usize| (n + 2 * self.padding - k) / self.stride + 1;
        [size(self.h, self.k[0]), size(self.w, self.k[1])]
    }
    /// Every product of a convolution: indices into output, input and weight.
    fn each(&self, mut f: impl FnMut(usize, usize, usize)) {
        let [oh, ow] = self.out();
        for n in 0..self.b {
            for (y, x) in (0..oh * ow).map(|i| (i / ow, i % ow)) {
                for (ky, kx) in (0..self.k[0] * self.k[1]).map(|i| (i / self.k[1], i % self.k[1])) {
                    let (iy, ix) = (y * self.stride + ky, x * self.stride + kx);
                    let inside = |i: usize, n: usize| (self.padding..n + self.padding).contains(&i);
                    if !inside(iy, self.h) || !inside(ix, self.w) {
                        continue;
                    }
                    let pixel = (n * self.h + iy - self.padding) * self.w + ix - self.padding;
                    for (co, ci) in (0..self.cout * self.cin).map(|i| (i / self.cin, i % self.cin)) {
                        let weight = ((co * self.cin + ci) * self.k[0] + ky) * self.k[1] + kx;
                        f(((n * oh + y) * ow + x) * self.cout + co, pixel * self.cin + ci, weight);
                    }
                }
            }
        }
    }
}

/// The largest difference relative to the largest value.
fn error(got: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(got.len(), exact.len());
    let top = exact.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
    got.iter().zip(exact).fold(0.0, |m: f64, (a, b)| m.max((*a as f64 - b).abs() / top))
}

fn check_conv(s: Shape, tolerance: f64, par: bool) {
    let [oh, ow] = s.out();
    let (x, w) = (numbers(s.b * s.h * s.w * s.cin, 1), numbers(s.cout * s.cin * s.k[0] * s.k[1], 2));
    let (bias, cot) = (numbers(s.cout, 3), numbers(s.b * oh * ow * s.cout, 4));
    let op = Conv::with(tensor(&w, &[s.cout, s.cin, s.k[0], s.k[1]]), tensor(&bias, &[s.cout]), s.stride, s.padding);
    let op = op.unwrap();
    let dims = [s.b, s.h, s.w, s.cin];
    assert_eq!(op.dims(&[&dims]).unwrap(), [s.b, oh, ow, s.cout]);
    let mut exact: Vec<f64> = (0..cot.len()).map(|i| bias[i % s.cout] as f64).collect();
    let mut grad = vec![0f64; x.len()];
    s.each(|o, i, k| {
        exact[o] += x[i] as f64 * w[k] as f64;
        grad[i] += cot[o] as f64 * w[k] as f64;
    });
    let mut out = vec![f32::NAN; cot.len()];
    let view = [View { data: &x, dims: &dims }];
    op.run(&view, &mut out, par);
    let e = error(&out, &exact);
    assert!(e < tolerance, "{s:?}: value off by {e:e}");
    let g = op.pull(&view, &cot, par).swap_remove(0);
    let e = error(&g, &grad);
    assert!(e < tolerance, "{s:?}: gradient off by {e:e}");
}

const SAME: Shape = Shape { b: 2, h: 7, w: 9, cin: 20, cout: 37, k: [3, 3], stride: 1, padding: 1 };

#[test]
fn winograd_in_both_directions_on_every_instruction_set() {
    let _turn = turn();
    for (name, arch) in simd::available() {
        simd::force(arch);
        eprintln!("{name}");
        for s in [
            SAME,
            Shape { h: 4, w: 4, cin: 1, cout: 1, ..SAME },
            Shape { b: 3, h: 17, w: 5, cin: 33, cout: 3, ..SAME },
            Shape { b: 1, h: 1, w: 1, cin: 3, cout: 64, ..SAME },
            // more input channels than are transformed at a time
            Shape { b: 1, h: 5, w: 6, cin: 150, cout: 32, ..SAME },
        ] {
            check_conv(s, 2e-5, false);
            check_conv(s, 2e-5, true);
        }
    }
    simd::force(simd::available().pop().unwrap().1);
}

#[test]
fn direct_convolution_takes_any_size_stride_and_padding() {
    let _turn = turn();
    for (_, arch) in simd::available() {
        simd::force(arch);
        for s in [
            Shape { stride: 2, ..SAME },
            Shape { stride: 2, padding: 0, ..SAME },
            Shape { k: [1, 1], padding: 0, ..SAME },
            Shape { k: [5, 5], padding: 2, cin: 3, ..SAME },
            Shape { k: [2, 4], padding: 3, stride: 3, cin: 5, cout: 6, ..SAME },
            Shape { k: [7, 1], padding: 0, h: 7, cin: 2, ..SAME },
            Shape { padding: 2, cin: 17, ..SAME },
        ] {
            check_conv(s, 2e-6, false);
            check_conv(s, 2e-6, true);
        }
    }
    simd::force(simd::available().pop().unwrap().1);
}

#[test]
fn exact_mode_turns_winograd_off() {
    let _turn = turn();
    set_exact(true);
    let s = Shape { b: 1, h: 12, w: 12, cin: 40, cout: 40, ..SAME };
    check_conv(s, 2e-6, true);
    let run = || {
        let op = Conv::new(tensor(&numbers(1600 * 9, 2), &[40, 40, 3, 3]), tensor(&[0.0; 40], &[40])).unwrap();
        let mut out = vec![0.0; 144 * 40];
        op.run(&[View { data: &numbers(144 * 40, 1), dims: &[1, 12, 12, 40] }], &mut out, true);
        out
    };
    let exact = run();
    set_exact(false);
    assert_ne!(exact, run(), "the two ways round differently");
}

#[test]
fn other_kernels_agree_on_every_instruction_set() {
    let _turn = turn();
    let ops: [(Box<dyn Frozen>, Vec<usize>); 8] = [
        (Box::new(layer_norm(45)), vec![2, 29, 45]),
        (Box::new(Gelu::Exact), vec![2, 1001]),
        (Box::new(Gelu::Quick), vec![2, 1001]),
        (Box::new(Geglu), vec![2, 7, 70]),
        (
            Box::new(Linear::new(&tensor(&numbers(70 * 45, 1), &[70, 45]), tensor(&numbers(70, 2), &[70])).unwrap()),
            vec![29, 45],
        ),
        (Box::new(norm(24, 3)), vec![2, 15, 13, 24]),
        (Box::new(Attention { heads: 2 }), vec![2, 5, 7, 66]),
        (
            Box::new(
                Conv::new(tensor(&numbers(21 * 9 * 35, 1), &[35, 21, 3, 3]), tensor(&numbers(35, 2), &[35])).unwrap(),
            ),
            vec![2, 6, 6, 21],
        ),
    ];
    for (op, dims) in &ops {
        let out_dims = op.dims(&[dims]).unwrap();
        let (x, cot) = (numbers(dims.iter().product(), 5), numbers(out_dims.iter().product(), 6));
        // the value and the gradient by the composed form in f64, which differentiation of candle's own operations gives
        let mut reference: Option<(Vec<f64>, Vec<f64>)> = None;
        for (name, arch) in simd::available() {
            simd::force(arch);
            let view = [View { data: &x, dims }];
            let mut out = vec![0.0; cot.len()];
            op.run(&view, &mut out, true);
            let g = op.pull(&view, &cot, true).swap_remove(0);
            let wide = |v: &[f32]| v.iter().map(|v| *v as f64).collect::<Vec<_>>();
            let (y, gx) = reference.get_or_insert_with(|| (wide(&out), wide(&g)));
            let (e, eg) = (error(&out, y), error(&g, gx));
            assert!(e < 1e-5 && eg < 2e-5, "{} on {name}: {e:e} and {eg:e}", op.name());
        }
        let composed = op.compose(&[&tensor(&x, dims)]).unwrap().to_dtype(DType::F64).unwrap();
        let composed: Vec<f64> = composed.flatten_all().unwrap().to_vec1().unwrap();
        let scalar: Vec<f32> = reference.unwrap().0.iter().map(|v| *v as f32).collect();
        assert!(error(&scalar, &composed) < 2e-5, "{}", op.name());
    }
    simd::force(simd::available().pop().unwrap().1);
}

fn layer_norm(c: usize) -> LayerNorm {
    LayerNorm::new(tensor(&numbers(c, 1), &[c]), tensor(&numbers(c, 2), &[c]), 1e-5).unwrap()
}

fn norm(c: usize, groups: usize) -> GroupNorm {
    let (w, b) = (tensor(&numbers(c, 1), &[c]), tensor(&numbers(c, 2), &[c]));
    GroupNorm::new(w, b, groups, 1e-6, Modulation::None, true).unwrap()
}

#[test]
fn bits_depend_on_neither_threads_nor_batch() {
    let _turn = turn();
    let weight = tensor(&numbers(48 * 40 * 9, 1), &[40, 48, 3, 3]);
    let ops: [Box<dyn Frozen>; 7] = [
        Box::new(layer_norm(48)),
        Box::new(Gelu::Exact),
        Box::new(Geglu),
        Box::new(Conv::new(weight.clone(), tensor(&numbers(40, 2), &[40])).unwrap()),
        Box::new(Conv::with(weight, tensor(&numbers(40, 2), &[40]), 2, 1).unwrap()),
        Box::new(norm(48, 6)),
        Box::new(Attention { heads: 2 }),
    ];
    // more tiles than one block of tiles holds
    let dims = [5usize, 20, 24, 48];
    let x = numbers(dims.iter().product(), 7);
    for op in &ops {
        let n: usize = op.dims(&[&dims]).unwrap().iter().product();
        let cot = numbers(n, 8);
        let run = |x: &[f32], cot: &[f32], b: usize, par: bool| {
            let dims = [b, dims[1], dims[2], dims[3]];
            let view = [View { data: x, dims: &dims }];
            let mut out = vec![0.0; cot.len()];
            op.run(&view, &mut out, par);
            (out, op.pull(&view, cot, par).swap_remove(0))
        };
        let whole = run(&x, &cot, 5, false);
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| run(&x, &cot, 5, true)), whole, "{} with {threads} threads", op.name());
        }
        let (i, o) = (x.len() / 5, n / 5);
        let (y, g) = run(&x[3 * i..4 * i], &cot[3 * o..4 * o], 1, true);
        assert_eq!((&y[..], &g[..]), (&whole.0[3 * o..4 * o], &whole.1[3 * i..4 * i]), "{} alone", op.name());
    }
}

#[test]
fn weights_are_held_once_and_once_more_for_gradients() {
    let op = Conv::new(tensor(&numbers(64 * 64 * 9, 1), &[64, 64, 3, 3]), tensor(&[0.0; 64], &[64])).unwrap();
    let plain = 4 * 64 * 64 * 9;
    assert!((plain..plain + 2048).contains(&op.bytes()), "{}", op.bytes());
    let x = numbers(16 * 64, 1);
    op.pull(&[View { data: &x, dims: &[1, 4, 4, 64] }], &x, false);
    assert!((2 * plain..2 * plain + 4096).contains(&op.bytes()), "{}", op.bytes());
}

#[test]
fn wrong_geometry_is_an_error() {
    let weight = tensor(&numbers(9 * 6, 1), &[2, 3, 3, 3]);
    let bias = tensor(&[0.0; 2], &[2]);
    assert!(Conv::with(weight.clone(), bias.clone(), 0, 1).is_err());
    let op = Conv::with(weight, bias, 1, 0).unwrap();
    assert!(op.dims(&[&[1, 2, 5, 3]]).unwrap_err().contains("does not fit"));
    assert!(op.dims(&[&[1, 5, 5, 4]]).unwrap_err().contains("[B, H, W, 3]"));
}

fn ld3sh(args: &[&str], simd: &str) -> (bool, String) {
    let mut c = Command::new(env!("CARGO_BIN_EXE_ld3sh"));
    let out = c.args(args).env("LD3SH_SIMD", simd).output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_command_times_a_case_on_a_chosen_instruction_set() {
    let case = r#"{"what": "conv", "channels": 8, "size": 4, "batch": 1, "gradient": true}"#;
    for (name, _) in simd::available() {
        let (ok, text) = ld3sh(&["bench", case, "--json"], name);
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert!(ok && line["ms"].as_f64().unwrap() > 0.0, "{text}");
    }
    let (ok, text) = ld3sh(&["-e", "1"], "avx9");
    assert!(!ok && text.contains("LD3SH_SIMD") && text.contains("scalar"), "{text}");
    let (ok, text) = ld3sh(&["bench", "cnov"], "scalar");
    assert!(!ok && text.contains("conv"), "{text}");
    let (ok, text) = ld3sh(&["bench", r#"{"what": "conv"}"#], "scalar");
    assert!(!ok && text.contains("missing field"), "{text}");
}
