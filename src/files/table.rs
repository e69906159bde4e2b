//! Text tables for reports.
use unicode_width::UnicodeWidthStr;

/// A table of text, printed with aligned columns (numbers to the right) or as Markdown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// Column titles; may be empty.
    pub header: Vec<String>,
    /// Rows of cells; short rows are filled up with empty cells.
    pub rows: Vec<Vec<String>>,
    /// Print as Markdown.
    pub markdown: bool,
    /// Columns in which the lowest (`false`) or highest (`true`) number is marked.
    pub best: Vec<(usize, bool)>,
}

/// A number for people: integers as they are, others with `digits` significant digits, without trailing zeros lost
/// to alignment. Very large and very small numbers in scientific notation.
pub fn number(v: f64, digits: usize) -> String {
    let digits = digits.clamp(1, 17);
    if !v.is_finite() {
        return if v.is_nan() {
            "nan".into()
        } else if v > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    if v == 0.0 {
        return "0".into();
    }
    // the exponent after rounding to the digits wanted
    let scientific = format!("{v:.*e}", digits - 1);
    let exponent: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    if exponent < -4 || exponent >= digits.max(6) as i32 {
        return scientific;
    }
    format!("{v:.*}", usize::try_from(digits as i32 - 1 - exponent).unwrap_or(0))
}

fn parse(cell: &str) -> Option<f64> {
    // "1.25 ± 0.03" sorts by its mean
    cell.split_whitespace().next()?.trim_end_matches('%').parse().ok()
}

impl Table {
    fn columns(&self) -> usize {
        self.rows.iter().map(Vec::len).chain([self.header.len()]).max().unwrap_or(0)
    }

    /// The row that holds the best number of column `c`, if numbers differ there.
    fn best_rows(&self, c: usize, highest: bool) -> Vec<usize> {
        let values: Vec<(usize, f64)> = (0..self.rows.len())
            .filter_map(|r| Some((r, parse(self.rows[r].get(c)?)?)))
            .filter(|(_, v)| !v.is_nan())
            .collect();
        let pick = |a: f64, b: f64| if highest { a.max(b) } else { a.min(b) };
        let Some(best) = values.iter().map(|v| v.1).reduce(pick) else { return vec![] };
        if values.len() < 2 || values.iter().all(|v| v.1 == best) {
            return vec![];
        }
        values.into_iter().filter(|v| v.1 == best).map(|v| v.0).collect()
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.columns();
        let clean = |s: &str| {
            let s = s.replace(['\n', '\r', '\t'], " ");
            if self.markdown { s.replace('|', "\\|") } else { s }
        };
        let mut rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|r| (0..columns).map(|c| r.get(c).map_or(String::new(), |s| clean(s))).collect())
            .collect();
        for &(c, highest) in self.best.iter().filter(|(c, _)| *c < columns) {
            let best = self.best_rows(c, highest);
            // in plain text the others get a blank, so that the numbers stay aligned
            let any = !best.is_empty();
            for (r, row) in rows.iter_mut().enumerate() {
                match (best.contains(&r), self.markdown) {
                    (true, true) => row[c] = format!("**{}**", row[c]),
                    (true, false) => row[c].push('*'),
                    (false, false) if any => row[c].push(' '),
                    _ => {}
                }
            }
        }
        let header: Vec<String> =
            (0..columns).map(|c| self.header.get(c).map_or(String::new(), |s| clean(s))).collect();
        // a column is numeric if all its filled cells are
        let numeric: Vec<bool> = (0..columns)
            .map(|c| {
                let mut cells = self.rows.iter().filter_map(|r| r.get(c)).filter(|s| !s.trim().is_empty()).peekable();
                cells.peek().is_some() && cells.all(|s| parse(s).is_some())
            })
            .collect();
        let least = if self.markdown { 3 } else { 0 };
        let widths: Vec<usize> = (0..columns)
            .map(|c| rows.iter().map(|r| r[c].width()).chain([header[c].width(), least]).max().unwrap_or(0))
            .collect();
        let print = |f: &mut std::fmt::Formatter<'_>, row: &[String]| {
            let cells: Vec<String> = (0..columns)
                .map(|c| {
                    let space = " ".repeat(widths[c].saturating_sub(row[c].width()));
                    if numeric[c] { format!("{space}{}", row[c]) } else { format!("{}{space}", row[c]) }
                })
                .collect();
            match self.markdown {
                true => writeln!(f, "| {} |", cells.join(" | ")),
                false => writeln!(f, "{}", cells.join("  ").trim_end()),
            }
        };
        if self.markdown {
            print(f, &header)?;
            let rule: Vec<String> = (0..columns)
                .map(|c| if numeric[c] { format!("{}:", "-".repeat(widths[c] - 1)) } else { "-".repeat(widths[c]) })
                .collect();
            writeln!(f, "| {} |", rule.join(" | "))?;
        } else if !self.header.is_empty() {
            print(f, &header)?;
            writeln!(f, "{}", "─".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1)))?;
        }
        rows.iter().try_for_each(|r| print(f, r))
    }
}
