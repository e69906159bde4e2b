//! Uncaught errors as rustc prints them: place, line, what is wrong, what would help, and the calls that led there.
use super::hints::{self, Place};
use super::names::Names;
use super::outcome::Failure;
use super::screen::wrap;
use super::session::Session;
use crate::access::clean;
use crate::error::nearest;
use crate::script::caught::{self, Cause};
use crate::script::closures::Stopped;
use crate::script::error::offset;
use crate::script::front::Look;
use crate::{Error, Kind};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use rhai::{Engine, EvalAltResult, EvalContext, ParseErrorType, Position};
use std::collections::BTreeMap;
use std::ops::Range;
use unicode_width::UnicodeWidthStr;

/// How many callers are shown at each end of a long chain.
const CALLERS: usize = 3;

/// A place and what stands there.
struct Frame {
    source: String,
    at: Position,
    text: String,
}

/// Shows a failure where the session shows things.
pub fn tell(failure: Failure, session: &Session) {
    let front = session.front();
    if failure.cancelled() {
        front.interrupted();
    }
    front.report(&render(failure, session, front.report_look()));
}

/// Renders a failure; `look` is a front's, or says whether to colour.
pub fn render(failure: Failure, session: &Session, look: impl Into<Look>) -> String {
    let mut frames = Vec::new();
    let mut source = failure.source;
    let mut error = failure.error;
    loop {
        match *error {
            EvalAltResult::ErrorInFunctionCall(name, callee, inner, at) => {
                let text = format!("in {}, called here", function(&name));
                frames.push(Frame { source: source.clone(), at, text });
                if !callee.is_empty() {
                    source = callee;
                }
                error = inner;
            }
            EvalAltResult::ErrorInModule(name, inner, at) => {
                frames.push(Frame { source: source.clone(), at, text: format!("in module `{name}`, imported here") });
                source = name;
                error = inner;
            }
            _ => break,
        }
    }
    let mut at = error.take_position();
    if let EvalAltResult::ErrorTerminated(token, _) = &*error
        && let Some(stopped) = token.read_lock::<Stopped>()
    {
        // Rhai keeps the place of the outermost call; the calls inside it say where they were
        for p in stopped.places.iter().rev() {
            let text = format!("in {}, called here", function(&p.function));
            frames.push(Frame { source: std::mem::replace(&mut source, p.source.clone()), at, text });
            at = p.at;
        }
    }
    if caught::cause(&error) == Some(Cause::Caller) {
        // out of the function that was called wrongly; out of its whole module, if it is one, and of those built in that called it
        let (module, main) = (source.clone(), session.run().borrow().main.clone());
        while let Some(call) = frames.pop() {
            (source, at) = (call.source, call.at);
            if module == main || (source != module && !source.starts_with("stdlib/")) {
                break;
            }
        }
    }
    let text = session.run().borrow().sources.get(&source).cloned();
    let place = text.as_deref().and_then(|t| place(t, at));
    let mut told = describe(&error, &Known::of(session), !frames.is_empty(), place.as_ref());
    let lost = matches!(&*error, EvalAltResult::ErrorRuntime(v, _) if caught::error_of(v).is_some_and(|e| e.kind() == Kind::Io));
    if lost && session.run().borrow().script.is_some() && !session.scope().is_empty() {
        told =
            told.help("with `--inspect` a prompt opens after an error, and what the script holds by then can be saved");
    }
    frames.retain(|f| !f.at.is_none() && (f.at != at || f.source != source));
    frames.reverse();
    // recursion, and a closure called in a loop of native code, come through one place again and again
    frames.dedup_by(|a, b| a.at == b.at && a.source == b.source);
    let run = session.run().borrow();
    draw(&told, &Frame { source, at, text: told.label.clone() }, &frames, &run.sources, look.into())
}

/// How a report names a function.
fn function(name: &str) -> String {
    if name.contains('$') { "this closure".into() } else { format!("`{name}`") }
}

/// What an error of the language is to `catch`: message, kind and fix, as its report has them.
pub fn caught(error: &EvalAltResult, context: &EvalContext) -> Error {
    let scope = context.scope();
    let known = Known {
        engine: context.engine(),
        variables: scope.iter_raw().map(|(name, ..)| name.to_string()).collect(),
        declared: vec![],
        functions: vec![],
    };
    let told = describe(error, &known, false, None);
    let kind = match error {
        // the name is right, the arguments are not
        EvalAltResult::ErrorFunctionNotFound(signature, _) => match known.signatures(name_of(signature)).is_empty() {
            true => Kind::Name,
            false => Kind::Type,
        },
        other => caught::kind(other),
    };
    let e = Error::new(kind, told.message);
    if told.helps.is_empty() { e } else { e.hint(told.helps.join("\n")) }
}

/// Renders an error that has no place in a script (a bad `--set`).
pub fn render_plain(error: &crate::Error, look: impl Into<Look>) -> String {
    let told = Told {
        message: error.message().into(),
        label: String::new(),
        notes: error.compared_shapes().into_iter().collect(),
        helps: error.fix().map(String::from).into_iter().collect(),
    };
    let nowhere = Frame { source: String::new(), at: Position::NONE, text: String::new() };
    draw(&told, &nowhere, &[], &BTreeMap::new(), look.into())
}

/// Message, the note at the underlined token, and help lines: of text that may come from files and scripts.
struct Told {
    message: String,
    label: String,
    notes: Vec<String>,
    helps: Vec<String>,
}

fn told(message: impl Into<String>) -> Told {
    Told { message: message.into(), label: String::new(), notes: vec![], helps: vec![] }
}

impl Told {
    fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }
    fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
    fn help(mut self, help: impl Into<String>) -> Self {
        self.helps.push(help.into());
        self
    }
}

/// The names among which a slip is looked for.
struct Known<'a> {
    engine: &'a Engine,
    /// Variables that are there.
    variables: Vec<String>,
    /// Variables that the session's sources declare, as far as their text shows.
    declared: Vec<String>,
    /// Functions that they define.
    functions: Vec<String>,
}

impl<'a> Known<'a> {
    fn of(session: &'a Session) -> Self {
        let (mut declared, mut functions) = (Vec::new(), Vec::new());
        for text in session.run().borrow().sources.values() {
            let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty());
            while let Some(w) = words.next() {
                match w {
                    "let" | "const" | "for" => declared.extend(words.next().map(String::from)),
                    "fn" => functions.extend(words.next().map(String::from)),
                    _ => {}
                }
            }
        }
        let variables = session.scope().iter_raw().map(|(n, ..)| n.to_string()).collect();
        Known { engine: session.engine(), variables, declared, functions }
    }
    /// The signatures of native functions of that name.
    fn signatures(&self, name: &str) -> Vec<String> {
        Names::of(self.engine).signatures(name).iter().filter(|s| for_scripts(s)).cloned().collect()
    }
    fn variable(&self, name: &str) -> bool {
        self.variables.iter().chain(&self.declared).any(|w| w == name)
    }
    fn function(&self, name: &str) -> bool {
        self.functions.iter().any(|w| w == name)
    }
    fn words(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().chain(&self.functions).map(String::as_str)
    }
}

fn describe(error: &EvalAltResult, session: &Known, in_function: bool, place: Option<&Place>) -> Told {
    use EvalAltResult as E;
    match error {
        E::ErrorRuntime(v, _) => match caught::error_of(v) {
            Some(e) => {
                let t = e.compared_shapes().into_iter().fold(told(e.message()), Told::note);
                e.fix().into_iter().fold(t, Told::help)
            }
            None => told(match v.is_unit() {
                true => "the script threw an error without a message".into(),
                false => print_form(session.engine, v),
            }),
        },
        E::ErrorParsing(p, _) => describe_parse(p, session, place),
        E::ErrorVariableNotFound(name, _) => unknown_variable(name, session, in_function, place),
        E::ErrorFunctionNotFound(signature, _) => unknown_function(signature, session),
        E::ErrorModuleNotFound(name, _) => unknown_module(name, session),
        E::ErrorTerminated(token, _) => {
            let what = token.read_lock::<Stopped>().map(|s| s.what.clone()).filter(|w| !w.is_empty());
            told("stopped by Ctrl-C").label(what.map_or("was running here".into(), |w| format!("was in {w}")))
        }
        E::ErrorStackOverflow(_) => told("calls are nested too deeply").help("does the recursion end?"),
        E::ErrorDataRace(what, _) => told(format!("{what} is in use by the call that runs this closure"))
            .help("copy it before the closure captures it: `let copy = x;`"),
        E::ErrorAssignmentToConstant(name, _) => {
            told(format!("`{name}` is a constant")).help("declare it with `let` to change it")
        }
        E::ErrorMismatchOutputType(want, got, _) | E::ErrorMismatchDataType(want, got, _) => {
            told(format!("expected {}, found {}", spoken_type(want), spoken_type(got)))
        }
        E::ErrorDotExpr(what, _) => unknown_property(what, session).unwrap_or_else(|| told(what.as_str())),
        E::ErrorSystem(what, e) if what.is_empty() => told(e.to_string()),
        E::ErrorSystem(what, _) => told(what.as_str()),
        other => told(other.to_string()),
    }
}

fn describe_parse(p: &ParseErrorType, session: &Known, place: Option<&Place>) -> Told {
    match p {
        ParseErrorType::VariableUndefined(name) => unknown_variable(name, session, false, place),
        ParseErrorType::ModuleUndefined(name) => unknown_module(name, session),
        ParseErrorType::ExprTooDeep => {
            told("this expression is nested too deeply").help("split it: give parts of it names with `let`")
        }
        ParseErrorType::UnexpectedEOF => {
            told("the script ends in the middle of something").help("is a bracket or a quote left open?")
        }
        other => {
            let message = other.to_string();
            let t = told(format!("syntax error: {message}"));
            place.and_then(|p| hints::syntax(&message, p)).into_iter().fold(t, Told::help)
        }
    }
}

fn unknown_variable(name: &str, session: &Known, in_function: bool, place: Option<&Place>) -> Told {
    let names = Names::of(session.engine);
    if !names.signatures(name).is_empty() && name.contains("::") {
        return told(format!("`{name}` is a function")).help(format!("call it: `{name}()`"));
    }
    let t = told(format!("unknown variable `{name}`"));
    if let Some(hint) = hints::variable(name, place) {
        return t.help(hint);
    }
    if let Some((method, rest)) = place.and_then(|p| p.after.strip_prefix('.')).map(leading_word)
        && names.namespaces().contains(name)
    {
        let open = if rest.starts_with('(') { "(…)" } else { "" };
        return t.label("a module of functions").help(format!("write `{name}::{method}{open}`"));
    }
    if !names.signatures(name).is_empty() && !session.words().any(|w| w == name) {
        return told(format!("`{name}` is a function")).help(format!("call it: `{name}(…)`; `{name}?` explains it"));
    }
    if session.words().any(|w| w == name) {
        // it is declared somewhere, but not for here
        return match in_function && session.variables.iter().any(|v| v == name) {
            true => t
                .label("not declared yet when this function was called")
                .help(format!("declare `{name}` before the call, or pass it as an argument")),
            false => t
                .label("not declared here")
                .help(format!("a variable ends with its block `{{ }}` or function: declare `{name}` at the top level, or pass it as an argument")),
        };
    }
    let near = nearest(name, session.variables.iter().map(String::as_str))
        .or_else(|| nearest(name, session.words()))
        .or_else(|| nearest(name, names.all().filter(|n| n.starts_with(char::is_alphabetic))));
    match near {
        Some(n) => t.help(format!("did you mean `{n}`?")),
        None => t.help(format!("declare it first: `let {name} = …;`")),
    }
}

/// The word with which a text begins, and the rest.
fn leading_word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()))
}

/// Whether a signature is about values that scripts have: Rhai's operators also take Rust's other numbers.
fn for_scripts(signature: &str) -> bool {
    const OTHERS: [&str; 10] = ["i8", "i16", "i32", "i128", "u8", "u16", "u32", "u64", "u128", "f32"];
    !signature.split(|c: char| !c.is_alphanumeric()).any(|word| OTHERS.contains(&word))
}

/// The users' name of a type that Rhai names.
fn spoken_type(name: &str) -> &str {
    match name {
        "i64" => "int",
        "f64" => "float",
        "Fn" => "function",
        other => other.rsplit("::").next().unwrap_or(other).trim_end_matches('>'),
    }
}

/// The name in Rhai's `f (i64, f64)`.
fn name_of(signature: &str) -> &str {
    signature.split_once('(').map_or(signature, |(name, _)| name).trim()
}

/// A value as `print` shows it.
pub(super) fn print_form(engine: &Engine, v: &rhai::Dynamic) -> String {
    match v.as_immutable_string_ref() {
        Ok(s) => s.to_string(),
        Err(_) => engine.eval_fn_call::<String>("to_string", None, (v.clone(),)).unwrap_or_else(|_| v.to_string()),
    }
}

fn unknown_function(signature: &str, session: &Known) -> Told {
    let (name, types) = match signature.split_once('(') {
        Some((n, t)) => (n.trim(), t.trim_end().trim_end_matches(')')),
        None => (signature.trim(), ""),
    };
    let types = types.replace("&str | ImmutableString | String", "string").replace("ImmutableString", "string");
    let types = types.split(", ").map(spoken_type).collect::<Vec<_>>().join(", ");
    let list: Vec<&str> = types.split(", ").filter(|t| !t.is_empty()).collect();
    let names = Names::of(session.engine);
    let known: Vec<&String> = names.signatures(name).iter().filter(|s| for_scripts(s)).collect();
    let own = session.function(name);
    if name == "closure" {
        let s = if list.len() == 1 { "" } else { "s" };
        return told(format!("this closure does not take {} argument{s}", list.len()))
            .label(format!("called with ({types})"));
    }
    if known.is_empty() && !own && session.variable(name) {
        return told(format!("`{name}` is a variable, not a function"))
            .label(format!("called with ({types})"))
            .help(format!("what it holds is called by `{name}.call(…)`"));
    }
    let t = match (known.is_empty(), own) {
        (false, _) => told(format!("`{name}` does not take ({types})")).label("no version of it fits these arguments"),
        (true, true) => {
            let s = if list.len() == 1 { "" } else { "s" };
            told(format!("there is no `{name}` that takes {} argument{s}", list.len()))
                .label(format!("called with ({types})"))
        }
        (true, false) => told(format!("unknown function `{name}`")).label(format!("called with ({types})")),
    };
    if own && known.is_empty() {
        return t;
    }
    if let Some(hint) = hints::function(name, &list) {
        return t.help(hint);
    }
    if !known.is_empty() {
        let mut fitting = known.clone();
        // those for the given object first
        let object = list.first().copied().unwrap_or_default();
        let takes = |s: &str| s.contains(&format!(": {object}")) || s.contains(&format!("mut {object}"));
        fitting.sort_by_key(|s| (super::names::arity(s) != list.len(), !takes(s), s.len(), s.as_str()));
        let mut list: Vec<String> = fitting.iter().take(4).map(|s| format!("  {}", short(s))).collect();
        if known.len() > 4 {
            list.push(format!("  … and {} more", known.len() - 4));
        }
        return t.help(format!("it takes one of\n{}", list.join("\n")));
    }
    if list.len() == 1 && names.has_property(name) {
        return t.help(format!("it is a property, without brackets: `x.{name}`"));
    }
    let mut inside: Vec<&str> = names.all().filter(|n| n.rsplit_once("::").is_some_and(|(_, f)| f == name)).collect();
    // `schedule.edm(…)`: the module that makes such objects first
    let module = format!("{}::", list.first().copied().unwrap_or_default().to_lowercase());
    inside.sort_by_key(|n| !n.starts_with(&module));
    if let Some(full) = inside.first() {
        return t.help(format!("it is a function of a module: `{full}(…)`"));
    }
    let all = names.all().filter(|n| n.starts_with(char::is_alphabetic));
    match nearest(name, all.chain(session.words())) {
        Some(n) => t.help(format!("did you mean `{n}`?")),
        None => t,
    }
}

/// A signature without the paths and the wrappers of its types.
fn short(signature: &str) -> String {
    let head = signature.split(" -> ").next().unwrap_or(signature);
    let names = [
        ("&mut ", ""),
        ("mut ", ""),
        ("ImmutableString", "string"),
        ("DynDenoiser", "Denoiser"),
        ("TracedGraph", "Graph"),
        ("ScriptSolver", "Solver"),
        (": Tracked", ": Plan"),
        (": i64", ": int"),
        (": f64", ": float"),
    ];
    names.iter().fold(head.to_string(), |s, (from, to)| s.replace(from, to))
}

/// Rhai's `Unknown property 'c' - a getter is not registered for type '()'`.
fn unknown_property(what: &str, session: &Known) -> Option<Told> {
    if let Some(rest) = what.strip_prefix("No writable property ") {
        let mut quoted = rest.split('\'').skip(1).step_by(2);
        let (name, of) = (quoted.next()?, spoken_type(quoted.next()?));
        let names = Names::of(session.engine);
        return Some(match names.has_property(name) {
            true => told(format!("`{name}` of a {of} is read only")),
            false => told(format!("a {of} has no property `{name}`")),
        });
    }
    let mut quoted = what.strip_prefix("Unknown property ")?.split('\'').skip(1).step_by(2);
    let (name, of) = (quoted.next()?, quoted.next()?);
    Some(match of {
        "()" => told(format!("`()` has no property `{name}`")).label("what stands before the dot is `()`, nothing"),
        _ => {
            let t = told(format!("a value of type {} has no property `{name}`", spoken_type(of)));
            let names = Names::of(session.engine);
            match nearest(name, names.properties()) {
                _ if !names.signatures(name).is_empty() => t.help(format!("call the method: `.{name}(…)`")),
                Some(n) => t.help(format!("did you mean `{n}`?")),
                None => t,
            }
        }
    })
}

fn unknown_module(name: &str, session: &Known) -> Told {
    let names = Names::of(session.engine);
    let root = name.split("::").next().unwrap_or(name);
    let built_in = crate::script::modules::STDLIB.iter().map(|(n, _)| *n);
    let t = told(format!("unknown module `{root}`"));
    if session.variable(root) || session.function(root) {
        return t.label("a variable").help(format!("methods of a value are called with a dot: `{root}.f(…)`"));
    }
    if built_in.clone().any(|n| n == root) {
        return t.help(format!("import it first: `import \"{root}\" as {root};`"));
    }
    match nearest(root, names.namespaces().into_iter().chain(built_in)) {
        Some(n) => t.help(format!("did you mean `{n}`?")),
        None => t,
    }
}

/// What stands at a position, and around it in its line.
fn place(text: &str, at: Position) -> Option<Place<'_>> {
    let range = token(text, at)?;
    let start = text[..range.start].rfind('\n').map_or(0, |i| i + 1);
    let end = text[range.end..].find('\n').map_or(text.len(), |i| range.end + i);
    let above = text[..start].lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default();
    Some(Place { above, before: &text[start..range.start], token: &text[range.clone()], after: &text[range.end..end] })
}

/// The bytes of the token at a position.
fn token(text: &str, at: Position) -> Option<Range<usize>> {
    let begin = offset(text, at)?;
    let rest = &text[begin..];
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let length = match rest.chars().next() {
        None | Some('\n') => 0,
        Some(c) if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
        Some(q @ ('"' | '`')) => rest[1..].find(q).map_or(1, |n| n + 2),
        Some(c) => c.len_utf8(),
    };
    Some(begin..begin + length)
}

/// A title whose lines fit the terminal; those after the first stand below the first's text.
fn titled(text: &str, look: Look) -> String {
    // `error: `; notes, which are shorter, go as far
    const MARGIN: usize = 7;
    match look.columns {
        Some(width) => {
            let most = width.saturating_sub(MARGIN);
            let fold = |l: &str| if l.width() > most { wrap(l, most) } else { vec![l.to_string()] };
            text.lines().flat_map(fold).collect::<Vec<_>>().join("\n")
        }
        None => text.to_string(),
    }
}

/// A help text whose lines fit the terminal, behind the margin, if there is one.
fn fitted(help: &str, look: Look) -> String {
    // `  = help: `, and line numbers of up to two digits
    const MARGIN: usize = 11;
    match look.columns {
        Some(width) => {
            let mut lines = Vec::new();
            for l in help.lines() {
                // an indented line goes on with a deeper indent
                let first = " ".repeat(l.chars().take_while(|c| *c == ' ').count());
                let rest = if first.is_empty() { String::new() } else { format!("{first}  ") };
                for (i, part) in wrap(l.trim_start(), width.saturating_sub(MARGIN + rest.len())).iter().enumerate() {
                    lines.push(format!("{}{part}", if i == 0 { &first } else { &rest }));
                }
            }
            lines.join("\n")
        }
        None => help.to_string(),
    }
}

/// Whether a label fits behind the marked token, in the line below it.
fn has_room(label: &str, text: &str, at: Position, look: Look) -> bool {
    // `1 | `, of line numbers with up to two digits, and the blank before the label
    const MARGIN: usize = 6;
    let Some((width, marked)) = look.columns.zip(token(text, at)) else { return true };
    let line = text[..marked.start].rfind('\n').map_or(0, |i| i + 1);
    // a line that is cut keeps some of what stands before the token
    let before = text[line..marked.start].width().min(width / 4);
    MARGIN + before + text[marked].width() + label.width() <= width
}

/// Without control characters, which a terminal would obey.
fn cleaned(told: &Told) -> Told {
    let one = |s: &String| clean(s).into_owned();
    let all = |texts: &[String]| texts.iter().map(one).collect();
    Told { message: one(&told.message), label: one(&told.label), notes: all(&told.notes), helps: all(&told.helps) }
}

fn draw(told: &Told, place: &Frame, callers: &[Frame], sources: &BTreeMap<String, String>, look: Look) -> String {
    let told = &cleaned(told);
    let snippet = |f: &Frame, kind: AnnotationKind| -> Option<Snippet<annotate_snippets::Annotation>> {
        let text = sources.get(&f.source)?;
        let mark = kind.span(token(text, f.at)?);
        let mark = if f.text.is_empty() { mark } else { mark.label(clean(&f.text).into_owned()) };
        Some(Snippet::source(text.clone()).path(clean(&f.source).into_owned()).annotation(mark))
    };
    let room = sources.get(&place.source).is_none_or(|text| has_room(&place.text, text, place.at, look));
    let bare = Frame { source: place.source.clone(), at: place.at, text: String::new() };
    let snip = snippet(if room { place } else { &bare }, AnnotationKind::Primary);
    let mut main = Level::ERROR.primary_title(titled(&told.message, look)).elements(snip);
    if !room {
        main = main.element(Level::NOTE.message(fitted(&clean(&place.text), look)));
    }
    for n in &told.notes {
        main = main.element(Level::NOTE.message(n.clone()));
    }
    for h in &told.helps {
        main = main.element(Level::HELP.message(fitted(h, look)));
    }
    let mut groups: Vec<Group> = vec![main];
    let hidden = callers.len().saturating_sub(2 * CALLERS);
    for (i, f) in callers.iter().enumerate() {
        if hidden > 1 && (CALLERS..callers.len() - CALLERS).contains(&i) {
            if i == CALLERS {
                groups.push(Group::with_title(Level::NOTE.secondary_title(format!("… {hidden} more calls …"))));
            }
        } else if let Some(s) =
            snippet(&Frame { source: f.source.clone(), at: f.at, text: String::new() }, AnnotationKind::Primary)
        {
            groups.push(Level::NOTE.secondary_title(titled(&clean(&f.text), look)).element(s));
        }
    }
    let renderer = if look.color { Renderer::styled() } else { Renderer::plain() };
    // longer lines of code are cut around what is marked
    let renderer = look.columns.map_or(renderer.clone(), |width| renderer.term_width(width));
    let drawn = renderer.render(&groups);
    match look.rows.is_some_and(|rows| drawn.lines().count() >= rows) {
        true => again(drawn, &told.message, look),
        false => drawn,
    }
}

/// A report that is longer than the screen, with what it says once more at its end.
fn again(drawn: String, message: &str, look: Look) -> String {
    let renderer = if look.color { Renderer::styled() } else { Renderer::plain() };
    let title = Group::with_title(Level::ERROR.primary_title(titled(message, look)));
    format!("{drawn}\n{}", renderer.render(&[title]))
}
