//! What transformers are made of, frozen: values and gradients against candle's in f64, which are held against differences.
use super::nets::{Lcg, check, error, f32, flat};
use crate::cases::cases;
use candle_core::Tensor;
use ld3sh::nets::kernels::{
    Attention, Conv, CrossAttention, Deviation, Frozen, Gated, Geglu, Gelu, Join, LayerNorm, MaskedAttention, Modulate,
    Moved, Offset, RelativeAttention, RmsNorm, Rotary, View, apply,
};
use proptest::prelude::*;
use std::sync::Arc;

/// An operation against its composition in f64, in value and gradients.
fn alike(op: impl Fn() -> Arc<dyn Frozen>, inputs: &[Tensor]) {
    check(op(), op(), inputs, 1e-5);
}

#[test]
fn what_diffusion_transformers_do_with_tokens() {
    let mut rng = Lcg(9);
    let (x, h) = (rng.tensor(&[2, 7, 24]), rng.tensor(&[2, 7, 24]));
    let (a, b) = (rng.tensor(&[2, 24]), rng.tensor(&[2, 24]));
    alike(|| Arc::new(Modulate), &[x.clone(), a.clone(), b]);
    alike(|| Arc::new(Gated), &[x.clone(), h, a]);
    alike(|| Arc::new(Join::tokens()), &[x.clone(), rng.tensor(&[2, 3, 24])]);
    alike(|| Arc::new(Gelu::Tanh), &[(&x * 4.0).unwrap()]);
    alike(|| Arc::new(Deviation(0.7)), &[(&x * 3.0).unwrap()]);
    let weight = rng.tensor(&[8]);
    check(
        Arc::new(RmsNorm::new(weight.clone(), 1e-6).unwrap()),
        Arc::new(RmsNorm::new(f32(&weight), 1e-6).unwrap()),
        std::slice::from_ref(&x),
        1e-5,
    );
    let table = rng.tensor(&[7, 24]);
    check(Arc::new(Offset(table.clone())), Arc::new(Offset(f32(&table))), std::slice::from_ref(&x), 1e-5);
    // the last five of seven tokens turn, in two heads of six pairs
    let angles: Vec<f64> = (0..30).map(|i| 0.37 * i as f64).collect();
    alike(|| Arc::new(Rotary::new(&angles, 6)), std::slice::from_ref(&x));
    // half of the values, backwards
    alike(|| Arc::new(Moved::new(168, &[4, 21], |i| 167 - 2 * i)), &[x]);
}

proptest! {
    #![proptest_config(cases(30))]

    #[test]
    fn cross_attention_of_any_lengths_and_widths(
        b in 1usize..4, queries in 1usize..40, keys in 2usize..40, heads in 1usize..4, d in 1usize..40, seed in 0u64..1000,
    ) {
        let (mut rng, c) = (Lcg(seed), heads * d);
        let inputs = [rng.tensor(&[b, queries, c]), rng.tensor(&[b, keys, c]), rng.tensor(&[b, keys, c])];
        let op = || Arc::new(CrossAttention { heads, causal: false });
        check(op(), op(), &inputs.map(|t| (t * 2.0).unwrap()), 1e-5);
    }

    #[test]
    fn causal_attention_sees_nothing_later(
        b in 1usize..3, tokens in 2usize..40, heads in 1usize..3, d in 1usize..20, seed in 0u64..1000,
    ) {
        let mut rng = Lcg(seed);
        let inputs = [(); 3].map(|_| (rng.tensor(&[b, tokens, heads * d]) * 2.0).unwrap());
        let op = || Arc::new(CrossAttention { heads, causal: true });
        check(op(), op(), &inputs, 1e-5);
        let small = inputs.map(|t| f32(&t));
        let frozen: Arc<dyn Frozen> = op();
        let run = |[q, k, v]: &[Tensor; 3]| apply(&frozen, &[q, k, v]).unwrap();
        let first = tokens.div_ceil(2);
        let cut = small.clone().map(|t| t.narrow(1, 0, first).unwrap());
        prop_assert_eq!(flat(&run(&small).narrow(1, 0, first).unwrap()), flat(&run(&cut)));
    }

    /// With distances that are told apart shorter and longer than the text.
    #[test]
    fn relative_attention_adds_a_bias_by_distance(
        b in 1usize..3, tokens in 2usize..70, heads in 1usize..4, d in 1usize..20, reach in 1usize..90, seed in 0u64..1000,
    ) {
        let mut rng = Lcg(seed);
        let inputs = [(); 3].map(|_| rng.tensor(&[b, tokens, heads * d]));
        let table = (rng.tensor(&[7, heads]) * 3.0).unwrap();
        let buckets: Vec<u32> = (0..2 * reach as u32 + 1).map(|i| i * 5 % 7).collect();
        let make = |t: &Tensor| Arc::new(RelativeAttention::new(t.clone(), buckets.clone()).unwrap());
        check(make(&table), make(&f32(&table)), &inputs, 1e-5);
    }

    #[test]
    fn masked_attention_is_that_over_the_keys_that_count(
        b in 1usize..3, queries in 1usize..30, keys in 2usize..30, heads in 1usize..4, d in 1usize..20, seed in 0u64..1000,
    ) {
        let mut rng = Lcg(seed);
        let inputs = [rng.tensor(&[b, queries, heads * d]), rng.tensor(&[b, keys, heads * d]), rng.tensor(&[b, keys, heads * d])];
        let own = 1 + seed as usize % keys;
        let row: Vec<f64> = (0..keys).map(|i| f64::from(u8::from(i < own))).collect();
        let mask = Tensor::from_vec(row.repeat(b), (b, keys), &candle_core::Device::Cpu).unwrap();
        let masked: Arc<dyn Frozen> = Arc::new(MaskedAttention { heads });
        let [q, k, v] = inputs.each_ref().map(f32);
        let cut = |t: &Tensor| t.narrow(1, 0, own).unwrap().contiguous().unwrap();
        let some: Arc<dyn Frozen> = Arc::new(CrossAttention { heads, causal: false });
        let got = run(&*masked, &[q.clone(), k.clone(), v.clone(), f32(&mask)], true);
        let wanted = run(&*some, &[q.clone(), cut(&k), cut(&v)], true);
        for (i, (a, b)) in got.iter().zip(&wanted).enumerate() {
            let per = a.len() / inputs[0].dims()[0];
            let own = b.len() / inputs[0].dims()[0];
            for (a, b) in a.chunks(per).zip(b.chunks(own)) {
                let off = a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
                prop_assert!(off < 1e-5 && a[own..].iter().all(|v| v.abs() < 1e-30), "{}: {}", i, off);
            }
        }
        // the composed form, and a mask of nothing, which counts all
        let wide: Vec<Tensor> = inputs.to_vec();
        let composed = masked.compose(&[&wide[0], &wide[1], &wide[2], &mask]).unwrap();
        let top = flat(&composed).iter().fold(0f64, |m, v| m.max(v.abs()));
        let off = flat(&composed).iter().zip(&got[0]).fold(0f64, |m, (a, b)| m.max((a - f64::from(*b)).abs()));
        prop_assert!(off < 1e-5 * top.max(1.0));
        let none = run(&*masked, &[q.clone(), k.clone(), v.clone(), f32(&(mask * 0.0).unwrap())], true);
        prop_assert_eq!(&none[0], &run(&*some, &[q, k, v], true)[0]);
    }

    #[test]
    fn layer_norm_gelu_and_its_gate(b in 1usize..4, t in 1usize..20, c in 6usize..70, seed in 0u64..1000) {
        let mut rng = Lcg(seed);
        let (w, bias) = (rng.tensor(&[c]), rng.tensor(&[c]));
        let make = |w: &Tensor, b: &Tensor| Arc::new(LayerNorm::new(w.clone(), b.clone(), 1e-5).unwrap());
        check(make(&w, &bias), make(&f32(&w), &f32(&bias)), &[rng.tensor(&[b, t, c])], 2e-4);
        let x = (rng.tensor(&[b, t, 2 * c]) * 6.0).unwrap();
        for form in [Gelu::Exact, Gelu::Quick] {
            check(Arc::new(form), Arc::new(form), std::slice::from_ref(&x), 1e-6);
        }
        check(Arc::new(Geglu), Arc::new(Geglu), &[x], 1e-6);
    }

    #[test]
    fn convolutions_with_another_padding_on_each_side(
        b in 1usize..3, h in 2usize..12, w in 2usize..12, stride in 1usize..3, before in 0usize..3, after in 0usize..3,
        seed in 0u64..1000,
    ) {
        prop_assume!(h + before + after >= 3 && w + before + after >= 3);
        let mut rng = Lcg(seed);
        let (x, k, bias) = (rng.tensor(&[b, h, w, 3]), rng.tensor(&[5, 3, 3, 3]), rng.tensor(&[5]));
        let make = |k: &Tensor, b: &Tensor| -> Arc<dyn Frozen> {
            Arc::new(Conv::padded(k.clone(), b.clone(), stride, [before, after]).unwrap())
        };
        check(make(&k, &bias), make(&f32(&k), &f32(&bias)), std::slice::from_ref(&x), 2e-5);
        // the same as an image with zeros around it
        let padded = x.pad_with_zeros(1, before, after).unwrap().pad_with_zeros(2, before, after).unwrap();
        let bare: Arc<dyn Frozen> = Arc::new(Conv::with(k.clone(), bias.clone(), stride, 0).unwrap());
        prop_assert!(error(&apply(&make(&k, &bias), &[&x]).unwrap(), &apply(&bare, &[&padded]).unwrap()) < 1e-12);
    }
}

/// Value and gradients of an operation on plain buffers.
fn run(op: &dyn Frozen, inputs: &[Tensor], par: bool) -> Vec<Vec<f32>> {
    let data: Vec<Vec<f32>> = inputs.iter().map(|t| t.flatten_all().unwrap().to_vec1().unwrap()).collect();
    let views: Vec<View> = data.iter().zip(inputs).map(|(data, t)| View { data, dims: t.dims() }).collect();
    let dims = op.dims(&inputs.iter().map(|t| t.dims()).collect::<Vec<_>>()).unwrap();
    let mut out = vec![f32::NAN; dims.iter().product()];
    op.run(&views, &mut out, par);
    let cot: Vec<f32> = f32(&Lcg(99).tensor(&[out.len()])).to_vec1().unwrap();
    [vec![out], op.pull(&views, &cot, par)].concat()
}

/// 4,100 tokens: 17 blocks of queries in the pull-back, in 4 runs.
#[test]
fn long_attention_is_cut_into_blocks() {
    let (n, c) = (4100, 8);
    let mut rng = Lcg(5);
    let [q, k, v] = [(); 3].map(|_| f32(&rng.tensor(&[1, n, c])));
    let op = CrossAttention { heads: 1, causal: false };
    let given = [q.clone(), k.clone(), v.clone()];
    let cut = run(&op, &given, true);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(|| run(&op, &given, true)) == cut, "{threads} threads");
    }
    assert!(run(&op, &given, false) == cut, "alone");
    let wide = given.map(|t| t.to_dtype(candle_core::DType::F64).unwrap());
    let vars = wide.map(|t| candle_core::Var::from_tensor(&t).unwrap());
    let y = op.compose(&[vars[0].as_tensor(), vars[1].as_tensor(), vars[2].as_tensor()]).unwrap();
    let cot = Lcg(99).tensor(&[n * c]).reshape((1, n, c)).unwrap();
    let grads =
        (&y * f32(&cot).to_dtype(candle_core::DType::F64).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
    let [gq, gk, gv] = vars.each_ref().map(|v| flat(grads.get(v).unwrap()));
    let exact = [flat(&y), gq, gk, gv];
    for (i, (got, exact)) in cut.iter().zip(&exact).enumerate() {
        let top = exact.iter().fold(0f64, |m, v| m.max(v.abs()));
        let off = got.iter().zip(exact).fold(0f64, |m, (a, b)| m.max((*a as f64 - b).abs())) / top;
        assert!(off < 1e-5, "{i}: off by {off:e}");
    }
    // q | k | v in one, of an image of as many pixels
    let packed = Tensor::cat(&[q, k, v], 2).unwrap().reshape((1, 41, 100, 3 * c)).unwrap();
    let together = run(&Attention { heads: 1 }, &[packed], true);
    assert!(together[0] == cut[0], "the same bits from another layout");
    for (which, of) in cut[1..].iter().enumerate() {
        assert!((0..n).all(|t| together[1][t * 3 * c + which * c..][..c] == of[t * c..][..c]), "gradient {which}");
    }
}

#[test]
fn tokens_that_do_not_fit_are_named() {
    let (plain, causal) = (CrossAttention { heads: 2, causal: false }, CrossAttention { heads: 2, causal: true });
    let q: &[usize] = &[2, 5, 8];
    for (op, k, v) in [
        (&plain, &[2usize, 7, 8][..], &[2usize, 6, 8][..]),
        (&plain, &[2, 7, 6], &[2, 7, 6]),
        (&plain, &[1, 7, 8], &[1, 7, 8]),
        (&plain, &[2, 0, 8], &[2, 0, 8]),
        (&causal, &[2, 7, 8], &[2, 7, 8]),
    ] {
        let e = op.dims(&[q, k, v]).unwrap_err();
        assert!(e.contains("2 heads") && e.contains("[2, 5, 8]"), "{e}");
    }
    assert_eq!(plain.dims(&[&[2, 4, 4, 8], &[2, 7, 8], &[2, 7, 8]]).unwrap(), [2, 4, 4, 8]);
    assert!(Geglu.dims(&[&[3, 5]]).is_err());
}
