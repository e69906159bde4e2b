//! `ld3sh convert`, and checkpoints in scripts.
use super::edm::{load, output};
use super::{fixture, open, same_tensors};
use ld3sh::denoise::Network;
use ld3sh::files::checkpoint;
use std::path::Path;
use std::process::Command;

/// Runs the binary in `dir`; asserts the exit code; returns what it said.
#[track_caller]
fn run(dir: &Path, args: &[&str], code: i32) -> String {
    let o = Command::new(env!("CARGO_BIN_EXE_ld3sh"))
        .args(args)
        .current_dir(dir)
        .env("LD3SH_CACHE", dir.join("cache"))
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr));
    assert_eq!(o.status.code(), Some(code), "{args:?}\n{said}");
    said
}

#[test]
fn a_converted_network_has_the_same_bits_and_hash() {
    let (dir, from) = (tempfile::tempdir().unwrap(), fixture("edm/ddpmpp_edm.pkl"));
    let (from, to) = (from.to_str().unwrap(), dir.path().join("net.safetensors"));
    let said = run(dir.path(), &["convert", from, "net.safetensors"], 0);
    assert!(said.contains("147 tensors") && said.contains("EDMPrecond"), "{said}");
    let (pickle, converted) = (load(from), load(&to));
    assert_eq!(pickle.hash(), converted.hash());
    assert_eq!(output(&pickle), output(&converted));

    let before = std::fs::read(&to).unwrap();
    let said = run(dir.path(), &["convert", from, "net.safetensors", "--half"], 1);
    assert!(said.contains("exists already") && said.contains("--force"), "{said}");
    assert_eq!(std::fs::read(&to).unwrap(), before);
    run(dir.path(), &["convert", "--half", "--force", from, "net.safetensors"], 0);
    assert!(std::fs::metadata(&to).unwrap().len() < before.len() as u64 * 6 / 10);
    assert_ne!(load(&to).hash(), pickle.hash());
    let value = |bits: &[u32]| -> Vec<f32> { bits.iter().map(|b| f32::from_bits(*b)).collect() };
    let (a, b) = (value(&output(&pickle)), value(&output(&load(&to))));
    let off = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off > 0.0 && off < 0.01 * a.iter().fold(0.0f32, |m, v| m.max(v.abs())), "{off}");
    // a safetensors file goes through as well
    run(dir.path(), &["convert", "net.safetensors", "again.safetensors"], 0);
    assert_eq!(load(dir.path().join("again.safetensors")).hash(), load(&to).hash());
}

#[test]
fn other_checkpoints_keep_their_tensors_and_names_of_classes_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| fixture(name).to_str().unwrap().to_string();
    let said = run(dir.path(), &["convert", &path("pickle/state_p4.pt"), "state.safetensors"], 0);
    assert!(said.contains("tensors only"), "{said}");
    let written = checkpoint::open(dir.path().join("state.safetensors")).unwrap();
    same_tensors(open("pickle/state_p4.pt").tensors(), &written, "state");

    let adm = path("edm/adm_edm_cond.pkl");
    let said = run(dir.path(), &["convert", &adm, "adm.safetensors", "--classes", "a,b"], 1);
    assert!(said.contains("10 classes") && said.contains("names 2"), "{said}");
    run(dir.path(), &["convert", &adm, "adm.safetensors", "--classes", "a,b,c,d,e,f,g,h,i, j"], 0);
    let written = checkpoint::open(dir.path().join("adm.safetensors")).unwrap();
    same_tensors(written.tensors(), &open("edm/adm_edm_cond.weights.safetensors"), "adm");
    assert!(written.metadata()["classes"].contains("\"j\""));

    for (args, part, code) in [
        (&["convert", &adm][..], "OUT.safetensors", 2),
        (&["convert", &adm, "x.safetensors", "--haf"], "--half", 2),
        (&["convert", "nothing.pkl", "x.safetensors"], "nothing.pkl", 1),
        (&["convert", &path("solvers.json"), "x.safetensors"], "solvers.json", 1),
        (&["convert", &adm, "no/such/folder/x.safetensors"], "no/such/folder", 1),
    ] {
        let said = run(dir.path(), args, code);
        assert!(said.contains(part), "{args:?}: {said}");
    }
    assert!(!dir.path().join("x.safetensors").exists());
}

#[test]
fn scripts_look_into_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("f")).unwrap();
    for name in ["pickle/training.ckpt", "edm/ddpmpp_edm.weights.safetensors", "pickle/numpy_p2.pkl"] {
        std::fs::copy(fixture(name), dir.path().join("f").join(Path::new(name).file_name().unwrap())).unwrap();
    }
    let script = r#"
        fn check(ok, what) { if !ok { throw what; } }
        let c = checkpoint::open("f/training.ckpt");
        print(c);
        check(c.names.len == 5, "names");
        check(c.dtype("state_dict.bias") == "BF16" && c.shape("state_dict.weight") == [2, 2], "dtype and shape");
        check(c["state_dict.weight"].shape == [2, 2], "index");
        check(c.tensors("state_dict.").keys() == ["bias", "weight"], "tensors under a prefix");
        check(c.tensors().len() == 5, "all tensors");
        check(c.value("hyper_parameters").attributes.width == 8, "an object");
        check(c.value("hyper_parameters")["class"] == "argparse.Namespace", "its class");
        check(c.value("big") == 2.0 ** 70 && c.value("negative") == -1099511627776, "integers");
        check(c.value("").epoch == 3, "all of it");
        check(checkpoint::open("f/numpy_p2.pkl").value("raw").len() == 256, "bytes");
        let n = checkpoint::open("f/ddpmpp_edm.weights.safetensors");
        check(json::parse(n.metadata.config).img_resolution == 16, "metadata");
        for f in [|| c.value("nope"), || n.value(""), || c["nope"], || c.tensors("nope."), || c.dtype("epoch"), || checkpoint::open("f")] {
            let failed = false;
            try { f.call() } catch (e) { failed = true; print(e.message); }
            check(failed, "should fail");
        }
    "#;
    std::fs::write(dir.path().join("s.rhai"), script).unwrap();
    let said = run(dir.path(), &["s.rhai"], 0);
    assert!(said.contains("f/training.ckpt: 5 tensors") && said.contains("state_dict.bias"), "{said}");
    assert!(said.contains("`nope` leads nowhere") && said.contains("no tensor `nope`"), "{said}");
}
