//! The command line: what to run, with which settings, and the exit code.
use super::commands::{self, State};
use super::session::{Failure, Outcome, Session, Settings};
use super::{check, repl, report, tools};
use crate::access::{self, policy};
use crate::files::bulk::Shard;
use crate::files::{atomic, utf8};
use crate::nets::kernels::simd;
use crate::script::engine::{print_line, report_line};
use crate::script::{context, host, modules, panics, params};
use crate::tensor::{device, memory};
use crate::{Error, Result};
use clap::Parser;
use rhai::Dynamic;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A script ended with an error.
const FAILED: u8 = 1;
/// The folder for the script's files where none is given.
const OUT: &str = "out";
/// What was computed for so long is worth keeping when a plot or a save fails.
const LONG: Duration = Duration::from_secs(20);
/// The command line was wrong.
const USAGE: u8 = 2;
/// Stopped by Ctrl-C.
const INTERRUPTED: u8 = 130;

fn after_help() -> String {
    let commands = [
        ("ld3sh SCRIPT", "run a script; SCRIPT --help lists its parameters"),
        ("ld3sh check SCRIPT", "parse and check it without computing"),
        ("ld3sh -", "run a script from standard input"),
        ("ld3sh", "open the REPL"),
    ];
    let commands: String = commands.iter().map(|(c, what)| format!("  {c:<34}{what}\n")).collect();
    let path = "LD3SH_PATH: folders (separated by `:`) in which `import` looks for modules";
    let simd =
        "LD3SH_SIMD: the instruction set of the kernels: scalar, v3 (AVX2), v4 (AVX-512) or neon; the best by default";
    format!("Commands:\n{commands}{}\n{path}\n{simd}", tools::help())
}

/// A scripting environment for few-step sampling of diffusion models
#[derive(Parser)]
#[command(name = "ld3sh", version, disable_help_flag = true, after_help = after_help(), term_width = 100)]
struct Args {
    /// The script to run, or `check` and the script to check
    #[arg(value_name = "SCRIPT", num_args = 0..=2)]
    words: Vec<String>,
    /// Evaluate CODE and print its value
    #[arg(short = 'e', value_name = "CODE", conflicts_with = "words", allow_hyphen_values = true)]
    code: Option<String>,
    /// Set a parameter of the script (may be repeated)
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Where tensors live: cpu, cuda, cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// The seed that `seed()` returns to the script
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: i64,
    /// The folder for the script's files
    #[arg(long, value_name = "DIR", default_value = OUT)]
    out: PathBuf,
    /// The part of shared work that `generate` does, from 1/N to N/N
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// After the script, also after an error in it, open the REPL with its variables
    #[arg(short = 'i', long)]
    inspect: bool,
    /// Do not run the startup file (ld3sh/startup.rhai in the folder for configuration) when the REPL opens
    #[arg(long)]
    no_startup: bool,
    /// No progress reports
    #[arg(long)]
    quiet: bool,
    /// Threads to compute with; all cores by default
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Sum convolutions of networks directly, without Winograd's transform: slower, with less rounding error
    #[arg(long)]
    exact_conv: bool,
    /// For a script from a stranger: let it read its own folder, --out and the cache, and write to --out alone
    #[arg(long)]
    untrusted: bool,
    /// Let scripts read PATH and what is below it (may be repeated)
    #[arg(long, value_name = "PATH")]
    allow_read: Vec<PathBuf>,
    /// Let scripts write PATH and what is below it (may be repeated)
    #[arg(long, value_name = "PATH")]
    allow_write: Vec<PathBuf>,
    /// Download nothing
    #[arg(long)]
    offline: bool,
    /// The most memory to take, like 8GB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// On a GPU, multiply f32 in TF32: faster, with about three digits
    #[arg(long)]
    tf32: bool,
    /// Print help: ld3sh's, or the given script's
    #[arg(short = 'h', long)]
    help: bool,
}

/// Whether a second Ctrl-C ends the process (it does, except in a REPL).
static SECOND_ENDS: AtomicBool = AtomicBool::new(true);

/// Reads the command line and does what it says, on a thread with a stack that is large enough.
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
    let tool = tools::find(&words);
    let args = match tool.map_or_else(Args::try_parse, |_| Args::try_parse_from(["ld3sh"])) {
        Ok(a) => a,
        Err(e) => {
            let code = if e.use_stderr() { USAGE } else { 0 };
            let text = e.render().to_string();
            if code == 0 {
                print_line(text.trim_end());
            } else {
                report_line(text.trim_end());
            }
            return ExitCode::from(code);
        }
    };
    if let Err(e) = simd::force_from_environment() {
        return ExitCode::from(usage(&e));
    }
    panics::quiet();
    // before there are other threads, which Landlock would not bind
    if tool.is_none()
        && let Some(note) = access::confine(allowed(&args))
    {
        report_line(&format!("note: {note}"));
    }
    crate::host::fail_large_writes();
    // without a handler Ctrl-C ends the process, which is no worse than failing here
    let _ = ctrlc::set_handler(|| {
        if crate::host::cancel_requested() && SECOND_ENDS.load(Ordering::SeqCst) {
            std::process::exit(INTERRUPTED.into());
        }
        crate::host::cancel();
    });
    let worker =
        std::thread::Builder::new().name("script".into()).stack_size(memory::stack()).spawn(move || match tool {
            Some(t) => (t.run)(&words[1..]).map_or_else(|e| stopped(&e), |()| 0),
            None => start(args),
        });
    let code = match worker.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        Ok(Err(_)) => {
            report_line("error: ld3sh itself failed. This is a bug in ld3sh: please report it.");
            FAILED
        }
        Err(e) => {
            report_line(&format!("error: cannot start the script's thread: {e}"));
            FAILED
        }
    };
    ExitCode::from(code)
}

fn color() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Prints the error of a command; returns the exit code.
fn stopped(e: &Error) -> u8 {
    report_line(&report::render_plain(e, color()));
    if e.kind() == crate::Kind::Cancelled { INTERRUPTED } else { FAILED }
}

fn usage(e: &Error) -> u8 {
    report_line(&report::render_plain(e, color()));
    USAGE
}

/// Prints an uncaught error; returns the exit code.
fn failed(f: Failure, session: &Session) -> u8 {
    let code = if f.cancelled() { INTERRUPTED } else { FAILED };
    report_line(&report::render(f, session, color()));
    code
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

/// What the command line lets scripts touch.
fn allowed(args: &Args) -> access::Policy {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    let script = match words.as_slice() {
        ["check", script] | [script] if *script != "-" => Path::new(*script),
        _ => Path::new(""),
    };
    let folder = script.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut scripts = vec![folder.to_path_buf()];
    if let Some(path) = std::env::var_os("LD3SH_PATH") {
        scripts.extend(std::env::split_paths(&path).filter(|p| !p.as_os_str().is_empty()));
    }
    // a setting may be a path, or a list of them
    let settings = args.set.iter().filter_map(|s| s.split_once('=')).flat_map(|(_, value)| {
        let list = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(value);
        list.split(',').map(|v| v.trim().trim_matches('"')).filter(|v| !v.is_empty() && v.parse::<f64>().is_err())
    });
    let cache = crate::files::cache::folder().ok();
    access::Policy {
        untrusted: args.untrusted,
        offline: args.offline,
        out: args.out.clone(),
        out_typed: args.out != Path::new(OUT),
        scripts,
        read: args.allow_read.clone(),
        write: args.allow_write.iter().cloned().chain(settings.map(PathBuf::from)).collect(),
        own_read: commands::startup_file().into_iter().collect(),
        own_write: cache.iter().cloned().chain(repl::state_folder()).collect(),
        cache,
    }
}

/// What was asked for.
enum Task {
    Repl,
    Code(String),
    Run(String),
    Check(String),
}

fn task(args: &Args) -> Result<Task> {
    if let Some(code) = &args.code {
        return Ok(Task::Code(code.clone()));
    }
    match args.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] if std::io::stdin().is_terminal() => Ok(Task::Repl),
        [] => Ok(Task::Run("-".into())),
        ["check"] if !Path::new("check").is_file() => {
            Err(Error::value("`ld3sh check` needs a script").hint("`ld3sh check script.rhai`"))
        }
        ["check", script] => Ok(Task::Check(script.to_string())),
        [script] => Ok(Task::Run(script.to_string())),
        [_, extra, ..] => {
            let e = Error::value(format!("unexpected argument `{extra}`"));
            Err(e.hint(format!("parameters are set with `--set name=value`, like `--set {extra}`")))
        }
    }
}

fn settings(args: &Args) -> Result<()> {
    device::set_default_device(device::parse_device(&args.device).map_err(|e| e.context("--device"))?);
    if let Some(n) = args.threads {
        if !(1..=4096).contains(&n) {
            return Err(Error::value(format!("--threads must be from 1 to 4096, not {n}")));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build_global();
        pool.map_err(|e| Error::value(format!("--threads {n}: {e}")))?;
    }
    if let Some(shard) = &args.shard {
        context::set_default_shard(Shard::parse(shard).map_err(|e| e.context("--shard"))?);
    }
    crate::nets::kernels::set_exact(args.exact_conv);
    candle_core::cuda::set_gemm_reduced_precision_f32(args.tf32);
    args.memory.into_iter().for_each(crate::tensor::memory::set_limit);
    host::set_quiet(args.quiet);
    Ok(())
}

fn start(args: Args) -> u8 {
    if args.help && args.words.is_empty() {
        let text = <Args as clap::CommandFactory>::command().render_help().to_string();
        print_line(text.trim_end());
        return 0;
    }
    let task = match settings(&args).and_then(|()| task(&args)) {
        Ok(t) => t,
        Err(e) => return usage(&e),
    };
    let mut session = Session::new(Settings { seed: args.seed, out: args.out.clone() });
    match task {
        Task::Repl => {
            if let Some(s) = args.set.first() {
                let e = Error::value(format!("--set {s} has no script to set a parameter of"));
                return usage(&e.hint("`ld3sh script.rhai --set name=value`"));
            }
            SECOND_ENDS.store(false, Ordering::SeqCst);
            let state = State::new(color());
            if !args.no_startup {
                commands::startup(&mut session, &state);
            }
            repl::run(&mut session, state)
        }
        Task::Code(code) => script(&mut session, "-e", &code, &args, false),
        Task::Run(path) | Task::Check(path) if !readable(&path) => {
            let e = Error::new(crate::Kind::Io, format!("there is no script `{path}`"));
            usage(&near_script(&path).into_iter().fold(e, |e, n| e.hint(format!("did you mean `{n}`?"))))
        }
        Task::Run(path) if args.inspect && !args.help => {
            if path == "-" || !std::io::stdin().is_terminal() {
                let e = Error::value("--inspect reads from the terminal, so the script must be a file");
                return usage(&e);
            }
            SECOND_ENDS.store(false, Ordering::SeqCst);
            // what went wrong has been told
            file(&mut session, &path, &args, false);
            repl::run(&mut session, State::new(color()))
        }
        Task::Run(path) => file(&mut session, &path, &args, false),
        Task::Check(path) => file(&mut session, &path, &args, true),
    }
}

fn readable(path: &str) -> bool {
    path == "-" || Path::new(path).exists()
}

/// A script beside the one that was not found, with nearly its name.
fn near_script(path: &str) -> Option<String> {
    let path = Path::new(path);
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let entries = crate::access::read(parent.unwrap_or(Path::new("."))).ok()?.list().ok()?;
    let mut names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.retain(|n| n.ends_with(".rhai"));
    names.sort();
    let near = crate::error::nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(parent.map_or(near.into(), |p| p.join(near).display().to_string()))
}

fn file(session: &mut Session, path: &str, args: &Args, check_only: bool) -> u8 {
    let text = if path == "-" {
        atomic::read_stream(std::io::stdin(), "standard input").and_then(|b| utf8::decode(b, "standard input"))
    } else {
        // the user typed the name
        let _own = policy::own();
        modules::read_text(Path::new(path))
    };
    match text {
        Ok(text) => {
            let name = if path == "-" { "standard input" } else { path };
            if path != "-" {
                session.set_script(name, &text);
            }
            script(session, name, &modules::without_shebang(&text), args, check_only)
        }
        Err(e) => stopped(&e),
    }
}

/// Parses, then checks, explains or runs.
fn script(session: &mut Session, name: &str, text: &str, args: &Args, check_only: bool) -> u8 {
    let parsed = if check_only { session.parse_only(name, text) } else { session.parse(name, text) };
    let ast = match parsed {
        Ok(a) => a,
        Err(f) => return failed(f, session),
    };
    if check_only {
        let failures = check::check(session, &ast);
        if !failures.is_empty() {
            failures.into_iter().for_each(|f| report_line(&report::render(f, session, color())));
            return FAILED;
        }
    }
    let declared = match session.params(&ast) {
        Ok(p) => p,
        Err(f) => return failed(f, session),
    };
    if args.help {
        print_line(&access::clean(params::help(name, text, &declared).trim_end()));
        return 0;
    }
    if let Err(e) = session.set_params(declared, &args.set) {
        return usage(&e);
    }
    if check_only {
        print_line(&format!("{name}: ok"));
        return 0;
    }
    // what was typed after `-e` is the user's own
    let _file = args.code.is_none().then(policy::enter_file);
    let start = Instant::now();
    match session.evaluate(&ast) {
        Ok(Outcome::Value(v)) => {
            if args.code.is_some() && !v.is_unit() {
                print_line(&access::for_terminal(&std::io::stdout(), &session.print_form(&v)));
            }
            0
        }
        Ok(Outcome::Exit(v)) => exit_code(&v),
        Err(f) => {
            let lost = start.elapsed() > LONG && !f.cancelled() && args.code.is_none() && !args.inspect;
            let code = failed(f, session);
            if lost {
                report_line(
                    "note: with `--inspect`, what a script holds when it fails can be used and saved at the prompt",
                );
            }
            code
        }
    }
}

/// The exit code that `exit(v)` asks for: v itself, 0 for none. What no process can end with is told, and counts as a failure.
pub fn exit_code(v: &Dynamic) -> u8 {
    if v.is_unit() {
        return 0;
    }
    match v.as_int().map(u8::try_from) {
        Ok(Ok(code)) => code,
        Ok(Err(_)) => {
            report_line(&format!("error: exit({v}): an exit code is from 0 to 255"));
            FAILED
        }
        Err(_) => {
            report_line(&format!("error: exit: {v}"));
            FAILED
        }
    }
}
