//! Published files: found by name, downloaded from a server that misbehaves, gone on with, checked.
use crate::http::{Reply, Seen, Server, file};
use crate::process::{self, err, faults, ld3sh, out};
use ld3sh::host::Quiet;
use ld3sh::zoo::{self, Entry, Role, Settings, State};
use ld3sh::{Error, Kind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A file of no known size or checksum, as EDM's networks are.
const PLAIN: Entry = Entry {
    name: "thing",
    file: "thing.pkl",
    at: None,
    folder: "http://127.0.0.1:9/",
    role: Role::Denoiser,
    about: "",
    licence: "",
    size: None,
    sha256: None,
};

/// Bytes without a period that a slip could hide in.
fn content(n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn sha256(bytes: &[u8]) -> &'static str {
    ld3sh::files::hash::sha256(bytes).leak()
}

struct Bench {
    dir: tempfile::TempDir,
    settings: Settings,
}

impl Bench {
    fn new(server: &Server) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            folder: dir.path().join("models"),
            mirror: Some(server.url()),
            offline: false,
            attempts: 3,
            backoff: Duration::from_millis(1),
            patience: Duration::from_secs(20),
        };
        Bench { dir, settings }
    }
    fn get(&self, e: &Entry) -> Result<PathBuf, Error> {
        zoo::locate_with(e, &Quiet, &self.settings)
    }
    fn file(&self, name: &str) -> PathBuf {
        self.settings.folder.join(name)
    }
    /// Asserts that the whole file arrives, and leaves nothing half-done behind.
    #[track_caller]
    fn arrives(&self, e: &Entry, body: &[u8]) {
        let path = self.get(e).unwrap();
        assert!(path == self.file(e.file) && std::fs::read(&path).unwrap() == body);
        assert_eq!(zoo::state(e, &self.settings), State::Here(body.len() as u64));
        let mut names: Vec<_> = process::files(&self.settings.folder).into_keys().collect();
        names.retain(|n| !n.ends_with(format!(".{}.lock", e.file)));
        assert_eq!(names, [self.file(e.file), self.file(&format!("{}.json", e.file))]);
    }
    /// Asserts that nothing arrives, and that the error says why and what to do.
    #[track_caller]
    fn fails(&self, e: &Entry, kind: Kind, words: &[&str]) {
        let error = self.get(e).unwrap_err();
        let text = error.to_string();
        let address = self.settings.address(e);
        let place = self.file(e.file).display().to_string();
        for w in words.iter().copied().chain([address.as_str(), place.as_str(), e.file]) {
            assert!(text.contains(w), "{text:?} lacks {w:?}");
        }
        assert!(error.kind() == kind && !text.contains(".part"), "{:?}: {text}", error.kind());
        assert!(!self.file(e.file).exists());
    }
    /// The binary, with this bench's cache and the mirror.
    fn command(&self, words: &[&str]) -> Command {
        let mut c = ld3sh(self.dir.path(), self.dir.path());
        for v in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "LD3SH_OFFLINE"] {
            c.env_remove(v).env_remove(v.to_lowercase());
        }
        c.env("LD3SH_MIRROR", self.settings.mirror.as_ref().unwrap()).args(words);
        c
    }
}

#[test]
fn a_file_comes_once_and_is_recorded() {
    let body = content(300_000);
    let b = body.clone();
    let server = Server::start(move |seen, _| file(seen, &b, "\"a\""));
    let bench = Bench::new(&server);
    assert_eq!(zoo::state(&PLAIN, &bench.settings), State::Absent);
    bench.arrives(&PLAIN, &body);
    bench.arrives(&PLAIN, &body);
    assert_eq!(server.ranges(), [None], "one request");
    assert_eq!(server.seen()[0].path, "/thing.pkl");
    let record = std::fs::read_to_string(bench.file("thing.pkl.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["sha256"], sha256(&body));
    assert_eq!(record["size"], 300_000);
    assert_eq!(record["address"], format!("{}/thing.pkl", server.url()));
    // what the published file is like is known: the same file is taken, another one is not
    let known = Entry { size: Some(300_000), sha256: Some(sha256(&body)), ..PLAIN };
    assert!(bench.get(&known).is_ok());
    let other = Entry { sha256: Some(sha256(b"other")), ..known };
    assert_eq!(zoo::check(&other, &bench.settings).unwrap_err().kind(), Kind::Format);
}

#[test]
fn slow_chunked_and_redirected_servers() {
    let body = content(50_000);
    let b = body.clone();
    let server = Server::start(move |seen, _| match seen.path.as_str() {
        "/thing.pkl" => Reply::new(302, b"").header("Location", "/elsewhere"),
        "/elsewhere" => Reply { length: None, ..file(seen, &b, "\"a\"").slow(10_000, 20) },
        _ => Reply::new(302, b"").header("Location", "/round"),
    });
    Bench::new(&server).arrives(&PLAIN, &body);
    let circle = Entry { file: "circle.pkl", ..PLAIN };
    Bench::new(&server).fails(&circle, Kind::Io, &["redirects in circles"]);
}

#[test]
fn a_truncated_file_is_gone_on_with() {
    // each answer ends after 700 bytes: far more answers than attempts without progress
    let body = content(10_000);
    let b = body.clone();
    let server = Server::start(move |seen, _| file(seen, &b, "\"a\"").cut(700));
    Bench::new(&server).arrives(&PLAIN, &body);
    let starts: Vec<usize> = server.ranges().iter().map(|r| r.unwrap_or(0)).collect();
    assert_eq!(starts, (0..15).map(|i| 700 * i).collect::<Vec<_>>());
    assert!(server.seen()[1..].iter().all(|s| s.if_range.as_deref() == Some("\"a\"")));

    // a server that knows no ranges begins anew each time
    let b = body.clone();
    let stubborn =
        Server::start(move |_, i| Reply::new(200, &b).header("ETag", "\"a\"").cut(if i == 2 { 10_000 } else { 700 }));
    Bench::new(&stubborn).arrives(&PLAIN, &body);
    assert_eq!(stubborn.ranges(), [None, Some(700), Some(700)]);
    // and one that never gets further is given up
    let b = body.clone();
    let hopeless = Server::start(move |_, _| Reply::new(200, &b).header("ETag", "\"a\"").cut(700));
    let bench = Bench::new(&hopeless);
    bench.fails(&PLAIN, Kind::Io, &["ended too early", "700 of 10000 bytes", "goes on after the 700 bytes"]);
    assert_eq!(zoo::state(&PLAIN, &bench.settings), State::Part(700));
    assert_eq!(hopeless.ranges().len(), 4);
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let body = content(10_000);
    let b = body.clone();
    let server = Server::start(move |seen, i| match i {
        0 => file(seen, &b, "\"a\"").cut(4_000).stall(),
        _ => file(seen, &b, "\"a\""),
    });
    let mut bench = Bench::new(&server);
    bench.settings.patience = Duration::from_millis(300);
    bench.arrives(&PLAIN, &body);
    assert_eq!(server.ranges(), [None, Some(4_000)]);
}

#[test]
fn parts_of_different_files_are_not_joined() {
    let (old, new) = (content(10_000), content(12_000).split_off(2_000));
    for honest in [true, false] {
        let (a, b) = (old.clone(), new.clone());
        let server = Server::start(move |seen, i| match i {
            0 => file(seen, &a, "\"a\"").cut(4_000),
            // one that ignores `If-Range` sends the rest of another file
            _ if honest => file(seen, &b, "\"b\""),
            _ => file(&Seen { if_range: None, ..seen.clone() }, &b, "\"b\""),
        });
        Bench::new(&server).arrives(&PLAIN, &new);
        let expected = if honest { vec![None, Some(4_000)] } else { vec![None, Some(4_000), None] };
        assert_eq!(server.ranges(), expected);
    }
    // without anything to tell files apart by, a download begins anew
    let (a, b) = (old.clone(), new.clone());
    let server = Server::start(move |seen, i| {
        let mut r = file(seen, if i == 0 { &a } else { &b }, "x");
        r.headers.clear();
        if i == 0 { r.cut(4_000) } else { r }
    });
    Bench::new(&server).arrives(&PLAIN, &new);
    assert_eq!(server.ranges(), [None, None]);
    // with a known checksum it goes on, and begins anew if the parts do not fit
    let (a, b) = (old.clone(), new.clone());
    let server = Server::start(move |seen, i| {
        let body = if i == 0 { &a } else { &b };
        let mut r = file(seen, body, "x");
        r.headers.retain(|h| h.0 != "ETag");
        if i == 0 { r.cut(4_000) } else { r }
    });
    Bench::new(&server).arrives(&Entry { sha256: Some(sha256(&new)), ..PLAIN }, &new);
    assert_eq!(server.ranges(), [None, Some(4_000), None]);
}

#[test]
fn another_file_than_the_published_one_is_refused() {
    let body = content(10_000);
    let b = body.clone();
    let server = Server::start(move |seen, _| match seen.path.as_str() {
        "/page.pkl" => Reply::new(200, b"<html>log in</html>").header("Content-Type", "text/html; charset=utf-8"),
        "/more.pkl" => Reply { length: Some(9_000), ..file(seen, &b, "\"a\"") },
        _ => file(seen, &b, "\"a\""),
    });
    let bench = Bench::new(&server);
    let short = Entry { size: Some(9_999), ..PLAIN };
    bench.fails(&short, Kind::Format, &["the server offers 10000 bytes", "has 9999"]);
    let other = Entry { size: Some(10_000), sha256: Some(sha256(b"other")), ..PLAIN };
    bench.fails(&other, Kind::Format, &["SHA-256", sha256(&body), sha256(b"other")]);
    assert_eq!(zoo::state(&other, &bench.settings), State::Absent, "nothing wrong is kept");
    bench.fails(&Entry { file: "page.pkl", ..PLAIN }, Kind::Format, &["a web page"]);
    // bytes beyond the announced length are not read
    let more = Entry { file: "more.pkl", ..PLAIN };
    assert_eq!(std::fs::read(bench.get(&more).unwrap()).unwrap(), body[..9_000]);
}

#[test]
fn status_codes() {
    let body = content(100);
    let b = body.clone();
    let server = Server::start(move |seen, i| match seen.path.trim_start_matches('/').split('.').next().unwrap() {
        "busy" if i < 2 => Reply::new(503, b"later"),
        "busy" => file(seen, &b, "\"a\""),
        code => Reply::new(code.parse().unwrap(), b"no"),
    });
    Bench::new(&server).arrives(&Entry { file: "busy.pkl", ..PLAIN }, &body);
    for (name, words, requests) in [
        ("404.pkl", "404 Not Found", 1),
        ("403.pkl", "403 Forbidden", 1),
        ("502.pkl", "502 Bad Gateway", 3),
        ("204.pkl", "204", 1),
    ] {
        let before = server.seen().len();
        Bench::new(&server).fails(&Entry { file: name, ..PLAIN }, Kind::Io, &["the server answered", words]);
        assert_eq!(server.seen().len() - before, requests, "{name}");
    }
}

#[test]
fn servers_that_cannot_be_reached() {
    let server = Server::start(|_, _| Reply::new(200, b""));
    // one that does not speak TLS
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in plain.incoming().flatten() {
            let mut stream = stream;
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
        }
    });
    let closed = {
        let s = Server::start(|_, _| Reply::new(200, b""));
        s.port()
    };
    for (mirror, words) in [
        (format!("http://127.0.0.1:{closed}"), "refused"),
        ("http://no-such-host.invalid".to_string(), "cannot be resolved"),
        (format!("https://127.0.0.1:{port}"), "not secure"),
        ("nonsense".to_string(), "not a valid one"),
    ] {
        let bench = Bench::new(&server);
        let o = bench.command(&["models", "get", "squeezenet1_1"]).env("LD3SH_MIRROR", &mirror).output().unwrap();
        let (what, place) =
            (format!("fetch {mirror}/squeezenet1_1-b8a52dc0.pth"), "models/squeezenet1_1-b8a52dc0.pth`");
        assert_eq!(faults(&o, 1, &["cannot download", words, &what, place]), Vec::<String>::new(), "{}", err(&o));
    }
}

#[test]
fn nothing_is_fetched_offline() {
    let server = Server::start(|_, _| Reply::new(200, b"x"));
    let bench = Bench::new(&server);
    let load = ["-e", "denoiser::load(\"edm-ffhq-64x64-uncond-vp.pkl\")"];
    let o = bench.command(&load).env("LD3SH_OFFLINE", "1").env_remove("LD3SH_MIRROR").output().unwrap();
    let words = [
        "LD3SH_OFFLINE",
        "fetch https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-ffhq-64x64-uncond-vp.pkl",
        "models/edm-ffhq-64x64-uncond-vp.pkl`",
    ];
    assert_eq!(faults(&o, 1, &words), Vec::<String>::new(), "{}", err(&o));
    assert!(server.seen().is_empty());
}

#[test]
fn files_put_there_by_hand_are_taken_and_watched() {
    let server = Server::start(|_, _| Reply::new(500, b""));
    let bench = Bench::new(&server);
    std::fs::create_dir_all(&bench.settings.folder).unwrap();
    std::fs::write(bench.file("thing.pkl"), b"by hand").unwrap();
    assert!(bench.get(&PLAIN).is_ok() && bench.file("thing.pkl.json").exists());
    // of another time and content than recorded
    std::fs::write(bench.file("thing.pkl"), b"changed").unwrap();
    let past = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options().write(true).open(bench.file("thing.pkl")).unwrap().set_modified(past).unwrap();
    let e = bench.get(&PLAIN).unwrap_err();
    assert!(e.kind() == Kind::Format && e.to_string().contains("when it came it had"), "{e}");
    // only a change of content counts
    std::fs::write(bench.file("thing.pkl"), b"by hand").unwrap();
    assert!(bench.get(&PLAIN).is_ok());
    assert_eq!(zoo::check(&PLAIN, &bench.settings).unwrap(), sha256(b"by hand"));
    assert!(server.seen().is_empty());
}

#[test]
fn a_folder_that_cannot_be_written_and_a_link_in_the_way() {
    let server = Server::start(|seen, _| file(seen, &content(200_000), "\"a\""));
    let bench = Bench::new(&server);
    std::fs::write(&bench.settings.folder, b"a file").unwrap();
    let e = bench.get(&PLAIN).unwrap_err().to_string();
    assert!(e.contains("cannot create") && e.contains("LD3SH_CACHE"), "{e}");
    #[cfg(unix)]
    {
        let bench = Bench::new(&server);
        std::fs::create_dir_all(&bench.settings.folder).unwrap();
        // somebody else's file must not get the bytes
        let other = bench.dir.path().join("other");
        std::fs::write(&other, b"kept").unwrap();
        for target in [&other, &bench.dir.path().join("new")] {
            std::os::unix::fs::symlink(target, bench.file("thing.pkl.part")).unwrap();
            let e = bench.get(&PLAIN).unwrap_err().to_string();
            assert!(e.contains("thing.pkl`") && e.contains("a link stands there"), "{e}");
            std::fs::remove_file(bench.file("thing.pkl.part")).unwrap();
        }
        assert_eq!(std::fs::read(&other).unwrap(), b"kept");
        assert!(!bench.dir.path().join("new").exists());
    }
}

/// A small network that the built-in loader takes, under a published name.
fn network() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/edm/ddpmpp_edm.weights.safetensors");
    std::fs::read(path).unwrap()
}

#[test]
fn scripts_load_published_networks_by_name() {
    let body = network();
    let server = Server::start(move |seen, _| file(seen, &body, "\"a\""));
    let bench = Bench::new(&server);
    let code = "let a = denoiser::load(\"edm-cifar10-32x32-uncond-vp\"); let b = denoiser::load(\"edm-cifar10-32x32-uncond-vp.pkl\"); \
        print(a.hash == b.hash); print(models().filter(|m| m.path != ()).map(|m| m.name))";
    let o = bench.command(&["-e", code]).output().unwrap();
    assert_eq!(out(&o), "true\n[\"edm-cifar10-32x32-uncond-vp\"]\n", "{}", err(&o));
    assert_eq!(server.seen().len(), 1);
    for (name, words) in [
        ("edm-cifar10-32x32-uncond-vpp", "did you mean `edm-cifar10-32x32-uncond-vp`?"),
        ("edm-cifar10-32x32-uncond-vpp.pkl", "did you mean `edm-cifar10-32x32-uncond-vp`?"),
        ("vgg16", "is not a denoiser"),
        ("runs/edm-cifar10-32x32-uncond-vp", "cannot read"),
    ] {
        let o = bench.command(&["-e", &format!("denoiser::load(\"{name}\")")]).output().unwrap();
        assert_eq!(faults(&o, 1, &[words]), Vec::<String>::new(), "{name}: {}", err(&o));
    }
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn the_command() {
    let body = network();
    let server = Server::start(move |seen, _| file(seen, &body, "\"a\""));
    let bench = Bench::new(&server);
    let run = |words: &[&str]| bench.command(words).output().unwrap();
    let list = out(&run(&["models"]));
    for e in zoo::ENTRIES {
        assert!(list.contains(e.name) && list.contains(e.licence), "{list}");
    }
    assert!(list.contains("553.4 MB") && list.contains("CC BY-NC-SA 4.0") && !list.contains("yes"), "{list}");
    let path = bench.file("edm-afhqv2-64x64-uncond-vp.pkl").display().to_string();
    for words in [["models", "path", "edm-afhqv2-64x64-uncond-vp"], ["models", "get", "edm-afhqv2-64x64-uncond-vp"]] {
        assert_eq!(out(&run(&words)).trim(), path);
    }
    assert!(out(&run(&["models"])).contains("yes"));
    assert!(out(&run(&["models", "check"])).contains(sha256(&network())));
    assert!(out(&run(&["models", "--help"])).contains("LD3SH_MIRROR"));
    for (words, message, code) in [
        (["models", "get", "edm-afhqv2"].as_slice(), "unknown published file", 1),
        (&["models", "get"], "<NAME>", 2),
        (&["models", "gett"], "'get'", 2),
    ] {
        assert_eq!(faults(&run(words), code, &[message]), Vec::<String>::new());
    }
    // bits that change where they lie are found by a check
    let mut changed = network();
    changed[5000] ^= 1;
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, changed).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let o = run(&["models", "check", "edm-afhqv2-64x64-uncond-vp"]);
    assert_eq!(faults(&o, 1, &["is not the published file", "when it came it had"]), Vec::<String>::new());
}

#[test]
fn processes_wait_for_one_another() {
    let body = content(40_000);
    let b = body.clone();
    let server = Server::start(move |seen, _| file(seen, &b, "\"a\"").slow(4_000, 20));
    let bench = Bench::new(&server);
    let get = || bench.command(&["models", "get", "edm-ffhq-64x64-uncond-ve"]).spawn().unwrap();
    let all: Vec<_> = (0..4).map(|_| get()).collect();
    for child in all {
        let o = child.wait_with_output().unwrap();
        assert_eq!(o.status.code(), Some(0), "{}", err(&o));
    }
    assert_eq!(server.ranges(), [None], "one of them downloads");
    assert_eq!(std::fs::read(bench.file("edm-ffhq-64x64-uncond-ve.pkl")).unwrap(), body);
}

/// Interrupts a download after its first 4000 bytes by a signal; the next run goes on from there.
#[cfg(unix)]
fn interrupted(signal: &str) -> std::process::Output {
    let body = content(10_000);
    let b = body.clone();
    let server = Server::start(move |seen, i| match i {
        0 => file(seen, &b, "\"a\"").cut(4_000).stall(),
        _ => file(seen, &b, "\"a\""),
    });
    let bench = Bench::new(&server);
    let e = zoo::named("edm-ffhq-64x64-uncond-vp").unwrap();
    let child = bench.command(&["models", "get", e.name]).spawn().unwrap();
    while zoo::state(e, &bench.settings) != State::Part(4_000) {
        std::thread::sleep(Duration::from_millis(5));
    }
    process::kill(&child, signal);
    let o = child.wait_with_output().unwrap();
    assert_eq!(zoo::state(e, &bench.settings), State::Part(4_000));
    assert!(out(&bench.command(&["models"]).output().unwrap()).contains("4.0 kB of it"));
    let next = bench.command(&["models", "get", e.name]).output().unwrap();
    assert_eq!(next.status.code(), Some(0), "{}", err(&next));
    assert_eq!(std::fs::read(bench.settings.path(e)).unwrap(), body);
    assert_eq!(server.ranges(), [None, Some(4_000)]);
    o
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_a_silent_download_and_keeps_what_came() {
    let o = interrupted("-INT");
    assert_eq!(faults(&o, 130, &["stopped by Ctrl-C"]), Vec::<String>::new(), "{}", err(&o));
}

#[test]
#[cfg(unix)]
fn a_killed_download_is_gone_on_with() {
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(interrupted("-KILL").status.signal(), Some(9));
}

/// What came before the disk ran full stays, nothing takes the file's name, and the next run goes on.
#[test]
#[cfg(unix)]
fn a_download_that_fills_the_disk_is_gone_on_with() {
    let body = content(400_000);
    let b = body.clone();
    let server = Server::start(move |seen, _| file(seen, &b, "\"a\""));
    let bench = Bench::new(&server);
    let e = zoo::named("edm-ffhq-64x64-uncond-vp").unwrap();
    let whole = bench.command(&["models", "get", e.name]);
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -f 64; exec '{}' models get {}", env!("CARGO_BIN_EXE_ld3sh"), e.name)]);
    for (name, value) in whole.get_envs() {
        match value {
            Some(v) => limited.env(name, v),
            None => limited.env_remove(name),
        };
    }
    let o = limited.output().unwrap();
    assert_eq!(faults(&o, 1, &["cannot write", "edm-ffhq-64x64-uncond-vp.pkl"]), Vec::<String>::new(), "{}", err(&o));
    let State::Part(came) = zoo::state(e, &bench.settings) else { panic!("nothing of it was kept") };
    assert!((1..400_000).contains(&came) && !bench.settings.path(e).exists());
    let next = { whole }.output().unwrap();
    assert_eq!(next.status.code(), Some(0), "{}", err(&next));
    assert_eq!(std::fs::read(bench.settings.path(e)).unwrap(), body);
    assert_eq!(server.ranges(), [None, Some(came as usize)]);
}

#[test]
fn proxies_are_used() {
    let body = content(1_000);
    let b = body.clone();
    let server = Server::start(move |seen, _| file(seen, &b, "\"a\""));
    let bench = Bench::new(&server);
    let mut c = bench.command(&["models", "get", "edm-ffhq-64x64-uncond-vp"]);
    let o = c.env("LD3SH_MIRROR", "http://far.invalid").env("HTTP_PROXY", server.url()).output().unwrap();
    assert_eq!(o.status.code(), Some(0), "{}", err(&o));
    assert!(server.seen()[0].path.contains("far.invalid"), "{:?}", server.seen());
}
