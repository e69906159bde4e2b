//! The terminal as a front: lines above progress bars, pictures by the protocol that it knows, its size and colours.
use super::graphics::{self, Graphics};
use super::show::{blocks, protocols};
use crate::Result;
use crate::access::{clean, for_terminal};
use crate::host::Progress;
use crate::script::front::{Drawing, Front, Look, Plain};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The characters of a label that a bar shows.
const LABEL: usize = 16;

/// Standard output and standard error, where one of them may be a terminal.
pub struct Terminal {
    plain: Plain,
    bars: Rc<Bars>,
    /// Columns and rows, as a prompt tells them.
    size: Cell<Option<(usize, usize)>>,
    /// What the terminal answered when it was asked what it can draw.
    answer: OnceCell<String>,
}

/// Whether a stream is a terminal that understands escapes.
fn escapes(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Whether a stream is to be coloured.
fn colored(stream: &impl IsTerminal) -> bool {
    escapes(stream) && std::env::var_os("NO_COLOR").is_none()
}

impl Terminal {
    /// The terminal of this process.
    pub fn new() -> Terminal {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let bars = Rc::new(Bars { all, shown: Cell::new(0), echo_gone: Cell::new(false) });
        Terminal { plain: Plain::default(), bars, size: Cell::new(None), answer: OnceCell::new() }
    }
    /// Columns and rows: of the latest prompt, or as `stty` tells, or 80×24.
    fn size(&self) -> (usize, usize) {
        self.size.get().or_else(graphics::stty_size).unwrap_or((80, 24))
    }
    fn look_of(&self, color: bool) -> Look {
        Look { columns: self.size.get().map(|(columns, _)| columns), rows: None, color }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Front for Terminal {
    fn print(&self, text: &str) {
        self.bars.below(|| self.plain.print(text));
    }
    fn report(&self, text: &str) {
        self.bars.below(|| self.plain.report(text));
    }
    fn progress(&self, label: &str, total: u64) -> Box<dyn Progress> {
        let label = &*self.foreign_report(label);
        match escapes(&std::io::stderr()) {
            true => Box::new(Bar::new(&self.bars, label, total)),
            false => self.plain.progress(label, total),
        }
    }
    fn draw(&self, drawing: &dyn Drawing, columns: Option<usize>) -> Result<bool> {
        // only at a prompt may the terminal be asked: a script may run in the background, where changing the terminal's settings
        // would stop it
        let ask = || match self.size.get() {
            Some(_) => self.answer.get_or_init(|| graphics::ask().unwrap_or_default()).as_str(),
            None => "",
        };
        let (width, rows) = self.size();
        let (columns, rows) = (columns.unwrap_or(width).min(width).max(1), rows.saturating_sub(2).max(1));
        let drawn = draw(drawing, graphics::graphics(&ask)?, columns, rows)?;
        drawn.iter().for_each(|text| self.print(text));
        Ok(drawn.is_some())
    }
    fn look(&self) -> Look {
        self.look_of(colored(&std::io::stdout()))
    }
    fn report_look(&self) -> Look {
        let look = self.look_of(colored(&std::io::stderr()));
        Look { rows: std::io::stderr().is_terminal().then(|| self.size().1), ..look }
    }
    fn foreign<'a>(&self, text: &'a str) -> Cow<'a, str> {
        for_terminal(&std::io::stdout(), text)
    }
    fn foreign_report<'a>(&self, text: &'a str) -> Cow<'a, str> {
        for_terminal(&std::io::stderr(), text)
    }
    fn is_closed(&self) -> bool {
        self.plain.is_closed()
    }
    fn failure(&self) -> Option<crate::Error> {
        self.plain.failure()
    }
    fn interrupted(&self) {
        let mut e = std::io::stderr();
        if escapes(&e) {
            // the terminal has written `^C` there; nowhere is left to say that this failed
            let _ = e.write_all(b"\r\x1b[K");
        }
    }
    fn prompts(&self, columns: usize, rows: usize) {
        self.size.set(Some((columns, rows)));
    }
}

/// The text that draws it in `columns`×`rows` characters; None where it must become a file.
pub fn draw(drawing: &dyn Drawing, graphics: Graphics, columns: usize, rows: usize) -> Result<Option<String>> {
    let image = || drawing.image(1);
    Ok(match graphics {
        Graphics::None => None,
        Graphics::Kitty => Some(protocols::kitty(&image()?, columns, rows)?),
        Graphics::Iterm => Some(protocols::iterm(&image()?, columns, rows)?),
        Graphics::Sixel => Some(protocols::sixel(&image()?, columns, rows)?),
        Graphics::Text => drawing.text(columns, rows)?,
        Graphics::Blocks | Graphics::Blocks256 => match drawing.text(columns, rows)? {
            Some(text) => Some(text),
            None => Some(blocks::half_blocks(&image()?, columns, rows, graphics == Graphics::Blocks)),
        },
    })
}

/// The bars on the terminal. Lines that are printed meanwhile go above them.
struct Bars {
    all: MultiProgress,
    /// How many there are.
    shown: Cell<usize>,
    /// Whether the echo of Ctrl-C below them has been taken away.
    echo_gone: Cell<bool>,
}

impl Bars {
    /// Does what writes to the terminal, with the bars out of the way.
    fn below<R>(&self, write: impl FnOnce() -> R) -> R {
        match self.shown.get() {
            0 => write(),
            _ => self.all.suspend(write),
        }
    }
}

/// A bar with rate and time left, drawn on the terminal and removed at the end, however it comes: by success, by an error,
/// by Ctrl-C, or by a panic.
struct Bar {
    bars: Rc<Bars>,
    bar: ProgressBar,
    note: String,
    told: Instant,
}

impl Bar {
    fn new(bars: &Rc<Bars>, label: &str, total: u64) -> Self {
        let bar = bars.all.add(ProgressBar::new(total));
        bars.shown.set(bars.shown.get() + 1);
        // the message is cut to what is left of the line, however narrow the terminal
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:10} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(label.chars().take(LABEL).collect::<String>());
        Bar { bars: bars.clone(), bar, note: String::new(), told: Instant::now() }
    }
    fn tell(&mut self) {
        let (rate, left) = (self.bar.per_sec(), self.bar.eta().as_secs());
        let left = match left {
            0..120 => format!("{left} s"),
            120..7200 => format!("{} min", left / 60),
            _ => format!("{} h", left / 3600),
        };
        self.bar.set_message(format!("{rate:.1}/s, {left} left {}", self.note));
    }
}
impl Progress for Bar {
    fn advance(&mut self, n: u64) {
        // the cursor is no longer where the bar left it
        if crate::host::cancel_requested() {
            return;
        }
        self.bar.inc(n);
        if self.told.elapsed() > Duration::from_millis(100) {
            self.told = Instant::now();
            self.tell();
        }
    }
    fn note(&mut self, text: &str) {
        self.note = clean(text).into_owned();
    }
}
impl Drop for Bar {
    fn drop(&mut self) {
        let bars = &self.bars;
        if crate::host::cancel_requested() && !bars.echo_gone.replace(true) {
            // the cursor waits at the end of the bar, so the terminal's `^C` stands in a line of its own below it
            let _ = write!(std::io::stderr(), "\r\x1b[2K\x1b[A");
        }
        self.bar.finish_and_clear();
        bars.shown.set(bars.shown.get().saturating_sub(1));
        bars.all.remove(&self.bar);
        if bars.shown.get() == 0 {
            bars.echo_gone.set(false);
            // a terminal that does not take it shows nothing anyway
            let _ = bars.all.clear();
        }
    }
}
