//! Definition files (`.d.rhai`) in the users' names of types.
use crate::script::modules::STDLIB;
use crate::shell::catalogue::words::TYPES;
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

/// A file with every type as users know it, without what only the engine calls.
fn cleaned(text: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("fn __") {
            continue;
        }
        out.push(match line.trim_start().starts_with("///") {
            true => line.trim_end().to_string(),
            // Rhai writes a blank after what was a result without a type of its own
            false => renamed(&unwrapped(line)).replace(" ;", ";"),
        });
    }
    out.dedup_by(|a, b| a.is_empty() && b.is_empty());
    out.join("\n") + "\n"
}

/// File names and texts, by name: the global functions, a file for each module, and one for each module in Rhai.
pub fn definitions(engine: &Engine) -> Vec<(String, String)> {
    let native = engine.definitions().with_headers(true).include_standard_packages(true);
    let mut files: Vec<(String, String)> = native.iter_files().map(|(n, t)| (n, cleaned(&t))).collect();
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
        assert_eq!(cleaned(line), "/// A DynDenoiser.\nfn f(a: Denoiser, b: Tensor) -> Array;\n\n");
    }
}
