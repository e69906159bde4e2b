//! docs/tour.md to the letter: what it says to type is typed in a pseudo-terminal, and what it shows must appear.
//!
//! In a `console` block `$ ld3sh …` starts a session, `ld3> ` is followed by an input (and by its further lines while a bracket is
//! open), `⇥` at an input's end is Tab (the line is then dropped), a line `^C` is Ctrl-C while the input runs, and the rest is what is
//! shown. `…` stands for anything, in a line of its own for any lines. Numbers may differ in their last digits: machines round
//! differently. Where something differs the page is written anew, with what appeared, under `target/tmp/`.
use crate::terminal::Terminal;
use std::path::Path;
use std::time::Duration;

const PROMPT: &str = "ld3> ";
const ROWS: u16 = 120;

/// An input, or the start of a session, and what is expected after it.
#[derive(Default)]
struct Step {
    input: Vec<String>,
    starts: bool,
    stopped: bool,
    expected: Vec<String>,
    /// The lines of the page that hold `expected`.
    lines: std::ops::Range<usize>,
}

fn is_open(input: &[String]) -> bool {
    let all = input.concat();
    all.matches(['(', '[', '{']).count() > all.matches([')', ']', '}']).count()
}

fn steps(page: &str) -> Vec<Step> {
    let (mut steps, mut inside): (Vec<Step>, bool) = (vec![], false);
    for (i, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside && (line.starts_with(PROMPT) || line.starts_with("$ ld3sh")) {
            let (starts, input) = match line.strip_prefix(PROMPT) {
                Some(input) => (false, input),
                None => (true, &line["$ ld3sh".len()..]),
            };
            steps.push(Step { input: vec![input.into()], starts, lines: i + 1..i + 1, ..Step::default() });
        } else if inside {
            let step = steps.last_mut().expect("a block begins with a prompt");
            if line == "^C" {
                step.stopped = true;
            } else if step.expected.is_empty() && !step.starts && is_open(&step.input) {
                step.input.push(line.trim().into());
            } else {
                step.expected.push(line.into());
            }
            let first = i + 1 - step.expected.len();
            step.lines = first..i + 1;
        }
    }
    steps
}

/// Whether a line is as expected: anything for `…`, and numbers that are nearly the same.
fn fits(expected: &str, line: &str) -> bool {
    fn wild(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('…', rest)) => (0..=text.len()).any(|i| wild(rest, &text[i..])),
            Some((c, rest)) => text.first() == Some(c) && wild(rest, &text[1..]),
        }
    }
    let chars = |s: &str| s.chars().collect::<Vec<_>>();
    let same = |a: &str, b: &str| wild(&chars(a), &chars(b));
    let words = |s: &str| {
        let cut = s.split([' ', ',', '[', ']']).filter(|w| !w.is_empty());
        cut.map(String::from).collect::<Vec<_>>()
    };
    let near = |a: &str, b: &str| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 2e-4 + 2e-3 * a.abs(),
        _ => same(a, b),
    };
    let (a, b) = (words(expected), words(line));
    same(expected, line) || a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| near(a, b))
}

fn all_fit(expected: &[String], lines: &[String]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((e, rest)) if e.trim() == "…" => (0..=lines.len()).any(|i| all_fit(rest, &lines[i..])),
        Some((e, rest)) => lines.first().is_some_and(|l| fits(e, l)) && all_fit(rest, &lines[1..]),
    }
}

/// What the screen shows between the input, which may be wrapped, and the next prompt.
#[track_caller]
fn answer(t: &Terminal, input: &str) -> Vec<String> {
    let all = t.contents();
    let all = all.trim_end();
    let all = all.strip_suffix(all.lines().last().unwrap_or_default()).unwrap_or(all);
    let mut rest = all.trim_start().strip_prefix("ld3>").unwrap_or_else(|| panic!("no prompt:\n{all}")).chars();
    for c in input.chars().filter(|c| !c.is_whitespace()) {
        let shown = rest.by_ref().find(|c| !c.is_whitespace());
        assert_eq!(shown, Some(c), "the screen does not show {input}:\n{all}");
    }
    let rest = rest.as_str().split_once('\n').map_or("", |(_, r)| r);
    rest.lines().map(|l| l.trim_end().to_string()).collect()
}

/// Types an input on a clean screen; what appears before the next prompt.
#[track_caller]
fn enter(t: &mut Terminal, step: &Step) -> Vec<String> {
    t.send("\x0c");
    t.wait_until("a clean screen", |s| s.trim() == PROMPT.trim());
    let input = step.input.join("\n");
    if let Some(begin) = input.strip_suffix('⇥') {
        t.send(&format!("{begin}\t"));
        // the list, and below it the line as far as it is certain
        t.wait_until("a list", |s| {
            s.trim().lines().count() > 1 && s.lines().last().is_some_and(|l| l.starts_with("ld3>"))
        });
        let all = t.contents();
        let lines: Vec<String> = all.trim_end().lines().skip(1).map(|l| l.trim_end().to_string()).collect();
        t.press("\x03");
        return lines[..lines.len() - 1].to_vec();
    }
    match step.stopped {
        false => t.enter(&input.replace('\n', "\r")),
        true => {
            t.send(&format!("{input}\r"));
            std::thread::sleep(Duration::from_millis(1500));
            t.press("\x03");
        }
    }
    // the line that was entered begins with a prompt too
    t.wait_until("an empty prompt", |s| s.trim_end().lines().last().is_some_and(|l| l.trim_end() == PROMPT.trim()));
    answer(t, &input)
}

fn open(home: &Path, columns: u16, args: &str) -> Terminal {
    Terminal::open_with(
        home,
        ROWS,
        columns,
        &args.split_whitespace().collect::<Vec<_>>(),
        &[("COLORTERM", "truecolor")],
    )
}

#[test]
fn the_tour_is_true() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tour.md")).unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut session: Option<Terminal> = None;
    let mut lines: Vec<String> = page.lines().map(String::from).collect();
    let mut wrong = vec![];
    let all = steps(&page);
    assert!(all.len() > 30, "the tour has only {} inputs", all.len());
    // from the end, so that line numbers in front stay right
    let mut seen = vec![];
    for step in &all {
        let shown = if step.starts {
            let t = open(home.path(), 80, &step.input[0]);
            let shown: Vec<String> = t.contents().trim_end().lines().map(|l| l.trim_end().to_string()).collect();
            session = Some(t);
            shown[..shown.len() - 1].to_vec()
        } else {
            let t = session.as_mut().expect("a session");
            if step.input == ["exit"] {
                t.send("exit\r");
                assert_eq!(t.exit_code(), 0);
                vec![]
            } else {
                enter(t, step)
            }
        };
        seen.push(shown);
    }
    for (step, shown) in all.iter().zip(seen).rev() {
        if !all_fit(&step.expected, &shown) {
            wrong.push(format!(
                "{}\nexpected:\n{}\nshown:\n{}\n",
                step.input.join("\n"),
                step.expected.join("\n"),
                shown.join("\n")
            ));
            lines.splice(step.lines.clone(), shown);
        }
    }
    wrong.reverse();
    let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tour.md");
    std::fs::write(&new, lines.join("\n") + "\n").unwrap();
    assert!(
        wrong.is_empty(),
        "docs/tour.md is not what appears; as it is now: {}\n{}",
        new.display(),
        wrong.join("\n")
    );
}

/// What the tour does, in a terminal half as wide: nothing is folded, and what counts is there.
#[test]
fn a_narrow_terminal_shows_it_too() {
    let home = tempfile::tempdir().unwrap();
    let mut t = open(home.path(), 40, "");
    let mut type_in = |line: &str, stopped: bool, wanted: &[&str]| {
        let step = Step { input: vec![line.into()], stopped, ..Step::default() };
        let shown = enter(&mut t, &step);
        // a line that the terminal folds is one longer line here; messages and the code they quote may be
        let free = |l: &str| l.starts_with("error: ") || l.contains(" | ") || l.contains("#{");
        assert!(shown.iter().all(|l| l.chars().count() <= 40 || free(l)), "{line}: {shown:#?}");
        let text = shown.join("\n");
        wanted.iter().for_each(|w| assert!(text.contains(w), "{line}: no {w} in\n{text}"));
    };
    let net = "let net = denoiser::load(\"fashion28\");";
    type_in(net, false, &[]);
    type_in("let s = schedule::edm(net.noise, 5);", false, &[]);
    type_in("s", false, &["   5 0.00200000 0.00200000    6.2146\n"]);
    type_in("show(s)", false, &["edm ┼", "σ/α: 80.0 … 0.002"]);
    type_in("let z = noise([2] + net.shape);", false, &[]);
    type_in("let u = solver::unipc();", false, &[]);
    type_in("let x = sample(net, u, s, z);", false, &[]);
    type_in("show(x)", false, &["▀"]);
    type_in(":vars", false, &["net   Denoiser", "[2, 1, 28, 28]"]);
    type_in("s.sigms", false, &["error: ", "sigms"]);
    type_in("sample(net, u, s, z, #{ cnd: 3 })", false, &["\n  = help: did you mean `cond`?", "trajectory"]);
    type_in("apropos karras", false, &["schedule::edm"]);
    type_in("solver::unipc?", false, &["Options\n  order (3): an integer from 1 to 12"]);
    type_in("let s = schedule::edm(net.noise, 2000);", false, &[]);
    type_in("let y = sample(net, u, s, z);", true, &["error: stopped by Ctrl-C", "of 2000"]);
    type_in("x.shape", false, &["[2, 1, 28, 28]"]);
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
}
