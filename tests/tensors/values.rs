//! Tensors as scripts see them: values, dtypes, shapes, errors, printing.
use candle_core::{Device, Tensor};
use ld3sh::script::error::Caught;
use ld3sh::tensor::{create, random};
use rhai::{Dynamic, Engine, EvalAltResult};

fn engine() -> Engine {
    let mut e = Engine::new();
    e.set_max_expr_depths(0, 0);
    ld3sh::script::tensor::register(&mut e);
    e
}
fn run(script: &str) -> Dynamic {
    engine().eval(script).unwrap_or_else(|e| panic!("{script}: {}", explain(&e)))
}
fn explain(e: &EvalAltResult) -> String {
    match e {
        EvalAltResult::ErrorRuntime(v, _) => match v.read_lock::<Caught>() {
            Some(c) => c.0.to_string(),
            None => v.to_string(),
        },
        e => e.to_string(),
    }
}
/// The values, shape and dtype of a script's tensor.
fn tensor(script: &str) -> (Vec<f64>, Vec<usize>, String) {
    let t = run(script).try_cast::<Tensor>().unwrap_or_else(|| panic!("{script}: not a tensor"));
    (create::to_f64(&t).unwrap(), t.dims().to_vec(), t.dtype().as_str().to_string())
}
#[track_caller]
fn is(script: &str, values: &[f64], shape: &[usize], dtype: &str) {
    let (v, s, d) = tensor(script);
    assert_eq!((s.as_slice(), d.as_str()), (shape, dtype), "{script}");
    for (a, b) in v.iter().zip(values) {
        let same = (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-6 * b.abs().max(1.0);
        assert!(same, "{script}: {v:?} against {values:?}");
    }
    assert_eq!(v.len(), values.len(), "{script}");
}
#[track_caller]
fn fails(script: &str, kind: &str, words: &str) {
    match engine().eval::<Dynamic>(script) {
        Ok(v) => panic!("{script} gave {v}"),
        Err(e) => match *e {
            EvalAltResult::ErrorRuntime(ref v, _) if v.is::<Caught>() => {
                let c = v.clone_cast::<Caught>().0;
                assert_eq!(c.kind().name(), kind, "{script}: {c}");
                assert!(c.to_string().contains(words), "{script}: {c}");
            }
            ref e => panic!("{script}: {e}"),
        },
    }
}

#[test]
fn creation_infers_dtypes() {
    is("tensor([[1, 2], [3, 4]])", &[1., 2., 3., 4.], &[2, 2], "i64");
    is("tensor([1, 2.5])", &[1., 2.5], &[2], "f32");
    is("tensor([1, 2.5], \"f64\")", &[1., 2.5], &[2], "f64");
    is("tensor([true, false])", &[1., 0.], &[2], "u8");
    is("tensor(2.5)", &[2.5], &[], "f32");
    is("tensor([])", &[], &[0], "f32");
    is("tensor([ones([2]), zeros([2])])", &[1., 1., 0., 0.], &[2, 2], "f32");
    is("tensor([tensor(1), tensor(2)])", &[1., 2.], &[2], "i64");
    is("zeros([2, 2])", &[0.; 4], &[2, 2], "f32");
    is("ones(3, #{ dtype: \"i64\" })", &[1.; 3], &[3], "i64");
    is("full([2], 7)", &[7., 7.], &[2], "i64");
    is("full([2], 0.5)", &[0.5, 0.5], &[2], "f32");
    is("arange(4)", &[0., 1., 2., 3.], &[4], "i64");
    is("arange(1.0, 0.0, -0.25)", &[1., 0.75, 0.5, 0.25], &[4], "f32");
    is("arange(3, \"f64\")", &[0., 1., 2.], &[3], "f64");
    is("linspace(0, 1, 5)", &[0., 0.25, 0.5, 0.75, 1.], &[5], "f32");
    is("linspace(2, 3, 1)", &[2.], &[1], "f32");
    is("eye(2)", &[1., 0., 0., 1.], &[2, 2], "f32");
    fails("tensor([[1, 2], [3]])", "shape", "different lengths");
    fails("tensor([1, [2]])", "shape", "side by side");
    fails("tensor([\"a\"])", "type", "expected a number");
    fails("zeros([2], #{ dtpye: \"f64\" })", "name", "did you mean `dtype`");
    fails("zeros([2], \"f23\")", "name", "did you mean `f32`");
    fails("zeros([-1])", "value", "-1");
    fails("zeros([1000000, 1000000, 1000000])", "memory", "too large");
    fails("zeros([0, 1000000000000, 1000000000000])", "memory", "too large");
    fails("zeros([0]).reshape([0, 1000000000000, 1000000000000])", "shape", "do not fit");
    fails("zeros([2], #{ device: \"cuda\" })", "device", "CUDA");
    fails("arange(0, 1, 0)", "value", "step");
}

#[test]
fn numbers_and_dtypes_mix_as_in_numpy() {
    is("tensor([1, 2]) + 1", &[2., 3.], &[2], "i64");
    is("tensor([1, 2]) * 2.5", &[2.5, 5.], &[2], "f32");
    is("tensor([1, 2]) / 2", &[0.5, 1.], &[2], "f32");
    is("1 / tensor([2, 4])", &[0.5, 0.25], &[2], "f32");
    is("tensor([7.0]) / 10", &[0.7], &[1], "f32");
    is("ones([2], \"f64\") + ones([2])", &[2., 2.], &[2], "f64");
    is("ones([2]) + tensor([1, 2])", &[2., 3.], &[2], "f32");
    is("ones([2], \"f16\") * ones([2], \"bf16\")", &[1., 1.], &[2], "f32");
    is("2.0 - tensor([0.5])", &[1.5], &[1], "f32");
    is("2 ** tensor([1, 3])", &[2., 8.], &[2], "i64");
    is("tensor([2, 3]) ** 2", &[4., 9.], &[2], "i64");
    is("tensor([2, 4]) ** -1", &[0.5, 0.25], &[2], "f32");
    is("tensor([0.0, -2.0]) ** 3", &[0., -8.], &[2], "f32");
    is("tensor([0.0]) ** 0", &[1.], &[1], "f32");
    is("-tensor([true, false])", &[-1., 0.], &[2], "i64");
    is("(tensor([1, 0]) > 0) - 1", &[0., -1.], &[2], "i64");
    is("tensor([-7, 7]) % 3", &[2., 1.], &[2], "i64");
    is("tensor([-7.5]) % tensor([2.0])", &[0.5], &[1], "f32");
    is("let x = ones([2]); x += 1; x *= 3; x", &[6., 6.], &[2], "f32");
    is("maximum(tensor([1.0, 5.0]), 2)", &[2., 5.], &[2], "f32");
    is("minimum(tensor([0.0/0.0, 1.0]), tensor([1.0, 0.0/0.0]))", &[f64::NAN, f64::NAN], &[2], "f32");
    is("tensor([[1], [2]]) + tensor([10, 20])", &[11., 21., 12., 22.], &[2, 2], "i64");
    fails("ones([2, 3]) + ones([4])", "shape", "[2, 3] and [4] do not broadcast");
    fails("tensor([1]) % 0", "value", "remainder by zero");
    fails("tensor([2]) ** tensor([-1])", "value", "negative power");
    // large integers stay exact
    assert_eq!(run("(tensor([9007199254740993]) + 0)[0].item()").as_int(), Ok(9007199254740993));
}

#[test]
fn comparisons_masks_and_where() {
    is("tensor([1.0, 2.0, 3.0]) > 1.5", &[0., 1., 1.], &[3], "u8");
    is("2 >= tensor([1, 2, 3])", &[1., 1., 0.], &[3], "u8");
    is("let x = tensor([1, 2, 3]); (x > 1) & (x != 3)", &[0., 1., 0.], &[3], "u8");
    is("let x = tensor([1, 2, 3]); (x < 2) | (x == 3)", &[1., 0., 1.], &[3], "u8");
    is("!(tensor([0, 2]) == 2)", &[1., 0.], &[2], "u8");
    is("where(tensor([1.0, -1.0]) > 0, 5, tensor([1, 2]))", &[5., 2.], &[2], "i64");
    is("where(tensor([true, false]), 1.0, 0)", &[1., 0.], &[2], "f32");
    // scalars compare to true and false
    assert_eq!(run("if tensor(1.0) < 2 { 1 } else { 0 }").as_int(), Ok(1));
    assert_eq!(run("ones([2]).sum() == 2.0").as_bool(), Ok(true));
    assert_eq!(run("let x = ones([2]); x == () || () != x").as_bool(), Ok(true));
    assert_eq!(run("(ones([2]) > 0).all() && !(zeros([2]) > 0).any()").as_bool(), Ok(true));
    is("isnan(tensor([0.0/0.0, 1.0/0.0, 1.0]))", &[1., 0., 0.], &[3], "u8");
    is("isfinite(tensor([0.0/0.0, 1.0/0.0, 1.0]))", &[0., 0., 1.], &[3], "u8");
}

#[test]
fn indexing_and_assignment() {
    is("arange(6).reshape([2, 3])[1]", &[3., 4., 5.], &[3], "i64");
    is("arange(6).reshape([2, 3])[-1][0]", &[3.], &[], "i64");
    is("arange(6)[1..3]", &[1., 2.], &[2], "i64");
    is("arange(6)[1..=3]", &[1., 2., 3.], &[3], "i64");
    is("arange(6)[-2..100]", &[4., 5.], &[2], "i64");
    is("arange(6)[-2..=-1]", &[4., 5.], &[2], "i64");
    is("arange(6)[4..2]", &[], &[0], "i64");
    is("arange(6).reshape([2, 3])[[(), 0]]", &[0., 3.], &[2], "i64");
    is("arange(6).reshape([2, 3])[[0..1, [2, 0]]]", &[2., 0.], &[1, 2], "i64");
    is("let x = arange(6); x[x % 2 == 0]", &[0., 2., 4.], &[3], "i64");
    is("arange(6)[tensor([[5, -1], [0, 1]])]", &[5., 5., 0., 1.], &[2, 2], "i64");
    is("arange(6).slice(0, (), (), -2)", &[5., 3., 1.], &[3], "i64");
    is("arange(6).reshape([2, 3]).select(1, -1)", &[2., 5.], &[2], "i64");
    is("arange(6).index(0, [1, 1])", &[1., 1.], &[2], "i64");
    is("tensor([[1, 2], [3, 4]]).gather(1, tensor([[0], [1]]))", &[1., 4.], &[2, 1], "i64");
    is("let x = zeros([3]); let y = x; x[1] = 5; x + y", &[0., 5., 0.], &[3], "f32");
    is("let x = zeros([2, 2]); x[0][1] = 5; x", &[0., 5., 0., 0.], &[2, 2], "f32");
    is("let x = zeros([2, 2]); x[[(), 1]] = tensor([1, 2]); x", &[0., 1., 0., 2.], &[2, 2], "f32");
    is("let x = arange(4); x[x > 1] = -1; x", &[0., 1., -1., -1.], &[4], "i64");
    is("let x = zeros([3]); x[0..2] += 1; x", &[1., 1., 0.], &[3], "f32");
    is("let m = #{ x: zeros([2]) }; m.x[0] = 1; m.x", &[1., 0.], &[2], "f32");
    assert_eq!(run("let s = 0; for row in arange(6).reshape([2, 3]) { s += row.sum().item(); } s").as_int(), Ok(15));
    fails("arange(3)[3]", "shape", "out of range for dimension 0 of size 3");
    fails("arange(3)[-4]", "shape", "out of range");
    fails("arange(3)[[0, 0]]", "shape", "too many");
    fails("arange(3)[0.5]", "type", "index");
    fails("let x = zeros([2]); x[0] = ones([3]); x", "shape", "cannot assign");
    fails("arange(3)[tensor([true])]", "shape", "mask");
}

#[test]
fn reductions_and_sorting() {
    is("tensor([[1, 2], [3, 4]]).sum()", &[10.], &[], "i64");
    is("tensor([[1, 2], [3, 4]]).mean(0)", &[2., 3.], &[2], "f32");
    is("tensor([[1.0, 2.0], [3.0, 4.0]]).sum(-1, true)", &[3., 7.], &[2, 1], "f32");
    is("tensor([1.0, 2.0, 3.0, 4.0]).variance()", &[5.0 / 3.0], &[], "f32");
    is("tensor([1.0, 2.0, 3.0, 4.0]).std((), false, 0)", &[1.25f64.sqrt()], &[], "f32");
    is("(tensor([200, 100], \"u8\")).sum()", &[300.], &[], "i64");
    is("tensor([3.0, 4.0]).norm()", &[5.], &[], "f32");
    is("tensor([2, 3, 4]).prod()", &[24.], &[], "i64");
    is("tensor([1.0, 0.0/0.0]).max()", &[f64::NAN], &[], "f32");
    is("tensor([[1, 5], [7, 2]]).max(1)", &[5., 7.], &[2], "i64");
    is("tensor([[1, 5], [7, 2]]).argmax()", &[2.], &[], "i64");
    is("tensor([[1, 5], [7, 2]]).argmin(1)", &[0., 1.], &[2], "i64");
    is("tensor([1000.0, 1000.0]).logsumexp()", &[1000.0 + 2f64.ln()], &[], "f32");
    is("tensor([-1.0/0.0, -1.0/0.0]).logsumexp()", &[f64::NEG_INFINITY], &[], "f32");
    is("arange(5).cumsum(0)", &[0., 1., 3., 6., 10.], &[5], "i64");
    is("tensor([3.0, 0.0/0.0, 1.0]).sort()", &[1., 3., f64::NAN], &[3], "f32");
    is("tensor([3, 1, 2, 1]).argsort()", &[1., 3., 2., 0.], &[4], "i64");
    is("tensor([3, 1, 2, 1]).argsort(0, true)", &[0., 2., 1., 3.], &[4], "i64");
    is("tensor([1.0, 2.0, 3.0, 4.0]).median()", &[2.5], &[], "f32");
    is("tensor([0.0, 10.0]).quantile(0.25)", &[2.5], &[], "f32");
    is("ones([100000], \"f16\").sum()", &[f64::INFINITY], &[], "f16");
    is("ones([100000], \"f16\").mean()", &[1.], &[], "f16");
    is("zeros([0, 3]).sum(0)", &[0.; 3], &[3], "f32");
    is("zeros([0]).mean()", &[f64::NAN], &[], "f32");
    fails("zeros([0]).max()", "shape", "of no values");
    fails("ones([2]).sum(1)", "shape", "dimension 1 does not exist");
    fails("ones([2, 2]).sum([0, -2])", "shape", "twice");
    fails("ones([2]).max(ones([2]))", "type", "maximum");
    fails("ones([2]).quantile(1.5)", "value", "[0, 1]");
}

#[test]
fn shape_operations() {
    is("arange(6).reshape([2, -1]).permute([1, 0])", &[0., 3., 1., 4., 2., 5.], &[3, 2], "i64");
    is("arange(6).reshape(2, 3).T", &[0., 3., 1., 4., 2., 5.], &[3, 2], "i64");
    is("arange(3).unsqueeze(-1).squeeze()", &[0., 1., 2.], &[3], "i64");
    is("arange(2).repeat([2, 2])", &[0., 1., 0., 1., 0., 1., 0., 1.], &[2, 4], "i64");
    is("arange(2).expand([2, -1])", &[0., 1., 0., 1.], &[2, 2], "i64");
    is("arange(4).roll(1, 0)", &[3., 0., 1., 2.], &[4], "i64");
    is("arange(3).flip(0)", &[2., 1., 0.], &[3], "i64");
    is("arange(3).pad(0, 2, 1, \"reflect\")", &[2., 1., 0., 1., 2., 1.], &[6], "i64");
    is("arange(2).pad(0, 1, 1)", &[0., 0., 1., 0.], &[4], "i64");
    is("cat([arange(2), tensor([0.5])])", &[0., 1., 0.5], &[3], "f32");
    is("stack([arange(2), arange(2)], 1)", &[0., 0., 1., 1.], &[2, 2], "i64");
    is("arange(5).split(2)[2]", &[4.], &[1], "i64");
    is("arange(5).chunk(2)[0]", &[0., 1., 2.], &[3], "i64");
    assert_eq!(run("arange(6).reshape([2, 3]).shape[1] + arange(4).len").as_int(), Ok(7));
    assert_eq!(run("zeros([2, 3]).to_array()[1][2]").as_float(), Ok(0.0));
    fails("arange(6).reshape([4, -1])", "shape", "do not fit");
    fails("arange(6).reshape([-1, -1])", "shape", "one −1");
    fails("cat([ones([2, 2]), ones([3])])", "shape", "differ");
    fails("stack([])", "value", "at least one");
    fails("arange(3).squeeze(0)", "shape", "not 1");
    fails("arange(3).expand([4])", "shape", "does not expand");
    fails("arange(5).split([1, 2])", "shape", "do not add up");
}

#[test]
fn products_and_layers() {
    is("tensor([[1.0, 2.0]]).dot(tensor([[3.0], [4.0]]))", &[11.], &[1, 1], "f32");
    is("matmul(tensor([[1, 2], [3, 4]]), tensor([1, 1]))", &[3., 7.], &[2], "i64");
    is("einsum(\"ij->j\", [tensor([[1, 2], [3, 4]])])", &[4., 6.], &[2], "i64");
    is("einsum(\"ii\", [tensor([[1.0, 2.0], [3.0, 4.0]])])", &[5.], &[], "f32");
    is("softmax(tensor([0.0, 0.0]))", &[0.5, 0.5], &[2], "f32");
    is("softmax(tensor([-1.0/0.0, 0.0]))", &[0., 1.], &[2], "f32");
    is("round(tensor([0.5, 1.5, 2.5, -0.5, 1.2]))", &[0., 2., 2., 0., 1.], &[5], "f32");
    is("softplus(tensor([100.0, -100.0]))", &[100., 0.], &[2], "f32");
    is("sigmoid(tensor([-200.0, 200.0]))", &[0., 1.], &[2], "f32");
    is("clamp(tensor([-2, 5]), -1, 1)", &[-1., 1.], &[2], "i64");
    is(
        "conv2d(ones([1, 1, 3, 3]), ones([1, 1, 2, 2]), #{ padding: 1, stride: 2 })",
        &[1., 2., 2., 4.],
        &[1, 1, 2, 2],
        "f32",
    );
    is(
        "conv_transpose2d(ones([1, 1, 2, 2]), ones([1, 1, 2, 2]))",
        &[1., 2., 1., 2., 4., 2., 1., 2., 1.],
        &[1, 1, 3, 3],
        "f32",
    );
    is(
        "conv2d(ones([1, 4, 1, 1]), ones([2, 2, 1, 1]), #{ groups: 2, bias: tensor([0.5, 1.0]) })",
        &[2.5, 3.],
        &[1, 2, 1, 1],
        "f32",
    );
    is("avg_pool2d(arange(4).to(\"f32\").reshape([1, 1, 2, 2]), 2)", &[1.5], &[1, 1, 1, 1], "f32");
    is(
        "max_pool2d(arange(9).to(\"f32\").reshape([1, 1, 3, 3]), 2, #{ stride: 1 })",
        &[4., 5., 7., 8.],
        &[1, 1, 2, 2],
        "f32",
    );
    is("upsample(arange(2).reshape([1, 1, 1, 2]), 2)", &[0., 0., 1., 1., 0., 0., 1., 1.], &[1, 1, 2, 4], "i64");
    is(
        "upsample(tensor([[[[0.0, 1.0]]]]), [1, 4], #{ mode: \"bilinear\" })",
        &[0., 0.25, 0.75, 1.],
        &[1, 1, 1, 4],
        "f32",
    );
    is("group_norm(tensor([[[1.0, 3.0]]]), 1, #{ eps: 0.0 })", &[-1., 1.], &[1, 1, 2], "f32");
    is("attention(ones([1, 2]), ones([3, 2]), tensor([[1.0], [2.0], [6.0]]))", &[3.], &[1, 1], "f32");
    is("embedding(eye(3), tensor([2, 0]))", &[0., 0., 1., 1., 0., 0.], &[2, 3], "f32");
    fails("matmul(ones([2, 3]), ones([2, 3]))", "shape", "[2, 3] and [2, 3] do not fit");
    fails("einsum(\"ij,jk->ik\", [ones([2, 3]), ones([2, 3])])", "shape", "`j` has size 3");
    fails("einsum(\"i1->i\", [ones([2, 3])])", "value", "not a letter");
    fails("conv2d(ones([1, 2, 3, 3]), ones([1, 3, 2, 2]))", "shape", "does not fit");
    fails("conv2d(ones([1, 1, 3, 3]), ones([1, 1, 2, 2]), #{ strde: 2 })", "name", "did you mean `stride`");
    fails("group_norm(ones([1, 3, 2]), 2)", "shape", "divisible");
    fails("layer_norm(tensor([1, 2]))", "type", "floating-point");
}

#[test]
fn random_numbers_depend_on_seed_and_sample_alone() {
    let (all, ..) = tensor("randn([6, 3], #{ seed: 7 })");
    let (tail, ..) = tensor("randn([2, 3], #{ seed: 7, first: 4 })");
    assert_eq!(&all[12..], &tail[..]);
    let (noise, ..) = tensor("noise([6, 3], #{ seed: 7 })");
    assert_eq!(all, noise);
    let (wide, ..) = tensor("randn([6, 3], #{ seed: 7, dtype: \"f64\" })");
    assert!(all.iter().zip(&wide).all(|(a, b)| *a == *b as f32 as f64));
    assert_ne!(all, tensor("randn([6, 3], #{ seed: 8 })").0);
    // draws without a seed differ from each other, and come again after manual_seed
    let twice = "manual_seed(3); let a = randn([4]); let b = randn([4]); manual_seed(3); let c = randn([4]); \
                 [(a == b).any(), (a == c).all()]";
    let both = run(twice).into_typed_array::<bool>().unwrap();
    assert_eq!(both, [false, true]);
    // moments, with bounds of five standard errors
    let t = random::normal(1, 0, &[100, 1000], 0, candle_core::DType::F64, &Device::Cpu).unwrap();
    let v = create::to_f64(&t).unwrap();
    let n = v.len() as f64;
    let moment = |k: i32| v.iter().map(|x| x.powi(k)).sum::<f64>() / n;
    assert!(moment(1).abs() < 5.0 / n.sqrt());
    assert!((moment(2) - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
    assert!((moment(4) - 3.0).abs() < 5.0 * (96.0 / n).sqrt());
    let (u, ..) = tensor("rand([1000], #{ seed: 0 })");
    assert!(u.iter().all(|u| (0.0..1.0).contains(u)) && (u.iter().sum::<f64>() / 1000.0 - 0.5).abs() < 0.05);
    let (i, _, dtype) = tensor("randint(-2, 3, [1000], #{ seed: 0 })");
    assert!(dtype == "i64" && (-2..3).all(|k| i.contains(&(k as f64))) && i.iter().all(|v| (-2.0..3.0).contains(v)));
    let (mut p, ..) = tensor("permutation(50, #{ seed: 0 })");
    assert_ne!(p, (0..50).map(f64::from).collect::<Vec<_>>());
    p.sort_by(f64::total_cmp);
    assert_eq!(p, (0..50).map(f64::from).collect::<Vec<_>>());
    fails("randint(3, 3, [1])", "value", "low < high");
}

#[test]
fn autograd_in_scripts() {
    is("let v = variable(tensor([1.0, 2.0])); grad((v * v).sum(), v)", &[2., 4.], &[2], "f32");
    is("let a = variable(tensor(3.0)); let b = variable(tensor(4.0)); grad(a * b, [a, b])[0]", &[4.], &[], "f32");
    is("let v = variable(ones([2])); vjp(v * 3, tensor([1.0, 2.0]), v)", &[3., 6.], &[2], "f32");
    is("let v = variable(ones([2])); grad((v * v.detach()).sum(), v)", &[1., 1.], &[2], "f32");
    is("let v = variable(ones([2])); let c = no_grad(|| v * 5); grad((v * c).sum(), v)", &[5., 5.], &[2], "f32");
    is(
        "let w = variable(tensor([2.0])); let v = variable(tensor([3.0])); let y = checkpoint(|x| (x * w).exp(), v);
         cat(grad(y.sum(), [v, w]))",
        &[2.0 * 6f64.exp(), 3.0 * 6f64.exp()],
        &[2],
        "f32",
    );
    is("let v = variable(ones([2])); checkpoint(|a, b| a + b, [v, ones([2])])", &[2., 2.], &[2], "f32");
    assert_eq!(run("no_grad(|| variable(ones([2])) * 2).tracked").as_bool(), Ok(false));
    assert_eq!(run("(variable(ones([2])) * 2).tracked").as_bool(), Ok(true));
    is(
        "let x = variable(zeros([3])); let y = x * 1; y[1] = 2 * x[0] + 1; grad(y.sum(), x)",
        &[3., 0., 1.],
        &[3],
        "f32",
    );
    fails("let v = variable(ones([2])); let l = v * 2; grad(l, v)", "shape", "scalar");
    fails("let v = ones([2]); grad(v.sum(), v)", "value", "variable(t)");
    fails("variable(tensor([1, 2]))", "type", "floating-point");
    // an error of the script's own inside a block comes out as it was
    let e = engine().eval::<Dynamic>("checkpoint(|x| throw \"mine\", ones([1]))").unwrap_err();
    assert!(e.to_string().contains("mine"), "{e}");
}

#[test]
fn printing() {
    let text = |s: &str| run(s).to_string();
    let shown = |s: &str| run(&format!("let x = {s}; x.to_string()")).into_string().unwrap();
    assert_eq!(
        shown("tensor([[1.0, -2.5], [0.25, 100.0]])"),
        "[[  1.0000,  -2.5000],\n [  0.2500, 100.0000]]\n[2, 2] f32 cpu, -2.5 … 100"
    );
    assert_eq!(shown("tensor([[1, 2], [3, 4]])"), "[[1, 2],\n [3, 4]]\n[2, 2] i64 cpu, 1 … 4");
    assert_eq!(shown("tensor([1.0, 2.0])"), "[1., 2.]\n[2] f32 cpu, 1 … 2");
    assert_eq!(shown("tensor(0.125)"), "0.125");
    assert_eq!(shown("arange(3000)"), "[   0,    1,    2, …, 2997, 2998, 2999]\n[3000] i64 cpu, 0 … 2999");
    assert_eq!(shown("tensor([1.0, 0.0/0.0])"), "[ 1., nan]\n[2] f32 cpu, 1 … 1, 1 NaN");
    assert_eq!(shown("zeros([0, 2])"), "[]\n[0, 2] f32 cpu");
    assert!(shown("tensor([1e-9, 1.0])").contains("1.0000e-9"));
    assert_eq!(text("`loss ${tensor(0.5)}`"), "loss 0.5");
    assert_eq!(text("ones([2, 3]).to_debug()"), "[2, 3] f32 cpu, 1 … 1");
    let long = shown("zeros([40, 40, 40])");
    assert!(long.len() < 3000 && long.contains('…'), "{long}");
}

#[test]
fn every_function_is_documented() {
    let e = engine();
    let json = e.gen_fn_metadata_to_json(false).unwrap();
    let all: serde_json::Value = serde_json::from_str(&json).unwrap();
    let list = all["functions"].as_array().unwrap();
    assert!(list.len() > 200, "{}", list.len());
    for f in list {
        let doc = f["docComments"][0].as_str().unwrap_or_default();
        assert!(doc.starts_with("/// ") && doc.lines().next().unwrap().ends_with('.'), "{}: {doc:?}", f["signature"]);
    }
}

#[test]
fn constants_captured_tensors_and_arrays_of_them() {
    is("const X = ones([2]); X.sum() + X[0]", &[3.], &[], "f32");
    is("let x = ones([2]); let f = |y| x + y; f.call(1)", &[2., 2.], &[2], "f32");
    is("let list = [ones([2]), zeros([2])]; list.map(|t| t + 1)[1]", &[1., 1.], &[2], "f32");
    is("let list = []; for i in 0..3 { list.push(full([1], i)); } cat(list)", &[0., 1., 2.], &[3], "i64");
}
