//! The table of parts in docs/architecture.md against the `crate::` paths of src/: each part knows only those above it.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The parts in the order of the table: the names in backticks of each row's first column.
fn parts() -> Vec<String> {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows = page.lines().skip_while(|l| !l.starts_with("| part |")).skip(2).take_while(|l| l.starts_with('|'));
    let first = rows.filter_map(|l| l.split('|').nth(1));
    let names = first.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>());
    names.map(|n| n.trim_end_matches('/').trim_end_matches(".rs").to_string()).collect()
}

/// Every source file of the library below `dir`.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The first segments of the `crate::` paths in a text without comments and unit tests, `crate::{a, b::c}` included.
fn used(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect();
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let word = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = vec![];
    for after in code.split("crate::").skip(1) {
        let Some(list) = after.strip_prefix('{') else {
            names.push(word(after));
            continue;
        };
        // what stands at the list's own depth
        let mut depth = 0;
        let mut item = String::new();
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(word(std::mem::take(&mut item).trim())),
                c if depth == 0 => item.push(c),
                _ => {}
            }
        }
        names.push(word(item.trim()));
    }
    names
}

#[test]
fn each_part_knows_only_those_above_it() {
    let parts = parts();
    let place: BTreeMap<&str, usize> = parts.iter().enumerate().map(|(i, p)| (p.as_str(), i)).collect();
    let mut files = vec![];
    sources(&root().join("src"), &mut files);
    let mut problems = vec![];
    for file in files {
        let inside = file.strip_prefix(root().join("src")).unwrap();
        let own = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_string();
        if ["lib", "main"].contains(&own.as_str()) {
            continue;
        }
        let Some(here) = place.get(own.as_str()) else {
            problems.push(format!("`{own}` is not in the table of docs/architecture.md"));
            continue;
        };
        for name in used(&std::fs::read_to_string(&file).unwrap()) {
            let below = place.get(name.as_str()).is_some_and(|there| there > here);
            if below {
                problems.push(format!("{} uses `{name}`, which stands below `{own}`", inside.display()));
            }
        }
    }
    problems.sort();
    problems.dedup();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The library is compiled a second time for the tests beside its functions, as far as they reach.
#[test]
fn no_test_beside_a_function_makes_an_engine() {
    let mut files = vec![];
    sources(&root().join("src"), &mut files);
    let reaches = |f: &PathBuf| {
        let text = std::fs::read_to_string(f).unwrap();
        text.split_once("#[cfg(test)]").is_some_and(|(_, tests)| tests.contains("engine::new("))
    };
    files.retain(reaches);
    assert!(files.is_empty(), "these tests reach the whole library, and belong into `tests/`: {files:?}");
}

#[test]
fn the_table_names_what_there_is() {
    let parts = parts();
    assert!(parts.len() > 15, "{parts:?}");
    for p in &parts {
        let (folder, file) = (root().join("src").join(p), root().join("src").join(format!("{p}.rs")));
        assert!(folder.is_dir() || file.is_file() || p == "stdlib", "there is no part `{p}`");
    }
}

#[test]
fn paths_are_found_in_all_their_forms() {
    let text = "use crate::a::b;\nuse crate::{c, d::{e, f}, g};\n// use crate::h;\nfn x() { crate::i::y() }\n#[cfg(test)]\nmod tests { use crate::z; }";
    assert_eq!(used(text), ["a", "c", "d", "g", "i"]);
}
