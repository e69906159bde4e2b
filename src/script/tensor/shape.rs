//! Shape operations.
use super::{Defs, args, done, heavy, on};
use crate::script::error::RhaiResult;
use crate::tensor::shape::{self, Fill};
use crate::tensor::{aside, nn};
use crate::{Error, Result};
use candle_core::Tensor;
use rhai::{Array, Dynamic, INT};

/// `f(x, list)` with the list given as an array, or as up to six integers.
fn listed(d: &mut Defs, name: &'static str, doc: &str, f: fn(&Tensor, &[i64]) -> Result<Tensor>) {
    d.add(name, "x: Tensor, list: array -> Tensor", doc, move |x: Tensor, l: Dynamic| {
        let list = args::ints(name, &l)?;
        copy(&x, name, &list, f)
    });
    let sig = |n: usize| {
        let list: String = (0..n).map(|i| format!(", n{i}: int")).collect();
        format!("x: Tensor{list} -> Tensor")
    };
    d.add(name, &sig(2), doc, move |x: Tensor, a: INT, b: INT| copy(&x, name, &[a, b], f));
    d.add(name, &sig(3), doc, move |x: Tensor, a: INT, b: INT, c: INT| copy(&x, name, &[a, b, c], f));
    d.add(name, &sig(4), doc, move |x: Tensor, a: INT, b: INT, c: INT, e: INT| copy(&x, name, &[a, b, c, e], f));
}

/// Views are cheap; what copies is not: copies side by side, and a new shape of what does not lie in order.
fn copy(x: &Tensor, name: &str, list: &[i64], f: fn(&Tensor, &[i64]) -> Result<Tensor>) -> RhaiResult<Tensor> {
    let load = match name {
        "repeat" => list.iter().fold(aside::load(&[x]), |n, k| n.saturating_mul(usize::try_from(*k).unwrap_or(1))),
        "reshape" if !x.is_contiguous() => aside::load(&[x]),
        _ => 0,
    };
    let list = list.to_vec();
    heavy(load, [x], move |[x]| f(x, &list))
}

fn flatten(x: &Tensor, start: INT, end: INT) -> RhaiResult<Tensor> {
    let load = if x.is_contiguous() { 0 } else { aside::load(&[x]) };
    heavy(load, [x], move |[x]| shape::flatten(x, start, end))
}

fn join(name: &str, f: fn(&[Tensor], i64) -> Result<Tensor>, list: &Array, dim: i64) -> RhaiResult<Tensor> {
    let list = args::tensors(name, list)?;
    let load = list.iter().map(|t| aside::load(&[t])).sum();
    done(aside::run(load, move || f(&list, dim)))
}

fn fill(name: &str, v: &Dynamic) -> Result<Fill> {
    if let Ok(s) = v.as_immutable_string_ref() {
        return match s.as_str() {
            "reflect" => Ok(Fill::Reflect),
            "replicate" => Ok(Fill::Replicate),
            other => Err(Error::unknown("padding mode", other, ["reflect", "replicate"])),
        };
    }
    Ok(Fill::Constant(args::number(name, v)?))
}

fn pieces(list: Result<Vec<Tensor>>) -> RhaiResult<Array> {
    Ok(args::to_array(list?))
}

fn split(x: Tensor, size: Dynamic, dim: INT) -> RhaiResult<Array> {
    match size.as_int() {
        Ok(n) => pieces(shape::split(&x, args::count("split", n)?, dim)),
        Err(_) => pieces(shape::split_sizes(&x, &args::shape("split", &size)?, dim)),
    }
}

pub(super) fn register(d: &mut Defs) {
    let doc = "The same values in a new shape; one size may be −1 and is inferred.\n\nExample: `arange(6).reshape([2, -1])`, `arange(6).reshape(3, 2)`";
    listed(d, "reshape", doc, shape::reshape);
    let doc =
        "The dimensions in a new order.\n\nExample: `zeros([1, 3, 4, 5]).permute([0, 2, 3, 1]).shape` is [1, 4, 5, 3]";
    listed(d, "permute", doc, shape::permute);
    let doc = "Broadcast to a shape; −1 keeps a size.\n\nExample: `arange(3).reshape(1, 3).expand([2, -1])`";
    listed(d, "expand", doc, shape::expand);
    let doc =
        "Copies side by side: how often along each dimension.\n\nExample: `arange(3).reshape(1, 3).repeat([2, 1])`";
    listed(d, "repeat", doc, |x, n| {
        let n = n.iter().map(|n| args::count("repeat", *n)).collect::<Result<Vec<_>>>()?;
        shape::repeat(x, &n)
    });
    let doc = "Two dimensions exchanged.\n\nExample: `zeros([2, 3, 4]).transpose(1, 2).shape` is [2, 4, 3]";
    d.add("transpose", "x: Tensor, a: int, b: int -> Tensor", doc, |x: Tensor, a: INT, b: INT| {
        done(shape::transpose(&x, a, b))
    });
    d.add(
        "t",
        "x: Tensor -> Tensor",
        "The last two dimensions exchanged.\n\nExample: `ones([2, 3]).t().shape` is [3, 2]",
        |x: Tensor| done(shape::t(&x)),
    );
    let doc = "Without dimensions of size 1: all, or those named.\n\nExample: `zeros([1, 3, 1]).squeeze().shape` is [3], `zeros([1, 3, 1]).squeeze(0).shape` is [3, 1]";
    d.add("squeeze", "x: Tensor -> Tensor", doc, |x: Tensor| done(shape::squeeze(&x, None)));
    d.add("squeeze", "x: Tensor, dims: array -> Tensor", doc, |x: Tensor, l: Dynamic| {
        done(shape::squeeze(&x, Some(&args::ints("squeeze", &l)?)))
    });
    let doc = "With a new dimension of size 1.\n\nExample: `arange(3).unsqueeze(0).shape` is [1, 3]";
    d.add("unsqueeze", "x: Tensor, dim: int -> Tensor", doc, |x: Tensor, a: INT| done(shape::unsqueeze(&x, a)));
    let doc = "Dimensions `start` (0) to `end` (the last) merged into one.\n\nExample: `zeros([2, 3, 4]).flatten(1, -1).shape` is [2, 12]";
    d.add("flatten", "x: Tensor -> Tensor", doc, |x: Tensor| flatten(&x, 0, -1));
    d.add("flatten", "x: Tensor, start: int -> Tensor", doc, |x: Tensor, s: INT| flatten(&x, s, -1));
    d.add("flatten", "x: Tensor, start: int, end: int -> Tensor", doc, |x: Tensor, s: INT, e: INT| flatten(&x, s, e));
    let doc = "Reversed along dimensions.\n\nExample: `arange(3).flip(-1)` is [2, 1, 0]";
    d.add("flip", "x: Tensor, dims: array -> Tensor", doc, |x: Tensor, l: Dynamic| {
        let dims = args::ints("flip", &l)?;
        on([&x], move |[x]| shape::flip(x, &dims))
    });
    let doc = "Shifted along a dimension, round the end.\n\nExample: `arange(4).roll(1, 0)` is [3, 0, 1, 2]";
    d.add("roll", "x: Tensor, shift: int, dim: int -> Tensor", doc, |x: Tensor, n: INT, a: INT| {
        on([&x], move |[x]| shape::roll(x, n, a))
    });
    let doc = "Padded along `dim` by `before` and `after` values: 0, another number, \"reflect\" or \"replicate\".\n\n\
               Example: `ones([3]).pad(-1, 1, 1)`, `arange(3).pad(-1, 1, 1, \"reflect\")`";
    let pad = |x: Tensor, dim: INT, b: INT, a: INT, f: Dynamic| -> RhaiResult<Tensor> {
        let (b, a) = (args::count("pad", b)?, args::count("pad", a)?);
        let f = fill("pad", &f)?;
        heavy(aside::load(&[&x]).saturating_mul(1 + b.max(a)), [&x], move |[x]| shape::pad(x, dim, b, a, f))
    };
    d.add(
        "pad",
        "x: Tensor, dim: int, before: int, after: int -> Tensor",
        doc,
        move |x: Tensor, dim: INT, b: INT, a: INT| pad(x, dim, b, a, Dynamic::from_float(0.0)),
    );
    d.add("pad", "x: Tensor, dim: int, before: int, after: int, fill: number -> Tensor", doc, pad);
    let doc = "Images padded by [left, right, top, bottom] with 0, another number, \"reflect\" or \"replicate\".\n\n\
               Example: `ones([1, 1, 4, 4]).pad2d([1, 1, 0, 0], \"reflect\").shape` is [1, 1, 4, 6]";
    let pad2d = |x: Tensor, s: Dynamic, f: Dynamic| -> RhaiResult<Tensor> {
        let sides = args::shape("pad2d", &s)?;
        let Ok(sides) = <[usize; 4]>::try_from(sides) else {
            return Err(args::wrong_type("pad2d", "[left, right, top, bottom]", &s).into());
        };
        let f = fill("pad2d", &f)?;
        let load = sides.iter().fold(aside::load(&[&x]), |n, s| n.saturating_mul(1 + s));
        heavy(load, [&x], move |[x]| nn::pad2d(x, sides, f))
    };
    d.add("pad2d", "x: Tensor, sides: array -> Tensor", doc, move |x: Tensor, s: Dynamic| {
        pad2d(x, s, Dynamic::from_float(0.0))
    });
    d.add("pad2d", "x: Tensor, sides: array, fill: number -> Tensor", doc, pad2d);

    for (name, f, doc) in [
        (
            "cat",
            shape::cat as fn(&[Tensor], i64) -> Result<Tensor>,
            "Tensors joined along an existing dimension (0).\n\nExample: `cat([ones([2, 3]), zeros([2, 1])], 1).shape` is [2, 4]",
        ),
        (
            "stack",
            shape::stack,
            "Tensors of one shape joined along a new dimension (0).\n\nExample: `stack([arange(3), arange(3)]).shape` is [2, 3]",
        ),
    ] {
        d.add(name, "tensors: array -> Tensor", doc, move |l: Array| join(name, f, &l, 0));
        d.add(name, "tensors: array, dim: int -> Tensor", doc, move |l: Array, dim: INT| join(name, f, &l, dim));
    }
    let doc = "Pieces of a size (the last may be smaller), or of the sizes in an array, along `dim` (0).\n\n\
               Example: `arange(5).split(2)`, `zeros([2, 4]).split([1, 3], 1)`";
    d.add("split", "x: Tensor, size: int -> array", doc, |x: Tensor, n: Dynamic| split(x, n, 0));
    d.add("split", "x: Tensor, size: int, dim: int -> array", doc, split);
    let doc = "`n` pieces of equal size along `dim` (0); the last may be smaller.\n\nExample: `arange(6).chunk(2)`";
    d.add("chunk", "x: Tensor, n: int -> array", doc, |x: Tensor, n: INT| {
        pieces(shape::chunk(&x, args::count("chunk", n)?, 0))
    });
    d.add("chunk", "x: Tensor, n: int, dim: int -> array", doc, |x: Tensor, n: INT, dim: INT| {
        pieces(shape::chunk(&x, args::count("chunk", n)?, dim))
    });
}
