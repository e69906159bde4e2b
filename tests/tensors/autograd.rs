//! Gradients of every differentiable operation against central differences in f64, on contiguous and strided inputs; the
//! record tape; checkpoints; long chains.
use candle_core::{DType, Device, Tensor};
use ld3sh::host::{Host, Quiet};
use ld3sh::tensor::arith::{self, Op};
use ld3sh::tensor::conv::{Geometry, conv_transpose2d, conv2d};
use ld3sh::tensor::grad::{self, checkpoint, grad, live_records, no_grad, record, variable, vjp};
use ld3sh::tensor::index::{self, Index};
use ld3sh::tensor::shape::{self, Fill};
use ld3sh::tensor::{create, custom, einsum, elementwise as el, linalg, nn, pool, random, reduce, sort};
use ld3sh::{Error, Kind, Result};
use std::cell::Cell;
use std::rc::Rc;

const F64: DType = DType::F64;

fn normal(seed: u64, shape: &[usize]) -> Tensor {
    random::normal(seed, 0, shape, 0, F64, &Device::Cpu).unwrap()
}
fn values(t: &Tensor) -> Vec<f64> {
    create::to_f64(t).unwrap()
}
fn t1(v: &[f64]) -> Tensor {
    Tensor::new(v, &Device::Cpu).unwrap()
}

/// How an operation's argument lies in memory: the variable behind it, and the view of it.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Plain,
    Transposed,
    Narrowed,
}
impl Layout {
    fn behind(self, x: &Tensor) -> Tensor {
        match self {
            Layout::Transposed if x.rank() >= 2 => x.t().unwrap().contiguous().unwrap(),
            Layout::Narrowed if x.rank() >= 1 => {
                let d = x.rank() - 1;
                shape::pad(x, d as i64, 1, 2, Fill::Constant(0.3)).unwrap()
            }
            _ => x.clone(),
        }
    }
    fn view(self, v: &Tensor) -> Tensor {
        match self {
            Layout::Transposed if v.rank() >= 2 => v.t().unwrap(),
            Layout::Narrowed if v.rank() >= 1 => {
                let d = v.rank() - 1;
                v.narrow(d, 1, v.dims()[d] - 3).unwrap()
            }
            _ => v.clone(),
        }
    }
}

/// Compares the gradient of ⟨w, f(inputs)⟩ with central differences, relative to the largest of each.
fn check(name: &str, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    for layout in [Layout::Plain, Layout::Transposed, Layout::Narrowed] {
        let behind: Vec<Tensor> = inputs.iter().map(|x| layout.behind(x)).collect();
        let loss = |vars: &[Tensor]| -> Tensor {
            let views: Vec<Tensor> = vars.iter().map(|v| layout.view(v)).collect();
            let y = f(&views).unwrap_or_else(|e| panic!("{name} {layout:?}: {e}"));
            let w = normal(99, y.dims());
            (y * w).unwrap().sum_all().unwrap()
        };
        let vars: Vec<Tensor> = behind.iter().map(|b| variable(b).unwrap()).collect();
        let grads = grad(&Quiet, &loss(&vars), &vars).unwrap_or_else(|e| panic!("{name} {layout:?}: {e}"));
        for (k, b) in behind.iter().enumerate() {
            let base = values(b);
            let h = 1e-5;
            let numeric: Vec<f64> = (0..base.len())
                .map(|i| {
                    let at = |d: f64| {
                        let mut v = base.clone();
                        v[i] += d;
                        let mut all = behind.clone();
                        all[k] = Tensor::from_vec(v, b.dims(), &Device::Cpu).unwrap();
                        values(&loss(&all))[0]
                    };
                    // fourth order
                    (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
                })
                .collect();
            let got = values(&grads[k]);
            let scale = numeric.iter().fold(1e-3f64, |a, b| a.max(b.abs()));
            for (i, (g, n)) in got.iter().zip(&numeric).enumerate() {
                let off = (g - n).abs() / scale;
                assert!(off < 1e-7, "{name} {layout:?}: input {k}, entry {i}: {g} against {n} (off {off:.1e})");
            }
        }
    }
}

fn one(x: &Tensor) -> &[Tensor] {
    std::slice::from_ref(x)
}

#[test]
#[should_panic(expected = "square, wrongly")]
fn a_wrong_gradient_is_seen() {
    check("square, wrongly", one(&normal(0, &[3])), |v| {
        custom::op1("wrong", &v[0], v[0].detach().sqr()?, |x, _, g| Ok(((g * x)? * 2.0001)?))
    });
}

type Case1 = (&'static str, fn(&Tensor) -> Result<Tensor>);

#[test]
fn element_wise_functions() {
    // away from kinks: every value at least 0.05 from an integer
    let spread = |shape: &[usize]| {
        let v = values(&normal(1, shape)).into_iter().map(|v| if (v - v.round()).abs() < 0.05 { v + 0.1 } else { v });
        Tensor::from_vec(v.collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
    };
    let anywhere: [Case1; 25] = [
        ("exp", el::exp),
        ("square", el::square),
        ("sin", el::sin),
        ("cos", el::cos),
        ("tanh", el::tanh),
        ("erf", el::erf),
        ("atan", el::atan),
        ("sinh", el::sinh),
        ("cosh", el::cosh),
        ("expm1", el::expm1),
        ("abs", el::abs),
        ("sign", el::sign),
        ("floor", el::floor),
        ("ceil", el::ceil),
        ("round", el::round),
        ("trunc", el::trunc),
        ("sigmoid", el::sigmoid),
        ("relu", el::relu),
        ("silu", el::silu),
        ("gelu", el::gelu),
        ("gelu_tanh", el::gelu_tanh),
        ("softplus", el::softplus),
        ("recip", el::recip),
        ("neg", arith::neg),
        ("clamp", |x| el::clamp(x, Some(-0.5), Some(0.8))),
    ];
    for shape in [&[5][..], &[3, 4], &[2, 3, 2]] {
        for (name, f) in anywhere {
            check(name, &[spread(shape)], |x| f(&x[0]));
        }
    }
    let positive: [Case1; 9] = [
        ("log", el::log),
        ("log2", el::log2),
        ("log10", el::log10),
        ("log1p", el::log1p),
        ("sqrt", el::sqrt),
        ("rsqrt", el::rsqrt),
        ("x^2.5", |x| el::powf(x, 2.5)),
        ("x^-1.5", |x| el::powf(x, -1.5)),
        ("tan", |x| el::tan(&(x * 0.3)?)),
    ];
    for (name, f) in positive {
        check(name, &[normal(2, &[3, 3]).abs().unwrap().affine(1.0, 0.4).unwrap()], |x| f(&x[0]));
    }
    let inside: [Case1; 2] = [("asin", el::asin), ("acos", el::acos)];
    for (name, f) in inside {
        check(name, &[normal(3, &[3, 3]).tanh().unwrap().affine(0.8, 0.0).unwrap()], |x| f(&x[0]));
    }
    for e in [0.0, 1.0, 2.0, 3.0] {
        check("whole power of any sign", &[normal(4, &[3, 3])], |x| el::powf(&x[0], e));
    }
}

#[test]
fn gradients_at_kinks_are_those_of_pytorch() {
    let at = |v: &[f64], f: &dyn Fn(&Tensor) -> Result<Tensor>| {
        let x = variable(&t1(v)).unwrap();
        let loss = f(&x).unwrap().sum_all().unwrap();
        values(&grad(&Quiet, &loss, std::slice::from_ref(&x)).unwrap()[0])
    };
    assert_eq!(at(&[0.0, -1.0], &el::abs), [0.0, -1.0]);
    assert_eq!(at(&[0.0, 1.0], &el::relu), [0.0, 1.0]);
    assert_eq!(at(&[1.0, 2.0], &|x| el::clamp(x, None, Some(1.0))), [1.0, 0.0]);
    assert_eq!(at(&[2.0, 2.0, 1.0], &|x| reduce::max(x, None, false)), [0.5, 0.5, 0.0]);
    assert_eq!(at(&[2.0, 1.0, 1.0], &|x| reduce::min(x, None, false)), [0.0, 0.5, 0.5]);
    assert_eq!(at(&[0.0, 0.0], &|x| reduce::norm(x, None, false)), [0.0, 0.0]);
    assert_eq!(at(&[3.0, 3.0], &|x| reduce::std(x, None, false)), [0.0, 0.0]);
    assert_eq!(at(&[0.0, 3.0, 2.0], &|x| reduce::prod(x, None, false)), [6.0, 0.0, 0.0]);
    assert_eq!(at(&[0.0, 2.0], &|x| el::powf(x, 0.0)), [0.0, 0.0]);
    assert_eq!(at(&[0.0], &el::sqrt), [f64::INFINITY]);
    let same = |x: &Tensor| arith::binary(Op::Maximum, x, &t1(&[1.0, 0.0]));
    assert_eq!(at(&[1.0, 1.0], &same), [0.5, 1.0]);
    // what `where` did not choose may be NaN
    let safe = |x: &Tensor| arith::where_(&arith::compare(arith::CmpOp::Gt, x, 0.0)?, &el::log(x)?, 0.0);
    let g = at(&[-1.0, 2.0], &safe);
    assert_eq!(g, [0.0, 0.5]);
}

#[test]
fn arithmetic_with_broadcasting() {
    let shapes: [(&[usize], &[usize]); 4] =
        [(&[2, 3], &[2, 3]), (&[2, 3], &[3]), (&[2, 1, 3], &[4, 1]), (&[], &[2, 2])];
    for (a, b) in shapes {
        let (x, y) = (normal(5, a), normal(6, b));
        let positive = |t: &Tensor| t.abs().unwrap().affine(1.0, 0.5).unwrap();
        for op in [Op::Add, Op::Sub, Op::Mul, Op::Maximum, Op::Minimum] {
            check(&format!("{op:?}"), &[x.clone(), y.clone()], |v| arith::binary(op, &v[0], &v[1]));
        }
        check("/", &[x.clone(), positive(&y)], |v| arith::binary(Op::Div, &v[0], &v[1]));
        check("**", &[positive(&x), y.clone()], |v| arith::binary(Op::Pow, &v[0], &v[1]));
        check("%", &[x.clone(), positive(&y).affine(3.0, 0.0).unwrap()], |v| arith::binary(Op::Rem, &v[0], &v[1]));
        check("where", &[x.clone(), y.clone()], |v| {
            arith::where_(&arith::compare(arith::CmpOp::Gt, &v[1].detach(), 0.1)?, &v[0], &v[1])
        });
    }
    let x = normal(7, &[2, 3]);
    for op in [Op::Add, Op::Sub, Op::Mul, Op::Div] {
        check("tensor, number", one(&x), |v| arith::binary(op, &v[0], 1.7));
        check("number, tensor", one(&x), |v| arith::binary(op, 1.7, &v[0]));
        check("constant operand", one(&x), |v| arith::binary(op, &normal(8, &[3]), &v[0]));
    }
    check("2 ** x", one(&x), |v| arith::binary(Op::Pow, 2.0, &v[0]));
    check("x * 0", &[x], |v| arith::binary(Op::Mul, &v[0], 0.0));
}

#[test]
fn reductions() {
    type F = fn(&Tensor, Option<&[i64]>, bool) -> Result<Tensor>;
    let list: [(&str, F); 9] = [
        ("sum", reduce::sum),
        ("mean", reduce::mean),
        ("var", reduce::var),
        ("std", reduce::std),
        ("prod", reduce::prod),
        ("norm", reduce::norm),
        ("logsumexp", reduce::logsumexp),
        ("max", reduce::max),
        ("min", reduce::min),
    ];
    let x = normal(9, &[3, 2, 4]);
    for (name, f) in list {
        for dims in [None, Some(&[0i64][..]), Some(&[-1]), Some(&[0, 2]), Some(&[1])] {
            for keep in [false, true] {
                check(name, one(&x), |v| f(&v[0], dims, keep));
            }
        }
    }
    for d in 0..3 {
        check("cumsum", one(&x), |v| reduce::cumsum(&v[0], d));
        check("sort", one(&x), |v| sort::sort(&v[0], d, d == 1));
        check("quantile", one(&x), |v| sort::quantile(&v[0], 0.37, Some(d), false));
        check("softmax", one(&x), |v| nn::softmax(&v[0], d));
        check("log_softmax", one(&x), |v| nn::log_softmax(&v[0], d));
    }
    check("median", &[x], |v| sort::quantile(&v[0], 0.5, None, false));
    check("product with zeros", &[t1(&[0.0, 2.0, 3.0, 0.5, -1.0])], |v| reduce::prod(&v[0], None, false));
}

#[test]
fn shapes_and_indices() {
    let x = normal(10, &[3, 2, 4]);
    let cases: [Case1; 20] = [
        ("reshape", |x| shape::reshape(x, &[4, -1])),
        ("permute", |x| shape::permute(x, &[2, 0, 1])),
        ("transpose", |x| shape::transpose(x, 0, -1)),
        ("unsqueeze", |x| shape::squeeze(&shape::unsqueeze(x, 1)?, None)),
        ("flatten", |x| shape::flatten(x, 1, -1)),
        ("expand", |x| shape::expand(&shape::unsqueeze(x, 0)?, &[5, -1, -1, -1])),
        ("repeat", |x| shape::repeat(x, &[2, 1, 3, 1])),
        ("flip", |x| shape::flip(x, &[0, 2])),
        ("roll", |x| shape::roll(x, -3, 2)),
        ("cat", |x| shape::cat(&[x.clone(), (x * 2.0)?, x.clone()], 1)),
        ("stack", |x| shape::stack(&[x.clone(), (x * 2.0)?], -1)),
        ("split", |x| Ok(shape::split(x, 2, 0)?.remove(1))),
        ("chunk", |x| Ok(shape::chunk(x, 3, 2)?.remove(0))),
        ("pad", |x| shape::pad(x, 1, 2, 1, Fill::Constant(3.0))),
        ("pad reflect", |x| shape::pad(x, 2, 2, 3, Fill::Reflect)),
        ("pad replicate", |x| shape::pad(x, 0, 2, 3, Fill::Replicate)),
        ("select", |x| index::get(x, &[Index::All, Index::At(-1)])),
        ("slice", |x| index::get(x, &[Index::Slice(Some(1), None, 1), Index::All, Index::Slice(None, None, -2)])),
        ("list with repeats", |x| {
            let at = Tensor::new(&[[2i64, 0], [2, 2]], &Device::Cpu)?;
            index::get(x, &[Index::All, Index::New, Index::At(0), Index::List(at)])
        }),
        ("mask", |x| {
            let m = arith::compare(arith::CmpOp::Gt, &normal(11, x.dims()), 0.0)?;
            index::get(x, &[Index::Mask(m)])
        }),
    ];
    for (name, f) in cases {
        check(name, one(&x), |v| f(&v[0]));
    }
    check("gather", one(&x), |v| {
        index::gather(&v[0], 2, &Tensor::new(&[[[0i64, -1, 0], [1, 1, 2]]], &Device::Cpu)?.repeat((3, 1, 1))?)
    });
    let ids = Index::List(Tensor::new(&[1i64, 0, 1], &Device::Cpu).unwrap());
    for (at, part) in [
        (vec![Index::At(1)], vec![2, 4]),
        (vec![Index::Slice(Some(0), Some(2), 1)], vec![2, 1, 4]),
        (vec![Index::All, Index::At(0), Index::Slice(None, None, 3)], vec![2]),
        // the last of two values for one place counts
        (vec![ids], vec![3, 2, 4]),
    ] {
        check("assignment", &[x.clone(), normal(12, &part)], |v| index::set(&v[0], &at, &(&v[1]).into()));
    }
    check("assignment of a number", one(&x), |v| index::set(&v[0], &[Index::At(0)], &2.0.into()));
    check("embedding", &[normal(13, &[5, 3])], |v| {
        index::embedding(&v[0], &Tensor::new(&[[0i64, 4], [4, 4]], &Device::Cpu)?)
    });
}

#[test]
fn products() {
    let shapes: [(&[usize], &[usize]); 8] = [
        (&[2, 3], &[3, 4]),
        (&[3], &[3]),
        (&[2, 3], &[3]),
        (&[3], &[3, 2]),
        (&[4, 2, 3], &[3, 2]),
        (&[4, 2, 3], &[4, 3, 2]),
        (&[2, 1, 2, 3], &[4, 3, 2]),
        (&[2, 3], &[4, 3, 2]),
    ];
    for (a, b) in shapes {
        check(&format!("matmul {a:?} {b:?}"), &[normal(14, a), normal(15, b)], |v| linalg::matmul(&v[0], &v[1]));
    }
    let specs: [(&str, &[&[usize]]); 8] = [
        ("ij,jk->ik", &[&[2, 3], &[3, 2]]),
        ("bij,bjk->kbi", &[&[2, 2, 3], &[2, 3, 2]]),
        ("ii->i", &[&[3, 3]]),
        ("iij->j", &[&[2, 2, 3]]),
        ("ij,j,i->", &[&[2, 3], &[3], &[2]]),
        ("i,j", &[&[2], &[3]]),
        ("ij->ji", &[&[2, 3]]),
        ("abc,cd,ade->be", &[&[2, 2, 3], &[3, 2], &[2, 2, 2]]),
    ];
    for (spec, shapes) in specs {
        let args: Vec<Tensor> = shapes.iter().enumerate().map(|(i, s)| normal(20 + i as u64, s)).collect();
        check(spec, &args, |v| einsum::einsum(spec, v));
    }
}

#[test]
fn convolutions() {
    let g = |stride, padding, dilation, groups| Geometry { stride, padding, dilation, groups };
    // uneven sizes: rows and columns leave different rests
    for (geometry, w) in [
        (g(1, 0, 1, 1), [2, 4, 3, 3]),
        (g(2, 1, 1, 1), [2, 4, 3, 2]),
        (g(2, 0, 2, 2), [2, 2, 2, 2]),
        (g(3, 2, 1, 4), [4, 1, 2, 3]),
        (g(1, 3, 1, 1), [1, 4, 2, 2]),
    ] {
        let (x, w) = (normal(16, &[2, 4, 6, 5]), normal(17, &w));
        let b = normal(18, &[w.dims()[0]]);
        check(&format!("conv2d {geometry:?}"), &[x, w, b], |v| conv2d(&v[0], &v[1], Some(&v[2]), geometry));
    }
    for (geometry, extra, w) in
        [(g(1, 0, 1, 1), 0, [4, 2, 3, 3]), (g(2, 1, 1, 1), 1, [4, 2, 3, 2]), (g(3, 1, 2, 2), 2, [4, 1, 2, 3])]
    {
        let (x, w) = (normal(16, &[2, 4, 3, 2]), normal(17, &w));
        let b = normal(18, &[w.dims()[1] * geometry.groups]);
        let name = format!("conv_transpose2d {geometry:?}");
        check(&name, &[x, w, b], |v| conv_transpose2d(&v[0], &v[1], Some(&v[2]), geometry, extra));
    }
}

#[test]
fn layers() {
    let x = normal(19, &[2, 4, 3, 2]);
    let (w, b) = (normal(20, &[4]), normal(21, &[4]));
    check("group_norm", &[x.clone(), w, b], |v| nn::group_norm(&v[0], 2, Some(&v[1]), Some(&v[2]), 1e-5));
    check("layer_norm", &[normal(22, &[3, 5]), normal(23, &[5]), normal(24, &[5])], |v| {
        nn::layer_norm(&v[0], Some(&v[1]), Some(&v[2]), 1e-5)
    });
    check("layer_norm, plain", &[normal(22, &[3, 5])], |v| nn::layer_norm(&v[0], None, None, 1e-5));
    check("linear", &[normal(25, &[2, 3, 4]), normal(26, &[5, 4]), normal(27, &[5])], |v| {
        nn::linear(&v[0], &v[1], Some(&v[2]))
    });
    let qkv = [normal(28, &[2, 3, 4]), normal(29, &[2, 5, 4]), normal(30, &[2, 5, 3])];
    check("attention", &qkv, |v| nn::attention(&v[0], &v[1], &v[2], None, false, None));
    check("causal attention", &qkv, |v| nn::attention(&v[0], &v[1], &v[2], None, true, Some(0.7)));
    let mask = Tensor::new(&[[1u8, 0, 1, 1, 0]], &Device::Cpu).unwrap();
    check("masked attention", &qkv, |v| nn::attention(&v[0], &v[1], &v[2], Some(&mask), false, None));
    let image = normal(31, &[2, 2, 5, 6]);
    for (window, stride, padding) in [((2, 2), (2, 2), (0, 0)), ((3, 2), (2, 1), (1, 1)), ((2, 3), (3, 4), (0, 1))] {
        check("avg_pool2d", one(&image), |v| pool::avg_pool2d(&v[0], window, stride, padding));
        check("max_pool2d", one(&image), |v| pool::max_pool2d(&v[0], window, stride, padding));
    }
    check("upsample, whole factor", one(&x), |v| nn::upsample_nearest(&v[0], 6, 6));
    check("upsample, any size", one(&x), |v| nn::upsample_nearest(&v[0], 4, 5));
    check("bilinear", one(&x), |v| nn::upsample_bilinear(&v[0], 5, 7, false));
    check("bilinear, corners", one(&x), |v| nn::upsample_bilinear(&v[0], 5, 1, true));
    check("downsample", &[normal(32, &[1, 2, 4, 6])], |v| nn::downsample(&v[0], 2));
    // two uses of one input must add up (candle's upsampling overwrote the first)
    check("used twice", &[x], |v| {
        Ok((nn::upsample_nearest(&v[0], 3, 2)? + (nn::upsample_nearest(&v[0], 3, 2)? * &v[0])?)?)
    });
}

#[test]
fn mixed_precision_flows_back_in_the_variables_dtype() {
    let x = variable(&normal(33, &[4]).to_dtype(DType::F32).unwrap()).unwrap();
    let wide = x.to_dtype(F64).unwrap();
    let y = arith::binary(Op::Mul, &wide, &x).unwrap();
    let g = grad(&Quiet, &y.sum_all().unwrap(), std::slice::from_ref(&x)).unwrap().remove(0);
    assert_eq!(g.dtype(), DType::F32);
    for (g, x) in values(&g).iter().zip(values(&x)) {
        assert!((g - 2.0 * x).abs() < 1e-6);
    }
}

// ---- the record tape ----

/// y = scale·x³ with its derivative by a record, counting pull-backs.
fn cube(x: &Tensor, calls: &Rc<Cell<usize>>) -> Tensor {
    let (y, keep, calls) = (x.detach().powf(3.0).unwrap(), x.detach(), calls.clone());
    record(
        vec![y],
        std::slice::from_ref(x),
        Box::new(move |_, cots| {
            calls.set(calls.get() + 1);
            Ok(vec![cots[0].as_ref().map(|c| (c * (keep.sqr().unwrap() * 3.0).unwrap()).unwrap())])
        }),
    )
    .unwrap()
    .remove(0)
}

#[test]
fn records_of_records_used_twice() {
    let calls = Rc::new(Cell::new(0));
    let before = live_records();
    check("records", &[t1(&[0.5, -1.2])], |v| {
        let a = cube(&v[0], &calls);
        let b = cube(&(&a + &v[0])?, &calls);
        Ok(((&a * &b)? + cube(&b, &calls))?)
    });
    let x = variable(&t1(&[0.5, -1.2])).unwrap();
    let a = cube(&x, &calls);
    let b = cube(&(&a + &x).unwrap(), &calls);
    let loss = (&a * &b).unwrap().sum_all().unwrap();
    calls.set(0);
    let first = values(&grad(&Quiet, &loss, std::slice::from_ref(&x)).unwrap()[0]);
    assert_eq!(calls.get(), 2, "each record is pulled through once");
    let second = values(&grad(&Quiet, &loss, std::slice::from_ref(&x)).unwrap()[0]);
    assert_eq!(first, second, "a graph can be differentiated again");
    assert_eq!(live_records(), before + 2);
    // the loss alone keeps both records
    drop((a, b));
    assert_eq!(live_records(), before + 2);
    assert_eq!(values(&grad(&Quiet, &loss, std::slice::from_ref(&x)).unwrap()[0]), first);
    drop(loss);
    assert_eq!(live_records(), before);
}

#[test]
fn records_leave_in_any_order() {
    let calls = Rc::new(Cell::new(0));
    let before = live_records();
    let x = variable(&t1(&[1.0])).unwrap();
    let (a, b) = (cube(&x, &calls), cube(&x, &calls));
    let c = cube(&a, &calls);
    drop(a);
    assert_eq!(live_records(), before + 3, "the second record holds the first");
    drop(b);
    assert_eq!(live_records(), before + 2);
    drop(c);
    assert_eq!(live_records(), before);
    // several outputs: the record lives until the last is gone, and missing cotangents are None
    let both = record(
        vec![t1(&[1.0]), t1(&[2.0])],
        std::slice::from_ref(&x),
        Box::new(|_, cots| {
            assert!(cots[0].is_none());
            Ok(vec![cots[1].clone()])
        }),
    )
    .unwrap();
    let second = both[1].clone();
    drop(both);
    assert_eq!(live_records(), before + 1);
    assert_eq!(values(&grad(&Quiet, &second, std::slice::from_ref(&x)).unwrap()[0]), [1.0]);
    drop(second);
    assert_eq!(live_records(), before);
}

#[test]
fn nothing_is_recorded_without_need() {
    let calls = Rc::new(Cell::new(0));
    let before = live_records();
    let x = variable(&t1(&[1.0])).unwrap();
    assert!(!cube(&x.detach(), &calls).track_op());
    let y = no_grad(|| cube(&x, &calls));
    assert!(!y.track_op());
    assert_eq!(live_records(), before);
    assert!(!no_grad(|| grad::is_tracked(&x)) && grad::is_tracked(&x));
    let failed: Result<()> = no_grad(|| Err(Error::value("no")));
    assert!(failed.is_err() && grad::enabled(), "an error restores the flag");
}

#[test]
fn what_goes_wrong_inside_a_pull_back_comes_out() {
    let x = variable(&t1(&[1.0])).unwrap();
    let one = std::slice::from_ref(&x);
    let with = |back: fn() -> Result<Vec<Option<Tensor>>>| {
        let y = record(vec![t1(&[1.0])], one, Box::new(move |_, _| back())).unwrap().remove(0);
        grad(&Quiet, &y, one).unwrap_err()
    };
    let e = with(|| Err(Error::value("inside")));
    assert_eq!((e.kind(), e.message()), (Kind::Value, "inside"));
    assert_eq!(with(|| Ok(vec![])).kind(), Kind::Internal);
    assert_eq!(with(|| Ok(vec![Some(t1(&[1.0, 2.0]))])).kind(), Kind::Shape);
    // and the tape is usable afterwards
    assert_eq!(values(&grad(&Quiet, &x, one).unwrap()[0]), [1.0]);
}

#[test]
fn wrong_uses_of_grad_are_explained() {
    let x = variable(&t1(&[1.0, 2.0])).unwrap();
    let e = grad(&Quiet, &x, std::slice::from_ref(&x)).unwrap_err();
    assert_eq!(e.kind(), Kind::Shape);
    assert_eq!(e.shapes_involved(), [vec![2]]);
    let y = (&x * 2.0).unwrap();
    let e = grad(&Quiet, &y.sum_all().unwrap(), std::slice::from_ref(&y)).unwrap_err();
    assert!(e.message().contains("not a variable"), "{e}");
    let e = vjp(&Quiet, &[(y.clone(), t1(&[1.0]))], &[]).unwrap_err();
    assert_eq!(e.shapes_involved(), [vec![2], vec![1]]);
    // a variable that the loss does not depend on
    let other = variable(&t1(&[5.0])).unwrap();
    assert_eq!(values(&grad(&Quiet, &y.sum_all().unwrap(), &[other]).unwrap()[0]), [0.0]);
}

#[test]
fn checkpoints_are_exact_also_in_what_they_capture() {
    let calls = Rc::new(Cell::new(0));
    check("checkpoint", &[t1(&[0.5, -0.7]), t1(&[1.1, 0.3])], |v| {
        let (w, runs) = (v[1].clone(), calls.clone());
        // a recorded result made outside, used inside; a record and another checkpoint made inside
        let outside = cube(&v[1], &calls);
        let f: grad::Block = Rc::new(move |host: &dyn Host, x: &[Tensor]| {
            let (w, runs) = (w.clone(), runs.clone());
            let inner: grad::Block = Rc::new(move |_, x| Ok(vec![(cube(&x[0], &runs) * &w)?.sin()?]));
            let y = checkpoint(host, inner, &[(&x[0] * &x[1])?])?.remove(0);
            Ok(vec![(y * &outside)?])
        });
        Ok((checkpoint(&Quiet, f, &[v[0].clone(), (&v[0] + &v[1])?])?.remove(0) + &v[0])?)
    });
    assert_eq!(live_records(), 0);
    // a function that does not repeat itself is caught
    let n = Rc::new(Cell::new(0.0));
    let x = variable(&t1(&[1.0])).unwrap();
    let f: grad::Block = Rc::new(move |_, x| {
        n.set(n.get() + 1.0);
        Ok(vec![(&x[0] * n.get())?])
    });
    let y = checkpoint(&Quiet, f, std::slice::from_ref(&x)).unwrap().remove(0);
    let e = grad(&Quiet, &y, std::slice::from_ref(&x)).unwrap_err();
    assert!(e.message().contains("another result"), "{e}");
}

/// The engine's thread has this stack.
fn on_large_stack(f: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(1 << 30).spawn(f).unwrap().join().unwrap();
}

#[test]
fn a_chain_of_100_000_operations() {
    on_large_stack(|| {
        let x = variable(&t1(&[1.0])).unwrap();
        let chain = || {
            let mut y = x.clone();
            for i in 0..100_000 {
                y = if i % 2 == 0 { el::sigmoid(&y).unwrap() } else { arith::binary(Op::Add, &y, 1e-6).unwrap() };
            }
            y
        };
        // dropped unused
        drop(chain());
        let y = chain();
        let g = values(&grad(&Quiet, &y, std::slice::from_ref(&x)).unwrap()[0]);
        assert!(g[0].is_finite() && g[0] >= 0.0);
        let mut z = x.clone();
        for _ in 0..100_000 {
            z = (z + &x).unwrap();
        }
        assert_eq!(values(&grad(&Quiet, &z, std::slice::from_ref(&x)).unwrap()[0]), [100_001.0]);
    });
}

#[test]
fn a_chain_of_records() {
    on_large_stack(|| {
        let calls = Rc::new(Cell::new(0));
        let x = variable(&t1(&[1.0])).unwrap();
        let mut y = x.clone();
        for _ in 0..2_000 {
            y = cube(&y, &calls);
        }
        let g = grad(&Quiet, &y, std::slice::from_ref(&x)).unwrap();
        assert_eq!(values(&g[0]), [f64::INFINITY]);
        assert_eq!(calls.get(), 2_000);
        drop(y);
        assert_eq!(live_records(), 0);
    });
}
