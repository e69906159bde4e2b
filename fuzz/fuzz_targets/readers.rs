//! Any bytes to any of the other readers: reading ends, with a value or an error. `LD3SH_READER` says which, by its number here; without
//! it the first byte of each input does.
#![no_main]
use ld3sh::files::image::Image;
use ld3sh::files::pickle::Shared;
use ld3sh::files::{checkpoint, cloud, json, npy, result, state};
use ld3sh::script::modules;
use ld3sh::shell::lex;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// How many readers there are.
const READERS: u8 = 10;
static CHOSEN: LazyLock<Option<u8>> = LazyLock::new(|| std::env::var("LD3SH_READER").ok()?.parse().ok());

fuzz_target!(init: {
    // decoders of pictures panic at some files, which their callers make errors: only what nobody catches ends the run
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
}, |data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let (reader, bytes) = match *CHOSEN {
        Some(reader) => (reader, data),
        None => (first % READERS, rest),
    };
    let text = String::from_utf8_lossy(bytes);
    match reader {
        0 => drop(npy::from_bytes(bytes)),
        1 => drop(npy::read_archive(&Shared::new(bytes.to_vec()).into())),
        2 => drop(checkpoint::from_bytes(&Shared::new(bytes.to_vec()), true).map(|c| c.readable("").map(drop))),
        3 => drop(Image::from_png(bytes)),
        4 => drop(result::parse(&text, true)),
        5 => drop(json::parse(&text)),
        6 => drop(state::from_bytes(bytes)),
        7 => {
            lex::lex(&text);
            drop(modules::compile(&rhai::Engine::new_raw(), "x", &text));
        }
        8 => drop(Image::from_bytes(bytes)),
        _ => {
            drop(cloud::ply::read(bytes));
            drop(cloud::xyz::read(bytes));
        }
    }
});
