//! What stands around the body of a script's function and around a `try` block: where Ctrl-C found the script, the profile,
//! and panics of native code that `catch` receives.
use super::BODY;
use crate::access::policy;
use crate::script::caught::to_catch;
use crate::script::panics;
use crate::script::profile;
use rhai::{Dynamic, EvalAltResult, EvalContext, Expr, ImmutableString, Position};
use std::cell::{OnceCell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

thread_local! {
    /// The block for which [`BODY`] stands the next time that it is parsed.
    pub(super) static NEXT_BODY: RefCell<Dynamic> = const { RefCell::new(Dynamic::UNIT) };
    /// The source of the function whose body runs.
    static RUNNING: RefCell<ImmutableString> = RefCell::new(ImmutableString::new());
}

/// Puts the source of the running function back when its callee ends, in whatever way.
struct Back(ImmutableString);
impl Drop for Back {
    fn drop(&mut self) {
        RUNNING.replace(std::mem::take(&mut self.0));
    }
}

/// The custom syntax around the block of a `try`.
pub(super) const TRY: &str = "__guarded_try";

type Evaluated = Result<Dynamic, Box<EvalAltResult>>;

/// A rewritten function body.
#[derive(Clone)]
pub(super) struct Body(Rc<Inner>);

struct Inner {
    /// The function's name; that of a closure holds a `$`.
    name: ImmutableString,
    /// The source name of its text.
    source: ImmutableString,
    /// Whether it comes from a file: then it may not touch what a stranger's script may not.
    file: bool,
    block: Expr,
    /// The block with its calls timed, made when a profile first needs it.
    timed: OnceCell<Expr>,
}

impl Body {
    pub(super) fn new(name: ImmutableString, source: ImmutableString, block: Expr) -> Self {
        Body(Rc::new(Inner { name, source, file: policy::in_file(), block, timed: OnceCell::new() }))
    }
}

/// A place in a script where Ctrl-C found a call.
#[derive(Clone, Debug)]
pub struct Place {
    /// The function that was running there; that of a closure holds a `$`.
    pub function: String,
    /// The source of that function.
    pub source: String,
    /// Where in it.
    pub at: Position,
}

/// What an error of Ctrl-C carries: what native code was about, and the calls that it ended, innermost first. (Rhai
/// itself keeps the place of the outermost call only.)
#[derive(Clone, Debug, Default)]
pub struct Stopped {
    /// `step 3 of 10, t = 0.8`; empty where no native code was running.
    pub what: String,
    /// The functions that were left.
    pub places: Vec<Place>,
}

/// Registers the syntax of rewritten bodies and `try` blocks.
pub(super) fn register(engine: &mut rhai::Engine) {
    engine.register_custom_syntax_without_look_ahead_raw(
        BODY,
        |_, state| {
            *state = NEXT_BODY.take();
            Ok(None)
        },
        false,
        |context, _, state| match state.read_lock::<Body>() {
            Some(body) => run(context, &body),
            None => Ok(Dynamic::UNIT),
        },
    );
    engine.register_custom_syntax_without_look_ahead_raw(
        TRY,
        |_, _| Ok(None),
        false,
        |context, inputs, _| match inputs.first() {
            Some(block) => guarded(context, block),
            None => Ok(Dynamic::UNIT),
        },
    );
}

fn run(context: &mut EvalContext, body: &Body) -> Evaluated {
    let _file = body.0.file.then(policy::enter_file);
    // Rhai remembers by name which function a call meant, also across modules that have functions of the same name
    let back = Back(RUNNING.replace(body.0.source.clone()));
    let mut frame;
    let context = if back.0 == body.0.source {
        context
    } else {
        frame = context.new_frame().with_new_caching_layer();
        &mut *frame
    };
    // deprecated only to say that the interface may change; the version of rhai is pinned by Cargo.lock
    #[allow(deprecated)]
    let result = if profile::is_on() {
        let timed = body.0.timed.get_or_init(|| profile::timed(&body.0.block));
        let _running = profile::enter(profile::Called::Script(&body.0.name, context.source()));
        context.eval_expression_tree_raw(&timed.into(), false)
    } else {
        context.eval_expression_tree_raw(&(&body.0.block).into(), false)
    };
    let source = &body.0.source;
    result.map_err(|mut e| match &mut *e {
        EvalAltResult::ErrorTerminated(token, at) => {
            if !at.is_none()
                && let Some(mut s) = token.write_lock::<Stopped>()
            {
                s.places.push(Place { function: body.0.name.to_string(), source: source.to_string(), at: *at });
            }
            e
        }
        EvalAltResult::Return(..) | EvalAltResult::LoopBreak(..) | EvalAltResult::Exit(..) => e,
        // to Rhai a session's functions all belong to the input that runs: the report must find the one that they are from
        _ if context.source() != Some(source.as_str()) && !source.is_empty() => {
            EvalAltResult::ErrorInModule(source.to_string(), e, Position::NONE).into()
        }
        _ => e,
    })
}

/// Evaluates the block of a `try`: a panic of native code in it is an error like any other, and each has a kind.
fn guarded(context: &mut EvalContext, block: &rhai::Expression) -> Evaluated {
    let scope = context.scope().len();
    let global = context.global_runtime_state_mut();
    let (level, blocks, libs, imports) = (global.level, global.scope_level, global.lib.len(), global.num_imports());
    let (source, constants) = (global.source.clone(), global.constants.clone());
    #[allow(deprecated)]
    let result = catch_unwind(AssertUnwindSafe(|| context.eval_expression_tree_raw(block, true)));
    let result = result.unwrap_or_else(|panic| {
        // what the panic left half done goes
        context.scope_mut().rewind(scope);
        let global = context.global_runtime_state_mut();
        (global.level, global.scope_level) = (level, blocks);
        global.lib.truncate(libs);
        global.truncate_imports(imports);
        (global.source, global.constants) = (source, constants);
        Err(panics::error(&*panic).into())
    });
    result.map_err(|e| to_catch(e, context))
}
