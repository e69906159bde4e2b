//! Text for the terminal: wrapped at its width, coloured where it is wanted.
use crate::shell::screen::wrap;
use unicode_width::UnicodeWidthStr;

/// How a page is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Columns.
    pub width: usize,
    /// Whether to colour.
    pub color: bool,
}

impl Style {
    /// For text that a script gets, or a file.
    pub const PLAIN: Style = Style { width: 100, color: false };

    fn paint(self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// A page being written.
pub struct Page {
    style: Style,
    text: String,
}

impl Page {
    /// An empty page.
    pub fn new(style: Style) -> Self {
        Page { style, text: String::new() }
    }
    /// The page.
    pub fn finish(self) -> String {
        self.text.trim_end().to_string()
    }
    /// The first line: what it is about, and what that is, at the right.
    pub fn title(&mut self, name: &str, kind: &str) {
        let space = self.style.width.saturating_sub(name.width() + kind.width()).max(2);
        let line = format!("{}{}{}", self.style.paint("1", name), " ".repeat(space), self.style.paint("2", kind));
        self.line(&line);
    }
    /// A heading, after an empty line.
    pub fn heading(&mut self, text: &str) {
        let text = self.style.paint("1", text);
        self.blank();
        self.line(&text);
    }
    /// An empty line, unless there is one.
    pub fn blank(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }
    /// A line as it is.
    pub fn line(&mut self, text: &str) {
        self.text.push_str(text.trim_end());
        self.text.push('\n');
    }
    /// Lines of code, indented. Too long ones are broken between statements; what is still too long is broken by the
    /// terminal, so that it can be copied.
    pub fn code(&mut self, code: &str) {
        for l in code.lines() {
            let parts = if l.chars().count() + 2 > self.style.width { statements(l) } else { vec![l] };
            for part in parts {
                let l = format!("  {}", self.style.paint("36", part));
                self.line(&l);
            }
        }
    }
    /// A signature: broken at its commas where it is too long.
    pub fn signature(&mut self, text: &str) {
        for (i, l) in wrap(text, self.style.width.saturating_sub(6)).iter().enumerate() {
            let l = format!("{}{}", if i == 0 { "  " } else { "      " }, self.style.paint("36", l));
            self.line(&l);
        }
    }
    /// Markdown: paragraphs are wrapped, items hang, code in backticks is coloured.
    pub fn prose(&mut self, text: &str, indent: usize) {
        for paragraph in text.split("\n\n") {
            let mut items: Vec<(bool, String)> = Vec::new();
            for l in paragraph.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("```")) {
                match (l.strip_prefix("- "), items.last_mut()) {
                    (Some(item), _) => items.push((true, item.to_string())),
                    (None, Some((_, t))) => *t = format!("{t} {l}"),
                    (None, None) => items.push((false, l.trim_start_matches('#').trim_start().to_string())),
                }
            }
            for (item, text) in &items {
                let hang = indent + if *item { 2 } else { 0 };
                for (i, l) in wrap(text, self.style.width.saturating_sub(hang)).iter().enumerate() {
                    let mark = if *item && i == 0 { "- " } else { &"  "[..hang - indent] };
                    let l = format!("{}{mark}{}", " ".repeat(indent), self.inline(l));
                    self.line(&l);
                }
            }
            self.blank();
        }
    }
    /// Code in backticks coloured.
    fn inline(&self, text: &str) -> String {
        if !self.style.color || text.matches('`').count() % 2 == 1 {
            return text.to_string();
        }
        let part = |(i, p): (usize, &str)| if i % 2 == 1 { self.style.paint("36", p) } else { p.to_string() };
        text.split('`').enumerate().map(part).collect()
    }
    /// A name and what it is, which goes on below, indented.
    pub fn item(&mut self, name: &str, text: &str) {
        let lines = wrap(&format!("{}: {text}", name.replace(' ', "\u{a0}")), self.style.width.saturating_sub(6));
        for (i, l) in lines.iter().enumerate() {
            let l = l.replace('\u{a0}', " ");
            let l = match (i, l.split_once(": ")) {
                (0, Some((head, rest))) => format!("  {}: {}", self.style.paint("36", head), self.inline(rest)),
                (0, None) => format!("  {}", self.style.paint("36", &l)),
                _ => format!("      {}", self.inline(&l)),
            };
            self.line(&l);
        }
    }
    /// Names with what they are, in two columns.
    pub fn list(&mut self, rows: &[(String, String)]) {
        let longest = rows.iter().map(|(n, _)| n.width()).max().unwrap_or(0);
        // on a narrow screen the text goes below the name
        let below = longest + 4 + 20 > self.style.width;
        let indent = if below { 6 } else { longest + 4 };
        for (name, text) in rows {
            let lines = wrap(text, self.style.width.saturating_sub(indent));
            let head = format!("  {}", self.style.paint("36", name));
            let first = lines.first().cloned().unwrap_or_default();
            if below {
                self.line(&head);
            } else {
                let l = format!("{head}{}{}", " ".repeat(indent - 2 - name.width()), self.inline(&first));
                self.line(&l);
            }
            for l in lines.iter().skip(usize::from(!below)) {
                let l = format!("{}{}", " ".repeat(indent), self.inline(l));
                self.line(&l);
            }
        }
    }
    /// Names in running text.
    pub fn names(&mut self, names: &[&str]) {
        for l in wrap(&names.join(", "), self.style.width.saturating_sub(2)) {
            let l = format!("  {}", self.style.paint("36", &l));
            self.line(&l);
        }
    }
}

/// The statements of a line of code: cut behind semicolons outside brackets and quotes.
fn statements(line: &str) -> Vec<&str> {
    let (mut parts, mut from, mut depth, mut quote) = (vec![], 0, 0, None);
    for (i, c) in line.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '`') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth -= 1,
            // a comment goes on to the end
            (None, '/') if line[i..].starts_with("//") => break,
            (None, ';') if depth == 0 => {
                parts.push(line[from..=i].trim());
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(line[from..].trim());
    // a comment stays with the statement before it
    parts.retain(|p| !p.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::{Page, Style};

    #[test]
    fn lines_fit() {
        for width in [20, 40, 80] {
            let mut p = Page::new(Style { width, color: false });
            p.prose(
                "Some words of a `paragraph` that is long.\n\n- an item that is longer than the line is wide\n- b",
                2,
            );
            p.list(&[
                ("name".into(), "what it is, in more words than fit into a line".into()),
                ("n".into(), "x".into()),
            ]);
            let text = p.finish();
            assert!(text.lines().all(|l| l.chars().count() <= width), "{text}");
        }
    }
}
