//! Folders of models from a hub on 127.0.0.1: file by file, gone on with, with a token that nobody sees, licences accepted first.
use crate::http::{Reply, Seen, Server, file};
use crate::process::{err, faults, ld3sh, out};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Output};

const TOKEN: &str = "hf_NobodyMaySeeThis";

/// The files of a repository, by place.
const FILES: [(&str, &[u8]); 12] = [
    ("model_index.json", b"{\"_class_name\": \"FluxPipeline\"}"),
    ("README.md", b"not read"),
    ("transformer/config.json", b"{}"),
    ("transformer/diffusion_pytorch_model-00001-of-00002.safetensors", &[7; 9000]),
    ("transformer/diffusion_pytorch_model-00002-of-00002.safetensors", &[8; 5000]),
    ("transformer/diffusion_pytorch_model.safetensors.index.json", b"{\"weight_map\": {}}"),
    ("vae/config.json", b"{}"),
    ("vae/diffusion_pytorch_model.safetensors", &[9; 3000]),
    ("vae/diffusion_pytorch_model.bin", b"a pickle"),
    ("text_encoder/model.safetensors", &[1; 100]),
    ("tokenizer_2/spiece.model", b"pieces"),
    ("flux1-dev.safetensors", b"the same once more"),
];
/// Those that are read.
const READ: [usize; 8] = [0, 2, 3, 4, 5, 6, 7, 9];

fn listing(repository: &str) -> String {
    let lfs = |body: &[u8]| json!({ "oid": ld3sh::files::hash::sha256(body), "size": body.len() });
    let one = |(path, body): &(&str, &[u8])| {
        let mut entry = json!({ "type": "file", "path": path, "size": body.len(), "oid": "0".repeat(40) });
        if path.ends_with(".safetensors") {
            entry["lfs"] = lfs(body);
        }
        entry
    };
    let mut all: Vec<_> = FILES.iter().map(one).collect();
    // what leads out of the folder is not taken
    all.push(json!({ "type": "file", "path": "vae/../../evil.json", "size": 1 }));
    all.push(json!({ "type": "file", "path": "/scheduler/evil.json", "size": 1 }));
    all.push(json!({ "type": "directory", "path": "vae", "size": 0 }));
    assert!(!repository.is_empty());
    serde_json::Value::Array(all).to_string()
}

/// The hub's answer, whose first piece of a large file ends too early.
fn hub(repository: &'static str) -> impl Fn(&Seen, usize) -> Reply {
    move |seen, _| {
        if seen.path == format!("/api/models/{repository}/tree/main?recursive=true") {
            return Reply::new(200, listing(repository).as_bytes()).header("Content-Type", "application/json");
        }
        let found = seen.path.strip_prefix(&format!("/{repository}/resolve/main/"));
        match found.and_then(|p| FILES.iter().find(|(path, _)| *path == p)) {
            Some((path, body)) if path.contains("00001") && seen.range.is_none() => file(seen, body, "\"a\"").cut(4000),
            Some((_, body)) => file(seen, body, "\"a\""),
            None => Reply::new(404, b""),
        }
    }
}

fn command(dir: &Path, server: &Server, words: &[&str]) -> Command {
    let mut c = ld3sh(dir, dir);
    for v in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "LD3SH_OFFLINE", "LD3SH_MIRROR"] {
        c.env_remove(v).env_remove(v.to_lowercase());
    }
    c.env("HF_ENDPOINT", server.url()).env("HF_TOKEN", TOKEN).env("XDG_CONFIG_HOME", dir.join("config")).args(words);
    c
}

/// What a command answers; the token is in nothing of it.
fn run(mut c: Command) -> Output {
    let done = c.output().unwrap();
    assert!(!out(&done).contains(TOKEN) && !err(&done).contains(TOKEN), "{}", err(&done));
    done
}

/// Fails with one message that has these words.
#[track_caller]
fn refuses(o: &Output, words: &[&str]) {
    assert!(!o.status.success());
    assert_eq!(faults(o, o.status.code().unwrap(), words), Vec::<String>::new(), "{}", err(o));
}

fn models(dir: &Path) -> std::path::PathBuf {
    // the cache of these processes
    let mut c = ld3sh(dir, dir);
    let done = c.args(["models", "path"]).output().unwrap();
    out(&done).trim().into()
}

fn all_files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = crate::process::files(folder)
        .into_keys()
        .filter(|p| p.is_file())
        .map(|p| (p.strip_prefix(folder).unwrap().display().to_string(), std::fs::read(&p).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_folder_comes_file_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(hub("black-forest-labs/FLUX.1-schnell"));
    let folder = models(dir.path()).join("flux1-schnell");
    let done = run(command(dir.path(), &server, &["models", "get", "flux1-schnell"]));
    assert!(done.status.success(), "{}", err(&done));
    assert_eq!(out(&done).trim(), folder.display().to_string());
    let read: Vec<&str> = READ.iter().map(|i| FILES[*i].0).chain(["tokenizer_2/spiece.model"]).collect();
    for (path, body) in FILES {
        let there = std::fs::read(folder.join(path)).ok();
        assert_eq!(there.as_deref(), read.contains(&path).then_some(body), "{path}");
    }
    assert!(!folder.with_file_name("flux1-schnell.incoming").exists());
    // the token went to the hub, with every request, and is in no file
    let seen = server.seen();
    assert!(seen.iter().all(|s| s.authorization.as_deref() == Some(&*format!("Bearer {TOKEN}"))), "{seen:?}");
    assert!(seen.iter().any(|s| s.range == Some(4000)), "gone on with");
    for (name, bytes) in all_files(&models(dir.path())) {
        assert!(!String::from_utf8_lossy(&bytes).contains(TOKEN), "{name}");
        assert!(!name.contains("evil"), "{name}");
    }
    // it comes once
    let before = seen.len();
    assert!(run(command(dir.path(), &server, &["models", "get", "flux1-schnell"])).status.success());
    assert_eq!(server.seen().len(), before);
    let listed = run(command(dir.path(), &server, &["models"]));
    assert!(out(&listed).lines().any(|l| l.starts_with("flux1-schnell") && l.contains("yes")), "{}", out(&listed));
}

/// The token goes to the hub alone, not to where it sends its files from.
#[test]
fn a_token_goes_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Server::start(|seen, _| {
        let found = FILES.iter().find(|(path, _)| seen.path.ends_with(path));
        found.map_or(Reply::new(404, b""), |(_, body)| file(seen, body, "\"a\""))
    });
    let at = storage.url();
    let answer = hub("black-forest-labs/FLUX.1-schnell");
    let server = Server::start(move |seen, n| match seen.path.ends_with(".safetensors") {
        true => Reply::new(302, b"").header("Location", format!("{at}{}", seen.path)),
        false => answer(seen, n),
    });
    let done = run(command(dir.path(), &server, &["models", "get", "flux1-schnell"]));
    assert!(done.status.success(), "{}", err(&done));
    assert!(storage.seen().len() >= 3 && storage.seen().iter().all(|s| s.authorization.is_none()));
    // a mirror of single files gets none either
    let mut c = command(dir.path(), &server, &["models", "get", "clip-l"]);
    c.env("LD3SH_MIRROR", storage.url());
    assert!(!run(c).status.success());
    assert!(storage.seen().iter().all(|s| s.authorization.is_none()));
}

#[test]
fn licences_that_ask_are_accepted_once_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(hub("black-forest-labs/FLUX.1-dev"));
    let done = run(command(dir.path(), &server, &["models", "get", "flux1-dev"]));
    refuses(
        &done,
        &["asks to be accepted", "Non-Commercial", "ld3sh models accept flux1-dev", "black-forest-labs/FLUX.1-dev"],
    );
    assert!(server.seen().is_empty(), "nothing was asked for");
    let other = run(command(dir.path(), &server, &["models", "accept", "flux1-schnell"]));
    refuses(&other, &["flux1-dev"]);
    let done = run(command(dir.path(), &server, &["models", "accept", "flux1-dev"]));
    assert!(done.status.success() && out(&done).contains("accepted for flux1-dev"), "{}", err(&done));
    assert_eq!(out(&run(command(dir.path(), &server, &["models", "accept"]))).trim(), "flux1-dev");
    assert!(run(command(dir.path(), &server, &["models", "get", "flux1-dev"])).status.success());
    let kept = std::fs::read_to_string(dir.path().join("config/ld3sh/licences.json")).unwrap();
    assert_eq!(kept.trim(), r#"{"accepted":["flux1-dev"]}"#);
    std::fs::write(dir.path().join("config/ld3sh/licences.json"), "{}").unwrap();
    refuses(&run(command(dir.path(), &server, &["models", "accept"])), &["licences.json", "accepted"]);
}

#[test]
fn what_the_hub_does_not_give_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let gated = Server::start(|_, _| Reply::new(401, b"who are you"));
    let done = run(command(dir.path(), &gated, &["models", "get", "flux1-schnell"]));
    refuses(&done, &["401", "HF_TOKEN", "FLUX.1-schnell"]);
    let page = Server::start(|_, _| Reply::new(200, b"<html>").header("Content-Type", "text/html"));
    let done = run(command(dir.path(), &page, &["models", "get", "flux1-schnell"]));
    refuses(&done, &["not the hub's", "HF_ENDPOINT"]);
    let empty = Server::start(|_, _| Reply::new(200, b"[]"));
    let done = run(command(dir.path(), &empty, &["models", "get", "flux1-schnell"]));
    refuses(&done, &["holds no model", "put them into"]);
    let mut c = command(dir.path(), &empty, &["models", "get", "flux1-schnell"]);
    c.env("LD3SH_OFFLINE", "1");
    refuses(&run(c), &["LD3SH_OFFLINE", "put them into", "FLUX.1-schnell"]);
    // another file than the list says
    let answer = hub("black-forest-labs/FLUX.1-schnell");
    let wrong = Server::start(move |seen, n| match seen.path.ends_with("vae/diffusion_pytorch_model.safetensors") {
        true => file(seen, &[3; 3000], "\"b\""),
        false => answer(seen, n),
    });
    let done = run(command(dir.path(), &wrong, &["models", "get", "flux1-schnell"]));
    refuses(&done, &["SHA-256", "vae/diffusion_pytorch_model.safetensors"]);
    // what came whole before stays, and the rest is all that is asked for
    let server = Server::start(hub("black-forest-labs/FLUX.1-schnell"));
    assert!(run(command(dir.path(), &server, &["models", "get", "flux1-schnell"])).status.success());
    assert!(server.seen().iter().all(|s| !s.path.contains("transformer/")), "{:?}", server.seen());
}
