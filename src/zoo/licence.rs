//! Licences that ask to be accepted: once, by the name of the model, remembered in the folder for configuration.
use crate::files::{atomic, json};
use crate::{Error, Kind, Result, access};
use etcetera::BaseStrategy;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// `licences.json` in the folder for configuration (`ld3sh` in `XDG_CONFIG_HOME`, by default `~/.config`).
fn file() -> Result<PathBuf> {
    match etcetera::choose_base_strategy() {
        Ok(base) => Ok(base.config_dir().join("ld3sh").join("licences.json")),
        Err(_) => Err(Error::new(Kind::Io, "there is no home folder to remember licences in")
            .hint("set XDG_CONFIG_HOME to a folder")),
    }
}

/// The names of the models whose licences were accepted.
pub fn accepted() -> Result<BTreeSet<String>> {
    let _own = access::policy::own();
    let path = file()?;
    if !access::read(&path)?.is_file() {
        return Ok(BTreeSet::new());
    }
    let named = |e: Error| e.context(format!("`{}`", path.display()));
    let all = json::parse(&atomic::read_text(&path)?).map_err(named)?;
    let Some(list) = all["accepted"].as_array() else {
        let e = Error::new(Kind::Format, "there is no list `accepted` of names in it");
        return Err(named(e).hint("delete the file: licences are then to be accepted again"));
    };
    Ok(list.iter().filter_map(Value::as_str).map(str::to_string).collect())
}

/// Remembers that the licence of the model `name` was accepted.
pub fn accept(name: &str) -> Result<()> {
    let _own = access::policy::own();
    let (path, mut all) = (file()?, accepted()?);
    all.insert(name.into());
    if let Some(folder) = path.parent() {
        access::write(folder)?.make_folder().map_err(|e| Error::io(folder, "create", e))?;
    }
    atomic::write(&path, format!("{}\n", json!({ "accepted": all })).as_bytes())
}
