//! Questions about a session: the source of its functions, its variables, the type of an expression.
use super::page::{Page, Style};
use super::pages::script_entry;
use crate::access::clean;
use crate::script::modules::{self, STDLIB};
use crate::shell::catalogue::type_name;
use crate::shell::session::{Failure, Outcome, Session};
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use rhai::{AST, Dynamic, Engine, Position};

/// The sources in which a function of that name may be, and its bare name: `f` in the session's inputs, newest first,
/// `m::f` in module m.
fn places(session: &Session, name: &str) -> (Vec<(String, String)>, String) {
    let run = session.run().borrow();
    match name.rsplit_once("::") {
        Some((alias, bare)) => {
            let imports = session.imports();
            let origin = imports.iter().rev().find(|(a, _)| a == alias).map(|(_, o)| o.clone());
            let imported = origin.and_then(|o| run.sources.get(&o).map(|t| (o.clone(), t.clone())));
            let built_in = STDLIB.iter().find(|(n, _)| *n == alias);
            let built_in = built_in.map(|(n, t)| (format!("stdlib/{n}.rhai"), t.to_string()));
            (imported.or(built_in).into_iter().collect(), bare.to_string())
        }
        None => {
            let modules: Vec<String> = run.modules.iter().map(|m| m.origin.clone()).collect();
            let mut own: Vec<(String, String)> =
                run.sources.iter().filter(|(n, _)| !modules.contains(n)).map(|(n, t)| (n.clone(), t.clone())).collect();
            // "input 10" is newer than "input 9"; a script comes before all inputs
            own.sort_by_key(|(n, _)| n.rsplit(' ').next().and_then(|k| k.parse::<usize>().ok()));
            own.reverse();
            (own, name.to_string())
        }
    }
}

/// The byte at a position in a text.
fn byte_at(text: &str, at: Position) -> Option<usize> {
    let line: usize = text.split_inclusive('\n').take(at.line()?.saturating_sub(1)).map(str::len).sum();
    let column = at.position()?.saturating_sub(1);
    Some(line + text.get(line..)?.char_indices().nth(column).map_or(0, |(i, _)| i))
}

/// The text of the functions of that name, with their doc comments.
fn texts(engine: &Engine, text: &str, name: &str) -> Vec<String> {
    let Ok(ast) = engine.compile(text) else { return vec![] };
    let mut found: Vec<(usize, usize)> = Vec::new();
    for f in ast.iter_fn_def().filter(|f| f.name == name) {
        let (Some(open), Some(close)) = (byte_at(text, f.body.start_position()), byte_at(text, f.body.end_position()))
        else {
            continue;
        };
        let Some(head) = text[..open].rfind(&format!("fn {name}")) else { continue };
        let mut start = text[..head].rfind('\n').map_or(0, |i| i + 1);
        while let Some(above) = text[..start].strip_suffix('\n') {
            let line = above.rfind('\n').map_or(0, |i| i + 1);
            if !above[line..].trim_start().starts_with("///") {
                break;
            }
            start = line;
        }
        found.push((start, (close + 1).min(text.len())));
    }
    found.sort_unstable();
    found.into_iter().filter_map(|(a, b)| text.get(a..b).map(str::to_string)).collect()
}

/// `:source NAME`: the text of a script function (`f`, `ld3::train`) or of a module, with the place where it stands.
///
/// # Errors
/// [`Kind::Name`] if there is none of that name; [`Kind::Value`] if it is native.
pub fn source(session: &mut Session, name: &str) -> Result<String> {
    let name = name.trim().trim_end_matches("()");
    let (found, bare) = places(session, name);
    for (origin, text) in &found {
        let functions = texts(session.engine(), text, &bare);
        if !functions.is_empty() {
            return Ok(format!("// {origin}\n{}", functions.join("\n\n")));
        }
    }
    let imported = session.imports().into_iter().rev().find(|(a, _)| a == name).map(|(_, o)| o);
    let module = imported.and_then(|o| session.run().borrow().sources.get(&o).map(|t| (o.clone(), t.clone())));
    let module = module.or_else(|| modules::find(name, None, None).ok().map(|f| (f.origin, f.text)));
    if let Some((origin, text)) = module {
        return Ok(format!("// {origin}\n{}", text.trim_end()));
    }
    let c = session.catalogue();
    if !c.find(name).is_empty() {
        let e = Error::value(format!("`{name}` is native: it has no source in Rhai"));
        return Err(e.hint(format!("`help {name}` tells what it does")));
    }
    let e = Error::new(Kind::Name, format!("there is no function or module `{name}`"));
    Err(match c.nearest(name) {
        Some(n) => e.hint(format!("did you mean `{n}`?")),
        None => e,
    })
}

/// The page about a function that the session or a module of it defines.
pub(super) fn about_script_function(session: &Session, name: &str, style: Style) -> Option<String> {
    // what is compiled in is in the catalogue
    if !session.catalogue().get(name).is_empty() {
        return None;
    }
    let (found, bare) = places(session, name);
    found.iter().find_map(|(_, text)| {
        let ast: AST = session.engine().compile(&*clean(text)).ok()?;
        let mut page = Page::new(style);
        let mut any = false;
        for f in ast.iter_functions().filter(|f| f.name == bare) {
            page.blank();
            script_entry(&mut page, name, &format!("{name}({})", f.params.join(", ")), &f.comments);
            any = true;
        }
        any.then(|| page.finish())
    })
}

/// Bytes with a unit, to three digits.
fn size(bytes: usize) -> String {
    let (mut x, mut unit) = (bytes as f64, "B");
    for u in ["KiB", "MiB", "GiB", "TiB"] {
        if x < 1024.0 {
            break;
        }
        (x, unit) = (x / 1024.0, u);
    }
    if unit == "B" || x >= 100.0 { format!("{x:.0} {unit}") } else { format!("{x:.1} {unit}") }
}

/// The bytes of a value's numbers and text.
fn bytes(v: &Dynamic) -> usize {
    if let Some(t) = v.read_lock::<Tensor>() {
        return t.elem_count() * t.dtype().size_in_bytes();
    }
    if let Ok(a) = v.as_array_ref() {
        return a.iter().map(bytes).sum::<usize>() + a.len() * size_of::<Dynamic>();
    }
    if let Ok(m) = v.as_map_ref() {
        return m.iter().map(|(k, v)| k.len() + bytes(v) + size_of::<Dynamic>()).sum();
    }
    if let Ok(s) = v.as_immutable_string_ref() {
        return s.len();
    }
    v.as_blob_ref().map_or(size_of::<Dynamic>(), |b| b.len())
}

/// Shape or length of a value, and its dtype.
fn form(v: &Dynamic) -> (String, String) {
    if let Some(t) = v.read_lock::<Tensor>() {
        return (format!("{:?}", t.dims()), t.dtype().as_str().to_string());
    }
    let length = v.as_array_ref().map(|a| a.len()).or_else(|_| v.as_map_ref().map(|m| m.len()));
    let length = length.or_else(|_| v.as_immutable_string_ref().map(|s| s.chars().count()));
    (length.map_or(String::new(), |n| n.to_string()), String::new())
}

/// `:vars`: the session's variables with type, shape (or length), dtype and memory. `part` shows those whose name contains it.
///
/// # Errors
/// None today.
pub fn vars(session: &mut Session, part: &str) -> Result<String> {
    let mut rows: Vec<[String; 5]> = Vec::new();
    let mut total = 0;
    let mut seen = Vec::new();
    // newest first: the last of a name is the one that counts
    for (name, constant, value) in session.scope().iter_raw() {
        if seen.contains(&name) || !name.contains(part.trim()) || name.contains('$') {
            continue;
        }
        seen.push(name);
        let ((shape, dtype), n) = (form(value), bytes(value));
        total += n;
        let ty = type_name(session.engine(), value);
        let ty = if constant { format!("const {ty}") } else { ty };
        // of native objects only the handle is known
        let memory = if n == size_of::<Dynamic>() && shape.is_empty() { String::new() } else { size(n) };
        rows.push([name.to_string(), ty, shape, dtype, memory]);
    }
    if rows.is_empty() {
        return Ok("no variables".into());
    }
    rows.reverse();
    let heads = ["name", "type", "shape", "dtype", "memory"].map(str::to_string);
    rows.insert(0, heads);
    let mut widths: Vec<usize> = (0..5).map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)).collect();
    // a narrow terminal has no room for dtypes, then none for memory
    for column in [3, 4] {
        let shown = widths.iter().filter(|w| **w > 0);
        if shown.map(|w| w + 2).sum::<usize>() > session.front().look().width() + 2 {
            widths[column] = 0;
        }
    }
    let mut lines: Vec<String> = Vec::new();
    for r in &rows {
        let cells = r.iter().zip(&widths).enumerate().filter(|(_, (_, w))| **w > 0);
        let cells = cells.map(|(i, (c, w))| {
            let space = " ".repeat(w.saturating_sub(c.chars().count()));
            if i == 4 { format!("{space}{c}") } else { format!("{c}{space}") }
        });
        lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_string());
    }
    if rows.len() > 2 {
        lines.push(format!("{} variables, {}", rows.len() - 1, size(total)));
    }
    Ok(lines.join("\n"))
}

/// `:type EXPRESSION`: evaluates an expression and tells the type of its value, with shape and dtype of tensors.
///
/// # Errors
/// Those of the expression.
pub fn type_of(session: &mut Session, expression: &str) -> std::result::Result<String, Failure> {
    let (Outcome::Value(v) | Outcome::Exit(v)) = session.evaluate_line(expression)?;
    let (shape, dtype) = form(&v);
    let ty = type_name(session.engine(), &v);
    Ok(match (v.is::<Tensor>(), shape.is_empty()) {
        (true, _) => format!("{ty} {shape} {dtype}"),
        (_, false) => format!("{ty} of length {shape}"),
        _ => ty,
    })
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        for (n, s) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (150 << 20, "150 MiB"), (3 << 30, "3.0 GiB")] {
            assert_eq!(size(n), s);
        }
    }
}
