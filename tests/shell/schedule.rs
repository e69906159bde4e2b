//! `ld3sh schedule`, by running the binary.
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs in `dir`; asserts the exit code; returns stdout and stderr.
#[track_caller]
fn run(dir: &Path, args: &[&str], input: &str, code: i32) -> (String, String) {
    use std::io::Write;
    let mut c = Command::new(env!("CARGO_BIN_EXE_ld3sh"));
    c.current_dir(dir).arg("schedule").args(args).env_remove("LD3SH_PATH");
    c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = c.spawn().unwrap();
    // a command that does not read it is no error
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let o = child.wait_with_output().unwrap();
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    assert_eq!(o.status.code(), Some(code), "{args:?}\n{}{}", text(&o.stdout), text(&o.stderr));
    assert!(!text(&o.stderr).contains("panicked"));
    (text(&o.stdout), text(&o.stderr))
}

const AYS: &str = "14.615 6.475 3.861 2.697 1.886 1.396 0.963 0.652 0.399 0.152 0.029";

#[test]
fn lists_are_converted_and_losses_told() {
    let d = tempfile::tempdir().unwrap();
    let (out, err) = run(d.path(), &[AYS, "--from", "sigmas", "--noise", "sd", "--to", "timesteps"], "", 0);
    assert_eq!(out, "999, 850, 736, 645, 545, 455, 343, 233, 125, 24, 0\n");
    assert!(err.contains("14.615") && err.contains("rounding") && err.contains("σ moves by"), "{err}");
    let (out, err) =
        run(d.path(), &[AYS, "--from", "sigmas", "--noise", "sd", "--steps", "8", "--as", "comfyui"], "", 0);
    assert_eq!(out.trim().split(", ").count(), 9);
    assert!(out.trim().ends_with(", 0.0") && err.contains("one evaluation more: 8 instead of 7"), "{out}{err}");
    let (out, _) = run(d.path(), &["-", "--from", "timesteps", "--noise", "sd", "--to", "sigmas"], "[999, 850, 24]", 0);
    assert!(out.starts_with("14.614641, 6.47") && out.trim().ends_with("0.0"), "{out}");
    let args = ["1.0, 0.5, 0.0", "--noise", "flow", "--shift", "3", "--from", "times", "--to", "sigmas"];
    assert_eq!(run(d.path(), &args, "", 0).0, "1.0, 0.75, 0.0\n");
    let (out, err) = run(d.path(), &["-1 0.5 2"], "", 0);
    assert!(out.starts_with("2.71828") && err.contains("taken for lambdas"), "{out}{err}");
}

#[test]
fn files_published_names_and_tools() {
    let d = tempfile::tempdir().unwrap();
    let (_, err) = run(d.path(), &["ays_sdxl", "--as", "a1111", "--write", "ld3.py"], "", 0);
    assert!(err.contains("wrote ld3.py"));
    assert!(std::fs::read_to_string(d.path().join("ld3.py")).unwrap().contains("sd_schedulers.schedulers.append"));
    std::fs::write(d.path().join("list.json"), "[80.0, 3.5, 0.002]").unwrap();
    let (out, _) = run(d.path(), &["list.json", "--noise", "edm", "--to", "lambdas", "--as", "json"], "", 0);
    assert_eq!(serde_json::from_str::<Vec<f64>>(&out).unwrap().len(), 3);
    let (out, _) = run(d.path(), &["--tools"], "", 0);
    assert!(out.contains("stable-diffusion.cpp") && out.contains("diffusers:dpmsolver++"));
}

#[test]
fn wrong_lists_get_one_clear_error() {
    let d = tempfile::tempdir().unwrap();
    for (args, said) in [
        (&["1 2 3", "--from", "sigmas"][..], "the other way round"),
        (&["3 1 2", "--from", "sigmas"], "must descend"),
        (&["3 nan 1"], "NaN"),
        (&["3"], "at least 2"),
        (&[""], "at least 2"),
        (&["3 2 one"], "`one`"),
        (&["3 2 … 1"], "shortened"),
        (&["3 2", "--as", "comfy"], "comfyui"),
        (&["3 2", "--noise", "sdd"], "noise schedule"),
        (&["3 2", "--to", "sigma"], "sigmas"),
        (&["3 2", "--as", "a1111", "--end", "keep"], "not possible"),
        (&["700 2", "--noise", "sd", "--from", "sigmas"], "outside of the range"),
        (&["3 2 1", "--noise", "sd", "--steps", "1", "--as", "comfyui"], "too few"),
        (&["none.json"], "none.json"),
        (&[], "takes a list"),
    ] {
        let (out, err) = run(d.path(), args, "", 1);
        assert!(out.is_empty() && err.contains(said) && err.contains("error:"), "{args:?}: {err}");
    }
}
