//! What a stranger's script may touch, by running the binary; and that no source file goes around the check.
#[path = "common/http.rs"]
mod http;
#[path = "common/terminal.rs"]
mod terminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A home, a working folder in it, a cache, and another user's place beside them.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["home/.ssh", "home/.config/ld3sh", "work/sub", "cache", "elsewhere"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let world = World { dir };
        world.put("home/.ssh/id", "a secret key\n");
        world.put("elsewhere/victim.json", "{\"kept\": true}");
        world.put("work/mine.json", "{\"old\": true}\n");
        world
    }
    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }
    fn put(&self, path: &str, text: &str) {
        std::fs::write(self.at(path), text).unwrap();
    }
    fn run(&self, args: &[&str]) -> Output {
        let mut c = Command::new(env!("CARGO_BIN_EXE_ld3sh"));
        c.current_dir(self.at("work")).args(["--threads", "1", "--quiet"]).args(args).stdin(Stdio::null());
        c.env_remove("LD3SH_PATH").env("LD3SH_CACHE", self.at("cache")).env("HOME", self.at("home"));
        c.env("XDG_CONFIG_HOME", self.at("home/.config")).env_remove("XDG_STATE_HOME").env_remove("LD3SH_MIRROR");
        c.output().unwrap()
    }
    /// Runs `code` as a script; returns the exit code and both outputs.
    fn script(&self, code: &str, args: &[&str]) -> (Option<i32>, String) {
        self.put("work/s.rhai", code);
        let o = self.run(&[&["s.rhai"], args].concat());
        (o.status.code(), format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr)))
    }
    /// All files but those of the work and the cache, with what is in them.
    fn outside(&self) -> Vec<(PathBuf, String)> {
        let mut all = vec![];
        let mut folders = vec![self.at("home"), self.at("elsewhere")];
        while let Some(f) = folders.pop() {
            for e in std::fs::read_dir(f).unwrap() {
                let path = e.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => all.push((path.clone(), std::fs::read_to_string(&path).unwrap_or_default())),
                }
            }
        }
        all.sort();
        all
    }
}

/// Code that writes to `PATH`, by every function that does; before the space stands the name in the catalogue.
const WRITERS: &[(&str, &str)] = &[
    ("save", "save(\"PATH.npy\", ones([1]))"),
    ("save npz", "save(\"PATH.npz\", #{ x: ones([1]) })"),
    ("save safetensors", "save(\"PATH.safetensors\", #{ x: ones([1]) })"),
    ("json::save", "json::save(\"PATH.json\", 1)"),
    ("csv::save", "csv::save(\"PATH\", [[1]])"),
    ("csv::save header", "csv::save(\"PATH\", [[1]], #{ header: [\"a\"] })"),
    ("state::save", "state::save(\"PATH\", #{ a: 1 })"),
    ("Table.save", "table([[1]]).save(\"PATH\")"),
    ("Image.save", "image::grid(zeros([1, 3, 4, 4])).save(\"PATH.png\")"),
    ("Plot.save svg", "plot::schedules([schedule::edm(noise::edm(), 3)]).save(\"PATH.svg\")"),
    ("Plot.save png", "plot::schedules([schedule::edm(noise::edm(), 3)]).save(\"PATH.png\")"),
    ("Schedule.save", "schedule::edm(noise::edm(), 3).save(\"PATH.json\")"),
    (
        "generate",
        "generate(denoiser::gaussian(#{ mean: [[[0.0]]], std: 1.0 }), solver::euler(), schedule::edm(noise::edm(), 1), 1, #{ out: \"PATHd\" })",
    ),
    (
        "generate npz",
        "generate(denoiser::gaussian(#{ mean: [[[0.0]]], std: 1.0 }), solver::euler(), schedule::edm(noise::edm(), 1), 1, #{ out: \"PATHn.npz\" })",
    ),
    ("save_schedule", "save_schedule(\"PATH.json\", schedule::edm(noise::edm(), 3))"),
    ("remove_file", "remove_file(\"PATH\")"),
];

/// Code that reads `PATH`, likewise.
const READERS: &[(&str, &str)] = &[
    ("load npy", "load(\"PATH.npy\")"),
    ("load npz", "load(\"PATH.npz\")"),
    ("load safetensors", "load(\"PATH.safetensors\")"),
    ("json::load", "json::load(\"PATH\")"),
    ("state::load", "state::load(\"PATH\")"),
    ("checkpoint::open", "checkpoint::open(\"PATH\")"),
    ("denoiser::load", "denoiser::load(\"PATH\")"),
    ("image::load", "image::load(\"PATH\")"),
    ("load_schedule", "load_schedule(\"PATH\")"),
    ("schedule_info", "schedule_info(\"PATH\")"),
    ("file_exists", "file_exists(\"PATH\")"),
    ("sha256", "sha256(\"PATH\")"),
    ("loss::lpips trunk", "loss::lpips(\"squeeze\", #{ trunk: \"PATH\" })"),
    ("loss::lpips heads", "loss::lpips(\"squeeze\", #{ heads: \"PATH\" })"),
    ("loss::features trunk", "loss::features(\"squeeze\", #{ trunk: \"PATH\" })"),
];

/// What takes a path, or an option that is one, and is no function of the tables: it goes through those, or opens nothing.
const OTHERS: [&str; 3] = ["out", "cache_path", "ld3::train"];

/// A script that tries `call` and prints the error's kind, or `done`.
fn trying(call: &str) -> String {
    format!(
        "try {{ {call}; print(\"done\"); }} catch (e) {{ print(`${{e.kind}}: ${{e.message}} ${{e.hint ?? \"\"}}`); }}\n"
    )
}

/// All writers at all targets are refused and change nothing; the same writers below the working folder work.
#[test]
fn writers_stay_inside() {
    let w = World::new();
    let links =
        [("work/link", "elsewhere"), ("work/final.json", "elsewhere/victim.json"), ("work/dangling", "elsewhere/new")];
    for (link, to) in links {
        std::os::unix::fs::symlink(w.at(to), w.at(link)).unwrap();
    }
    let elsewhere = w.at("elsewhere");
    let targets = [
        "../elsewhere/x",
        "../elsewhere/victim",
        "sub/../../elsewhere/x",
        &format!("{}/x", elsewhere.display()),
        "link/x",
        "link/../home/x",
        "no/../../elsewhere/x",
        "../home/.bashrc",
        ".hidden",
        "sub/.hidden",
        ".git/hooks/x",
        ".config/x",
        "../home/.config/ld3sh/startup.rhai",
        "/dev/tty",
    ];
    let before = w.outside();
    let mut code = String::new();
    for target in targets {
        for (_, call) in WRITERS {
            code += &trying(&call.replace("PATH", target));
        }
        code += &trying(&format!("out(\"../{target}\")").replace("..//", "/"));
    }
    let (status, text) = w.script(&code, &[]);
    assert_eq!(status, Some(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), targets.len() * (WRITERS.len() + 1), "{text}");
    for (i, line) in lines.iter().enumerate() {
        let target = targets[i / (WRITERS.len() + 1)];
        let writer = WRITERS.get(i % (WRITERS.len() + 1)).map_or("out", |(n, _)| n);
        // `out("../.hidden")` is `.hidden` of the working folder; what `..` makes of some targets stays inside
        let refused = line.starts_with("permission: ") && line.contains("--allow-write=");
        assert!(refused, "{writer} at {target}: {line}");
    }
    assert_eq!(w.outside(), before);

    // links where `generate` makes its folders
    w.put("elsewhere/000000.png", "a picture");
    let before = w.outside();
    let generate = |name: &str, more: &str| {
        let (_, call) = WRITERS.iter().find(|(n, _)| *n == name).unwrap();
        trying(&call.replace("PATH", "gen").replace("gend\" }", &format!("gend\"{more} }}")))
    };
    let more = |n: u32| generate("generate", ", subfolders: true").replace("1), 1,", &format!("1), {n},"));
    assert_eq!(w.script(&more(1), &[]).1, "done\n");
    std::fs::remove_dir_all(w.at("work/gend/000000")).unwrap();
    for link in ["work/genn.npz.parts", "work/gend/000000"] {
        std::os::unix::fs::symlink(w.at("elsewhere"), w.at(link)).unwrap();
    }
    for call in
        [generate("generate npz", ""), more(2), generate("generate", ", subfolders: true, overwrite: true, seed: 1")]
    {
        let (_, text) = w.script(&call, &[]);
        assert!(text.starts_with("permission: "), "{call}: {text}");
    }
    assert_eq!(w.outside(), before);

    // a name that is wrong by itself
    let alone = [
        "csv::save(\"new.rhai\", [[1]])",
        "csv::save(\"s.RHAI\", [[1]])",
        "csv::save(\"final.json\", [[1]])",
        "json::save(\"final.json\", 1)",
        "json::save(\"dangling\", 1)",
        "remove_file(\"s.rhai\")",
        "remove_file(\"../elsewhere/victim.json\")",
        "remove_file(\"link/victim.json\")",
        "csv::save(cache_path(\"../elsewhere/x\"), [[1]])",
        "csv::save(cache_path(\".x\"), [[1]])",
        "csv::save(out(\"../../elsewhere/x\"), [[1]])",
    ];
    let (_, text) = w.script(&alone.map(trying).concat(), &[]);
    assert_eq!(text.lines().count(), alone.len(), "{text}");
    for (call, line) in alone.iter().zip(text.lines()) {
        assert!(line.starts_with("permission: "), "{call}: {line}");
    }
    assert_eq!(w.outside(), before);
}

#[test]
fn writers_work_inside() {
    let w = World::new();
    for inside in ["x", "sub/x", "./sub/../y", "OUT", "CACHE"] {
        let path = |call: &str| match inside {
            "OUT" => call.replace("\"PATH", "out(\"\") + \"z"),
            "CACHE" => call.replace("\"PATH", "cache_path(\"\") + \"z"),
            p => call.replace("PATH", p),
        };
        let code: String = WRITERS.iter().map(|(_, call)| trying(&path(call))).collect();
        let (status, text) = w.script(&format!("out(\"a\");\n{code}"), &[]);
        // `generate` refuses a file in its way, which is no matter of permission
        let good = text.lines().filter(|l| *l == "done").count();
        assert!(status == Some(0) && good >= WRITERS.len() - 1 && !text.contains("permission:"), "{inside}\n{text}");
    }
    std::os::unix::fs::symlink(w.at("work/sub"), w.at("work/inner")).unwrap();
    let (_, text) = w.script(&trying("json::save(\"inner/x.json\", 1)"), &[]);
    assert_eq!(text, "done\n", "a link that stays inside");
    let (_, text) = w.script(&trying("csv::save(\"/dev/null\", [[1]])"), &[]);
    assert_eq!(text, "done\n");
}

/// What the user typed is allowed, there and below it, and nowhere else.
#[test]
fn what_is_typed_is_granted() {
    let w = World::new();
    let elsewhere = w.at("elsewhere").display().to_string();
    let to = format!("{elsewhere}/x.json");
    let save =
        trying("json::save(param(\"to\", \"x.json\"), 1)").replace("try {", "let p = param(\"to\", \"x.json\"); try {");
    let save = save.replace("param(\"to\", \"x.json\"), 1", "p, 1");
    let set = format!("to={to}");
    assert_eq!(w.script(&save, &["--set", &set]).1, "done\n");
    let other = trying(&format!("json::save(\"{elsewhere}/y.json\", 1)"));
    assert!(w.script(&format!("let p = param(\"to\", \"\");\n{other}"), &["--set", &set]).1.starts_with("permission"));
    let list = format!("let p = param(\"to\", [\"a\"]);\n{other}");
    assert_eq!(w.script(&list, &["--set", &format!("to=[b, {elsewhere}/y.json]")]).1, "done\n");
    for flag in [["--allow-write", elsewhere.as_str()], ["--out", elsewhere.as_str()]] {
        assert_eq!(w.script(&other, &flag).1, "done\n", "{flag:?}");
    }
    // what belongs to a file that was granted, and nothing else beside it
    let (_, generate) = WRITERS.iter().find(|(n, _)| *n == "generate npz").unwrap();
    let npz = trying(&generate.replace("PATHn", &format!("{elsewhere}/all")));
    let all = format!("{elsewhere}/all.npz");
    assert_eq!(w.script(&npz, &["--shard", "1/2", "--allow-write", &all]).1, "done\n");
    for (file, allowed) in [("all.png", true), ("all.rhai", false), ("other.npz", false), ("all2.npz", false)] {
        let call = trying(&format!("csv::save(\"{elsewhere}/{file}\", [[1]])"));
        assert_eq!(w.script(&call, &["--allow-write", &all]).1 == "done\n", allowed, "{file}");
    }
    let hidden = trying("csv::save(\".hidden\", [[1]])");
    assert!(w.script(&hidden, &["--allow-write", "."]).1.contains("--allow-write="));
    assert_eq!(w.script(&hidden, &["--allow-write", ".hidden"]).1, "done\n");
    // the default output folder is nobody's word: it may be a link that came with the script
    std::os::unix::fs::symlink(w.at("elsewhere"), w.at("work/out")).unwrap();
    let out = trying("json::save(out(\"z.json\"), 1)");
    assert!(w.script(&out, &[]).1.starts_with("permission"));
    assert!(w.script(&out, &["--untrusted"]).1.contains("permission"));
    assert_eq!(w.script(&out, &["--allow-write", "out"]).1, "done\n");
}

/// The prompt and `-e` are the user's; a module and standard input are not, also where the prompt calls them later.
#[test]
fn who_is_asking() {
    let w = World::new();
    let to = w.at("elsewhere/typed.json").display().to_string();
    let o = w.run(&["-e", &format!("json::save(\"{to}\", 1)")]);
    assert!(o.status.success() && w.at("elsewhere/typed.json").exists());
    let code = "fn run_it(p) { json::save(p, 1) } fn back() { |p| json::save(p, 1) } \
        fn call_it(f, p) { f.call(p) } let own = #{ f: |p| json::save(p, 1) }; fn of_this() { json::save(this, 1) }";
    w.put("work/m.rhai", &format!("{code} export own;"));
    w.put("work/at_once.rhai", &format!("json::save(\"{to}\", 2);"));
    for call in [
        format!("import \"m\" as m; m::run_it(\"{to}2\")"),
        format!("import \"m\" as m; m::back().call(\"{to}2\")"),
        format!("import \"m\" as m; let f = m::own.f; f.call(\"{to}2\")"),
        format!("import \"m\" as m; m::call_it(|p| json::save(p, 1), \"{to}2\")"),
        "import \"at_once\" as a;".to_string(),
    ] {
        let o = w.run(&["-e", &call]);
        let text = String::from_utf8_lossy(&o.stderr).into_owned();
        assert!(o.status.code() == Some(1) && text.contains("--allow-write="), "{call}\n{text}");
    }
    // after a module's function has returned, or failed, the prompt is the user's again
    let code = format!("import \"m\" as m; try {{ m::run_it(\"{to}2\") }} catch {{}} json::save(\"{to}3\", 1)");
    assert!(w.run(&["-e", &code]).status.success());
    assert!(!w.at("elsewhere/typed.json2").exists() && w.at("elsewhere/typed.json3").exists());
    // a built-in module does what it is told by whoever calls it
    let code = format!("import \"cache\" as cache; cache::get(\"x\", #{{ a: 1 }}, || json::save(\"{to}4\", 1))");
    assert!(w.run(&["-e", &code]).status.success() && w.at("elsewhere/typed.json4").exists());
    let (_, text) = w.script(
        &trying(&code.replace("json4", "json5").replace("a: 1", "a: 2").replace("import \"cache\" as cache;", ""))
            .replace("try {", "import \"cache\" as cache; try {"),
        &[],
    );
    assert!(text.starts_with("permission"), "{text}");
    // standard input
    let mut c = Command::new(env!("CARGO_BIN_EXE_ld3sh"));
    c.current_dir(w.at("work")).arg("-").stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = c.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("json::save(\"{to}6\", 1)").as_bytes())
        .unwrap();
    assert!(!child.wait_with_output().unwrap().status.success() && !w.at("elsewhere/typed.json6").exists());
}

/// No source file opens files by name but those of `access`.
#[test]
fn one_door() {
    const OPENINGS: [&str; 22] = [
        "fs::canonicalize",
        "fs::copy",
        "fs::create_dir",
        "fs::exists",
        "fs::hard_link",
        "fs::metadata",
        "fs::read",
        "fs::remove_",
        "fs::rename",
        "fs::set_permissions",
        "fs::symlink_metadata",
        "fs::write",
        "fs::soft_link",
        "File::open",
        "File::create",
        "File::options",
        "OpenOptions",
        "DirBuilder",
        "tempfile_in(",
        "tempfile::tempfile",
        "NamedTempFile",
        ".read_dir()",
    ];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut seen, mut found) = (vec![src.clone()], 0, vec![]);
    while let Some(folder) = folders.pop() {
        for e in std::fs::read_dir(folder).unwrap() {
            let path = e.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs")
                && !path.starts_with(src.join("access"))
                && path.file_stem().is_some_and(|n| n != "tests")
            {
                seen += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                // tests make their own files
                let code = text.split("#[cfg(test)]").next().unwrap();
                let lines = code.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//"));
                found.extend(lines.filter_map(|(i, l)| {
                    let hit = OPENINGS.iter().find(|o| l.contains(**o))?;
                    Some(format!("{}:{}: {hit}", path.strip_prefix(&src).unwrap().display(), i + 1))
                }));
            }
        }
    }
    assert!(seen > 200, "{seen} files were read");
    assert!(found.is_empty(), "these go around `access`:\n{}", found.join("\n"));
}

/// The list of what takes a path is the engine's own: a new function fails here until it stands in one of the tables.
#[test]
fn the_tables_are_whole() {
    use ld3sh::shell::session::{Session, Settings};
    let body = || {
        let session = Session::new(Settings { seed: 0, out: "out".into() });
        let known: Vec<&str> =
            WRITERS.iter().chain(READERS).filter_map(|(n, _)| n.split(' ').next()).chain(OTHERS).collect();
        let path = |e: &&ld3sh::shell::catalogue::Entry| {
            e.signatures.iter().any(|s| s.contains("path"))
                || e.options.iter().any(|o| {
                    ["out", "checkpoint"].contains(&o.name.as_str()) || o.doc.contains("file") || o.doc.contains("path")
                })
        };
        let missing: Vec<String> = session
            .catalogue()
            .iter()
            .filter(path)
            .map(|e| e.title())
            .filter(|t| !known.contains(&t.as_str()))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
        let titles: Vec<String> = session.catalogue().iter().map(|e| e.title()).collect();
        // `checkpoint` has no entry yet
        let listed = |k: &&str| *k == "checkpoint::open" || titles.iter().any(|t| t == k);
        let gone: Vec<&str> = known.into_iter().filter(|k| !listed(k)).collect();
        assert!(gone.is_empty(), "{gone:?}");
    };
    std::thread::Builder::new().stack_size(ld3sh::script::engine::STACK).spawn(body).unwrap().join().unwrap();
}

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
    let lines: Vec<&str> = text.lines().collect();
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
    // the prompt itself, threads, the terminal's size and the history go on working
    held.enter("sample(denoiser::gaussian(#{ mean: [0.5], std: 0.3 }), solver::heun(), schedule::edm(noise::edm(), 5), randn([64, 1])).shape");
    held.wait("[64, 1]");
    held.enter("show([1.0, 2.0, 3.0])");
    assert!(std::fs::read_to_string(w.at("work/ld3sh/history.txt")).unwrap().contains("solver::heun"));
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

/// A title that a terminal would take, and what else it would obey.
const ESCAPES: &str = "\\x1b]0;owned\\x07\\x1b[2J\\u009b31m\\r";

/// Whether text holds what a terminal obeys.
fn obeyed(text: &str) -> bool {
    text.contains("\x1b]0;owned") || text.contains("\x1b[2J") || text.contains('\u{9b}') || text.contains("\x1b[31m")
}

#[test]
fn names_from_files_are_shown_not_obeyed() {
    let w = World::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/strangers");
    for f in ["safetensors-escape-name-print.safetensors", "schedule-name-escape.json"] {
        std::fs::copy(fixtures.join(f), w.at("work").join(f)).unwrap();
    }
    for code in [
        "let c = checkpoint::open(\"safetensors-escape-name-print.safetensors\");",
        "let c = load_schedule(\"schedule-name-escape.json\", #{ accept_edits: true });",
    ] {
        for rest in ["print(c)", "print(c.to_string())", "c", "print([c])", "throw c", "c.no_such_method()", "show(c)"]
        {
            let o = w.run(&["-e", &format!("{code} {rest}")]);
            let text = [o.stdout, o.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{code} {rest}: {text:?}");
        }
    }
    let o = w.run(&["-e", "print(checkpoint::open(\"safetensors-escape-name-print.safetensors\"))"]);
    assert!(String::from_utf8_lossy(&o.stdout).contains('␛'));
}

/// Whatever a script or a file brings is shown on a terminal, and our own colours work beside it.
#[test]
fn a_terminal_is_shown_not_told() {
    let w = World::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/strangers");
    let schedule = fixtures.join("schedule-name-escape.json").display().to_string();
    w.put(
        "work/m.rhai",
        &format!(
            "/// {} f\nfn f(x) {{ x }}\nfn g() {{ throw \"{ESCAPES}\" }}",
            ESCAPES.replace("\\x1b", "\x1b").replace("\\x07", "\x07")
        ),
    );
    w.put(
        "work/s.rhai",
        &format!("// {}\nprint(\"{ESCAPES}\"); print(1);", ESCAPES.replace("\\x1b", "\x1b").replace("\\x07", "\x07")),
    );
    std::fs::write(w.at("work").join("\x1b]0;owned\x07.npy"), "").unwrap();
    let mut t = terminal::Terminal::open_with(&w.at("work"), 40, 100, &[], &[]);
    for line in [
        format!("print(\"{ESCAPES}\")"),
        format!("debug(\"{ESCAPES}\")"),
        format!("throw \"{ESCAPES}\""),
        format!("\"{ESCAPES}\""),
        format!("table([[\"{ESCAPES}\"]])"),
        format!("#{{ \"{ESCAPES}\": 1 }}"),
        format!("json::load(\"{ESCAPES}\")"),
        format!(
            "let bar = progress(\"{ESCAPES}\", 3); bar.note(\"{ESCAPES}\"); for i in 0..3 {{ bar.advance(); sleep(0.15); }}"
        ),
        "import \"m\" as m; m::g()".into(),
        "m::f?".into(),
        ":source m::f".into(),
        ":source m".into(),
        ":load s.rhai".into(),
        format!("let c = load_schedule(\"{schedule}\", #{{ accept_edits: true }})"),
        "c".into(),
        "c?".into(),
        "show(c)".into(),
        "show([c])".into(),
        ":time c".into(),
        ":vars".into(),
        "!true".into(),
    ] {
        let before = t.raw().len();
        t.enter(&line);
        let shown = t.raw()[before..].to_string();
        assert!(!obeyed(&shown), "{line}: {shown:?}");
    }
    for typed in ["load(\"\t", "m::\t", "m::f(", "f\t"] {
        t.send(typed);
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(!obeyed(&t.raw()), "{typed:?}");
        t.send("\x03");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(t.raw().contains('␛') && t.raw().contains("\x1b[1m"), "pictures, and the prompt's own colour");
}

/// What a script writes to a file or a pipe is what it wrote.
#[test]
fn pipes_get_what_was_written() {
    let w = World::new();
    let (_, text) = w.script("print(\"\\x1b[1mbold\")", &[]);
    assert_eq!(text, "\x1b[1mbold\n");
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
