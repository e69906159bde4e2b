//! The launches of what transformers are made of, on the host.
use crate::host::{Host, Way};
use crate::kernels::{check, close, given, numbers, tensor};
use candle_core::DType;
use ld3sh::nets::kernels::gpu::Input;
use ld3sh::nets::kernels::{Conv, CrossAttention, Frozen, Geglu, Gelu, LayerNorm, View};

#[test]
fn attention_of_queries_to_other_keys() {
    for (heads, d, batch, queries, keys) in [(1, 8, 3, 5, 7), (2, 4, 2, 6, 3), (3, 5, 1, 1, 9)] {
        let c = heads * d;
        let inputs = [given(1, &[batch, queries, c]), given(2, &[batch, keys, c]), given(3, &[batch, keys, c])];
        let op = CrossAttention { heads, causal: false };
        check(&format!("{heads} heads of {d}, {queries} to {keys}"), &op, &inputs);
    }
    for (heads, tokens) in [(1, 5), (2, 7)] {
        let inputs = [1, 2, 3].map(|seed| given(seed, &[2, tokens, heads * 4]));
        check(&format!("{heads} heads, causal"), &CrossAttention { heads, causal: true }, &inputs);
    }
}

/// More queries than are taken at a time where there is little room: gradients of keys and values are sums over parts, so their bits
/// depend on the room, and only these.
#[test]
fn long_attention_in_parts() {
    let op = CrossAttention { heads: 2, causal: false };
    let inputs = [given(1, &[1, 300, 6]), given(2, &[1, 4, 6]), given(3, &[1, 4, 6])];
    let views: Vec<View> = inputs.iter().map(|g| View { data: &g.values, dims: &g.dims }).collect();
    let cot = numbers(1800, 77);
    let mut value = vec![f32::NAN; 1800];
    op.run(&views, &mut value, false);
    let grads = op.pull(&views, &cot, false);
    for t in [DType::F32, DType::F16, DType::BF16] {
        let mut host = Host::new(Way { room: 1, ..Way::default() });
        let arrays: Vec<_> = inputs.iter().map(|g| host.input(&g.values, t)).collect();
        let given: Vec<Input> = arrays.iter().zip(&inputs).map(|(a, g)| Input { array: *a, dims: &g.dims }).collect();
        let out = op.gpu().unwrap().enqueue(&mut host, &given).unwrap();
        close("value", t, &host.values(out, 1800), &value, 1.0);
        assert_eq!(host.launched.iter().filter(|k| **k == "softmax").count(), 2, "two parts");
        let cotangent = host.input(&cot, t);
        let pulled = op.gpu().unwrap().enqueue_pull(&mut host, &given, cotangent).unwrap();
        for (array, wanted) in pulled.iter().zip(&grads) {
            assert_eq!(array.dtype, t);
            close("gradient", t, &host.values(*array, wanted.len()), wanted, 1.0);
        }
    }
}

#[test]
fn layer_norm_gelu_and_its_gate() {
    for (rows, c) in [(3, 5), (2, 200), (7, 1)] {
        let op = LayerNorm::new(tensor(1, &[c]), tensor(2, &[c]), 1e-5).unwrap();
        check(&format!("layer norm of {rows} rows of {c}"), &op, &[given(3, &[1, rows, c])]);
    }
    let mut x = given(1, &[3, 74]);
    x.values.iter_mut().for_each(|v| *v *= 6.0);
    for form in [Gelu::Exact, Gelu::Quick] {
        check(&format!("{form:?} gelu"), &form, &[x.clone()]);
    }
    check("gelu gate", &Geglu, &[x]);
}

#[test]
fn convolutions_with_another_padding_on_each_side() {
    for (padding, stride, image) in [([0, 1], 2, [2, 6, 8]), ([2, 0], 1, [1, 5, 4]), ([0, 2], 2, [1, 3, 5])] {
        let op = Conv::padded(tensor(1, &[4, 3, 3, 3]), tensor(2, &[4]), stride, padding).unwrap();
        check(&format!("padding {padding:?}, stride {stride}"), &op, &[given(3, &[&image[..], &[3]].concat())]);
    }
}
