//! Rhai function `record`, and what the record of a script's run holds.
use super::caught::error_of;
use super::context::{Run, SharedRun, doc, provenance};
use super::error::RhaiResult;
use super::files::to_json;
use crate::files::hash::sha256;
use crate::files::record::{self, Record, Recorded};
use crate::world::{self, Link, Shard};
use crate::{Error, Result};
use rhai::{Dynamic, Engine, EvalAltResult, Map};
use serde_json::{Map as Json, Value, json};
use std::path::Path;

/// Registers the function of this file; it writes to the record of `run`.
pub fn register(engine: &mut Engine, run: &SharedRun) {
    let r = run.clone();
    doc(
        engine,
        "record",
        &[
            "/// Adds measures, numbers and other plain data by name, to the record of this run: a line of `run.jsonl` in the output folder.",
            "///",
            "/// `ld3sh runs` and `ld3sh report` compare what runs recorded: the last value of each measure, and its course over `step`, `iteration`,",
            "/// `epoch` or `nfe`, where that is recorded with it. A run with `--out` has a record from its start; any other gets one at the first call.",
            "///\n/// Example: `record(#{ step: 1, loss: 0.25 })`",
        ],
        ["values: map"],
        move |values: Map| -> RhaiResult<()> {
            let values = to_json(&Dynamic::from_map(values), true).map_err(|e| e.context("record"))?;
            let mut run = r.borrow_mut();
            // ranks that do not speak for the run leave it to the one that does
            if !world::current().reports() {
                return Ok(());
            }
            if run.record.is_none() {
                start(&mut run)?;
            }
            match (&run.record, values) {
                // judged as every file of the script's own is: the default folder may be a link that came with it
                (Some(record), Value::Object(values)) => Ok(record.metric(values)?),
                _ => Err(Error::value("record: there is no record").into()),
            }
        },
    );
}

/// What is known of a run at its start.
pub fn head(run: &Run) -> Result<Json<String, Value>> {
    let known = to_json(&Dynamic::from_map(provenance(run)), true)?;
    let Value::Object(mut head) = known else { return Ok(Json::new()) };
    // modules are known when they are imported
    head.remove("modules");
    if let (Some(script), Some(Value::Object(entry))) = (&run.script, head.get_mut("script")) {
        let text = run.sources.get(&script.name).map_or("", String::as_str);
        entry.insert("text".into(), text.into());
    }
    let world = world::current();
    if world.size() > 1 {
        let key = if world.link == Link::Mpi { "ranks" } else { "shard" };
        let value = if key == "ranks" { json!(world.size()) } else { json!(world.shard.to_string()) };
        head.insert(key.into(), value);
    }
    head.insert("threads".into(), json!(rayon::current_num_threads()));
    head.insert("exact_conv".into(), json!(crate::nets::kernels::exact()));
    Ok(head)
}

/// The shard whose record this is: each has a file of its own, as lines of several would stand between one another.
fn part() -> Shard {
    let world = world::current();
    if world.link == Link::Files { world.shard } else { Shard::WHOLE }
}

/// Starts the record of a run in its output folder.
pub fn start(run: &mut Run) -> Result<()> {
    let head = head(run)?;
    run.record = Some(Record::start(&run.out, part(), head)?);
    Ok(())
}

/// Ends the record of a run, if there is one.
pub fn end(run: &mut Run, status: &str, error: Option<&EvalAltResult>) -> Result<()> {
    let Some(record) = run.record.take() else { return Ok(()) };
    let modules = run.modules.iter().map(|m| json!({ "name": m.name, "origin": m.origin, "hash": m.hash }));
    let mut more = Json::from_iter([("modules".to_string(), Value::Array(modules.collect()))]);
    if let Some(t) = crate::host::cpu_time() {
        more.insert("cpu_seconds".into(), json!((t.as_secs_f64() * 1000.0).round() / 1000.0));
    }
    if let Some(e) = error {
        more.insert("error".into(), message(e).into());
    }
    record.end(status, more)
}

/// What an uncaught error says.
fn message(mut e: &EvalAltResult) -> String {
    while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) = e {
        e = inner;
    }
    match e {
        EvalAltResult::ErrorRuntime(v, _) => error_of(v).map_or_else(|| v.to_string(), |e| e.to_string()),
        e => e.to_string(),
    }
}

/// Whether the last run recorded in its output folder is this one, and ended well: the same script, parameters, seed, device and
/// version, and modules that have not changed since.
pub fn is_done(run: &Run) -> Result<bool> {
    if !run.out.join(record::name(part())).is_file() {
        return Ok(false);
    }
    let Some(last) = record::read_part(&run.out, part())?.pop() else { return Ok(false) };
    let now = head(run)?;
    let same = |key: &str| last.head.get(key) == now.get(key);
    let all = ["params", "seed", "device", "version", "exact_conv"].into_iter().all(same);
    let script = |head: &Json<String, Value>| head.get("script").and_then(|s| s.get("hash")).cloned();
    Ok(last.status() == "ok" && all && script(&last.head) == script(&now) && unchanged(&last))
}

/// Whether the modules that a run imported from files are as they were.
fn unchanged(run: &Recorded) -> bool {
    let modules = run.end.as_ref().and_then(|e| e.get("modules")?.as_array());
    let same = |m: &Value| {
        let of = |key: &str| m.get(key).and_then(Value::as_str).unwrap_or_default();
        // those that are compiled in change with the version
        let built_in = of("origin").starts_with("stdlib/");
        let hash = || {
            super::modules::read_text(Path::new(of("origin")))
                .map(|t| sha256(super::modules::without_shebang(&t).as_bytes()))
        };
        built_in || hash().is_ok_and(|h| h == of("hash"))
    };
    modules.is_some_and(|all| all.iter().all(same))
}
