//! The command line: what to run, with which settings, and the exit code.
use super::args::{self, Command, CommandLine, Global, ScriptArgs};
use super::commands::{self, State};
use super::interrupt::{self, End, INTERRUPTED};
use super::outcome::{Failure, Outcome, exit_code};
use super::session::{Session, Settings};
use super::terminal::Terminal;
use super::{bench, check, convert, manual, merge, models, reference, repl, report, runs, schedule, sweep};
use crate::access::{self, policy};
use crate::files::{atomic, utf8};
use crate::nets::kernels::simd;
use crate::script::front::{Front, Plain, Quiet, Shared, Silent};
use crate::script::{modules, panics, params};
use crate::tensor::{device, memory, random};
use crate::world::{self, Link, World};
use crate::{Error, Kind, Result};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A script ended with an error.
const FAILED: u8 = 1;
/// The command line was wrong.
const USAGE: u8 = 2;
/// Nobody reads the results any more: as the shell tells it of other tools.
const NOBODY_READS: u8 = 141;
/// A run from this length on has results that are worth keeping when it fails.
const LONG: Duration = Duration::from_secs(20);

/// Reads the command line and does what it says, on a thread with a stack that is large enough. `end` ends the process at a
/// second Ctrl-C.
///
/// # Errors
/// What keeps the script's thread from starting, and a panic of it.
pub fn main(words: Vec<OsString>, end: fn(End)) -> Result<ExitCode> {
    let args = match args::parse(&words) {
        Ok(a) => a,
        Err(e) => return Ok(ExitCode::from(told(&e))),
    };
    if let Err(e) = simd::force_from_environment() {
        return Ok(ExitCode::from(usage(&e, &Terminal::new())));
    }
    panics::quiet();
    patient_threads(args.global.threads);
    // commands do not share their work
    let (world, member, note) = match args.command {
        None => match world::enter(args.script.shard.as_deref()) {
            Ok(entered) => entered,
            Err(e) => return Ok(ExitCode::from(usage(&e, &Terminal::new()))),
        },
        Some(_) => (World::ALONE, world::Member::default(), None),
    };
    // before there are other threads, which Landlock would not bind
    if matches!(args.command, None | Some(Command::Check(_)))
        && let Some(note) = access::confine(allowed(&args))
    {
        Plain::default().report(&format!("note: {note}"));
    }
    if let Some(note) = note {
        Plain::default().report(&format!("note: {note}"));
    }
    crate::host::fail_large_writes();
    interrupt::listen(words, end);
    let worker =
        std::thread::Builder::new().name("script".into()).stack_size(memory::stack()).spawn(move || start(args, world));
    let worker = worker.map_err(|e| Error::new(Kind::Memory, format!("cannot start the script's thread: {e}")))?;
    let broken = |_| Error::new(Kind::Internal, "ld3sh itself failed. This is a bug in ld3sh: please report it.");
    let code = worker.join().map_err(broken);
    member.leave(*code.as_ref().unwrap_or(&FAILED));
    code.map(ExitCode::from)
}

/// How long a rank that failed waits for the first one to say why, before it does.
const FIRST_SPEAKS: Duration = Duration::from_secs(2);

/// Shows why a rank that does not speak for the run ends it. Mostly all fail alike: then the first one ends this one meanwhile.
fn last_words(front: &dyn Front, world: World, code: u8) {
    if code == 0 || world.reports() {
        return;
    }
    std::thread::sleep(FIRST_SPEAKS);
    let told = front.told_last().unwrap_or_default();
    Plain::default().report(&format!("{told}\nnote: rank {} of {} ended the run", world.rank(), world.size()));
}

/// Keeps candle's own threads out: they, and who asked for them, wait by spinning, which costs many times the work where other
/// processes want the cores. Its products use as many of ours as there are.
fn patient_threads(threads: Option<usize>) {
    let told = |name: &str| std::env::var_os(name).is_some();
    let set = |name: &str, value: usize| {
        // SAFETY: there are no other threads yet
        unsafe { std::env::set_var(name, value.to_string()) }
    };
    if !told("CANDLE_NUM_THREADS") {
        set("CANDLE_NUM_THREADS", 1);
        // as many threads as it shall ever have; a program that is started from here hears nothing of it
        candle_core::utils::barrier_pool();
        // SAFETY: as above
        unsafe { std::env::remove_var("CANDLE_NUM_THREADS") }
    }
    if let (Some(n), false) = (threads.filter(|n| *n > 0), told("RAYON_NUM_THREADS")) {
        set("RAYON_NUM_THREADS", n);
    }
}

/// Shows what the parser of the command line says; returns the exit code.
fn told(e: &clap::Error) -> u8 {
    let (front, text) = (Plain::default(), e.render().to_string());
    if e.use_stderr() {
        front.report(text.trim_end());
        return USAGE;
    }
    front.print(text.trim_end());
    ended(&front, 0)
}

/// The exit code of what ended with `code`, once it is known whether its results could be written.
fn ended(front: &dyn Front, code: u8) -> u8 {
    match front.failure() {
        Some(e) => {
            front.report(&report::render_plain(&e, front.report_look()));
            FAILED
        }
        // a reader that has gone away (`| head`) ends ld3sh as it ends other tools: quietly
        None if front.is_closed() => NOBODY_READS,
        None => code,
    }
}

fn usage(e: &Error, front: &dyn Front) -> u8 {
    front.report(&report::render_plain(e, front.report_look()));
    USAGE
}

/// Shows an uncaught error; returns the exit code.
fn failed(f: Failure, session: &Session) -> u8 {
    let code = if f.cancelled() { INTERRUPTED } else { FAILED };
    let front = session.front();
    if !front.is_closed() {
        front.report(&report::render(f, session, front.report_look()));
    }
    code
}

/// Shows why there is no record of a run; returns the exit code.
fn unwritten(e: &Error, front: &dyn Front) -> u8 {
    front.report(&report::render_plain(e, front.report_look()));
    FAILED
}

/// What to do with a script.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Run,
    Check,
    /// Tell of its parameters.
    Help,
}

/// What the command line lets scripts touch.
fn allowed(line: &CommandLine) -> access::Policy {
    let args = &line.script;
    let script = match (&line.command, args.words.first()) {
        (Some(Command::Check(check)), _) => check.script.as_str(),
        (_, Some(script)) if script != "-" => script.as_str(),
        _ => "",
    };
    let folder = Path::new(script).parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut scripts = vec![folder.to_path_buf()];
    if let Some(path) = std::env::var_os("LD3SH_PATH") {
        scripts.extend(std::env::split_paths(&path).filter(|p| !p.as_os_str().is_empty()));
    }
    // a setting may be a path, or a list of them
    let given = match &line.command {
        Some(Command::Check(check)) => &check.set,
        _ => &args.set,
    };
    let settings = given.iter().filter_map(|s| s.split_once('=')).flat_map(|(_, value)| {
        let list = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(value);
        list.split(',').map(|v| v.trim().trim_matches('"')).filter(|v| !v.is_empty() && v.parse::<f64>().is_err())
    });
    let cache = crate::files::cache::folder().ok();
    access::Policy {
        untrusted: args.untrusted,
        offline: line.global.offline,
        out: args.out.clone(),
        out_typed: args.out != Path::new(args::OUT),
        scripts,
        read: args.allow_read.clone(),
        write: args.allow_write.iter().cloned().chain(settings.map(PathBuf::from)).collect(),
        own_read: commands::startup_file().into_iter().collect(),
        own_write: cache.iter().cloned().chain(repl::state_folder()).collect(),
        cache,
    }
}

/// The settings of all commands.
fn settings(args: &Global, world: World) -> Result<()> {
    let mut device = args.device.clone();
    if device == "cuda"
        && world.size() > 1
        && let Some(own) = world::scheduler::gpu(&|name| std::env::var(name).ok())
    {
        device = format!("cuda:{own}");
    }
    device::set_default_device(device::parse_device(&device).map_err(|e| e.context("--device"))?);
    if let Some(n) = args.threads {
        if !(1..=4096).contains(&n) {
            return Err(Error::value(format!("--threads must be from 1 to 4096, not {n}")));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build_global();
        pool.map_err(|e| Error::value(format!("--threads {n}: {e}")))?;
    }
    crate::nets::kernels::set_exact(args.exact_conv);
    candle_core::cuda::set_gemm_reduced_precision_f32(args.tf32);
    args.memory.into_iter().for_each(memory::set_limit);
    Ok(())
}

fn start(args: CommandLine, world: World) -> u8 {
    world::set(world);
    let terminal = Shared::new(Terminal::new());
    let terminal = if world.reports() { terminal } else { Shared::new(Silent::instead_of(terminal)) };
    let front = if args.global.quiet { Shared::new(Quiet(terminal)) } else { terminal };
    if args.help && args.script.words.is_empty() && args.command.is_none() {
        front.print(manual::help().trim_end());
        return ended(&*front, 0);
    }
    if let Err(e) = settings(&args.global, world) {
        let code = usage(&e, &*front);
        last_words(&*front, world, code);
        return code;
    }
    let code = match args.command {
        Some(command) => dispatch(command, &args.script, args.help, &front),
        None => scripts(&args.script, args.help, &front),
    };
    let code = ended(&*front, code);
    last_words(&*front, world, code);
    code
}

/// Does what a command says; returns the exit code.
fn dispatch(command: Command, script: &ScriptArgs, help: bool, front: &Shared) -> u8 {
    if let Some(word) = script.words.first() {
        return usage(&unexpected(command.name(), word), &**front);
    }
    if help {
        front.print(manual::help_of(command.name()).trim_end());
        return 0;
    }
    let done = match command {
        Command::Check(c) => {
            let args = ScriptArgs { words: vec![c.script], set: c.set, ..script.clone() };
            return scripts_in(&args, Way::Check, front);
        }
        Command::Models { what } => models::run(what, &**front),
        Command::Convert(args) => convert::run(&args, &**front),
        Command::Bench(args) => bench::run(&args, &**front),
        Command::Schedule(args) => schedule::run(&args, &**front),
        Command::Runs(args) => runs::list(&args, &**front),
        Command::Report(args) => runs::report(&args, &**front),
        Command::Merge(args) => merge::run(&args, &**front),
        Command::Definitions { dir } => reference::write_definitions(&dir, &**front),
        Command::Reference { out } => reference::write_reference(&out, &**front),
        Command::Completions { shell } => manual::completions(shell, &**front),
        Command::Man { dir } => manual::man(dir.as_deref(), &**front),
    };
    match done {
        Ok(()) => 0,
        Err(e) => {
            front.report(&report::render_plain(&e, front.report_look()));
            if e.kind() == Kind::Cancelled { INTERRUPTED } else { FAILED }
        }
    }
}

/// A word too many.
fn unexpected(extra: &str, first: &str) -> Error {
    let e = Error::value(format!("unexpected argument `{extra}` after `{first}`"));
    e.hint(format!("parameters are set with `--set name=value`, like `--set {extra}`"))
}

/// Opens the REPL, evaluates code, or runs a script.
fn scripts(args: &ScriptArgs, help: bool, front: &Shared) -> u8 {
    scripts_in(args, if help { Way::Help } else { Way::Run }, front)
}

fn scripts_in(args: &ScriptArgs, way: Way, front: &Shared) -> u8 {
    if let [first, extra, ..] = args.words.as_slice() {
        return usage(&unexpected(extra, first), &**front);
    }
    if !args.sweep.is_empty() {
        let world = world::current();
        let code = swept(args, way, front);
        world::set(world);
        return code;
    }
    let settings = Settings { seed: args.seed, out: args.out.clone() };
    let mut session = Session::with_front(settings, front.clone());
    if let Some(code) = &args.code {
        return script(&mut session, "-e", code, args, way);
    }
    let prompts = args.words.is_empty() || args.inspect;
    if prompts && world::current().link == Link::Mpi {
        return usage(
            &Error::value("a prompt is for one process, not for ranks of MPI").hint("name a script"),
            &**front,
        );
    }
    let path = match args.words.first() {
        Some(path) if !args.anew => path.as_str(),
        None if !std::io::stdin().is_terminal() => "-",
        _ => {
            if let Some(s) = args.set.first().filter(|_| !args.anew) {
                let e = Error::value(format!("--set {s} has no script to set a parameter of"));
                return usage(&e.hint("`ld3sh script.rhai --set name=value`"), &**front);
            }
            interrupt::prompt();
            if args.anew {
                front.report("note: this is a new session: nothing is left of the other but its history");
            }
            let state = State::new(&session);
            if !args.no_startup {
                commands::startup(&mut session, &state);
            }
            return repl::run(&mut session, state);
        }
    };
    if !readable(path) {
        let e = Error::new(Kind::Io, format!("there is no script `{path}`"));
        return usage(&near_script(path).into_iter().fold(e, |e, n| e.hint(format!("did you mean `{n}`?"))), &**front);
    }
    if way != Way::Run || !args.inspect {
        return file(&mut session, path, args, way);
    }
    if path == "-" || !std::io::stdin().is_terminal() {
        let e = Error::value("--inspect reads from the terminal, so the script must be a file");
        return usage(&e, &**front);
    }
    interrupt::prompt();
    // what went wrong has been told
    file(&mut session, path, args, way);
    let state = State::new(&session);
    repl::run(&mut session, state)
}

/// Runs a script for each combination of the swept values, in folders of their own; those that are done already are left as they are.
/// A run that fails does not keep the others from running; the exit code is the first failure's.
fn swept(args: &ScriptArgs, way: Way, front: &Shared) -> u8 {
    let cells = match sweep::cells(&args.sweep, &args.set) {
        Ok(cells) => cells,
        Err(e) => return usage(&e, &**front),
    };
    if way != Way::Run || args.words.first().is_none_or(|p| p == "-") {
        let e = Error::value("--sweep runs a script several times, so the script must be a file");
        return usage(&e.hint("`ld3sh script.rhai --sweep nfe=4,6,8`"), &**front);
    }
    let (mut code, count) = (0, cells.len());
    // each run is one process's, alone
    let world = world::current();
    world::set(World::ALONE);
    for (i, cell) in cells.into_iter().enumerate() {
        if i as u64 % world.size() != world.rank() {
            continue;
        }
        let out = args.out.join(&cell.name);
        let head = format!("{} ({} of {count})", cell.name, i + 1);
        front.print(&head);
        // as in a process of its own
        let _granted = policy::grants();
        random::set_session_seed(0);
        let one = ScriptArgs { sweep: vec![], resume: true, set: cell.set, out, ..args.clone() };
        let ended = scripts_in(&one, way, front);
        if ended == INTERRUPTED || ended == NOBODY_READS {
            return ended;
        }
        code = if code == 0 { ended } else { code };
    }
    code
}

fn readable(path: &str) -> bool {
    path == "-" || Path::new(path).exists()
}

/// A script beside the one that was not found, or a command, with nearly its name.
fn near_script(path: &str) -> Option<String> {
    let path = Path::new(path);
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let entries = access::read(parent.unwrap_or(Path::new("."))).ok()?.list().ok()?;
    let mut names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.retain(|n| n.ends_with(".rhai"));
    names.sort();
    let name = path.file_name()?.to_str()?;
    let Some(near) = crate::error::nearest(name, names.iter().map(String::as_str)) else {
        let commands = args::commands();
        return Some(format!("ld3sh {}", crate::error::nearest(name, commands.iter().map(String::as_str))?));
    };
    Some(parent.map_or(near.into(), |p| p.join(near).display().to_string()))
}

fn file(session: &mut Session, path: &str, args: &ScriptArgs, way: Way) -> u8 {
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
            script(session, name, &modules::without_shebang(&text), args, way)
        }
        Err(e) => {
            let front = session.front();
            front.report(&report::render_plain(&e, front.report_look()));
            if e.kind() == Kind::Cancelled { INTERRUPTED } else { FAILED }
        }
    }
}

/// Parses, then checks, explains or runs.
fn script(session: &mut Session, name: &str, text: &str, args: &ScriptArgs, way: Way) -> u8 {
    let front = session.front();
    let parsed = if way == Way::Check { session.parse_only(name, text) } else { session.parse(name, text) };
    let ast = match parsed {
        Ok(a) => a,
        Err(f) => return failed(f, session),
    };
    if way == Way::Check {
        let failures = check::check(session, &ast);
        if !failures.is_empty() {
            failures.into_iter().for_each(|f| report::tell(f, session));
            return FAILED;
        }
    }
    let mut declared = match session.params(&ast) {
        Ok(p) => p,
        Err(f) => return failed(f, session),
    };
    if way != Way::Run
        && let Err(e) = session.describe_params(&mut declared)
    {
        front.report(&report::render_plain(&e, front.report_look()));
        return FAILED;
    }
    if way == Way::Help {
        front.print(&access::clean(params::help(name, text, &declared).trim_end()));
        return 0;
    }
    if let Err(e) = session.set_params(declared, &args.set) {
        return usage(&e, &*front);
    }
    if way == Way::Check {
        front.print(&format!("{name}: ok"));
        return 0;
    }
    let speaks = world::current().reports();
    if args.resume {
        match session.is_done() {
            Ok(true) => {
                front.print("done before");
                return 0;
            }
            Ok(false) => {}
            Err(e) => return unwritten(&e, &*front),
        }
    }
    let recorded = speaks && args.code.is_none() && args.out != Path::new(args::OUT);
    if let Some(Err(e)) = recorded.then(|| session.start_record()) {
        return unwritten(&e, &*front);
    }
    let start = Instant::now();
    let outcome = {
        // what was typed after `-e` is the user's own
        let _file = args.code.is_none().then(policy::enter_file);
        session.evaluate(&ast)
    };
    if let Err(e) = session.end_record(&outcome) {
        front.report(&report::render_plain(&e, front.report_look()));
    }
    match outcome {
        Ok(Outcome::Value(v)) => {
            if args.code.is_some() && !v.is_unit() {
                front.print(&front.foreign(&session.print_form(&v)));
            }
            0
        }
        Ok(Outcome::Exit(v)) => exit_code(&v, &*front),
        Err(f) => {
            let lost = start.elapsed() > LONG && !f.cancelled() && args.code.is_none() && !args.inspect;
            let code = failed(f, session);
            if lost {
                front.report(
                    "note: with `--inspect`, what a script holds when it fails can be used and saved at the prompt",
                );
            }
            code
        }
    }
}
