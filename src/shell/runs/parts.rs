//! Pieces of a report: tables, plots, pictures, and scripts in colour, as HTML.
use super::shown;
use crate::Result;
use crate::draw::escape;
use crate::draw::plot::{LinesOptions, Series, lines};
use crate::files::atomic;
use crate::files::record::Recorded;
use crate::shell::repl::highlight::{Style, spans};
use base64::Engine;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Pictures larger than this are named and not shown.
const LARGEST: u64 = 8 << 20;
/// Pictures and tables of a run that are shown at most.
const MOST: usize = 24;
/// Rows of a table that are shown at most.
const ROWS: usize = 500;

/// A table whose columns can be sorted. Cells are text, or markup where they begin with `<`; numbers stand to the right.
pub fn table(header: &[String], rows: &[Vec<String>]) -> String {
    let number = |cell: &String| cell.parse::<f64>().is_ok();
    let numeric: Vec<bool> = (0..header.len())
        .map(|i| {
            let cells = || rows.iter().filter_map(|r| r.get(i)).filter(|c| !c.is_empty());
            cells().next().is_some() && cells().all(number)
        })
        .collect();
    let class = |i: usize, cell: &str| match (numeric.get(i), cell.len() > 60 && !cell.starts_with('<')) {
        (Some(true), _) => " class=\"n\"",
        (_, true) => " class=\"long\"",
        _ => "",
    };
    let text = |cell: &str| if cell.starts_with('<') { cell.to_string() } else { escape(cell) };
    let head: String =
        header.iter().enumerate().map(|(i, h)| format!("<th{}>{}</th>", class(i, ""), escape(h))).collect();
    let row = |r: &Vec<String>| {
        let cells: String = r.iter().enumerate().map(|(i, c)| format!("<td{}>{}</td>", class(i, c), text(c))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let body: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"wide\"><table class=\"sorts\"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )
}

/// A script's text with its syntax in colour.
pub fn code(text: &str) -> String {
    let mut out = String::from("<pre>");
    let mut at = 0;
    for (range, style) in spans(text, None) {
        let class = match style {
            Style::Keyword => "k",
            Style::Text => "s",
            Style::Number => "d",
            Style::Comment => "c",
            Style::Function => "f",
            _ => continue,
        };
        out.push_str(&escape_lines(&text[at..range.start]));
        out.push_str(&format!("<span class=\"{class}\">{}</span>", escape_lines(&text[range.clone()])));
        at = range.end;
    }
    out.push_str(&escape_lines(&text[at..]));
    out + "</pre>\n"
}

/// Text with its line ends and tabs.
fn escape_lines(text: &str) -> String {
    let line = |l: &str| l.split('\t').map(escape).collect::<Vec<_>>().join("\t");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Plots of what was measured more than once: each measure over `step`, `iteration` or `nfe`, whichever the run recorded, or over the order.
pub fn plots(runs: &[(String, &Recorded)], measures: &[String]) -> Result<String> {
    const OVER: [&str; 4] = ["step", "iteration", "epoch", "nfe"];
    let over = OVER.iter().find(|k| measures.iter().any(|m| m == *k));
    let mut out = String::new();
    for measure in measures.iter().filter(|m| !OVER.contains(&m.as_str())) {
        let one = |(name, run): &(String, &Recorded)| {
            let points: Vec<(f64, f64)> = run
                .metrics
                .iter()
                .filter_map(|m| m.get(measure)?.as_f64().map(|y| (over.and_then(|k| m.get(*k)?.as_f64()), y)))
                .enumerate()
                .map(|(i, (x, y))| (x.unwrap_or(i as f64), y))
                .collect();
            let (x, y) = points.into_iter().unzip();
            Series { name: name.clone(), x, y, line: true, points: true, band: None }
        };
        let series: Vec<Series> = runs.iter().map(one).filter(|s: &Series| s.y.len() > 1).collect();
        let values = || series.iter().flat_map(|s| &s.y);
        let (low, high) = values().fold((f64::INFINITY, 0.0f64), |m, v| (m.0.min(*v), m.1.max(*v)));
        if series.is_empty() || !high.is_finite() {
            continue;
        }
        let options = LinesOptions {
            x_label: over.map_or("record", |k| *k).into(),
            y_label: measure.clone(),
            log_y: low > 0.0 && high / low > 30.0,
            size: (560, 340),
            ..LinesOptions::default()
        };
        // names too long for the legend make no plot impossible
        if let Ok(plot) = lines(&series, &options) {
            out.push_str(&format!("<figure>{}</figure>\n", plot.to_svg()));
        }
    }
    Ok(match out.is_empty() {
        true => out,
        false => format!("<div class=\"grid\">\n{out}</div>\n"),
    })
}

/// The files in a run's folder that end in `extension`, in the order of their names; not those of other runs below it.
pub fn files(run: &Recorded, extension: &str) -> Vec<PathBuf> {
    let Some(entries) = crate::access::read(&run.folder).ok().and_then(|f| f.list().ok()) else { return vec![] };
    let mut all: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    all.retain(|p| p.is_file() && p.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension)));
    all.sort();
    all.truncate(MOST);
    all
}

fn name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A picture, inside the page. One of the type SVG is a picture there too: nothing in it is run or fetched.
pub fn picture(path: &Path, caption: &str) -> String {
    let meta = crate::access::read(path).ok().and_then(|f| f.meta().ok());
    let small = meta.is_some_and(|m| m.len() <= LARGEST);
    let caption = escape(caption);
    match small.then(|| atomic::read(path)) {
        Some(Ok(bytes)) => {
            let data = base64::engine::general_purpose::STANDARD.encode(bytes);
            let vector = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("svg"));
            let kind = if vector { "svg+xml" } else { "png" };
            format!(
                "<figure><img alt=\"{caption}\" src=\"data:image/{kind};base64,{data}\"><figcaption>{caption}</figcaption></figure>\n"
            )
        }
        _ => format!("<p class=\"faint\">{caption} is too large to be shown here, or cannot be read.</p>\n"),
    }
}

/// A comma-separated file as a table.
pub fn csv(path: &Path) -> String {
    let Ok(text) = atomic::read_text(path) else { return String::new() };
    let mut rows = fields(&text);
    if rows.is_empty() {
        return String::new();
    }
    let header = rows.remove(0);
    let cut = rows.len() > ROWS;
    rows.truncate(ROWS);
    // a cell that looks like markup is text all the same
    rows.iter_mut().flatten().filter(|c| c.starts_with('<')).for_each(|c| c.insert(0, ' '));
    let more = if cut { format!("<p class=\"faint\">The first {ROWS} rows.</p>\n") } else { String::new() };
    format!("<h3>{}</h3>\n{}{more}", escape(&name(path)), table(&header, &rows))
}

/// The cells of comma-separated text; quotes keep commas and line ends, and stand for themselves twice.
fn fields(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (vec![], vec![], String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            c => cell.push(c),
        }
    }
    if !cell.is_empty() || !row.is_empty() {
        row.push(cell);
        rows.push(row);
    }
    rows
}

/// A map as a list of names and values.
pub fn map(values: &Value) -> String {
    let Some(map) = values.as_object() else { return String::new() };
    let rows: Vec<Vec<String>> = map.iter().map(|(k, v)| vec![k.clone(), text(v)]).collect();
    if rows.is_empty() { String::new() } else { table(&["name".into(), "value".into()], &rows) }
}

/// A value that is never taken for markup.
pub fn text(v: &Value) -> String {
    let s = shown(v);
    if s.starts_with('<') { format!(" {s}") } else { s }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_keep_quotes_and_line_ends() {
        assert_eq!(fields("a,b\n\"1,\n2\",\"x\"\"y\"\n"), [["a", "b"], ["1,\n2", "x\"y"]]);
        assert_eq!(fields("a"), [["a"]]);
    }

    #[test]
    fn what_runs_recorded_is_no_markup() {
        assert!(!table(&["<b>".into()], &[vec![text(&"<script>".into())]]).contains("<script>"));
        assert!(
            code("let a = \"<b>\"; // <i>\n")
                .contains("<span class=\"k\">let</span> a = <span class=\"s\">\"&lt;b&gt;\"</span>")
        );
    }
}
