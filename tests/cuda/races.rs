//! Kernels whose threads share memory, under the thread sanitizer.
use std::path::Path;
use std::process::{Command, Output};

/// `races.cpp` with these flags, run.
fn run(name: &str, flags: &[&str]) -> Output {
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/races.cpp");
    let mut c = Command::new("c++");
    c.args(["-std=c++20", "-O1", "-g", "-fsanitize=thread"]).args(flags).arg(source).arg("-o").arg(&to);
    let made = c.output().expect("this test needs a C++ compiler called c++, such as g++");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // the sanitizer wants addresses where it expects them
    Command::new("setarch").arg("-R").arg(to).output().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn blocks_have_no_races() {
    let o = run("races", &[]);
    assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
    assert_eq!(String::from_utf8_lossy(&o.stdout), "1.0000 0.2500\n");
    // and the sanitizer would have told
    let o = run("races_without_a_barrier", &["-DNO_BARRIER"]);
    assert!(!o.status.success() && String::from_utf8_lossy(&o.stderr).contains("data race"));
}
