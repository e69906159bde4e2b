//! The REPL in a pseudo-terminal, and the screen that a user sees.
#![allow(dead_code)]
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A terminal with a running REPL.
pub struct Terminal {
    screen: Arc<Mutex<vt100::Parser>>,
    /// All bytes that were written to the terminal.
    bytes: Arc<Mutex<Vec<u8>>>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    /// How long to wait for what shall appear; at first long enough for a training on a slow machine.
    pub patience: Duration,
    // kept open as long as the child lives
    _master: Box<dyn MasterPty + Send>,
}

impl Terminal {
    /// A REPL in folder `home` (its history's too), in 30 rows, with these variables.
    pub fn open(home: &Path, columns: u16, variables: &[(&str, &str)]) -> Self {
        Self::open_with(home, 30, columns, &[], variables)
    }
    /// The same in so many rows, started with arguments.
    pub fn open_with(home: &Path, rows: u16, columns: u16, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_ld3sh"));
        command.cwd(home);
        command.args(args);
        command.env("XDG_STATE_HOME", home);
        command.env("LD3SH_CACHE", home.join("cache"));
        for name in ["NO_COLOR", "COLORTERM", "TMUX", "STY", "KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color");
        for (name, value) in variables {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 0)));
        let bytes = Arc::new(Mutex::new(vec![]));
        let (mut reader, seen, all) = (pair.master.try_clone_reader().unwrap(), screen.clone(), bytes.clone());
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut part) {
                all.lock().unwrap().extend_from_slice(&part[..n]);
                seen.lock().unwrap().process(&part[..n]);
            }
        });
        let keys = pair.master.take_writer().unwrap();
        let mut t = Terminal { screen, bytes, keys, child, patience: Duration::from_secs(300), _master: pair.master };
        t.wait_until("the prompt", |s| s.contains("ld3>"));
        t
    }
    /// The screen's text.
    pub fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }
    /// Everything that was written so far.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }
    /// The number of the foreground colour in which the last `text` on the screen is drawn.
    #[track_caller]
    pub fn color_of(&self, text: &str) -> Option<u8> {
        let screen = self.screen.lock().unwrap();
        let screen = screen.screen();
        let (rows, columns) = screen.size();
        let rows: Vec<String> = screen.rows(0, columns.get()).take(rows.get().into()).collect();
        let (row, line) =
            rows.iter().enumerate().rfind(|(_, l)| l.contains(text)).unwrap_or_else(|| panic!("{rows:?}"));
        let column = line[..line.rfind(text).unwrap()].chars().count();
        match screen.cell(row as u16, column as u16).unwrap().fgcolor() {
            vt100::Color::Idx(i) => Some(i),
            _ => None,
        }
    }
    /// Waits until the screen shows `text`.
    #[track_caller]
    pub fn wait(&mut self, text: &str) {
        self.wait_until(text, |s| s.contains(text));
    }
    /// Waits until the screen's text satisfies `ok`.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, ok: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !ok(&self.contents()) {
            assert!(start.elapsed() < self.patience, "waited for {what}; the screen:\n{}", self.contents());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    /// Types.
    pub fn send(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }
    /// Sends keys and waits for the next prompt: rustyline forgets what is typed ahead of it. A prompt is counted by the bytes
    /// that switch bracketed paste on in front of it, so that a scrolling screen does not matter.
    #[track_caller]
    pub fn press(&mut self, keys: &str) {
        let prompts = |t: &Terminal| t.raw().matches("\x1b[?2004h").count();
        let before = prompts(self);
        self.send(keys);
        let start = Instant::now();
        while prompts(self) == before {
            assert!(start.elapsed() < self.patience, "no prompt after {keys:?}; the screen:\n{}", self.contents());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.wait_until("the prompt", |s| s.trim_end().lines().last().is_some_and(|l| l.starts_with("ld3>")));
    }
    /// Enters a line and waits for the next prompt.
    #[track_caller]
    pub fn enter(&mut self, line: &str) {
        self.press(&format!("{line}\r"));
    }
    /// Enters a line on a clean screen and returns what is shown between it, which may be wrapped, and the next prompt.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        // Ctrl-L
        self.send("\x0c");
        self.wait_until("a clean screen", |s| s.trim() == "ld3>");
        self.enter(line);
        self.wait_until("an empty prompt", |s| s.trim_end().ends_with("ld3>"));
        let all = self.contents();
        let all = all.trim_end().strip_suffix("ld3>").unwrap();
        let mut rest = all.trim_start().strip_prefix("ld3>").unwrap().chars();
        for c in line.chars().filter(|c| !c.is_whitespace()) {
            let shown = rest.by_ref().find(|c| !c.is_whitespace());
            assert_eq!(shown, Some(c), "the screen does not show {line}:\n{all}");
        }
        let rest = rest.as_str().split_once('\n').map_or("", |(_, r)| r);
        rest.lines().map(|l| format!("{}\n", l.trim_end())).collect()
    }
    /// The exit code of a session that was told to leave.
    pub fn exit_code(&mut self) -> u32 {
        self.child.wait().unwrap().exit_code()
    }
}
