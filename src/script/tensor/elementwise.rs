//! Element-wise functions, from one table.
use super::{Defs, args, on};
use crate::nets::pointwise;
use crate::script::error::RhaiResult;
use crate::tensor::dtype::check_size;
use crate::tensor::elementwise::{self as el, Unary};
use candle_core::Tensor;
use rhai::Dynamic;

const FUNCTIONS: [(&str, Unary, &str); 39] = [
    ("exp", el::exp, "e^x."),
    ("expm1", el::expm1, "e^x − 1, exact near 0."),
    ("log", el::log, "The natural logarithm."),
    ("ln", el::log, "The natural logarithm."),
    ("log1p", el::log1p, "ln(1 + x), exact near 0."),
    ("log2", el::log2, "The logarithm to base 2."),
    ("log10", el::log10, "The logarithm to base 10."),
    ("sqrt", el::sqrt, "The square root (NaN below 0; its gradient is infinite at 0)."),
    ("rsqrt", el::rsqrt, "1/√x."),
    ("recip", el::recip, "1/x."),
    ("square", el::square, "x²."),
    ("sqr", el::square, "x²."),
    ("sin", el::sin, "The sine."),
    ("cos", el::cos, "The cosine."),
    ("tan", el::tan, "The tangent."),
    ("asin", el::asin, "The inverse sine."),
    ("acos", el::acos, "The inverse cosine."),
    ("atan", el::atan, "The inverse tangent."),
    ("sinh", el::sinh, "The hyperbolic sine."),
    ("cosh", el::cosh, "The hyperbolic cosine."),
    ("tanh", el::tanh, "The hyperbolic tangent."),
    ("erf", el::erf, "The error function."),
    ("abs", el::abs, "The absolute value (gradient 0 at 0)."),
    ("sign", el::sign, "−1, 0 or 1 (no gradient)."),
    ("floor", el::floor, "The largest integer ≤ x (no gradient)."),
    ("ceil", el::ceil, "The smallest integer ≥ x (no gradient)."),
    ("round", el::round, "The nearest integer, halves to even as in numpy (no gradient)."),
    ("trunc", el::trunc, "x cut towards 0 (no gradient)."),
    ("sigmoid", el::sigmoid, "1/(1 + e^−x)."),
    ("relu", el::relu, "max(x, 0) (gradient 0 at 0)."),
    ("silu", el::silu, "x · sigmoid(x), also called swish."),
    ("gelu", el::gelu, "x Φ(x), exact."),
    ("gelu_tanh", el::gelu_tanh, "GELU's tanh approximation."),
    ("softplus", el::softplus, "ln(1 + e^x), without overflow."),
    ("isnan", el::isnan, "1 where NaN."),
    ("is_nan", el::isnan, "1 where NaN."),
    ("isinf", el::isinf, "1 where infinite."),
    ("isfinite", el::isfinite, "1 where neither NaN nor infinite."),
    ("neg", crate::tensor::arith::neg, "−x."),
];

pub(super) fn register(d: &mut Defs) {
    for (name, f, doc) in FUNCTIONS {
        let x = if name.starts_with("is") { "[1.0, 1.0 / 0.0, 0.0 / 0.0]" } else { "[0.25, 0.5, 1.0]" };
        let doc = format!("{doc} Element by element.\n\nExample: `tensor({x}).{name}()`");
        let kernel = pointwise::kernel(name);
        d.add(name, "x: Tensor -> Tensor", &doc, move |x: Tensor| -> RhaiResult<Tensor> {
            check_size(name, x.dims(), x.dtype())?;
            let kernel = kernel.clone();
            on([&x], move |[x]| pointwise::by(kernel.as_ref(), x, f))
        });
    }
    let doc = "x limited to [low, high]; `()` is no bound. The gradient is 0 outside.\n\nExample: `tensor([-3.0, 0.5, 2.0]).clamp(-1, 1)`, `tensor([-3.0, 2.0]).clamp(0, ())`";
    d.add("clamp", "x: Tensor, low: number, high: number -> Tensor", doc, |x: Tensor, l: Dynamic, h: Dynamic| {
        let bound = |v: &Dynamic| -> RhaiResult<Option<f64>> {
            if v.is_unit() { Ok(None) } else { Ok(Some(args::number("clamp", v)?)) }
        };
        let (l, h) = (bound(&l)?, bound(&h)?);
        on([&x], move |[x]| el::clamp(x, l, h))
    });
}
