//! What a function of a script did to tensors: calls in order, and what two runs with batches of different sizes have in common.
use crate::files::hash::hex;
use crate::nets::graph::Size;
use candle_core::{DType, Tensor, TensorId};
use rhai::Position;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// An argument of a call.
#[derive(Clone, Debug)]
pub enum Arg {
    /// A value that depends on the function's arguments, by number.
    Value(usize),
    /// A tensor that does not.
    Const(Tensor),
    /// A tensor that has as many equal rows as there are samples along a dimension: one of them.
    Rows(Tensor, usize),
    /// An integer.
    Int(i64),
    /// An integer that grows with the batch: so many for each sample.
    PerSample(i64),
    /// A number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A text.
    Text(String),
    /// Nothing.
    Unit,
    /// A range of integers, and whether its end is in it.
    Range(i64, i64, bool),
    /// An array.
    List(Vec<Arg>),
    /// A map.
    Map(Vec<(String, Arg)>),
}

impl Arg {
    /// Calls `f` with every value's number.
    pub fn values(&self, f: &mut impl FnMut(usize)) {
        match self {
            Arg::Value(v) => f(*v),
            Arg::List(all) => all.iter().for_each(|a| a.values(f)),
            Arg::Map(all) => all.iter().for_each(|(_, a)| a.values(f)),
            _ => {}
        }
    }
    /// The same with each value's number changed.
    pub fn renumbered(&self, f: &mut impl FnMut(usize) -> usize) -> Arg {
        match self {
            Arg::Value(v) => Arg::Value(f(*v)),
            Arg::List(all) => Arg::List(all.iter().map(|a| a.renumbered(f)).collect()),
            Arg::Map(all) => Arg::Map(all.iter().map(|(k, a)| (k.clone(), a.renumbered(f))).collect()),
            other => other.clone(),
        }
    }
    /// Feeds what it is to a hash.
    fn digest(&self, h: &mut Sha256) -> candle_core::Result<()> {
        let told = match self {
            Arg::Const(t) | Arg::Rows(t, _) => {
                h.update(format!("{} {:?}", t.dtype().as_str(), t.dims()));
                bytes(t, |b| h.update(b))?;
                String::from(";")
            }
            Arg::List(all) => {
                h.update("[");
                all.iter().try_for_each(|a| a.digest(h))?;
                "]".into()
            }
            Arg::Map(all) => {
                h.update("{");
                all.iter().try_for_each(|(k, a)| {
                    h.update(format!("{k:?}:"));
                    a.digest(h)
                })?;
                "}".into()
            }
            Arg::Float(x) => format!("f{:x};", x.to_bits()),
            other => format!("{other:?};"),
        };
        h.update(told);
        Ok(())
    }
}

/// The bits of a tensor's values, handed to `f`.
fn bytes(t: &Tensor, mut f: impl FnMut(&[u8])) -> candle_core::Result<()> {
    let t = t.detach().flatten_all()?;
    match t.dtype() {
        DType::F32 => t.to_vec1::<f32>()?.iter().for_each(|v| f(&v.to_le_bytes())),
        DType::I64 => t.to_vec1::<i64>()?.iter().for_each(|v| f(&v.to_le_bytes())),
        _ => t.to_dtype(DType::F64)?.to_vec1::<f64>()?.iter().for_each(|v| f(&v.to_le_bytes())),
    }
    Ok(())
}

/// Whether two tensors have the same type, shape and bits.
fn same(a: &Tensor, b: &Tensor) -> bool {
    let all = |t: &Tensor| {
        let mut v = vec![];
        bytes(t, |b| v.extend_from_slice(b)).map(|()| v)
    };
    a.id() == b.id()
        || (a.dtype() == b.dtype() && a.dims() == b.dims() && matches!((all(a), all(b)), (Ok(x), Ok(y)) if x == y))
}

/// One call of an operation.
#[derive(Clone, Debug)]
pub struct Call {
    /// The operation's name in scripts.
    pub name: String,
    /// What it was called with.
    pub args: Vec<Arg>,
    /// The numbers of its results.
    pub results: Vec<usize>,
    /// Where.
    pub at: Position,
}

/// Why a function cannot become a graph, and where.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What stands in the way.
    pub why: String,
    /// Where in the script, if that is known.
    pub at: Position,
}

impl Refusal {
    /// For this reason, there.
    pub fn new(why: impl Into<String>, at: Position) -> Refusal {
        Refusal { why: why.into(), at }
    }
}

/// A run of the function. Values are numbered: the arguments, then the results of the calls.
#[derive(Default)]
pub struct Log {
    /// The calls.
    pub calls: Vec<Call>,
    /// Type and shape of each value.
    pub values: Vec<(DType, Vec<usize>)>,
    /// What stands in the way of a graph, if something does.
    pub refused: Option<Refusal>,
    numbers: HashMap<TensorId, usize>,
}

impl Log {
    /// The number of a tensor, if it depends on the arguments.
    pub fn number(&self, t: &Tensor) -> Option<usize> {
        self.numbers.get(&t.id()).copied()
    }
    /// A new value.
    pub fn value(&mut self, t: &Tensor) -> usize {
        self.values.push((t.dtype(), t.dims().to_vec()));
        self.numbers.insert(t.id(), self.values.len() - 1);
        self.values.len() - 1
    }
    /// Notes the first thing that stands in the way.
    pub fn refuse(&mut self, why: impl Into<String>, at: Position) {
        self.refused.get_or_insert(Refusal::new(why, at));
    }
}

/// What a function does to batches of any size.
#[derive(Debug)]
pub struct Trace {
    /// The calls.
    pub calls: Vec<Call>,
    /// Type and sizes of each value.
    pub values: Vec<(DType, Vec<Size>)>,
    /// How many of the values are the arguments.
    pub inputs: usize,
    /// The number of the result.
    pub output: usize,
}

/// A run: its log, its batch, the number of what it returned.
pub struct Ran {
    /// What was done.
    pub log: Log,
    /// How many samples there were.
    pub batch: usize,
    /// What was returned; none where that does not depend on the arguments.
    pub output: Option<usize>,
}

impl Trace {
    /// What two runs with batches of different sizes have in common.
    pub fn of(inputs: usize, a: &Ran, b: &Ran) -> Result<Trace, Refusal> {
        for ran in [a, b] {
            if let Some(why) = &ran.log.refused {
                return Err(why.clone());
            }
        }
        let both = [a.batch, b.batch];
        let mut calls = vec![];
        for (x, y) in a.log.calls.iter().zip(&b.log.calls) {
            if (&x.name, x.args.len(), &x.results) != (&y.name, y.args.len(), &y.results) {
                return Err(Refusal::new("what is done depends on values or on the size of the batch", x.at));
            }
            let args = x.args.iter().zip(&y.args).map(|(x, y)| merged(x, y, both)).collect::<Option<Vec<_>>>();
            let Some(args) = args else {
                let m = format!(
                    "an argument of `{}` depends on values in a way that is not an operation on tensors",
                    x.name
                );
                return Err(Refusal::new(m, x.at));
            };
            calls.push(Call { args, ..x.clone() });
        }
        let end = a.log.calls.last().map_or(Position::NONE, |c| c.at);
        if a.log.calls.len() != b.log.calls.len() || a.log.values.len() != b.log.values.len() {
            return Err(Refusal::new("what is done depends on values or on the size of the batch", end));
        }
        let place = |v: usize| a.log.calls.iter().find(|c| c.results.contains(&v)).map_or(Position::NONE, |c| c.at);
        let mut values = vec![];
        for (v, ((dtype, x), (other, y))) in a.log.values.iter().zip(&b.log.values).enumerate() {
            let sizes = (dtype == other && x.len() == y.len())
                .then(|| x.iter().zip(y).map(|(x, y)| size([*x, *y], both)).collect::<Option<Vec<_>>>())
                .flatten();
            match sizes {
                Some(s) if s.iter().filter(|s| s.fixed().is_none()).count() == 1 => values.push((*dtype, s)),
                Some(s) if s.iter().all(|s| s.fixed().is_some()) => {
                    return Err(Refusal::new("samples of a batch are mixed", place(v)));
                }
                _ => return Err(Refusal::new("a shape depends on values", place(v))),
            }
        }
        match (a.output, b.output) {
            (Some(output), Some(other)) if output == other => Ok(Trace { calls, values, inputs, output }),
            _ => Err(Refusal::new("the result is not made from the arguments by operations on tensors", end)),
        }
    }

    /// SHA-256 of the operations, how they hang together, and all constants.
    pub fn hash(&self) -> candle_core::Result<String> {
        let mut h = Sha256::new();
        h.update(format!("{} inputs, output {}\n", self.inputs, self.output));
        for (dtype, sizes) in &self.values[..self.inputs] {
            h.update(format!("{} {sizes:?}\n", dtype.as_str()));
        }
        for call in &self.calls {
            h.update(format!("{:?} = {}", call.results, call.name));
            call.args.iter().try_for_each(|a| a.digest(&mut h))?;
            h.update("\n");
        }
        Ok(hex(&h.finalize()))
    }
}

fn size([x, y]: [usize; 2], [bx, by]: [usize; 2]) -> Option<Size> {
    match x == y {
        true => Some(Size::Fixed(x)),
        false if x * by == y * bx && x.is_multiple_of(bx) => Some(Size::Per(x / bx)),
        false => None,
    }
}

/// What two arguments have in common.
fn merged(x: &Arg, y: &Arg, both: [usize; 2]) -> Option<Arg> {
    Some(match (x, y) {
        (Arg::Value(a), Arg::Value(b)) if a == b => x.clone(),
        (Arg::Const(a), Arg::Const(b)) if same(a, b) => x.clone(),
        (Arg::Const(a), Arg::Const(b)) => rows(a, b, both)?,
        (Arg::Int(a), Arg::Int(b)) if a == b => x.clone(),
        (Arg::Int(a), Arg::Int(b)) => {
            let [bx, by] = both.map(|n| n as i64);
            if a.checked_mul(by)? != b.checked_mul(bx)? || a % bx != 0 {
                return None;
            }
            Arg::PerSample(a / bx)
        }
        (Arg::Float(a), Arg::Float(b)) if a.to_bits() == b.to_bits() => x.clone(),
        (Arg::Bool(a), Arg::Bool(b)) if a == b => x.clone(),
        (Arg::Text(a), Arg::Text(b)) if a == b => x.clone(),
        (Arg::Unit, Arg::Unit) => Arg::Unit,
        (Arg::Range(..), Arg::Range(..)) if format!("{x:?}") == format!("{y:?}") => x.clone(),
        (Arg::List(a), Arg::List(b)) if a.len() == b.len() => {
            Arg::List(a.iter().zip(b).map(|(x, y)| merged(x, y, both)).collect::<Option<Vec<_>>>()?)
        }
        (Arg::Map(a), Arg::Map(b)) if a.len() == b.len() => {
            let each =
                a.iter().zip(b).map(|((k, x), (l, y))| Some((k.clone(), merged(x, y, both).filter(|_| k == l)?)));
            Arg::Map(each.collect::<Option<Vec<_>>>()?)
        }
        _ => return None,
    })
}

/// Constants that differ in the number of equal rows only.
fn rows(a: &Tensor, b: &Tensor, [bx, by]: [usize; 2]) -> Option<Arg> {
    if a.dtype() != b.dtype() || a.rank() != b.rank() {
        return None;
    }
    let differ: Vec<usize> = (0..a.rank()).filter(|d| a.dims()[*d] != b.dims()[*d]).collect();
    let &[d] = &differ[..] else { return None };
    if (a.dims()[d], b.dims()[d]) != (bx, by) {
        return None;
    }
    let one = a.narrow(d, 0, 1).ok()?.contiguous().ok()?;
    let equal = |t: &Tensor| (0..t.dims()[d]).all(|i| t.narrow(d, i, 1).is_ok_and(|row| same(&row, &one)));
    (equal(a) && equal(b)).then_some(Arg::Rows(one, d))
}
