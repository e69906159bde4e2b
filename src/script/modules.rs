//! `import`: beside the importing file, beside the script, in `LD3SH_PATH`, then among the modules compiled in.
use super::closures::{Environment, bind};
use super::context::{Origin, SharedRun};
use crate::access::policy;
use crate::files::atomic;
use crate::{Error, Kind, Result};
use rhai::{AST, Engine, EvalAltResult, GlobalRuntimeState, Module, ModuleResolver, Position, Scope, Shared};
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// The modules compiled in: name, text.
pub const STDLIB: &[(&str, &str)] = &[
    ("amed", include_str!("../../stdlib/amed.rhai")),
    ("ays", include_str!("../../stdlib/ays.rhai")),
    ("bezier", include_str!("../../stdlib/bezier.rhai")),
    ("bns", include_str!("../../stdlib/bns.rhai")),
    ("cache", include_str!("../../stdlib/cache.rhai")),
    ("coefficients", include_str!("../../stdlib/coefficients.rhai")),
    ("discriminator", include_str!("../../stdlib/discriminator.rhai")),
    ("dyweight", include_str!("../../stdlib/dyweight.rhai")),
    ("epd", include_str!("../../stdlib/epd.rhai")),
    ("experiment", include_str!("../../stdlib/experiment.rhai")),
    ("free", include_str!("../../stdlib/free.rhai")),
    ("ggdm", include_str!("../../stdlib/ggdm.rhai")),
    ("gits", include_str!("../../stdlib/gits.rhai")),
    ("gs", include_str!("../../stdlib/gs.rhai")),
    ("ld3", include_str!("../../stdlib/ld3.rhai")),
    ("learn", include_str!("../../stdlib/learn.rhai")),
    ("measure", include_str!("../../stdlib/measure.rhai")),
    ("nn", include_str!("../../stdlib/nn.rhai")),
    ("oss", include_str!("../../stdlib/oss.rhai")),
    ("s4s", include_str!("../../stdlib/s4s.rhai")),
    ("shapes", include_str!("../../stdlib/shapes.rhai")),
    ("shares", include_str!("../../stdlib/shares.rhai")),
    ("squares", include_str!("../../stdlib/squares.rhai")),
    ("tools", include_str!("../../stdlib/tools.rhai")),
    ("train", include_str!("../../stdlib/train.rhai")),
];

type Located<T> = std::result::Result<T, Box<EvalAltResult>>;

/// A module's text, found.
pub struct Found {
    /// The name that errors and `provenance()` show: the file's path, or `stdlib/ld3.rhai`.
    pub origin: String,
    /// What it contains.
    pub text: String,
    /// Whether it is a file, and not compiled in.
    pub file: bool,
    /// The built-in module in whose place it stands.
    pub replaces: Option<&'static str>,
}

/// Reads a file as UTF-8.
///
/// # Errors
/// [`Kind::Io`] if it cannot be read; [`Kind::Format`] if it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    atomic::read_text(path)
}

/// Rhai does not know `#!` lines: makes the first line blank, of the same length.
pub fn without_shebang(text: &str) -> String {
    if !text.starts_with("#!") {
        return text.to_string();
    }
    let end = text.find('\n').unwrap_or(text.len());
    format!("{}{}", " ".repeat(text[..end].chars().count()), &text[end..])
}

/// Where `name`, imported by `importer` in a run of `script`, is looked for, in this order.
fn candidates(name: &str, importer: Option<&str>, script: Option<&str>) -> Vec<PathBuf> {
    let file = if name.ends_with(".rhai") { name.to_string() } else { format!("{name}.rhai") };
    let folder = |f: &str| Path::new(f).parent().map(Path::to_path_buf);
    let here = |f: Option<&str>| f.filter(|f| Path::new(f).is_file()).and_then(folder);
    let mut folders: Vec<PathBuf> = Vec::new();
    folders.extend(here(importer));
    folders.extend(here(script));
    if script.is_none() {
        // a REPL, `-e` or standard input lives in the current folder
        folders.push(PathBuf::new());
    }
    if let Some(path) = std::env::var_os("LD3SH_PATH") {
        folders.extend(std::env::split_paths(&path).filter(|p| !p.as_os_str().is_empty()));
    }
    let mut seen = Vec::new();
    for f in folders {
        let full = f.join(&file);
        if !seen.contains(&full) {
            seen.push(full);
        }
    }
    seen
}

/// Finds a module.
///
/// # Errors
/// [`Kind::Io`] if there is none (with the places that were searched), or its file cannot be read.
pub fn find(name: &str, importer: Option<&str>, script: Option<&str>) -> Result<Found> {
    let tried = candidates(name, importer, script);
    let bare = name.strip_prefix("stdlib/").unwrap_or(name);
    let bare = bare.strip_suffix(".rhai").unwrap_or(bare);
    let built_in = STDLIB.iter().find(|(n, _)| *n == bare);
    for path in &tried {
        // a folder or a broken link of that name is no module; anything else that is there must be readable
        if path.is_file() {
            let replaces = built_in.map(|(n, _)| *n);
            if let Some(name) = replaces.filter(|_| policy::untrusted()) {
                return Err(policy::shadowed(path, name));
            }
            // no file is taken for a built-in module: they are kept by their origin
            let beside = if path.starts_with("stdlib") { "./" } else { "" };
            let origin = format!("{beside}{}", path.display());
            return Ok(Found { origin, text: without_shebang(&read_text(path)?), file: true, replaces });
        }
    }
    if let Some((n, text)) = built_in {
        return Ok(Found { origin: format!("stdlib/{n}.rhai"), text: text.to_string(), file: false, replaces: None });
    }
    let known = STDLIB.iter().map(|(n, _)| *n);
    let near = match crate::error::nearest(bare, known.clone()) {
        Some(n) => format!("did you mean `{n}`? "),
        None => String::new(),
    };
    let places: Vec<String> = tried.iter().map(|p| format!("`{}`", p.display())).collect();
    let e = Error::new(Kind::Io, format!("there is no module `{name}`"));
    let all: Vec<&str> = known.collect();
    Err(e.hint(format!("{near}looked for {}, then among the built-in ones: {}", places.join(", "), all.join(", "))))
}

/// Resolves `import` in a run.
pub struct Resolver {
    run: SharedRun,
    /// Modules that are being loaded, outermost first.
    loading: RefCell<Vec<String>>,
}

impl Resolver {
    /// A resolver that records what it loads in `run`.
    pub fn new(run: SharedRun) -> Self {
        Resolver { run, loading: Default::default() }
    }

    fn load(&self, engine: &Engine, name: &str, found: &Found) -> Located<Shared<Module>> {
        let origin = &found.origin;
        {
            let mut run = self.run.borrow_mut();
            run.sources.insert(origin.clone(), found.text.clone());
        }
        let env = Environment::with_variables();
        let ast = compile(engine, origin, &found.text)
            .map_err(|e| EvalAltResult::ErrorInModule(origin.clone(), e.into(), Position::NONE))?;
        let ast = bind(engine, &ast, &found.text, &env);
        let module = Module::eval_ast_as_new(Scope::new(), &ast, engine)
            .map_err(|e| EvalAltResult::ErrorInModule(origin.clone(), e, Position::NONE))?;
        let mut run = self.run.borrow_mut();
        run.modules.push(Origin::new(name, origin, &found.text));
        run.homes.insert(origin.clone(), env);
        Ok(module.into())
    }
}

/// Parses a module or script; its source name is `origin`.
pub fn compile(engine: &Engine, origin: &str, text: &str) -> std::result::Result<AST, rhai::ParseError> {
    let mut ast = engine.compile(text)?;
    if let Some(at) = open_comment(engine, text) {
        let what = rhai::LexError::Runtime("this comment has no end: `*/` is missing".into());
        return Err(rhai::ParseError(rhai::ParseErrorType::BadInput(what).into(), at));
    }
    ast.set_source(origin);
    Ok(ast)
}

/// Where the comment begins in which a text that parses ends. (To Rhai, the end of the text ends it too.)
fn open_comment(engine: &Engine, text: &str) -> Option<Position> {
    // a bracket that nothing opened is an error, unless a comment takes it in
    if !text.contains("/*") || engine.compile(format!("{text}\n)")).is_err() {
        return None;
    }
    let (mut starts, mut at) = (vec![], 0);
    while let Some(pair) = text.as_bytes().get(at..at + 2) {
        match pair {
            b"/*" => starts.push(at),
            b"*/" => drop(starts.pop()),
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    let before = &text[..*starts.first()?];
    let line = before.rfind('\n').map_or(0, |i| i + 1);
    let number = |n: usize| u16::try_from(n + 1).unwrap_or(u16::MAX);
    Some(Position::new(number(before.matches('\n').count()), number(before[line..].chars().count())))
}

impl ModuleResolver for Resolver {
    fn resolve(&self, engine: &Engine, source: Option<&str>, path: &str, pos: Position) -> Located<Shared<Module>> {
        let located = |e: Error| {
            let mut e: Box<EvalAltResult> = e.into();
            e.set_position(pos);
            e
        };
        let script = self.run.borrow().script.as_ref().map(|s| s.origin.clone());
        let found = find(path, source, script.as_deref()).map_err(located)?;
        if let Some(m) = self.run.borrow().loaded.get(&found.origin) {
            return Ok(m.clone());
        }
        if let Some(start) = self.loading.borrow().iter().position(|l| *l == found.origin) {
            let mut chain = self.loading.borrow()[start..].to_vec();
            chain.push(found.origin.clone());
            let e = Error::new(Kind::Name, format!("modules import each other in a circle: {}", chain.join(" → ")));
            return Err(located(e.hint("move what both need into a third module")));
        }
        self.loading.borrow_mut().push(found.origin.clone());
        if let Some(name) = found.replaces {
            crate::host::note(&format!("`{}` replaces the built-in module `{name}`", found.origin));
        }
        let module = {
            let _whose = if found.file { policy::enter_file() } else { policy::enter_built_in() };
            self.load(engine, path, &found)
        };
        self.loading.borrow_mut().pop();
        let module = module.map_err(|mut e| {
            e.set_position(pos);
            e
        })?;
        self.run.borrow_mut().loaded.insert(found.origin, module.clone());
        Ok(module)
    }

    fn resolve_raw(
        &self,
        engine: &Engine,
        global: &mut GlobalRuntimeState,
        _: &mut Scope,
        path: &str,
        pos: Position,
    ) -> Located<Shared<Module>> {
        let source = global.source().map(str::to_string);
        self.resolve(engine, source.as_deref(), path, pos)
    }
}
