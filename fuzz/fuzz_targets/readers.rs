//! Any bytes to any of the other readers, which the first byte chooses: reading ends, with a value or an error.
#![no_main]
use ld3sh::files::image::Image;
use ld3sh::files::pickle::Shared;
use ld3sh::files::{checkpoint, json, npy, result, state};
use ld3sh::script::modules;
use ld3sh::shell::lex;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((reader, bytes)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    match reader % 8 {
        0 => drop(npy::from_bytes(bytes)),
        1 => drop(npy::read_archive(&Shared::new(bytes.to_vec()).into())),
        2 => drop(checkpoint::from_bytes(&Shared::new(bytes.to_vec()), true).map(|c| c.readable("").map(drop))),
        3 => drop(Image::from_png(bytes)),
        4 => drop(result::parse(&text, true)),
        5 => drop(json::parse(&text)),
        6 => drop(state::from_bytes(bytes)),
        _ => {
            lex::lex(&text);
            drop(modules::compile(&rhai::Engine::new_raw(), "x", &text));
        }
    }
});
