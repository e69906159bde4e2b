//! The reference in Markdown: a page for each module and type, and one for the other functions.
use crate::shell::catalogue::{Catalogue, Entry, Kind, OptionKey, Origin};
use std::collections::BTreeMap;

/// The page of the functions that belong to no module and no type.
const FUNCTIONS: &str = "functions";

/// What every value has, and nobody looks up.
const PLAIN: [&str; 2] = ["to_string", "to_debug"];

/// The page on which an entry stands: modules and types of one name share theirs.
fn page_of(e: &Entry) -> String {
    let home = match e.kind {
        Kind::Module | Kind::Type => Some(e.name.as_str()),
        _ => e.namespace().or(e.receiver.as_deref()),
    };
    home.unwrap_or(FUNCTIONS).to_lowercase()
}

/// An entry that fits a line of a list: one signature, one sentence, at most a line of code.
fn line(e: &Entry) -> Option<String> {
    let ([signature], true, true) = (e.signatures.as_slice(), e.doc.is_empty(), e.options.is_empty()) else {
        return None;
    };
    let example = e.example.as_deref().unwrap_or_default();
    if example.contains('\n') || example.contains('`') {
        return None;
    }
    let receiver =
        e.receiver.as_deref().filter(|_| e.kind != Kind::Function).map_or(String::new(), |r| format!("{r}."));
    let set = if e.writable { " (can be assigned)" } else { "" };
    let example = if example.is_empty() { String::new() } else { format!(" Example: `{example}`") };
    Some(format!("- `{receiver}{signature}`{set}: {}{example}\n", e.summary))
}

fn write_entry(out: &mut String, e: &Entry) {
    let signatures: Vec<String> = e.signatures.iter().map(|s| format!("`{s}`")).collect();
    out.push_str(&format!("\n### {}\n\n", e.title()));
    out.push_str(&signatures.join("  \n"));
    if e.writable {
        out.push_str(" (can be assigned)");
    }
    out.push_str(&format!("\n\n{}\n", e.summary));
    if !e.doc.is_empty() {
        out.push_str(&format!("\n{}\n", e.doc));
    }
    if !e.options.is_empty() {
        out.push('\n');
        for (keys, text) in e.option_groups() {
            let key = |o: &&OptionKey| {
                let default = o.default.as_ref().map_or(String::new(), |d| format!(" ({d})"));
                format!("`{}`{default}", o.name)
            };
            let keys: Vec<String> = keys.iter().map(key).collect();
            out.push_str(&format!("- {}: {text}\n", keys.join(", ")));
        }
    }
    if let Some(example) = &e.example {
        out.push_str(&format!("\n```rhai\n{example}\n```\n"));
    }
}

/// File names and texts of all pages, by name.
pub fn pages(c: &Catalogue) -> Vec<(String, String)> {
    let mut by_page: BTreeMap<String, Vec<&Entry>> = BTreeMap::new();
    for e in c.iter().filter(|e| e.origin != Origin::Rhai && !PLAIN.contains(&e.name.as_str())) {
        by_page.entry(page_of(e)).or_default().push(e);
    }
    let mut files = Vec::new();
    let mut index = String::from(
        "# Reference\n\nWritten by `ld3sh reference` from the doc comments of the functions; `help NAME` in the REPL shows the same. Every \
         example runs in the tests.\n\nThe language itself and its strings, arrays and maps are [Rhai's](https://rhai.rs/book/).\n\n",
    );
    for (page, list) in by_page {
        let mut text = String::new();
        let mut heads: Vec<&&Entry> = list.iter().filter(|e| matches!(e.kind, Kind::Module | Kind::Type)).collect();
        heads.sort_by_key(|e| e.kind);
        let title = heads.first().map_or(page.as_str(), |e| e.name.as_str());
        text.push_str(&format!("# {title}\n"));
        let mut said = String::from("functions outside modules");
        for (i, head) in heads.iter().enumerate() {
            said = if i == 0 { head.summary.clone() } else { said };
            let of = format!("{} `{}`", head.kind.word(), head.name);
            text.push_str(&format!("\n{}: {}\n", of[..1].to_uppercase() + &of[1..], head.summary));
            if !head.doc.is_empty() {
                text.push_str(&format!("\n{}\n", head.doc));
            }
            if let Some(example) = &head.example {
                text.push_str(&format!("\n```rhai\n{example}\n```\n"));
            }
        }
        for (kind, heading) in [
            (Kind::Function, "Functions"),
            (Kind::Constant, "Constants"),
            (Kind::Property, "Properties"),
            (Kind::Method, "Methods"),
        ] {
            let list: Vec<&&Entry> = list.iter().filter(|e| e.kind == kind).collect();
            if list.is_empty() {
                continue;
            }
            text.push_str(&format!("\n## {heading}\n"));
            let short: String = list.iter().filter_map(|e| line(e)).collect();
            if !short.is_empty() {
                text.push_str(&format!("\n{short}"));
            }
            for e in list.into_iter().filter(|e| line(e).is_none()) {
                write_entry(&mut text, e);
            }
        }
        index.push_str(&format!("- [{title}]({page}.md): {said}\n"));
        files.push((format!("{page}.md"), text));
    }
    files.push(("index.md".into(), index));
    files.sort();
    files
}
