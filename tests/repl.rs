//! The REPL in a real pseudo-terminal; what is asserted is the screen that a user sees.
#![cfg(unix)]
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

struct Terminal {
    screen: Arc<Mutex<vt100::Parser>>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    // kept open as long as the child lives
    _master: Box<dyn MasterPty + Send>,
}

impl Terminal {
    fn open(home: &std::path::Path, columns: u16) -> Self {
        let size = PtySize { rows: 30, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_ld3sh"));
        command.cwd(home);
        command.env("XDG_STATE_HOME", home);
        command.env("TERM", "xterm");
        command.env("NO_COLOR", "1");
        let child = pair.slave.spawn_command(command).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(30.try_into().unwrap(), columns.try_into().unwrap(), 0)));
        let (mut reader, seen) = (pair.master.try_clone_reader().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                seen.lock().unwrap().process(&bytes[..n]);
            }
        });
        let mut t = Terminal { screen, keys: pair.master.take_writer().unwrap(), child, _master: pair.master };
        t.wait("ld3>");
        t
    }
    fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }
    /// Waits until the screen shows `text`.
    #[track_caller]
    fn wait(&mut self, text: &str) {
        self.wait_until(text, |s| s.contains(text));
    }
    #[track_caller]
    fn wait_until(&mut self, what: &str, ok: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !ok(&self.contents()) {
            assert!(start.elapsed() < Duration::from_secs(15), "waited for {what}; the screen:\n{}", self.contents());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    fn send(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }
    /// Sends keys and waits for the next prompt: rustyline forgets what is typed ahead of it.
    #[track_caller]
    fn press(&mut self, keys: &str) {
        let prompts = |s: &str| s.matches("ld3>").count();
        let before = prompts(&self.contents());
        self.send(keys);
        self.wait_until("the next prompt", |s| prompts(s) > before);
    }
    /// Enters a line and waits for the next prompt.
    #[track_caller]
    fn enter(&mut self, line: &str) {
        self.press(&format!("{line}\r"));
    }
    /// The exit code of a session that was told to leave.
    fn exit_code(&mut self) -> u32 {
        self.child.wait().unwrap().exit_code()
    }
}

#[test]
fn a_session() {
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::open(home.path(), 80);
    t.enter("let a = 20;");
    t.enter("fn add(x) { x + 1 }");
    t.enter("let f = |x| add(x) + a;");
    t.enter("f.call(1)");
    t.wait("\n22\n");
    t.enter("a + 111;");
    assert!(!t.contents().contains("\n131"), "`;` silences the echo:\n{}", t.contents());
    t.enter("nothing(1)");
    t.wait("unknown function `nothing`");
    // several lines while a bracket is open
    t.send("let v = [\r1,\r");
    t.wait("[\n1,");
    t.enter("2];");
    t.enter("v");
    t.wait("\n[1, 2]\n");
    // Ctrl-C at the prompt clears the line
    t.send("let b = 5");
    t.wait("let b = 5");
    t.press("\x03");
    t.enter("a - 3");
    t.wait("\n17\n");
    // Ctrl-C during a computation stops it, and the session lives on
    t.send("loop { a += 1; }\r");
    std::thread::sleep(Duration::from_millis(300));
    t.press("\x03");
    t.wait("stopped by Ctrl-C");
    t.enter("if a > 20 { \"alive\" }");
    t.wait("\n\"alive\"\n");
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
    let history = std::fs::read_to_string(home.path().join("ld3sh/history.txt")).unwrap();
    assert!(history.contains("let a = 20;"), "{history}");

    // the history is there in the next session
    let mut t = Terminal::open(home.path(), 40);
    t.send("\x1b[A\x1b[A");
    t.wait("\"alive\"");
    t.press("\x03");
    t.send("\x04");
    assert_eq!(t.exit_code(), 0);
}

#[test]
fn a_network_from_earlier_lines() {
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::open(home.path(), 120);
    t.enter("fn half(x) { x * 0.5 }");
    t.enter("let k = 3.0;");
    t.enter("let f = |x, sigma, cond| half(x) * k;");
    t.enter("let net = denoiser::from_fn(#{ noise: noise::edm(), predicts: \"data\" }, f);");
    t.enter("let n = 7;");
    t.enter("net.denoise(ones([1, 2]), 1.0).sum().item()");
    t.wait("\n3.0\n");
    // a new function of the same name counts, as it does for any caller
    t.enter("fn half(x) { x * 5.0 }");
    t.enter("net.denoise(ones([1, 2]), 1.0).sum().item()");
    t.wait("\n30.0\n");
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
}
