//! `ld3sh check`: what is wrong with a script that can be known without running it.
use super::names::Names;
use super::session::{Failure, Session};
use crate::script::modules;
use crate::{Error, Kind};
use rhai::{AST, ASTNode, EvalAltResult, Expr, FnCallExpr, Position, Stmt};
use std::collections::{BTreeMap, BTreeSet};

/// Functions that Rhai itself handles.
const SYNTAX: [&str; 10] =
    ["call", "curry", "Fn", "eval", "print", "debug", "type_of", "is_def_var", "is_def_fn", "is_shared"];

/// How many arguments the functions of a script or module take.
type Functions = BTreeMap<String, BTreeSet<usize>>;

fn functions(ast: &AST) -> Functions {
    let mut found = Functions::new();
    for f in ast.iter_functions() {
        found.entry(f.name.to_string()).or_default().insert(f.params.len());
    }
    found
}

/// Checks a parsed script: parameters, imports, and the calls of functions by name.
pub fn check(session: &Session, ast: &AST) -> Vec<Failure> {
    let source = ast.source().unwrap_or_default();
    let mut failures = Vec::new();
    if let Err(f) = session.params(ast) {
        failures.push(f);
    }
    let mut c =
        Checker { session, source, names: Names::of(session.engine()), own: functions(ast), imports: BTreeMap::new() };
    ast.walk(&mut |path| {
        if let Some(ASTNode::Stmt(Stmt::Import(x, _))) = path.last()
            && let Some(error) = c.import(&x.0, x.1.name.as_str())
        {
            failures.push(Failure { error, source: source.into() });
        }
        true
    });
    ast.walk(&mut |path| {
        let call = match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(f, at)) | ASTNode::Stmt(Stmt::FnCall(f, at))) => Some((f, *at)),
            _ => None,
        };
        if let Some((f, at)) = call
            && let Some(error) = c.call(f, at)
        {
            failures.push(Failure { error, source: source.into() });
        }
        true
    });
    failures.extend(session.unknown_names(ast));
    // in the order of the text; those in modules come with their import
    failures.sort_by_key(|f| (f.error.position().line(), f.error.position().position()));
    failures
}

struct Checker<'a> {
    session: &'a Session,
    source: &'a str,
    names: Names,
    own: Functions,
    /// The functions of imported modules by alias; `None` where they cannot be known.
    imports: BTreeMap<String, Option<Functions>>,
}

fn located(e: Error, at: Position) -> Box<EvalAltResult> {
    let mut e: Box<EvalAltResult> = e.into();
    e.set_position(at);
    e
}

impl Checker<'_> {
    /// Finds and parses a module that is imported by a literal name.
    fn import(&mut self, path: &Expr, alias: &str) -> Option<Box<EvalAltResult>> {
        let Expr::StringConstant(name, at) = path else {
            self.imports.insert(alias.into(), None);
            return None;
        };
        let script = self.session.run().borrow().script.as_ref().map(|s| s.origin.clone());
        let found = match modules::find(name, Some(self.source), script.as_deref()) {
            Ok(f) => f,
            Err(e) => {
                self.imports.insert(alias.into(), None);
                return Some(located(e, *at));
            }
        };
        self.session.run().borrow_mut().sources.insert(found.origin.clone(), found.text.clone());
        match modules::compile(self.session.engine(), &found.origin, &found.text) {
            Ok(ast) => {
                self.imports.insert(alias.into(), Some(functions(&ast)));
                None
            }
            Err(e) => {
                self.imports.insert(alias.into(), None);
                Some(EvalAltResult::ErrorInModule(found.origin, e.into(), *at).into())
            }
        }
    }

    /// An error if nothing of that name, or nothing with that many arguments, can be there.
    fn call(&self, f: &FnCallExpr, at: Position) -> Option<Box<EvalAltResult>> {
        let (name, n) = (f.name.as_str(), f.args.len());
        if f.op_token.is_some() || name.contains('$') || SYNTAX.contains(&name) {
            return None;
        }
        let (full, arities, known): (String, BTreeSet<usize>, Vec<&str>) = if f.is_qualified() {
            let path = f.namespace.to_string();
            let full = format!("{path}::{name}");
            match self.imports.get(&path) {
                Some(None) => return None,
                Some(Some(m)) => (
                    full,
                    m.get(name).cloned().unwrap_or_default(),
                    m.keys().filter(|k| !k.contains('$')).map(String::as_str).collect(),
                ),
                None if self.names.namespaces().contains(path.as_str()) => {
                    let prefix = format!("{path}::");
                    (
                        full.clone(),
                        self.names.arities(&full),
                        self.names.all().filter_map(|n| n.strip_prefix(&prefix)).collect(),
                    )
                }
                // nested modules, and those that the parser has already refused
                None => return None,
            }
        } else {
            let mut arities = self.names.arities(name);
            arities.extend(self.own.get(name).into_iter().flatten());
            let own = self.own.keys().filter(|k| !k.contains('$')).map(String::as_str);
            (name.to_string(), arities, own.chain(self.names.all()).collect())
        };
        if arities.contains(&n) {
            return None;
        }
        let e = if arities.is_empty() {
            let e = Error::new(Kind::Name, format!("unknown function `{full}`"));
            match crate::error::nearest(name, known) {
                Some(near) => e.hint(format!("did you mean `{near}`?")),
                None => e,
            }
        } else {
            let takes: Vec<String> = arities.iter().map(usize::to_string).collect();
            Error::new(Kind::Type, format!("`{full}` takes {} arguments, not {n}", takes.join(" or ")))
        };
        Some(located(e, at))
    }
}
