//! The command line; everything is in the library.

/// Tensors come and go by the megabyte; mimalloc keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ld3sh::shell::cli::main()
}
