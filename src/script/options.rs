//! Options in `#{ … }`, read whole by their schema: names, kinds, ranges, words.
use super::error::{RhaiResult, type_of};
use crate::schema::{Kind, Opt, Schema, Value, integer, value, word};
use crate::tensor::device::{default_device, parse_device};
use crate::tensor::dtype;
use crate::{Error, Kind as ErrorKind};
use candle_core::{DType, Device};
use rhai::{Array, Dynamic, FnPtr, Map};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

thread_local! {
    /// The keys that each function knew, while somebody wants to know.
    static KNOWN: RefCell<Option<BTreeMap<String, BTreeSet<String>>>> = const { RefCell::new(None) };
}

/// Starts to collect, on this thread, the keys that functions accept.
pub fn collect_keys() {
    KNOWN.set(Some(BTreeMap::new()));
}

/// The keys collected since [`collect_keys`], by function; ends the collection.
pub fn collected_keys() -> BTreeMap<String, BTreeSet<String>> {
    KNOWN.take().unwrap_or_default()
}

/// Adds keys that function `of` accepts to the collection, if there is one.
pub fn note_keys<'a>(of: &str, keys: impl IntoIterator<Item = &'a str>) {
    KNOWN.with_borrow_mut(|known| {
        if let Some(known) = known {
            known.entry(of.to_string()).or_default().extend(keys.into_iter().map(str::to_string));
        }
    });
}

/// What random numbers are drawn by.
pub const SEED: Opt = integer("seed", 0, "of the draws");
/// The same, where the session has a sequence of seeds.
pub const SESSION_SEED: Opt = SEED.or("the session's next");

/// Where tensors are.
pub const DEVICE: Opt = value("device", Kind::Text, "that of `--device`", "\"cpu\" or \"cuda:0\"");
/// In which type of numbers a network runs.
pub const PRECISION: Opt = word("dtype", &["f32", "f64"], "");

/// The options that a function was given, checked.
pub struct Given {
    of: String,
    entries: Vec<(&'static Opt, Option<Dynamic>)>,
}

impl Schema {
    /// The options that a script gives; `()` counts as absent.
    ///
    /// # Errors
    /// An unknown name, a value of another kind or out of range, a word that is none of the option's, one that must be given and is not.
    pub fn read(&self, map: Map) -> RhaiResult<Given> {
        read(self.of, self.options(), map)
    }
}

/// As [`Schema::read`], for a function whose options stand elsewhere.
pub fn read(of: &str, options: impl Iterator<Item = &'static Opt> + Clone, mut map: Map) -> RhaiResult<Given> {
    note_keys(of, options.clone().map(|o| o.name));
    if let Some(key) = map.keys().find(|k| !options.clone().any(|o| o.name == k.as_str())) {
        let known: BTreeSet<&str> = options.map(|o| o.name).collect();
        return Err(Error::unknown(&format!("option of {of}"), key, known).into());
    }
    let one = |opt: &'static Opt| match map.remove(opt.name).map(Dynamic::flatten).filter(|v| !v.is_unit()) {
        None if !opt.needed.is_empty() => {
            let e = Error::value(format!("{of} needs the option `{}`", opt.name));
            Err(e.hint(format!("for example `{}: {}`", opt.name, opt.needed)))
        }
        None => Ok((opt, None)),
        Some(v) => match check(&opt.kind, &v) {
            Ok(()) => Ok((opt, Some(v))),
            Err(Fault::Kind) => {
                let not = format!("{} ({}){}", type_of(&v), short(&v), culprit(&opt.kind, &v));
                Err(opt.wrong(of, ErrorKind::Type, &not))
            }
            Err(Fault::Range) => {
                Err(opt.wrong(of, ErrorKind::Value, &format!("{}{}", short(&v), culprit(&opt.kind, &v))))
            }
            Err(Fault::Word) => match opt.word(&v.to_string()) {
                Some(word) => Ok((opt, Some(word.into()))),
                None => Err(opt.unknown(of, &v.to_string())),
            },
        },
    };
    let entries = options.map(one).collect::<crate::Result<_>>()?;
    Ok(Given { of: of.into(), entries })
}

/// A value in a message: its beginning, where it is long.
fn short(v: &Dynamic) -> String {
    let text = v.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Which entry of an array it is that does not fit, for a message.
fn culprit(kind: &Kind, v: &Dynamic) -> String {
    let inner = match *kind {
        Kind::List(inner, _) => Some(inner),
        Kind::Either(kinds) => {
            kinds.iter().find_map(|k| if let Kind::List(inner, _) = *k { Some(inner) } else { None })
        }
        _ => None,
    };
    let (Some(inner), Some(all)) = (inner, v.read_lock::<Array>()) else { return String::new() };
    let wrong = all.iter().enumerate().find(|(_, v)| check(inner, v).is_err());
    wrong.map(|(i, v)| format!(": [{i}] is {} ({})", type_of(v), short(v))).unwrap_or_default()
}

/// What a value is not.
#[derive(PartialEq)]
enum Fault {
    Kind,
    Range,
    Word,
}

/// A number, an integer among them.
pub fn number_of(v: &Dynamic) -> Option<f64> {
    v.as_float().ok().or_else(|| v.as_int().ok().map(|i| i as f64))
}

fn check(kind: &Kind, v: &Dynamic) -> Result<(), Fault> {
    let is = |yes: bool, fault: Fault| if yes { Ok(()) } else { Err(fault) };
    match *kind {
        Kind::Any => Ok(()),
        Kind::Count(lo, hi) => {
            let i = v.as_int().map_err(|_| Fault::Kind)?;
            is(usize::try_from(i).is_ok_and(|n| (lo..=hi).contains(&n)), Fault::Range)
        }
        Kind::Integer => is(v.is_int(), Fault::Kind),
        Kind::Number(span) => is(span.holds(number_of(v).ok_or(Fault::Kind)?), Fault::Range),
        Kind::Flag => is(v.is_bool(), Fault::Kind),
        Kind::Word(_) if !v.is_string() => Err(Fault::Kind),
        Kind::Word(words) => is(words.iter().any(|w| *w == v.to_string()), Fault::Word),
        Kind::Text => is(v.is_string(), Fault::Kind),
        Kind::Function => is(v.is::<FnPtr>(), Fault::Kind),
        Kind::Map => is(v.is_map(), Fault::Kind),
        Kind::List(kind, n) => {
            let all = v.read_lock::<Array>().ok_or(Fault::Kind)?;
            is(n == 0 || all.len() == n, Fault::Range)?;
            all.iter().try_for_each(|v| check(kind, v))
        }
        Kind::Native(name, _) => is(type_of(v) == name, Fault::Kind),
        Kind::Either(kinds) => {
            let mut fault = Fault::Kind;
            for kind in kinds {
                match check(kind, v) {
                    Ok(()) => return Ok(()),
                    // a value of the right kind says more of what is wrong than those of others
                    Err(Fault::Kind) => {}
                    Err(f) => fault = f,
                }
            }
            Err(fault)
        }
    }
}

impl Given {
    /// The function whose options these are.
    pub fn of(&self) -> &str {
        &self.of
    }
    fn entry(&self, name: &str) -> (Option<&Dynamic>, Value) {
        let found = self.entries.iter().find(|(o, _)| o.name == name);
        debug_assert!(found.is_some(), "{} has no option `{name}`", self.of);
        found.map_or((None, Value::Unset), |(o, v)| (v.as_ref(), o.default))
    }
    /// All options with their values, for those whose kinds have a [`Value`].
    pub fn values(&self) -> impl Iterator<Item = (&'static Opt, Value)> + '_ {
        self.entries.iter().map(|(opt, v)| {
            let value = v.as_ref().and_then(|v| match opt.kind {
                Kind::Count(..) => v.as_int().ok().and_then(|i| usize::try_from(i).ok()).map(Value::Count),
                Kind::Number(_) => number_of(v).map(Value::Number),
                Kind::Flag => v.as_bool().ok().map(Value::Flag),
                Kind::Word(_) => opt.word(&v.to_string()).map(Value::Word),
                _ => None,
            });
            (*opt, value.unwrap_or(opt.default))
        })
    }
    /// An option as it was given.
    pub fn get(&self, name: &str) -> Option<Dynamic> {
        self.entry(name).0.cloned()
    }
    /// Whether an option was given.
    pub fn has(&self, name: &str) -> bool {
        self.entry(name).0.is_some()
    }
    /// An integer from 0, if it is given or has a default.
    pub fn some_count(&self, name: &str) -> Option<usize> {
        match self.entry(name) {
            (Some(v), _) => v.as_int().ok().and_then(|i| usize::try_from(i).ok()),
            (None, Value::Count(n)) => Some(n),
            _ => None,
        }
    }
    /// An integer from 0 that has a default.
    pub fn count(&self, name: &str) -> usize {
        self.some_count(name).unwrap_or_default()
    }
    /// An integer, if it is given or has a default.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.entry(name) {
            (Some(v), _) => v.as_int().ok(),
            (None, Value::Count(n)) => i64::try_from(n).ok(),
            _ => None,
        }
    }
    /// A number, if it is given or has a default.
    pub fn some_number(&self, name: &str) -> Option<f64> {
        match self.entry(name) {
            (Some(v), _) => number_of(v),
            (None, Value::Number(x)) => Some(x),
            _ => None,
        }
    }
    /// A number that has a default.
    pub fn number(&self, name: &str) -> f64 {
        self.some_number(name).unwrap_or_default()
    }
    /// true or false, if it is given or has a default.
    pub fn some_flag(&self, name: &str) -> Option<bool> {
        match self.entry(name) {
            (Some(v), _) => v.as_bool().ok(),
            (None, Value::Flag(b)) => Some(b),
            _ => None,
        }
    }
    /// true or false, with a default.
    pub fn flag(&self, name: &str) -> bool {
        self.some_flag(name).unwrap_or_default()
    }
    /// A word or text, if it is given or has a default.
    pub fn some_text(&self, name: &str) -> Option<String> {
        match self.entry(name) {
            (Some(v), _) => v.clone().into_string().ok(),
            (None, Value::Word(w)) => Some(w.into()),
            _ => None,
        }
    }
    /// A word or text that has a default.
    pub fn text(&self, name: &str) -> String {
        self.some_text(name).unwrap_or_default()
    }
    /// One of an option's words, if it is given or has a default.
    pub fn some_word(&self, name: &str) -> Option<&'static str> {
        let (opt, v) = self.entries.iter().find(|(o, _)| o.name == name)?;
        match (v, opt.default) {
            (Some(v), _) => opt.word(&v.to_string()),
            (None, Value::Word(w)) => Some(w),
            _ => None,
        }
    }
    /// One of an option's words, of which one is the default.
    pub fn word(&self, name: &str) -> &'static str {
        self.some_word(name).unwrap_or_default()
    }
    /// Whether an option is this word.
    pub fn is(&self, name: &str, word: &str) -> bool {
        self.some_word(name) == Some(word)
    }
    /// The values of an array, if it is given.
    pub fn array(&self, name: &str) -> Option<Array> {
        self.entry(name).0.and_then(|v| v.clone().into_array().ok())
    }
    /// Texts, none where they are not given.
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.array(name).unwrap_or_default().iter().map(Dynamic::to_string).collect()
    }
    /// Numbers in an array, if it is given.
    pub fn numbers(&self, name: &str) -> Option<Vec<f64>> {
        self.array(name).map(|a| a.iter().filter_map(number_of).collect())
    }
    /// Integers from 0 in an array, if it is given.
    pub fn counts(&self, name: &str) -> Option<Vec<usize>> {
        let one = |v: &Dynamic| v.as_int().ok().and_then(|i| usize::try_from(i).ok());
        self.array(name).map(|a| a.iter().filter_map(one).collect())
    }
    /// Numbers in the arrays of an array, if it is given.
    pub fn lists(&self, name: &str) -> Option<Vec<Vec<f64>>> {
        let one = |v: &Dynamic| v.read_lock::<Array>().map(|a| a.iter().filter_map(number_of).collect());
        self.array(name).map(|all| all.iter().filter_map(one).collect())
    }
    /// A closure or function pointer, if it is given.
    pub fn function(&self, name: &str) -> Option<FnPtr> {
        self.native(name)
    }
    /// A value of a native type, if it is given.
    pub fn native<T: Clone + 'static>(&self, name: &str) -> Option<T> {
        let found = self.entry(name).0?;
        let value = found.clone().try_cast::<T>();
        debug_assert!(value.is_some(), "{}: `{name}` is {}", self.of, found.type_name());
        value
    }
    /// The option `device`; where it is not given, the default one.
    ///
    /// # Errors
    /// A name that is no device's.
    pub fn device(&self) -> crate::Result<Device> {
        self.some_text("device").map_or_else(|| Ok(default_device()), |name| parse_device(&name))
    }
    /// The option `dtype`, where it is given or has a default.
    ///
    /// # Errors
    /// A name that is no dtype's.
    pub fn dtype(&self) -> crate::Result<Option<DType>> {
        self.some_word("dtype").map(dtype::parse).transpose()
    }
    /// The option `seed`; where it is not given and has no default, the session's next one.
    pub fn seed(&self) -> u64 {
        self.int("seed").map_or_else(crate::tensor::random::next_session_seed, |s| s as u64)
    }
}
