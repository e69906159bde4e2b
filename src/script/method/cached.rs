//! Entries of the cache: a value under a hash of all that decides its bits. A cache is no requirement: whatever is wrong with it
//! costs a note.
use crate::files::state::{self, Data};
use crate::files::{cache, hash};
use crate::host::note;
use crate::nets::kernels::{self, simd};
use crate::script::files::to_data;
use crate::tensor::aside;
use crate::tensor::device::{default_device, device_name};
use crate::{Error, Kind, Result};
use rhai::{Dynamic, Map};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Asks for the instruction set of the kernels.
struct Which;
impl pulp::WithSimd for Which {
    type Output = &'static str;
    fn with_simd<S: pulp::Simd>(self, _: S) -> &'static str {
        std::any::type_name::<S>()
    }
}

/// The entry of what was worked out, and of what it is worked out by, in a hash.
pub(super) fn id(key: Map) -> Result<String> {
    let text = |s: &str| Data::Str(s.to_string());
    let by = BTreeMap::from([
        ("version".to_string(), text(crate::VERSION)),
        ("device".to_string(), text(&device_name(&default_device()))),
        ("simd".to_string(), text(simd::dispatch(Which))),
        ("exact_conv".to_string(), Data::Bool(kernels::exact())),
        ("tf32".to_string(), Data::Bool(candle_core::cuda::gemm_reduced_precision_f32())),
    ]);
    let all = BTreeMap::from([("key".to_string(), to_data(&Dynamic::from(key))?), ("by".to_string(), Data::Map(by))]);
    Ok(hash::sha256(&state::to_bytes(&Data::Map(all))?))
}

fn path(name: &str, id: &str) -> Result<PathBuf> {
    if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
        return Err(Error::value(format!("`{name}` cannot name an entry of the cache")));
    }
    // the owner in the file has the whole hash
    Ok(cache::folder()?.join(format!("{name}-{}.state", id.get(..24).unwrap_or(id))))
}

/// The entry; `None` where there is none, or none that can be used.
pub(super) fn read(name: &str, id: &str) -> Result<Option<Data>> {
    let path = match path(name, id) {
        Ok(p) => p,
        // no home, no cache: the writer says so
        Err(e) if e.kind() == Kind::Io => return Ok(None),
        Err(e) => return Err(e),
    };
    if !path.exists() {
        return Ok(None);
    }
    let (file, owner) = (path.clone(), id.to_string());
    match aside::run(usize::MAX, move || state::load_for(&owner, file)) {
        Ok(Data::Map(mut m)) => Ok(m.remove("value")),
        Ok(_) => Ok(None),
        Err(e) if matches!(e.kind(), Kind::Cancelled | Kind::Memory) => Err(e),
        Err(e) => {
            note(&format!(
                "the entry `{}` of the cache cannot be used and is made anew: {}",
                path.display(),
                e.message()
            ));
            Ok(None)
        }
    }
}

/// Keeps a value, in place of a damaged one.
pub(super) fn write(name: &str, id: &str, value: Data) -> Result<()> {
    let kept = path(name, id).and_then(|path| {
        let dir = cache::folder()?;
        crate::access::write(&dir)?.make_folder().map_err(|e| Error::io(&dir, "create", e))?;
        let owner = id.to_string();
        aside::run(usize::MAX, move || {
            let data = Data::Map(BTreeMap::from([("value".to_string(), value)]));
            crate::files::atomic::write(&path, &state::encoded(&data, Some(&owner))?)
        })
    });
    match kept {
        // a stranger's script may not put values in the place of one's own
        Err(e) if matches!(e.kind(), Kind::Io | Kind::Permission) => {
            note(&format!("`{name}` is not kept in the cache: {}", e.message()));
            Ok(())
        }
        other => other,
    }
}
