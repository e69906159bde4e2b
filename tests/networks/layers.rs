//! Networks of module `nn`: their gradients, what they are as graphs, and what starts them.
use crate::code::{session, shown};

#[track_caller]
fn value(code: &str) -> String {
    let code = format!("import \"nn\" as nn; {code}");
    let text = session(move |s| shown(s, &code));
    // arrays are shown over several lines
    let parts = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    if text.contains("error") { text } else { parts.replace("[ ", "[").replace(", ]", "]") }
}

const UNET: &str =
    "let p = nn::unet_params(#{ shape: [2, 8, 8], channels: 8, multiples: [1, 2], heads: 2, classes: 3, seed: 1 });
    let f = |x, t, c| nn::unet(p, x, t, c);";
const DIT: &str =
    "let p = nn::dit_params(#{ shape: [2, 8, 8], patch: 2, width: 16, depth: 2, heads: 2, classes: 3, seed: 1 });
    let f = |x, t, c| nn::dit(p, x, t, c);";
/// What starts at zero gets some values, so that gradients flow through everything.
const STIR: &str = "let k = 0; p = tree::map(p, |t| { k += 1; t + 0.1 * randn(t.shape, #{ seed: k }) });";

#[test]
fn networks_are_graphs_that_give_the_same() {
    for net in [UNET, DIT] {
        let (make, call) = net.split_once('\n').unwrap();
        let code = format!(
            r#"{make} {STIR} {call}
            let g = graph::trace(f, [[2, 8, 8], [], [3]]);
            let x = randn([3, 2, 8, 8], #{{ seed: 2 }});
            let t = tensor([-0.8, 0.1, 0.6]);
            let c = eye(3);
            let v = variable(x);
            let w = variable(x);
            let a = f.call(w, t, c);
            let b = g.run([v, t, c]);
            let off = ((a - b).abs().max() / a.abs().max()).item();
            let s = (vjp(a, x, w) - vjp(b, x, v)).abs().max().item() / vjp(a, x, w).abs().max().item();
            [off < 1.0e-4, s < 1.0e-3, `${{g}}`.contains("operation of scripts")]"#
        );
        assert_eq!(value(&code), "[true, true, false]", "{net}");
    }
}

#[test]
fn gradients_in_the_parameters_are_those_of_differences() {
    for net in [UNET, DIT] {
        let (make, call) = net.split_once('\n').unwrap();
        let call = call.replace("|x, t, c|", "|p, x, t, c|");
        let code = format!(
            r#"{make} {STIR} {call}
            let p = tree::map(p, |t| t.to("f64"));
            let x = randn([2, 2, 8, 8], #{{ seed: 2, dtype: "f64" }});
            let t = tensor([-0.8, 0.6], #{{ dtype: "f64" }});
            let c = eye(3, #{{ dtype: "f64" }})[0..2];
            let loss = |p| f.call(p, x, t, c).sqr().mean();
            let v = variable(p);
            let g = grad(loss.call(v), v);
            let k = 0;
            let way = tree::map(p, |t| {{ k += 1; randn(t.shape, #{{ seed: 100 + k, dtype: "f64" }}) }});
            let at = |s| loss.call(tree::add(p, tree::scale(way, s))).item();
            let slope = (at.call(1.0e-5) - at.call(-1.0e-5)) / 2.0e-5;
            let sum = 0.0;
            let flat = tree::flat(way);
            let grads = tree::flat(g);
            for k in flat.keys() {{ sum += (flat[k] * grads[k]).sum().item(); }}
            let off = (slope - sum).abs() / sum.abs();
            // in f32 the convolutions go another way
            let q = variable(tree::map(p, |t| t.to("f32")));
            let h = grad(f.call(q, x.to("f32"), t.to("f32"), c.to("f32")).sqr().mean(), q);
            let flat32 = tree::flat(h);
            let worst = 0.0;
            for k in grads.keys() {{
                let d = ((flat32[k].to("f64") - grads[k]).abs().max() / (grads[k].abs().max() + 1.0e-6)).item();
                if d > worst {{ worst = d; }}
            }}
            if off < 1.0e-6 && worst < 1.0e-2 {{ "good" }} else {{ `${{off}} ${{worst}}` }}"#
        );
        assert_eq!(value(&code), "\"good\"", "{net}");
    }
}

#[test]
fn parts_are_what_their_papers_say() {
    // unit root mean square; attention to one token is that token; waves of time 0
    let code = r#"let r = nn::rms_norm(#{ weight: ones([4]) }, randn([3, 4], #{ seed: 1 })).sqr().mean(1);
        let p = nn::attention_params(4, 2, #{ seed: 2 });
        let x = randn([2, 3, 4], #{ seed: 3 });
        let one = randn([2, 1, 4], #{ seed: 4 });
        let y = nn::attention(p, x, one);
        let w = p.v.weight.reshape([4, 4]);
        let alone = nn::linear(p.out, linear(one, w, p.v.bias)).expand([2, 3, 4]);
        let t = nn::sinusoidal(tensor([0.0]), 6, 10_000);
        let m = nn::mixer(nn::mixer_params(5, 4), ones([2, 5, 4]));
        [(r - 1.0).abs().max().item() < 1.0e-4, (y - alone).abs().max().item() < 1.0e-6, t.to_array(), m.shape]"#;
    assert_eq!(value(code), "[true, true, [[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]], [2, 5, 4]]");
    // PyTorch's and Xavier's bounds, met and kept
    let code = r#"let w = nn::linear_params(100, 400, #{ seed: 1 });
        let x = nn::linear_params(100, 500, #{ init: "xavier", seed: 1 });
        let c = nn::conv_params(4, 50, 5, #{ seed: 1 });
        let near = |t, bound| { let m = t.abs().max().item(); m <= bound && m > 0.99 * bound };
        [near.call(w.weight, 0.1), near.call(w.bias, 0.1), near.call(x.weight, 0.1), x.bias.abs().max().item(), near.call(c.weight, 0.1),
            hash_of(w) == hash_of(nn::linear_params(100, 400, #{ seed: 1 })), hash_of(w) == hash_of(nn::linear_params(100, 400, #{ seed: 2 }))]"#;
    assert_eq!(value(code), "[true, true, true, 0.0, true, true, false]");
}

#[test]
fn networks_begin_at_zero_and_take_classes() {
    let code = r#"let u = nn::unet_params(#{ shape: [1, 8, 8], channels: 8, multiples: [1, 2] });
        let d = nn::dit_params(#{ shape: [1, 8, 8], width: 16, heads: 2, depth: 1 });
        let x = ones([2, 1, 8, 8]);
        [nn::unet(u, x, ones([2]), ()).abs().max().item(), nn::dit(d, x, ones([2]), ()).abs().max().item()]"#;
    assert_eq!(value(code), "[0.0, 0.0]");
    let text =
        value("nn::unet(nn::unet_params(#{ shape: [1, 8, 8], channels: 8 }), ones([2, 1, 8, 8]), ones([2]), eye(2))");
    assert!(text.contains("without classes"), "{text}");
}
