//! Reductions, sorting, matrix products.
use super::{Defs, args, done, on};
use crate::Error;
use crate::script::error::RhaiResult;
use crate::tensor::reduce::{self, Reduction};
use crate::tensor::{aside, einsum, linalg, sort};
use candle_core::Tensor;
use rhai::{Array, Dynamic, FLOAT, INT};

const REDUCTIONS: [(&str, Reduction, &str); 9] = [
    ("sum", reduce::sum, "The sum."),
    ("mean", reduce::mean, "The mean, floating point."),
    ("variance", reduce::var, "The variance, with n − 1 in the denominator as in PyTorch."),
    ("std", reduce::std, "The standard deviation, with n − 1 in the denominator as in PyTorch."),
    ("prod", reduce::prod, "The product."),
    ("norm", reduce::norm, "The Euclidean norm √Σx² (gradient 0 at 0)."),
    ("logsumexp", reduce::logsumexp, "ln Σ e^x, without overflow."),
    ("max", reduce::max, "The largest value (NaN if any is); ties share the gradient."),
    ("min", reduce::min, "The smallest value (NaN if any is); ties share the gradient."),
];

fn over(name: &str, f: Reduction, x: &Tensor, dims: &Dynamic, keepdim: bool) -> RhaiResult<Tensor> {
    if dims.is::<Tensor>() {
        let e = args::wrong_type(name, "dimensions", dims);
        return Err(e.hint("of two tensors element by element: `maximum(a, b)`, `minimum(a, b)`").into());
    }
    let dims = args::dims(name, dims)?;
    on([x], move |[x]| f(x, dims.as_deref(), keepdim))
}

fn truth(t: Tensor) -> RhaiResult<bool> {
    Ok(t.to_scalar::<u8>().map_err(Error::from)? != 0)
}

pub(super) fn register(d: &mut Defs) {
    for (name, f, doc) in REDUCTIONS {
        let doc = format!(
            "{doc}\n\nOf all values, or over `dims` (an integer, an array, or () for all), which stay with size 1 if \
             `keepdim`.\n\nExample: `let x = randn([2, 3, 4], #{{ seed: 0 }}); x.{name}()`, `x.{name}(-1)`, `x.{name}([1, 2], true)`"
        );
        d.add(name, "x: Tensor -> Tensor", &doc, move |x: Tensor| on([&x], move |[x]| f(x, None, false)));
        d.add(name, "x: Tensor, dims: array -> Tensor", &doc, move |x: Tensor, v: Dynamic| {
            over(name, f, &x, &v, false)
        });
        d.add(name, "x: Tensor, dims: array, keepdim: bool -> Tensor", &doc, move |x: Tensor, v: Dynamic, k: bool| {
            over(name, f, &x, &v, k)
        });
    }
    for (name, f, doc) in [
        (
            "all",
            reduce::all as Reduction,
            "Whether all values are not 0: true or false, or a mask when over `dims`.\n\nExample: `all(tensor([1, 2]) > 0)` is true",
        ),
        (
            "any",
            reduce::any,
            "Whether any value is not 0: true or false, or a mask when over `dims`.\n\nExample: `any(tensor([1, 2]) > 5)` is false",
        ),
    ] {
        d.add(name, "x: Tensor -> bool", doc, move |x: Tensor| truth(on([&x], move |[x]| f(x, None, false))?));
        d.add(name, "x: Tensor, dims: array -> Tensor", doc, move |x: Tensor, v: Dynamic| over(name, f, &x, &v, false));
        d.add(name, "x: Tensor, dims: array, keepdim: bool -> Tensor", doc, move |x: Tensor, v: Dynamic, k: bool| {
            over(name, f, &x, &v, k)
        });
    }
    for (name, root) in [("variance", false), ("std", true)] {
        let doc = "With `correction` subtracted from n in the denominator (0: numpy's default).";
        d.add(
            name,
            "x: Tensor, dims: array, keepdim: bool, correction: number -> Tensor",
            doc,
            move |x: Tensor, v: Dynamic, k: bool, c: Dynamic| {
                let dims = args::dims(name, &v)?;
                let c = args::number(name, &c)?;
                on([&x], move |[x]| {
                    let var = reduce::var_corrected(x, dims.as_deref(), k, c)?;
                    if root { reduce::root(&var) } else { Ok(var) }
                })
            },
        );
    }
    for (name, max) in [("argmax", true), ("argmin", false)] {
        let doc = format!(
            "Where the extreme value is (the first of equals), i64.\n\nOf all values, counted row by row, or along `dim`.\n\nExample: `tensor([[3, 1], [2, 4]]).{name}(-1)`"
        );
        d.add(name, "x: Tensor -> Tensor", &doc, move |x: Tensor| {
            on([&x], move |[x]| reduce::arg_extremum(x, None, false, max))
        });
        d.add(name, "x: Tensor, dim: int -> Tensor", &doc, move |x: Tensor, dim: INT| {
            on([&x], move |[x]| reduce::arg_extremum(x, Some(dim), false, max))
        });
        d.add(name, "x: Tensor, dim: int, keepdim: bool -> Tensor", &doc, move |x: Tensor, dim: INT, k: bool| {
            on([&x], move |[x]| reduce::arg_extremum(x, Some(dim), k, max))
        });
    }
    let doc = "Running sums along `dim`.\n\nExample: `tensor([1, 2, 3]).cumsum(0)` is [1, 3, 6]";
    d.add("cumsum", "x: Tensor, dim: int -> Tensor", doc, |x: Tensor, dim: INT| {
        on([&x], move |[x]| reduce::cumsum(x, dim))
    });

    for (name, f) in
        [("sort", sort::sort as fn(&Tensor, i64, bool) -> crate::Result<Tensor>), ("argsort", sort::argsort)]
    {
        let doc = "In ascending order along `dim` (the last), or descending; NaN sorts last, equals keep their order.\n\n\
                   `sort` gives the values, `argsort` their places (i64).\n\nExample: `let x = tensor([2.0, 3.0, 1.0]); x.sort()`, `x.argsort(0, true)`";
        d.add(name, "x: Tensor -> Tensor", doc, move |x: Tensor| on([&x], move |[x]| f(x, -1, false)));
        d.add(name, "x: Tensor, dim: int -> Tensor", doc, move |x: Tensor, dim: INT| {
            on([&x], move |[x]| f(x, dim, false))
        });
        d.add(name, "x: Tensor, dim: int, descending: bool -> Tensor", doc, move |x: Tensor, dim: INT, r: bool| {
            on([&x], move |[x]| f(x, dim, r))
        });
    }
    let doc = "The q-quantile, linear between neighbours as in numpy; of all values, or along `dim`.\n\n\
               Example: `arange(5).quantile(0.25)` is 1";
    let quantile = |x: Tensor, q: Dynamic, dim: Dynamic, k: bool| -> RhaiResult<Tensor> {
        let dim = if dim.is_unit() { None } else { args::ints("quantile", &dim)?.first().copied() };
        let q = args::number("quantile", &q)?;
        on([&x], move |[x]| sort::quantile(x, q, dim, k))
    };
    d.add("quantile", "x: Tensor, q: number -> Tensor", doc, move |x: Tensor, q: Dynamic| {
        quantile(x, q, Dynamic::UNIT, false)
    });
    d.add("quantile", "x: Tensor, q: number, dim: int -> Tensor", doc, move |x: Tensor, q: Dynamic, dim: INT| {
        quantile(x, q, dim.into(), false)
    });
    d.add(
        "quantile",
        "x: Tensor, q: number, dim: int, keepdim: bool -> Tensor",
        doc,
        move |x: Tensor, q: Dynamic, dim: INT, k: bool| quantile(x, q, dim.into(), k),
    );
    let doc = "The median (the mean of the middle two, as in numpy); of all values, or along `dim`.\n\nExample: `tensor([1, 2, 10]).median()` is 2";
    let half: FLOAT = 0.5;
    d.add("median", "x: Tensor -> Tensor", doc, move |x: Tensor| {
        on([&x], move |[x]| sort::quantile(x, half, None, false))
    });
    d.add("median", "x: Tensor, dim: int -> Tensor", doc, move |x: Tensor, dim: INT| {
        on([&x], move |[x]| sort::quantile(x, half, Some(dim), false))
    });

    let doc = "The matrix product, broadcast over leading dimensions; vectors are rows on the left, columns on the \
               right.\n\nErrors where the inner sizes differ, with both shapes.\n\nExample: `matmul(ones([2, 3]), ones([3, 4]))`, `ones([3]).dot(arange(3))`";
    for name in ["matmul", "dot"] {
        d.add(name, "a: Tensor, b: Tensor -> Tensor", doc, |a: Tensor, b: Tensor| {
            on([&a, &b], |[a, b]| linalg::matmul(a, b))
        });
    }
    let doc = "Einstein summation: one letter for each dimension; letters missing from the output are summed.\n\n\
               Example: `einsum(\"bij,bjk->bik\", [ones([2, 3, 4]), ones([2, 4, 5])])`";
    d.add("einsum", "spec: string, operands: array -> Tensor", doc, |spec: &str, list: Array| {
        let (spec, list) = (spec.to_string(), args::tensors("einsum", &list)?);
        let load = aside::load_of_pairs(&list.iter().collect::<Vec<_>>());
        done(aside::run(load, move || einsum::einsum(&spec, &list)))
    });
}
