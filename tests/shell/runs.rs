//! Records of runs, tables and pages of them, and sweeps.
use crate::process::{err, faults, kill, ld3sh, out};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

const SCRIPT: &str = "// a script
let nfe = param(\"nfe\", 4, \"evaluations\");
let kind = param(\"kind\", \"a<b\", \"a word\");
for step in 0..3 { record(#{ step: step, loss: 1.0 / (nfe + step), kind: kind }); }
image::grid(zeros([1, 1, 8, 8])).save(out(\"picture.png\"));
let drawn = plot::histogram([1.0, 2.0, 2.5]);
drawn.save(out(\"figure.svg\"));
drawn.save(out(\"figure.png\"));
csv::save(out(\"table.csv\"), [[1, \"<i>\"], [2, \"b\"]], #{ header: [\"n\", \"what\"] });
if nfe == 13 { throw \"unlucky <13>\"; }
print(nfe);
";

fn run(dir: &Path, args: &[&str]) -> Output {
    std::fs::write(dir.join("s.rhai"), SCRIPT).unwrap();
    ld3sh(dir, &dir.join("cache")).arg("--quiet").args(args).output().unwrap()
}

fn lines(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("run.jsonl")).unwrap();
    text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

#[test]
fn a_run_with_an_output_folder_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let o = run(dir.path(), &["s.rhai", "--out", "r", "--set", "nfe=8", "--seed", "3"]);
    assert!(o.status.success(), "{}", err(&o));
    let all = lines(&dir.path().join("r"));
    let events: Vec<&str> = all.iter().map(|l| l["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["start", "metric", "metric", "metric", "end"]);
    let head = &all[0];
    assert_eq!((&head["params"]["nfe"], &head["params"]["kind"], &head["seed"]), (&8.into(), &"a<b".into(), &3.into()));
    assert!(head["script"]["text"] == SCRIPT && head["script"]["hash"].as_str().unwrap().len() == 64, "{head}");
    assert_eq!((&head["device"], &head["version"]), (&"cpu".into(), &env!("CARGO_PKG_VERSION").into()));
    assert_eq!(all[2]["values"]["loss"], 1.0 / 9.0);
    assert_eq!((&all[4]["status"], all[4]["modules"].as_array().unwrap().len()), (&"ok".into(), 0));
    // a failure is told, and a second run stands behind the first
    let o = run(dir.path(), &["s.rhai", "--out", "r", "--set", "nfe=13"]);
    assert_eq!(o.status.code(), Some(1));
    let all = lines(&dir.path().join("r"));
    let last = all.last().unwrap();
    assert!(
        all.len() == 10 && last["status"] == "failed" && last["error"].as_str().unwrap().contains("unlucky"),
        "{last}"
    );
    // without --out nothing is recorded but what the script records
    std::fs::write(dir.path().join("plain.rhai"), "print(1);").unwrap();
    assert!(ld3sh(dir.path(), &dir.path().join("cache")).arg("plain.rhai").output().unwrap().status.success());
    assert!(!dir.path().join("out").exists());
    assert!(run(dir.path(), &["s.rhai"]).status.success());
    assert_eq!(lines(&dir.path().join("out"))[0]["event"], "start");
}

#[test]
fn a_killed_run_keeps_its_records_and_a_line_that_was_cut_off_is_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("long.rhai"), "record(#{ loss: 0.5 }); print(\"there\"); loop {}").unwrap();
    let mut child = ld3sh(dir.path(), &dir.path().join("cache")).args(["long.rhai", "--out", "k"]).spawn().unwrap();
    let mut first = [0; 1];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    kill(&child, "-KILL");
    child.wait().unwrap();
    let path = dir.path().join("k/run.jsonl");
    assert_eq!(lines(&dir.path().join("k")).len(), 2);
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{whole}{{\"event\":\"met")).unwrap();
    let o = run(dir.path(), &["runs", "k"]);
    assert!(out(&o).contains("unfinished") && out(&o).contains("0.5"), "{}", out(&o));
    assert!(err(&o).contains("line 3") && err(&o).contains("cut off"), "{}", err(&o));
    // and the next run begins on a line of its own
    assert!(run(dir.path(), &["s.rhai", "--out", "k"]).status.success());
    assert_eq!(lines(&dir.path().join("k")).len(), 7);
}

#[test]
fn a_sweep_runs_all_combinations_once() {
    let dir = tempfile::tempdir().unwrap();
    let sweep = ["s.rhai", "--out", "w", "--sweep", "nfe=4,13", "--sweep", "kind=x,y"];
    let o = run(dir.path(), &sweep);
    assert_eq!(o.status.code(), Some(1), "one of them fails: {}", err(&o));
    let done = |o: &Output| out(o).matches("done before").count();
    assert_eq!((done(&o), out(&o).lines().filter(|l| *l == "4").count()), (0, 2), "{}", out(&o));
    let again = run(dir.path(), &sweep);
    assert_eq!((again.status.code(), done(&again)), (Some(1), 2), "failed ones run again: {}", out(&again));
    // another seed, and another script, are other runs
    assert_eq!(done(&run(dir.path(), &[&sweep[..], &["--seed", "1"]].concat())), 0);
    let table = out(&run(dir.path(), &["runs", "w"]));
    let rows: Vec<&str> = table.lines().skip(1).collect();
    assert!(rows.iter().filter(|r| r.contains("failed")).count() == 2 && table.contains("nfe=4,kind=y"), "{table}");
    for (args, words) in [
        (&["s.rhai", "--sweep", "nfe=4", "--sweep", "nfe=5"][..], &["given twice"][..]),
        (&["s.rhai", "--sweep", "nfe"], &["there is no `=`"]),
        (&["-", "--sweep", "nfe=4"], &["must be a file"]),
    ] {
        let o = run(dir.path(), args);
        assert!(faults(&o, 2, words).is_empty(), "{args:?}: {:?}\n{}", faults(&o, 2, words), err(&o));
    }
    let o = run(dir.path(), &["s.rhai", "--out", "v", "--sweep", "nff=4"]);
    assert!(faults(&o, 2, &["nfe"]).is_empty(), "{}", err(&o));
}

#[test]
fn a_report_is_one_page_with_everything_in_it() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), &["s.rhai", "--out", "w", "--sweep", "nfe=4,6,8"]).status.success());
    let o = run(dir.path(), &["report", "w", "--write", "page.html"]);
    assert!(o.status.success() && out(&o).contains("page.html: 3 runs"), "{}{}", out(&o), err(&o));
    let page = std::fs::read_to_string(dir.path().join("page.html")).unwrap();
    for part in [
        "nfe=4",
        "nfe=6",
        "nfe=8",
        "differ in <code>nfe</code>",
        "<svg",
        "data:image/png;base64,",
        "data:image/svg+xml;base64,",
        "figure.svg",
        "<span class=\"k\">let</span>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("figure.png</figcaption>"), "a figure is shown once");
    // what runs recorded is text, and nothing comes from elsewhere
    assert!(page.contains("a&lt;b") && page.contains("&lt;i&gt;") && !page.contains("<i>"));
    let svg = "http://www.w3.org/2000/svg";
    assert!(!page.replace(svg, "").contains("http"));
    let (opened, closed) = (page.matches("<table").count(), page.matches("</table>").count());
    assert!(opened == closed && opened >= 7, "{opened} {closed}");
    for (args, words) in [
        (&["report", "nowhere"][..], &["there is no folder `nowhere`"][..]),
        (&["report", "cache-of-nothing"], &["there is no record of a run", "--out DIR"]),
        (&["report", "w", "--write", "page.txt"], &[".html"]),
    ] {
        std::fs::create_dir_all(dir.path().join("cache-of-nothing")).unwrap();
        let o = run(dir.path(), args);
        assert!(faults(&o, 1, words).is_empty(), "{args:?}: {:?}\n{}", faults(&o, 1, words), err(&o));
    }
    std::fs::write(dir.path().join("w/nfe=4/run.jsonl"), "no record\n").unwrap();
    assert!(faults(&run(dir.path(), &["runs", "w"]), 1, &["is no record of runs"]).is_empty());
    let newer = "{\"event\":\"start\",\"format\":\"ld3sh.run\",\"version\":9}\n";
    std::fs::write(dir.path().join("w/nfe=4/run.jsonl"), newer).unwrap();
    assert!(faults(&run(dir.path(), &["runs", "w"]), 1, &["version 9", "newer ld3sh"]).is_empty());
}
