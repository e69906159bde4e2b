//! Where the time goes: calls, time and network evaluations of every function, while a profile is taken and only then.
//!
//! Each body of a script's function asks one thread-local flag ([`is_on`]). While it is set, the body runs in a version whose
//! calls are timed ([`timed`]), made from the parsed text the first time that it is needed.
use crate::host::evaluations;
use rhai::{ASTFlags, BinaryExpr, CustomExpr, Dynamic, Engine, Expr, FnCallExpr, Position, Stmt, StmtBlock};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The custom syntax around a timed call.
const TIMED: &str = "__timed_call";

/// What Rhai itself handles, and what would be wrong inside another expression.
const UNTIMED: [&str; 9] =
    ["Fn", "curry", "call", "eval", "is_def_var", "is_def_fn", "is_shared", "type_of", "__record_environment"];

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static STATE: RefCell<State> = RefCell::new(State::default());
}

/// Calls of one function.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Row {
    /// How often it was called.
    pub calls: u64,
    /// Time from call to return; of a recursive function, that of its outermost calls.
    pub total: Duration,
    /// The part of it that was spent in no other listed function.
    pub own: Duration,
    /// Network evaluations between call and return; of a recursive function, in its outermost calls.
    pub evaluations: u64,
}

/// A function that is called.
pub enum Called<'a> {
    /// A script's, and its source.
    Script(&'a str, Option<&'a str>),
    /// What a call in a script is written as.
    Written(&'a str),
}

#[derive(Default)]
struct State {
    rows: BTreeMap<String, (Row, u32)>,
    running: Vec<Call>,
}

/// A running call.
struct Call {
    name: String,
    /// It is known as it is written, not yet by the function that it led to.
    written: bool,
    /// The time spent in calls that it made.
    inner: Duration,
}

/// Whether a profile is being taken.
pub fn is_on() -> bool {
    ON.get()
}

/// Starts a profile.
pub fn start() {
    STATE.take();
    ON.set(true);
}

/// Ends the profile; the rows with the most time of their own first.
pub fn stop() -> Vec<(String, Row)> {
    ON.set(false);
    let mut rows: Vec<(String, Row)> = STATE.take().rows.into_iter().map(|(name, (row, _))| (name, row)).collect();
    rows.sort_by(|a, b| b.1.own.cmp(&a.1.own).then_with(|| a.0.cmp(&b.0)));
    rows
}

/// A call being timed; dropped at its end, however it ends.
pub struct Running {
    /// Whether it stands for a call of its own, not for the body of the function that a written call led to.
    counts: bool,
    start: Instant,
    evaluations: u64,
}

/// Begins the timing of a call.
pub fn enter(what: Called) -> Running {
    let (name, written) = match what {
        Called::Script(f, source) => {
            let f = if f.contains('$') { "closure" } else { f };
            match source.and_then(|s| s.strip_prefix("stdlib/")).and_then(|s| s.strip_suffix(".rhai")) {
                Some(module) => (format!("{module}::{f}"), false),
                None => (f.to_string(), false),
            }
        }
        Called::Written(f) => (f.to_string(), true),
    };
    let counts = STATE.with_borrow_mut(|s| {
        // `lib::f(x)` and the body of the `f` that it calls are one call
        let same =
            |c: &&mut Call| c.written && (c.name == name || c.name.rsplit("::").next() == name.rsplit("::").next());
        let (name, counts) = match s.running.last_mut().filter(same) {
            Some(c) if !written => {
                c.written = false;
                (c.name.clone(), false)
            }
            _ => (name, true),
        };
        s.rows.entry(name.clone()).or_default().1 += 1;
        s.running.push(Call { name, written, inner: Duration::ZERO });
        counts
    });
    Running { counts, evaluations: evaluations(), start: Instant::now() }
}

impl Drop for Running {
    fn drop(&mut self) {
        let time = self.start.elapsed();
        let evaluations = evaluations() - self.evaluations;
        STATE.with_borrow_mut(|s| {
            let Some(call) = s.running.pop() else { return };
            if let Some(outer) = s.running.last_mut() {
                outer.inner += time;
            }
            let Some((row, depth)) = s.rows.get_mut(&call.name) else { return };
            *depth = depth.saturating_sub(1);
            row.calls += u64::from(self.counts);
            row.own += time.saturating_sub(call.inner);
            if *depth == 0 {
                row.total += time;
                row.evaluations += evaluations;
            }
        });
    }
}

/// Registers the syntax of timed calls.
pub fn register(engine: &mut Engine) {
    engine.register_custom_syntax_without_look_ahead_raw(
        TIMED,
        |_, _| Ok(None),
        false,
        |context, inputs, name| {
            let Some(call) = inputs.first() else { return Ok(Dynamic::UNIT) };
            let _running = name.as_immutable_string_ref().ok().filter(|_| is_on()).map(|n| enter(Called::Written(&n)));
            context.eval_expression_tree(call)
        },
    );
}

/// A block with its calls timed, for the time of a profile.
pub fn timed(block: &Expr) -> Expr {
    let mut e = block.clone();
    expr(&mut e);
    e
}

/// Statements with their calls timed.
pub fn timed_statements(statements: &mut [Stmt]) {
    statements.iter_mut().for_each(stmt);
}

fn around(name: &str, call: Expr, at: Position) -> Expr {
    let custom = CustomExpr {
        inputs: std::iter::once(call).collect(),
        tokens: std::iter::once(TIMED.into()).collect(),
        state: name.to_string().into(),
        scope_may_be_changed: false,
        self_terminated: false,
    };
    Expr::Custom(Box::new(custom), at)
}

/// The name under which a call is listed; `None` where it is not to be timed. A script's own function times its body.
fn listed(f: &FnCallExpr) -> Option<String> {
    use rhai::Token;
    let arithmetic = [Token::Plus, Token::Minus, Token::Multiply, Token::Divide, Token::Modulo, Token::PowerOf];
    if UNTIMED.contains(&f.name.as_str()) || f.name.contains('$') || f.capture_parent_scope {
        return None;
    }
    match &f.op_token {
        Some(op) if !arithmetic.contains(op) => None,
        _ if f.is_qualified() => Some(format!("{}::{}", f.namespace, f.name)),
        _ => Some(f.name.to_string()),
    }
}

fn block(b: &mut StmtBlock) {
    b.statements_mut().iter_mut().for_each(stmt);
}

fn flow(x: &mut rhai::FlowControl) {
    expr(&mut x.expr);
    block(&mut x.body);
    block(&mut x.branch);
}

fn stmt(s: &mut Stmt) {
    match s {
        Stmt::If(x, _) | Stmt::While(x, _) | Stmt::Do(x, ..) => flow(x),
        // the expression of a `catch` is its variable
        Stmt::TryCatch(x, _) => {
            block(&mut x.body);
            block(&mut x.branch);
        }
        Stmt::For(x, _) => flow(&mut x.2),
        Stmt::Switch(x, _) => {
            expr(&mut x.0);
            for e in &mut x.1.expressions {
                expr(&mut e.lhs);
                expr(&mut e.rhs);
            }
        }
        Stmt::Var(x, ..) => expr(&mut x.1),
        Stmt::Assignment(x) => expr(&mut x.1.rhs),
        Stmt::FnCall(f, at) => {
            f.args.iter_mut().for_each(expr);
            if let Some(name) = listed(f) {
                *s = Stmt::Expr(Box::new(around(&name, Expr::FnCall(f.clone(), *at), *at)));
            }
        }
        Stmt::Block(b) => block(b),
        Stmt::Expr(e) => expr(e),
        Stmt::BreakLoop(Some(e), ..) | Stmt::Return(Some(e), ..) => expr(e),
        _ => {}
    }
}

/// The arguments inside a chain `.f(…).g[…]`, without its links.
fn link(e: &mut Expr) {
    match e {
        Expr::MethodCall(f, _) => f.args.iter_mut().for_each(expr),
        Expr::Dot(b, ..) => {
            link(&mut b.lhs);
            link(&mut b.rhs);
        }
        Expr::Index(b, flags, _) => {
            link(&mut b.lhs);
            index(&mut b.rhs, *flags);
        }
        Expr::Property(..) => {}
        other => expr(other),
    }
}

/// What stands behind the bracket of `x[i]`: the index, and where the chain goes on (`x[i].f()`, which is parsed as x[i.f()])
/// its further links.
fn index(e: &mut Expr, flags: ASTFlags) {
    match e {
        Expr::Dot(b, ..) if !flags.contains(ASTFlags::BREAK) => {
            expr(&mut b.lhs);
            link(&mut b.rhs);
        }
        Expr::Index(b, inner, _) if !flags.contains(ASTFlags::BREAK) => {
            expr(&mut b.lhs);
            index(&mut b.rhs, *inner);
        }
        whole => expr(whole),
    }
}

/// What follows a method in a chain: a dot or a bracket, what stands behind it, and where.
type Rest = (fn(Box<BinaryExpr>, ASTFlags, Position) -> Expr, Expr, ASTFlags, Position);

/// Cuts the links of a chain after the first method that is listed, past properties and brackets: its name, and what
/// followed. Not behind `?.`, which leaves out all that follows it.
fn cut(links: &mut Expr) -> Option<(String, Option<Rest>)> {
    if let Expr::MethodCall(f, _) = links {
        return Some((listed(f)?, None));
    }
    let dot = matches!(links, Expr::Dot(..));
    let (Expr::Dot(b, flags, at) | Expr::Index(b, flags, at)) = links else { return None };
    let (flags, at) = (*flags, *at);
    if flags.contains(ASTFlags::NEGATED) {
        return None;
    }
    let name = match &b.lhs {
        Expr::MethodCall(f, _) => listed(f),
        _ => None,
    };
    let Some(name) = name else {
        return if dot { cut(&mut b.rhs) } else { behind(b, flags) };
    };
    let BinaryExpr { lhs, rhs } = std::mem::replace(&mut **b, BinaryExpr { lhs: Expr::Unit(at), rhs: Expr::Unit(at) });
    *links = lhs;
    Some((name, Some((if dot { Expr::Dot } else { Expr::Index }, rhs, flags, at))))
}

/// [`cut`] for what stands behind the bracket of `x[i]`.
fn behind(b: &mut BinaryExpr, flags: ASTFlags) -> Option<(String, Option<Rest>)> {
    match &mut b.rhs {
        _ if flags.contains(ASTFlags::BREAK) => None,
        Expr::Dot(inner, flags, _) if !flags.contains(ASTFlags::NEGATED) => cut(&mut inner.rhs),
        Expr::Index(inner, flags, _) if !flags.contains(ASTFlags::NEGATED) => behind(inner, *flags),
        _ => None,
    }
}

/// `x.f()[i].g()` is parsed as x.(f()[i.g()]), which cannot be timed in parts: makes it (x.f())[i].g() and times each method.
/// What a method returns is a value of its own, so nothing that is changed in place is lost.
fn chain(mut whole: Expr) -> Expr {
    loop {
        let at = whole.position();
        let found = match &mut whole {
            Expr::Dot(_, flags, _) | Expr::Index(_, flags, _) if flags.contains(ASTFlags::NEGATED) => None,
            Expr::Dot(b, ..) => cut(&mut b.rhs),
            Expr::Index(b, flags, _) => behind(b, *flags),
            _ => None,
        };
        match found {
            None => return whole,
            Some((name, None)) => return around(&name, whole, at),
            Some((name, Some((go_on, rhs, flags, rest_at)))) => {
                let lhs = around(&name, whole, at);
                whole = go_on(Box::new(BinaryExpr { lhs, rhs }), flags, rest_at);
            }
        }
    }
}

fn expr(e: &mut Expr) {
    match e {
        Expr::FnCall(f, at) => {
            f.args.iter_mut().for_each(expr);
            if let Some(name) = listed(f) {
                let at = *at;
                *e = around(&name, std::mem::replace(e, Expr::Unit(at)), at);
            }
        }
        Expr::Dot(b, _, at) => {
            expr(&mut b.lhs);
            link(&mut b.rhs);
            let at = *at;
            *e = chain(std::mem::replace(e, Expr::Unit(at)));
        }
        Expr::Index(b, flags, at) => {
            expr(&mut b.lhs);
            index(&mut b.rhs, *flags);
            let at = *at;
            *e = chain(std::mem::replace(e, Expr::Unit(at)));
        }
        Expr::InterpolatedString(x, _) | Expr::Array(x, _) => x.iter_mut().for_each(expr),
        Expr::Map(x, _) => x.0.iter_mut().for_each(|(_, a)| expr(a)),
        Expr::Stmt(b) => block(b),
        Expr::And(x, _) | Expr::Or(x, _) | Expr::Coalesce(x, _) => x.iter_mut().for_each(expr),
        Expr::Custom(x, _) => x.inputs.iter_mut().for_each(expr),
        _ => {}
    }
}
