//! Rhai function `models`: the published files that are known by name.
use super::error::RhaiResult;
use crate::zoo::{self, ENTRIES, Entry, Settings, State};
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, INT, Map};

/// Adds this area's functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_global_module(rhai::exported_module!(api).into());
}

fn describe(e: &Entry, s: &Settings) -> Map {
    let whole = |n: u64| Dynamic::from_int(n as INT);
    let (bytes, path) = match zoo::state(e, s) {
        State::Here(n) => (whole(n), s.path(e).display().to_string().into()),
        _ => (e.size.map_or(Dynamic::UNIT, whole), Dynamic::UNIT),
    };
    Map::from([
        ("name".into(), e.name.into()),
        ("file".into(), e.file.into()),
        ("role".into(), e.role.name().into()),
        ("about".into(), e.about.into()),
        ("address".into(), e.address().into()),
        ("licence".into(), e.licence.into()),
        ("bytes".into(), bytes),
        ("sha256".into(), e.sha256.map_or(Dynamic::UNIT, Into::into)),
        ("path".into(), path),
    ])
}

#[export_module]
mod api {
    /// The published files that `denoiser::load` and the perceptual losses find by name, as an array of maps.
    ///
    /// Each: `name`, `file`, `role` ("denoiser", "trunk", "metric" or "text"), `about`, `address`, `licence`, `bytes` (`()` where unknown), `sha256` (of the published
    /// file; `()` where unknown) and `path` (`()` while it is not on this machine). Nothing is downloaded.
    ///
    /// Example: `models().filter(|m| m.path != ()).map(|m| m.name)`
    #[rhai_fn(return_raw)]
    pub fn models() -> RhaiResult<Array> {
        let settings = Settings::from_env()?;
        Ok(ENTRIES.iter().map(|e| describe(e, &settings).into()).collect())
    }
}
