//! How a value prints at the prompt: in lines no wider than the terminal, long things cut in the middle.
use super::objects;
use crate::shell::lex::is_word;
use crate::tensor::aside;
use candle_core::Tensor;
use rhai::{Array, Dynamic, Engine, FnPtr, Map};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// An array longer than this shows its ends.
const MOST: usize = 40;
/// How many values of a long array's beginning and end are shown.
const EDGE: (usize, usize) = (12, 3);
/// A map with more keys than this shows its first.
const MOST_KEYS: usize = 60;
/// Arrays and maps within arrays and maps beyond this depth show their size alone.
const DEPTH: usize = 3;
/// A string longer than this shows its ends.
const MOST_CHARS: usize = 2000;

/// A value as the prompt echoes it, in lines of at most `width` columns (where it can be helped).
pub fn echo(engine: &Engine, v: &Dynamic, width: usize) -> String {
    let width = width.max(8);
    if let Some(a) = v.read_lock::<Array>() {
        return array(engine, &a, width);
    }
    if let Some(m) = v.read_lock::<Map>() {
        return map(engine, &m, width);
    }
    if let Some(x) = v.read_lock::<f64>() {
        return format!("{:?}", *x);
    }
    match v.is_string() {
        true => brief(engine, v, 0, MOST_CHARS),
        false => objects::block(engine, v, width).unwrap_or_else(|| brief(engine, v, 0, usize::MAX)),
    }
}

/// A value in one line of about `budget` columns at most.
pub fn brief(engine: &Engine, v: &Dynamic, depth: usize, budget: usize) -> String {
    if let Some(a) = v.read_lock::<Array>() {
        return match a.len() {
            0 => "[]".into(),
            n if depth >= DEPTH || budget < 8 => format!("[… {n} values]"),
            _ => format!("[{}]", joined(shown(&a), budget - 2, |v, left| brief(engine, v, depth + 1, left))),
        };
    }
    if let Some(m) = v.read_lock::<Map>() {
        return match m.len() {
            0 => "#{}".into(),
            n if depth >= DEPTH || budget < 12 => format!("#{{… {n} keys}}"),
            _ => {
                let entries = m.iter().map(Some);
                let one = |(k, v): (&rhai::Identifier, &Dynamic), left| {
                    format!("{}: {}", key(k), brief(engine, v, depth + 1, left))
                };
                format!("#{{ {} }}", joined(entries, budget - 5, one))
            }
        };
    }
    if v.is_unit() {
        return "()".into();
    }
    if let Some(x) = v.read_lock::<f64>() {
        return short(*x);
    }
    if let Some(t) = v.read_lock::<Tensor>() {
        let (load, t) = (aside::load(&[&t]), t.clone());
        let line = aside::run(load, move || Ok(crate::tensor::display::line(&t)));
        return format!("tensor {}", line.unwrap_or_else(|e| e.message().to_string()));
    }
    if let Some(f) = v.read_lock::<FnPtr>() {
        return function(&f);
    }
    if let Some(s) = v.read_lock::<rhai::ImmutableString>() {
        return quoted(&s, budget);
    }
    let text = engine.eval_fn_call::<String>("to_string", None, (v.clone(),)).unwrap_or_else(|_| v.to_string());
    let lines = text.lines().count();
    let first = text.lines().next().unwrap_or_default().trim_end_matches(':');
    cut(first, if lines > 1 { budget.min(80) } else { budget })
}

/// A function pointer by its name.
fn function(f: &FnPtr) -> String {
    let name = f.fn_name();
    match name == "closure" || name.starts_with("anon$") {
        true => "closure".into(),
        false => format!("function {name}"),
    }
}

/// A string in quotes, cut in the middle where it is longer than `budget`.
fn quoted(s: &str, budget: usize) -> String {
    let n = s.chars().count();
    if n <= budget.max(16) {
        return format!("{s:?}");
    }
    let half = budget.max(16) / 2;
    let (head, tail): (String, String) = (s.chars().take(half).collect(), s.chars().skip(n - half / 2).collect());
    let (head, tail) = (format!("{head:?}"), format!("{tail:?}"));
    format!("{}…{} ({n} characters)", &head[..head.len() - 1], &tail[1..])
}

/// A float in six digits, with a point so that it is not taken for an integer.
pub fn short(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return format!("{x:?}");
    }
    let exact = format!("{x:?}");
    if exact.len() <= 8 {
        return exact;
    }
    if !(1e-4..1e7).contains(&x.abs()) {
        let s = format!("{x:.5e}");
        let (digits, exponent) = s.split_once('e').unwrap_or((&s, "0"));
        return format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'));
    }
    let digits = (5 - x.abs().log10().floor() as i32).clamp(1, 9) as usize;
    let s = format!("{x:.digits$}");
    let s = s.trim_end_matches('0');
    if s.ends_with('.') { format!("{s}0") } else { s.to_string() }
}

/// A key as it would be written in `#{ … }`.
fn key(k: &str) -> String {
    let plain = !k.is_empty() && !k.starts_with(|c: char| c.is_ascii_digit()) && k.chars().all(is_word);
    if plain { k.into() } else { format!("{k:?}") }
}

/// The values of an array that are shown; None stands for those that are not.
fn shown(a: &Array) -> impl Iterator<Item = Option<&Dynamic>> {
    let cut = a.len() > MOST;
    let (head, tail) = if cut { EDGE } else { (a.len(), 0) };
    let gap = cut.then_some(None);
    a.iter().take(head).map(Some).chain(gap).chain(a.iter().skip(a.len() - tail).map(Some))
}

/// Items with commas between them; those that do not fit `budget` become `…`.
fn joined<T>(items: impl Iterator<Item = Option<T>>, budget: usize, one: impl Fn(T, usize) -> String) -> String {
    let mut out = String::new();
    let mut used = 0;
    for (i, item) in items.enumerate() {
        let left = budget.saturating_sub(used + 2);
        let text = match item {
            _ if i > 0 && left < 2 => "…".into(),
            None => "…".into(),
            Some(v) => one(v, left),
        };
        let full = i > 0 && text.width() > left;
        if i > 0 {
            out.push_str(", ");
        }
        out.push_str(if full { "…" } else { &text });
        used += text.width() + 2;
        if full || i > 0 && left < 2 {
            break;
        }
    }
    out
}

/// An array in one line if it fits; else numbers in rows, anything else a line each.
fn array(engine: &Engine, a: &Array, width: usize) -> String {
    let parts: Vec<Option<String>> =
        shown(a).map(|v| v.map(|v| brief(engine, v, 1, width.saturating_sub(3)))).collect();
    let hidden = a.len().saturating_sub(EDGE.0 + EDGE.1);
    let text = |p: &Option<String>| p.clone().unwrap_or_else(|| format!("… {hidden} more …"));
    let parts: Vec<String> = parts.iter().map(text).collect();
    let line = format!("[{}]", parts.join(", "));
    if line.width() <= width {
        return line;
    }
    let flat = |v: &Dynamic| !v.is_array() && !v.is_map();
    if a.iter().all(flat) && parts.iter().all(|p| p.width() <= width / 2) {
        return rows(&parts, width);
    }
    let lines: Vec<String> = parts.iter().map(|p| format!("  {},", cut(p, width - 3))).collect();
    format!("[\n{}\n]", lines.join("\n"))
}

/// Values aligned to the right in as many columns as fit, as in numpy.
fn rows(parts: &[String], width: usize) -> String {
    let cell = parts.iter().filter(|p| !p.starts_with('…')).map(|p| p.width()).max().unwrap_or(1);
    let mut lines = vec![String::new()];
    let mut columns = 1;
    for (i, p) in parts.iter().enumerate() {
        let last = i + 1 == parts.len();
        let padded = format!("{}{p}{}", " ".repeat(cell.saturating_sub(p.width())), if last { "" } else { "," });
        match lines.last_mut() {
            Some(line) if columns == 1 || columns + padded.width() + 2 <= width => {
                *line += if line.is_empty() { "[" } else { " " };
                *line += &padded;
                columns += 1 + padded.width();
            }
            _ => {
                columns = 1 + padded.width();
                lines.push(format!(" {padded}"));
            }
        }
    }
    lines.join("\n") + "]"
}

/// A map in one line if it fits, else a key per line with the values aligned.
fn map(engine: &Engine, m: &Map, width: usize) -> String {
    let line = brief(engine, &Dynamic::from_map(m.clone()), 0, usize::MAX);
    if line.width() <= width && m.len() <= 6 {
        return line;
    }
    let widest = m.keys().take(MOST_KEYS).map(|k| key(k).width()).max().unwrap_or(0).min(width / 2);
    let mut lines: Vec<String> = vec!["#{".into()];
    for (k, v) in m.iter().take(MOST_KEYS) {
        let k = format!("{}:", key(k));
        let pad = " ".repeat((widest + 1).saturating_sub(k.width()));
        let left = width.saturating_sub(widest + 5).max(8);
        lines.push(cut(&format!("  {k}{pad} {},", brief(engine, v, 1, left)), width));
    }
    if m.len() > MOST_KEYS {
        lines.push(format!("  … {} more keys", m.len() - MOST_KEYS));
    }
    lines.push("}".into());
    lines.join("\n")
}

/// The beginning of a line, with `…` where it is longer than `width` columns.
pub fn cut(line: &str, width: usize) -> String {
    if line.width() <= width {
        return line.into();
    }
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used < width
    };
    let mut out: String = line.chars().take_while(fits).collect();
    out.push('…');
    out
}

/// A table whose lines are wider than `width` without its middle columns, with `…` for them.
pub fn cut_middle(table: &str, width: usize) -> String {
    let widest = table.lines().map(UnicodeWidthStr::width).max().unwrap_or(0);
    if widest <= width || width < 8 {
        return table.into();
    }
    let (head, tail) = (width * 2 / 3, width - width * 2 / 3 - 3);
    let line = |l: &str| {
        let n = l.chars().count();
        if l.width() <= width && n < widest {
            return l.to_string();
        }
        let (a, b): (String, String) = (l.chars().take(head).collect(), l.chars().skip(n - tail.min(n)).collect());
        format!("{a} … {b}")
    };
    table.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats() {
        for (x, s) in [
            (1.0, "1.0"),
            (0.1 + 0.2, "0.3"),
            (1.0 / 3.0, "0.333333"),
            (1234567.891, "1234567.9"),
            (1e300, "1e300"),
            (1.23456789e-8, "1.23457e-8"),
            (0.0, "0.0"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
            (-80.0, "-80.0"),
            (99999.96, "99999.96"),
        ] {
            assert_eq!(short(x), s);
        }
    }

    #[test]
    fn cutting() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
        assert_eq!(cut("äöü", 1), "…");
        let table = "h\naaaaaaaaaabbbbbbbbbbcccccccccc\ndddddddddd          ffffffffff";
        assert_eq!(cut_middle(table, 12), "h\naaaaaaaa … c\ndddddddd … f");
        for width in 0..40 {
            cut_middle("é\nüüüüüüüüüüüüüüüüüüüüüü\n", width);
        }
    }
}
