//! What a script can ask about its own run: seed, device, output folder, parameters, provenance, version.
use super::closures::Environment;
use super::error::RhaiResult;
use super::front::Shared as Front;
use super::params::{self, Param};
use crate::files::hash::sha256;
use crate::files::record::Record;
use crate::tensor::device::{default_device, device_name};
use crate::world;
use crate::{Error, Kind};
use rhai::{Array, Dynamic, Engine, INT, Map, Module, NativeCallContext, Shared};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

/// Where a script or module came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The name under which it was asked for: the path of a script, `ld3` of a module.
    pub name: String,
    /// Its file, or `stdlib/ld3.rhai` for a built-in module.
    pub origin: String,
    /// SHA-256 of its text, in hexadecimal.
    pub hash: String,
}

impl Origin {
    /// The origin of `text`.
    pub fn new(name: impl Into<String>, origin: impl Into<String>, text: &str) -> Self {
        Origin { name: name.into(), origin: origin.into(), hash: sha256(text.as_bytes()) }
    }
    fn map(&self) -> Map {
        [("name", &self.name), ("origin", &self.origin), ("hash", &self.hash)]
            .map(|(k, v)| (k.into(), v.clone().into()))
            .into()
    }
}

/// The run of a script or REPL session.
pub struct Run {
    /// Where it shows things.
    pub front: Front,
    /// `--seed`.
    pub seed: INT,
    /// `--out`.
    pub out: PathBuf,
    /// The main script, if it is one.
    pub script: Option<Origin>,
    /// Modules in the order in which they were loaded.
    pub modules: Vec<Origin>,
    /// The source name of the code that may call `param`.
    pub main: String,
    /// The main script's parameters, with the values that `--set` gave them.
    pub params: BTreeMap<String, (Param, Option<Dynamic>)>,
    /// Modules by origin: each is loaded once.
    pub loaded: BTreeMap<String, Shared<Module>>,
    /// What the functions of those modules see at their top level.
    pub homes: BTreeMap<String, Environment>,
    /// The text of everything that was parsed, by source name: for error messages.
    pub sources: BTreeMap<String, String>,
    /// The record in the output folder, once it was started.
    pub record: Option<Record>,
}

/// The run as its parts share it.
pub type SharedRun = Rc<RefCell<Run>>;

impl Default for Run {
    fn default() -> Self {
        Run {
            front: Front::default(),
            seed: 0,
            out: "out".into(),
            script: None,
            modules: vec![],
            main: String::new(),
            params: BTreeMap::new(),
            loaded: BTreeMap::new(),
            homes: BTreeMap::new(),
            sources: BTreeMap::new(),
            record: None,
        }
    }
}

/// Whether version `have` satisfies `require(want)`: the same major version (the same 0.x) and not older.
fn satisfies(have: &str, want: &str) -> Option<bool> {
    let parse = |v: &str| -> Option<[u64; 3]> {
        let mut parts = [0; 3];
        let fields: Vec<&str> = v.trim().split('.').collect();
        if fields.is_empty() || fields.len() > 3 {
            return None;
        }
        for (p, f) in parts.iter_mut().zip(fields) {
            *p = f.parse().ok()?;
        }
        Some(parts)
    };
    let (have, want) = (parse(have)?, parse(want)?);
    let same = have[0] == want[0] && (have[0] > 0 || have[1] == want[1]);
    Some(same && have >= want)
}

/// Registers the functions of this file; they read `run`.
pub fn register(engine: &mut Engine, run: &SharedRun) {
    let r = run.clone();
    doc(
        engine,
        "seed",
        &["/// The seed of this run: `--seed`, 0 by default.", "///\n/// Example: `seed()`"],
        [],
        move || r.borrow().seed,
    );
    doc(
        engine,
        "cpu_time",
        &[
            "/// Seconds of CPU time that this process's threads have taken so far: unlike elapsed time, little disturbed by other work.",
            "/// `()` where the system does not tell (elsewhere than on Linux).",
            "///\n/// Example: `let before = cpu_time(); randn([100, 100]).exp(); cpu_time() - before`",
        ],
        [],
        || crate::host::cpu_time().map_or(Dynamic::UNIT, |t| Dynamic::from_float(t.as_secs_f64())),
    );
    let r = run.clone();
    doc(
        engine,
        "out_dir",
        &["/// The folder for this run's files: `--out`, `\"out\"` by default.", "///\n/// Example: `out_dir()`"],
        [],
        move || r.borrow().out.to_string_lossy().into_owned(),
    );
    let r = run.clone();
    doc(
        engine,
        "out",
        &[
            "/// The path of a file in this run's output folder, which is created if need be.",
            "/// Errors: kind `io` if the folder cannot be made.",
            "///\n/// Example: `out(\"steps.json\")`",
        ],
        ["path: &str"],
        move |path: &str| -> RhaiResult<String> {
            let full = r.borrow().out.join(path);
            crate::access::write(&full)?.make_parent().map_err(|e| Error::io(&full, "create the folder of", e))?;
            Ok(full.to_string_lossy().into_owned())
        },
    );
    doc(
        engine,
        "device",
        &[
            "/// The device on which new tensors are made: `--device`, `\"cpu\"` by default.",
            "///\n/// Example: `device()`",
        ],
        [],
        || device_name(&default_device()),
    );
    doc(
        engine,
        "shard",
        &[
            "/// This run's part of shared work, as `#{ index: i, count: n }` with i from 1; 1 of 1 by default: what `--shard i/n` or MPI says.",
            "/// `generate` takes its part by itself; `shares` divides other work.",
            "///\n/// Example: `shard().count` is 1",
        ],
        [],
        || {
            let s = world::current().shard;
            Map::from([("index".into(), (s.index as INT).into()), ("count".into(), (s.count as INT).into())])
        },
    );
    doc(
        engine,
        "require",
        &[
            "/// Fails unless this ld3sh is the given version or a later compatible one (the same 0.x).",
            "///\n/// Example: `require(\"0.1\")`",
        ],
        ["version: &str"],
        |want: &str| -> RhaiResult<()> {
            match satisfies(crate::VERSION, want) {
                Some(true) => Ok(()),
                Some(false) => {
                    let e =
                        Error::new(Kind::Value, format!("this script needs ld3sh {want}; this is {}", crate::VERSION));
                    Err(e.hint(format!("install a {want} release")).into())
                }
                None => Err(Error::value(format!("require: `{want}` is not a version")).hint("like `\"0.1\"`").into()),
            }
        },
    );
    let r = run.clone();
    doc(
        engine,
        "provenance",
        &[
            "/// What made this run's results: script and modules with their hashes, parameters, version, seed, device.",
            "///\n/// Example: `provenance().modules`",
        ],
        [],
        move || provenance(&r.borrow()),
    );
    let r = run.clone();
    doc(
        engine,
        "param",
        &[
            "/// Declares a parameter that `--set name=value` changes and `--help` lists; returns its value.",
            "/// name: a literal string; default: a literal number, bool, string, or array of these; doc: one line.",
            "///\n/// Example: `let nfe = param(\"nfe\", 10, \"network evaluations\");`",
        ],
        ["name: &str", "default: ?", "doc: &str"],
        move |context: NativeCallContext, name: &str, default: Dynamic, _doc: &str| param(&r, &context, name, default),
    );
    let r = run.clone();
    doc(
        engine,
        "param",
        &["/// Declares a parameter without a description.", "///\n/// Example: `let nfe = param(\"nfe\", 10);`"],
        ["name: &str", "default: ?"],
        move |context: NativeCallContext, name: &str, default: Dynamic| param(&r, &context, name, default),
    );
    let r = run.clone();
    doc(
        engine,
        "params",
        &[
            "/// Declares several parameters that are options of a module's function, which say what they are for; returns their values, a map.",
            "/// of: the function, a literal string; defaults: a map of literals, each as `param` takes it.",
            "///\n/// Example: `let p = params(\"experiment::run\", #{ nfe: 10, pairs: 50 }); p.nfe` is 10",
        ],
        ["of: &str", "defaults: Map"],
        move |context: NativeCallContext, _of: &str, defaults: Map| {
            let one = |(name, default): (rhai::Identifier, Dynamic)| -> RhaiResult<_> {
                let value = param(&r, &context, &name, default)?;
                Ok((name, value))
            };
            defaults.into_iter().map(one).collect::<RhaiResult<Map>>()
        },
    );
}

/// Registers `f` with its documentation.
pub(super) fn doc<A: 'static, const N: usize, const X: bool, R: rhai::Variant + Clone, const F: bool>(
    engine: &mut Engine,
    name: &str,
    comments: &[&str],
    params: [&str; N],
    f: impl rhai::RhaiNativeFunc<A, N, X, R, F> + 'static,
) {
    // the first line is the summary, a paragraph of its own
    let (summary, rest) = comments.split_at(comments.len().min(1));
    let comment = [summary, &["///"], rest].concat().join("\n");
    rhai::FuncRegistration::new(name).with_comments([comment]).with_params_info(params).register_into_engine(engine, f);
}

fn param(run: &SharedRun, context: &NativeCallContext, name: &str, default: Dynamic) -> RhaiResult<Dynamic> {
    let run = run.borrow();
    if run.script.is_some() && context.call_source().unwrap_or_default() != run.main {
        let e = Error::new(Kind::Name, format!("param(\"{name}\", …) in a module declares nothing"));
        return Err(e.hint("declare it at the top level of the main script, and pass its value on").into());
    }
    match run.params.get(name) {
        Some((_, Some(given))) => Ok(given.clone()),
        Some((declared, None)) => Ok(declared.default.clone()),
        None if run.script.is_none() => Ok(params::check_default(name, &default).map(|_| default)?),
        None => {
            let e = Error::new(Kind::Name, format!("parameter `{name}` was not declared when the script was parsed"));
            Err(e.hint("write the call `param(\"name\", default, \"doc\")` itself at the script's top level").into())
        }
    }
}

/// What made a run's results.
pub fn provenance(run: &Run) -> Map {
    let modules: Array = run.modules.iter().map(|m| Dynamic::from_map(m.map())).collect();
    let params: Map =
        run.params.iter().map(|(k, (p, v))| (k.as_str().into(), v.clone().unwrap_or(p.default.clone()))).collect();
    let script = run.script.as_ref().map_or(Dynamic::UNIT, |s| Dynamic::from_map(s.map()));
    Map::from([
        ("script".into(), script),
        ("modules".into(), modules.into()),
        ("params".into(), params.into()),
        ("version".into(), crate::VERSION.into()),
        ("seed".into(), run.seed.into()),
        ("device".into(), device_name(&default_device()).into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::satisfies;

    #[test]
    fn versions() {
        for (have, want, answer) in [
            ("0.1.0", "0.1", Some(true)),
            ("0.1.3", "0.1.2", Some(true)),
            ("0.1.3", "0.1.4", Some(false)),
            ("0.2.0", "0.1", Some(false)),
            ("1.4.0", "1.2", Some(true)),
            ("1.4.0", "2", Some(false)),
            ("1.4.0", "x", None),
            ("1.4.0", "1.2.3.4", None),
        ] {
            assert_eq!(satisfies(have, want), answer, "{have} {want}");
        }
    }
}
