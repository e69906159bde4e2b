//! The rewriting of a parsed script: closures, function bodies, `try` blocks and the recording of variables.
use super::body::{self, Body, NEXT_BODY};
use super::sugar::{self, custom};
use super::{BODY, CAPTURE, Environment, PLACED, RECORD, record};
use crate::script::maps;
use rhai::{
    AST, ASTNode, Dynamic, Engine, Expr, FnCallExpr, FnPtr, Module, Position, ScriptFuncDef, Shared, Stmt, StmtBlock,
};
use std::collections::{BTreeMap, BTreeSet};

/// Rewrites a script parsed from `text` so that its closures keep `env`, which becomes this script's own.
pub fn bind(engine: &Engine, ast: &AST, text: &str, env: &Environment) -> AST {
    env.0.borrow_mut().texts.extend(super::text::of(ast, text));
    let assigned = assigned(ast);
    let source = ast.source().unwrap_or_default().into();
    let mut b = Binder {
        engine,
        env,
        params: BTreeMap::new(),
        named: BTreeSet::new(),
        assigned,
        source,
        mistaken: BTreeMap::new(),
        around: BTreeSet::new(),
    };
    for f in ast.iter_fn_def() {
        match f.name.contains('$') {
            // a closure that uses `this` stays as it is: Rhai alone knows where `this` goes
            true if !uses_this(f) => {
                b.params.insert(f.name.to_string(), f.params.len());
            }
            true => {}
            false => {
                b.named.insert(f.name.to_string());
            }
        }
    }
    for f in ast.iter_fn_def() {
        env.0.borrow_mut().free.extend(free(f));
    }
    for f in ast.iter_fn_def().filter(|f| f.name.contains('$')) {
        let reads = free(f).into_iter().filter(|name| b.named.contains(name.as_str())).collect::<Vec<_>>();
        b.mistaken.insert(f.name.to_string(), reads);
    }
    let record = engine.compile(format!("{RECORD}(0)")).ok().and_then(|a| a.statements().first().cloned());
    let mut statements = Vec::with_capacity(ast.statements().len());
    for s in ast.statements() {
        let mut s = s.clone();
        b.stmt(&mut s);
        let changes = match &s {
            Stmt::Import(..) => true,
            Stmt::Var(_, options, _) => options.contains(rhai::ASTFlags::CONSTANT),
            _ => false,
        };
        let at = s.position();
        let declared = match &s {
            Stmt::Var(x, ..) if env.0.borrow().free.contains(x.0.as_str()) => Some(x.0.name.clone()),
            _ => None,
        };
        statements.push(s);
        if let Some(name) = declared {
            statements.push(record::statement(env, &name, b.assigned.contains(name.as_str()), at));
        }
        if changes && let Some(record) = &record {
            statements.push(with_argument(record.clone(), env, at));
        }
    }
    let mut lib = Module::new();
    for f in ast.iter_fn_def() {
        b.around = declared(f);
        match b.function(f) {
            Some(rewritten) => lib.set_script_fn(rewritten),
            None => lib.set_script_fn(f.clone()),
        };
    }
    let bound = AST::new_with_source(statements, lib, ast.source().unwrap_or_default());
    env.set_functions(bound.shared_lib().clone());
    bound
}

/// The call of [`RECORD`] with the environment as its argument.
fn with_argument(mut call: Stmt, env: &Environment, at: Position) -> Stmt {
    let argument = Expr::DynamicConstant(Box::new(Dynamic::from(env.clone())), at);
    let f: Option<&mut FnCallExpr> = match &mut call {
        Stmt::FnCall(f, _) => Some(f),
        Stmt::Expr(e) => match &mut **e {
            Expr::FnCall(f, _) => Some(f),
            _ => None,
        },
        _ => None,
    };
    if let Some(a) = f.and_then(|f| f.args.first_mut()) {
        *a = argument;
    }
    call
}

/// The variables to which a script assigns somewhere.
pub fn assigned(ast: &AST) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    ast.walk(&mut |path| {
        if let Some(ASTNode::Stmt(Stmt::Assignment(x))) = path.last()
            && let Some(name) = root_variable(&x.1.lhs)
        {
            found.insert(name.to_string());
        }
        true
    });
    found
}

/// The variables that a script reads and nothing declares, with their places; `known` are names from outside. Functions also
/// see what the top level declares.
pub fn unknown_variables(ast: &AST, known: impl Fn(&str) -> bool) -> Vec<(String, Position)> {
    let functions: BTreeSet<&str> = ast.iter_fn_def().map(|f| f.name.as_str()).collect();
    let mut declared: BTreeSet<&str> = BTreeSet::new();
    for s in ast.statements() {
        if let Stmt::Var(x, ..) = s {
            declared.insert(&x.0.name);
        }
    }
    let mut found = Vec::new();
    AST::new(ast.statements().to_vec(), Module::new()).walk(&mut |path| {
        if let Some(name) = free_variable(path.last())
            && !known(name)
            && !functions.contains(name.as_str())
        {
            found.extend(path.last().map(|n| (name.to_string(), n.position())));
        }
        true
    });
    for f in ast.iter_fn_def() {
        walk_function(f, &mut |path| {
            if let Some(name) = free_variable(path.last())
                && !known(name)
                && !functions.contains(name.as_str())
                && !declared.contains(name.as_str())
                && !f.params.contains(name)
            {
                found.extend(path.last().map(|n| (name.to_string(), n.position())));
            }
        });
    }
    found.sort_by_key(|(_, at)| (at.line(), at.position()));
    found.dedup();
    found
}

/// The modules whose functions a script calls without importing them, with the places of the calls; `known` are names from
/// outside.
pub fn unknown_modules(ast: &AST, known: impl Fn(&str) -> bool) -> Vec<(String, Position)> {
    let mut imported: BTreeSet<String> = BTreeSet::from(["global".into()]);
    let mut used: Vec<(String, Position)> = Vec::new();
    ast.walk(&mut |path| {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Import(x, _))) => {
                imported.insert(x.1.name.to_string());
            }
            Some(ASTNode::Expr(Expr::FnCall(f, _)) | ASTNode::Stmt(Stmt::FnCall(f, _))) if f.is_qualified() => {
                used.push((f.namespace.root().to_string(), f.namespace.position()));
            }
            _ => {}
        }
        true
    });
    used.retain(|(name, _)| !imported.contains(name.as_str()) && !known(name));
    used
}

/// The name at a node that reads a variable which the function itself does not declare.
fn free_variable<'a>(node: Option<&ASTNode<'a>>) -> Option<&'a rhai::ImmutableString> {
    match node {
        Some(ASTNode::Expr(Expr::Variable(v, None, _))) if v.0.is_none() && v.2.is_empty() => Some(&v.1),
        _ => None,
    }
}

/// The variable that `x`, `x.y`, `x[i].z` begin with.
fn root_variable(e: &Expr) -> Option<&str> {
    match e {
        Expr::Variable(v, ..) => Some(&v.1),
        Expr::Dot(b, ..) | Expr::Index(b, ..) => root_variable(&b.lhs),
        _ => None,
    }
}

/// Walks the body of one function.
fn walk_function(f: &Shared<ScriptFuncDef>, on_node: &mut dyn FnMut(&[ASTNode])) {
    let mut only = Module::new();
    only.set_script_fn(f.clone());
    AST::new([], only).walk(&mut |path| {
        on_node(path);
        true
    });
}

/// The names that a function reads and does not declare.
fn free(f: &Shared<ScriptFuncDef>) -> BTreeSet<rhai::ImmutableString> {
    let mut found = BTreeSet::new();
    walk_function(f, &mut |path| {
        found.extend(free_variable(path.last()).filter(|name| !f.params.contains(name)).cloned());
    });
    found
}

/// The names that a function declares, its parameters among them.
fn declared(f: &Shared<ScriptFuncDef>) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = f.params.iter().map(|p| p.to_string()).collect();
    walk_function(f, &mut |path| match path.last() {
        Some(ASTNode::Stmt(Stmt::Var(x, ..))) => drop(found.insert(x.0.name.to_string())),
        Some(ASTNode::Stmt(Stmt::For(x, _))) => {
            found.extend(std::iter::once(&x.0).chain(&x.1).map(|ident| ident.name.to_string()));
        }
        _ => {}
    });
    found
}

fn uses_this(f: &Shared<ScriptFuncDef>) -> bool {
    let mut found = false;
    walk_function(f, &mut |path| found |= matches!(path.last(), Some(ASTNode::Expr(Expr::ThisPtr(_)))));
    found
}

/// The rewriting walk.
struct Binder<'a> {
    engine: &'a Engine,
    env: &'a Environment,
    /// Closures to be bound, with their number of parameters.
    params: BTreeMap<String, usize>,
    /// The script's named functions.
    named: BTreeSet<String>,
    /// Variables that are assigned to somewhere.
    assigned: BTreeSet<String>,
    /// The script's source name.
    source: rhai::ImmutableString,
    /// The functions that closures name as if they were variables.
    mistaken: BTreeMap<String, Vec<rhai::ImmutableString>>,
    /// The names that the function declares whose body is being rewritten.
    around: BTreeSet<String>,
}

impl Binder<'_> {
    /// The function with its body rewritten; `None` where it has none.
    fn function(&self, f: &Shared<ScriptFuncDef>) -> Option<ScriptFuncDef> {
        let mut statements = Vec::new();
        walk_function(f, &mut |path| {
            if let [ASTNode::Stmt(s)] = path {
                statements.push(Stmt::clone(s));
            }
        });
        if statements.is_empty() {
            return None;
        }
        statements.iter_mut().for_each(|s| self.stmt(s));
        let at = f.body.start_position();
        let block = Expr::Stmt(Box::new(StmtBlock::new(statements, at, f.body.end_position())));
        NEXT_BODY.set(Dynamic::from(Body::new(f.name.clone(), self.source.clone(), block)));
        let template = self.engine.compile(format!("fn f() {{ {BODY} }}")).ok()?;
        let body = template.iter_fn_def().next()?.body.clone();
        Some(ScriptFuncDef { body, ..ScriptFuncDef::clone(f) })
    }
    /// Binds a closure in a script's text.
    fn closure(&self, value: &mut Dynamic, captured: usize) {
        let Some(f) = value.read_lock::<FnPtr>().map(|f| f.clone()) else { return };
        if let Some(n) = self.params.get(f.fn_name())
            && let Some(bound) = self.env.pointer(&f.fn_name().into(), Some(*n), captured)
        {
            *value = bound.into();
        }
    }
    fn block(&self, b: &mut StmtBlock) {
        for s in b.statements_mut() {
            self.stmt(s);
        }
    }
    fn stmt(&self, s: &mut Stmt) {
        match s {
            Stmt::If(x, _) | Stmt::While(x, _) | Stmt::Do(x, ..) => self.flow(x),
            Stmt::TryCatch(x, _) => {
                self.flow(x);
                let at = x.body.position();
                let block = std::mem::replace(&mut x.body, StmtBlock::new([], at, at));
                let guarded = custom(body::TRY, Expr::Stmt(Box::new(block)), Dynamic::UNIT, at);
                x.body = StmtBlock::new([Stmt::Expr(Box::new(guarded))], at, at);
            }
            Stmt::For(x, _) => {
                let names = std::iter::once(&x.0).chain(&x.1).map(|ident| ident.name.clone());
                let names: rhai::Array = names.filter(|n| sugar::captures(&x.2.body, n)).map(Dynamic::from).collect();
                self.flow(&mut x.2);
                if !names.is_empty() {
                    let at = x.2.body.position();
                    let body = std::mem::replace(&mut x.2.body, StmtBlock::new([], at, at));
                    let pass = custom(sugar::PASS, Expr::Stmt(Box::new(body)), names.into(), at);
                    x.2.body = StmtBlock::new([Stmt::Expr(Box::new(pass))], at, at);
                }
            }
            Stmt::Switch(x, _) => {
                self.expr(&mut x.0);
                for e in &mut x.1.expressions {
                    self.expr(&mut e.lhs);
                    self.expr(&mut e.rhs);
                }
            }
            Stmt::Var(x, ..) => self.expr(&mut x.1),
            Stmt::Assignment(x) => {
                let adds = !x.0.is_op_assignment();
                self.target(&mut x.1.lhs, adds);
                self.expr(&mut x.1.rhs);
            }
            Stmt::FnCall(f, at) => {
                f.args.iter_mut().for_each(|a| self.expr(a));
                if !f.namespace.is_empty() {
                    *s = Stmt::Expr(Box::new(custom(PLACED, Expr::FnCall(f.clone(), *at), Dynamic::UNIT, *at)));
                }
            }
            Stmt::Block(b) => self.block(b),
            Stmt::Expr(e) => self.expr(e),
            Stmt::BreakLoop(Some(e), ..) | Stmt::Return(Some(e), ..) => self.expr(e),
            Stmt::Import(x, _) => self.expr(&mut x.0),
            Stmt::Share(names) => {
                for (ident, _) in names.iter_mut() {
                    if !self.assigned.contains(ident.name.as_str()) && !ident.name.starts_with(CAPTURE) {
                        ident.name = format!("{CAPTURE}{}", ident.name).into();
                    }
                }
            }
            _ => {}
        }
    }
    /// Rewrites what is assigned to. Its last key may be a new one of a map (`adds`).
    fn target(&self, e: &mut Expr, adds: bool) {
        let (b, is_index, ends) = match e {
            Expr::Dot(b, flags, _) => (b, false, flags.contains(rhai::ASTFlags::BREAK)),
            Expr::Index(b, flags, _) => (b, true, flags.contains(rhai::ASTFlags::BREAK)),
            other => return self.expr(other),
        };
        self.expr(&mut b.lhs);
        match &mut b.rhs {
            chain @ (Expr::Dot(..) | Expr::Index(..)) if !(is_index && ends) => self.target(chain, adds),
            Expr::Property(p, _) if adds => p.2 = maps::added(&p.2),
            Expr::StringConstant(key, _) if adds && is_index => *key = maps::added(key),
            Expr::IntegerConstant(..) => {}
            index if is_index => {
                self.expr(index);
                if adds {
                    let at = index.start_position();
                    let inner = std::mem::replace(index, Expr::Unit(at));
                    *index = custom(sugar::KEY, inner, Dynamic::UNIT, at);
                }
            }
            other => self.expr(other),
        }
    }
    fn flow(&self, x: &mut rhai::FlowControl) {
        self.expr(&mut x.expr);
        self.block(&mut x.body);
        self.block(&mut x.branch);
    }
    /// The variable of the function around it that a closure means where Rhai, which captures no variable that has a function's
    /// name, gives it the function.
    fn mistaken(&self, e: &Expr) -> Option<&rhai::ImmutableString> {
        let Expr::DynamicConstant(value, _) = e else { return None };
        let closure = value.read_lock::<FnPtr>()?.fn_name().to_string();
        self.mistaken.get(&closure)?.iter().find(|name| self.around.contains(name.as_str()))
    }
    fn expr(&self, e: &mut Expr) {
        let pointer = match &*e {
            Expr::FnCall(f, _) if f.name == "curry" => f.args.first(),
            other => Some(other),
        };
        if let Some(name) = pointer.and_then(|p| self.mistaken(p)) {
            *e = custom(sugar::MISTAKEN, Expr::Unit(e.position()), name.clone().into(), e.position());
            return;
        }
        match e {
            Expr::DynamicConstant(value, _) => self.closure(value, 0),
            Expr::FnCall(f, at) => {
                if let ("Fn", [Expr::StringConstant(name, _)]) = (f.name.as_str(), f.args.as_slice())
                    && self.named.contains(name.as_str())
                    && let Some(bound) = self.env.pointer(name, None, 0)
                {
                    *e = Expr::DynamicConstant(Box::new(bound.into()), *at);
                    return;
                }
                // how the parser writes a closure that captures variables
                if let ("curry", [Expr::DynamicConstant(value, _), variables @ ..]) =
                    (f.name.as_str(), f.args.as_mut_slice())
                {
                    self.closure(value, variables.len());
                    return;
                }
                f.args.iter_mut().for_each(|a| self.expr(a));
                if !f.namespace.is_empty() {
                    let at = *at;
                    *e = custom(PLACED, Expr::FnCall(f.clone(), at), Dynamic::UNIT, at);
                }
            }
            Expr::MethodCall(f, _) => f.args.iter_mut().for_each(|a| self.expr(a)),
            Expr::InterpolatedString(x, _) | Expr::Array(x, _) => x.iter_mut().for_each(|a| self.expr(a)),
            Expr::Map(x, _) => x.0.iter_mut().for_each(|(_, a)| self.expr(a)),
            Expr::Stmt(b) => self.block(b),
            Expr::Dot(b, ..) | Expr::Index(b, ..) => {
                let reader = runs_its_reader(b).map(|(method, at)| (sugar::READERS.contains(&method), at));
                self.expr(&mut b.lhs);
                self.expr(&mut b.rhs);
                if let Some((true, at)) = reader {
                    // both only read: one of them reads a copy
                    let variable = std::mem::replace(&mut b.lhs, Expr::Unit(at));
                    b.lhs = custom(sugar::COPY, variable, Dynamic::UNIT, at);
                }
                sugar::range_to_part(self.engine, e);
                if let Some((false, at)) = reader {
                    // Rhai gives the error of that no place
                    let inner = std::mem::replace(e, Expr::Unit(at));
                    *e = custom(PLACED, inner, Dynamic::UNIT, at);
                }
            }
            Expr::Coalesce(x, _) => {
                x.iter_mut().for_each(|a| self.expr(a));
                let last = x.len().saturating_sub(1);
                for a in x.iter_mut().take(last) {
                    if let Some(place) = sugar::last_segment(a) {
                        let at = a.position();
                        let inner = std::mem::replace(a, Expr::Unit(at));
                        *a = custom(sugar::OPTIONAL, inner, Dynamic::from(place), at);
                    }
                }
            }
            Expr::And(x, _) | Expr::Or(x, _) => x.iter_mut().for_each(|a| self.expr(a)),
            Expr::Custom(x, _) => x.inputs.iter_mut().for_each(|a| self.expr(a)),
            _ => {}
        }
    }
}

/// Where a method of variable `a` runs a closure that captures `a` itself: the method, and its place.
fn runs_its_reader(b: &rhai::BinaryExpr) -> Option<(&str, Position)> {
    let Expr::Variable(v, ..) = &b.lhs else { return None };
    let (Expr::MethodCall(f, at) | Expr::FnCall(f, at)) = first_segment(&b.rhs) else { return None };
    let itself = |e: &Expr| match e {
        Expr::FnCall(curry, _) => curry.name == "curry" && curry.args.iter().any(|a| root_variable(a) == Some(&v.1)),
        Expr::Stmt(block) => sugar::captures(block, &v.1),
        _ => false,
    };
    f.args.iter().any(itself).then_some((f.name.as_str(), *at))
}

/// The first thing that a chain does with what stands before it.
fn first_segment(rhs: &Expr) -> &Expr {
    match rhs {
        Expr::Dot(b, ..) | Expr::Index(b, ..) => &b.lhs,
        only => only,
    }
}
