//! A session: the engine, and the variables, functions and imports that live on from one piece of code to the next.
use super::catalogue::Catalogue;
use super::help::pages;
use super::interrupt;
use super::names::Names;
pub use super::outcome::{Failure, Outcome};
use super::{last, show};
use crate::access::{clean, policy};
use crate::host;
use crate::script::caught::set_teller;
use crate::script::closures::{Environment, assigned, bind, replace_functions, unknown_modules, unknown_variables};
use crate::script::context::{Origin, Run, SharedRun};
use crate::script::error::offset;
use crate::script::front::Shared as Front;
use crate::script::params::{self, Param};
use crate::script::schema;
use crate::script::{engine, modules, numbers, panics};
use crate::script::{profile, record};
use crate::{Error, Result};
use rhai::{
    AST, Caches, Dynamic, Engine, EvalAltResult, EvalContext, Expr, GlobalRuntimeState, Module, Position, Scope,
    ScriptFnMetadata, StmtBlock,
};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;

/// Allows a script what the user typed for its parameters: a text may be a path.
fn grant(value: &Dynamic) {
    if let Ok(text) = value.as_immutable_string_ref() {
        policy::grant(text.as_str());
    } else if let Some(list) = value.read_lock::<rhai::Array>() {
        list.iter().for_each(grant);
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
    /// Results go to standard output and reports to standard error, as plain lines.
    pub fn new(settings: Settings) -> Self {
        Self::with_front(settings, Front::default())
    }
    /// A session that shows things on `front`.
    pub fn with_front(settings: Settings, front: Front) -> Self {
        let run = Run { seed: settings.seed, out: settings.out, front, ..Run::default() };
        let run: SharedRun = Rc::new(RefCell::new(run));
        let mut engine = engine::new(&run);
        crate::script::tokens::register(&mut engine, |at| last::is_value(at).then_some(last::NAME));
        show::register(&mut engine, &run);
        pages::register(&mut engine);
        set_teller(super::report::caught);
        let global = engine.new_global_runtime_state();
        Session {
            engine,
            run,
            scope: Scope::new(),
            global,
            functions: AST::empty(),
            env: Environment::with_variables(),
            pieces: 0,
            catalogue: OnceCell::new(),
        }
    }
    /// Where the session shows things.
    pub fn front(&self) -> Front {
        self.run.borrow().front.clone()
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

    /// Parses a script. Unknown variables and modules are errors here already.
    ///
    /// # Errors
    /// Whatever the parser reports, with its place.
    pub fn parse(&mut self, name: &str, text: &str) -> std::result::Result<AST, Failure> {
        // the parser knows only what is declared further up, and lets functions see nothing else: what it refuses is
        // looked at again
        self.engine.set_strict_variables(true);
        let strict = self.parse_only(name, text);
        self.engine.set_strict_variables(false);
        if strict.is_ok() {
            return strict;
        }
        let ast = self.parse_only(name, text)?;
        match self.unknown_names(&ast).into_iter().next() {
            Some(f) => Err(f),
            None => Ok(ast),
        }
    }

    /// Parses a script, whatever names it uses.
    ///
    /// # Errors
    /// Whatever the parser reports, with its place.
    pub fn parse_only(&mut self, name: &str, text: &str) -> std::result::Result<AST, Failure> {
        self.run.borrow_mut().sources.insert(name.to_string(), text.to_string());
        let parsed = modules::compile(&self.engine, name, text);
        parsed.map_err(|e| Failure { error: e.into(), source: name.to_string() })
    }

    /// An error for each variable that a script reads and nothing declares, and for each module that it uses and does not
    /// import, in the order of the text.
    pub fn unknown_names(&self, ast: &AST) -> Vec<Failure> {
        let source = ast.source().unwrap_or_default();
        let variables = unknown_variables(ast, |name| self.scope.contains(name) || numbers::constant(name).is_some());
        let variables = variables.into_iter().map(|(name, at)| EvalAltResult::ErrorVariableNotFound(name, at));
        let names = Names::of(&self.engine);
        let namespaces = names.namespaces();
        let imported: Vec<&str> = self.global.iter_imports_raw().map(|(alias, _)| alias.as_str()).collect();
        let modules = unknown_modules(ast, |name| namespaces.contains(name) || imported.contains(&name));
        let modules = modules.into_iter().map(|(name, at)| EvalAltResult::ErrorModuleNotFound(name, at));
        let mut all: Vec<EvalAltResult> = variables.chain(modules).collect();
        all.sort_by_key(|e| (e.position().line(), e.position().position()));
        all.into_iter().map(|e| Failure { error: e.into(), source: source.into() }).collect()
    }

    /// The parameters that a parsed script declares.
    ///
    /// # Errors
    /// See [`params::declared`].
    pub fn params(&self, ast: &AST) -> std::result::Result<Vec<Param>, Failure> {
        params::declared(ast).map_err(|error| Failure { error, source: ast.source().unwrap_or_default().into() })
    }

    /// Describes parameters that are options of a module's function as that does. Running a script needs none of it.
    ///
    /// # Errors
    /// See [`params::describe`].
    pub fn describe_params(&self, params: &mut [Param]) -> Result<()> {
        match params.iter().any(|p| p.of.is_some()) {
            true => params::describe(params, &schema::of_modules(&self.engine)),
            false => Ok(()),
        }
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
            let given = params::parse(param, text)?;
            grant(&given);
            *value = Some(given);
        }
        Ok(())
    }

    /// Says which script the run is of, for `provenance()` and for imports beside it.
    pub fn set_script(&mut self, name: &str, text: &str) {
        let mut run = self.run.borrow_mut();
        run.main = name.to_string();
        run.script = Some(Origin::new(name, name, text));
    }

    /// Starts the record of the script's run in its output folder.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn start_record(&mut self) -> Result<()> {
        record::start(&mut self.run.borrow_mut())
    }

    /// Whether the script ran before in its output folder, as it would now, and ended well.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn is_done(&self) -> Result<bool> {
        record::is_done(&self.run.borrow())
    }

    /// Ends the record of the script's run, if there is one, with how it ended.
    ///
    /// # Errors
    /// A record that can no longer be written.
    pub fn end_record(&mut self, outcome: &std::result::Result<Outcome, Failure>) -> Result<()> {
        let (status, error) = match outcome {
            Ok(Outcome::Exit(v)) if !v.is_unit() && v.as_int() != Ok(0) => ("failed", None),
            Ok(_) => ("ok", None),
            Err(f) if f.cancelled() => ("stopped", None),
            Err(f) => ("failed", Some(&*f.error)),
        };
        record::end(&mut self.run.borrow_mut(), status, error)
    }

    /// Evaluates parsed code in the session; its variables, functions and imports stay.
    ///
    /// # Errors
    /// The uncaught error. Panics of native code come out as errors too.
    pub fn evaluate(&mut self, ast: &AST) -> std::result::Result<Outcome, Failure> {
        let _work = interrupt::work();
        host::clear_cancel();
        let source = ast.source().unwrap_or_default().to_string();
        let text = self.run.borrow().sources.get(&source).cloned().unwrap_or_default();
        if let Some((line, note)) = super::hints::silent_division(&text, |name| self.scope.contains(name)) {
            self.front().report(&clean(&format!("note: {source}:{line}: {note}")));
        }
        let bound = bind(&self.engine, ast, &text, &self.env);
        let mut statements = bound.statements().to_vec();
        if profile::is_on() {
            profile::timed_statements(&mut statements);
        }
        // later functions replace earlier ones of the same name, for earlier closures too
        let same = |a: &ScriptFnMetadata, b: &ScriptFnMetadata| a.name == b.name && a.params.len() == b.params.len();
        if bound.iter_functions().any(|new| self.functions.iter_functions().any(|old| same(&new, &old))) {
            replace_functions();
        }
        self.functions = match self.pieces {
            0 => bound,
            _ => self.functions.clone_functions_only().merge(&bound.clone_functions_only()),
        };
        self.pieces += 1;
        self.functions.set_source(source.as_str());
        self.env.set_functions(self.functions.shared_lib().clone());
        self.global.lib = std::iter::once(self.functions.shared_lib().clone()).collect();
        self.global.source = Some(source.as_str().into());
        self.env.record_scope(&mut self.scope, &assigned(ast));
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
                panics::error(&*panic).into()
            }
        };
        Err(Failure { error, source })
    }

    /// Evaluates a line as [`Session::evaluate_line`] does, with a profile of it.
    pub fn profile_line(&mut self, text: &str) -> (std::result::Result<Outcome, Failure>, Vec<(String, profile::Row)>) {
        profile::start();
        let outcome = self.evaluate_line(text);
        (outcome, profile::stop())
    }

    /// Runs a script's text in the session, with settings of its parameters; its variables and functions stay. Returns the
    /// outcome, or why the script failed; and its text with the parameters' values in place of their declarations.
    ///
    /// # Errors
    /// Parse errors; parameters and settings that do not fit.
    pub fn run_script(
        &mut self,
        name: &str,
        text: &str,
        settings: &[String],
    ) -> std::result::Result<(std::result::Result<Outcome, Failure>, String), Failure> {
        let text = modules::without_shebang(text);
        let ast = self.parse(name, &text)?;
        let params = self.params(&ast)?;
        let before = {
            let run = self.run.borrow();
            (run.main.clone(), run.script.clone(), run.params.clone())
        };
        self.set_script(name, &text);
        let _granted = policy::grants();
        let result = match self.set_params(params, settings) {
            Ok(()) => {
                let values: BTreeMap<String, Dynamic> = {
                    let run = self.run.borrow();
                    let value = |(p, given): &(Param, Option<Dynamic>)| given.clone().unwrap_or(p.default.clone());
                    run.params.iter().map(|(name, p)| (name.clone(), value(p))).collect()
                };
                let plain = params::inlined(&ast, &text, |name| values.get(name).map(|v| self.show(v)));
                Ok((self.evaluate(&ast), plain))
            }
            Err(e) => Err(Failure { error: e.into(), source: name.into() }),
        };
        let mut run = self.run.borrow_mut();
        (run.main, run.script, run.params) = before;
        result
    }

    /// Reads every imported module again; returns where they came from.
    ///
    /// # Errors
    /// A module that is no longer there, or fails; all modules stay as they were then.
    pub fn reload_modules(&mut self) -> std::result::Result<Vec<String>, Failure> {
        let imports = |global: &GlobalRuntimeState| -> Vec<(rhai::ImmutableString, rhai::Shared<rhai::Module>)> {
            global.iter_imports_raw().map(|(alias, module)| (alias.clone(), module.clone())).collect()
        };
        let mut before = imports(&self.global);
        before.reverse();
        let mut names: Vec<(String, String)> = Vec::new();
        for (alias, module) in &before {
            // a later import of the same name hides earlier ones
            names.retain(|(a, _)| a != alias.as_str());
            names.extend(module.id().map(|origin| (alias.to_string(), origin.to_string())));
        }
        let kept = std::mem::take(&mut self.run.borrow_mut().loaded);
        let code: Vec<String> = names.iter().map(|(alias, origin)| format!("import {origin:?} as {alias};")).collect();
        let count = self.global.num_imports();
        if let Err(f) = self.evaluate_line(&code.join("\n")) {
            self.global.truncate_imports(count);
            self.run.borrow_mut().loaded = kept;
            return Err(f);
        }
        let mut new = imports(&self.global);
        new.truncate(self.global.num_imports() - count);
        self.global.truncate_imports(0);
        for (alias, module) in new.into_iter().rev() {
            self.global.push_import(alias, module);
        }
        Ok(names.into_iter().map(|(_, origin)| origin).collect())
    }

    /// Forgets all variables, functions and imports.
    pub fn clear(&mut self) {
        self.scope = Scope::new();
        self.global = self.engine.new_global_runtime_state();
        self.functions = AST::empty();
        self.env = Environment::with_variables();
        self.run.borrow_mut().loaded.clear();
    }

    /// The functions that a text defines: name, number of parameters, and the bytes of the definition.
    pub fn definitions(&self, text: &str) -> Vec<(String, usize, std::ops::Range<usize>)> {
        let Ok(ast) = self.engine.compile(text) else { return vec![] };
        let mut found: Vec<_> = ast
            .iter_fn_def()
            .filter(|f| !f.name.contains('$'))
            .filter_map(|f| {
                let body = offset(text, f.body.start_position())?;
                let end = offset(text, f.body.end_position())?;
                let mut start = text.get(..body)?.rfind("fn ")?;
                let before = text[..start].trim_end();
                if before.ends_with("private") {
                    start = before.len() - "private".len();
                }
                Some((f.name.to_string(), f.params.len(), start..(end + 1).min(text.len())))
            })
            .collect();
        found.sort_by_key(|(_, _, range)| range.start);
        found
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
        show::value::echo(&self.engine, v, self.front().look().width())
    }
    /// A value as `print` shows it.
    pub fn print_form(&self, v: &Dynamic) -> String {
        super::report::print_form(&self.engine, v)
    }
}
