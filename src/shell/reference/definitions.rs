//! Definition files (`.d.rhai`) in the users' names of types.
use crate::schema::Schema;
use crate::script::modules::STDLIB;
use crate::shell::catalogue::{schemas, words::TYPES};
use rhai::Engine;

/// `Result<T, …>` and its aliases, as T.
fn unwrapped(line: &str) -> String {
    let mut line = line.to_string();
    for wrapper in ["RhaiResult<", "Result<"] {
        while let Some(start) = line.find(wrapper) {
            let inner = start + wrapper.len();
            let (mut depth, mut first, mut end) = (1, None, line.len());
            for (i, c) in line[inner..].char_indices() {
                match c {
                    '<' | '(' => depth += 1,
                    '>' | ')' => depth -= 1,
                    ',' if depth == 1 => first = first.or(Some(inner + i)),
                    _ => {}
                }
                if depth == 0 {
                    end = inner + i;
                    break;
                }
            }
            let value = line[inner..first.unwrap_or(end)].to_string();
            line.replace_range(start..(end + 1).min(line.len()), &value);
        }
    }
    // Rhai's own alias: any value
    line.replace("RhaiResult", "?")
}

/// Native types by the names that users see.
fn renamed(line: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in line.chars().chain(['\n']) {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        let native = TYPES.iter().find(|t| t.name.starts_with(char::is_uppercase) && t.rust.contains(&word.as_str()));
        out.push_str(native.map_or(word.as_str(), |t| t.name));
        word.clear();
        out.push(c);
    }
    out.trim_end_matches('\n').to_string()
}

/// The options of the function that a line declares, as a comment.
fn options_of(line: &str, module: Option<&str>, schemas: &[Schema]) -> Vec<String> {
    let Some((name, params)) = line.trim_start().strip_prefix("fn ").and_then(|l| l.split_once('(')) else {
        return vec![];
    };
    let of = module.map_or(name.to_string(), |m| format!("{m}::{name}"));
    let fits = |s: &&Schema| {
        s.of == of && (s.receiver.is_empty() || params.split(',').next().is_some_and(|p| p.ends_with(s.receiver)))
    };
    match schemas.iter().find(fits) {
        Some(schema) if params.contains("options: ") => {
            let lines = schema.options().map(|o| format!("/// {}", o.line()));
            ["///".to_string(), "/// Options:".to_string()].into_iter().chain(lines).collect()
        }
        _ => vec![],
    }
}

/// A file with every type as users know it, without what only the engine calls.
fn cleaned(text: &str, schemas: &[Schema]) -> String {
    let mut out: Vec<String> = Vec::new();
    let module = text.lines().find_map(|l| l.strip_prefix("module ")).map(|m| m.trim_end_matches(';'));
    let module = module.filter(|m| *m != "static");
    for line in text.lines() {
        if line.starts_with("fn __") {
            continue;
        }
        if line.trim_start().starts_with("///") {
            out.push(line.trim_end().to_string());
            continue;
        }
        // Rhai writes a blank after what was a result without a type of its own
        let line = renamed(&unwrapped(line)).replace(" ;", ";");
        out.extend(options_of(&line, module, schemas));
        out.push(line);
    }
    out.dedup_by(|a, b| a.is_empty() && b.is_empty());
    out.join("\n") + "\n"
}

/// File names and texts, by name: the global functions, a file for each module, and one for each module in Rhai.
pub fn definitions(engine: &Engine) -> Vec<(String, String)> {
    let schemas: Vec<Schema> = schemas().collect();
    let native = engine.definitions().with_headers(true).include_standard_packages(true);
    let mut files: Vec<(String, String)> = native.iter_files().map(|(n, t)| (n, cleaned(&t, &schemas))).collect();
    for (name, text) in STDLIB {
        let Ok(ast) = engine.compile(text) else { continue };
        let mut file = format!("module {name};\n");
        let mut functions: Vec<_> = ast.iter_functions().filter(|f| !f.name.contains('$')).collect();
        functions.sort_by_key(|f| (f.name, f.params.len()));
        for f in functions {
            let params: Vec<String> = f.params.iter().map(|p| format!("{p}: ?")).collect();
            file.push_str(&format!("\n{}\nfn {}({}) -> ?;\n", f.comments.join("\n"), f.name, params.join(", ")));
        }
        files.push((format!("{name}.d.rhai"), file));
    }
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::cleaned;

    #[test]
    fn users_types() {
        let line = "/// A DynDenoiser.\nfn f(a: DynDenoiser, b: RhaiResult<Tensor>) -> Result<Array, Box<EvalAltResult>>;\n\nfn __x(_: ?);";
        assert_eq!(cleaned(line, &[]), "/// A DynDenoiser.\nfn f(a: Denoiser, b: Tensor) -> Array;\n\n");
    }
}
