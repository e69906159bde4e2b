//! `ld3sh schedule`: any list of steps turned into any other, and printed ready to paste.
use super::args::ScheduleArgs;
use crate::access::policy;
use crate::discretize::{Interval, Resampling, Schedule, log_linear, published};
use crate::export::list::{self, Form, Given};
use crate::export::{End, Levels, TOOLS, export, number, tool};
use crate::files::{atomic, utf8};
use crate::noise::Noise;
use crate::script::front::Front;
use crate::solve::Solver;
use crate::{Error, Result};
use std::path::Path;

/// Runs the command.
///
/// # Errors
/// A list that cannot be read or is none; unknown forms and tools; noise levels that a tool cannot express.
pub fn run(args: &ScheduleArgs, front: &dyn Front) -> Result<()> {
    if args.tools {
        for t in TOOLS {
            let ends: Vec<&str> = t.ends.iter().map(|e| e.name()).collect();
            front.print(&format!("{:32} {} (end: {})", t.name, t.about, ends.join(", ")));
        }
        return Ok(());
    }
    let Some(given) = &args.list else {
        return Err(Error::value("ld3sh schedule takes a list, the name of a published one, or a file")
            .hint("like `ld3sh schedule \"14.615 6.475 0.029\" --noise sd`; `--tools` lists what it writes for"));
    };
    let mut notes = vec![];
    let levels = read(given, args, &mut notes)?;
    let tool = tool(args.tool.as_deref().unwrap_or("text"), &levels)?;
    let end = args.end.as_deref().map(End::named).transpose()?;
    let levels = match args.steps {
        Some(n) => resampled(&levels, n, end.unwrap_or(tool.ends[0]), args)?,
        None => levels,
    };
    let plain = ["text", "json"].contains(&tool.name);
    let to = args.to.as_deref().map(Form::named).transpose()?;
    if let (Some(to), false) = (to, plain) {
        notes.push(format!("--to {} is left out: what {} takes is known", to.name(), tool.name));
    }
    let done = export(&levels, tool, end)?;
    let text = match (plain, to) {
        (true, Some(form)) => {
            let ended = Levels { sigma: done.wanted.clone(), ..levels.clone() };
            in_form(&ended, form, tool.name, args, &mut notes)?
        }
        _ => done.text.clone(),
    };
    for note in notes {
        front.report(&format!("note: {note}"));
    }
    for lost in &done.lost {
        front.report(&format!("lost: {lost}"));
    }
    if done.lost.is_empty() {
        front.report("lost: nothing");
    }
    match &args.write {
        Some(path) => {
            let text = if text.ends_with('\n') { text } else { text + "\n" };
            atomic::write(path, text.as_bytes())?;
            front.report(&format!("wrote {}", path.display()));
        }
        None => front.print(text.trim_end()),
    }
    Ok(())
}

/// A list in a form, as text or JSON.
fn in_form(levels: &Levels, form: Form, tool: &str, args: &ScheduleArgs, notes: &mut Vec<String>) -> Result<String> {
    let values = list::in_form(levels, form)?;
    let values: Vec<f64> = match form {
        // as whole numbers, unless they are asked for as they are
        Form::Timesteps if !args.exact => {
            let whole: Vec<f64> = values.iter().map(|v| v.round()).collect();
            let level = |k: f64| list::level_of_timestep(&levels.noise, k);
            let errors: Vec<String> = whole
                .iter()
                .zip(&levels.sigma)
                .map(|(k, s)| Ok(format!("{:+.2} %", 100.0 * (level(*k)? / s - 1.0))))
                .collect::<Result<_>>()?;
            if whole.iter().zip(&values).any(|(a, b)| (a - b).abs() > 1e-6) {
                notes
                    .push(format!("rounded to whole timesteps (--exact keeps them): σ moves by {}", errors.join(", ")));
            }
            whole
        }
        _ => values,
    };
    if let Some(i) = values.windows(2).position(|w| w[0] == w[1]) {
        return Err(Error::value(format!("steps {i} and {} fall on the same timestep", i + 1))
            .hint("ask for fewer, or --exact"));
    }
    if form == Form::Timesteps && levels.ends_at_zero() {
        notes.push("timesteps are those of evaluations; the end at σ = 0 is implied".into());
    }
    if tool == "json" {
        return Ok(serde_json::json!(values).to_string());
    }
    let digits = 8;
    let text =
        |v: &f64| if v.fract() == 0.0 && form == Form::Timesteps { format!("{v:.0}") } else { number(*v, digits) };
    Ok(values.iter().map(text).collect::<Vec<_>>().join(", "))
}

/// The levels of what was given: a published table, a file, standard input, or the list itself.
fn read(given: &str, args: &ScheduleArgs, notes: &mut Vec<String>) -> Result<Levels> {
    let solver = args.solver.as_deref().map(Solver::named).transpose()?;
    let own = |s: &Schedule| Levels::of(s, solver.clone());
    if crate::discretize::PUBLISHED.iter().any(|p| p.name == given) {
        return own(&published(given, None)?);
    }
    let text = if given == "-" {
        utf8::decode(atomic::read_stream(std::io::stdin(), "standard input")?, "standard input")?
    } else if Path::new(given).is_file() {
        // the user typed the name
        let _own = policy::own();
        atomic::read_text(Path::new(given))?
    } else {
        given.to_string()
    };
    match list::parse(&text).map_err(|e| named_file(e, given))? {
        Given::Saved(s) => {
            if args.noise.is_some() || args.from.is_some() {
                notes.push("--noise and --from are left out: the schedule file says both".into());
            }
            own(&s)
        }
        Given::Numbers(values) => {
            let noise = noise_for(&values, args, notes)?;
            let form = match args.from.as_deref() {
                Some(form) => Form::named(form)?,
                None => guessed(&values, notes),
            };
            let (levels, more) = list::levels(&values, form, &noise)?;
            notes.extend(more);
            Ok(Levels { solver, ..levels })
        }
    }
}

/// An error about a list names the file that was meant, where a word looks like one.
fn named_file(e: Error, given: &str) -> Error {
    let file = given.ends_with(".json") || given.ends_with(".txt") || given.contains('/');
    if file && !Path::new(given).exists() {
        Error::io(given, "read", std::io::Error::from(std::io::ErrorKind::NotFound))
    } else {
        e
    }
}

fn noise_for(values: &[f64], args: &ScheduleArgs, notes: &mut Vec<String>) -> Result<Noise> {
    if let Some(name) = &args.noise {
        return list::noise_named(name, args.shift);
    }
    let most = values.iter().copied().fold(0.0, f64::max);
    let name = match (args.from.as_deref(), most) {
        (Some("flow"), _) => "flow",
        (Some("sigmas") | None, m) if m <= 1.0 => "flow",
        (Some("sigmas") | None, m) if m > 15.0 && !values.iter().all(|v| v.fract() == 0.0) => "edm",
        _ => "sd",
    };
    notes.push(format!("--noise is not given: {name} is taken"));
    list::noise_named(name, args.shift)
}

/// What a list without `--from` is.
fn guessed(values: &[f64], notes: &mut Vec<String>) -> Form {
    let whole = values.iter().all(|v| v.fract() == 0.0) && values.iter().any(|v| *v > 20.0);
    let form = match (whole, values.windows(2).all(|w| w[1] > w[0])) {
        (true, _) => Form::Timesteps,
        (_, true) => Form::Lambdas,
        _ => Form::Sigmas,
    };
    notes.push(format!("--from is not given: the list is taken for {}", form.name()));
    form
}

/// `n` evaluations as run with that end.
fn resampled(levels: &Levels, n: usize, end: End, args: &ScheduleArgs) -> Result<Levels> {
    let zero = levels.ends_at_zero();
    let inner = match (zero, end) {
        (false, End::Append) => n.checked_sub(1),
        _ => Some(n),
    };
    let Some(inner) = inner.filter(|n| *n >= 1) else {
        let e = Error::value(format!("--steps {n} is too few: a 0 behind the list takes one more evaluation"));
        return Err(e.hint("ask for more steps, or for --end replace"));
    };
    let how = args.resample.as_str();
    let sigma = match how {
        "log-linear" => log_linear(&levels.sigma, inner),
        _ => through_tau(levels, inner, zero)?,
    };
    Ok(Levels { sigma, told: None, ..levels.clone() })
}

/// Through τ_ξ, in λ, over the levels above 0.
fn through_tau(levels: &Levels, n: usize, zero: bool) -> Result<Vec<f64>> {
    let (above, n) = if zero { (&levels.sigma[..levels.sigma.len() - 1], n - 1) } else { (&levels.sigma[..], n) };
    if n == 0 || above.len() < 2 {
        return Err(Error::value("--resample tau needs at least two levels above 0 before and after"));
    }
    let ends = (above[0], above[above.len() - 1]);
    let noise =
        crate::noise::from_spec(&serde_json::json!({ "name": "edm", "sigma_max": ends.0, "sigma_min": ends.1 }))?;
    let all = Interval::default().resolve(noise.as_ref())?;
    let mut t = above.to_vec();
    (t[0], t[above.len() - 1]) = all;
    let schedule = Schedule::from_steps(noise, &t, "list")?.resample(n, Resampling::Tau, None)?;
    let mut out = schedule.times()?;
    if zero {
        out.push(0.0);
    }
    Ok(out)
}
