//! `!command`: a line for the shell.
use super::{Answer, Done, State};
use crate::host;
use crate::{Error, Kind};
use std::process::Command;
use std::time::{Duration, Instant};

/// How often a running command is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long after Ctrl-C, which the terminal sends to the command as well, it may clean up before it is ended.
const GRACE: Duration = Duration::from_millis(70);

pub(super) fn run(state: &State, line: &str) -> Done {
    let line = line.trim();
    if line.is_empty() {
        return Err(Error::value("`!` needs a command for the shell").hint("like `!ls`").into());
    }
    host::clear_cancel();
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let started = Command::new(shell).arg(flag).arg(line).spawn();
    let mut child = started.map_err(|e| Error::new(Kind::Io, format!("cannot start `{shell}`: {e}")))?;
    let mut stopped: Option<Instant> = None;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(e) => return Err(Error::new(Kind::Io, format!("cannot wait for `{line}`: {e}")).into()),
        }
        if host::cancel_requested() {
            let since = *stopped.get_or_insert_with(Instant::now);
            if since.elapsed() > GRACE {
                // it may have ended meanwhile
                let _ = child.kill();
            }
        }
        std::thread::sleep(LOOK);
    };
    if host::cancel_requested() {
        return Err(Error::cancelled().into());
    }
    match status.code() {
        Some(0) => {}
        Some(code) => state.front.report(&format!("exit code {code}")),
        None => state.front.report("ended by a signal"),
    }
    Ok(Answer::Done)
}
