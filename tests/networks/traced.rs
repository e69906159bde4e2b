//! Functions of scripts as graphs: every operation of the catalogue against the function itself, networks, refusals, identity.
use crate::code::{session, shown};
use ld3sh::shell::catalogue::{Catalogue, Entry, Kind, Origin};
use std::collections::{BTreeMap, BTreeSet};

fn value(code: &str) -> String {
    let code = code.to_string();
    session(move |s| shown(s, &code))
}

/// How far a graph and its gradient are from the function `f` of x [.., 4, 6, 6], relative to the largest value: two numbers, or an error.
const COMPARE: &str = r#"
    fn apart(a, b) {
        let most = b.abs().max().item();
        if most == 0.0 { (a - b).abs().max().item() } else { (a - b).abs().max().item() / most }
    }
    fn compare(f, shape) {
        let g = graph::trace(f, [shape]);
        let x = 0.3 + 0.5 * rand([5] + shape, #{ seed: 3 });
        let cot = randn(f.call(x).shape, #{ seed: 4 });
        let v = variable(x);
        let w = variable(x);
        [apart(g.run(x), f.call(x)), apart(vjp(g.run(v), cot, v), vjp(f.call(w), cot, w))]
    }
"#;

/// Calls that stand for a function that takes more than tensors: it is in the catalogue, and this is what it is given.
const CALLS: [(&str, &str); 39] = [
    ("to", "x.to(\"f64\").to(\"f32\")"),
    ("where", "where(x > 0.5, x, 2.0 * x)"),
    ("clamp", "x.clamp(0.4, 0.7)"),
    ("pow", "x.pow(1.5)"),
    ("**", "x ** 2"),
    ("reshape", "x.reshape([-1, 12, 12])"),
    ("permute", "x.permute([0, 2, 3, 1])"),
    ("expand", "x.narrow(1, 0, 1).expand([-1, 4, -1, -1])"),
    ("repeat", "x.repeat([1, 2, 1, 1])"),
    ("transpose", "x.transpose(1, 3)"),
    ("squeeze", "x.narrow(1, 2, 1).squeeze(1)"),
    ("unsqueeze", "x.unsqueeze(2)"),
    ("flatten", "x.flatten(1)"),
    ("flip", "x.flip(-1)"),
    ("roll", "x.roll(1, 2)"),
    ("pad", "x.pad(2, 1, 2)"),
    ("pad2d", "x.pad2d([1, 1, 2, 0], \"reflect\")"),
    ("cat", "cat([x, 2.0 * x], 1)"),
    ("stack", "stack([x, 2.0 * x], 1)"),
    ("split", "x.split([1, 3], 1)[1]"),
    ("chunk", "x.chunk(2, 2)[0]"),
    ("index$get$", "x[[(), 1, 2..4]]"),
    ("index$set$", "let y = x; y[[(), 0]] = 1.0; y"),
    ("select", "x.select(2, 3)"),
    ("slice", "x.slice(2, 0, 6, 2)"),
    ("narrow", "x.narrow(3, 1, 4)"),
    ("index", "x.index(1, [0, 2])"),
    ("gather", "x.gather(1, (x > 0.5).to(\"i64\"))"),
    ("linear", "linear(x, randn([5, 6], #{ seed: 1 }), randn([5], #{ seed: 2 }))"),
    ("conv2d", "conv2d(x, randn([3, 4, 3, 3], #{ seed: 1 }), #{ padding: 1, bias: randn([3], #{ seed: 2 }) })"),
    ("conv_transpose2d", "conv_transpose2d(x, randn([4, 3, 2, 2], #{ seed: 1 }), #{ stride: 2 })"),
    ("group_norm", "group_norm(x, 2, #{ weight: randn([4], #{ seed: 1 }), bias: randn([4], #{ seed: 2 }) })"),
    ("layer_norm", "layer_norm(x, #{ weight: randn([6], #{ seed: 1 }), bias: randn([6], #{ seed: 2 }) })"),
    ("attention", "attention(x, 2.0 * x, x.flip(-1), #{ causal: true })"),
    ("upsample", "upsample(x, 2)"),
    ("downsample", "x.downsample(2)"),
    ("avg_pool2d", "avg_pool2d(x, 3, #{ stride: 1 })"),
    ("max_pool2d", "max_pool2d(x, 2)"),
    ("einsum", "einsum(\"bchw,bchv->bcwv\", [x, x])"),
];

/// Tensor functions that no graph has: they make tensors, read values, draw, save, differentiate, or say what a tensor is.
const OUTSIDE: [&str; 45] = [
    "all",
    "any",
    "arange",
    "checkpoint",
    "device",
    "dtype",
    "embedding",
    "eye",
    "full",
    "grad",
    "item",
    "linspace",
    "load",
    "len",
    "load_npz",
    "manual_seed",
    "median",
    "ndim",
    "no_grad",
    "noise",
    "nonzero",
    "one_hot",
    "ones",
    "permutation",
    "print",
    "quantile",
    "rand",
    "randint",
    "randn",
    "save",
    "save_npz",
    "shape",
    "size",
    "tensor",
    "to_array",
    "to_debug",
    "to_float",
    "to_int",
    "to_string",
    "tracked",
    "variable",
    "vjp",
    "zeros",
    "argsort",
    "sort",
];

#[test]
fn every_operation_of_the_catalogue_is_traced_or_told_apart() {
    // the tensor functions, by the file of bindings that makes them: those of this engine alone
    let names: BTreeSet<String> = {
        let mut engine = rhai::Engine::new_raw();
        ld3sh::script::tensor::register(&mut engine);
        let own = |e: &&Entry| e.origin == Origin::Native && matches!(e.kind, Kind::Function | Kind::Property);
        Catalogue::of(&engine).iter().filter(own).map(|e| e.name.clone()).collect()
    };
    assert!(names.len() > 90, "{names:?}");
    let calls: BTreeMap<&str, &str> = CALLS.into();
    let results = session(move |s| {
        assert_eq!(shown(s, COMPARE), "()");
        let mut found = vec![];
        for name in names {
            if OUTSIDE.contains(&&*name) {
                continue;
            }
            let operator = !name.starts_with(|c: char| c.is_alphabetic());
            let tries: Vec<String> = match calls.get(&*name) {
                Some(call) => vec![call.to_string()],
                None if operator => vec![format!("x {name} (1.5 + x.flip(-1))"), format!("{name}x")],
                // with a dimension of its own first, which no other sample shares
                None => vec![
                    format!("{name}(x, 1)"),
                    format!("{name}(x, -1)"),
                    format!("{name}(x)"),
                    format!("{name}(x, 0.5 + x.flip(-1))"),
                    format!("x.{name}"),
                ],
            };
            let mut told = vec![];
            for call in &tries {
                let report = shown(s, &format!("compare(|x| {{ {call} }}, [4, 6, 6])"));
                told.push(format!("{call}: {report}"));
                let numbers: Option<Vec<f64>> = report
                    .trim_matches(['[', ']'])
                    .split(", ")
                    .map(|v| v.parse().ok())
                    .collect::<Option<Vec<f64>>>()
                    .filter(|v| v.len() == 2);
                if let Some(numbers) = numbers {
                    found.push((name.clone(), call.clone(), Ok(numbers)));
                    told.clear();
                    break;
                }
            }
            if !told.is_empty() {
                found.push((name.clone(), String::new(), Err(told.join("\n"))));
            }
        }
        found
    });
    let bad: Vec<String> = results
        .iter()
        .filter_map(|(name, call, r)| match r {
            Ok(apart) if apart.iter().all(|d| *d < 2e-5) => None,
            Ok(apart) => Some(format!("{name}: {call} is {apart:?} apart")),
            Err(told) => Some(format!("{name}:\n{told}")),
        })
        .collect();
    assert!(bad.is_empty(), "{} of {}:\n{}", bad.len(), results.len(), bad.join("\n"));
    assert!(results.len() > 60, "{}", results.len());
}

/// Networks as scripts write them: functions of x, and of t [B] where there are two arguments.
const MIXER: &str = r#"
    let P = 16; let C = 12;
    let init = |dims, seed| randn(dims, #{ seed: seed }) * 0.3;
    let w = #{
        patch: init.call([C, 2, 2, 2], 1), patch_b: init.call([C], 2),
        m1: init.call([24, P], 3), b1: init.call([24], 4), m2: init.call([P, 24], 5), b2: init.call([P], 6),
        c1: init.call([20, C], 7), d1: init.call([20], 8), c2: init.call([C, 20], 9), d2: init.call([C], 10),
        n1: #{ weight: init.call([C, P], 11), bias: init.call([C, P], 12) },
        n2: #{ weight: init.call([P, C], 13), bias: init.call([P, C], 14) },
        back: init.call([C, 1, 2, 2], 15),
    };
    fn mlp(x, a, b, c, d) { linear(gelu(linear(x, a, b)), c, d) }
    let mixer = |x, t| {
        let b = x.shape[0];
        let time = (t.log() / 2.0).reshape([-1, 1, 1, 1]).expand([b, 1, 8, 8]);
        let h = conv2d(cat([x, time], 1), w.patch, #{ bias: w.patch_b, stride: 2 });
        let y = h.reshape([b, C, P]);
        for i in 0..2 {
            y += mlp(layer_norm(y, w.n1), w.m1, w.b1, w.m2, w.b2);
            y = y.transpose(1, 2);
            y += mlp(layer_norm(y, w.n2), w.c1, w.d1, w.c2, w.d2);
            y = y.transpose(1, 2);
        }
        conv_transpose2d(y.reshape([b, C, 4, 4]), w.back, #{ stride: 2 })
    };
"#;
const UNET: &str = r#"
    let init = |dims, seed| randn(dims, #{ seed: seed }) * 0.2;
    fn block(x, e, w, norm, conv, proj) {
        let h = conv2d(silu(group_norm(x, 4, norm)), conv, #{ padding: 1 });
        h + linear(e, proj).reshape([-1, h.shape[1], 1, 1])
    }
    let w = #{
        first: init.call([8, 3, 3, 3], 1), n: #{ weight: init.call([8], 2) + 1.0, bias: init.call([8], 3) },
        c1: init.call([8, 8, 3, 3], 4), p: init.call([8, 16], 5), c2: init.call([8, 8, 3, 3], 6),
        c3: init.call([8, 16, 3, 3], 7), n2: #{ weight: init.call([16], 8) + 1.0, bias: init.call([16], 9) },
        last: init.call([3, 8, 1, 1], 10), last_b: init.call([3], 11), temb: init.call([16, 16], 12), temb_b: init.call([16], 13),
    };
    let unet = |x, t| {
        let f = (arange(0, 8, 1, "f32") * -0.5).exp().reshape([1, -1]) * t.reshape([-1, 1]);
        let e = silu(linear(cat([f.sin(), f.cos()], 1), w.temb, w.temb_b));
        let h0 = conv2d(x, w.first, #{ padding: 1 });
        let h1 = h0 + block(h0, e, w, w.n, w.c1, w.p);
        let h2 = downsample(h1, 2);
        h2 = (h2 + block(h2, e, w, w.n, w.c2, w.p)) / 1.41421356;
        let h3 = cat([upsample(h2, 2), h1], 1);
        let y = block(h3, e, w, w.n2, w.c3, w.p);
        conv2d(silu(y), w.last, #{ bias: w.last_b })
    };
"#;
const TRANSFORMER: &str = r#"
    let init = |dims, seed| randn(dims, #{ seed: seed }) * 0.3;
    let w = #{ qkv: init.call([48, 16], 1), qkv_b: init.call([48], 2), out: init.call([16, 16], 3), up: init.call([32, 16], 4),
        down: init.call([16, 32], 5), pos: init.call([9, 16], 6), ada: init.call([16, 32], 7) };
    let transformer = |x, t| {
        let b = x.shape[0];
        let s = matmul(t.reshape([-1, 1]) * ones([1, 16]), w.ada).reshape([b, 1, 32]);
        let h = layer_norm(x + w.pos) * (1.0 + s[[(), (), 0..16]]) + s[[(), (), 16..32]];
        let qkv = linear(h, w.qkv, w.qkv_b).reshape([b, 9, 3, 4, 4]).permute([2, 0, 3, 1, 4]);
        let a = attention(qkv.select(0, 0), qkv.select(0, 1), qkv.select(0, 2)).transpose(1, 2).reshape([b, 9, 16]);
        let y = x + linear(a, w.out);
        let scores = (matmul(y, y.transpose(1, 2)) * 0.1).softmax(-1);
        y + linear(gelu_tanh(linear(matmul(scores, y), w.up)), w.down)
    };
"#;

const MLP: &str = r#"
    let init = |dims, seed| randn(dims, #{ seed: seed }) * 0.5;
    let w = #{ a: init.call([16, 4], 1), b: init.call([16], 2), c: init.call([2, 16], 3) };
    let mlp = |x, t| {
        let h = cat([t.reshape([-1, 1]), x, ones([x.shape[0], 1])], 1);
        linear(silu(linear(h, w.a, w.b)), w.c)
    };
"#;

/// Values, and both gradients, of a graph of two arguments against its function, for a batch that is cut into several parts.
const COMPARE_TWO: &str = r#"
    fn apart(a, b) { (a - b).abs().max().item() / b.abs().max().item() }
    fn compare_two(f, shape, batch) {
        let g = graph::trace(f, [shape, []]);
        let x = randn([batch] + shape, #{ seed: 3 });
        let t = 0.2 + rand([batch], #{ seed: 4 });
        let y = f.call(x, t);
        let cot = randn(y.shape, #{ seed: 5 });
        let a = [variable(x), variable(t)];
        let b = [variable(x), variable(t)];
        let p = vjp(g.run(a), cot, a);
        let q = vjp(f.call(b[0], b[1]), cot, b);
        [apart(g.run(x, t), y), apart(p[0], q[0]), apart(p[1], q[1])]
    }
"#;

fn numbers(shown: &str) -> Vec<f64> {
    let list = shown.trim_matches(['[', ']']).split(", ");
    list.map(|v| v.parse().unwrap_or_else(|_| panic!("{shown}"))).collect()
}

#[test]
fn networks_of_scripts_run_as_graphs() {
    for (network, name, shape) in [
        (MIXER, "mixer", "[1, 8, 8]"),
        (UNET, "unet", "[3, 8, 8]"),
        (TRANSFORMER, "transformer", "[9, 16]"),
        (MLP, "mlp", "[2]"),
    ] {
        for batch in [1, 3, 11] {
            let code = format!("{network}{COMPARE_TWO}compare_two({name}, {shape}, {batch})");
            let apart = numbers(&value(&code));
            assert!(apart.iter().all(|d| *d < 5e-5), "{name}, batch {batch}: {apart:?}");
        }
    }
}

#[test]
fn operations_without_kernels_run_on_the_threads_of_the_pool() {
    // products and convolutions that want the pool themselves, with more samples than go together
    let code = format!(
        "{COMPARE_TWO}compare_two(|x, t| {{ let y = conv2d(x, ones([8, 4, 3, 3]), #{{ groups: 2, padding: 1 }}); (y.prod(1, true) + y.sort(1)) * t.reshape([-1, 1, 1, 1]) }}, [8, 40, 40], 24)"
    );
    let apart = numbers(&value(&code));
    assert!(apart.iter().all(|d| *d < 5e-5), "{apart:?}");
}

#[test]
fn kernels_stand_where_there_are_some() {
    // how often each of these stands in the graph; nothing goes through an operation of scripts
    let counts = |network: &str, name: &str, shape: &str, what: &str| {
        let code = format!(
            "{network}let text = graph::trace({name}, [{shape}, []]).to_string(); {what}.map(|w| text.split(w).len() - 1)"
        );
        value(&code)
    };
    let what = "[\"operation of scripts\", \"frozen convolution\", \"frozen group norm\", \"= silu\", \"permutation\"]";
    // channels last from the first convolution to the last: x, three embeddings, and the result are turned
    assert_eq!(counts(UNET, "unet", "[3, 8, 8]", what), "[0, 4, 3, 2, 5]");
    let what = "[\"operation of scripts\", \"frozen cross-attention\", \"matrix product\", \"frozen linear map\"]";
    assert_eq!(counts(TRANSFORMER, "transformer", "[9, 16]", what), "[0, 1, 2, 5]");
    let what = "[\"operation of scripts\", \"frozen layer norm\", \"frozen linear map\"]";
    assert_eq!(counts(MIXER, "mixer", "[1, 8, 8]", what), "[0, 4, 9]");
}

#[test]
fn what_cannot_be_a_graph_says_why_and_where() {
    let cases = [
        ("graph::trace(|x| {\n  let m = x.max().item();\n  x / m }, [[3]])", "`item` reads values"),
        ("graph::trace(|x| {\n  if (x[[0, 0]] > 0.0) { x } else { -x } }, [[3]])", "`>` reads values"),
        ("graph::trace(|x| {\n  let k = x.sum(1)[0].item();\n  x * k }, [[3]])", "`item` reads values"),
        (
            "graph::trace(|x| {\n  let y = x.sum(1, true).to_array()[0][0];\n  x * y }, [[3]])",
            "`to_array` reads values",
        ),
        ("graph::trace(|x| x - x.mean(0, true), [[3]])", "samples of a batch are mixed"),
        ("graph::trace(|x| softmax(x, 0), [[3]])", "effect on each other"),
        ("graph::trace(|x| x + randn([3]), [[3]])", "depends on values"),
        ("graph::trace(|x| { print(1); x }, [[3]])", "it prints"),
        ("graph::trace(|x| { let v = variable(x); grad((v * v).sum(), v) }, [[3]])", "`variable` in it"),
        ("graph::trace(|x| zeros([x.shape[0], 3]), [[3]])", "not made from the arguments"),
        ("graph::trace(|x| x + no_grad(|| x * 2.0), [[3]])", "`no_grad` in it"),
    ];
    for (code, why) in cases {
        let told = value(code);
        assert!(told.contains("cannot be a graph") && told.contains(why), "{code}\n{told}");
    }
    let told = value("graph::trace(|x| {\n  let y = x.sum(1, true).to_array()[0][0];\n  x * y }, [[3]])");
    assert!(told.contains("line 2"), "{told}");
    // an error of the function's own is its own
    let told = value("graph::trace(|x| matmul(x, ones([5, 5])), [[3]])");
    assert!(told.contains("matmul: shapes"), "{told}");
}

#[test]
fn a_function_network_is_its_graph() {
    let net = |body: &str, more: &str| {
        format!(
            "let w = randn([2, 2], #{{ seed: 1 }}); let net = denoiser::from_fn(#{{ noise: noise::edm(), predicts: \"data\", shape: [2] }}, |x, s, c| {body}); {more}"
        )
    };
    let hash = |body: &str| value(&net(body, "net.hash"));
    let one = hash("x / (1.0 + s.reshape([-1, 1])) + matmul(x, w)");
    assert_eq!(one.trim_matches('"').len(), 64, "{one}");
    // names and blanks are no part of it; weights and operations are
    assert_eq!(one, hash("{ let y = x / (1.0 + s.reshape([-1, 1])); y + matmul(x, w) }"));
    assert_ne!(one, hash("x / (1.0 + s.reshape([-1, 1])) + matmul(x, w * 2.0)"));
    assert_ne!(one, hash("x / (1.0 + s.reshape([-1, 1])) - matmul(x, w)"));
    // what it captures may change: then it is another network, and is run as what it is now
    let code = "let before = net.hash; let y = net.denoise(ones([1, 2]), 1.0); w = w * 2.0;
        [before == net.hash, (net.denoise(ones([1, 2]), 1.0) - y - matmul(ones([1, 2]), randn([2, 2], #{ seed: 1 }))).abs().max().item() < 1e-5]";
    assert_eq!(value(&net("x / (1.0 + s.reshape([-1, 1])) + matmul(x, w)", code)), "[false, true]");
    // a function that counts its calls stays a function
    let code = "let n = 0; let net = denoiser::from_fn(#{ noise: noise::edm(), predicts: \"data\" }, |x, s, c| { n += 1; x * 0.5 });
        let before = n; for i in 0..3 { net.denoise(ones([1, 2]), 1.0); } n - before >= 3";
    assert_eq!(value(code), "true");
    // what is cut off has no gradient
    let code = "let g = graph::trace(|x| x * x.detach(), [[2]]); let v = variable(tensor([[2.0, 3.0]])); grad(g.run(v).sum(), v).to_array()";
    assert_eq!(value(code), "[[2.0, 3.0]]");
    // f64 as written
    let code = net(
        "x / (1.0 + s.reshape([-1, 1]))",
        "(net.denoise(ones([1, 2], \"f64\"), 3.0)[0][0].item() - 0.25).abs() < 1e-12",
    );
    assert_eq!(value(&code), "true");
}
