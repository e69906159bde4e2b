//! Closures that keep their home: a function pointer always runs with the functions, imports and constants of the
//! script or module that made it, wherever it is called from.
//!
//! Rhai resolves a closure by name in whatever environment calls it, so a closure handed to a module would see the
//! module's functions before its own script's. [`bind`] rewrites a parsed script: each closure becomes a native function
//! pointer that carries its environment; and a captured object handle that is never assigned to is captured by value, so
//! that `net.f(|x| net.g(x))` holds no lock on `net`.
use super::error::RhaiResult;
use rhai::{
    AST, ASTNode, CustomExpr, Dynamic, EncapsulatedEnviron, Engine, EvalAltResult, EvalContext, Expr, FnCallExpr,
    FnPtr, ImmutableString, Map, Module, NativeCallContext, Position, ScriptFuncDef, Shared, Stmt, StmtBlock,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Marks a captured variable in a `Share` statement that [`on_variable`] decides about. No script can write this name.
const CAPTURE: &str = "capture$";
/// The native function that records a script's imports and constants as they stand.
const RECORD: &str = "__record_environment";
/// The custom syntax that stands for a rewritten function body. Rhai lets nobody outside build the body of a function,
/// but a parsed body that is this one symbol can evaluate any block in the function's own scope.
const BODY: &str = "__rewritten_body";

/// The custom syntax that stands around a call in a namespace: Rhai gives errors of native functions their place, but
/// not those of functions in a namespace (`solver::unipc(…)`).
const PLACED: &str = "__placed";

thread_local! {
    /// The block for which [`BODY`] stands the next time that it is parsed.
    static NEXT_BODY: RefCell<Dynamic> = const { RefCell::new(Dynamic::UNIT) };
}

/// A rewritten function body.
#[derive(Clone)]
struct Body(Rc<Expr>);

/// What a script or module sees at its top level; shared by its closures, and filled in while it runs.
#[derive(Clone)]
pub struct Environment(Rc<RefCell<EncapsulatedEnviron>>);

impl Default for Environment {
    fn default() -> Self {
        let empty = EncapsulatedEnviron { lib: Default::default(), imports: Default::default(), constants: None };
        Environment(Rc::new(RefCell::new(empty)))
    }
}

impl Environment {
    /// Replaces the functions.
    pub fn set_functions(&self, lib: Shared<Module>) {
        self.0.borrow_mut().lib = std::iter::once(lib).collect();
    }
    /// Takes over the imports and constants of a running script (its functions stay).
    fn record(&self, now: &rhai::GlobalRuntimeState) {
        let now = EncapsulatedEnviron::from(now);
        let mut env = self.0.borrow_mut();
        env.imports = now.imports;
        env.constants = now.constants;
    }
    /// Calls function `name` in this environment.
    fn call(&self, name: &str, context: &NativeCallContext, args: &mut [&mut Dynamic]) -> rhai_result::Result {
        let outer = context.global_runtime_state();
        let env = self.0.borrow().clone();
        let at_home = match (outer.lib.as_slice(), env.lib.as_slice()) {
            ([a], [b]) => Rc::ptr_eq(a, b),
            _ => false,
        };
        if at_home {
            return context.call_fn_raw(name, false, false, args);
        }
        let mut global = outer.clone();
        global.source = env.lib.last().and_then(|m| m.id()).map(Into::into);
        for (alias, module) in &env.imports {
            global.push_import(alias.clone(), module.clone());
        }
        global.lib = env.lib;
        // before the first import or constant is recorded, those of the caller are the only ones there are
        if env.constants.is_some() {
            global.constants = env.constants;
        }
        let source = global.source.clone();
        let inner = NativeCallContext::new_with_all_fields(
            context.engine(),
            name,
            source.as_deref(),
            &global,
            context.call_position(),
        );
        inner.call_fn_raw(name, false, false, args)
    }
    /// A function pointer to `name` (with `params` parameters, captured ones included, where there is only one such
    /// function) that is at home here.
    fn pointer(&self, name: &ImmutableString, params: Option<usize>) -> Option<FnPtr> {
        let (env, f) = (self.clone(), name.clone());
        // Rhai refuses its own names of closures here; this is what prints
        let shown: ImmutableString = if name.contains('$') { "closure".into() } else { name.clone() };
        let visible = shown.clone();
        // deprecated only to say that the interface may change; the version of rhai is pinned by Cargo.lock
        #[allow(deprecated)]
        FnPtr::from_fn(visible, move |context: NativeCallContext, args: &mut [&mut Dynamic]| {
            match params {
                // this very error makes `map`, `filter`, … try again with another number of arguments
                Some(n) if n != args.len() => {
                    let types: Vec<&str> = args.iter().map(|a| context.engine().map_type_name(a.type_name())).collect();
                    let signature = format!("{shown} ({})", types.join(", "));
                    Err(EvalAltResult::ErrorFunctionNotFound(signature, Position::NONE).into())
                }
                _ => {
                    // `filter`, `find`, … pass the array's own element first, in case the function has a `this` for it;
                    // the call would take it out of the array
                    let mut first = args.first().map(|a| Dynamic::clone(a));
                    let rest = args.iter_mut().skip(1).map(|a| &mut **a);
                    env.call(&f, &context, &mut first.iter_mut().chain(rest).collect::<Vec<_>>())
                }
            }
        })
        .ok()
    }
}

mod rhai_result {
    /// What a Rhai function returns.
    pub type Result = std::result::Result<rhai::Dynamic, Box<rhai::EvalAltResult>>;
}

/// Registers what bound scripts call.
pub fn register(engine: &mut Engine) {
    engine.register_fn(RECORD, |context: NativeCallContext, env: Environment| {
        env.record(context.global_runtime_state());
    });
    engine.register_custom_syntax_without_look_ahead_raw(
        BODY,
        |_, state| {
            *state = NEXT_BODY.take();
            Ok(None)
        },
        false,
        |context, _, state| match state.read_lock::<Body>().map(|b| b.0.clone()) {
            // deprecated only to say that the interface may change
            #[allow(deprecated)]
            Some(body) => context.eval_expression_tree_raw(&(&*body).into(), false),
            None => Ok(Dynamic::UNIT),
        },
    );
    #[allow(deprecated)]
    engine.on_var(on_variable);
    // Rhai's own pass a native function pointer (value, key) where the closure takes (key, value)
    engine.register_fn("filter", |context: NativeCallContext, map: &mut Map, f: FnPtr| -> RhaiResult<Map> {
        let mut kept = Map::new();
        for (key, value) in map.iter_mut() {
            if holds(&context, &f, key, value)? {
                kept.insert(key.clone(), value.clone());
            }
        }
        Ok(kept)
    });
    for (name, keep) in [("retain", true), ("drain", false)] {
        engine.register_fn(name, move |context: NativeCallContext, map: &mut Map, f: FnPtr| -> RhaiResult<Map> {
            let mut taken = Map::new();
            for (key, mut value) in std::mem::take(map) {
                let stays = holds(&context, &f, &key, &mut value)? == keep;
                (if stays { &mut *map } else { &mut taken }).insert(key, value);
            }
            Ok(taken)
        });
    }
    engine.register_custom_syntax_without_look_ahead_raw(
        PLACED,
        |_, _| Ok(None),
        false,
        |context, inputs, _| match inputs.first() {
            Some(call) => context.eval_expression_tree(call).map_err(|mut e| {
                if e.position().is_none() {
                    e.set_position(call.position());
                }
                e
            }),
            None => Ok(Dynamic::UNIT),
        },
    );
}

/// Asks `f(key, value)`, or `f(key)` with the value as `this`.
fn holds(context: &NativeCallContext, f: &FnPtr, key: &str, value: &mut Dynamic) -> RhaiResult<bool> {
    let both: [Dynamic; 2] = [key.into(), value.clone()];
    let answer = match f.call_raw(context, None, both) {
        Err(e) if matches!(*e, EvalAltResult::ErrorFunctionNotFound(..)) => {
            f.call_raw(context, Some(value), [Dynamic::from(ImmutableString::from(key))])
        }
        other => other,
    };
    Ok(answer?.as_bool().unwrap_or(false))
}

/// The call of a function in a namespace, in [`PLACED`].
fn placed(call: FnCallExpr, at: Position) -> Expr {
    let custom = CustomExpr {
        inputs: std::iter::once(Expr::FnCall(Box::new(call), at)).collect(),
        tokens: std::iter::once(PLACED.into()).collect(),
        state: Dynamic::UNIT,
        scope_may_be_changed: false,
        self_terminated: false,
    };
    Expr::Custom(Box::new(custom), at)
}

/// Called for each variable that a script reads: decides how closures capture, and makes `f` a value where `f` is a function.
fn on_variable(name: &str, index: usize, mut context: EvalContext) -> Result<Option<Dynamic>, Box<EvalAltResult>> {
    if let Some(captured) = name.strip_prefix(CAPTURE) {
        if context.scope().contains(captured) {
            if let Some(value) = context.scope_mut().get_mut(captured)
                && !is_handle(value)
                && !value.is_shared()
            {
                *value = std::mem::take(value).into_shared();
            }
        } else if function_pointer(captured, &context).is_none() {
            return Err(EvalAltResult::ErrorVariableNotFound(captured.into(), Position::NONE).into());
        }
        return Ok(Some(Dynamic::UNIT));
    }
    if index > 0 || context.scope().contains(name) {
        return Ok(None);
    }
    Ok(function_pointer(name, &context))
}

/// Whether a value is a native object: a cheap handle, which a closure may as well copy. Tensors are values.
fn is_handle(v: &Dynamic) -> bool {
    v.is_variant() && !v.is::<candle_core::Tensor>()
}

/// A pointer to the script function `name` that the running code sees, bound to where it is defined.
fn function_pointer(name: &str, context: &EvalContext) -> Option<Dynamic> {
    let global = context.global_runtime_state();
    let defines = |m: &&Shared<Module>| m.iter_script_fn_info().any(|(_, _, f, _, _)| f == name);
    let lib = global.lib.iter().rev().find(defines)?;
    let env = Environment::default();
    env.set_functions(lib.clone());
    env.record(global);
    env.pointer(&name.into(), None).map(Dynamic::from)
}

/// Rewrites a parsed script so that its closures keep `env`, which becomes this script's own.
pub fn bind(engine: &Engine, ast: &AST, env: &Environment) -> AST {
    let mut b = Binder { env, params: BTreeMap::new(), named: BTreeSet::new(), assigned: BTreeSet::new() };
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
    ast.walk(&mut |path| {
        if let Some(ASTNode::Stmt(Stmt::Assignment(x))) = path.last()
            && let Some(name) = root_variable(&x.1.lhs)
        {
            b.assigned.insert(name.to_string());
        }
        true
    });
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
        statements.push(s);
        if changes && let Some(record) = &record {
            statements.push(with_argument(record.clone(), env, at));
        }
    }
    let mut lib = Module::new();
    for f in ast.iter_fn_def() {
        match b.function(engine, f) {
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

fn uses_this(f: &Shared<ScriptFuncDef>) -> bool {
    let mut found = false;
    walk_function(f, &mut |path| found |= matches!(path.last(), Some(ASTNode::Expr(Expr::ThisPtr(_)))));
    found
}

/// The rewriting walk.
struct Binder<'a> {
    env: &'a Environment,
    /// Closures to be bound, with their number of parameters.
    params: BTreeMap<String, usize>,
    /// The script's named functions.
    named: BTreeSet<String>,
    /// Variables that are assigned to somewhere.
    assigned: BTreeSet<String>,
}

impl Binder<'_> {
    /// The function with its body rewritten; `None` where nothing in it is to be.
    fn function(&self, engine: &Engine, f: &Shared<ScriptFuncDef>) -> Option<ScriptFuncDef> {
        let (mut statements, mut affected) = (Vec::new(), false);
        walk_function(f, &mut |path| {
            if let [ASTNode::Stmt(s)] = path {
                statements.push(Stmt::clone(s));
            }
            affected |= match path.last() {
                Some(ASTNode::Expr(Expr::DynamicConstant(v, _))) => v.is_fnptr(),
                Some(ASTNode::Expr(Expr::FnCall(f, _)) | ASTNode::Stmt(Stmt::FnCall(f, _))) => {
                    f.name == "Fn" || !f.namespace.is_empty()
                }
                _ => false,
            };
        });
        if !affected {
            return None;
        }
        statements.iter_mut().for_each(|s| self.stmt(s));
        let at = f.body.start_position();
        let block = Expr::Stmt(Box::new(StmtBlock::new(statements, at, f.body.end_position())));
        NEXT_BODY.set(Dynamic::from(Body(Rc::new(block))));
        let template = engine.compile(format!("fn f() {{ {BODY} }}")).ok()?;
        let body = template.iter_fn_def().next()?.body.clone();
        Some(ScriptFuncDef { body, ..ScriptFuncDef::clone(f) })
    }
    fn block(&self, b: &mut StmtBlock) {
        for s in b.statements_mut() {
            self.stmt(s);
        }
    }
    fn stmt(&self, s: &mut Stmt) {
        match s {
            Stmt::If(x, _) | Stmt::While(x, _) | Stmt::Do(x, ..) | Stmt::TryCatch(x, _) => self.flow(x),
            Stmt::For(x, _) => self.flow(&mut x.2),
            Stmt::Switch(x, _) => {
                self.expr(&mut x.0);
                for e in &mut x.1.expressions {
                    self.expr(&mut e.lhs);
                    self.expr(&mut e.rhs);
                }
            }
            Stmt::Var(x, ..) => self.expr(&mut x.1),
            Stmt::Assignment(x) => {
                self.expr(&mut x.1.lhs);
                self.expr(&mut x.1.rhs);
            }
            Stmt::FnCall(f, at) => {
                f.args.iter_mut().for_each(|a| self.expr(a));
                if !f.namespace.is_empty() {
                    *s = Stmt::Expr(Box::new(placed(FnCallExpr::clone(f), *at)));
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
    fn flow(&self, x: &mut rhai::FlowControl) {
        self.expr(&mut x.expr);
        self.block(&mut x.body);
        self.block(&mut x.branch);
    }
    fn expr(&self, e: &mut Expr) {
        match e {
            Expr::DynamicConstant(value, _) => {
                let Some(f) = value.read_lock::<FnPtr>().map(|f| f.clone()) else { return };
                if let Some(n) = self.params.get(f.fn_name())
                    && let Some(bound) = self.env.pointer(&f.fn_name().into(), Some(*n))
                {
                    **value = bound.into();
                }
            }
            Expr::FnCall(f, at) => {
                if let ("Fn", [Expr::StringConstant(name, _)]) = (f.name.as_str(), f.args.as_slice())
                    && self.named.contains(name.as_str())
                    && let Some(bound) = self.env.pointer(name, None)
                {
                    *e = Expr::DynamicConstant(Box::new(bound.into()), *at);
                    return;
                }
                f.args.iter_mut().for_each(|a| self.expr(a));
                if !f.namespace.is_empty() {
                    *e = placed(FnCallExpr::clone(f), *at);
                }
            }
            Expr::MethodCall(f, _) => f.args.iter_mut().for_each(|a| self.expr(a)),
            Expr::InterpolatedString(x, _) | Expr::Array(x, _) => x.iter_mut().for_each(|a| self.expr(a)),
            Expr::Map(x, _) => x.0.iter_mut().for_each(|(_, a)| self.expr(a)),
            Expr::Stmt(b) => self.block(b),
            Expr::Dot(b, ..) | Expr::Index(b, ..) => {
                self.expr(&mut b.lhs);
                self.expr(&mut b.rhs);
            }
            Expr::And(x, _) | Expr::Or(x, _) | Expr::Coalesce(x, _) => x.iter_mut().for_each(|a| self.expr(a)),
            Expr::Custom(x, _) => x.inputs.iter_mut().for_each(|a| self.expr(a)),
            _ => {}
        }
    }
}
