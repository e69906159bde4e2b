//! Creation: constants, ranges, random numbers, arrays of numbers; and the way back.
use super::args::{self, PLACE, place};
use super::{Defs, done, on, size};
use crate::schema::{Opt, Schema, count};
use crate::script::error::RhaiResult;
use crate::script::options::{DEVICE, SESSION_SEED};
use crate::tensor::dtype::FLOAT;
use crate::tensor::random::{self, stream};
use crate::tensor::{aside, create, device, display, dtype, reduce, shape};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rhai::{Array, Dynamic, INT};

const OPTIONS: &str = "A string in place of the options is a dtype: `zeros([2], \"f64\")`.";

const ZEROS: Schema = Schema::new("zeros", PLACE);
const ONES: Schema = Schema::new("ones", PLACE);
const FULL: Schema = Schema::new("full", PLACE);
const ARANGE: Schema = Schema::new("arange", PLACE);
const LINSPACE: Schema = Schema::new("linspace", PLACE);
const EYE: Schema = Schema::new("eye", PLACE);
const TENSOR: Schema = Schema::new("tensor", PLACE);
const DRAWN: &[Opt] = &[SESSION_SEED, count("first", 0, [0, usize::MAX], "number of the first row")];
const RANDN: Schema = Schema::new("randn", DRAWN).with(&[PLACE]);
const NOISE: Schema = Schema::new("noise", DRAWN).with(&[PLACE]);
const RAND: Schema = Schema::new("rand", DRAWN).with(&[PLACE]);
const RANDINT: Schema = Schema::new("randint", DRAWN).with(&[&[args::dtype("\"i64\"", "of the result"), DEVICE]]);
const PERMUTATION: Schema =
    Schema::new("permutation", &[SESSION_SEED, DEVICE, args::dtype("\"i64\"", "has no effect")]);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] =
    &[ZEROS, ONES, FULL, ARANGE, LINSPACE, EYE, TENSOR, RANDN, NOISE, RAND, RANDINT, PERMUTATION];

/// `fn(shape[, options])`.
fn shaped(d: &mut Defs, schema: Schema, doc: &str, f: fn(&[usize], DType, &Device) -> Result<Tensor>) {
    let name = schema.of;
    let make = move |s: Dynamic, o: Dynamic| -> RhaiResult<Tensor> {
        let (dtype, device, _) = place(schema, o)?;
        let shape = args::shape(name, &s)?;
        new(&shape.clone(), &device, move |device| f(&shape, dtype.unwrap_or(FLOAT), device))
    };
    d.add(name, "shape: array -> Tensor", doc, move |s: Dynamic| make(s, Dynamic::UNIT));
    d.add(name, "shape: array, options: map -> Tensor", doc, make);
}

/// A new tensor of that shape.
fn new(
    shape: &[usize],
    device: &Device,
    f: impl FnOnce(&Device) -> Result<Tensor> + Send + 'static,
) -> RhaiResult<Tensor> {
    let (load, device) = (size(shape, device), device.clone());
    done(aside::run(load, move || f(&device)))
}

/// How a tensor prints, which may need a look at all of its values.
fn text(x: &Tensor, f: fn(&Tensor) -> String) -> RhaiResult<String> {
    let (load, x) = (aside::load(&[x]), x.clone());
    Ok(aside::run(load, move || Ok(f(&x)))?)
}

/// (seed, first, shape, stream, dtype, device) to random numbers.
type Draw = fn(u64, u64, &[usize], u64, DType, &Device) -> Result<Tensor>;

/// `fn(shape[, options])` with `seed` and `first`.
fn random_shaped(d: &mut Defs, schema: Schema, doc: &str, stream: u64, f: Draw) {
    let name = schema.of;
    let make = move |s: Dynamic, o: Dynamic| -> RhaiResult<Tensor> {
        let (dtype, device, o) = place(schema, o)?;
        let (seed, first) = (o.seed(), o.count("first") as u64);
        let (shape, dtype) = (args::shape(name, &s)?, dtype.unwrap_or(FLOAT));
        new(&shape.clone(), &device, move |device| f(seed, first, &shape, stream, dtype, device))
    };
    d.add(name, "shape: array -> Tensor", doc, move |s: Dynamic| make(s, Dynamic::UNIT));
    d.add(name, "shape: array, options: map -> Tensor", doc, make);
}

fn full(s: Dynamic, v: Dynamic, o: Dynamic) -> RhaiResult<Tensor> {
    let (dtype, device, _) = place(FULL, o)?;
    let shape = args::shape("full", &s)?;
    match v.as_int() {
        Ok(i) => {
            new(&shape.clone(), &device, move |device| create::full_int(&shape, i, dtype.unwrap_or(DType::I64), device))
        }
        Err(_) => {
            let v = args::number("full", &v)?;
            new(&shape.clone(), &device, move |device| create::full(&shape, v, dtype.unwrap_or(FLOAT), device))
        }
    }
}

fn arange(start: Dynamic, end: Dynamic, step: Dynamic, o: Dynamic) -> RhaiResult<Tensor> {
    let (dtype, device, _) = place(ARANGE, o)?;
    let n = |v: &Dynamic| args::number("arange", v);
    let (a, b, s) = (n(&start)?, n(&end)?, n(&step)?);
    let count = ((b - a) / s).abs().ceil() as usize;
    match (start.as_int(), end.as_int(), step.as_int()) {
        (Ok(a), Ok(b), Ok(s)) => {
            new(&[count], &device, move |device| create::arange_int(a, b, s, dtype.unwrap_or(DType::I64), device))
        }
        _ => new(&[count], &device, move |device| create::arange(a, b, s, dtype.unwrap_or(FLOAT), device)),
    }
}

fn randint(low: INT, high: INT, s: Dynamic, o: Dynamic) -> RhaiResult<Tensor> {
    let (dtype, device, o) = place(RANDINT, o)?;
    let (seed, first) = (o.seed(), o.count("first") as u64);
    let (shape, dtype) = (args::shape("randint", &s)?, dtype.unwrap_or(DType::I64));
    new(&shape.clone(), &device, move |device| {
        Ok(random::integers(seed, first, low, high, &shape, device)?.to_dtype(dtype)?)
    })
}

/// What an array of numbers holds.
enum Flat {
    Ints(Vec<i64>),
    Floats(Vec<f64>),
}

/// The values and shape of nested arrays; `None` when a tensor is among them.
fn flatten(v: &Dynamic, depth: usize, flat: &mut Flat, shape: &mut Vec<usize>) -> Result<bool> {
    if depth > 32 {
        return Err(Error::value("tensor: arrays are nested more than 32 deep"));
    }
    if let Some(list) = v.read_lock::<Array>() {
        let begun = !matches!(flat, Flat::Ints(v) if v.is_empty());
        match shape.get(depth) {
            None if begun => return Err(Error::shape("tensor: numbers and arrays stand side by side", &[shape])),
            None => shape.push(list.len()),
            Some(n) if *n == list.len() => {}
            Some(n) => {
                let m = format!("tensor: arrays at depth {depth} have different lengths: {n} and {}", list.len());
                return Err(Error::shape(m, &[shape]));
            }
        }
        for item in list.iter() {
            if !flatten(item, depth + 1, flat, shape)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if v.is::<Tensor>() {
        return Ok(false);
    }
    if depth != shape.len() {
        return Err(Error::shape("tensor: numbers and arrays stand side by side", &[shape]));
    }
    match (v.as_int(), v.as_bool(), &mut *flat) {
        (Ok(i), _, Flat::Ints(list)) => list.push(i),
        (Ok(i), _, Flat::Floats(list)) => list.push(i as f64),
        (_, Ok(b), Flat::Ints(list)) => list.push(b as i64),
        (_, Ok(b), Flat::Floats(list)) => list.push(b as u8 as f64),
        (_, _, Flat::Floats(list)) => list.push(args::number("tensor", v)?),
        (_, _, Flat::Ints(list)) => {
            let mut floats: Vec<f64> = list.iter().map(|i| *i as f64).collect();
            floats.push(args::number("tensor", v)?);
            *flat = Flat::Floats(floats);
        }
    }
    Ok(true)
}

/// Whether the first number in nested arrays is a bool.
fn is_mask(v: &Dynamic) -> bool {
    match v.read_lock::<Array>() {
        Some(list) => list.first().is_some_and(is_mask),
        None => v.is_bool(),
    }
}

fn tensor(v: Dynamic, o: Dynamic) -> RhaiResult<Tensor> {
    let (dtype, device, _) = place(TENSOR, o)?;
    let (mut flat, mut shape) = (Flat::Ints(vec![]), vec![]);
    if !flatten(&v, 0, &mut flat, &mut shape)? {
        let t = stacked(&v)?.to_device(&device).map_err(Error::from)?;
        return done(dtype.map_or(Ok(t.clone()), |d| t.to_dtype(d)).map_err(Error::from));
    }
    done(match flat {
        Flat::Ints(list) if list.is_empty() => create::zeros(&shape, dtype.unwrap_or(FLOAT), &device),
        Flat::Ints(list) => {
            let own = if is_mask(&v) { DType::U8 } else { DType::I64 };
            create::from_i64(list, &shape, dtype.unwrap_or(own), &device)
        }
        Flat::Floats(list) => create::from_f64(list, &shape, dtype.unwrap_or(FLOAT), &device),
    })
}

/// Nested arrays with tensors in them, stacked.
fn stacked(v: &Dynamic) -> Result<Tensor> {
    if let Some(list) = v.read_lock::<Array>() {
        let parts = list.iter().map(stacked).collect::<Result<Vec<_>>>()?;
        return shape::stack(&parts, 0);
    }
    match v.as_int() {
        Ok(i) => create::from_i64(vec![i], &[], DType::I64, &Device::Cpu),
        Err(_) if v.is::<Tensor>() => args::tensor("tensor", v),
        Err(_) => create::from_f64(vec![args::number("tensor", v)?], &[], FLOAT, &Device::Cpu),
    }
}

fn to_array(t: Tensor) -> RhaiResult<Dynamic> {
    fn nest(values: &mut impl Iterator<Item = Result<Dynamic>>, dims: &[usize]) -> Result<Dynamic> {
        match dims.split_first() {
            None => values.next().unwrap_or(Ok(Dynamic::UNIT)),
            Some((n, rest)) => Ok((0..*n).map(|_| nest(values, rest)).collect::<Result<Array>>()?.into()),
        }
    }
    let (load, x) = (aside::load(&[&t]), t.clone());
    let look = |i: usize| if i.is_multiple_of(1 << 16) { crate::host::check_cancelled() } else { Ok(()) };
    Ok(match t.dtype().is_int() {
        true => {
            let values = aside::run(load, move || create::to_i64(&x))?;
            nest(&mut values.into_iter().enumerate().map(|(i, v)| look(i).map(|()| Dynamic::from_int(v))), t.dims())?
        }
        false => {
            let values = aside::run(load, move || create::to_f64(&x))?;
            nest(&mut values.into_iter().enumerate().map(|(i, v)| look(i).map(|()| Dynamic::from_float(v))), t.dims())?
        }
    })
}

fn item(t: Tensor) -> RhaiResult<Dynamic> {
    let v = reduce::item(&t)?;
    Ok(if t.dtype().is_int() { Dynamic::from_int(create::to_i64(&t)?[0]) } else { Dynamic::from_float(v) })
}

fn to(t: Tensor, name: &str) -> RhaiResult<Tensor> {
    if name.starts_with("cpu") || name.starts_with("cuda") {
        let device = device::parse_device(name)?;
        return on([&t], move |[t]| Ok(t.to_device(&device)?));
    }
    let d = dtype::parse(name).map_err(|e| e.context("to"))?;
    on([&t], move |[t]| Ok(t.to_dtype(d)?))
}

pub(super) fn register(d: &mut Defs) {
    shaped(d, ZEROS, &format!("A tensor of zeros.\n\n{OPTIONS}\n\nExample: `zeros([2, 3])`"), create::zeros);
    shaped(d, ONES, &format!("A tensor of ones.\n\n{OPTIONS}\n\nExample: `ones([2, 3])`"), create::ones);

    let doc = format!(
        "A tensor filled with one value; an integer gives i64 unless `dtype` says otherwise.\n\n{OPTIONS}\n\nExample: `full([2], 0.5)`"
    );
    d.add("full", "shape: array, value: number -> Tensor", &doc, |s: Dynamic, v: Dynamic| full(s, v, Dynamic::UNIT));
    d.add("full", "shape: array, value: number, options: map -> Tensor", &doc, full);

    let doc = format!(
        "Numbers from `start` (0) up to and without `end`, `step` (1) apart; integers give i64 unless `dtype` says otherwise.\n\n{OPTIONS}\n\n\
         Example: `arange(5)`, `arange(1.0, 0.0, -0.25)`"
    );
    let (zero, one) = (Dynamic::from_int(0), Dynamic::from_int(1));
    let (z, s) = (zero.clone(), one.clone());
    d.add("arange", "end: number -> Tensor", &doc, move |e: Dynamic| arange(z.clone(), e, s.clone(), Dynamic::UNIT));
    let s = one.clone();
    d.add("arange", "start: number, end: number -> Tensor", &doc, move |a: Dynamic, e: Dynamic| {
        // arange(5, #{ dtype: … })
        match e.is_map() || e.is_string() {
            true => arange(Dynamic::from_int(0), a, s.clone(), e),
            false => arange(a, e, s.clone(), Dynamic::UNIT),
        }
    });
    d.add(
        "arange",
        "start: number, end: number, step: number -> Tensor",
        &doc,
        move |a: Dynamic, e: Dynamic, s: Dynamic| match s.is_map() || s.is_string() {
            true => arange(a, e, one.clone(), s),
            false => arange(a, e, s, Dynamic::UNIT),
        },
    );
    d.add("arange", "start: number, end: number, step: number, options: map -> Tensor", &doc, arange);

    let doc = format!(
        "`n` numbers evenly from `start` to `end`, both included.\n\n{OPTIONS}\n\nExample: `linspace(0, 1, 5)`"
    );
    let linspace = |a: Dynamic, b: Dynamic, n: INT, o: Dynamic| -> RhaiResult<Tensor> {
        let (dtype, device, _) = place(LINSPACE, o)?;
        let at = |v: &Dynamic| args::number("linspace", v);
        let (a, b, n) = (at(&a)?, at(&b)?, args::count("linspace", n)?);
        new(&[n], &device, move |device| create::linspace(a, b, n, dtype.unwrap_or(FLOAT), device))
    };
    d.add("linspace", "start: number, end: number, n: int -> Tensor", &doc, move |a: Dynamic, b: Dynamic, n: INT| {
        linspace(a, b, n, Dynamic::UNIT)
    });
    d.add("linspace", "start: number, end: number, n: int, options: map -> Tensor", &doc, linspace);

    let doc = format!("The identity matrix of size n × n.\n\n{OPTIONS}\n\nExample: `eye(3)`");
    let eye = |n: INT, o: Dynamic| -> RhaiResult<Tensor> {
        let (dtype, device, _) = place(EYE, o)?;
        let n = args::count("eye", n)?;
        new(&[n, n], &device, move |device| create::eye(n, dtype.unwrap_or(FLOAT), device))
    };
    d.add("eye", "n: int -> Tensor", &doc, move |n: INT| eye(n, Dynamic::UNIT));
    d.add("eye", "n: int, options: map -> Tensor", &doc, eye);

    let doc = format!(
        "A tensor from a number or nested arrays of numbers (or of tensors of one shape).\n\nIntegers give i64, floats \
         f32, true and false a mask (u8), unless dtype says otherwise.\n\n{OPTIONS}\n\nExample: `tensor([[1, 2], [3, 4.5]])`, `tensor([1, 0], \"u8\")`"
    );
    d.add("tensor", "values: array -> Tensor", &doc, |v: Dynamic| tensor(v, Dynamic::UNIT));
    d.add("tensor", "values: array, options: map -> Tensor", &doc, tensor);

    const SEEDED: &str = "Row i of the first dimension is sample `first + i` and depends on (seed, first + i) alone: not \
                          on how many are drawn together. Without a seed the session's next one is taken \
                          (`manual_seed`, `--seed`).";
    let doc = format!("Standard normal numbers.\n\n{SEEDED}\n\nExample: `randn([4, 2], #{{ seed: 0 }})`");
    random_shaped(d, RANDN, &doc, stream::NORMAL, random::normal);
    let doc = format!(
        "Unit-variance noise for `sample`: the same numbers as `randn`.\n\n{SEEDED}\n\n\
         Example: `noise([16, 3, 64, 64], #{{ seed: 1 }})`"
    );
    random_shaped(d, NOISE, &doc, stream::NORMAL, random::normal);
    let doc = format!("Numbers uniform in [0, 1).\n\n{SEEDED}\n\nExample: `rand([4], #{{ seed: 0 }})`");
    random_shaped(d, RAND, &doc, stream::UNIFORM, random::uniform);
    let doc = "Integers uniform in low..high (without high), i64.\n\n\
               Example: `randint(0, 10, [16], #{ seed: 0 })`";
    d.add("randint", "low: int, high: int, shape: array -> Tensor", doc, |l: INT, h: INT, s: Dynamic| {
        randint(l, h, s, Dynamic::UNIT)
    });
    d.add("randint", "low: int, high: int, shape: array, options: map -> Tensor", doc, randint);
    let doc = "The integers 0..n in random order, i64.\n\n\
               Example: `let x = arange(6); x.index(0, permutation(6, #{ seed: 1 }))`";
    let permutation = |n: INT, o: Dynamic| -> RhaiResult<Tensor> {
        let (_, device, o) = place(PERMUTATION, o)?;
        let (seed, n) = (o.seed(), args::count("permutation", n)?);
        new(&[n], &device, move |device| random::permutation(seed, n, device))
    };
    d.add("permutation", "n: int -> Tensor", doc, move |n: INT| permutation(n, Dynamic::UNIT));
    d.add("permutation", "n: int, options: map -> Tensor", doc, permutation);
    let doc = "Seeds the random numbers that are drawn without a seed, and starts their sequence anew.\n\n\
               Example: `manual_seed(0)`";
    d.add("manual_seed", "seed: int", doc, |s: INT| random::set_session_seed(s as u64));

    let doc = "Zeros of the shape, dtype and device of `x`.\n\nExample: `zeros_like(arange(3))`";
    d.add("zeros_like", "x: Tensor -> Tensor", doc, |x: Tensor| on([&x], |[x]| Ok(x.zeros_like()?.detach())));
    let doc = "Ones of the shape, dtype and device of `x`.\n\nExample: `ones_like(arange(3))`";
    d.add("ones_like", "x: Tensor -> Tensor", doc, |x: Tensor| on([&x], |[x]| Ok(x.ones_like()?.detach())));

    d.getter(
        "shape",
        "array",
        "The sizes of all dimensions, an array of integers.\n\nExample: `ones([2, 3]).shape` is [2, 3]",
        |x: &mut Tensor| -> Array { x.dims().iter().map(|d| Dynamic::from_int(*d as INT)).collect() },
    );
    d.getter("dtype", "string", "The dtype's name.\n\nExample: `arange(3).dtype` is \"i64\"", |x: &mut Tensor| {
        x.dtype().as_str().to_string()
    });
    d.getter("device", "string", "Where the values lie: cpu, cuda:0, ….", |x: &mut Tensor| {
        device::device_name(x.device())
    });
    d.getter("ndim", "int", "The number of dimensions.", |x: &mut Tensor| x.rank() as INT);
    d.getter("size", "int", "The number of values.", |x: &mut Tensor| x.elem_count() as INT);
    let len = |x: &mut Tensor| x.dims().first().map_or(1, |n| *n as INT);
    d.getter("len", "int", "The size of the first dimension (1 for a scalar).", len);
    d.add(
        "len",
        "x: Tensor -> int",
        "The size of the first dimension (1 for a scalar).\n\nExample: `ones([4, 2]).len()` is 4",
        len,
    );
    d.getter(
        "T",
        "Tensor",
        "The last two dimensions exchanged.\n\nExample: `ones([2, 3]).T.shape` is [3, 2]",
        |x: &mut Tensor| done(shape::t(x)),
    );

    let doc = "The values as nested arrays of numbers (a number for a scalar).\n\nExample: `ones([2]).to_array()`";
    d.add("to_array", "x: Tensor -> array", doc, to_array);
    let doc = "The single value of a tensor, as a number.\n\nErrors unless there is exactly one value.\n\nExample: `tensor([1, 2, 3]).sum().item()` is 6";
    d.add("item", "x: Tensor -> number", doc, item);
    let doc = "The single value of a tensor, as a float.\n\nExample: `tensor([1, 2]).mean().to_float()` is 1.5";
    d.add("to_float", "x: Tensor -> float", doc, |x: Tensor| -> RhaiResult<f64> { Ok(reduce::item(&x)?) });
    let doc =
        "The single value of a tensor, cut to an integer.\n\nExample: `tensor([1.0, 5.0, 2.0]).argmax().to_int()` is 1";
    d.add("to_int", "x: Tensor -> int", doc, |x: Tensor| -> RhaiResult<INT> {
        reduce::item(&x)?;
        Ok(create::to_i64(&x)?[0])
    });
    let doc = "The tensor in another dtype (\"f64\"), or on another device (\"cpu\", \"cuda:0\").\n\nExample: `arange(3).to(\"f64\")`";
    d.add("to", "x: Tensor, dtype_or_device: string -> Tensor", doc, to);
    d.add(
        "to_string",
        "x: Tensor -> string",
        "The values, aligned; then shape, dtype, device and range.",
        |x: &mut Tensor| -> RhaiResult<String> { text(x, display::text) },
    );
    d.add(
        "to_debug",
        "x: Tensor -> string",
        "One line: shape, dtype, device, range.",
        |x: &mut Tensor| -> RhaiResult<String> { text(x, display::line) },
    );
}
