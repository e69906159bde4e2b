//! Where scripts write, who is asking, and what is granted.
use crate::world::{WRITERS, World, trying};
use std::process::{Command, Stdio};

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
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with("note: ")).collect();
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
    let record = trying("record(#{ loss: 1 })");
    let before = w.outside();
    assert!(w.script(&record, &[]).1.starts_with("permission"));
    assert_eq!(w.outside(), before);
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
