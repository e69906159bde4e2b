//! Rhai functions for work that several processes share: `world`, `gather`, `alone`.
use super::error::RhaiResult;
use super::files::{from_data, to_data};
use super::trace;
use crate::files::state::{self, Data};
use crate::world::{self, World};
use crate::{Error, Kind};
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FnPtr, INT, Map, NativeCallContext};
use std::collections::BTreeMap;

/// Adds this area's functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_global_module(rhai::exported_module!(api).into());
}

#[export_module]
mod api {
    /// This process among those that share the run's work: `#{ rank, size, link, reports }`.
    ///
    /// `rank`: from 0 to `size` - 1. `link`, how it knows of the others: "alone", "files" (shards: `--shard`) or "mpi" (ranks, which can
    /// `gather`). `reports`: whether it speaks for the run: every shard does, and of ranks the first.
    ///
    /// Example: `world().size` is 1
    pub fn world() -> Map {
        let world = world::current();
        Map::from([
            ("rank".into(), (world.rank() as INT).into()),
            ("size".into(), (world.size() as INT).into()),
            ("link".into(), world.link.name().into()),
            ("reports".into(), world.reports().into()),
        ])
    }
    /// What every process gives, an array in the order of ranks: of one value where there is one process.
    ///
    /// All ranks must call it, in the same order. Values are plain data: numbers, texts, tensors of any type, arrays and maps, and come
    /// out exact to the bit.
    ///
    /// Errors: kind `value` for shards, which meet in files only.
    ///
    /// Example: `gather(3)` is [3]
    #[rhai_fn(return_raw)]
    pub fn gather(value: Dynamic) -> RhaiResult<Array> {
        trace::refuse("`gather` in it");
        let world = world::current();
        if world.size() == 1 {
            return Ok(vec![value]);
        }
        let part = state::to_bytes(&Data::Map(BTreeMap::from([("value".to_string(), to_data(&value)?)])))?;
        let parts = world.gather(&part)?;
        parts.iter().map(|bytes| opened(bytes)).collect()
    }
    /// Calls `f()` as the only process, and returns its value: what it does is not shared out once more.
    ///
    /// Example: `alone(|| shard().count)` is 1
    #[rhai_fn(return_raw)]
    pub fn alone(ctx: NativeCallContext, f: FnPtr) -> RhaiResult<Dynamic> {
        world::within(World::ALONE, || f.call_raw(&ctx, None, []))
    }
}

/// The value in a message.
fn opened(bytes: &[u8]) -> RhaiResult<Dynamic> {
    match state::from_bytes(bytes)? {
        Data::Map(mut m) => Ok(from_data(m.remove("value").unwrap_or(Data::Unit))?),
        _ => Err(Error::new(Kind::Internal, "gather: a message is no value").into()),
    }
}
