//! The command line; everything is in the library.
use anyhow::anyhow;
use ld3sh::shell::interrupt::End;
use std::process::ExitCode;

/// Tensors come and go by the megabyte; mimalloc keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    let ended = ld3sh::shell::cli::main(std::env::args_os().collect(), end);
    ended.map_err(|e| anyhow!(e.to_string()))
}

/// Ends the process while its work still runs.
fn end(how: End) {
    match how {
        End::Code(code) => std::process::exit(code.into()),
        End::Anew(words) => begin_anew(&words),
    }
}

/// Puts a new program in the place of this one, in the same terminal.
#[cfg(unix)]
fn begin_anew(words: &[std::ffi::OsString]) {
    use std::os::unix::process::CommandExt;
    let failed = match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program).args(words.iter().skip(1)).exec(),
        Err(e) => e,
    };
    eprintln!("error: cannot begin anew: {failed}");
    std::process::exit(1);
}

/// Elsewhere the process ends, and the terminal's own prompt comes back.
#[cfg(not(unix))]
fn begin_anew(_: &[std::ffi::OsString]) {
    std::process::exit(130);
}
