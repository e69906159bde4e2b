//! The command line's grammar: what may stand in it, for parsing, help, completions and the manual.
use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The folder for a script's files where none is named.
pub const OUT: &str = "out";

const AFTER: &str = "\
ld3sh SCRIPT runs a script, and SCRIPT --help lists its parameters; `-` is standard input. Without a script it opens the REPL.
A script that has the name of a command comes first.

LD3SH_PATH: folders (separated by `:`) in which `import` looks for modules
LD3SH_SHARD: what --shard says, where that is not given
LD3SH_SIMD: the instruction set of the kernels: scalar, v3 (AVX2), v4 (AVX-512) or neon; the best by default";

const MODELS: &str = "\
LD3SH_CACHE    the folder for downloads and other costly things; by default the user's cache folder
LD3SH_MIRROR   an address from which all files are fetched: LD3SH_MIRROR/FILE instead of the public addresses
LD3SH_OFFLINE  1: fetch nothing
HF_TOKEN       a token of Hugging Face's hub, for what it does not give to everybody; it is sent to the hub alone
HF_ENDPOINT    another address of the hub: a mirror
HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are honoured.";

const SCHEDULE: &str = "\
What is printed goes to standard output; notes, and what was lost, to standard error.

ld3sh schedule \"14.615 6.475 3.861 2.697 1.886 1.396 0.963 0.652 0.399 0.152 0.029\" --from sigmas --noise sd --to timesteps
ld3sh schedule ays_sd15 --steps 8 --as comfyui
ld3sh schedule steps.json --as a1111 --write ld3.py
ld3sh schedule \"1.0 0.93 0.8 0.55 0.25\" --noise flow --shift 3 --from times --to sigmas";

/// A scripting environment for few-step sampling of diffusion models
#[derive(Parser)]
#[command(name = "ld3sh", version, disable_help_flag = true, after_help = AFTER, term_width = 100)]
pub struct CommandLine {
    /// What a script is run with.
    #[command(flatten)]
    pub script: ScriptArgs,
    /// What holds for all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do instead of running a script.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Print help: ld3sh's, or the given script's
    #[arg(short = 'h', long)]
    pub help: bool,
}

/// What a script is run with.
#[derive(Args, Clone)]
pub struct ScriptArgs {
    /// The script to run
    #[arg(value_name = "SCRIPT", num_args = 0..=2)]
    pub words: Vec<String>,
    /// Evaluate CODE and print its value
    #[arg(short = 'e', value_name = "CODE", conflicts_with = "words", allow_hyphen_values = true)]
    pub code: Option<String>,
    /// Set a parameter of the script (may be repeated)
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// The seed that `seed()` returns to the script
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub seed: i64,
    /// The folder for the script's files
    #[arg(long, value_name = "DIR", default_value = OUT)]
    pub out: PathBuf,
    /// Run the script once for each of these values of a parameter, and for all combinations with other sweeps; each in a folder of --out
    #[arg(long, value_name = "NAME=A,B,…", conflicts_with_all = ["code", "inspect"])]
    pub sweep: Vec<String>,
    /// Leave a run that is done already as it is: for the runs of a sweep.
    #[arg(skip)]
    pub resume: bool,
    /// The part of shared work to do, from 1/N to N/N; auto: what the scheduler says (Slurm, mpirun, Grid Engine, LSF)
    #[arg(long, value_name = "I/N")]
    pub shard: Option<String>,
    /// After the script, also after an error in it, open the REPL with its variables
    #[arg(short = 'i', long)]
    pub inspect: bool,
    /// Open the REPL without running the script: what follows work that did not hear Ctrl-C
    #[arg(long, hide = true)]
    pub anew: bool,
    /// Do not run the startup file (ld3sh/startup.rhai in the folder for configuration) when the REPL opens
    #[arg(long)]
    pub no_startup: bool,
    /// For a script from a stranger: let it read its own folder, --out and the cache, and write to --out alone
    #[arg(long)]
    pub untrusted: bool,
    /// Let scripts read PATH and what is below it (may be repeated)
    #[arg(long, value_name = "PATH")]
    pub allow_read: Vec<PathBuf>,
    /// Let scripts write PATH and what is below it (may be repeated)
    #[arg(long, value_name = "PATH")]
    pub allow_write: Vec<PathBuf>,
}

/// What holds for all commands, and may stand before or after them.
#[derive(Args)]
pub struct Global {
    /// Where tensors live: cpu, cuda, cuda:N
    #[arg(long, global = true, default_value = "cpu")]
    pub device: String,
    /// No progress reports
    #[arg(long, global = true)]
    pub quiet: bool,
    /// Threads to compute with; all cores by default
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,
    /// Sum convolutions of networks directly, without Winograd's transform: slower, with less rounding error
    #[arg(long, global = true)]
    pub exact_conv: bool,
    /// On a GPU, multiply f32 in TF32: faster, with about three digits
    #[arg(long, global = true)]
    pub tf32: bool,
    /// Download nothing
    #[arg(long, global = true)]
    pub offline: bool,
    /// The most memory to take, like 8GB
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
}

/// The commands beside running scripts.
#[derive(Subcommand)]
pub enum Command {
    /// Parse and check a script without computing
    Check(CheckArgs),
    /// List published networks, fetch them, check them
    #[command(after_help = MODELS)]
    Models {
        /// What to do; without it, list the networks that scripts find by name
        #[command(subcommand)]
        what: Option<ModelsCommand>,
    },
    /// Turn a pickle or PyTorch checkpoint into safetensors
    Convert(ConvertArgs),
    /// Time kernels, networks and training steps on this machine
    Bench(BenchArgs),
    /// Turn a list of steps into any other, ready to paste into another tool
    #[command(after_help = SCHEDULE)]
    Schedule(ScheduleArgs),
    /// List recorded runs, with what they differ in and what they measured
    Runs(RunsArgs),
    /// Write a page that compares recorded runs
    Report(ReportArgs),
    /// Join what shards wrote: samples, statistics, tables
    Merge(MergeArgs),
    /// Write .d.rhai files, from which editors complete
    Definitions {
        /// The folder to write to, like .rhai/definitions
        dir: PathBuf,
    },
    /// Write the reference pages
    Reference {
        /// The folder to write to
        #[arg(long, value_name = "DIR", default_value = "docs/reference")]
        out: PathBuf,
    },
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write those of all commands
    Man {
        /// The folder to write them to
        dir: Option<PathBuf>,
    },
}

/// What `ld3sh check` takes.
#[derive(Args)]
pub struct CheckArgs {
    /// The script; `-` is standard input
    pub script: String,
    /// Set a parameter of the script (may be repeated)
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

/// What `ld3sh models` does.
#[derive(Subcommand)]
pub enum ModelsCommand {
    /// Download networks, or go on with an interrupted download
    Get {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Print where networks are, or are to be put; without NAME the folder
    Path {
        /// Their names
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Accept licences that ask for it before a download; without NAME print what was accepted
    Accept {
        /// Names of models
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Compare networks with their SHA-256; without NAME all that are here
    Check {
        /// Their names
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

/// What `ld3sh convert` takes.
#[derive(Args)]
pub struct ConvertArgs {
    /// The checkpoint to read: .pkl, .pt, .pth, .ckpt or .safetensors
    #[arg(value_name = "IN")]
    pub from: PathBuf,
    /// The file to write
    #[arg(value_name = "OUT.safetensors")]
    pub to: PathBuf,
    /// Store weights in half precision
    #[arg(long)]
    pub half: bool,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
    /// The names of a network's classes, separated by commas
    #[arg(long, value_name = "NAME,NAME,…")]
    pub classes: Option<String>,
}

/// What `ld3sh bench` takes.
#[derive(Args)]
pub struct BenchArgs {
    /// What to time: conv, norm, attention, net, step, pairs, or a case in JSON; all by default
    #[arg(value_name = "CASE")]
    pub cases: Vec<String>,
    /// A line of JSON per case
    #[arg(long)]
    pub json: bool,
    /// Print where a run's time goes, by operation
    #[arg(long)]
    pub profile: bool,
    /// The type of numbers: f32, or on a GPU f16 or bf16
    #[arg(long)]
    pub dtype: Option<String>,
    /// Be one side of a comparison: inputs come from FILE, whose metadata names the case; results go to FILE.out
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cases", "json", "profile"])]
    pub serve: Option<PathBuf>,
}

/// What `ld3sh runs` takes.
#[derive(Args)]
pub struct RunsArgs {
    /// Folders of runs, or folders that these are in; the working folder by default
    #[arg(value_name = "DIR")]
    pub folders: Vec<PathBuf>,
    /// Print the table as Markdown
    #[arg(long)]
    pub markdown: bool,
}

/// What `ld3sh report` takes.
#[derive(Args)]
pub struct ReportArgs {
    /// Folders of runs, or folders that these are in
    #[arg(value_name = "DIR", required = true)]
    pub folders: Vec<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE.html", default_value = "report.html")]
    pub write: PathBuf,
    /// Show it in the browser
    #[arg(long)]
    pub open: bool,
}

/// What `ld3sh merge` takes.
#[derive(Args)]
pub struct MergeArgs {
    /// Folders that shards of one run wrote to; one alone is joined where it is
    #[arg(value_name = "DIR", required = true)]
    pub folders: Vec<PathBuf>,
    /// The folder to bring several together in
    #[arg(long, value_name = "DIR", default_value = "merged")]
    pub into: PathBuf,
}

/// What `ld3sh schedule` takes.
#[derive(Args)]
pub struct ScheduleArgs {
    /// The list, the name of a published one (ays_sd15, oss_flux, …), a file with either or a saved schedule; `-` is standard input
    #[arg(value_name = "LIST", allow_hyphen_values = true)]
    pub list: Option<String>,
    /// What the list's values are: sigmas, timesteps, lambdas, times or flow
    #[arg(long, value_name = "FORM")]
    pub from: Option<String>,
    /// The model's noise schedule: sd (also SDXL), ldm, edm, vp_linear, vp_cosine, flow, or its JSON
    #[arg(long, value_name = "NAME")]
    pub noise: Option<String>,
    /// The shift of a flow model's time
    #[arg(long, value_name = "S")]
    pub shift: Option<f64>,
    /// What to print: sigmas, timesteps, lambdas, times or flow
    #[arg(long, value_name = "FORM")]
    pub to: Option<String>,
    /// Resample to N evaluations, that of an appended 0 included
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// How to resample: log-linear (as tools do) or tau (through the smooth density of the steps)
    #[arg(long, value_name = "HOW", default_value = "log-linear", value_parser = ["log-linear", "tau"])]
    pub resample: String,
    /// The tool to print for; `--tools` lists them
    #[arg(long = "as", value_name = "TOOL")]
    pub tool: Option<String>,
    /// What becomes of an end above σ = 0: keep, append (a 0 behind it) or replace (by 0)
    #[arg(long, value_name = "WHAT")]
    pub end: Option<String>,
    /// The solver that will run, by its name here; chooses the tool's sampler
    #[arg(long, value_name = "NAME")]
    pub solver: Option<String>,
    /// Do not round timesteps to whole numbers
    #[arg(long)]
    pub exact: bool,
    /// Write to FILE instead of printing
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// List the tools
    #[arg(long)]
    pub tools: bool,
}

/// Bytes as a user writes them: `8GB`, `512 MiB`, `1e9`.
fn size(text: &str) -> std::result::Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit.trim().to_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1048576.0,
        "gib" => 1073741824.0,
        "tib" => 1099511627776.0,
        _ => return Err("give a size like 8GB or 512MiB".into()),
    };
    match number.parse::<f64>() {
        Ok(n) if n > 0.0 => Ok((n * unit) as u64),
        _ => Err("give a size like 8GB or 512MiB".into()),
    }
}

impl Command {
    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Check(_) => "check",
            Command::Models { .. } => "models",
            Command::Convert(_) => "convert",
            Command::Bench(_) => "bench",
            Command::Schedule(_) => "schedule",
            Command::Runs(_) => "runs",
            Command::Report(_) => "report",
            Command::Merge(_) => "merge",
            Command::Definitions { .. } => "definitions",
            Command::Reference { .. } => "reference",
            Command::Completions { .. } => "completions",
            Command::Man { .. } => "man",
        }
    }
}

/// The grammar. ld3sh's own `--help` may be a script's; a command's is the usual one.
pub fn grammar() -> clap::Command {
    fn with_help(command: clap::Command) -> clap::Command {
        let help = Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Print help");
        command.arg(help).mut_subcommands(with_help)
    }
    CommandLine::command().mut_subcommands(with_help)
}

/// The names of all commands.
pub fn commands() -> Vec<String> {
    grammar().get_subcommands().map(|c| c.get_name().to_string()).collect()
}

/// Reads a command line. A script in the working folder that has the name of a command comes first.
///
/// # Errors
/// What clap reports; also for `--help` of a command, and for `--version`.
pub fn parse(words: &[OsString]) -> Result<CommandLine, clap::Error> {
    let parsed = read(words.to_vec());
    let name = match &parsed {
        Ok(CommandLine { command: Some(c), .. }) => c.name(),
        Ok(_) => return parsed,
        // what follows the name may be the script's
        Err(_) => match words.iter().skip(1).find_map(|w| commands().into_iter().find(|c| w.to_str() == Some(c))) {
            Some(name) => return if Path::new(&name).is_file() { as_script(words, &name) } else { parsed },
            None => return parsed,
        },
    };
    if Path::new(name).is_file() { as_script(words, name) } else { parsed }
}

/// The command line with `name` as the path of a script.
fn as_script(words: &[OsString], name: &str) -> Result<CommandLine, clap::Error> {
    let path = |w: &OsString| if w == name { Path::new(".").join(name).into_os_string() } else { w.clone() };
    read(words.iter().map(path).collect())
}

fn read(words: Vec<OsString>) -> Result<CommandLine, clap::Error> {
    let mut grammar = grammar();
    let matches = grammar.try_get_matches_from_mut(words)?;
    CommandLine::from_arg_matches(&matches).map_err(|e| e.format(&mut grammar))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        grammar().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after() {
        let of = |line: &str| parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in ["ld3sh --threads 1 convert a b", "ld3sh convert a b --threads 1", "ld3sh convert --threads=1 a b"]
        {
            let args = of(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!(args.global.threads, Some(1), "{line}");
            assert!(matches!(args.command, Some(Command::Convert(_))), "{line}");
        }
        for line in ["ld3sh --quiet models", "ld3sh models --quiet", "ld3sh models get x --quiet"] {
            let args = of(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(args.global.quiet && matches!(args.command, Some(Command::Models { .. })), "{line}");
        }
        for line in ["ld3sh --threads 1 s.rhai", "ld3sh s.rhai --threads 1"] {
            let args = of(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!((args.global.threads, args.script.words), (Some(1), vec!["s.rhai".to_string()]), "{line}");
        }
    }

    #[test]
    fn every_command_has_help() {
        for name in commands() {
            let e = parse(&["ld3sh".into(), name.clone().into(), "--help".into()]).err().unwrap();
            assert_eq!(e.kind(), clap::error::ErrorKind::DisplayHelp, "{name}");
            assert!(e.to_string().contains("--threads"), "{name}");
        }
    }
}
