//! The commands beside running scripts, a row each: `ld3sh NAME ARGUMENTS…`.
use crate::Result;

/// A command.
pub struct Tool {
    /// The first word of the command line. A script of that name in the working folder comes first.
    pub name: &'static str,
    /// What follows the name, for the usage line.
    pub usage: &'static str,
    /// One line for `ld3sh --help`.
    pub summary: &'static str,
    /// Does the work with the words after the name, on a thread with [`crate::script::engine::STACK`] bytes of stack.
    pub run: fn(&[String]) -> Result<()>,
}

/// All commands, in the order in which `--help` lists them.
pub const TOOLS: &[Tool] = &[
    Tool {
        name: "models",
        usage: "[get|path|check] [NAME…]",
        summary: "list published networks, fetch them, check them",
        run: super::models::run,
    },
    Tool {
        name: "convert",
        usage: "IN OUT.safetensors",
        summary: "turn a pickle or PyTorch checkpoint into safetensors",
        run: super::convert::run,
    },
    Tool {
        name: "bench",
        usage: "[CASE…] [--json] [--device=…]",
        summary: "time kernels, networks and training steps on this machine",
        run: super::bench::run,
    },
    Tool {
        name: "definitions",
        usage: "DIR",
        summary: "write .d.rhai files, from which editors complete",
        run: super::reference::write_definitions,
    },
    Tool {
        name: "reference",
        usage: "[--out DIR]",
        summary: "write the reference pages (docs/reference)",
        run: super::reference::write_reference,
    },
];

/// The lines about the commands in `ld3sh --help`.
pub fn help() -> String {
    TOOLS.iter().map(|t| format!("  {:<34}{}\n", format!("ld3sh {} {}", t.name, t.usage), t.summary)).collect()
}

/// The command that a command line asks for.
pub fn find(words: &[String]) -> Option<&'static Tool> {
    let name = words.first()?;
    TOOLS.iter().find(|t| t.name == name).filter(|_| !std::path::Path::new(name).is_file())
}
