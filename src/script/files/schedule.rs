//! Rhai functions for schedule files.
use super::convert::{from_json, to_json};
use crate::discretize::Schedule;
use crate::files::result;
use crate::noise::from_spec;
use crate::schema::{Kind as Of, Opt, Schema, flag, text, value};
use crate::script::error::RhaiResult;
use crate::script::front::note_renamed;
use crate::script::options::read;
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

const ACCEPT: &[Opt] = &[flag("accept_edits", false, "read it although its hash does not fit")];
const LOAD: Schema = Schema::new("schedule::load", ACCEPT);
const INFO: Schema = Schema::new("schedule::info", ACCEPT);
const LOAD_SCHEDULE: Schema = Schema::new("load_schedule", ACCEPT);
const SCHEDULE_INFO: Schema = Schema::new("schedule_info", ACCEPT);
/// A schedule as data.
const DATA: &[Opt] = &[
    text("name", "map", ""),
    value("noise", Of::Any, "", ""),
    value("t", Of::List(&Of::NUMBER, 0), "", ""),
    value("t_eval", Of::List(&Of::NUMBER, 0), "", ""),
];
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[LOAD, INFO, LOAD_SCHEDULE, SCHEDULE_INFO];

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

fn load(of: Schema, path: &str, options: Map) -> RhaiResult<Schedule> {
    Ok(result::load(path, of.read(options)?.flag("accept_edits"))?.schedule)
}

fn info(of: Schema, path: &str, options: Map) -> RhaiResult<Dynamic> {
    Ok(from_json(&Value::Object(result::load(path, of.read(options)?.flag("accept_edits"))?.body)))
}

fn from_map(of: &str, map: Map) -> RhaiResult<Schedule> {
    let o = read(of, DATA.iter(), map)?;
    let (Some(noise), Some(t)) = (o.get("noise"), o.numbers("t")) else {
        return Err(Error::value(format!("{of}: the map needs `noise` and `t`")).into());
    };
    let schedule = Schedule::from_steps(from_spec(&to_json(&noise, false)?)?, &t, o.text("name"))?;
    let t_eval = o.numbers("t_eval");
    match t_eval {
        None => Ok(schedule),
        Some(e) => {
            let e = Tensor::new(e, &Device::Cpu).map_err(Error::from)?;
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
        super::load(LOAD, path, Map::new())
    }
    /// Reads a schedule file.
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json")); schedule::load(out("steps.json"), #{ accept_edits: true })`
    #[rhai_fn(name = "load", return_raw)]
    pub fn load_with(path: &str, options: Map) -> RhaiResult<Schedule> {
        super::load(LOAD, path, options)
    }
    /// All that stands in a schedule file, as a map: `solver`, `losses`, `seed`, `versions`, …
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json"), #{ seed: 3 }); schedule::info(out("steps.json")).seed` is 3
    #[rhai_fn(return_raw)]
    pub fn info(path: &str) -> RhaiResult<Dynamic> {
        super::info(INFO, path, Map::new())
    }
    /// All that stands in a schedule file, as a map.
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json"), #{ seed: 3 }); schedule::info(out("steps.json"), #{ accept_edits: true }).seed` is 3
    #[rhai_fn(name = "info", return_raw)]
    pub fn info_with(path: &str, options: Map) -> RhaiResult<Dynamic> {
        super::info(INFO, path, options)
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
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json")); load_schedule(out("steps.json"), #{ accept_edits: true })`
    #[rhai_fn(name = "load_schedule", return_raw)]
    pub fn load_schedule_with(context: NativeCallContext, path: &str, options: Map) -> RhaiResult<Schedule> {
        note_renamed(&context, "load_schedule", "schedule::load");
        load(LOAD_SCHEDULE, path, options)
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
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json"), #{ seed: 3 }); schedule_info(out("steps.json"), #{ accept_edits: true }).seed` is 3
    #[rhai_fn(name = "schedule_info", return_raw)]
    pub fn schedule_info_with(context: NativeCallContext, path: &str, options: Map) -> RhaiResult<Dynamic> {
        note_renamed(&context, "schedule_info", "schedule::info");
        info(SCHEDULE_INFO, path, options)
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
