//! Finding entries by words and by likeness.
use super::{Entry, Kind, Origin};

/// How well an entry answers one word of a question; 0 if not at all.
fn score(e: &Entry, word: &str) -> usize {
    let name = e.title().to_lowercase();
    let bare = e.bare().to_lowercase();
    let summary = e.summary.to_lowercase();
    let begins = |text: &str| text.split(|c: char| !c.is_alphanumeric()).any(|w| w.starts_with(word));
    if bare == word || name == word {
        100
    } else if bare.starts_with(word) {
        60
    } else if begins(&name) {
        50
    } else if name.contains(word) {
        40
    } else if begins(&summary) {
        25
    } else if e.options.iter().any(|o| o.name.to_lowercase().contains(word)) {
        15
    } else if e.doc.to_lowercase().contains(word) || e.options.iter().any(|o| o.doc.to_lowercase().contains(word)) {
        8
    } else {
        0
    }
}

/// See [`super::Catalogue::search`]: entries that answer every word, ld3sh's own before Rhai's.
pub(super) fn search<'a>(entries: &'a [Entry], text: &str) -> Vec<&'a Entry> {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    let total = |e: &Entry| -> Option<usize> {
        let scores: Vec<usize> = words.iter().map(|w| score(e, w)).collect();
        let own = match (e.origin, e.kind) {
            (Origin::Rhai, _) => 0,
            (_, Kind::Module | Kind::Type) => 6,
            _ => 5,
        };
        (!scores.is_empty() && !scores.contains(&0)).then(|| scores.iter().sum::<usize>() + own)
    };
    let mut found: Vec<(usize, &Entry)> = entries.iter().filter_map(|e| total(e).map(|s| (s, e))).collect();
    // stable: equals stay in the order of their names
    found.sort_by_key(|(s, _)| std::cmp::Reverse(*s));
    found.into_iter().map(|(_, e)| e).collect()
}

/// See [`super::Catalogue::nearest`].
pub(super) fn nearest(entries: &[Entry], name: &str) -> Option<String> {
    let titles: Vec<String> = entries.iter().map(Entry::title).collect();
    if let Some(t) = crate::error::nearest(name, titles.iter().map(String::as_str)) {
        return Some(t.to_string());
    }
    let bare = name.rsplit([':', '.']).next().unwrap_or(name);
    let near = crate::error::nearest(bare, entries.iter().map(Entry::bare))?;
    entries.iter().find(|e| e.bare() == near).map(Entry::title)
}
