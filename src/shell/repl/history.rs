//! The inputs of this and earlier sessions: each once, in the order of their last use.
use crate::access;
use rustyline::history::{History, SearchDirection, SearchResult};
use rustyline::{Result, error::ReadlineError};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

/// Inputs that are kept.
pub const MOST: usize = 10_000;

/// The history. Its file has an input per line, with `\n` for a newline and `\\` for a backslash; sessions that run at
/// the same time append to it.
#[derive(Default)]
pub struct Inputs {
    entries: Vec<String>,
    /// How many entries at the end the file does not have yet.
    unsaved: usize,
}

fn opened<T>(judged: crate::Result<T>) -> std::io::Result<T> {
    judged.map_err(|e| std::io::Error::other(e.to_string()))
}

fn escape(entry: &str) -> String {
    entry.replace('\\', "\\\\").replace('\r', "").replace('\n', "\\n")
}

fn unescape(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        out.push(match escaped {
            Some('n') => '\n',
            Some(other) => other,
            None => c,
        });
    }
    out
}

/// Keeps the last of equal entries, and no more than [`MOST`].
fn tidy(entries: Vec<String>) -> Vec<String> {
    let last: HashMap<String, usize> = entries.iter().cloned().enumerate().map(|(i, e)| (e, i)).collect();
    let mut kept: Vec<String> =
        entries.into_iter().enumerate().filter(|(i, e)| last[e] == *i).map(|(_, e)| e).collect();
    kept.drain(..kept.len().saturating_sub(MOST));
    kept
}

impl Inputs {
    /// The entries, the oldest first.
    pub fn entries(&self) -> &[String] {
        &self.entries
    }
    fn write(&mut self, path: &Path) -> Result<()> {
        let text: String = self.entries.iter().map(|e| escape(e) + "\n").collect();
        let _own = access::policy::own();
        crate::files::atomic::write(path, text.as_bytes())
            .map_err(|e| ReadlineError::Io(std::io::Error::other(e.to_string())))?;
        self.unsaved = 0;
        Ok(())
    }
    fn find(
        &self,
        start: usize,
        direction: SearchDirection,
        position: impl Fn(&str) -> Option<usize>,
    ) -> Option<SearchResult<'_>> {
        let hit = |idx: usize| {
            let entry = self.entries.get(idx)?;
            position(entry).map(|pos| SearchResult { entry: Cow::Borrowed(entry), idx, pos })
        };
        match direction {
            SearchDirection::Forward => (start..self.entries.len()).find_map(hit),
            SearchDirection::Reverse => (0..=start).rev().find_map(hit),
        }
    }
}

impl History for Inputs {
    fn get(&self, index: usize, _: SearchDirection) -> Result<Option<SearchResult<'_>>> {
        Ok(self.entries.get(index).map(|e| SearchResult { entry: Cow::Borrowed(e), idx: index, pos: 0 }))
    }
    fn add(&mut self, line: &str) -> Result<bool> {
        let line = line.trim_end();
        // an input that begins with a blank is not for the record, as in shells
        if line.is_empty() || line.starts_with(' ') {
            return Ok(false);
        }
        if self.entries.last().is_some_and(|e| e == line) {
            return Ok(false);
        }
        let saved = self.entries.len() - self.unsaved;
        if let Some(i) = self.entries.iter().position(|e| e == line) {
            self.entries.remove(i);
            if i >= saved {
                self.unsaved -= 1;
            }
        }
        self.entries.push(line.to_string());
        self.unsaved += 1;
        if self.entries.len() > MOST {
            self.entries.remove(0);
            self.unsaved = self.unsaved.min(self.entries.len());
        }
        Ok(true)
    }
    fn add_owned(&mut self, line: String) -> Result<bool> {
        self.add(&line)
    }
    fn len(&self) -> usize {
        self.entries.len()
    }
    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    fn set_max_len(&mut self, len: usize) -> Result<()> {
        self.entries.drain(..self.entries.len().saturating_sub(len));
        self.unsaved = self.unsaved.min(self.entries.len());
        Ok(())
    }
    fn ignore_dups(&mut self, _: bool) -> Result<()> {
        Ok(())
    }
    fn ignore_space(&mut self, _: bool) {}
    fn save(&mut self, path: &Path) -> Result<()> {
        self.write(path)
    }
    /// Adds what is new to the file, in one write.
    fn append(&mut self, path: &Path) -> Result<()> {
        let new = &self.entries[self.entries.len() - self.unsaved..];
        if new.is_empty() {
            return Ok(());
        }
        let text: String = new.iter().map(|e| escape(e) + "\n").collect();
        let _own = access::policy::own();
        let mut file = opened(access::write(path))?.open_to_append()?;
        file.write_all(text.as_bytes())?;
        self.unsaved = 0;
        Ok(())
    }
    /// Reads the file; one that has grown to twice what is kept is written anew.
    fn load(&mut self, path: &Path) -> Result<()> {
        let _own = access::policy::own();
        let bytes = opened(access::read(path))?.bytes()?;
        let text = String::from_utf8_lossy(&bytes);
        // rustyline's own files begin with `#V2` and escape in the same way
        let lines: Vec<String> = text.lines().filter(|l| !l.is_empty() && *l != "#V2").map(unescape).collect();
        let read = lines.len();
        self.entries = tidy(lines);
        self.unsaved = 0;
        if read > 2 * MOST { self.write(path) } else { Ok(()) }
    }
    fn clear(&mut self) -> Result<()> {
        self.entries.clear();
        self.unsaved = 0;
        Ok(())
    }
    fn search(&self, term: &str, start: usize, direction: SearchDirection) -> Result<Option<SearchResult<'_>>> {
        Ok(if term.is_empty() { None } else { self.find(start, direction, |e| e.find(term)) })
    }
    fn starts_with(&self, term: &str, start: usize, direction: SearchDirection) -> Result<Option<SearchResult<'_>>> {
        Ok(self.find(start, direction, |e| e.starts_with(term).then_some(term.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_once_and_multi_line_entries_survive() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("history.txt");
        let mut h = Inputs::default();
        for line in ["a", "fn f() {\n    \"\\n\"\n}", "b", "a", "  ", " secret"] {
            h.add(line).unwrap();
        }
        let expected = ["fn f() {\n    \"\\n\"\n}", "b", "a"];
        assert_eq!(h.entries(), expected);
        h.append(&file).unwrap();
        h.append(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 3);
        let mut again = Inputs::default();
        again.load(&file).unwrap();
        assert_eq!(again.entries(), expected);
        // another session used `b` meanwhile
        again.add("b").unwrap();
        again.append(&file).unwrap();
        h.add("c").unwrap();
        h.append(&file).unwrap();
        let mut last = Inputs::default();
        last.load(&file).unwrap();
        assert_eq!(last.entries()[1..], ["a", "b", "c"]);
    }

    #[test]
    fn searches() {
        let mut h = Inputs::default();
        for line in ["let a = 1", "print(a)", "let b = 2"] {
            h.add(line).unwrap();
        }
        let at = |r: Result<Option<SearchResult>>| r.unwrap().map(|r| (r.idx, r.pos));
        assert_eq!(at(h.search("a", 2, SearchDirection::Reverse)), Some((1, 6)));
        assert_eq!(at(h.search("let", 0, SearchDirection::Forward)), Some((0, 0)));
        assert_eq!(at(h.search("nothing", 2, SearchDirection::Reverse)), None);
        assert_eq!(at(h.search("a", 99, SearchDirection::Reverse)), Some((1, 6)));
    }

    #[test]
    fn long_files_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("history.txt");
        let text: String = (0..2 * MOST + 10).map(|i| format!("x{}\n", i % (MOST + 5))).collect();
        std::fs::write(&file, text).unwrap();
        let mut h = Inputs::default();
        h.load(&file).unwrap();
        assert_eq!(h.len(), MOST);
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), MOST);
    }
}
