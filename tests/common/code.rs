//! Code that is evaluated in a session of its own, on a stack as large as the program's.
use ld3sh::script::engine::STACK;
use ld3sh::shell::report;
use ld3sh::shell::session::{Outcome, Session, Settings};

pub fn session<T: Send + 'static>(test: impl FnOnce(&mut Session) -> T + Send + 'static) -> T {
    let run = move || test(&mut Session::new(Settings { seed: 0, out: "out".into() }));
    std::thread::Builder::new().stack_size(STACK).spawn(run).unwrap().join().unwrap()
}

/// The value of some code as it is shown, or the report of its error.
pub fn shown(s: &mut Session, code: &str) -> String {
    match s.evaluate_line(code) {
        Ok(Outcome::Value(v)) => s.show(&v),
        Ok(Outcome::Exit(v)) => format!("exit {v}"),
        Err(f) => report::render(f, s, false),
    }
}
