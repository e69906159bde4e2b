//! Any bytes as a checkpoint: reading ends, with values or a fault, in bounded time and memory.
#![no_main]
#![allow(dead_code, unused_imports)]
mod files;

use files::pickle::Shared;
use files::torch::{Document, Item};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let shared = Shared::new(data.to_vec());
    let Ok(document) = Document::open(&shared.into()) else { return };
    for id in document.tree().ids() {
        if let Ok(Item::Tensor(view)) = document.item(id)
            && view.len() < 1 << 20
        {
            // an error where a checksum does not fit
            assert_eq!(view.bytes().map_or(view.len(), |b| b.len()), view.len());
        }
    }
    let tensors = document.tensors(document.tree().root());
    for name in tensors.iter().flatten().map(|(name, _)| name) {
        assert!(document.find(name).is_ok(), "{name}");
    }
    let _ = document.find("ema._modules.model.0.weight");
});
