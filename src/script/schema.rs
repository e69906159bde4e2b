//! Options of methods written as scripts: each declared once, with type, range, default and what it does. They are checked by it, and
//! help, completion and the reference are written from it.
use super::caught::{Blamed, Cause};
use super::error::{RhaiResult, offset};
use super::modules::STDLIB;
use super::options::number_of;
use crate::schema::Span;
use crate::{Error, Kind};
use rhai::plugin::*;
use rhai::{AST, ASTNode, Dynamic, Engine, Expr, FnPtr, Map, NativeCallContext, Stmt};
use std::collections::BTreeMap;
use std::rc::Rc;

/// An option as a method declares it.
#[derive(Clone)]
pub struct Declared {
    default: Dynamic,
    /// `"int"`, `"string"`, …: one of them.
    types: Vec<String>,
    range: Range,
}

/// The values of the right type that an option takes.
#[derive(Clone, PartialEq)]
enum Range {
    Any,
    Numbers(Span),
    /// These texts.
    Names(Vec<String>),
}

impl Range {
    /// Reads `"1.."`, `">0..1"`, `"0..<1"`, `"every|sparse"`.
    fn parse(text: &str) -> crate::Result<Range> {
        let names: Vec<String> = text.split('|').map(|n| n.trim().to_string()).collect();
        let found = match text.contains("..") {
            true => Span::parse(text).map(Range::Numbers),
            false => Some(Range::Names(names)).filter(|_| text.split('|').all(|n| !n.trim().is_empty())),
        };
        found.ok_or_else(|| {
            let e = Error::value(format!("option: `{text}` is no range"));
            e.hint("like `\"1..\"`, `\">0..\"`, `\"0..<1\"`, or `\"every|sparse\"`")
        })
    }
    fn holds(&self, x: f64) -> bool {
        if let Range::Numbers(span) = self { span.holds(x) } else { true }
    }
    /// The range behind the name of a type of numbers.
    fn spoken(&self) -> String {
        if let Range::Numbers(span) = self { span.spoken() } else { String::new() }
    }
}

/// What a value of these types and this range is, for messages and documents; empty where that says nothing.
fn spoken(types: &[String], range: &Range) -> String {
    let one = |t: &String| match (t.as_str(), range) {
        ("int", r) => format!("an integer{}", r.spoken()),
        ("float", r) => format!("a number{}", r.spoken()),
        ("bool", _) => "true or false".into(),
        ("string", Range::Names(names)) => names.iter().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", "),
        ("string", _) => "a text".into(),
        ("any", _) => String::new(),
        (t, _) if t.starts_with(['a', 'e', 'i', 'o', 'u']) => format!("an {t}"),
        (t, _) => format!("a {t}"),
    };
    types.iter().map(one).collect::<Vec<_>>().join(" or ")
}

/// What a value must be.
enum Fault {
    Type,
    Range,
    /// A text that is none of the names.
    Name,
}

impl Declared {
    /// The value as the method gets it.
    fn check(&self, engine: &Engine, v: &Dynamic) -> Result<Dynamic, Fault> {
        let mut fault = Fault::Type;
        for t in &self.types {
            match t.as_str() {
                "any" => return Ok(v.clone()),
                "int" if v.is_int() => match v.as_int() {
                    Ok(i) if self.range.holds(i as f64) => return Ok(v.clone()),
                    _ => fault = Fault::Range,
                },
                "float" if v.is_int() || v.is_float() => {
                    let x = number_of(v).unwrap_or(f64::NAN);
                    if x.is_finite() && self.range.holds(x) {
                        return Ok(Dynamic::from_float(x));
                    }
                    fault = Fault::Range;
                }
                "bool" if v.is_bool() => return Ok(v.clone()),
                "string" if v.is_string() => match &self.range {
                    Range::Names(names) if !names.iter().any(|n| *n == v.to_string()) => fault = Fault::Name,
                    _ => return Ok(v.clone()),
                },
                "function" if v.is::<FnPtr>() => return Ok(v.clone()),
                "array" if v.is_array() => return Ok(v.clone()),
                "map" if v.is_map() => return Ok(v.clone()),
                other if engine.map_type_name(v.type_name()).eq_ignore_ascii_case(other) => return Ok(v.clone()),
                _ => {}
            }
        }
        Err(fault)
    }
    fn error(&self, of: &str, key: &str, v: &Dynamic, fault: Fault) -> Error {
        let wanted = spoken(&self.types, &self.range);
        match (fault, &self.range) {
            (Fault::Name, Range::Names(names)) => Error::unknown(
                &format!("value for option `{key}` of {of}"),
                &v.to_string(),
                names.iter().map(String::as_str),
            ),
            (Fault::Type, _) => {
                let kind = super::error::type_of(v);
                Error::new(Kind::Type, format!("{of}: option `{key}` must be {wanted}, not {kind}"))
            }
            _ => Error::value(format!("{of}: option `{key}` must be {wanted}, not {v}")),
        }
    }
    /// Whether the default is to be computed from the other options.
    fn computed(&self) -> Option<FnPtr> {
        let f = self.default.clone().try_cast::<FnPtr>();
        f.filter(|_| !self.types.iter().any(|t| t == "function"))
    }
}

/// An error of the caller of a script's function.
fn callers(e: Error) -> Box<EvalAltResult> {
    Blamed(Rc::new(e), Cause::Caller).into()
}

/// Adds this area's types and functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Declared>("Option");
    engine.register_global_module(rhai::exported_module!(api).into());
}

#[export_module]
mod api {
    /// Declares an option for `with_defaults`, from which help, completion and the reference are written too.
    ///
    /// `default`: () if the option may be absent; a function `|o|` of the other options computes it. `kind`: "int", "float" (takes
    /// integers), "bool", "string", "function", "array", "map", "any", or a type such as "Tensor"; several joined by " or ".
    /// `range`: of numbers `"1.."`, `">0.."`, `"0..<1"`; of texts `"every|sparse"`. `doc`: what it does, written as a literal.
    ///
    /// Example: `let o = with_defaults(#{ steps: option(10, "int", "1..", "steps to take") }, #{ steps: 4 }, "my method: walk"); o.steps` is 4
    #[rhai_fn(name = "option", return_raw)]
    pub fn option(default: Dynamic, kind: &str, range: &str, doc: &str) -> RhaiResult<Declared> {
        // for whoever reads the text of the script
        let _ = doc;
        let range = if range.is_empty() { Range::Any } else { Range::parse(range)? };
        Ok(Declared { default, types: kind.split(" or ").map(|t| t.trim().to_string()).collect(), range })
    }
    /// Declares an option of which each value of its type will do.
    ///
    /// Example: `let o = with_defaults(#{ soft: option(true, "bool", "soft forcing") }, #{}, "my method: walk"); o.soft` is true
    #[rhai_fn(name = "option", return_raw)]
    pub fn option_any(default: Dynamic, kind: &str, doc: &str) -> RhaiResult<Declared> {
        option(default, kind, "", doc)
    }
    /// Options over their defaults: `given` may change the entries of `defaults` and have no others.
    ///
    /// `defaults`: values made by `option`, which are checked by type and range, or any values. In `given`, () stands for the default.
    /// `of`: the function whose options they are, for errors. Fails on an unknown option with the nearest name; the report marks the
    /// call of the function that asks.
    ///
    /// Example: `let o = with_defaults(#{ train: 50, seed: 0 }, #{ seed: 1 }, "my method: pairs"); o.train + o.seed` is 51
    #[rhai_fn(return_raw)]
    pub fn with_defaults(context: NativeCallContext, defaults: Map, given: Map, of: &str) -> RhaiResult<Map> {
        super::super::options::note_keys(of, defaults.keys().map(|k| k.as_str()));
        let mut all = Map::new();
        let mut computed = Vec::new();
        for (key, default) in &defaults {
            let declared = default.read_lock::<Declared>();
            match declared.as_ref().map(|d| (d.computed(), d.default.clone())) {
                Some((Some(f), _)) => computed.push((key.clone(), f)),
                Some((None, value)) => drop(all.insert(key.clone(), value)),
                None => drop(all.insert(key.clone(), default.clone())),
            }
        }
        for (key, value) in given {
            let Some(default) = defaults.get(&key) else {
                let known = defaults.keys().map(|k| k.as_str());
                return Err(callers(Error::unknown(&format!("option of {of}"), &key, known)));
            };
            let declared = default.read_lock::<Declared>();
            match declared {
                Some(_) if value.is_unit() => continue,
                Some(d) => {
                    let checked = d.check(context.engine(), &value);
                    all.insert(key.clone(), checked.map_err(|f| callers(d.error(of, &key, &value, f)))?);
                }
                None => drop(all.insert(key.clone(), value)),
            }
            computed.retain(|(k, _)| *k != key);
        }
        for (key, f) in computed {
            let value: Dynamic = f.call_raw(&context, None, [Dynamic::from_map(all.clone())])?;
            all.insert(key, value);
        }
        Ok(all)
    }
    /// Fails with an error of kind "value" whose report marks the call of the function that says so, not the place in it.
    ///
    /// Example: `try { refuse("half: n must be even, not 3"); } catch (e) { print(e.message); }`
    #[rhai_fn(return_raw)]
    pub fn refuse(message: &str) -> RhaiResult<()> {
        Err(callers(Error::value(message)))
    }
    /// Fails so, with how to mend it.
    #[rhai_fn(name = "refuse", return_raw)]
    pub fn refuse_with(message: &str, hint: &str) -> RhaiResult<()> {
        Err(callers(Error::value(message).hint(hint)))
    }
}

/// An option as a script's text declares it.
pub struct Written {
    /// The key.
    pub name: String,
    /// The default as the text has it.
    pub default: String,
    /// What it does, and what it may be.
    pub doc: String,
}

/// A script's text, parsed.
pub struct Source<'a> {
    /// What was parsed.
    pub ast: &'a AST,
    /// From what.
    pub text: &'a str,
}

impl<'a> Source<'a> {
    /// Its constants and variables of the top level.
    fn values(&self) -> impl Iterator<Item = (&'a str, &'a Expr)> {
        self.ast.statements().iter().filter_map(|s| match s {
            Stmt::Var(x, ..) => Some((x.0.name.as_str(), &x.1)),
            _ => None,
        })
    }
}

/// The options that the built-in modules declare, by function (`experiment::run`).
pub fn of_modules(engine: &Engine) -> BTreeMap<String, Vec<Written>> {
    let parsed: Vec<_> =
        STDLIB.iter().filter_map(|(name, text)| Some((*name, engine.compile(text).ok()?, *text))).collect();
    let sources = BTreeMap::from_iter(parsed.iter().map(|(name, ast, text)| (*name, Source { ast, text })));
    sources.values().flat_map(|source| written(source, &sources)).collect()
}

/// The options that the calls of `with_defaults` in a script declare, by the function that they name. `modules`: those that it may import,
/// by name, whose constants it may use.
pub fn written(source: &Source, modules: &BTreeMap<&str, Source>) -> BTreeMap<String, Vec<Written>> {
    let mut found = BTreeMap::new();
    source.ast.walk(&mut |path| {
        if let Some(ASTNode::Expr(Expr::FnCall(f, _)) | ASTNode::Stmt(Stmt::FnCall(f, _))) = path.last()
            && let ("with_defaults", [defaults, _, Expr::StringConstant(of, _)]) = (f.name.as_str(), f.args.as_slice())
        {
            let mut options: Vec<Written> = vec![];
            for w in entries(defaults, source, modules) {
                // as in a sum of maps, the later one counts
                options.retain(|o| o.name != w.name);
                options.push(w);
            }
            if !options.is_empty() {
                found.insert(of.to_string(), options);
            }
        }
        true
    });
    found
}

/// The options of a map in a script's text: written out, a constant of its own or of a module, or a sum of these.
fn entries(e: &Expr, source: &Source, modules: &BTreeMap<&str, Source>) -> Vec<Written> {
    match e {
        Expr::Map(map, _) => map.0.iter().filter_map(|(key, e)| entry(&key.name, e, source.text)).collect(),
        Expr::Variable(v, ..) => {
            let home = if v.2.is_empty() { Some(source) } else { modules.get(v.2.to_string().as_str()) };
            let value = home.and_then(|h| Some((h, h.values().find(|(name, _)| *name == v.1.as_str())?.1)));
            value.map(|(home, e)| entries(e, home, modules)).unwrap_or_default()
        }
        Expr::FnCall(f, _) if f.name == "+" => f.args.iter().flat_map(|a| entries(a, source, modules)).collect(),
        _ => vec![],
    }
}

/// An entry `key: option(…)` of a map.
fn entry(key: &str, e: &Expr, text: &str) -> Option<Written> {
    let Expr::FnCall(f, _) = e else { return None };
    let literal = |e: &Expr| match e {
        Expr::StringConstant(s, _) => Some(s.to_string()),
        _ => None,
    };
    let (default, kind, range, doc) = match (f.name.as_str(), f.args.as_slice()) {
        ("option", [default, kind, doc]) => (default, kind, String::new(), literal(doc)?),
        ("option", [default, kind, range, doc]) => (default, kind, literal(range)?, literal(doc)?),
        _ => return None,
    };
    let code = text.get(offset(text, default.start_position())?..offset(text, kind.start_position())?)?;
    let code = code.trim_end().trim_end_matches(',').trim();
    let default = match code.strip_prefix("|o|") {
        Some(computed) => computed.trim().replace("o.", ""),
        None if code == "()" => "none".into(),
        None => code.to_string(),
    };
    let types: Vec<String> = literal(kind)?.split(" or ").map(|t| t.trim().to_string()).collect();
    let range = if range.is_empty() { Range::Any } else { Range::parse(&range).ok()? };
    let what = spoken(&types, &range);
    let doc = if what.is_empty() || types == ["bool"] { doc } else { format!("{doc}; {what}") };
    Some(Written { name: key.into(), default, doc })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range = |t: &str| Range::parse(t).unwrap();
        assert!(range("1..").holds(1.0) && !range("1..").holds(0.99));
        assert!(range("every|sparse") == Range::Names(vec!["every".into(), "sparse".into()]));
        assert!(Range::parse("a..b").is_err() && Range::parse("a||b").is_err());
    }
}
