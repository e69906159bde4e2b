//! Rhai functions for JSON, state, CSV, tables and hashes.
use super::convert::{from_data, from_json, to_data, to_json};
use super::folders::load_csv;
use crate::files::state::Data;
use crate::files::table::{Table, number};
use crate::files::{atomic, hash, json, state};
use crate::schema::{Kind as Of, Opt, Schema, count, flag, text, value};
use crate::script::error::RhaiResult;
use crate::tensor::aside;
use crate::{Error, Kind};
use candle_core::Tensor;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FLOAT, INT, ImmutableString, Map};

/// Adds this area's types and functions to `engine`.
pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Table>("Table");
    engine.register_static_module("json", rhai::exported_module!(json_api).into());
    engine.register_static_module("state", rhai::exported_module!(state_api).into());
    engine.register_static_module("csv", rhai::exported_module!(csv_api).into());
    engine.register_global_module(rhai::exported_module!(globals).into());
}

/// A cell as a table shows it: floats with `digits` significant digits.
fn cell(v: &Dynamic, digits: usize) -> RhaiResult<String> {
    if v.is_unit() {
        return Ok(String::new());
    }
    if let Ok(f) = v.as_float() {
        return Ok(number(f, digits));
    }
    if let Some(t) = v.read_lock::<Tensor>() {
        return match crate::real::host_values(&t.detach())?[..] {
            [x] => Ok(number(x, digits)),
            _ => {
                let m = format!("table: a cell must be one value, not a tensor of shape {:?}", t.dims());
                Err(Error::shape(m, &[t.dims()]).into())
            }
        };
    }
    match to_json(v, true)? {
        serde_json::Value::String(s) => Ok(s),
        other => Ok(other.to_string()),
    }
}

fn row(what: &str, v: &Dynamic, i: usize) -> RhaiResult<Array> {
    v.read_lock::<Array>().map(|a| a.clone()).ok_or_else(|| {
        Error::new(Kind::Type, format!("{what}: row {i} must be an array, not {}", crate::script::error::type_of(v)))
            .into()
    })
}

const MARKED: &str = "titles of columns in which that value is marked, with * or in bold";
const TABLE: Schema = Schema::new(
    "table",
    &[
        value("header", Of::TEXTS, "[]", "titles"),
        flag("markdown", false, "as a Markdown table"),
        count("digits", 4, [1, 17], "significant digits of floats"),
        value("lowest", Of::TEXTS, "[]", MARKED),
        value("highest", Of::TEXTS, "[]", MARKED),
    ],
);
const OWNER: Opt =
    value("owner", Of::Text, "none", "text that stands for what the state is of, the hash of a run, say");
const STATE_SAVE: Schema = Schema::new("state::save", &[OWNER]);
const STATE_LOAD: Schema = Schema::new("state::load", &[OWNER]);
const STATE_REMOVE: Schema = Schema::new("state::remove", &[OWNER.needed("\"run 1\"")]);
const CSV_SAVE: Schema = Schema::new("csv::save", &[value("header", Of::TEXTS, "[]", "titles, the first line")]);
/// Those of `csv::load`.
pub(super) const CSV_LOAD: Schema = Schema::new(
    "csv::load",
    &[
        flag("header", true, "the first line has the titles"),
        text("separator", ",", "what stands between cells, an ASCII character"),
    ],
);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[TABLE, STATE_SAVE, STATE_LOAD, STATE_REMOVE, CSV_SAVE, CSV_LOAD];

fn make_table(rows: Array, map: Map) -> RhaiResult<Table> {
    let o = TABLE.read(map)?;
    let header = o.texts("header");
    let (markdown, digits) = (o.flag("markdown"), o.count("digits"));
    let mut best = vec![];
    for (key, highest) in [("lowest", false), ("highest", true)] {
        for name in o.texts(key) {
            match header.iter().position(|h| *h == name) {
                Some(c) => best.push((c, highest)),
                None => return Err(Error::unknown("column", &name, header.iter().map(String::as_str)).into()),
            }
        }
    }
    let rows = rows
        .iter()
        .enumerate()
        .map(|(i, r)| row("table", r, i)?.iter().map(|v| cell(v, digits)).collect())
        .collect::<RhaiResult<Vec<_>>>()?;
    Ok(Table { header, rows, markdown, best })
}

fn csv_text(rows: &Array, header: &[String]) -> RhaiResult<String> {
    let quote = |s: &str| match s.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", s.replace('"', "\"\"")),
        false => s.to_string(),
    };
    let mut out = String::new();
    let mut line = |cells: Vec<String>| {
        out.push_str(&cells.iter().map(|c| quote(c)).collect::<Vec<_>>().join(","));
        out.push('\n');
    };
    if !header.is_empty() {
        line(header.to_vec());
    }
    for (i, r) in rows.iter().enumerate() {
        crate::host::check_cancelled()?;
        // floats in full: what is read back has the same bits
        let full = |v: &Dynamic| match v.as_float() {
            Ok(f) => Ok(f.to_string()),
            Err(_) => cell(v, 17),
        };
        line(row("csv::save", r, i)?.iter().map(full).collect::<RhaiResult<_>>()?);
    }
    Ok(out)
}

fn owner(schema: Schema, options: Map) -> RhaiResult<Option<String>> {
    Ok(schema.read(options)?.some_text("owner"))
}

fn save_as(path: &str, map: Map, owner: Option<String>) -> RhaiResult<()> {
    let (data, file) = (to_data(&Dynamic::from(map))?, path.to_string());
    Ok(aside::run(usize::MAX, move || match owner {
        Some(owner) => state::save_for(&owner, file, &data),
        None => state::save(file, &data),
    })?)
}

fn load_as(path: &str, owner: Option<String>) -> RhaiResult<Map> {
    let file = path.to_string();
    match aside::run(usize::MAX, move || match owner {
        Some(owner) => state::load_for(&owner, file),
        None => state::load(file),
    })? {
        Data::Map(m) => {
            Ok(m.into_iter().map(|(k, v)| Ok((k.into(), from_data(v)?))).collect::<crate::Result<Map>>()?)
        }
        _ => Err(Error::new(Kind::Format, format!("{path}: the state is not a map")).into()),
    }
}

/// Plain data as JSON.
#[export_module]
mod json_api {
    /// The value of a JSON text: objects as maps, null as (). One key twice in an object is an error.
    ///
    /// Example: `json::parse("{\"a\": [1, 2.5]}").a[1]` is 2.5
    #[rhai_fn(return_raw)]
    pub fn parse(text: &str) -> RhaiResult<Dynamic> {
        Ok(from_json(&json::parse(text)?))
    }
    /// Plain data as JSON text on one line: maps, arrays, numbers, strings, tensors as nested arrays.
    ///
    /// Floats come back with the same bits. Errors on functions, NaN and infinities.
    ///
    /// Example: `json::stringify(#{ nfe: 5, t: [80.0, 0.002] })`
    #[rhai_fn(return_raw)]
    pub fn stringify(value: Dynamic) -> RhaiResult<String> {
        let value = to_json(&value, false)?;
        Ok(aside::run(usize::MAX, move || Ok(value.to_string()))?)
    }
    /// Reads a JSON file.
    ///
    /// Errors on text that is not JSON, and on an object with one key twice.
    ///
    /// Example: `json::save(out("losses.json"), #{ train: [0.3, 0.2] });`
    #[rhai_fn(return_raw)]
    pub fn load(path: &str) -> RhaiResult<Dynamic> {
        let text = atomic::read_text(path)?;
        Ok(from_json(&aside::run(usize::MAX, move || json::parse(&text)).map_err(|e| e.context(path))?))
    }
    /// Writes plain data as a JSON file, as a whole or not at all.
    ///
    /// Example: `json::save("losses.json", #{ train: [0.3, 0.2] })`
    #[rhai_fn(return_raw)]
    pub fn save(path: &str, value: Dynamic) -> RhaiResult<()> {
        let value = to_json(&value, false)?;
        Ok(atomic::write_with(path, |mut f| {
            serde_json::to_writer_pretty(&mut f, &value)?;
            f.write_all(b"\n")
        })?)
    }
}

/// State to resume from.
#[export_module]
mod state_api {
    /// Writes a map of numbers, strings, tensors, arrays and maps to one file, exact to the bit, as a whole or not at all.
    ///
    /// The file is also a safetensors file. Errors on functions and other values that are not data.
    ///
    /// Example: `state::save(out("run.state"), #{ xi: zeros([6]), iteration: 7 });`
    #[rhai_fn(return_raw)]
    pub fn save(path: &str, map: Map) -> RhaiResult<()> {
        save_as(path, map, None)
    }
    /// Writes a map to one file, which belongs to an owner: it replaces nothing but a state of the same owner.
    ///
    /// Errors, kind `value`, where another file of that name is in the way: it stays as it is.
    ///
    /// Example: `state::save(out("run.state"), #{ iteration: 7 }, #{ owner: "run 1" });`
    #[rhai_fn(name = "save", return_raw)]
    pub fn save_with(path: &str, map: Map, options: Map) -> RhaiResult<()> {
        let owner = owner(STATE_SAVE, options)?;
        save_as(path, map, owner)
    }
    /// Reads the map that `state::save` wrote; tensors come to the device of the run (`--device`).
    ///
    /// Errors on a file that is cut off, altered, or of another kind.
    ///
    /// Example: `state::save(out("run.state"), #{ iteration: 7 }); state::load(out("run.state")).iteration` is 7
    #[rhai_fn(return_raw)]
    pub fn load(path: &str) -> RhaiResult<Map> {
        load_as(path, None)
    }
    /// Reads the map that `state::save` wrote for the same owner.
    ///
    /// Errors, kind `value`, on a file that is another owner's, or no state.
    ///
    /// Example: `state::save(out("run.state"), #{ iteration: 7 }, #{ owner: "run 1" }); state::load(out("run.state"), #{ owner: "run 1" }).iteration` is 7
    #[rhai_fn(name = "load", return_raw)]
    pub fn load_with(path: &str, options: Map) -> RhaiResult<Map> {
        let owner = owner(STATE_LOAD, options)?;
        load_as(path, owner)
    }
    /// Deletes the file that `state::save` wrote for this owner; nothing happens if there is none.
    ///
    /// Errors, kind `value`, on any other file, which stays.
    ///
    /// Example: `state::remove(out("run.state"), #{ owner: "run 1" });`
    #[rhai_fn(return_raw)]
    pub fn remove(path: &str, options: Map) -> RhaiResult<()> {
        match owner(STATE_REMOVE, options)? {
            Some(owner) => Ok(state::remove(path, &owner)?),
            None => Err(Error::value("state::remove needs the option `owner`").into()),
        }
    }
}

/// Comma-separated values.
#[export_module]
mod csv_api {
    /// Writes rows of values as a CSV file, as a whole or not at all.
    ///
    /// Example: `csv::save(out("cells.csv"), [["euler", 5, 0.013]]);`
    #[rhai_fn(return_raw)]
    pub fn save(path: &str, rows: Array) -> RhaiResult<()> {
        save_with(path, rows, Map::new())
    }
    /// Writes rows of values as a CSV file; floats in full.
    ///
    /// Example: `csv::save(out("cells.csv"), [["euler", 5, 0.013]], #{ header: ["solver", "nfe", "loss"] });`
    #[rhai_fn(name = "save", return_raw)]
    pub fn save_with(path: &str, rows: Array, options: Map) -> RhaiResult<()> {
        let header = CSV_SAVE.read(options)?.texts("header");
        Ok(atomic::write(path, csv_text(&rows, &header)?.as_bytes())?)
    }
    /// The rows of a CSV file whose first line has the titles.
    ///
    /// Returns `#{ header, rows }`: the titles, and an array for each further line; integers and numbers as such, all else as text.
    ///
    /// Example: `csv::save(out("c.csv"), [["ddim", 5, 0.25]], #{ header: ["solver", "nfe", "loss"] }); csv::load(out("c.csv")).rows` is [["ddim", 5, 0.25]]
    #[rhai_fn(return_raw)]
    pub fn load(path: &str) -> RhaiResult<Map> {
        load_csv(path, Map::new())
    }
    /// The rows of a CSV file.
    ///
    /// Errors: lines with different numbers of cells; the message has the line.
    ///
    /// Example: `csv::save(out("c.csv"), [["a", 1], ["b", 2]]); csv::load(out("c.csv"), #{ header: false }).rows[1]` is ["b", 2]
    #[rhai_fn(name = "load", return_raw)]
    pub fn load_with(path: &str, options: Map) -> RhaiResult<Map> {
        load_csv(path, options)
    }
}

/// Tables, hashes and questions about files.
#[export_module]
mod globals {
    /// A table of rows of values, aligned when printed.
    ///
    /// Example: `print(table([["euler", 0.31], ["ld3", 0.12]]));`
    #[rhai_fn(return_raw)]
    pub fn table(rows: Array) -> RhaiResult<Table> {
        make_table(rows, Map::new())
    }
    /// A table of rows of values, aligned when printed: numbers to the right, () as an empty cell.
    ///
    /// Example: `print(table([["euler", 0.31], ["ld3", 0.12]], #{ header: ["method", "loss"], lowest: ["loss"] }));`
    #[rhai_fn(name = "table", return_raw)]
    pub fn table_with(rows: Array, options: Map) -> RhaiResult<Table> {
        make_table(rows, options)
    }
    /// The table as text.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn table_to_string(table: &mut Table) -> String {
        table.to_string().trim_end().to_string()
    }
    /// Writes the table as text, as a whole or not at all.
    ///
    /// Example: `table([["ld3", 0.12]], #{ markdown: true }).save(out("results.md"));`
    #[rhai_fn(name = "save", return_raw, pure)]
    pub fn save_table(table: &mut Table, path: &str) -> RhaiResult<()> {
        Ok(atomic::write(path, table.to_string().as_bytes())?)
    }
    /// A number as text with so many significant digits.
    ///
    /// Example: `format_number(0.123456, 3)` is "0.123"
    #[rhai_fn(return_raw)]
    pub fn format_number(value: FLOAT, digits: INT) -> RhaiResult<String> {
        match usize::try_from(digits) {
            Ok(d @ 1..=17) => Ok(number(value, d)),
            _ => Err(Error::value(format!("format_number: digits must be within [1, 17], not {digits}")).into()),
        }
    }
    /// Whether there is a file (or directory) of that name.
    ///
    /// Example: `file_exists("no such file")` is false
    #[rhai_fn(return_raw)]
    pub fn file_exists(path: &str) -> RhaiResult<bool> {
        Ok(crate::access::read(path)?.exists())
    }
    /// The SHA-256 of a file's content, 64 hexadecimal digits.
    ///
    /// Errors if it cannot be read.
    ///
    /// Example: `json::save(out("a.json"), 1); sha256(out("a.json"))`
    #[rhai_fn(name = "sha256", return_raw)]
    pub fn sha256_of(path: &str) -> RhaiResult<ImmutableString> {
        Ok(hash::sha256_file(path)?.into())
    }
    /// The SHA-256 of a value, tensors to the bit: equal data have equal hashes.
    ///
    /// Errors on functions and other values that are not data.
    ///
    /// Example: `hash_of(#{ seed: 0, z: zeros([2]) })`
    #[rhai_fn(return_raw)]
    pub fn hash_of(value: Dynamic) -> RhaiResult<ImmutableString> {
        Ok(hash::sha256(&state::to_bytes(&to_data(&value)?)?).into())
    }
}
