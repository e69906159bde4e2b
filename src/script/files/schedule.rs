//! Rhai functions for schedule files.
use super::convert::{from_json, to_json};
use crate::discretize::Schedule;
use crate::files::result;
use crate::noise::from_spec;
use crate::script::error::RhaiResult;
use crate::script::front::note_renamed;
use crate::script::options::Options;
use crate::{Error, Kind};
use candle_core::{Device, Tensor};
use rhai::plugin::*;
use rhai::{Dynamic, Engine, Map, NativeCallContext};
use serde_json::Value;

/// Adds this area's functions to `engine`.
pub(super) fn register(engine: &mut Engine) {
    engine.register_global_module(rhai::exported_module!(globals).into());
    engine.register_global_module(rhai::exported_module!(renamed).into());
}

/// A schedule as plain data: `#{ name, noise, t, t_eval }`.
pub(super) fn map_of(s: &Schedule) -> crate::Result<Map> {
    let list = |t: &Tensor| -> crate::Result<Dynamic> {
        let values = crate::real::host_values(&t.detach())?;
        Ok(values.into_iter().map(Dynamic::from_float).collect::<rhai::Array>().into())
    };
    Ok(Map::from([
        ("name".into(), s.name.clone().into()),
        ("noise".into(), from_json(&s.noise.spec())),
        ("t".into(), list(&s.t)?),
        ("t_eval".into(), s.t_eval.as_ref().map(list).transpose()?.unwrap_or(Dynamic::UNIT)),
    ]))
}

fn meta(map: Map) -> RhaiResult<serde_json::Map<String, Value>> {
    match to_json(&Dynamic::from(map), true)? {
        Value::Object(m) => Ok(m),
        _ => Err(Error::new(Kind::Internal, "a map is not an object").into()),
    }
}

/// The schedule's own record, with the entries of this call over it.
fn joined(schedule: &Schedule, entries: Map) -> RhaiResult<serde_json::Map<String, Value>> {
    let mut all = (*schedule.record).clone();
    all.extend(meta(entries)?);
    Ok(all)
}

fn accept(what: &str, options: Map) -> RhaiResult<bool> {
    let mut o = Options::new(what, options);
    let accept = o.bool("accept_edits")?.unwrap_or(false);
    o.finish()?;
    Ok(accept)
}

/// Schedules as files and as plain data.
#[export_module]
mod globals {
    /// Writes the schedule as a JSON file, as a whole or not at all.
    ///
    /// docs/schedule-format.md describes it.
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json"));`
    #[rhai_fn(return_raw, pure)]
    pub fn save(schedule: &mut Schedule, path: &str) -> RhaiResult<()> {
        Ok(result::save(path, schedule, (*schedule.record).clone())?)
    }
    /// Writes the schedule as a JSON file together with what made it.
    ///
    /// Entries:
    /// - `solver` (a map), `nfe` (N unless given), `model` (a map with name and hash), `seed`, `losses` (a map), `notes`,
    ///   `versions`, `provenance` (a map)
    /// - outside the hash: `made` (a map; its `date` is now unless given)
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json"), #{ seed: 0, losses: #{ valid: 0.01 }, made: #{ seconds: 71.5 } });`
    #[rhai_fn(name = "save", return_raw, pure)]
    pub fn save_with(schedule: &mut Schedule, path: &str, entries: Map) -> RhaiResult<()> {
        Ok(result::save(path, schedule, joined(schedule, entries)?)?)
    }
    /// The schedule with a record of what made it, which `save` will write; entries as in `save`.
    ///
    /// Example: `schedule::edm(noise::edm(), 5).with_record(#{ seed: 0, losses: #{ valid: 0.01 } }).save(out("steps.json"));`
    #[rhai_fn(return_raw, pure)]
    pub fn with_record(schedule: &mut Schedule, entries: Map) -> RhaiResult<Schedule> {
        Ok(schedule.clone().with_record(meta(entries)?))
    }
    /// The schedule as plain data, `#{ name, noise, t, t_eval }`, for JSON, hashes and `schedule::from_map`.
    ///
    /// Example: `json::stringify(schedule::edm(noise::edm(), 5).to_map())`
    #[rhai_fn(return_raw, pure)]
    pub fn to_map(schedule: &mut Schedule) -> RhaiResult<Map> {
        Ok(map_of(schedule)?)
    }
}

fn load(of: &str, path: &str, options: Map) -> RhaiResult<Schedule> {
    Ok(result::load(path, accept(of, options)?)?.schedule)
}

fn info(of: &str, path: &str, options: Map) -> RhaiResult<Dynamic> {
    Ok(from_json(&Value::Object(result::load(path, accept(of, options)?)?.body)))
}

fn from_map(of: &str, map: Map) -> RhaiResult<Schedule> {
    let mut o = Options::new(of, map);
    let name = o.string("name")?.unwrap_or_else(|| "map".into());
    let noise = o.take("noise");
    let (t, t_eval) = (o.array("t")?, o.array("t_eval")?);
    o.finish()?;
    let (Some(noise), Some(t)) = (noise, t) else {
        return Err(Error::value(format!("{of}: the map needs `noise` and `t`")).into());
    };
    let numbers = |a: rhai::Array| -> crate::Result<Vec<f64>> {
        let number = |v: &Dynamic| v.as_float().ok().or_else(|| v.as_int().ok().map(|i| i as f64));
        a.iter()
            .map(|v| number(v).ok_or_else(|| Error::new(Kind::Type, format!("times must be numbers, not {v}"))))
            .collect()
    };
    let schedule = Schedule::from_steps(from_spec(&to_json(&noise, false)?)?, &numbers(t)?, name)?;
    match t_eval {
        None => Ok(schedule),
        Some(e) => {
            let e = Tensor::new(numbers(e)?, &Device::Cpu).map_err(Error::from)?;
            Ok(schedule.with_eval(Some(&e))?)
        }
    }
}

// what stands in module `schedule` beside the heuristics, which document the module
#[export_module]
pub(in crate::script) mod in_schedule {
    /// Reads a schedule file, checking its format, its hash and its steps.
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json")); schedule::load(out("steps.json")).nfe` is 5
    #[rhai_fn(return_raw)]
    pub fn load(path: &str) -> RhaiResult<Schedule> {
        super::load("schedule::load", path, Map::new())
    }
    /// Reads a schedule file.
    ///
    /// Options:
    /// - `accept_edits` (false): read it although its hash does not fit
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json")); schedule::load(out("steps.json"), #{ accept_edits: true })`
    #[rhai_fn(name = "load", return_raw)]
    pub fn load_with(path: &str, options: Map) -> RhaiResult<Schedule> {
        super::load("schedule::load", path, options)
    }
    /// All that stands in a schedule file, as a map: `solver`, `losses`, `seed`, `versions`, …
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json"), #{ seed: 3 }); schedule::info(out("steps.json")).seed` is 3
    #[rhai_fn(return_raw)]
    pub fn info(path: &str) -> RhaiResult<Dynamic> {
        super::info("schedule::info", path, Map::new())
    }
    /// All that stands in a schedule file, as a map.
    ///
    /// Options:
    /// - `accept_edits` (false): read it although its hash does not fit
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json"), #{ seed: 3 }); schedule::info(out("steps.json"), #{ accept_edits: true }).seed` is 3
    #[rhai_fn(name = "info", return_raw)]
    pub fn info_with(path: &str, options: Map) -> RhaiResult<Dynamic> {
        super::info("schedule::info", path, options)
    }
    /// The schedule that `to_map` described: `#{ name, noise, t, t_eval }`.
    ///
    /// Errors unless the times descend within the noise schedule's range.
    ///
    /// Example: `schedule::from_map(#{ noise: #{ name: "edm" }, t: [80, 1, 0.002] })`
    #[rhai_fn(return_raw)]
    pub fn from_map(map: Map) -> RhaiResult<Schedule> {
        super::from_map("schedule::from_map", map)
    }
}

/// Old names of functions; they go with version 0.2.
#[export_module]
mod renamed {
    /// The old name of `schedule.save`; it goes with version 0.2.
    ///
    /// Example: `save_schedule(out("steps.json"), schedule::edm(noise::edm(), 5));`
    #[rhai_fn(return_raw)]
    pub fn save_schedule(context: NativeCallContext, path: &str, schedule: Schedule) -> RhaiResult<()> {
        note_renamed(&context, "save_schedule", "schedule.save");
        Ok(result::save(path, &schedule, (*schedule.record).clone())?)
    }
    /// The old name of `schedule.save` with what made the schedule.
    #[rhai_fn(name = "save_schedule", return_raw)]
    pub fn save_schedule_with(
        context: NativeCallContext,
        path: &str,
        schedule: Schedule,
        entries: Map,
    ) -> RhaiResult<()> {
        note_renamed(&context, "save_schedule", "schedule.save");
        Ok(result::save(path, &schedule, joined(&schedule, entries)?)?)
    }
    /// The old name of `schedule::load`; it goes with version 0.2.
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json")); load_schedule(out("steps.json")).nfe` is 5
    #[rhai_fn(return_raw)]
    pub fn load_schedule(context: NativeCallContext, path: &str) -> RhaiResult<Schedule> {
        load_schedule_with(context, path, Map::new())
    }
    /// The old name of `schedule::load`, with its options.
    ///
    /// Options:
    /// - `accept_edits` (false): as of `schedule::load`
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json")); load_schedule(out("steps.json"), #{ accept_edits: true })`
    #[rhai_fn(name = "load_schedule", return_raw)]
    pub fn load_schedule_with(context: NativeCallContext, path: &str, options: Map) -> RhaiResult<Schedule> {
        note_renamed(&context, "load_schedule", "schedule::load");
        load("load_schedule", path, options)
    }
    /// The old name of `schedule::info`; it goes with version 0.2.
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json"), #{ seed: 3 }); schedule_info(out("steps.json")).seed` is 3
    #[rhai_fn(return_raw)]
    pub fn schedule_info(context: NativeCallContext, path: &str) -> RhaiResult<Dynamic> {
        schedule_info_with(context, path, Map::new())
    }
    /// The old name of `schedule::info`, with its options.
    ///
    /// Options:
    /// - `accept_edits` (false): as of `schedule::info`
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json"), #{ seed: 3 }); schedule_info(out("steps.json"), #{ accept_edits: true }).seed` is 3
    #[rhai_fn(name = "schedule_info", return_raw)]
    pub fn schedule_info_with(context: NativeCallContext, path: &str, options: Map) -> RhaiResult<Dynamic> {
        note_renamed(&context, "schedule_info", "schedule::info");
        info("schedule_info", path, options)
    }
    /// The old name of `schedule::from_map`; it goes with version 0.2.
    ///
    /// Example: `schedule_from_map(#{ noise: #{ name: "edm" }, t: [80, 1, 0.002] })`
    #[rhai_fn(return_raw)]
    pub fn schedule_from_map(context: NativeCallContext, map: Map) -> RhaiResult<Schedule> {
        note_renamed(&context, "schedule_from_map", "schedule::from_map");
        from_map("schedule_from_map", map)
    }
}
