//! A script's parameters, read from its parsed text so that nothing runs: `param(name, default, doc)`, `params(of, #{ … })`, and `--set`.
use super::schema::Written;
use crate::{Error, Kind, Result};
use rhai::{AST, ASTNode, Array, Dynamic, EvalAltResult, Expr, FnCallExpr, Ident, Position, Stmt};
use std::collections::BTreeMap;

/// What declares several parameters, described as options of a function.
const GROUP: &str = "params";

/// A declared parameter.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name in `--set name=value`.
    pub name: String,
    /// Its value unless set: an integer, float, bool, string, or array of these; it gives the type.
    pub default: Dynamic,
    /// What it is for, one line.
    pub doc: String,
    /// The function whose option of the same name says what it is for, where it is one of a group.
    pub of: Option<String>,
}

/// An error at a place in the script.
pub type Located = Box<EvalAltResult>;

/// The parameters that a script declares, in order.
///
/// # Errors
/// A call that is not at the top level, whose names or defaults are no literals, or that repeats a name.
pub fn declared(ast: &AST) -> std::result::Result<Vec<Param>, Located> {
    let mut found: Vec<Param> = Vec::new();
    let mut error = None;
    for s in ast.statements() {
        s.walk(&mut Vec::new(), &mut |path: &[ASTNode]| {
            if error.is_none()
                && let Some((call, at)) = param_call(path)
            {
                let nested = path.iter().rev().skip(1).any(in_a_block);
                let declared = match nested {
                    true => Err(not_at_top(&call.name, at)),
                    false if call.name == GROUP => group(call, at, &mut found),
                    false => declare(call, at, &found).map(|p| found.push(p)),
                };
                error = declared.err();
            }
            error.is_none()
        });
    }
    let functions = AST::new([], ast.shared_lib().clone());
    functions.walk(&mut |path| {
        if let Some((call, at)) = param_call(path) {
            error.get_or_insert_with(|| not_at_top(&call.name, at));
        }
        error.is_none()
    });
    match error {
        Some(e) => Err(e),
        None => Ok(found),
    }
}

/// Describes the parameters that are of a group by the options of its function, which `written` has.
///
/// # Errors
/// [`Kind::Name`] for a function whose options are not known, and for an option that it has not.
pub fn describe(params: &mut [Param], written: &BTreeMap<String, Vec<Written>>) -> Result<()> {
    for p in params {
        let Some(of) = &p.of else { continue };
        let Some(options) = written.get(of) else {
            return Err(Error::unknown("function in params:", of, written.keys().map(String::as_str)));
        };
        match options.iter().find(|o| o.name == p.name) {
            Some(o) => p.doc.clone_from(&o.doc),
            None => {
                let known = options.iter().map(|o| o.name.as_str());
                return Err(Error::unknown(&format!("option of {of}"), &p.name, known));
            }
        }
    }
    Ok(())
}

/// The text of a script with each declaration of a parameter replaced by what `value` gives for its name.
pub fn inlined(ast: &AST, text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut found: Vec<(std::ops::Range<usize>, String)> = Vec::new();
    ast.walk(&mut |path| {
        if let Some((f, at)) = param_call(path)
            && let Some(value) = plainly(f, &value)
            && let Some(start) = crate::script::error::offset(text, at)
            && let Some(length) = call_length(&text[start..])
        {
            found.push((start..start + length, value));
        }
        true
    });
    found.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let mut text = text.to_string();
    for (range, value) in found {
        text.replace_range(range, &value);
    }
    text
}

/// The value of a call that declares, as text.
fn plainly(f: &FnCallExpr, value: &impl Fn(&str) -> Option<String>) -> Option<String> {
    match f.args.as_slice() {
        [_, Expr::Map(map, _)] if f.name == GROUP => {
            let one = |(key, _): &(Ident, Expr)| Some(format!("{}: {}", key.name, value(&key.name)?));
            Some(format!("#{{ {} }}", map.0.iter().map(one).collect::<Option<Vec<_>>>()?.join(", ")))
        }
        [Expr::StringConstant(name, _), ..] => value(name),
        _ => None,
    }
}

/// The length of the call with which a text begins.
fn call_length(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn param_call<'a>(path: &[ASTNode<'a>]) -> Option<(&'a FnCallExpr, Position)> {
    let (f, at) = match path.last()? {
        ASTNode::Expr(Expr::FnCall(f, at)) | ASTNode::Stmt(Stmt::FnCall(f, at)) => (f, *at),
        _ => return None,
    };
    (["param", GROUP].contains(&f.name.as_str()) && !f.is_qualified()).then_some((&**f, at))
}

fn in_a_block(node: &ASTNode) -> bool {
    match node {
        ASTNode::Stmt(s) => !matches!(s, Stmt::Var(..) | Stmt::Expr(_) | Stmt::FnCall(..) | Stmt::Assignment(_)),
        ASTNode::Expr(e) => matches!(e, Expr::Stmt(_)),
        _ => true,
    }
}

fn at(e: Error, at: Position) -> Located {
    let mut e: Located = e.into();
    e.set_position(at);
    e
}

fn not_at_top(name: &str, pos: Position) -> Located {
    let m = format!("{name} must be called at the script's top level, outside blocks and functions");
    at(Error::new(Kind::Name, m).hint("`let nfe = param(\"nfe\", 10, \"…\");` at the top, and use `nfe` here"), pos)
}

/// The parameters of a group.
fn group(f: &FnCallExpr, pos: Position, found: &mut Vec<Param>) -> std::result::Result<(), Located> {
    let [Expr::StringConstant(of, _), Expr::Map(map, _)] = f.args.as_slice() else {
        let e = Error::new(Kind::Type, "params takes the name of a function and a map, both written out");
        return Err(at(e.hint("like `params(\"experiment::run\", #{ nfe: 10, pairs: 50 })`"), pos));
    };
    for (key, value) in &map.0 {
        let default = default(&key.name, value)?;
        new_name(&key.name, found, pos)?;
        found.push(Param { name: key.name.to_string(), default, doc: String::new(), of: Some(of.to_string()) });
    }
    Ok(())
}

/// The default of a parameter, which stands in the text.
fn default(name: &str, e: &Expr) -> std::result::Result<Dynamic, Located> {
    let Some(default) = constant(e) else {
        let m = Error::new(Kind::Type, format!("param: the default of `{name}` must be a literal"));
        let m = m.hint(
            "a number, true or false, a string, or an array of these: parameters are read before the script runs",
        );
        return Err(at(m, e.start_position()));
    };
    check_default(name, &default).map_err(|m| at(m, e.start_position()))?;
    Ok(default)
}

fn new_name(name: &str, found: &[Param], pos: Position) -> std::result::Result<(), Located> {
    match found.iter().any(|p| p.name == name) {
        true => Err(at(Error::new(Kind::Name, format!("parameter `{name}` is declared twice")), pos)),
        false => Ok(()),
    }
}

fn declare(f: &FnCallExpr, pos: Position, found: &[Param]) -> std::result::Result<Param, Located> {
    if !(2..=3).contains(&f.args.len()) {
        let e = Error::new(Kind::Type, format!("param takes name, default and doc, not {} arguments", f.args.len()));
        return Err(at(e, pos));
    }
    let literal = |i: usize| f.args.get(i).and_then(|e: &Expr| constant(e));
    let Some(name) = literal(0).and_then(|n| n.into_string().ok()) else {
        return Err(at(Error::new(Kind::Type, "param: the name must be a literal string"), f.args[0].start_position()));
    };
    let default = default(&name, &f.args[1])?;
    let doc = match f.args.len() {
        3 => match literal(2).and_then(|n| n.into_string().ok()) {
            Some(d) => d,
            None => {
                let e = Error::new(Kind::Type, format!("param: the doc of `{name}` must be a literal string"));
                return Err(at(e, f.args[2].start_position()));
            }
        },
        _ => String::new(),
    };
    new_name(&name, found, pos)?;
    Ok(Param { name, default, doc, of: None })
}

/// The value of an expression that is written as a constant; `-1` and arrays included.
fn constant(e: &Expr) -> Option<Dynamic> {
    match e {
        Expr::Array(x, _) => x.iter().map(constant).collect::<Option<Array>>().map(Dynamic::from),
        Expr::FnCall(f, _) if f.args.len() == 1 && f.name == "-" => {
            let v = constant(f.args.first()?)?;
            v.as_int()
                .ok()
                .and_then(i64::checked_neg)
                .map(Dynamic::from)
                .or_else(|| v.as_float().ok().map(|x| (-x).into()))
        }
        e => e.get_literal_value(None),
    }
}

/// The type of a parameter's value, as `--help` names it.
fn type_of(v: &Dynamic) -> Option<&'static str> {
    Some(match v {
        v if v.is_int() => "int",
        v if v.is_float() => "float",
        v if v.is_bool() => "bool",
        v if v.is_string() => "string",
        _ => return None,
    })
}

/// Fails unless `default` has a type that a parameter can have; returns the type's name.
pub fn check_default(name: &str, default: &Dynamic) -> Result<String> {
    if let Some(t) = type_of(default) {
        return Ok(t.into());
    }
    let bad = |what: String| {
        Error::new(Kind::Type, format!("param: the default of `{name}` is {what}"))
            .hint("a parameter is an int, a float, a bool, a string, or an array of one of these")
    };
    let Ok(array) = default.as_array_ref() else { return Err(bad(format!("a {}", default.type_name()))) };
    let first = array.first().ok_or_else(|| bad("an empty array, which has no element type".into()))?;
    let t = type_of(first).ok_or_else(|| bad("an array of something else".into()))?;
    // [1, 2.5] is an array of floats
    let all = |ok: &dyn Fn(&Dynamic) -> bool| array.iter().all(ok);
    if all(&|v| type_of(v) == Some(t)) {
        Ok(format!("[{t}]"))
    } else if all(&|v| v.is_int() || v.is_float()) {
        Ok("[float]".into())
    } else {
        Err(bad("an array of mixed types".into()))
    }
}

/// Reads `text` as a value for `param`.
///
/// # Errors
/// [`Kind::Type`] if it is not of the default's type.
pub fn parse(param: &Param, text: &str) -> Result<Dynamic> {
    let t = check_default(&param.name, &param.default)?;
    let value = match t.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        None => scalar(&t, text),
        Some(t) => {
            let inner = text.trim();
            let inner = inner.strip_prefix('[').and_then(|s| s.strip_suffix(']')).unwrap_or(inner);
            let items: Vec<&str> = if inner.trim().is_empty() { vec![] } else { inner.split(',').collect() };
            items.iter().map(|s| scalar(t, s.trim())).collect::<Option<Array>>().map(Dynamic::from)
        }
    };
    value.ok_or_else(|| {
        let example = show(&param.default);
        Error::new(Kind::Type, format!("--set {}: `{text}` is not of type {t}", param.name))
            .hint(format!("for example `--set {}={example}`, its default", param.name))
    })
}

fn scalar(t: &str, text: &str) -> Option<Dynamic> {
    match t {
        "int" => text.replace('_', "").parse::<i64>().ok().map(Dynamic::from),
        "float" => text.parse::<f64>().ok().map(Dynamic::from),
        "bool" => text.parse::<bool>().ok().map(Dynamic::from),
        _ => {
            let unquoted = text.strip_prefix('"').and_then(|s| s.strip_suffix('"')).unwrap_or(text);
            Some(unquoted.to_string().into())
        }
    }
}

/// A parameter's value as a user writes it after `--set name=`.
pub fn show(v: &Dynamic) -> String {
    if let Ok(a) = v.as_array_ref() {
        return format!("[{}]", a.iter().map(show).collect::<Vec<_>>().join(","));
    }
    match v.as_float() {
        Ok(x) => format!("{x:?}"),
        Err(_) => v.to_string(),
    }
}

/// What `--help` after a script prints: the script's leading comment, and its parameters.
pub fn help(path: &str, text: &str, params: &[Param]) -> String {
    let mut out = String::new();
    for line in text.lines().skip_while(|l| l.starts_with("#!") || l.trim().is_empty()) {
        match line.trim_start().strip_prefix("//") {
            Some(c) => {
                let c = c.trim_start_matches(['/', '!']);
                // settings with which tests run the script quickly
                if c.trim_start().starts_with("small:") {
                    continue;
                }
                out += c.strip_prefix(' ').unwrap_or(c);
                out.push('\n');
            }
            None => break,
        }
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out += &format!("Usage: ld3sh {path} [--set name=value]… [options]\n");
    if params.is_empty() {
        return out + "\nThis script declares no parameters.\n";
    }
    out += "\nParameters:\n";
    let left: Vec<String> = params.iter().map(|p| format!("{}={}", p.name, show(&p.default))).collect();
    let width = left.iter().map(|l| unicode_width::UnicodeWidthStr::width(l.as_str())).max().unwrap_or(0);
    for (p, l) in params.iter().zip(&left) {
        let pad = " ".repeat(width - unicode_width::UnicodeWidthStr::width(l.as_str()));
        let t = check_default(&p.name, &p.default).unwrap_or_default();
        out += format!("  {l}{pad}  {t:7}  {}", p.doc).trim_end();
        out.push('\n');
    }
    out
}
