//! Learned schedules as files: JSON with everything that made them, hashed, validated when read.
//!
//! ```json
//! { "format": "ld3sh.schedule", "version": 1, "name": "ld3",
//!   "noise": { "name": "edm", "sigma_min": 0.002, "sigma_max": 80.0 },
//!   "t": [80.0, 0.002], "t_eval": null, "sigma": [80.0, 0.002], "lambda": [-4.38, 6.21],
//!   "solver": null, "nfe": 1, "model": null, "seed": null, "losses": null, "notes": null,
//!   "versions": { "ld3sh": "0.1.0" }, "provenance": null,
//!   "sha256": "…", "made": { "date": "2025-01-31T12:00:00Z" } }
//! ```
//!
//! `t` are the N + 1 steps in the noise schedule's own time, and alone decide; `sigma` (the VE noise level σ/α) and `lambda`
//! are the same steps for other programs, null where infinite. `sha256` is the hash of everything but itself and
//! `made`, written as JSON without spaces and with sorted keys.
use super::{atomic, hash, json};
use crate::discretize::Schedule;
use crate::real::host_values;
use crate::{Error, Kind, Result, noise};
use serde_json::{Map, Value, json};
use std::path::Path;

/// What the file says it is.
pub const FORMAT: &str = "ld3sh.schedule";
/// The newest version of the format that this crate reads, and the one that it writes.
pub const VERSION: u64 = 1;
/// What a caller may add to a schedule file; `made` (dates and durations) stands outside the hash.
pub const META: [&str; 9] = ["solver", "nfe", "model", "seed", "losses", "notes", "versions", "provenance", "made"];

/// A schedule that was read, and all that stands beside it in its file.
#[derive(Clone)]
pub struct Loaded {
    /// The schedule.
    pub schedule: Schedule,
    /// The whole file.
    pub body: Map<String, Value>,
}

/// The file's content for `schedule`, with `meta` (keys from [`META`]; `nfe` is N unless given, `versions` gets this crate's
/// own, `made.date` is now unless given).
pub fn to_json(schedule: &Schedule, mut meta: Map<String, Value>) -> Result<Map<String, Value>> {
    if let Some(k) = meta.keys().find(|k| !META.contains(&k.as_str())) {
        return Err(Error::unknown("entry for a schedule file", k, META));
    }
    let numbers = |t: &candle_core::Tensor| -> Result<Vec<f64>> { host_values(&t.detach()) };
    let mut versions = taken_map(&mut meta, "versions")?;
    versions.entry("ld3sh").or_insert_with(|| crate::VERSION.into());
    let mut made = taken_map(&mut meta, "made")?;
    made.entry("date").or_insert_with(|| now().into());
    let t = numbers(&schedule.t)?;
    let t_eval = schedule.t_eval.as_ref().map(numbers).transpose()?;
    let mut take = |k: &str| meta.remove(k).unwrap_or(Value::Null);
    let nfe = match take("nfe") {
        Value::Null => json!(schedule.nfe()),
        v => v,
    };
    let mut body = Map::from_iter([
        ("format".to_string(), json!(FORMAT)),
        ("version".to_string(), json!(VERSION)),
        ("name".to_string(), json!(schedule.name)),
        ("noise".to_string(), schedule.noise.spec()),
        ("t".to_string(), json!(t)),
        ("t_eval".to_string(), json!(t_eval)),
        ("sigma".to_string(), json!(numbers(&schedule.sigmas()?)?)),
        ("lambda".to_string(), json!(numbers(&schedule.lambdas()?)?)),
        ("solver".to_string(), take("solver")),
        ("nfe".to_string(), nfe),
    ]);
    for k in ["model", "seed", "losses", "notes"] {
        body.insert(k.into(), take(k));
    }
    body.insert("versions".into(), versions.into());
    body.insert("provenance".into(), take("provenance"));
    let digest = digest(&body);
    body.insert("sha256".into(), digest.into());
    body.insert("made".into(), made.into());
    Ok(body)
}

fn taken_map(meta: &mut Map<String, Value>, key: &str) -> Result<Map<String, Value>> {
    match meta.remove(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(m)) => Ok(m),
        Some(_) => Err(Error::new(Kind::Type, format!("`{key}` of a schedule file must be a map"))),
    }
}

/// Writes a schedule file as a whole; the name must end in `.json`.
pub fn save(path: impl AsRef<Path>, schedule: &Schedule, meta: Map<String, Value>) -> Result<()> {
    let path = path.as_ref();
    super::image::require_extension(path, &["json"])?;
    atomic::write(path, pretty(&to_json(schedule, meta)?).as_bytes())
}

/// One entry to a line: short enough to read, and to compare.
fn pretty(body: &Map<String, Value>) -> String {
    let lines: Vec<String> = body.iter().map(|(k, v)| format!("  {}: {v}", json!(k))).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

/// Reads a schedule file. With `accept_edits`, a hash that does not fit (or is missing) is no error.
pub fn load(path: impl AsRef<Path>, accept_edits: bool) -> Result<Loaded> {
    let path = path.as_ref();
    let text = atomic::read_text(path)?;
    parse(&text, accept_edits).map_err(|e| e.context(path.display()))
}

/// Whether the file says that it is a schedule.
pub fn is_schedule(path: &Path) -> bool {
    let text = atomic::read_text(path).ok();
    let body = text.and_then(|t| json::parse(&t).ok());
    body.is_some_and(|b| b["format"] == FORMAT)
}

/// Reads the content of a schedule file. Errors: not JSON, another format, a newer version, an edited file, lengths
/// that differ, steps that are not finite, not descending or outside the noise schedule.
pub fn parse(text: &str, accept_edits: bool) -> Result<Loaded> {
    let format = |m: String| Error::new(Kind::Format, m);
    let value = json::parse(text).map_err(|e| match e.fix() {
        Some(_) => e,
        None => e.hint("the file was cut off or edited by hand; write it again with `save`"),
    })?;
    let Value::Object(body) = value else {
        return Err(format("not a schedule file: JSON, but not an object".into()));
    };
    match body.get("format").and_then(Value::as_str) {
        Some(FORMAT) => {}
        Some(other) => return Err(format(format!("not a schedule file: its format is `{other}`, not `{FORMAT}`"))),
        None => {
            let e = format(format!("not a schedule file: it has no \"format\": \"{FORMAT}\""));
            return Err(e.hint("plain lists of times are read with `json::load` and `schedule::list`"));
        }
    }
    match body.get("version").and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(v) if v > VERSION => {
            let e = format(format!("the schedule file has version {v}; this ld3sh reads up to {VERSION}"));
            return Err(e.hint("it was written by a newer ld3sh: update this one"));
        }
        _ => return Err(format("the schedule file has no valid `version`".into())),
    }
    if !accept_edits {
        let how = "check it, then pass #{ accept_edits: true } to read it as it is";
        match body.get("sha256").and_then(Value::as_str) {
            None => return Err(format("the schedule file has no `sha256`".into()).hint(how)),
            Some(h) if h != digest(&body) => {
                let e = format("the schedule file was edited after it was written: its `sha256` does not fit".into());
                return Err(e.hint(how));
            }
            _ => {}
        }
    }
    let noise = match body.get("noise") {
        Some(spec) => noise::from_spec(spec).map_err(|e| e.context("`noise`"))?,
        None => return Err(format("the schedule file has no `noise`".into())),
    };
    let t = numbers(&body, "t")?.ok_or_else(|| format("the schedule file has no steps `t`".into()))?;
    for key in ["t_eval", "sigma", "lambda"] {
        if let Some(n) = body.get(key).and_then(Value::as_array).map(Vec::len)
            && n != t.len()
        {
            return Err(format(format!("the schedule file has {} steps `t`, but {n} entries in `{key}`", t.len())));
        }
    }
    let name = body.get("name").and_then(Value::as_str).unwrap_or("file");
    let schedule = Schedule::from_steps(noise, &t, name)?;
    let schedule = match numbers(&body, "t_eval")? {
        Some(e) => schedule.with_eval(Some(&candle_core::Tensor::new(e, &candle_core::Device::Cpu)?))?,
        None => schedule,
    };
    Ok(Loaded { schedule, body })
}

fn numbers(body: &Map<String, Value>, key: &str) -> Result<Option<Vec<f64>>> {
    let wrong = |m: String| Error::new(Kind::Format, format!("`{key}` must be a list of numbers{m}"));
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(a)) => {
            let each =
                a.iter().enumerate().map(|(i, v)| v.as_f64().ok_or_else(|| wrong(format!(", but [{i}] is {v}"))));
            Ok(Some(each.collect::<Result<_>>()?))
        }
        Some(_) => Err(wrong(String::new())),
    }
}

fn digest(body: &Map<String, Value>) -> String {
    let hashed: Map<String, Value> = body
        .iter()
        .filter(|(k, _)| !["sha256", "made"].contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    hash::sha256(canonical(&hashed.into()).as_bytes())
}

/// JSON without spaces and with sorted keys: equal data, equal text.
pub fn canonical(v: &Value) -> String {
    match v {
        Value::Object(m) => {
            let mut entries: Vec<_> = m.iter().collect();
            entries.sort_by_key(|e| e.0);
            let entries: Vec<String> = entries.iter().map(|(k, v)| format!("{}:{}", json!(k), canonical(v))).collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(a) => format!("[{}]", a.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// The date and time in UTC, as ISO 8601 has it.
pub(super) fn now() -> String {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    iso(seconds)
}

/// Seconds since 1970 as a date in the Gregorian calendar (Howard Hinnant's `civil_from_days`).
fn iso(seconds: u64) -> String {
    let (days, s) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        assert_eq!(super::iso(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::iso(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(super::iso(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(super::iso(1_735_689_599), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn canonical_json_does_not_depend_on_order() {
        let a: serde_json::Value = serde_json::from_str(r#"{"b": [1, {"d": 0.1, "c": null}], "a": "x"}"#).unwrap();
        assert_eq!(super::canonical(&a), r#"{"a":"x","b":[1,{"c":null,"d":0.1}]}"#);
    }
}
