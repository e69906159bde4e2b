//! Any operation of scripts as an operation of a graph: for all that have no kernel of their own.
use super::log::Arg;
use super::record::Native as Function;
use crate::host::{Quiet, undivided};
use crate::nets::graph::Size;
use crate::nets::kernels::{Op, View};
use crate::tensor::grad;
use candle_core::{DType, Device, Error, Result, Tensor};
use rhai::{Dynamic, Engine, INT, Shared};
use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

/// A function with the types of its parameters.
struct Known {
    types: Vec<TypeId>,
    function: Shared<Function>,
}

thread_local! {
    static TABLE: RefCell<HashMap<String, Vec<Known>>> = RefCell::default();
    /// Whether the functions that are being registered go into the table: those of one engine are enough.
    static FILLING: Cell<bool> = const { Cell::new(false) };
}

/// Takes a function into the table of this thread, while that is being filled.
pub fn know(name: &str, types: Vec<TypeId>, function: &Shared<Function>, with_context: bool) {
    // one that calls back into a script cannot run without it
    if !FILLING.get() || with_context {
        return;
    }
    let known = Known { types, function: function.clone() };
    TABLE.with_borrow_mut(|all| all.entry(name.to_string()).or_default().push(known));
}

/// The function of that name that takes these arguments, the one that names most of their types.
fn find(name: &str, args: &[Dynamic]) -> Option<Shared<Function>> {
    if TABLE.with_borrow(HashMap::is_empty) {
        FILLING.set(true);
        crate::script::tensor::register(&mut Engine::new_raw());
        FILLING.set(false);
    }
    let any = TypeId::of::<Dynamic>();
    let is = |t: &TypeId, a: &Dynamic| *t == any || *t == a.type_id() || (a.is_string() && *t == TypeId::of::<&str>());
    let fits = |k: &&Known| k.types.len() == args.len() && k.types.iter().zip(args).all(|(t, a)| is(t, a));
    TABLE.with_borrow(|all| {
        let best = all.get(name)?.iter().filter(fits).max_by_key(|k| k.types.iter().filter(|t| **t != any).count());
        best.map(|k| k.function.clone())
    })
}

/// An operation of scripts. Arguments that are values are its inputs, by place.
pub struct Native {
    /// Its name in scripts.
    pub name: String,
    /// Its arguments; each value stands for the input of that number.
    pub args: Vec<Arg>,
    /// Type and sizes of each input.
    pub inputs: Vec<(DType, Vec<Size>)>,
    /// Type and sizes of each result.
    pub results: Vec<(DType, Vec<Size>)>,
}

impl Native {
    /// How many samples there are, if the inputs fit.
    fn batch(&self, inputs: &[&[usize]]) -> Option<usize> {
        let mut batch = None;
        for ((_, sizes), dims) in self.inputs.iter().zip(inputs) {
            if sizes.len() != dims.len() {
                return None;
            }
            for (size, n) in sizes.iter().zip(*dims) {
                let of = match size {
                    Size::Fixed(k) if k == n => continue,
                    Size::Per(k) if *k > 0 && n.is_multiple_of(*k) => n / k,
                    _ => return None,
                };
                if *batch.get_or_insert(of) != of {
                    return None;
                }
            }
        }
        batch
    }

    /// The argument as a script would give it.
    fn given(arg: &Arg, inputs: &[Tensor], n: usize) -> Result<Dynamic> {
        Ok(match arg {
            Arg::Value(v) => Dynamic::from(inputs[*v].clone()),
            Arg::Const(t) => Dynamic::from(t.clone()),
            Arg::Rows(t, d) => {
                let mut dims = t.dims().to_vec();
                dims[*d] = n;
                Dynamic::from(t.broadcast_as(dims)?.contiguous()?)
            }
            Arg::Int(i) => Dynamic::from_int(*i),
            Arg::PerSample(k) => Dynamic::from_int(*k * n as INT),
            Arg::Float(x) => Dynamic::from_float(*x),
            Arg::Bool(b) => Dynamic::from_bool(*b),
            Arg::Text(s) => Dynamic::from(s.clone()),
            Arg::Unit => Dynamic::UNIT,
            Arg::Range(a, b, false) => Dynamic::from(*a..*b),
            Arg::Range(a, b, true) => Dynamic::from(*a..=*b),
            Arg::List(all) => {
                Dynamic::from_array(all.iter().map(|a| Native::given(a, inputs, n)).collect::<Result<_>>()?)
            }
            Arg::Map(all) => {
                let each = all.iter().map(|(k, a)| Ok((k.as_str().into(), Native::given(a, inputs, n)?)));
                Dynamic::from_map(each.collect::<Result<_>>()?)
            }
        })
    }

    fn call(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let dims: Vec<&[usize]> = inputs.iter().map(|t| t.dims()).collect();
        let n = self.batch(&dims).ok_or_else(|| Error::Msg(format!("{}: shapes do not fit: {dims:?}", self.name)))?;
        let mut args = self.args.iter().map(|a| Native::given(a, inputs, n)).collect::<Result<Vec<_>>>()?;
        let f = find(&self.name, &args).ok_or_else(|| Error::Msg(format!("no operation `{}` for these", self.name)))?;
        let done = f(None, &mut args.iter_mut().collect::<Vec<_>>()).map_err(|e| Error::Msg(e.to_string()))?;
        let done = if self.name == super::record::FN_IDX_SET { args.swap_remove(0) } else { done };
        super::record::tensors(&done).ok_or_else(|| Error::Msg(format!("{} gave no tensor", self.name)))
    }

    /// The inputs as tensors of their own types.
    fn tensors(&self, inputs: &[View]) -> Result<Vec<Tensor>> {
        let one =
            |(v, (dtype, _)): (&View, &(DType, _))| Tensor::from_slice(v.data, v.dims, &Device::Cpu)?.to_dtype(*dtype);
        inputs.iter().zip(&self.inputs).map(one).collect()
    }

    fn pulled(&self, inputs: &[View], cots: &[Option<&[f32]>]) -> crate::Result<Vec<Vec<f32>>> {
        let mut given = self.tensors(inputs)?;
        let mut vars = vec![];
        for t in given.iter_mut().filter(|t| t.dtype().is_float()) {
            *t = grad::variable(t)?;
            vars.push(t.clone());
        }
        let mut pairs = vec![];
        for (out, cot) in grad::with_grad(|| self.call(&given))?.into_iter().zip(cots) {
            if let Some(cot) = cot.filter(|_| out.dtype().is_float()) {
                let cot = Tensor::from_slice(cot, out.dims(), &Device::Cpu)?.to_dtype(out.dtype())?;
                pairs.push((out, cot));
            }
        }
        let mut grads = match pairs.is_empty() {
            true => vec![],
            false => grad::vjp(&Quiet, &pairs, &vars)?,
        }
        .into_iter();
        let one = |t: &Tensor| match t.dtype().is_float().then(|| grads.next()).flatten() {
            Some(g) => Ok(values(&g)?),
            None => Ok(vec![0.0; t.elem_count()]),
        };
        given.iter().map(one).collect()
    }
}

fn values(t: &Tensor) -> Result<Vec<f32>> {
    t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

impl Op for Native {
    fn name(&self) -> &'static str {
        "operation of scripts"
    }
    fn detail(&self) -> String {
        let plain = |a: &Arg| match a {
            Arg::Value(_) => "…".into(),
            Arg::Const(t) | Arg::Rows(t, _) => format!("constant {:?}", t.dims()),
            other => format!("{other:?}"),
        };
        format!("{}({})", self.name, self.args.iter().map(plain).collect::<Vec<_>>().join(", "))
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<Vec<usize>>, String> {
        let n = self.batch(inputs).ok_or_else(|| format!("{}: shapes do not fit: {inputs:?}", self.name))?;
        Ok(self.results.iter().map(|(_, sizes)| sizes.iter().map(|s| s.of(n)).collect()).collect())
    }
    fn run(&self, inputs: &[View], outs: &mut [Vec<f32>], _: bool) {
        let done = undivided(|| self.tensors(inputs).and_then(|given| grad::no_grad(|| self.call(&given))));
        let results = done.and_then(|all| all.iter().map(values).collect::<Result<Vec<_>>>()).unwrap_or_default();
        for (k, out) in outs.iter_mut().enumerate() {
            match results.get(k).filter(|r| r.len() == out.len()) {
                Some(r) => out.copy_from_slice(r),
                // what fails here failed nowhere in the traced run: a value that is none says so
                None => out.fill(f32::NAN),
            }
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cots: &[Option<&[f32]>], _: bool) -> Vec<Vec<f32>> {
        let none = || inputs.iter().map(|v| vec![f32::NAN; v.data.len()]).collect();
        undivided(|| self.pulled(inputs, cots)).unwrap_or_else(|_| none())
    }
    fn apply(self: Arc<Self>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        self.compose_with(inputs, &[])
    }
    fn weights(&self) -> Result<Vec<Tensor>> {
        Ok(vec![])
    }
    fn compose_with(&self, inputs: &[&Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        // between operations all values are of one floating type
        let own = |(t, (dtype, _)): (&&Tensor, &(DType, _))| match dtype.is_float() {
            true => Ok((*t).clone()),
            false => t.to_dtype(*dtype),
        };
        let given = inputs.iter().zip(&self.inputs).map(own).collect::<Result<Vec<_>>>()?;
        let back = |t: Tensor| if t.dtype().is_float() { Ok(t) } else { t.to_dtype(inputs[0].dtype()) };
        self.call(&given)?.into_iter().map(back).collect()
    }
}
