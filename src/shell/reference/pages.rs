//! The reference in Markdown: a page for each module and type, and one for the other functions.
use crate::shell::catalogue::{Catalogue, Entry, Kind, Origin};
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
        for o in &e.options {
            let default = o.default.as_ref().map_or(String::new(), |d| format!(" ({d})"));
            out.push_str(&format!("- `{}`{default}: {}\n", o.name, o.doc));
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
        }
        for (kind, heading) in [
            (Kind::Function, "Functions"),
            (Kind::Constant, "Constants"),
            (Kind::Property, "Properties"),
            (Kind::Method, "Methods"),
        ] {
            let mut any = false;
            for e in list.iter().filter(|e| e.kind == kind) {
                if !any {
                    text.push_str(&format!("\n## {heading}\n"));
                    any = true;
                }
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
