//! What a terminal can draw, and how large it is: told by its environment, or asked of it where that is safe.
use crate::{Error, Result, access};
use std::io::{IsTerminal, Read, Write};
use std::process::{Command, Stdio};

/// How pictures reach the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graphics {
    /// kitty's graphics protocol.
    Kitty,
    /// iTerm2's inline images.
    Iterm,
    /// Sixels.
    Sixel,
    /// Half blocks with 24-bit colours.
    Blocks,
    /// Half blocks with 256 colours.
    Blocks256,
    /// Charts in characters; pictures become files.
    Text,
    /// Files alone.
    None,
}

/// The values of `LD3SH_GRAPHICS`.
const NAMES: [(&str, Graphics); 5] = [
    ("kitty", Graphics::Kitty),
    ("iterm", Graphics::Iterm),
    ("sixel", Graphics::Sixel),
    ("blocks", Graphics::Blocks),
    ("none", Graphics::None),
];

/// How long a terminal may take to answer, in tenths of a second. One that answers later would type into the prompt.
const PATIENCE: u32 = 10;

/// Columns and rows as `stty` tells them.
pub fn stty_size() -> Option<(usize, usize)> {
    let said = stty(&["size"])?;
    let (rows, columns) = said.trim().split_once(' ')?;
    Some((columns.parse().ok()?, rows.parse().ok()?)).filter(|(c, r)| *c > 0 && *r > 0)
}

/// Runs `stty` on the controlling terminal: its settings without a line of unsafe code.
fn stty(args: &[&str]) -> Option<String> {
    let tty = access::terminal().ok()?;
    let done = Command::new("stty").args(args).stdin(tty).stderr(Stdio::null()).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

/// What the terminal that standard output goes to can draw; `ask` asks it.
///
/// # Errors
/// A value of `LD3SH_GRAPHICS` that is none of kitty, iterm, sixel, blocks, none.
pub fn graphics<'a>(ask: &dyn Fn() -> &'a str) -> Result<Graphics> {
    let environment = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    choose(&environment, std::io::stdout().is_terminal(), ask)
}

/// The decision of [`graphics`], from the environment, whether there is a terminal at all, and its answer to [`QUESTION`].
fn choose<'a>(env: &dyn Fn(&str) -> Option<String>, tty: bool, ask: &dyn Fn() -> &'a str) -> Result<Graphics> {
    let is = |name: &str, values: &[&str]| env(name).is_some_and(|v| values.contains(&v.as_str()));
    let term = env("TERM").unwrap_or_default();
    let true_color = is("COLORTERM", &["truecolor", "24bit"]) || term.ends_with("-direct") || term == "xterm-kitty";
    if let Some(name) = env("LD3SH_GRAPHICS") {
        let Some((_, graphics)) = NAMES.iter().find(|(n, _)| *n == name) else {
            return Err(Error::unknown("value of LD3SH_GRAPHICS", &name, NAMES.iter().map(|(n, _)| *n)));
        };
        let few = *graphics == Graphics::Blocks && !true_color && term.contains("256color");
        return Ok(match tty {
            true if few => Graphics::Blocks256,
            true => *graphics,
            false => Graphics::None,
        });
    }
    if !tty || term == "dumb" {
        return Ok(Graphics::None);
    }
    // inside of a multiplexer the variables tell of the terminal around it
    let inside =
        env("TMUX").is_some() || env("STY").is_some() || term.starts_with("screen") || term.starts_with("tmux");
    if !inside {
        if env("KITTY_WINDOW_ID").is_some() || term.contains("kitty") || term.contains("ghostty") {
            return Ok(Graphics::Kitty);
        }
        if is("TERM_PROGRAM", &["iTerm.app", "WezTerm"]) || is("LC_TERMINAL", &["iTerm2"]) {
            return Ok(Graphics::Iterm);
        }
        if ["foot", "mlterm", "yaft", "contour"].iter().any(|t| term.starts_with(t)) {
            return Ok(Graphics::Sixel);
        }
    }
    let answer = ask();
    if answer.contains("_Gi=31;OK") {
        return Ok(Graphics::Kitty);
    }
    if has_sixel(answer) {
        return Ok(Graphics::Sixel);
    }
    Ok(match env("NO_COLOR").is_some() {
        true => Graphics::Text,
        false if true_color => Graphics::Blocks,
        false if term.contains("256color") => Graphics::Blocks256,
        false => Graphics::Text,
    })
}

/// Asks whether kitty's protocol is known, then for the primary attributes, which every terminal answers.
const QUESTION: &str = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[c";

/// Whether the primary attributes `ESC [ ? 62 ; 4 ; … c` list sixels, 4.
fn has_sixel(answer: &str) -> bool {
    let attributes = answer.rsplit_once("\x1b[?").and_then(|(_, a)| a.split_once('c'));
    attributes.is_some_and(|(a, _)| a.split(';').skip(1).any(|n| n == "4"))
}

/// Sends the question and reads the answer, byte by byte, until the attributes' end or until nothing comes any more.
pub fn ask() -> Option<String> {
    let saved = stty(&["-g"])?;
    let mut tty = access::terminal().ok()?;
    // reads return nothing after the time given
    stty(&["-icanon", "-echo", "min", "0", "time", &PATIENCE.to_string()])?;
    let mut answer = Vec::new();
    if tty.write_all(QUESTION.as_bytes()).and_then(|()| tty.flush()).is_ok() {
        let mut byte = [0];
        while let Ok(1) = tty.read(&mut byte) {
            answer.push(byte[0]);
            let attributes = answer.windows(3).any(|w| w == b"\x1b[?");
            if answer.len() > 1000 || attributes && byte[0] == b'c' {
                break;
            }
        }
    }
    stty(&[saved.trim()])?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(env: &[(&str, &str)], tty: bool, answer: &'static str) -> Result<Graphics> {
        let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        choose(&get, tty, &|| answer)
    }

    #[test]
    fn told_by_the_environment() {
        use Graphics::*;
        for (env, graphics) in [
            (&[("TERM", "xterm-kitty")][..], Kitty),
            (&[("TERM", "xterm-256color"), ("KITTY_WINDOW_ID", "1")], Kitty),
            (&[("TERM", "xterm-ghostty")], Kitty),
            (&[("TERM", "tmux-256color"), ("TMUX", "/tmp/x"), ("KITTY_WINDOW_ID", "1")], Blocks256),
            (&[("TERM", "xterm-256color"), ("TERM_PROGRAM", "iTerm.app")], Iterm),
            (&[("TERM", "foot-extra")], Sixel),
            (&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")], Blocks),
            (&[("TERM", "xterm-256color")], Blocks256),
            (&[("TERM", "xterm-256color"), ("NO_COLOR", "1")], Text),
            (&[("TERM", "vt100")], Text),
            (&[("TERM", "dumb")], None),
            (&[("TERM", "dumb"), ("LD3SH_GRAPHICS", "kitty")], Kitty),
            (&[("TERM", "xterm-kitty"), ("LD3SH_GRAPHICS", "none")], None),
            (&[("TERM", "xterm-256color"), ("LD3SH_GRAPHICS", "blocks")], Blocks256),
            (&[], Text),
        ] {
            assert_eq!(chosen(env, true, "").unwrap(), graphics, "{env:?}");
            assert_eq!(chosen(env, false, "").unwrap(), None, "{env:?}");
        }
        let e = chosen(&[("LD3SH_GRAPHICS", "sixels")], true, "").unwrap_err();
        assert!(e.to_string().contains("sixel"), "{e}");
    }

    #[test]
    fn told_by_the_terminal() {
        let env = [("TERM", "xterm-256color")];
        for (answer, graphics) in [
            ("\x1b_Gi=31;OK\x1b\\\x1b[?62;c", Graphics::Kitty),
            ("\x1b[?62;4;22c", Graphics::Sixel),
            ("\x1b[?64;1;2;4c", Graphics::Sixel),
            ("\x1b[?4;22c", Graphics::Blocks256),
            ("\x1b[?1;2c", Graphics::Blocks256),
            ("rubbish", Graphics::Blocks256),
        ] {
            assert_eq!(chosen(&env, true, answer).unwrap(), graphics, "{answer:?}");
        }
    }
}
