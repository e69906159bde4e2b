//! The variables of the top level that functions may read.
use super::{Environment, HOMES, is_handle};
use rhai::{CustomExpr, Dynamic, Engine, EvalContext, Expr, ImmutableString, Position, Scope, Stmt};
use std::collections::BTreeSet;
use std::rc::{Rc, Weak};

/// The custom syntax that records a variable when it has been declared.
const RECORD_VARIABLE: &str = "__record_variable";

/// What a statement of [`statement`] knows.
#[derive(Clone)]
struct Recorded {
    env: Environment,
    name: ImmutableString,
    assigned: bool,
}

/// The statement that records variable `name` in `env`; `assigned`: something is assigned to it somewhere.
pub(super) fn statement(env: &Environment, name: &str, assigned: bool, at: Position) -> Stmt {
    let custom = CustomExpr {
        inputs: Default::default(),
        tokens: std::iter::once(RECORD_VARIABLE.into()).collect(),
        state: Dynamic::from(Recorded { env: env.clone(), name: name.into(), assigned }),
        scope_may_be_changed: false,
        self_terminated: false,
    };
    Stmt::Expr(Box::new(Expr::Custom(Box::new(custom), at)))
}

/// Registers the syntax of [`statement`].
pub(super) fn register(engine: &mut Engine) {
    engine.register_custom_syntax_without_look_ahead_raw(
        RECORD_VARIABLE,
        |_, _| Ok(None),
        false,
        |context, _, state| {
            if let Some(r) = state.read_lock::<Recorded>() {
                r.env.record_variable(context.scope_mut(), &r.name, r.assigned);
            }
            Ok(Dynamic::UNIT)
        },
    );
}

impl Environment {
    /// Records a variable of the top level: a constant, and an object handle that is never assigned to, as it is;
    /// anything else by sharing it, as a closure does that captures it.
    fn record_variable(&self, scope: &mut Scope, name: &str, assigned: bool) {
        let constant = scope.is_constant(name).unwrap_or(false);
        let Some(value) = scope.get_mut(name).map(|v| {
            if !v.is_shared() && (assigned || !is_handle(v)) {
                *v = std::mem::take(v).into_shared();
            }
            v.clone()
        }) else {
            // the scope gives no access to change a constant
            if constant && let Some(value) = scope.get(name) {
                self.0.borrow_mut().variables.insert(name.into(), value.clone());
            }
            return;
        };
        self.0.borrow_mut().variables.insert(name.into(), value);
    }
    /// Records what functions read of the variables that are there before a piece of code runs.
    pub fn record_scope(&self, scope: &mut Scope, assigned: &BTreeSet<String>) {
        let free = {
            let mut home = self.0.borrow_mut();
            home.variables.clear();
            home.free.clone()
        };
        for name in free.iter().filter(|n| scope.contains(n)).collect::<Vec<_>>() {
            self.record_variable(scope, name, assigned.contains(name.as_str()));
        }
    }
}

/// The variable `name` of the top level of the script to which the running function belongs.
pub(super) fn find(name: &str, context: &EvalContext) -> Option<Dynamic> {
    let lib = context.global_runtime_state().lib.last()?;
    HOMES.with_borrow(|homes| {
        homes.iter().filter_map(Weak::upgrade).find_map(|home| {
            let home = home.borrow();
            let own = home.environ.lib.last().is_some_and(|l| Rc::ptr_eq(l, lib));
            if own { home.variables.get(name).cloned() } else { None }
        })
    })
}
