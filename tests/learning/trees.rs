//! Trees of tensors: gradients against differences, optimizers against PyTorch's numbers, files, and what is said of wrong ones.
use crate::code::{session, shown};
use ld3sh::optim::{Optimizer, Rule};

#[track_caller]
fn value(code: &str) -> String {
    let code = code.to_string();
    session(move |s| shown(s, &code))
}

#[track_caller]
fn is(code: &str, wanted: &str) {
    // arrays are shown over several lines
    let words = |s: &str| s.split_whitespace().collect::<String>().replace(",]", "]");
    assert_eq!(words(&value(code)), words(wanted), "{code}");
}

/// Each is one error with these words.
#[track_caller]
fn refused(cases: &[(&str, &[&str])]) {
    for (code, words) in cases {
        let text = value(code);
        assert!(text.contains("error"), "{code}: no error, but {text}");
        for word in *words {
            assert!(text.contains(word), "{code}: lacks `{word}`:\n{text}");
        }
    }
}

const TREE: &str = r#"
    let wide = #{ dtype: "f64" };
    let p = #{
        layers: [
            #{ w: randn([3, 2], wide + #{ seed: 1 }), b: randn([3], wide + #{ seed: 2 }) },
            #{ w: randn([1, 3], wide + #{ seed: 3 }), b: randn([1], wide + #{ seed: 4 }) },
        ],
        scale: [randn([], wide + #{ seed: 5 })], none: #{}, empty: [],
    };
    let x = randn([5, 2], wide + #{ seed: 6 });
    let loss = |p| {
        let h = linear(x, p.layers[0].w, p.layers[0].b).tanh();
        (linear(h, p.layers[1].w, p.layers[1].b) * p.scale[0]).sqr().mean()
    };
"#;

#[test]
fn gradients_over_trees_are_those_of_differences() {
    is(
        &format!(
            r#"{TREE}
            let v = variable(p);
            let g = grad(loss.call(v), v);
            let flat = tree::flat(p);
            let worst = 0.0;
            for name in flat.keys() {{
                for i in 0..flat[name].size {{
                    let bump = zeros([flat[name].size], wide);
                    bump[i] = 1.0e-5;
                    let at = |sign| {{
                        let moved = tree::flat(p);
                        moved[name] = moved[name] + sign * bump.reshape(moved[name].shape);
                        let q = tree::nest(moved);
                        loss.call(q).item()
                    }};
                    let slope = (at.call(1.0) - at.call(-1.0)) / 2.0e-5;
                    let off = (slope - tree::flat(g)[name].flatten()[i].item()).abs();
                    if off > worst {{ worst = off; }}
                }}
            }}
            [worst < 1.0e-8, g.keys(), g.layers.len, g.none.len(), g.empty.len]"#
        ),
        "[true, [\"empty\", \"layers\", \"none\", \"scale\"], 2, 0, 0]",
    );
    // the product with a cotangent, of a tree of outputs
    is(
        &format!(
            r#"{TREE}
            let v = variable(p);
            let y = #{{ a: v.layers[0].w * 2.0, b: [v.scale[0] * 3.0] }};
            let g = vjp(y, tree::map(y, |t| ones_like(t)), v);
            [g.layers[0].w.sum().item(), g.scale[0].item(), g.layers[1].b.sum().item()]"#
        ),
        "[12.0, 3.0, 0.0]",
    );
}

#[test]
fn optimizers_make_pytorchs_steps_on_trees() {
    let root = env!("CARGO_MANIFEST_DIR");
    is(
        &format!(
            r#"
            let c = json::load("{root}/tests/fixtures/optim.json");
            let read = |m| {{
                let t = |k| tensor(m[k], #{{ dtype: "f64" }});
                #{{ matrices: [t.call("wide"), #{{ tall: t.call("tall") }}], bias: t.call("bias") }}
            }};
            let rules = #{{
                sgd: optim::sgd(#{{ lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.01 }}),
                rmsprop: optim::rmsprop(#{{ lr: 0.01, momentum: 0.9, centered: true }}),
                adam: optim::adam(#{{ lr: 0.01, betas: [0.9, 0.99], weight_decay: 0.1 }}),
                adamw: optim::adamw(#{{ lr: 0.01, betas: [0.9, 0.99], weight_decay: 0.1, amsgrad: true }}),
                muon: optim::muon(#{{ lr: 0.02, momentum: 0.9, weight_decay: 0.1 }}),
                muon_original: optim::muon(#{{ lr: 0.02, momentum: 0.9, nesterov: false, weight_decay: 0.0, adjust: "original" }}),
            }};
            let wrong = [];
            for name in rules.keys() {{
                let opt = rules[name];
                let p = read.call(c.start);
                for g in c.grads {{ p = opt.step(p, read.call(g)); }}
                let end = tree::flat(read.call(c.ends[name]));
                let got = tree::flat(p);
                for k in end.keys() {{
                    let off = (end[k] - got[k]).abs().max().item();
                    if off > 1.0e-6 {{ wrong.push([name, k, off]); }}
                }}
            }}
            wrong"#
        ),
        "[]",
    );
}

#[test]
fn pieces_and_threads_leave_no_trace_in_an_update() {
    use candle_core::{Device, Tensor};
    let n = 50_000;
    let value = |k: usize| ((k * 7919 % 1000) as f32) / 500.0 - 1.0;
    let make = |from: usize, to: usize, shift: usize| {
        let v: Vec<f32> = (from..to).map(|k| value(k + shift)).collect();
        Tensor::from_vec(v, to - from, &Device::Cpu).unwrap()
    };
    let list = |t: &Tensor| t.to_vec1::<f32>().unwrap();
    for rule in [
        Rule::adamw(),
        Rule::rmsprop(),
        Rule::Sgd { momentum: 0.9, dampening: 0.1, weight_decay: 0.1, nesterov: false },
    ] {
        let (mut whole, mut cut) = (Optimizer::new(rule.clone(), 0.1).unwrap(), Optimizer::new(rule, 0.1).unwrap());
        let mut p = vec![make(0, n, 0)];
        let mut q = vec![make(0, 17, 0), make(17, n, 0)];
        for s in 1..4 {
            p = whole.step(&p, &[make(0, n, s)]).unwrap();
            q = cut.step(&q, &[make(0, 17, s), make(17, n, s)]).unwrap();
        }
        let both = [list(&q[0]), list(&q[1])].concat();
        assert!(list(&p[0]).iter().zip(&both).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn an_optimizer_goes_on_with_the_same_bits() {
    is(
        &format!(
            r#"{TREE}
            let g = tree::map(p, |t| t * 0.3);
            let a = optim::muon(#{{ lr: 0.1 }});
            let q = a.step(p, g);
            let b = optim::muon();
            b.load_state(a.state());
            let one = a.step(q, g);
            let other = b.step(q, g);
            [hash_of(one) == hash_of(other), a.state().paths[1], b.steps, b.lr]"#
        ),
        "[true, \"layers[0].w\", 2, 0.1]",
    );
}

#[test]
fn trees_are_saved_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    is(
        &format!(
            r#"{TREE}
            save("{0}", p, #{{ about: "mine" }});
            let back = load("{0}");
            let c = checkpoint::open("{0}");
            [hash_of(back) == hash_of(p), c.names, c.metadata.about, tree::nest(c.tensors()).layers[1].b.shape]"#,
            path.display()
        ),
        "[true, [\"layers.0.b\", \"layers.0.w\", \"layers.1.b\", \"layers.1.w\", \"scale.0\"], \"mine\", [1]]",
    );
    // a tree that is an array, keys with dots, a map that needs no structure
    is(
        &format!(
            r#"let a = [ones([1]), #{{ "x.y": zeros([2]) }}];
            save("{0}", a);
            let list = load("{0}");
            save("{0}", #{{ "a.b": ones([1]) }});
            [hash_of(list) == hash_of(a), load("{0}").keys(), checkpoint::open("{0}").metadata.len()]"#,
            path.display()
        ),
        "[true, [\"a.b\"], 0]",
    );
    // a file whose structure has a leaf that the file has not
    let tensor = candle_core::Tensor::zeros(1, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    let write = |structure: &str| {
        let meta = [("ld3sh.tree".to_string(), structure.to_string())];
        ld3sh::files::safetensors::write(&path, &[("a".into(), tensor.clone())], &meta).unwrap();
        value(&format!("load(\"{}\")", path.display()))
    };
    assert!(write("{\"a\": \"a\", \"b\": [\"b\"]}").contains("the tensor `b` of the tree is missing"));
    assert!(write("[]").contains("the tensor `a` has no place in the tree"));
    assert!(write("{\"a\": 3}").contains("no structure of a tree"));
    assert!(write("no json").contains("no structure of a tree"));
}

#[test]
fn wrong_trees_are_told_with_the_leaf() {
    let with = |code: &str| format!("{TREE} {code}");
    let cases: Vec<(String, &[&str])> = vec![
        (with("p.layers[1].name = \"last\"; variable(p)"), &["variable: the tree", "string at `layers[1].name`"]),
        (with("variable(#{ a: [arange(3)] })"), &["a[0]", "floating"]),
        (
            with("let v = variable(p); v.layers[1].w = p.layers[1].w; grad(loss.call(v), v)"),
            &["grad: `layers[1].w`, a tensor of shape [1, 3], is not a variable"],
        ),
        (
            with("let g = tree::map(p, |t| t); g.layers[0].remove(\"b\"); optim::adam().step(p, g)"),
            &["step: the gradients are another tree than the parameters", "`layers[0].b` is missing"],
        ),
        (with("let g = tree::map(p, |t| t); g.more = x; optim::adam().step(p, g)"), &["`more` is one too many"]),
        (
            with("let g = tree::map(p, |t| t); g.layers.pop(); optim::adam().step(p, g)"),
            &["`layers`: 1 entries, not 2"],
        ),
        (
            with("let g = tree::map(p, |t| t); g.layers[0].w = [x]; optim::adam().step(p, g)"),
            &["`layers[0].w`: an array, not a tensor"],
        ),
        (
            with("let g = tree::map(p, |t| t); g.layers[0].w = x; optim::adam().step(p, g)"),
            &["`layers[0].w` has shape [3, 2] but its gradient has shape [5, 2]"],
        ),
        (
            with("let g = tree::map(p, |t| t); g.layers[0].w = g.layers[0].w / 0.0; optim::adam().step(p, g)"),
            &["the gradient of `layers[0].w` is not finite"],
        ),
        (
            with("let o = optim::adam(); o.step(p, p); let q = #{ layers: p.layers, other: p.scale }; o.step(q, q)"),
            &["`other[0]` came where `scale[0]` was"],
        ),
        (with("let g = tree::map(p, |t| t / 0.0); clip_norm(g, 1.0)"), &["norm is inf", "`layers[0].b`"]),
        (with("tree::add(p, #{ layers: [] })"), &["tree::add", "`empty` is missing"]),
        (with("tree::lerp([ones([2])], [ones([3])], 0.5)"), &["tree::lerp", "[2]", "[3]", "`[0]`"]),
        (with("tree::map(p, |t| 3)"), &["must return a tensor", "`layers[0].b`"]),
        ("tree::nest(#{ \"a\": ones([1]), \"a.b\": ones([1]) })".into(), &["`a` is a tensor"]),
        ("tree::flat(#{ \"a.b\": ones([1]), a: #{ b: ones([1]) } })".into(), &["`a.b`", "two tensors"]),
        ("save(\"x.npz\", #{ a: [ones([1])] })".into(), &[".npz", ".safetensors"]),
        ("save(\"x.safetensors\", #{ a: [ones([1]), 3] })".into(), &["save: the entries", "`a[1]`"]),
        ("optim::muon(#{ adjust: \"rmss\" })".into(), &["did you mean `rms`"]),
    ];
    let cases: Vec<(&str, &[&str])> = cases.iter().map(|(c, w)| (c.as_str(), *w)).collect();
    refused(&cases);
}

#[test]
fn arithmetic_of_trees() {
    is(
        r#"let a = #{ w: tensor([1.0, 2.0]), l: [tensor([4.0])] };
        let b = tree::scale(a, 2);
        let m = tree::lerp(a, b, 0.5);
        [tree::add(a, b).l[0].item(), m.w.to_array(), tree::size(a), tree::not_finite(a), tree::not_finite(tree::scale(b, 1.0e39)) ]"#,
        "[12.0, [1.5, 3.0], 3, (), \"l[0]\"]",
    );
    // a graph must not have what is done to all leaves at once as a constant
    assert!(value("graph::trace(|x| tree::scale([x], 2.0)[0], [[3]])").contains("arithmetic of whole trees"));
}
