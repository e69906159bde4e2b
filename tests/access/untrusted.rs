//! `--untrusted`, `--memory`, modules in the place of built-in ones, and Landlock.
use crate::world::{READERS, WRITERS, World, trying};
use crate::{http, terminal};

/// `--untrusted`: nothing is read but the script's folder, `--out`, the cache and what was granted; written is `--out` alone.
#[test]
fn untrusted_scripts_see_their_own_folder() {
    let w = World::new();
    let secret = w.at("home/.ssh/id").display().to_string();
    let before = w.outside();
    w.put("work/.env", "key");
    let targets =
        [secret.as_str(), "../home/.ssh/id", "../elsewhere/victim.json", ".env", "/etc/passwd", "/proc/self/environ"];
    let mut calls = vec![];
    for t in targets {
        calls.extend(READERS.iter().map(|(_, call)| call.replace("PATH", t)));
        calls.push(format!("import \"{t}\" as m"));
    }
    calls.extend(WRITERS.iter().map(|(_, call)| call.replace("PATH", "x")));
    calls.extend(WRITERS.iter().map(|(_, call)| call.replace("PATH", "../elsewhere/x")));
    calls.push("csv::save(cache_path(\"poison\"), [[1]])".into());
    let (status, text) = w.script(&calls.iter().map(|c| trying(c)).collect::<String>(), &["--untrusted"]);
    assert_eq!(status, Some(0), "{text}");
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with("note: ")).collect();
    assert_eq!(lines.len(), calls.len(), "{text}");
    for (call, line) in calls.iter().zip(lines) {
        // a module's name that is no file is no module; a network's that is no file is none
        let absent = call.starts_with("import") && line.contains("there is no module");
        assert!(line.starts_with("permission: ") || absent, "{call}: {line}");
        assert!(!line.contains("secret") && !line.contains("root:"), "{call}: {line}");
    }
    assert_eq!(w.outside(), before);

    // what it needs works
    w.put("work/lib.rhai", "fn twice(x) { 2 * x }");
    let code = "import \"lib\" as lib; json::save(out(\"a.json\"), lib::twice(2)); print(json::load(out(\"a.json\"))); \
        print(json::load(\"mine.json\")); import \"ld3\" as ld3; let net = denoiser::mixture(#{ means: [[-1.0], [1.0]], stds: 0.2 }); \
        print(sample(net, solver::ddim(), schedule::edm(net.noise, 4), randn([2, 1])).shape); print(cpu_time() != ()); \
        plot::schedules([schedule::edm(noise::edm(), 3)]).save(out(\"p.png\"));";
    let (status, text) = w.script(code, &["--untrusted"]);
    assert!(status == Some(0) && text.ends_with("[2, 1]\ntrue\n"), "{text}");
    // a cache that it may not write is no reason to fail
    let code = "import \"ld3\" as ld3; let net = denoiser::mixture(#{ means: [[-1.0], [1.0]], stds: 0.2 }); \
        let pairs = ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 20), #{ train: 2, valid: 2 }); print(pairs.train.z.len);";
    let entries = || std::fs::read_dir(w.at("cache")).unwrap().count();
    let before = entries();
    let (status, text) = w.script(code, &["--untrusted"]);
    assert!(status == Some(0) && text.contains("2\n") && entries() == before, "{text}");
    assert!(w.script(code, &[]).0 == Some(0) && entries() > before);
    let read = trying("print(json::load(\"../elsewhere/victim.json\"))");
    let granted = w.script(&read, &["--untrusted", "--allow-read", "../elsewhere"]).1;
    assert!(granted.contains("kept"), "{granted}");
    let write = trying("json::save(\"../elsewhere/new/x.json\", 1)");
    std::fs::create_dir_all(w.at("elsewhere/new")).unwrap();
    assert_eq!(w.script(&write, &["--untrusted", "--allow-write", "../elsewhere/new"]).1, "done\n");
    // what is typed is no exception, as the kernel knows none
    let o = w.run(&["--untrusted", "-e", "json::load(\"../elsewhere/victim.json\")"]);
    assert!(!o.status.success());
}

/// A file in the place of a built-in module is told, and refused under `--untrusted`.
#[test]
fn modules_that_replace_built_in_ones() {
    let w = World::new();
    for (file, import) in
        [("cache.rhai", "cache"), ("ld3.rhai", "ld3.rhai"), ("stdlib/experiment.rhai", "stdlib/experiment")]
    {
        std::fs::create_dir_all(w.at("work/stdlib")).unwrap();
        w.put(
            &format!("work/{file}"),
            "fn get(a, b, c) { \"mine\" } fn run_it() { csv::save(\"../elsewhere/x\", [[1]]) }",
        );
        let code = format!("import \"{import}\" as m; print(m::get(1, 2, 3));");
        let (status, text) = w.script(&code, &[]);
        assert!(status == Some(0) && text.contains("mine") && text.contains("replaces the built-in module"), "{text}");
        let (status, text) = w.script(&code, &["--untrusted"]);
        assert!(status == Some(1) && text.contains("would replace the built-in module"), "{text}");
        // it is a file's code, whatever it is called
        let o = w.run(&["-e", &format!("import \"{import}\" as m; m::run_it()")]);
        assert!(!o.status.success() && !w.at("elsewhere/x").exists());
        std::fs::remove_file(w.at(&format!("work/{file}"))).unwrap();
    }
    // one import does not decide for the other
    w.put("work/stdlib/cache.rhai", "fn get(a, b, c) { \"mine\" }");
    let code = "import \"stdlib/cache\" as a; import \"cache\" as b; print(a::get(1, 2, || 3)); print(b::get(\"n\", #{ k: () }, || 3));";
    let (_, text) = w.script(code, &[]);
    assert!(text.contains("mine\n3\n"), "{text}");
}

#[test]
fn memory_has_a_limit() {
    let w = World::new();
    let (_, text) = w.script(&trying("zeros([200, 1000000])"), &["--memory", "500MB"]);
    assert!(text.starts_with("memory: "), "{text}");
    assert_eq!(w.script(&trying("zeros([100])"), &["--memory", "1 GiB"]).1, "done\n");
    for wrong in ["much", "0", "5 apples"] {
        let o = w.run(&["--memory", wrong, "s.rhai"]);
        assert!(o.status.code() == Some(2) && String::from_utf8_lossy(&o.stderr).contains("8GB"), "{wrong}");
    }
}

/// Behind the checks stands the kernel, for what goes around them: here a command of the shell.
#[cfg(target_os = "linux")]
#[test]
fn landlock_stands_behind() {
    let w = World::new();
    let secret = w.at("home/.ssh/id").display().to_string();
    let open = |args: &[&str]| terminal::Terminal::open_with(&w.at("work"), 30, 100, args, &[]);
    let mut free = open(&[]);
    free.enter(&format!("!cat {secret}"));
    assert!(free.contents().contains("a secret key"), "{}", free.contents());
    let mut held = open(&["--untrusted"]);
    if held.raw().contains("no Landlock") {
        return;
    }
    held.enter(&format!("!cat {secret}; cat mine.json; echo x > ../elsewhere/y; echo x > out/y; head -c 4 /dev/urandom > /dev/null; echo done"));
    let shown = held.contents();
    assert!(!shown.contains("a secret key") && shown.contains("\"old\": true") && shown.contains("done"), "{shown}");
    assert!(!w.at("elsewhere/y").exists() && w.at("work/out/y").exists());
    // the network, where it is not wanted
    let server = http::Server::start(|_, _| http::Reply::new(200, b""));
    let connect = format!("!bash -c 'exec 3<>/dev/tcp/127.0.0.1/{} && echo connected || echo refused'", server.port());
    let mut offline = open(&["--untrusted", "--offline"]);
    for (terminal, want) in [(&mut held, "connected"), (&mut offline, "refused")] {
        terminal.enter(&connect);
        terminal.wait_until(want, |s| s.lines().any(|l| l == want));
    }
    // the prompt itself, threads, the terminal's size and the history go on working
    held.enter("sample(denoiser::gaussian(#{ mean: [0.5], std: 0.3 }), solver::heun(), schedule::edm(noise::edm(), 5), randn([64, 1])).shape");
    held.wait("[64, 1]");
    held.enter("show([1.0, 2.0, 3.0])");
    assert!(std::fs::read_to_string(w.at("work/ld3sh/history.txt")).unwrap().contains("solver::heun"));
}
