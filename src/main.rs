//! The command line; everything is in the library.
use anyhow::anyhow;
use std::process::ExitCode;

/// Tensors come and go by the megabyte; mimalloc keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    let ended = ld3sh::shell::cli::main(std::env::args_os().collect(), |code| std::process::exit(code));
    ended.map_err(|e| anyhow!(e.to_string()))
}
