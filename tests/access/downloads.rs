//! Downloads, and the history.
use crate::world::{World, trying};
use crate::{http, terminal};
use std::process::Command;

#[test]
fn offline_says_what_to_fetch() {
    let w = World::new();
    let code = trying("denoiser::load(\"edm-ffhq-64x64-uncond-vp\")");
    let (_, text) = w.script(&code, &["--offline"]);
    for part in [
        "--offline",
        "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-ffhq-64x64-uncond-vp.pkl",
        "cache/models/edm-ffhq",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

/// The history is for the user's eyes.
#[cfg(unix)]
#[test]
fn the_history_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let w = World::new();
    let file = w.at("work/ld3sh/history.txt");
    let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    let mut t = terminal::Terminal::open(&w.at("work"), 80, &[]);
    t.enter("1 + 1");
    assert_eq!(mode(), 0o600);
    drop(t);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut t = terminal::Terminal::open(&w.at("work"), 80, &[]);
    t.enter("1 + 2");
    assert_eq!(mode(), 0o600);
}

/// A server cannot fill the disk, and other authorities are named by `SSL_CERT_FILE`.
#[test]
fn downloads_are_bounded_and_certificates_named() {
    let server = http::Server::start(|_, _| {
        let mut endless = http::Reply::new(200, b"begins");
        endless.length = Some(1 << 40);
        endless
    });
    let w = World::new();
    let fetch = |mirror: &str, certificates: &str| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_ld3sh"));
        c.args(["-e", "denoiser::load(\"edm-ffhq-64x64-uncond-vp\")"]).env("LD3SH_CACHE", w.at("cache"));
        c.env("LD3SH_MIRROR", mirror).env("SSL_CERT_FILE", certificates).env_remove("LD3SH_OFFLINE");
        String::from_utf8_lossy(&c.output().unwrap().stderr).into_owned()
    };
    let text = fetch(&server.url(), "");
    assert!(text.contains("offers 1099511627776 bytes, more than the 17179869184"), "{text}");
    w.put("work/none.pem", "no certificate");
    for (file, why) in [("absent.pem", "No such file"), ("none.pem", "no certificate in it")] {
        let text = fetch(&server.url().replace("http:", "https:"), &w.at("work").join(file).display().to_string());
        assert!(text.contains("SSL_CERT_FILE") && text.contains(why), "{text}");
    }
}
