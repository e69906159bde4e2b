//! `:time` and `:profile`.
use super::{Answer, COMMANDS, Done, Session, State, needed, seconds};
use crate::host::{cpu_time, evaluations};
use crate::script::profile::Row;
use crate::shell::outcome::Outcome;
use std::time::{Duration, Instant};

/// The rows of a profile that are shown.
const ROWS: usize = 25;

/// The system brings CPU times up to date only so often.
const TICK: Duration = Duration::from_millis(10);

/// What is measured of an evaluation.
pub struct Watch {
    start: Instant,
    cpu: Option<Duration>,
    evaluations: u64,
}

impl Watch {
    pub(super) fn start() -> Self {
        Watch { cpu: cpu_time(), evaluations: evaluations(), start: Instant::now() }
    }
    /// `1.25 s, CPU 2.40 s, 20 network evaluations`.
    pub fn told(&self) -> String {
        let wall = self.start.elapsed();
        let mut text = seconds(wall.as_secs_f64());
        if let (Some(before), Some(now), true) = (self.cpu, cpu_time(), wall >= TICK) {
            text += &format!(", CPU {}", seconds(now.saturating_sub(before).as_secs_f64()));
        }
        match evaluations() - self.evaluations {
            0 => {}
            1 => text += ", 1 network evaluation",
            n => text += &format!(", {n} network evaluations"),
        }
        text
    }
}

fn command(name: &str) -> &'static super::Command {
    COMMANDS.iter().find(|c| c.names.contains(&name)).unwrap_or(&COMMANDS[0])
}

/// Shows an outcome as the prompt does.
fn echo(session: &Session, state: &State, code: &str, outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Exit(v) => Answer::Leave(crate::shell::outcome::exit_code(&v, &*state.front)),
        Outcome::Value(v) => {
            if !v.is_unit() && !code.trim_end().ends_with(';') {
                state.front.print(&state.front.foreign(&session.show(&v)));
            }
            Answer::Done
        }
    }
}

pub(super) fn time(session: &mut Session, state: &mut State, code: &str) -> Done {
    match needed(command("time"), code)? {
        "on" | "off" => {
            state.time_all = code == "on";
            return Ok(Answer::Done);
        }
        _ => {}
    }
    let watch = Watch::start();
    let outcome = session.evaluate_line(code);
    let told = watch.told();
    let answer = outcome.map(|o| {
        state.history.push(session, code);
        echo(session, state, code, o)
    });
    state.front.print(&told);
    Ok(answer?)
}

pub(super) fn profile(session: &mut Session, state: &mut State, code: &str) -> Done {
    let code = needed(command("profile"), code)?;
    let watch = Watch::start();
    let (outcome, rows) = session.profile_line(code);
    let told = watch.told();
    let answer = outcome.map(|o| {
        state.history.push(session, code);
        echo(session, state, code, o)
    });
    state.front.print(&format!("{}{told}", table(&rows)));
    Ok(answer?)
}

/// The rows of a profile as a table of at most 40 columns.
fn table(rows: &[(String, Row)]) -> String {
    const NAME: usize = 16;
    let mut text = format!("{:>7}{:>8}{:>6}{:>6}  function\n", "self", "total", "calls", "evals");
    for (name, row) in rows.iter().take(ROWS) {
        let name: String = match name.chars().count() {
            n if n > NAME => name.chars().take(NAME - 1).chain(['…']).collect(),
            _ => name.clone(),
        };
        let short = |d: Duration| seconds(d.as_secs_f64()).replace(' ', "");
        let evaluations = if row.evaluations == 0 { String::new() } else { count(row.evaluations) };
        let (own, total) = (short(row.own), short(row.total));
        text += &format!("{own:>7}{total:>8}{:>6}{evaluations:>6}  {name}\n", count(row.calls));
    }
    if rows.len() > ROWS {
        text += &format!("… and {} more\n", rows.len() - ROWS);
    }
    text
}

/// A count in at most five characters.
fn count(n: u64) -> String {
    match n {
        0..100_000 => n.to_string(),
        100_000..10_000_000 => format!("{}k", n / 1000),
        _ => format!("{}M", n / 1_000_000),
    }
}
