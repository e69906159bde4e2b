//! What tells one value from another in every run: data by their bits, native objects by their settings, functions by their text and
//! by what they capture.
use super::closures::parts;
use super::error::RhaiResult;
use super::files::convert::{from_json, to_data};
use super::model::Model;
use super::options::Given;
use super::plan::ScriptSolver;
use crate::data::Dataset;
use crate::denoise::DynDenoiser;
use crate::discretize::Schedule;
use crate::files::{hash, state};
use crate::noise::Noise;
use crate::plan::Tracked;
use crate::{Error, Kind};
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FnPtr, Map, NativeCallContext};

/// Values inside values: as deep as anything meant.
const DEEPEST: usize = 40;

/// Adds this area's functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_global_module(rhai::exported_module!(api).into());
}

/// A hash of all that makes `v` what it is; `None` where that cannot be known.
pub fn key_of(context: &NativeCallContext, v: &Dynamic) -> Option<String> {
    key(context, v, 0)
}

fn key(context: &NativeCallContext, v: &Dynamic, depth: usize) -> Option<String> {
    if depth > DEEPEST {
        return None;
    }
    let inner = |v: &Dynamic| key(context, v, depth + 1);
    if let Some(m) = v.read_lock::<Map>() {
        // a thing that is made of a function says which it is by `name` and `key`
        if let (Some(name), Some(said)) = (m.get("name"), m.get("key")) {
            return digest("named", [inner(name)?, inner(said)?]);
        }
        let entries = m.iter().map(|(k, v)| Some(format!("{k}={}", inner(v)?))).collect::<Option<Vec<_>>>()?;
        return digest("map", entries);
    }
    if let Some(list) = v.read_lock::<Array>() {
        return digest("array", list.iter().map(inner).collect::<Option<Vec<_>>>()?);
    }
    if let Some(f) = v.read_lock::<FnPtr>() {
        return function(context, &f, depth);
    }
    if let Some(s) = v.read_lock::<ScriptSolver>() {
        return match &*s {
            ScriptSolver::Native(_) => digest("solver", [s.to_json().ok()?.to_string()]),
            ScriptSolver::FromPlan(own) => digest("solver::from_plan", [own.key(context, depth)?]),
            ScriptSolver::FromFn(own) => digest("solver::from_fn", [own.key(context, depth)?]),
        };
    }
    if let Some(net) = v.read_lock::<DynDenoiser>() {
        return net.hash();
    }
    if let Some(model) = v.read_lock::<Model>() {
        return digest("model", [model.key()?]);
    }
    if let Some(s) = v.read_lock::<Schedule>() {
        let t_eval = s.t_eval.clone().map_or(Dynamic::UNIT, Dynamic::from);
        return digest("schedule", [noise(&s.noise), inner(&Dynamic::from(s.t.clone()))?, inner(&t_eval)?]);
    }
    if let Some(n) = v.read_lock::<Noise>() {
        return digest("noise", [noise(&n)]);
    }
    if let Some(plan) = v.read_lock::<Tracked>() {
        return digest("plan", [plan.plan().hash()]);
    }
    if let Some(set) = v.read_lock::<Dataset>() {
        return digest("data set", [set.key()]);
    }
    let data = to_data(v).ok()?;
    Some(hash::sha256(&state::to_bytes(&data).ok()?))
}

/// A function of the script that a native object calls, and what the script says that it is.
#[derive(Clone)]
pub struct Own {
    /// The function.
    pub function: FnPtr,
    /// Its name, for people.
    pub name: Option<String>,
    key: Option<String>,
}

impl Own {
    /// `function` with options `name` and `key`.
    pub fn new(context: &NativeCallContext, o: &Given, function: FnPtr) -> RhaiResult<Own> {
        let name = o.get("name").map(|name| name.to_string());
        let key = match o.get("key") {
            None => None,
            Some(v) => Some(key_of(context, &v).ok_or_else(|| {
                Error::new(Kind::Type, format!("option `key` must be data, not {}", super::error::type_of(&v)))
                    .hint("a text or number that no other function of this name has")
            })?),
        };
        Ok(Own { function, name, key })
    }
    /// `function`, of which nothing is said.
    pub fn plain(function: FnPtr) -> Own {
        Own { function, name: None, key: None }
    }
    /// Whether the script says what tells it from others.
    pub fn is_said(&self) -> bool {
        self.key.is_some()
    }
    fn key(&self, context: &NativeCallContext, depth: usize) -> Option<String> {
        match &self.key {
            Some(key) => digest("said", [self.name.clone().unwrap_or_default(), key.clone()]),
            None => function(context, &self.function, depth),
        }
    }
    /// What it is and stays, whatever the script does later: its key, or a hash if nothing that it captures or reads can change.
    pub fn fixed_key(&self, context: &NativeCallContext) -> Option<String> {
        let may_change = || {
            let reads = parts(context, &self.function).is_none_or(|made| made.reads.iter().any(|(_, v)| v.is_shared()));
            reads || self.function.iter_curry().any(Dynamic::is_shared)
        };
        if self.key.is_none() && may_change() { None } else { self.key(context, 0) }
    }
}

fn noise(n: &Noise) -> String {
    n.spec().to_string()
}

fn function(context: &NativeCallContext, f: &FnPtr, depth: usize) -> Option<String> {
    let made = parts(context, f)?;
    let captured = f.iter_curry().map(|v| key(context, &v.flatten_clone(), depth + 1)).collect::<Option<Vec<_>>>()?;
    let reads =
        made.reads.iter().map(|(name, v)| Some(format!("{name}={}", key(context, &v.flatten_clone(), depth + 1)?)));
    let reads = reads.collect::<Option<Vec<_>>>()?;
    digest("function", made.texts.into_iter().chain(captured).chain(reads))
}

/// A hash of several texts, each at its place.
fn digest(what: &str, parts: impl IntoIterator<Item = String>) -> Option<String> {
    let mut all = String::from(what);
    for p in parts {
        all += &format!("\n{} {p}", p.len());
    }
    Some(hash::sha256(all.as_bytes()))
}

#[export_module]
mod api {
    /// A hash of all that makes a value what it is, 64 hexadecimal digits; () where that cannot be known.
    ///
    /// Of data their bits; of solvers, schedules and noise schedules their settings; of denoisers and models their weights and configuration; of
    /// a function its text, what it captures, and the functions and variables of its script that it uses. A map with `name` and `key`
    /// is known by these alone, as is what was made of a function with these options: so a method says what its function stands for.
    ///
    /// Example: `key_of(|x| x + 1) == key_of(|x| x + 2)` is false
    #[rhai_fn(name = "key_of")]
    pub fn key_of_value(context: NativeCallContext, value: Dynamic) -> Dynamic {
        key_of(&context, &value).map_or(Dynamic::UNIT, Dynamic::from)
    }
    /// A value as data, for records: solvers, schedules and denoisers as maps, functions by their key.
    ///
    /// Example: `as_record(solver::ipndm()).name` is "ipndm"
    #[rhai_fn(return_raw)]
    pub fn as_record(context: NativeCallContext, value: Dynamic) -> RhaiResult<Dynamic> {
        let known = || key_of(&context, &value).map_or(Dynamic::UNIT, Dynamic::from);
        let named = |name: String| Map::from([("name".into(), name.into()), ("key".into(), known())]);
        if let Some(s) = value.read_lock::<ScriptSolver>() {
            return Ok(match s.to_json() {
                Ok(json) => from_json(&json),
                Err(_) => named(s.describe()).into(),
            });
        }
        if let Some(net) = value.read_lock::<DynDenoiser>() {
            let hash = net.hash().map_or(Dynamic::UNIT, Dynamic::from);
            return Ok(Map::from([("name".into(), net.describe().into()), ("hash".into(), hash)]).into());
        }
        if value.is::<FnPtr>() {
            return Ok(named("function".into()).into());
        }
        if let Some(s) = value.read_lock::<Schedule>() {
            return Ok(named(s.name.to_string()).into());
        }
        Ok(value)
    }
}
