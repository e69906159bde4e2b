//! A session: the engine, and the variables, functions and imports that live on from one piece of code to the next.
use super::catalogue::Catalogue;
use super::repl::last;
use super::{screen, show};
use crate::host;
use crate::script::closures::{Environment, bind};
use crate::script::context::{Origin, Run, SharedRun};
use crate::script::params::{self, Param};
use crate::script::{engine, modules};
use crate::{Error, Result};
use rhai::{
    AST, Caches, Dynamic, Engine, EvalAltResult, EvalContext, Expr, GlobalRuntimeState, Module, ParseErrorType,
    Position, Scope, StmtBlock,
};
use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Mutex;

/// The place of the latest panic, for the error that it becomes.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// How a piece of code ended well.
pub enum Outcome {
    /// With this value.
    Value(Dynamic),
    /// By `exit(value)`.
    Exit(Dynamic),
}

/// An uncaught error of a script, and the name of the source in which it surfaced.
pub struct Failure {
    /// What Rhai reports.
    pub error: Box<EvalAltResult>,
    /// The source that was running.
    pub source: String,
}

impl Failure {
    /// Whether Ctrl-C stopped the script.
    pub fn cancelled(&self) -> bool {
        let mut e = &*self.error;
        while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) = e {
            e = inner;
        }
        matches!(e, EvalAltResult::ErrorTerminated(..))
    }
}

/// What is set for a whole session.
pub struct Settings {
    /// The seed that `seed()` returns.
    pub seed: i64,
    /// The folder that `out()` joins to.
    pub out: PathBuf,
}

/// See the module's description.
pub struct Session {
    engine: Engine,
    run: SharedRun,
    scope: Scope<'static>,
    global: GlobalRuntimeState,
    /// The functions of everything evaluated so far.
    functions: AST,
    env: Environment,
    pieces: usize,
    catalogue: OnceCell<Catalogue>,
}

impl Session {
    /// A session without variables. Call it, and everything on it, on a thread with [`engine::STACK`] bytes of stack.
    pub fn new(settings: Settings) -> Self {
        let run: SharedRun = Rc::new(RefCell::new(Run { seed: settings.seed, out: settings.out, ..Run::default() }));
        let mut engine = engine::new(&run);
        last::register(&mut engine);
        show::register(&mut engine, &run);
        super::help::register(&mut engine);
        let global = engine.new_global_runtime_state();
        Session {
            engine,
            run,
            scope: Scope::new(),
            global,
            functions: AST::empty(),
            env: Environment::default(),
            pieces: 0,
            catalogue: OnceCell::new(),
        }
    }
    /// The engine, for listing what is registered.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
    /// The engine, for registering more functions before anything is evaluated.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }
    /// What scripts can name, collected the first time that it is asked for.
    pub fn catalogue(&self) -> &Catalogue {
        self.catalogue.get_or_init(|| Catalogue::of(&self.engine))
    }
    /// The modules that the session has imported: the name it gave each, and the module's source.
    pub fn imports(&self) -> Vec<(String, String)> {
        let named = |(alias, m): (&str, &rhai::Module)| (alias.to_string(), m.id().unwrap_or_default().to_string());
        self.global.iter_imports().map(named).collect()
    }
    /// The session's variables.
    pub fn scope(&self) -> &Scope<'static> {
        &self.scope
    }
    /// The signatures of the functions that were defined so far, `f(x, y)`.
    pub fn function_signatures(&self) -> Vec<String> {
        let named = self.functions.iter_functions().filter(|f| !f.name.contains('$'));
        named.map(|f| format!("{}({})", f.name, f.params.join(", "))).collect()
    }
    /// The modules that were imported, by the names given to them.
    pub fn imported_modules(&self) -> impl Iterator<Item = (&str, &Module)> {
        self.global.iter_imports()
    }
    /// What the session knows about its own run.
    pub fn run(&self) -> &SharedRun {
        &self.run
    }

    /// Parses a script. Unknown variables are errors here already.
    ///
    /// # Errors
    /// Whatever the parser reports, with its place.
    pub fn parse(&mut self, name: &str, text: &str) -> std::result::Result<AST, Failure> {
        self.run.borrow_mut().sources.insert(name.to_string(), text.to_string());
        self.engine.set_strict_variables(true);
        let strict = modules::compile(&self.engine, name, text);
        self.engine.set_strict_variables(false);
        let ast = match strict {
            // the parser does not know functions that are defined further down as values
            Err(e) if matches!(*e.0, ParseErrorType::VariableUndefined(_)) => {
                match (&*e.0, modules::compile(&self.engine, name, text)) {
                    (ParseErrorType::VariableUndefined(v), Ok(ast)) if ast.iter_functions().any(|f| f.name == v) => {
                        Ok(ast)
                    }
                    _ => Err(e),
                }
            }
            other => other,
        };
        ast.map_err(|e| Failure { error: e.into(), source: name.to_string() })
    }

    /// The parameters that a parsed script declares.
    ///
    /// # Errors
    /// See [`params::declared`].
    pub fn params(&self, ast: &AST) -> std::result::Result<Vec<Param>, Failure> {
        params::declared(ast).map_err(|error| Failure { error, source: ast.source().unwrap_or_default().into() })
    }

    /// Gives the parameters their values from `--set`.
    ///
    /// # Errors
    /// A setting without `=`, of an unknown parameter, given twice, or of the wrong type.
    pub fn set_params(&mut self, params: Vec<Param>, settings: &[String]) -> Result<()> {
        let mut run = self.run.borrow_mut();
        run.params = params.iter().map(|p| (p.name.clone(), (p.clone(), None))).collect();
        for s in settings {
            let Some((name, text)) = s.split_once('=') else {
                return Err(Error::value(format!("--set {s}: there is no `=`")).hint("like `--set nfe=6`"));
            };
            let Some((param, value)) = run.params.get_mut(name) else {
                return Err(Error::unknown("parameter in --set:", name, params.iter().map(|p| p.name.as_str())));
            };
            if value.is_some() {
                return Err(Error::value(format!("--set {name} is given twice")));
            }
            *value = Some(params::parse(param, text)?);
        }
        Ok(())
    }

    /// Says which script the run is of, for `provenance()` and for imports beside it.
    pub fn set_script(&mut self, name: &str, text: &str) {
        let mut run = self.run.borrow_mut();
        run.main = name.to_string();
        run.script = Some(Origin::new(name, name, text));
    }

    /// Evaluates parsed code in the session; its variables, functions and imports stay.
    ///
    /// # Errors
    /// The uncaught error. Panics of native code come out as errors too.
    pub fn evaluate(&mut self, ast: &AST) -> std::result::Result<Outcome, Failure> {
        host::clear_cancel();
        let source = ast.source().unwrap_or_default().to_string();
        let bound = bind(&self.engine, ast, &self.env);
        let statements = bound.statements().to_vec();
        // later functions replace earlier ones of the same name, for earlier closures too
        self.functions = match self.pieces {
            0 => bound,
            _ => self.functions.clone_functions_only().merge(&bound.clone_functions_only()),
        };
        self.pieces += 1;
        self.functions.set_source(source.as_str());
        self.env.set_functions(self.functions.shared_lib().clone());
        self.global.lib = std::iter::once(self.functions.shared_lib().clone()).collect();
        self.global.source = Some(source.as_str().into());
        let block = Expr::Stmt(Box::new(StmtBlock::new(statements, Position::NONE, Position::NONE)));
        let before = self.scope.len();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let caches = &mut Caches::new();
            let mut context = EvalContext::new(&self.engine, &mut self.global, caches, &mut self.scope, None);
            // deprecated only to say that the interface may change
            #[allow(deprecated)]
            context.eval_expression_tree_raw(&(&block).into(), false)
        }));
        let error = match result {
            Ok(Ok(v)) => return Ok(Outcome::Value(v)),
            Ok(Err(e)) => match *e {
                EvalAltResult::Return(v, _) => return Ok(Outcome::Value(v)),
                EvalAltResult::Exit(v, _) => return Ok(Outcome::Exit(v)),
                _ => e,
            },
            Err(panic) => {
                // what the panic left half done goes: variables of this piece of code, and nesting levels
                self.scope.rewind(before);
                self.global.level = 0;
                self.global.scope_level = 0;
                panic_error(&*panic).into()
            }
        };
        Err(Failure { error, source })
    }

    /// Evaluates a line of a REPL or of `-e`.
    ///
    /// # Errors
    /// As [`Session::evaluate`], and parse errors.
    pub fn evaluate_line(&mut self, text: &str) -> std::result::Result<Outcome, Failure> {
        let name = format!("input {}", self.pieces + 1);
        let mut run = self.run.borrow_mut();
        run.sources.insert(name.clone(), text.to_string());
        run.main.clone_from(&name);
        drop(run);
        match last::parsing(text, || modules::compile(&self.engine, &name, text)) {
            Ok(ast) => {
                let outcome = self.evaluate(&ast)?;
                if let Outcome::Value(v) = &outcome
                    && !v.is_unit()
                {
                    // a new variable: an earlier closure that captured the old value keeps it
                    let _ = self.scope.remove::<Dynamic>(last::NAME);
                    self.scope.push_dynamic(last::NAME, v.flatten_clone());
                }
                Ok(outcome)
            }
            Err(e) => {
                self.pieces += 1;
                Err(Failure { error: e.into(), source: name })
            }
        }
    }

    /// A value as the REPL echoes it.
    pub fn show(&self, v: &Dynamic) -> String {
        show::value::echo(&self.engine, v, screen::width())
    }
    /// A value as `print` shows it.
    pub fn print_form(&self, v: &Dynamic) -> String {
        match v.as_immutable_string_ref() {
            Ok(s) => s.to_string(),
            Err(_) => {
                self.engine.eval_fn_call::<String>("to_string", None, (v.clone(),)).unwrap_or_else(|_| v.to_string())
            }
        }
    }
}

/// Keeps panics of this process from printing: the error that each becomes tells what and where it was.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line()));
        if let Ok(mut p) = PANIC.lock() {
            *p = place;
        }
    }));
}

fn panic_error(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into());
    let place = PANIC.lock().ok().and_then(|mut p| p.take()).unwrap_or_else(|| "unknown place".into());
    let first = text.lines().next().unwrap_or_default();
    Error::new(crate::Kind::Internal, format!("ld3sh itself failed: {first} ({place})"))
        .hint("this is a bug in ld3sh: please report it with the script that led here")
}
