//! What a function of a script is made of: its text, the functions that it calls and the variables that it reads. So a cache knows
//! one function from another, in every run.
use super::{Environment, HOMES, Home};
use rhai::{
    AST, ASTNode, Dynamic, Expr, FnPtr, ImmutableString, Module, NativeCallContext, ScriptFuncDef, Shared, Stmt,
};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};

/// The argument by which a function pointer is asked for its [`Parts`] instead of being called.
#[derive(Clone)]
pub(super) struct WhatAreYou;

/// What determines a function of a script.
#[derive(Clone, Default)]
pub struct Parts {
    /// The texts of itself and of the functions of its script that it may call.
    pub texts: Vec<String>,
    /// The variables of the top level that these read, by name.
    pub reads: BTreeMap<String, Dynamic>,
}

/// A function's text, and the names in it.
#[derive(Clone)]
pub(super) struct Text {
    code: String,
    calls: BTreeSet<String>,
    modules: BTreeSet<String>,
    reads: BTreeSet<String>,
}

/// What determines the function behind a pointer; `None` for pointers that are not bound to their script.
pub fn parts(context: &NativeCallContext, f: &FnPtr) -> Option<Parts> {
    let answer: Dynamic = f.call_raw(context, None, [Dynamic::from(WhatAreYou)]).ok()?;
    answer.try_cast::<Parts>()
}

/// The texts of a script's functions, closures among them, by name.
pub(super) fn of(ast: &AST, text: &str) -> BTreeMap<ImmutableString, Text> {
    let mut all: Vec<_> = ast.iter_fn_def().collect();
    // functions of one name are one text, in the order of their parameters: Rhai's own order is another in every process
    all.sort_by_key(|f| f.params.len());
    let mut texts: BTreeMap<ImmutableString, Text> = BTreeMap::new();
    for (name, read) in all.into_iter().filter_map(|f| Some((f.name.clone(), read(f, text)?))) {
        match texts.get_mut(&name) {
            Some(t) => t.join(read),
            None => drop(texts.insert(name, read)),
        }
    }
    texts
}

impl Text {
    fn join(&mut self, other: Text) {
        self.code += "\n";
        self.code += &other.code;
        self.calls.extend(other.calls);
        self.modules.extend(other.modules);
        self.reads.extend(other.reads);
    }
}

fn read(f: &Shared<ScriptFuncDef>, text: &str) -> Option<Text> {
    let mut only = Module::new();
    only.set_script_fn(f.clone());
    let mut found =
        Text { code: String::new(), calls: BTreeSet::new(), modules: BTreeSet::new(), reads: BTreeSet::new() };
    let (mut first, mut last) = (usize::MAX, 0);
    let mut strings = Vec::new();
    AST::new([], only).walk(&mut |path| {
        let Some(node) = path.last() else { return true };
        let at = crate::script::error::offset(text, node.position()).filter(|_| !node.position().is_none());
        if let Some(at) = at {
            first = first.min(at);
            last = last.max(at);
        }
        match node {
            ASTNode::Expr(Expr::FnCall(f, _) | Expr::MethodCall(f, _)) | ASTNode::Stmt(Stmt::FnCall(f, _)) => {
                if f.namespace.is_empty() {
                    found.calls.insert(f.name.to_string());
                } else {
                    found.modules.insert(f.namespace.root().to_string());
                }
            }
            ASTNode::Expr(Expr::Variable(v, ..)) => {
                // also the name of a function that is handed on
                found.reads.insert(v.1.to_string());
            }
            ASTNode::Expr(Expr::DynamicConstant(v, _)) => {
                // a closure inside
                found.calls.extend(v.read_lock::<FnPtr>().map(|f| f.fn_name().to_string()));
            }
            // texts may go over several lines
            ASTNode::Expr(Expr::StringConstant(s, _)) => strings.push((at, format!("{s:?}"))),
            _ => {}
        }
        true
    });
    // the cases of a `switch` are walked in another order in every process
    strings.sort();
    let strings: String = strings.into_iter().map(|(_, s)| s).collect();
    // up to the end of the line: the last token's own end is not known
    let end = text.get(last..)?.find('\n').map_or(text.len(), |n| last + n);
    let code = text.get(first.min(end)..end)?;
    found.code = format!("({}) {code} {strings}", f.params.join(", "));
    Some(found)
}

impl Home {
    /// Adds what function `name` is made of; false where that is not known.
    fn collect(&self, name: &str, parts: &mut Parts, seen: &mut BTreeSet<String>) -> bool {
        if !seen.insert(name.to_string()) {
            return true;
        }
        let Some(text) = self.texts.get(name) else { return false };
        parts.texts.push(text.code.clone());
        for module in &text.modules {
            // a module of natives belongs to the version of ld3sh
            let origin = self.environ.imports.iter().find(|(alias, _)| alias == module).and_then(|(_, m)| m.id());
            if let Some(origin) = origin {
                parts.texts.push(whole(origin));
            }
        }
        for variable in text.reads.iter().filter(|r| !self.texts.contains_key(r.as_str())) {
            if let Some(value) = self.variables.get(variable.as_str()) {
                parts.reads.insert(variable.clone(), value.clone());
            }
        }
        let own = text.calls.iter().chain(&text.reads).filter(|c| self.texts.contains_key(c.as_str()));
        self.in_order(own.map(String::as_str)).into_iter().all(|f| self.collect(f, parts, seen))
    }
    /// Functions in an order that is the same in every run: by name, but closures, whose names are not, by their text.
    fn in_order<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        let mut all: Vec<&str> = names.collect();
        let code = |name: &str| self.texts.get(name).map(|t| t.code.clone());
        all.sort_by_cached_key(
            |name| if name.contains('$') { (true, code(name)) } else { (false, Some(name.to_string())) },
        );
        all
    }
}

/// The texts of all functions of a module.
fn whole(origin: &str) -> String {
    HOMES.with_borrow(|homes| {
        let homes = homes.iter().filter_map(Weak::upgrade);
        let codes = |h: Rc<std::cell::RefCell<Home>>| {
            let h = h.borrow();
            let own = h.environ.lib.last().is_some_and(|l| l.id() == Some(origin));
            own.then(|| {
                let names = h.in_order(h.texts.keys().map(ImmutableString::as_str));
                names.into_iter().filter_map(|n| Some(h.texts.get(n)?.code.as_str())).collect::<Vec<_>>().join("\n")
            })
        };
        homes.filter_map(codes).collect()
    })
}

impl Environment {
    /// What function `name` is made of.
    pub(super) fn parts(&self, name: &str) -> Option<Parts> {
        let find = |home: &Home| {
            let mut parts = Parts::default();
            home.collect(name, &mut parts, &mut BTreeSet::new()).then_some(parts)
        };
        let here = find(&self.0.borrow());
        // a pointer made for a name has an environment of its own with the same functions
        here.or_else(|| {
            let lib = self.0.borrow().environ.lib.last().cloned()?;
            HOMES.with_borrow(|homes| {
                homes.iter().filter_map(Weak::upgrade).find_map(|home| {
                    let home = home.try_borrow().ok()?;
                    let own = home.environ.lib.last().is_some_and(|l| Rc::ptr_eq(l, &lib));
                    if own { find(&home) } else { None }
                })
            })
        })
    }
}
