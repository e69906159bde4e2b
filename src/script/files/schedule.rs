//! Rhai functions for schedule files.
use super::convert::{from_json, to_json};
use crate::discretize::Schedule;
use crate::files::result;
use crate::noise::from_spec;
use crate::script::error::RhaiResult;
use crate::script::options::Options;
use crate::{Error, Kind};
use candle_core::{Device, Tensor};
use rhai::plugin::*;
use rhai::{Dynamic, Engine, Map};
use serde_json::Value;

/// Adds this area's functions to `engine`.
pub(super) fn register(engine: &mut Engine) {
    engine.register_global_module(rhai::exported_module!(globals).into());
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
    /// Writes the schedule as a JSON file.
    #[rhai_fn(return_raw)]
    pub fn save_schedule(path: &str, schedule: Schedule) -> RhaiResult<()> {
        Ok(result::save(path, &schedule, (*schedule.record).clone())?)
    }
    /// Writes the schedule as a JSON file, with what made it; entries as in `Schedule.save`.
    ///
    /// Example: `save_schedule(out("steps.json"), schedule::edm(noise::edm(), 5), #{ seed: 0 });`
    #[rhai_fn(name = "save_schedule", return_raw)]
    pub fn save_schedule_with(path: &str, schedule: Schedule, entries: Map) -> RhaiResult<()> {
        Ok(result::save(path, &schedule, joined(&schedule, entries)?)?)
    }
    /// Reads a schedule file, checking its format, its hash and its steps.
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json")); load_schedule(out("steps.json")).nfe` is 5
    #[rhai_fn(return_raw)]
    pub fn load_schedule(path: &str) -> RhaiResult<Schedule> {
        Ok(result::load(path, false)?.schedule)
    }
    /// Reads a schedule file.
    ///
    /// Options:
    /// - `accept_edits` (false): read it although its hash does not fit
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json")); load_schedule(out("steps.json"), #{ accept_edits: true })`
    #[rhai_fn(name = "load_schedule", return_raw)]
    pub fn load_schedule_with(path: &str, options: Map) -> RhaiResult<Schedule> {
        Ok(result::load(path, accept("load_schedule", options)?)?.schedule)
    }
    /// All that stands in a schedule file, as a map: `solver`, `losses`, `seed`, `versions`, …
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json"), #{ seed: 3 }); schedule_info(out("steps.json")).seed` is 3
    #[rhai_fn(return_raw)]
    pub fn schedule_info(path: &str) -> RhaiResult<Dynamic> {
        Ok(from_json(&Value::Object(result::load(path, false)?.body)))
    }
    /// All that stands in a schedule file, as a map.
    ///
    /// Options:
    /// - `accept_edits` (false): read it although its hash does not fit
    ///
    /// Example: `schedule::edm(noise::edm(), 5).save(out("steps.json"), #{ seed: 3 }); schedule_info(out("steps.json"), #{ accept_edits: true }).seed` is 3
    #[rhai_fn(name = "schedule_info", return_raw)]
    pub fn schedule_info_with(path: &str, options: Map) -> RhaiResult<Dynamic> {
        Ok(from_json(&Value::Object(result::load(path, accept("schedule_info", options)?)?.body)))
    }
    /// The schedule with a record of what made it, which `save` will write; entries as in `save`.
    ///
    /// Example: `schedule::edm(noise::edm(), 5).with_record(#{ seed: 0, losses: #{ valid: 0.01 } }).save(out("steps.json"));`
    #[rhai_fn(return_raw, pure)]
    pub fn with_record(schedule: &mut Schedule, entries: Map) -> RhaiResult<Schedule> {
        Ok(schedule.clone().with_record(meta(entries)?))
    }
    /// The schedule as plain data, `#{ name, noise, t, t_eval }`, for JSON, hashes and `schedule_from_map`.
    ///
    /// Example: `json::stringify(schedule::edm(noise::edm(), 5).to_map())`
    #[rhai_fn(return_raw, pure)]
    pub fn to_map(schedule: &mut Schedule) -> RhaiResult<Map> {
        Ok(map_of(schedule)?)
    }
    /// The schedule that `to_map` described: `#{ name, noise, t, t_eval }`.
    ///
    /// Errors unless the times descend within the noise schedule's range.
    ///
    /// Example: `schedule_from_map(#{ noise: #{ name: "edm" }, t: [80, 1, 0.002] })`
    #[rhai_fn(return_raw)]
    pub fn schedule_from_map(map: Map) -> RhaiResult<Schedule> {
        let mut o = Options::new("schedule_from_map", map);
        let name = o.string("name")?.unwrap_or_else(|| "map".into());
        let noise = o.take("noise");
        let (t, t_eval) = (o.array("t")?, o.array("t_eval")?);
        o.finish()?;
        let (Some(noise), Some(t)) = (noise, t) else {
            return Err(Error::value("schedule_from_map: the map needs `noise` and `t`").into());
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
}
