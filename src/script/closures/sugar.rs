//! What scripts mean where Rhai means something else: a variable per pass of a loop, keys that are not there, parts of arrays,
//! and closures that read the array whose method runs them. [`super::bind`] puts these syntaxes into the parsed script.
use crate::script::caught::{Cause, cause};
use crate::script::maps;
use crate::{Error, Kind};
use rhai::{
    AST, ASTNode, Array, CustomExpr, Dynamic, Engine, EvalAltResult, EvalContext, Expr, ImmutableString,
    NativeCallContext, Position, Scope, Stmt, StmtBlock,
};
use std::ops::{Range, RangeInclusive};

/// Around the body of a `for` loop whose variables a closure captures.
pub(super) const PASS: &str = "__pass";
/// Around the left side of `??`.
pub(super) const OPTIONAL: &str = "__optional";
/// Around an index whose key an assignment may add.
pub(super) const KEY: &str = "__key";
/// Around an array whose method runs a closure that reads it.
pub(super) const COPY: &str = "__copy";
/// In place of a closure that means a variable and would get a function.
pub(super) const MISTAKEN: &str = "__mistaken";
/// The method that stands for `x[range]`.
const PART: &str = "__part";

/// The methods of arrays that leave them as they are, and run a function.
pub(super) const READERS: [&str; 10] =
    ["map", "filter", "for_each", "reduce", "reduce_rev", "find", "find_map", "index_of", "some", "all"];

type Evaluated = Result<Dynamic, Box<EvalAltResult>>;

/// An expression in a custom syntax that takes it, with what the syntax knows.
pub(super) fn custom(syntax: &str, inner: Expr, state: Dynamic, at: Position) -> Expr {
    let custom = CustomExpr {
        inputs: std::iter::once(inner).collect(),
        tokens: std::iter::once(syntax.into()).collect(),
        state,
        scope_may_be_changed: false,
        self_terminated: false,
    };
    Expr::Custom(Box::new(custom), at)
}

/// Registers the syntaxes, and the method behind `x[range]`.
pub(super) fn register(engine: &mut Engine) {
    let mut syntax = |name: &str, run: fn(&mut EvalContext, &rhai::Expression, &Dynamic) -> Evaluated| {
        engine.register_custom_syntax_without_look_ahead_raw(
            name,
            |_, _| Ok(None),
            false,
            move |context, inputs, state| match inputs.first() {
                Some(inner) => run(context, inner, state),
                None => Ok(Dynamic::UNIT),
            },
        );
    };
    syntax(PASS, pass);
    syntax(OPTIONAL, optional);
    syntax(KEY, |context, inner, _| {
        let key = context.eval_expression_tree(inner)?;
        let added = key.as_immutable_string_ref().ok().map(|text| maps::added(&text));
        Ok(added.map_or(key, Dynamic::from))
    });
    syntax(COPY, |context, inner, _| context.eval_expression_tree(inner).map(|v| v.flatten_clone()));
    syntax(MISTAKEN, |_, inner, name| {
        let m = format!(
            "this closure reads the variable `{name}`, but there is also a function `{name}`, which it would get"
        );
        let mut e: Box<EvalAltResult> = Error::new(Kind::Name, m).hint("give one of them another name").into();
        e.set_position(inner.position());
        Err(e)
    });
    engine.register_fn(PART, part);
}

/// Evaluates the body of a loop once. What closures captured of the loop's variables stays theirs: the next pass gets others.
fn pass(context: &mut EvalContext, body: &rhai::Expression, names: &Dynamic) -> Evaluated {
    // deprecated only to say that the interface may change; the version of rhai is pinned by Cargo.lock
    #[allow(deprecated)]
    let result = context.eval_expression_tree_raw(body, true);
    for name in names.read_lock::<Array>().iter().flat_map(|names| names.iter()) {
        if let Ok(name) = name.as_immutable_string_ref()
            && let Some(v) = context.scope_mut().get_mut(&name)
            && v.is_shared()
        {
            *v = Dynamic::UNIT;
        }
    }
    result
}

/// Whether a closure in `block` captures the variable `name`.
pub(super) fn captures(block: &StmtBlock, name: &str) -> bool {
    let mut found = false;
    for s in block.statements() {
        s.walk(&mut Vec::new(), &mut |path| {
            if let Some(ASTNode::Stmt(Stmt::Share(shared))) = path.last() {
                found |= shared.iter().any(|(ident, _)| ident.name == name);
            }
            true
        });
    }
    found
}

/// Evaluates what stands before `??`: `()` where its last key is not there.
fn optional(context: &mut EvalContext, inner: &rhai::Expression, at: &Dynamic) -> Evaluated {
    context.eval_expression_tree(inner).or_else(|e| {
        let here = at.read_lock::<Position>().is_some_and(|at| *at == e.position());
        if here && cause(&e) == Some(Cause::MissingKey) { Ok(Dynamic::UNIT) } else { Err(e) }
    })
}

/// Where the last segment of a chain `a.b[c].d` stands, as errors about its key have it.
pub(super) fn last_segment(e: &Expr) -> Option<Position> {
    let (b, is_index, ends) = match e {
        Expr::Dot(b, flags, _) => (b, false, flags.contains(rhai::ASTFlags::BREAK)),
        Expr::Index(b, flags, _) => (b, true, flags.contains(rhai::ASTFlags::BREAK)),
        _ => return None,
    };
    match &b.rhs {
        chain @ (Expr::Dot(..) | Expr::Index(..)) if !(is_index && ends) => last_segment(chain),
        last => Some(if is_index { last.start_position() } else { last.position() }),
    }
}

/// Turns `x[a..b]` into a call of the method [`PART`]: Rhai's arrays take integers alone.
pub(super) fn range_to_part(engine: &Engine, e: &mut Expr) {
    let Expr::Index(b, flags, at) = e else { return };
    let ends = flags.contains(rhai::ASTFlags::BREAK);
    let is_range =
        |e: &Expr| matches!(e, Expr::FnCall(f, _) if f.op_token.is_some() && matches!(f.name.as_str(), ".." | "..="));
    let call = |range: Expr| -> Option<Expr> {
        let template = engine.compile_expression(format!("x.{PART}(0)")).ok()?;
        let mut made = None;
        if let Some(Stmt::Expr(e)) = template.statements().first()
            && let Expr::Dot(b, ..) = &**e
            && let Expr::MethodCall(f, _) = &b.rhs
        {
            let mut f = f.clone();
            *f.args.first_mut()? = range;
            made = Some(Expr::MethodCall(f, *at));
        }
        made
    };
    let rest = match &mut b.rhs {
        Expr::Dot(rest, ..) | Expr::Index(rest, ..) if !ends && is_range(&rest.lhs) => &mut rest.lhs,
        only if is_range(only) => only,
        _ => return,
    };
    let range = std::mem::replace(rest, Expr::Unit(*at));
    let Some(method) = call(range.clone()) else {
        *rest = range;
        return;
    };
    *rest = method;
    let flags = flags.difference(rhai::ASTFlags::BREAK);
    let at = *at;
    let parts = std::mem::replace(&mut **b, rhai::BinaryExpr { lhs: Expr::Unit(at), rhs: Expr::Unit(at) });
    *e = Expr::Dot(Box::new(parts), flags, at);
}

/// The bounds of a range in a list of `n`, clipped as Python does: negative ones count from the end.
fn clipped(start: i64, end: i64, n: usize) -> Range<usize> {
    let n = n as i64;
    let clip = |i: i64| (if i < 0 { i.saturating_add(n) } else { i }).clamp(0, n) as usize;
    let (start, end) = (clip(start), clip(end));
    start..end.max(start)
}

/// `x[range]`: of an array a new array; of anything else what Rhai says.
fn part(context: NativeCallContext, x: &mut Dynamic, range: Dynamic) -> Evaluated {
    if let Some(list) = x.read_lock::<Array>() {
        let bounds = match (range.read_lock::<Range<i64>>(), range.read_lock::<RangeInclusive<i64>>()) {
            (Some(r), _) => clipped(r.start, r.end, list.len()),
            // up to and with −1 is up to the end
            (_, Some(r)) if *r.end() == -1 => clipped(*r.start(), i64::MAX, list.len()),
            (_, Some(r)) => clipped(*r.start(), r.end().saturating_add(1), list.len()),
            _ => 0..0,
        };
        return Ok(list.get(bounds).map(<[Dynamic]>::to_vec).unwrap_or_default().into());
    }
    if let Some(t) = x.read_lock::<candle_core::Tensor>() {
        return crate::script::tensor::part_of(&t, &range).map(Dynamic::from);
    }
    thread_local! {
        static INDEX: AST = Engine::new_raw().compile_expression("x[at]").unwrap_or_default();
    }
    let mut scope = Scope::new();
    scope.push_dynamic(ImmutableString::from("x"), x.clone());
    scope.push_dynamic("at", range);
    INDEX.with(|index| context.engine().eval_ast_with_scope(&mut scope, index)).map_err(|mut e: Box<EvalAltResult>| {
        // the place is that of the whole chain
        let _ = e.take_position();
        e
    })
}
