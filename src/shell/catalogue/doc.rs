//! Doc comments: what their parts are.
//!
//! The convention, for native functions and for modules in Rhai:
//!
//! ```text
//! /// One sentence.
//! ///
//! /// Arguments with shapes, units, ranges. Errors. Source (paper, equation).
//! ///
//! /// Options:
//! /// - `rho` (7.0): above 0
//! /// - `from` (T), `to` (t_min): the ends
//! ///
//! /// Example: `schedule::edm(noise::vp_linear(), 10, #{ rho: 5 })`
//! ```
//!
//! `Example:` is followed by lines of code, each in backticks; what `is` said after one becomes its comment. Longer examples stand
//! in a block fenced as `rhai` below the heading `# Example`.
use super::OptionKey;

/// The parts of a doc comment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doc {
    /// The first paragraph.
    pub summary: String,
    /// What follows it, without options and example.
    pub text: String,
    /// The keys of the options.
    pub options: Vec<OptionKey>,
    /// The code of the example.
    pub example: Option<String>,
}

/// A comment's text without its `///` marks.
fn unmarked(comments: &[&str]) -> Vec<String> {
    let mark = |l: &str| {
        let l = l.trim_start();
        let l = l.strip_prefix("///").or_else(|| l.strip_prefix("//!")).unwrap_or(l);
        l.strip_prefix(' ').unwrap_or(l).trim_end().to_string()
    };
    comments.iter().flat_map(|c| c.lines()).map(mark).collect()
}

/// Takes a comment's lines, marked with `///`, apart.
pub fn parse(comments: &[&str]) -> Doc {
    let mut doc = Doc::default();
    let (mut body, mut short, mut fenced): (Vec<String>, Vec<String>, Vec<String>) = (vec![], vec![], vec![]);
    #[derive(PartialEq, Clone, Copy)]
    enum Part {
        Body,
        Options,
        Short,
        Example,
        Code,
    }
    let mut part = Part::Body;
    for line in unmarked(comments) {
        let trimmed = line.trim();
        part = match part {
            Part::Code if trimmed.starts_with("```") => Part::Body,
            Part::Code => {
                fenced.push(line);
                continue;
            }
            Part::Example if trimmed.starts_with("```") => Part::Code,
            _ if trimmed == "# Example" || trimmed == "# Examples" => Part::Example,
            _ if trimmed == "Options:" || (trimmed.starts_with("Options (") && trimmed.ends_with("):")) => {
                Part::Options
            }
            _ if trimmed.starts_with("Example: ") => {
                short.push(trimmed["Example: ".len()..].to_string());
                part = Part::Short;
                continue;
            }
            Part::Options if trimmed.starts_with("- ") => {
                doc.options.extend(option(&trimmed[2..]));
                continue;
            }
            Part::Options if !trimmed.is_empty() => {
                if let Some(o) = doc.options.last_mut() {
                    o.doc = format!("{} {trimmed}", o.doc);
                }
                continue;
            }
            Part::Short if !trimmed.is_empty() => {
                short.push(trimmed.to_string());
                continue;
            }
            Part::Example => Part::Example,
            Part::Options if doc.options.is_empty() => Part::Options,
            _ => {
                body.push(line);
                Part::Body
            }
        };
    }
    let first: Vec<&str> = body.iter().map(|l| l.trim()).take_while(|l| !l.is_empty()).collect();
    doc.summary = first.join(" ");
    doc.text = body[first.len()..].join("\n").trim().to_string();
    while doc.text.contains("\n\n\n") {
        doc.text = doc.text.replace("\n\n\n", "\n\n");
    }
    let code = fenced.join("\n").trim_matches('\n').to_string();
    doc.example = match code.is_empty() {
        false => Some(code),
        true => Some(spans(&short.join(" "))).filter(|s| !s.is_empty()),
    };
    share(&mut doc.options);
    doc
}

/// The code between backticks, one line each; "is …" after one becomes its comment.
fn spans(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (i, piece) in text.split('`').enumerate() {
        match i % 2 {
            1 => lines.push(piece.trim().to_string()),
            _ => {
                let said = piece.trim().trim_start_matches([',', ';']).trim_end_matches([',', ';', '.']).trim();
                if let (Some(last), Some(said)) =
                    (lines.last_mut(), said.strip_prefix("is ").or(said.strip_prefix("has ")))
                {
                    last.push_str(&format!("  // {said}"));
                }
            }
        }
    }
    // statements of one script
    let last = lines.len().saturating_sub(1);
    let close = |(i, l): (usize, String)| match l.split_once("  // ") {
        _ if i == last || l.ends_with([';', '}']) => l,
        Some((code, said)) => format!("{code};  // {said}"),
        None => format!("{l};"),
    };
    lines.into_iter().enumerate().map(close).collect::<Vec<_>>().join("\n")
}

/// Reads "`a` (1), `b` (2): what they do"; keys before the last have no doc yet.
fn option(item: &str) -> Vec<OptionKey> {
    let mut keys = Vec::new();
    let mut rest = item;
    while let Some((name, after)) = rest.strip_prefix('`').and_then(|r| r.split_once('`')) {
        let mut after = after.trim_start();
        let mut default = None;
        if let Some(inside) = after.strip_prefix('(') {
            let mut depth = 1;
            let end = inside.char_indices().find(|(_, c)| {
                depth += i32::from(*c == '(') - i32::from(*c == ')');
                depth == 0
            });
            if let Some((end, _)) = end {
                default = Some(inside[..end].to_string());
                after = inside[end + 1..].trim_start();
            }
        }
        keys.push(OptionKey { name: name.into(), default, doc: String::new() });
        match after.strip_prefix(", ") {
            Some(next) if next.starts_with('`') => rest = next,
            _ => {
                if let Some(last) = keys.last_mut() {
                    last.doc = after.trim_start_matches(':').trim().to_string();
                }
                break;
            }
        }
    }
    keys
}

/// Keys that stand in one item share its doc.
fn share(keys: &mut [OptionKey]) {
    for i in (0..keys.len().saturating_sub(1)).rev() {
        if keys[i].doc.is_empty() {
            keys[i].doc = keys[i + 1].doc.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn parts_of_a_comment() {
        let d = parse(&[
            "/// One\n/// sentence.\n///\n/// More, with `code`.\n///\n/// Options:\n/// - `a` (f(1)): first,\n///   and on\n\
            /// - `b` (2), `c`: the ends\n///\n/// Errors unless so.\n///\n/// Example: `f(1)` is 2, `g()`",
        ]);
        assert_eq!(d.summary, "One sentence.");
        assert_eq!(d.text, "More, with `code`.\n\nErrors unless so.");
        let keys: Vec<_> = d.options.iter().map(|o| (o.name.as_str(), o.default.as_deref(), o.doc.as_str())).collect();
        let want = [("a", Some("f(1)"), "first, and on"), ("b", Some("2"), "the ends"), ("c", None, "the ends")];
        assert_eq!(keys, want);
        assert_eq!(d.example.as_deref(), Some("f(1);  // 2\ng()"));
    }

    #[test]
    fn fenced_examples() {
        let d = parse(&[
            "/// S.",
            "///",
            "/// # Example",
            "///",
            "/// ```rhai",
            "/// let x = 1;",
            "///",
            "/// x",
            "/// ```",
        ]);
        assert_eq!(d.example.as_deref(), Some("let x = 1;\n\nx"));
        assert_eq!((d.summary.as_str(), d.text.as_str()), ("S.", ""));
    }
}
