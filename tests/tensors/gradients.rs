//! The gradient of every function of the script's tensor API, called as a script calls it, against central differences in f64: all
//! ranks, contiguous, transposed, narrowed, strided and broadcast. The list of functions is the engine's own: a new one fails here until
//! it stands in one of the tables.
use candle_core::{DType, Device, Tensor};
use ld3sh::host::Quiet;
use ld3sh::tensor::grad::variable;
use ld3sh::tensor::shape::{self, Fill};
use ld3sh::tensor::{create, random};
use rhai::{Array, Dynamic, Engine, Scope};
use std::collections::BTreeSet;

fn engine() -> Engine {
    let mut e = Engine::new();
    e.set_max_expr_depths(0, 0);
    ld3sh::script::tensor::register(&mut e);
    e
}

/// The same, with a cotangent for a result: numbers that are its own for every shape.
fn with_weights() -> Engine {
    let mut e = engine();
    e.register_fn("weights", |y: Tensor| random::normal(99, 0, y.dims(), 0, DType::F64, &Device::Cpu).unwrap());
    e
}

fn values(t: &Tensor) -> Vec<f64> {
    create::to_f64(t).unwrap()
}

/// How an argument lies in memory: the variable behind it, and the view of it that the function gets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Plain,
    Transposed,
    Narrowed,
    Strided,
    Broadcast,
}

const LAYOUTS: [Layout; 5] = [Layout::Plain, Layout::Transposed, Layout::Narrowed, Layout::Strided, Layout::Broadcast];

impl Layout {
    fn behind(self, x: &Tensor) -> Tensor {
        match (self, x.rank()) {
            (Layout::Transposed, 2..) => x.t().unwrap().contiguous().unwrap(),
            (Layout::Narrowed, 1..) => shape::pad(x, -1, 1, 2, Fill::Constant(0.3)).unwrap(),
            (Layout::Strided, 1..) => Tensor::stack(&[x, &(x * 0.5).unwrap()], x.rank()).unwrap(),
            (Layout::Broadcast, 1..) => x.narrow(0, 0, 1).unwrap().contiguous().unwrap(),
            _ => x.clone(),
        }
    }
    fn view(self, v: &Tensor, like: &Tensor) -> Tensor {
        match (self, like.rank()) {
            (Layout::Transposed, 2..) => v.t().unwrap(),
            (Layout::Narrowed, 1..) => v.narrow(v.rank() - 1, 1, v.dims()[v.rank() - 1] - 3).unwrap(),
            (Layout::Strided, 1..) => v.narrow(v.rank() - 1, 0, 1).unwrap().squeeze(v.rank() - 1).unwrap(),
            (Layout::Broadcast, 1..) => v.broadcast_as(like.shape()).unwrap(),
            _ => v.clone(),
        }
    }
}

/// Where a function is smooth.
#[derive(Clone, Copy)]
enum Domain {
    /// Anywhere.
    All,
    /// At least 0.05 from every whole number.
    Apart,
    /// Above 0.4.
    Positive,
    /// Within ±0.8.
    Inside,
}
use Domain::*;

fn input(seed: u64, shape: &[usize], domain: Domain) -> Tensor {
    let x = random::normal(seed, 0, shape, 0, DType::F64, &Device::Cpu).unwrap();
    let f = |v: f64| match domain {
        All => v,
        Apart if (v - v.round()).abs() < 0.05 => v + 0.1,
        Apart => v,
        Positive => v.abs() + 0.4,
        Inside => 0.8 * v.tanh(),
    };
    Tensor::from_vec(values(&x).into_iter().map(f).collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

/// Compares the gradients of ⟨w, f(a, b, c)⟩, as the script gets them, with central differences in each layout.
fn check(e: &Engine, script: &str, shapes: &[&[usize]], domain: Domain) {
    let inputs: Vec<Tensor> = shapes.iter().enumerate().map(|(k, s)| input(k as u64 + 1, s, domain)).collect();
    let compiled = |rest: &str| {
        let text = format!("let y = {{ {script} }}; {rest}");
        e.compile(&text).unwrap_or_else(|err| panic!("{text}: {err}"))
    };
    let (value, gradient) = (compiled("(y * weights(y)).sum()"), compiled("vjp(y, weights(y), variables)"));
    for layout in LAYOUTS {
        let at = || format!("{script} of {shapes:?}, {layout:?}");
        let behind: Vec<Tensor> = inputs.iter().map(|x| layout.behind(x)).collect();
        let scope = |vars: &[Tensor]| {
            let mut scope = Scope::new();
            for ((name, v), like) in ["a", "b", "c"].into_iter().zip(vars).zip(&inputs) {
                scope.push(name, layout.view(v, like));
            }
            scope.push("variables", vars.iter().cloned().map(Dynamic::from).collect::<Array>());
            scope
        };
        let loss = |vars: &[Tensor]| -> f64 {
            let y = e.eval_ast_with_scope::<Tensor>(&mut scope(vars), &value);
            values(&y.unwrap_or_else(|err| panic!("{}: {err:?}", at())))[0]
        };
        let vars: Vec<Tensor> = behind.iter().map(|b| variable(b).unwrap()).collect();
        let grads: Array =
            e.eval_ast_with_scope(&mut scope(&vars), &gradient).unwrap_or_else(|err| panic!("{}: {err:?}", at()));
        for (k, (b, grad)) in behind.iter().zip(grads).enumerate() {
            let (base, h) = (values(b), 1e-4);
            let slope = |i: usize| {
                let moved = |d: f64| {
                    let (mut v, mut all) = (base.clone(), behind.clone());
                    v[i] += d;
                    all[k] = Tensor::from_vec(v, b.dims(), &Device::Cpu).unwrap();
                    loss(&all)
                };
                // fourth order
                (8.0 * (moved(h) - moved(-h)) - (moved(2.0 * h) - moved(-2.0 * h))) / (12.0 * h)
            };
            let numeric: Vec<f64> = (0..base.len()).map(slope).collect();
            let scale = numeric.iter().fold(1e-3f64, |a, b| a.max(b.abs()));
            for (i, (g, n)) in values(&grad.cast()).iter().zip(&numeric).enumerate() {
                assert!((g - n).abs() < 1e-7 * scale, "{}, argument {k}, entry {i}: {g} against {n}", at());
            }
        }
    }
}

/// Of one argument, of any rank.
const UNARY: [(&[&str], Domain); 4] = [
    (
        &[
            "exp",
            "expm1",
            "square",
            "sqr",
            "sin",
            "cos",
            "atan",
            "sinh",
            "cosh",
            "tanh",
            "erf",
            "sigmoid",
            "silu",
            "gelu",
            "gelu_tanh",
            "softplus",
            "neg",
        ],
        All,
    ),
    // zero gradients are right between the jumps of the last five
    (&["abs", "relu", "sign", "floor", "ceil", "round", "trunc"], Apart),
    (&["log", "ln", "log1p", "log2", "log10", "sqrt", "rsqrt", "recip"], Positive),
    (&["asin", "acos", "tan"], Inside),
];

const RANKS: [&[usize]; 5] = [&[], &[5], &[3, 4], &[2, 3, 2], &[2, 1, 3, 2]];

/// Names, scripts of one argument `a` for every rank in a range, domain.
type AnyRank = (&'static [&'static str], &'static [&'static str], std::ops::RangeInclusive<usize>, Domain);

/// Over all values, over one dimension and over two.
const REDUCTIONS: [(&str, Domain); 7] =
    [("sum", All), ("mean", All), ("prod", Apart), ("norm", Apart), ("logsumexp", All), ("max", All), ("min", All)];

fn any_rank() -> Vec<AnyRank> {
    vec![
        (&["clamp"], &["a.clamp(-0.47, 0.81)", "a.clamp((), 0.03)", "a.clamp(0.03, ())"], 0..=4, Apart),
        (&["+"], &["+a", "a + a", "a + 1.5", "2 + a", "a + tensor(0.3)"], 0..=4, All),
        (&["-"], &["-a", "a * a - a", "a - 1.5", "2 - a"], 0..=4, All),
        (&["*"], &["a * a", "a * 1.5", "2 * a", "a * 0"], 0..=4, All),
        (&["/"], &["a / a.exp()", "a / 1.5", "2 / a"], 0..=4, Positive),
        (&["%"], &["(a * 3.1) % 0.77"], 0..=4, Positive),
        (&["**", "pow"], &["a ** 2", "a ** 2.5", "1.7 ** a", "a ** a", "a.pow(-1.5)", "a.pow(a)"], 0..=4, Positive),
        (&["**"], &["a ** 0", "a ** 1", "a ** 2", "a ** 3"], 0..=4, Apart),
        (&["maximum"], &["maximum(a, 0.03)", "maximum(a, a * 2)"], 0..=4, Apart),
        (&["minimum"], &["minimum(a, 0.03)", "minimum(a, a * 2)"], 0..=4, Apart),
        (&["where"], &["where(a.detach() > 0, a.exp(), a * 2)", "where(a.detach() > 0, a, 1.5)"], 0..=4, Apart),
        (&["variance"], &["a.variance()", "a.variance(-1)", "a.variance((), true, 0)"], 1..=4, All),
        // away from 0, where it has no slope
        (&["std"], &["(a * (arange(a.size).reshape(a.shape) + 1)).std()"], 1..=4, Positive),
        (&["std"], &["(a * (arange(a.size).reshape(a.shape) + 1)).std(-1, true)"], 1..=4, Positive),
        (&["std"], &["(a * (arange(a.size).reshape(a.shape) + 1)).std([0, -1], true, 0)"], 2..=4, Positive),
        (&["cumsum"], &["a.cumsum(0)", "a.cumsum(-1)"], 1..=4, All),
        (&["sort"], &["a.sort()", "a.sort(0)", "a.sort(-1, true)"], 1..=4, All),
        (&["quantile"], &["a.quantile(0.37)", "a.quantile(0.37, 0)", "a.quantile(0.8, -1, true)"], 1..=4, All),
        (&["median"], &["a.median()", "a.median(0)", "a.median(-1)"], 1..=4, All),
        (&["softmax"], &["softmax(a)", "softmax(a, 0)", "softmax(a, -1)"], 1..=4, All),
        (&["log_softmax"], &["log_softmax(a)", "log_softmax(a, 0)"], 1..=4, All),
        (&["layer_norm"], &["layer_norm(a)"], 2..=4, All),
        (&["reshape"], &["a.reshape([-1])", "a.reshape([1, -1, 1])"], 0..=4, All),
        (&["flatten"], &["a.flatten()", "a.flatten(0, 0)"], 1..=4, All),
        (&["unsqueeze", "squeeze"], &["a.unsqueeze(0)", "a.unsqueeze(-1).squeeze(-1)", "a.squeeze()"], 0..=4, All),
        (&["expand"], &["a.unsqueeze(0).flatten().unsqueeze(0).expand([3, -1])"], 0..=4, All),
        (&["repeat"], &["a.flatten().repeat([3])", "a.flatten().unsqueeze(0).repeat([2, 2])"], 1..=4, All),
        (&["flip"], &["a.flip(-1)", "a.flip([0])"], 1..=4, All),
        (&["roll"], &["a.roll(1, 0)", "a.roll(-2, -1)"], 1..=4, All),
        (
            &["pad"],
            &[
                "a.pad(-1, 1, 2)",
                "a.pad(0, 1, 0, 0.5)",
                "a.pad(-1, 1, 1, \"reflect\")",
                "a.pad(0, 2, 1, \"replicate\")",
            ],
            1..=4,
            All,
        ),
        (&["transpose", "t", "get$T"], &["a.transpose(0, -1)", "a.t()", "a.T"], 2..=4, All),
        (&["cat"], &["cat([a, a * 2])", "cat([a, ones(a.shape), a], -1)"], 1..=4, All),
        (&["stack"], &["stack([a, a * 2])", "stack([a, a.exp()], -1)"], 0..=4, All),
        (&["split"], &["let p = a.split(1, -1); p[0] * p[1]", "a.split([1, a.shape[-1] - 1], -1)[1]"], 1..=4, All),
        (&["chunk"], &["let p = a.chunk(2, -1); p[0].exp()"], 1..=4, All),
        (&["tensor"], &["tensor([a, a * 2])", "tensor([[a], [a.exp()]])"], 0..=4, All),
        (&["index$get$"], &["let s = 0; for row in a { s = s + row * row; } s"], 1..=4, All),
        (&["narrow"], &["a.narrow(0, 0, 1)", "a.narrow(-1, 1, 1)"], 1..=4, All),
        (&["select"], &["a.select(0, -1)", "a.select(-1, 0)"], 1..=4, All),
        (&["slice"], &["a.slice(-1, 0, 2)", "a.slice(-1, (), (), -1)", "a.slice(0, (), (), 2)"], 1..=4, All),
        (&["index"], &["a.index(0, [0, 0])", "a.index(-1, tensor([1, 0, 1]))"], 1..=4, All),
        (&["index$get$"], &["a[0]", "a[-1]", "a[0..1]", "a[[0]]", "a[a.detach() > 0]"], 1..=4, Apart),
        (
            &["index$set$"],
            &[
                "let y = a * 1; y[0] = 2; y",
                "let y = a * 1; y[0] = a[-1] * a[0]; y",
                "let y = a * 1; y[a.detach() > 0] = 0.5; y",
            ],
            1..=4,
            Apart,
        ),
        (&["to"], &["a.to(\"f64\")", "a.to(\"cpu\")"], 0..=4, All),
        (&["checkpoint"], &["checkpoint(|x| x.exp() * x, a)"], 0..=4, All),
    ]
}

/// Names, script, shapes of `a`, `b`, `c`, domain.
type Fixed = (&'static [&'static str], &'static str, &'static [&'static [usize]], Domain);

const IMAGE: &[usize] = &[2, 2, 5, 4];

fn fixed() -> Vec<Fixed> {
    vec![
        (&["permute"], "a.permute([2, 0, 1])", &[&[2, 3, 2]], All),
        (&["permute"], "a.permute(1, 3, 0, 2)", &[&[2, 1, 3, 2]], All),
        (&["expand"], "a.expand([2, 3, 4])", &[&[3, 1]], All),
        (&["repeat"], "a.repeat(2, 1, 3)", &[&[1, 2, 2]], All),
        (&["gather"], "a.gather(1, tensor([[0, -1, 0], [1, 1, 2]]))", &[&[2, 3]], All),
        (&["gather"], "a.gather(-1, tensor([[[[1], [0]]]]))", &[&[1, 1, 2, 3]], All),
        (&["embedding"], "embedding(a, tensor([[0, 4], [4, 4]]))", &[&[5, 3]], All),
        (&["pad2d"], "a.pad2d([1, 2, 0, 1])", &[IMAGE], All),
        (&["pad2d"], "a.pad2d([1, 2, 3, 1], \"reflect\")", &[IMAGE], All),
        (&["pad2d"], "a.pad2d([1, 2, 3, 1], \"replicate\")", &[&[3, 4]], All),
        (&["index$set$"], "let y = a * 1; y[[(), 1]] = b; y", &[&[3, 2], &[3]], All),
        (&["matmul"], "matmul(a, b)", &[&[3], &[3]], All),
        (&["matmul"], "matmul(a, b)", &[&[2, 3], &[3]], All),
        (&["matmul"], "matmul(a, b)", &[&[3], &[4, 3, 2]], All),
        (&["matmul"], "matmul(a, b)", &[&[2, 3], &[4, 3, 2]], All),
        (&["matmul"], "matmul(a, b)", &[&[2, 1, 2, 3], &[3, 3, 2]], All),
        (&["dot"], "a.dot(b)", &[&[2, 3], &[3, 2]], All),
        (&["einsum"], "einsum(\"ij,jk->ik\", [a, b])", &[&[2, 3], &[3, 2]], All),
        (&["einsum"], "einsum(\"bij,bj,i->b\", [a, b, c])", &[&[2, 3, 2], &[2, 2], &[3]], All),
        (&["einsum"], "einsum(\"ii->i\", [a])", &[&[3, 3]], All),
        (&["linear"], "linear(a, b, c)", &[&[2, 3], &[4, 3], &[4]], All),
        (&["linear"], "linear(a, b)", &[&[3], &[4, 3]], All),
        (&["group_norm"], "group_norm(a, 2, #{ weight: b, bias: c })", &[&[2, 4, 3], &[4], &[4]], All),
        (&["group_norm"], "group_norm(a, 1)", &[&[2, 4]], All),
        (&["group_norm"], "group_norm(a, 2)", &[&[2, 4, 2, 3]], All),
        (&["layer_norm"], "layer_norm(a, #{ weight: b, bias: c })", &[&[3, 5], &[5], &[5]], All),
        (&["layer_norm"], "layer_norm(a, #{ weight: b, bias: c })", &[&[2, 3, 4], &[3, 4], &[3, 4]], All),
        (&["layer_norm"], "layer_norm(a, #{ bias: b })", &[&[2, 5], &[5]], All),
        (&["attention"], "attention(a, b, c)", &[&[3, 4], &[5, 4], &[5, 2]], All),
        (
            &["attention"],
            "attention(a, b, c, #{ causal: true, scale: 0.7 })",
            &[&[2, 3, 4], &[2, 3, 4], &[2, 3, 2]],
            All,
        ),
        (&["attention"], "attention(a, b, b, #{ mask: c })", &[&[2, 2, 3, 4], &[2, 2, 3, 4], &[3, 3]], All),
        (&["conv2d"], "conv2d(a, b, #{ bias: c, padding: 1 })", &[IMAGE, &[3, 2, 3, 3], &[3]], All),
        (&["conv2d"], "conv2d(a, b, #{ stride: 2, padding: 1 })", &[IMAGE, &[3, 2, 3, 2]], All),
        (&["conv2d"], "conv2d(a, b, #{ stride: 2, dilation: 2, groups: 2, padding: 1 })", &[IMAGE, &[2, 1, 2, 2]], All),
        (&["conv2d"], "conv2d(a, b)", &[IMAGE, &[3, 2, 1, 1]], All),
        (&["conv2d"], "conv2d(a, b, #{ stride: 3, padding: 4 })", &[IMAGE, &[2, 2, 3, 3]], All),
        (&["conv_transpose2d"], "conv_transpose2d(a, b, #{ bias: c })", &[&[2, 2, 3, 2], &[2, 3, 3, 3], &[3]], All),
        (
            &["conv_transpose2d"],
            "conv_transpose2d(a, b, #{ stride: 2, padding: 1, output_padding: 1 })",
            &[&[2, 2, 3, 2], &[2, 3, 3, 2]],
            All,
        ),
        (
            &["conv_transpose2d"],
            "conv_transpose2d(a, b, #{ stride: 3, dilation: 2, groups: 2 })",
            &[&[1, 2, 3, 2], &[2, 1, 2, 2]],
            All,
        ),
        (
            &["conv_transpose2d"],
            "conv_transpose2d(a, b, #{ dilation: 2, output_padding: 1 })",
            &[&[1, 2, 3, 2], &[2, 2, 2, 2]],
            All,
        ),
        (&["avg_pool2d"], "avg_pool2d(a, 2)", &[IMAGE], All),
        (&["avg_pool2d"], "avg_pool2d(a, [3, 2], #{ stride: [2, 1], padding: 1 })", &[IMAGE], All),
        (&["max_pool2d"], "max_pool2d(a, 2)", &[IMAGE], All),
        (&["max_pool2d"], "max_pool2d(a, [3, 2], #{ stride: [2, 1], padding: 1 })", &[IMAGE], All),
        (&["upsample"], "upsample(a, 2)", &[IMAGE], All),
        (&["upsample"], "upsample(a, [7, 3])", &[IMAGE], All),
        (&["upsample"], "upsample(a, [7, 3], #{ mode: \"bilinear\" })", &[IMAGE], All),
        (&["upsample"], "upsample(a, [7, 9], #{ mode: \"bilinear\", align_corners: true })", &[IMAGE], All),
        (&["downsample"], "downsample(a, 2)", &[&[1, 2, 4, 6]], All),
        (&["+"], "a + b", &[&[2, 1, 3], &[4, 1]], All),
        (&["-"], "a - b", &[&[], &[2, 2]], All),
        (&["*"], "a * b", &[&[2, 3], &[3]], All),
        (&["/"], "a / b", &[&[2, 1, 1, 3], &[2, 1]], Positive),
        (&["**"], "a ** b", &[&[2, 3], &[3]], Positive),
        (&["maximum"], "maximum(a, b)", &[&[2, 3], &[3]], All),
        (&["minimum"], "minimum(a, b)", &[&[2, 3], &[2, 1]], All),
        (&["where"], "where(tensor([true, false, true]), a, b)", &[&[2, 3], &[3]], All),
        (&["cat"], "cat([a, b, a], 1)", &[&[2, 1, 2], &[2, 3, 2]], All),
        (&["stack"], "stack([a, b, a], 1)", &[&[2, 3], &[2, 3]], All),
        (&["checkpoint"], "checkpoint(|x, y| x * y.exp(), [a, b])", &[&[2, 3], &[3]], All),
    ]
}

/// Functions through which no gradient can flow: what they return is no floating-point function of a tensor's values.
const NOT_DIFFERENTIABLE: &[&str] = &[
    // masks and indices
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "!",
    "&",
    "|",
    "^",
    "isnan",
    "is_nan",
    "isinf",
    "isfinite",
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "nonzero",
    "one_hot",
    // of a tensor's kind and shape alone
    "zeros_like",
    "ones_like",
    "get$shape",
    "get$dtype",
    "get$device",
    "get$ndim",
    "get$size",
    "get$len",
    "get$tracked",
    "len",
    // of a shape, not of values
    "zeros",
    "ones",
    "full",
    "rand",
    "randn",
    "noise",
    "randint",
    // out of tensors: a number or a text in the script has no gradient
    "item",
    "to_array",
    "to_float",
    "to_int",
    "to_string",
    "to_debug",
    // said so by their names: constants, and gradients themselves
    "detach",
    "variable",
    "no_grad",
    "grad",
    "vjp",
    // arrays on disk
    "save",
];

/// The functions of the tensor API that take a tensor and return one (or an array, or whatever a closure returns).
fn functions() -> BTreeSet<String> {
    let json = engine().gen_fn_metadata_to_json(false).unwrap();
    let all: serde_json::Value = serde_json::from_str(&json).unwrap();
    let mut names = BTreeSet::new();
    for f in all["functions"].as_array().unwrap() {
        let takes = |p: &serde_json::Value| {
            p["type"].as_str().is_some_and(|t| t.contains("Tensor") || t == "array" || t == "Fn")
        };
        if f["params"].as_array().is_some_and(|p| p.iter().any(takes)) {
            names.insert(f["name"].as_str().unwrap().to_string());
        }
    }
    names
}

#[test]
fn no_function_is_forgotten() {
    let known: BTreeSet<String> = UNARY
        .iter()
        .flat_map(|(names, _)| *names)
        .chain(REDUCTIONS.iter().map(|(name, _)| name))
        .chain(any_rank().iter().flat_map(|r| r.0))
        .chain(fixed().iter().flat_map(|r| r.0))
        .chain(NOT_DIFFERENTIABLE)
        .map(|n| n.to_string())
        .collect();
    let all = functions();
    let missing: Vec<_> = all.difference(&known).collect();
    assert!(missing.is_empty(), "neither in the tables of gradients nor among those without: {missing:?}");
    let gone: Vec<_> = known.difference(&all).collect();
    assert!(gone.is_empty(), "in a table, but no function of the tensor API: {gone:?}");
}

#[test]
fn a_wrong_gradient_is_seen() {
    let wrong = |x: Tensor| {
        ld3sh::tensor::custom::op1("wrong", &x, x.detach().sqr().unwrap(), |x, _, g| Ok(((g * x)? * 2.0001)?)).unwrap()
    };
    let mut e = with_weights();
    e.register_fn("wrong", wrong);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&e, "wrong(a)", &[&[3]], All)));
    assert!(caught.is_err());
}

#[test]
fn of_one_argument() {
    let e = with_weights();
    for (names, domain) in UNARY {
        for name in names {
            for shape in RANKS {
                check(&e, &format!("a.{name}()"), &[shape], domain);
            }
        }
    }
}

#[test]
fn reductions() {
    let e = with_weights();
    for (name, domain) in REDUCTIONS {
        for (rank, shape) in RANKS.iter().enumerate() {
            let scripts = [("", 0), ("-1", 1), ("0, true", 1), ("[0, -1]", 2)];
            for (dims, _) in scripts.iter().filter(|(_, least)| rank >= *least) {
                check(&e, &format!("a.{name}({dims})"), &[shape], domain);
            }
        }
    }
}

#[test]
fn of_any_rank() {
    let e = with_weights();
    for (_, scripts, ranks, domain) in any_rank() {
        for script in scripts {
            for rank in ranks.clone() {
                check(&e, script, &[RANKS[rank]], domain);
            }
        }
    }
}

#[test]
fn of_given_shapes() {
    let e = with_weights();
    for (_, script, shapes, domain) in fixed() {
        check(&e, script, shapes, domain);
    }
}

/// Constant weights in f32 go by other kernels than those in f64, which the differences judge.
#[test]
fn convolutions_with_constant_weights_are_the_same_function() {
    let e = with_weights();
    let options = [
        "#{}",
        "#{ padding: 1 }",
        "#{ stride: 2, padding: 1 }",
        "#{ stride: 3, padding: 4 }",
        "#{ padding: 1, bias: c }",
    ];
    let shapes: [(&[usize], &[usize]); 4] = [
        (&[2, 3, 9, 7], &[5, 3, 3, 3]),
        (&[1, 4, 6, 6], &[4, 4, 3, 2]),
        (&[3, 2, 5, 5], &[17, 2, 1, 1]),
        (&[2, 16, 12, 12], &[32, 16, 3, 3]),
    ];
    for (x, w) in shapes {
        for o in options {
            // twice: packed, and found in the cache
            let ast = e.compile(format!("conv2d(a, b, {o}); conv2d(a, b, {o})")).unwrap();
            for layout in [Layout::Plain, Layout::Transposed, Layout::Strided, Layout::Broadcast] {
                let result = |dtype: DType| {
                    let x = input(1, x, All);
                    let v = variable(&layout.behind(&x).to_dtype(dtype).unwrap()).unwrap();
                    let mut scope = Scope::new();
                    scope.push("a", layout.view(&v, &x));
                    scope.push("b", input(2, w, All).to_dtype(dtype).unwrap());
                    scope.push("c", input(3, &w[..1], All).to_dtype(dtype).unwrap());
                    let y: Tensor = e.eval_ast_with_scope(&mut scope, &ast).unwrap();
                    let cot = input(4, y.dims(), All).to_dtype(dtype).unwrap();
                    let g = ld3sh::tensor::grad::vjp(&Quiet, &[(y.clone(), cot)], &[v]).unwrap().remove(0);
                    (y.dtype(), [values(&y), values(&g)])
                };
                let ((dtype, frozen), (_, exact)) = (result(DType::F32), result(DType::F64));
                assert_eq!(dtype, DType::F32);
                for (what, (got, want)) in ["value", "gradient"].iter().zip(frozen.iter().zip(&exact)) {
                    let scale = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                    let off = got.iter().zip(want).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
                    assert!(
                        got.len() == want.len() && off < 1e-4 * scale,
                        "{x:?} {w:?} {o} {layout:?}: {what} off by {off}"
                    );
                }
            }
        }
    }
}
