//! `x[i]`, `x[0..3]`, `x[[(), 0]]`, assignment, `select`, `slice`, `gather`, and loops over the first dimension.
use super::{Defs, args, done, heavy, on};
use crate::script::error::RhaiResult;
use crate::script::trace::{Watched, noted};
use crate::tensor::aside;
use crate::tensor::device::default_device;
use crate::tensor::index::{self, Index};
use crate::{Error, Kind, Result};
use candle_core::{Device, Tensor};
use rhai::{Array, Dynamic, EvalAltResult, FuncRegistration, INT, Module, Position};
use std::any::TypeId;
use std::ops::{Range, RangeInclusive};

const DOC: &str = "Part of a tensor.\n\n\
    An integer picks one entry (negative: from the end), a range `0..3` or `0..=2` a slice (clipped as in Python), an i64 \
    tensor a list of entries, a mask (u8) the entries where it is not 0. An array holds one of these for each dimension; \
    `()` in it takes the whole dimension, an array in it lists entries.\n\n\
    Assigning makes a new tensor in the variable: no other variable changes.\n\n\
    Example: `let x = arange(6).reshape(2, 3); x[-1]`, `x[0..1]`, `x[[(), 0]]`, `x[x > 2]`, `x[0] = 7`";

/// What `x.name` knows.
const PROPERTIES: [&str; 8] = ["shape", "dtype", "device", "ndim", "size", "len", "T", "tracked"];

/// One entry of an index.
fn entry(v: &Dynamic) -> Result<Index> {
    if v.is_unit() {
        return Ok(Index::All);
    }
    if let Ok(i) = v.as_int() {
        return Ok(Index::At(i));
    }
    if let Some(r) = v.read_lock::<Range<INT>>() {
        return Ok(Index::Slice(Some(r.start), Some(r.end), 1));
    }
    if let Some(r) = v.read_lock::<RangeInclusive<INT>>() {
        // up to and with −1 is up to the end
        let end = if *r.end() == -1 { None } else { Some(r.end().saturating_add(1)) };
        return Ok(Index::Slice(Some(*r.start()), end, 1));
    }
    if let Some(t) = v.read_lock::<Tensor>() {
        return Index::from_tensor(&t);
    }
    if v.is_array() {
        let list = args::ints("an index", v)?;
        let n = list.len();
        return Ok(Index::List(Tensor::from_vec(list, n, &Device::Cpu)?));
    }
    if v.is_string() {
        // `x.name` with a name that is no property ends here too
        let name = v.to_string();
        let e = Error::new(Kind::Name, format!("a tensor has no property `{name}`"));
        return Err(match crate::error::nearest(&name, PROPERTIES) {
            Some(n) => e.hint(format!("did you mean `{n}`?")),
            None if name == "grad" => e.hint("gradients are a function: `grad(loss, x)`"),
            None => e,
        });
    }
    let e = args::wrong_type("an index", "an integer, a range, a tensor or an array of these", v);
    Err(if v.is_float() { e.hint("positions are integers: `x[i.to_int()]`") } else { e })
}

fn entries(v: &Dynamic) -> Result<Vec<Index>> {
    match v.read_lock::<Array>() {
        Some(list) => list.iter().map(entry).collect(),
        None => Ok(vec![entry(v)?]),
    }
}

/// The part of `x` at `at`: a view, or a copy where entries are listed.
fn part(x: &Tensor, at: Vec<Index>) -> RhaiResult<Tensor> {
    let lists = at.iter().map(|i| match i {
        Index::All | Index::At(_) | Index::New | Index::Slice(_, _, 1) => 0,
        Index::Slice(..) | Index::Mask(_) => 1,
        Index::List(t) => t.elem_count(),
    });
    let load = match lists.max() {
        None | Some(0) => 0,
        // each entry may be asked for by each number in a list
        Some(n) => aside::load(&[x]).max(aside::load(&[x]).saturating_mul(n) / 64),
    };
    heavy(load, [x], move |[x]| index::get(x, &at))
}

fn get(x: &mut Tensor, at: Dynamic) -> RhaiResult<Tensor> {
    let at = entries(&at).map_err(|e| match e.kind() == Kind::Name && e.fix().is_none() {
        true => e.hint(format!("a method is called with brackets: `x.{at}()`")),
        false => e,
    })?;
    part(x, at)
}

/// `x[range]`, for the syntax that stands in its place.
pub(in crate::script) fn part_of(x: &Tensor, range: &Dynamic) -> RhaiResult<Tensor> {
    noted("index$get$", &[Dynamic::from(x.clone()), range.clone()], || part(x, entries(range)?))
}

fn set(x: &mut Tensor, at: Dynamic, value: Dynamic) -> RhaiResult<()> {
    if at.is_string() {
        // Rhai tries this for a property without a setter; this very error says that it is read only. So may the value of a
        // property have methods: `x.shape.len()` would write it back
        return Err(EvalAltResult::ErrorIndexingType("Tensor".into(), Position::NONE).into());
    }
    let (at, value) = (entries(&at)?, args::operand("assignment to a part of a tensor", &value)?);
    *x = on([x], move |[x]| index::set(x, &at, &value))?;
    Ok(())
}

fn slice(x: Tensor, dim: INT, start: Dynamic, end: Dynamic, step: INT) -> RhaiResult<Tensor> {
    let bound = |v: &Dynamic| match v.is_unit() {
        true => Ok(None),
        false => v.as_int().map(Some).map_err(|_| args::wrong_type("slice", "an integer or ()", v)),
    };
    part(&x, index::on_dim(&x, dim, Index::Slice(bound(&start)?, bound(&end)?, step))?)
}

fn row(x: &Tensor, i: INT) -> RhaiResult<Tensor> {
    noted("index$get$", &[Dynamic::from(x.clone()), i.into()], || done(index::get(x, &[Index::At(i)])))
}

/// The entries of the first dimension, one after the other.
fn rows(x: Dynamic) -> Box<dyn Iterator<Item = RhaiResult<Dynamic>>> {
    let Some(x) = x.try_cast::<Tensor>() else { return Box::new(std::iter::empty()) };
    match x.dims().first() {
        Some(n) => Box::new((0..*n).map(move |i| Ok(Dynamic::from(row(&x, i as INT)?)))),
        None => {
            let e = Error::new(Kind::Shape, "a scalar tensor has no entries to loop over");
            Box::new(std::iter::once(Err(e.into())))
        }
    }
}

pub(super) fn register(d: &mut Defs) {
    let comment = |doc: &str| doc.lines().map(|l| format!("/// {l}")).collect::<Vec<_>>().join("\n");
    FuncRegistration::new_index_getter()
        .with_params_info(["x: Tensor", "at", "Tensor"])
        .with_comments([comment(DOC)])
        .register_into_engine(d.engine, Watched { name: "index$get$".into(), f: get });
    FuncRegistration::new_index_setter()
        .with_params_info(["x: Tensor", "at", "value", "()"])
        .with_comments([comment(DOC)])
        .register_into_engine(d.engine, Watched { name: "index$set$".into(), f: set });
    let mut module = Module::new();
    module.set_iter_result(TypeId::of::<Tensor>(), rows);
    d.engine.register_global_module(module.into());

    let doc =
        "Entry `i` of dimension `dim`, which disappears.\n\nExample: `arange(6).reshape(2, 3).select(1, 0)` is [0, 3]";
    d.add("select", "x: Tensor, dim: int, i: int -> Tensor", doc, |x: Tensor, dim: INT, i: INT| {
        done(index::on_dim(&x, dim, Index::At(i)).and_then(|ix| index::get(&x, &ix)))
    });
    let doc = "Entries `start` to `end` (exclusive) of dimension `dim`, every `step`-th (1); `()` is the natural bound, \
               negative ones count from the end.\n\nExample: `arange(6).slice(-1, 1, 4)`, `arange(6).slice(0, (), (), 2)`";
    d.add(
        "slice",
        "x: Tensor, dim: int, start: int, end: int -> Tensor",
        doc,
        |x: Tensor, dim: INT, a: Dynamic, b: Dynamic| slice(x, dim, a, b, 1),
    );
    d.add("slice", "x: Tensor, dim: int, start: int, end: int, step: int -> Tensor", doc, slice);
    let doc = "`len` entries of dimension `dim` from `start`; all must exist.\n\nExample: `arange(6).narrow(0, 2, 3)` is [2, 3, 4]";
    d.add(
        "narrow",
        "x: Tensor, dim: int, start: int, len: int -> Tensor",
        doc,
        |x: Tensor, dim: INT, a: INT, n: INT| -> RhaiResult<Tensor> {
            done(index::narrow(&x, dim, args::count("narrow", a)?, args::count("narrow", n)?))
        },
    );
    let doc = "Entries of dimension `dim` by a range, a list (array or i64 tensor) or a mask (u8).\n\n\
               Example: `arange(6).reshape(2, 3).index(1, [0, 2])`";
    d.add("index", "x: Tensor, dim: int, at: Tensor -> Tensor", doc, |x: Tensor, dim: INT, at: Dynamic| {
        part(&x, index::on_dim(&x, dim, entry(&at)?)?)
    });
    let doc = "As PyTorch's gather: `out[i][j] = x[i][ids[i][j]]` for dim 1.\n\nExample: `arange(6).reshape(2, 3).gather(1, tensor([[0], [2]]))`";
    d.add("gather", "x: Tensor, dim: int, ids: Tensor -> Tensor", doc, |x: Tensor, dim: INT, ids: Tensor| {
        on([&x, &ids], move |[x, ids]| index::gather(x, dim, ids))
    });
    let doc = "Where a mask is not 0, counted row by row, i64.\n\nExample: `nonzero(tensor([0, 5, 7]) > 0)` is [1, 2]";
    d.add("nonzero", "mask: Tensor -> Tensor", doc, |x: Tensor| -> RhaiResult<Tensor> {
        on([&x], |[x]| {
            let list = index::nonzero(x)?;
            let n = list.len();
            Ok(Tensor::from_vec(list, n, &Device::Cpu)?.to_device(x.device())?)
        })
    });
    let doc = "One-hot rows [.., classes] (f32) for an integer tensor, an array of labels, or one label.\n\n\
               Errors on a label that is not from 0 to classes − 1.\n\nExample: `one_hot([3, 5], 10)`";
    d.add("one_hot", "labels: array, classes: int -> Tensor", doc, |labels: Dynamic, n: INT| -> RhaiResult<Tensor> {
        let labels = match labels.clone().try_cast::<Tensor>() {
            Some(t) => t,
            None => {
                let list = args::ints("one_hot", &labels)?;
                let n = list.len();
                Tensor::from_vec(list, n, &default_device()).map_err(Error::from)?
            }
        };
        let n = args::count("one_hot", n)?;
        heavy(aside::load(&[&labels]).saturating_mul(n), [&labels], move |[l]| index::one_hot(l, n))
    });
}
