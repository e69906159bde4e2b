//! What an option may be, as data: its name, kind, range, default and a sentence; and the values that options have.
use crate::{Error, Kind as ErrorKind, Result};
use serde_json::Value as Json;

/// The value of an option.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Not given, where no value stands for that.
    Unset,
    /// An integer that is not negative.
    Count(usize),
    /// A number.
    Number(f64),
    /// true or false.
    Flag(bool),
    /// One of a few words.
    Word(&'static str),
}

impl From<usize> for Value {
    fn from(n: usize) -> Self {
        Value::Count(n)
    }
}
impl From<f64> for Value {
    fn from(x: f64) -> Self {
        Value::Number(x)
    }
}
impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Flag(b)
    }
}
impl From<&'static str> for Value {
    fn from(w: &'static str) -> Self {
        Value::Word(w)
    }
}
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Value::Unset => write!(f, "()"),
            Value::Count(n) => write!(f, "{n}"),
            Value::Number(x) if *x == f64::INFINITY => write!(f, "∞"),
            // as scripts write it
            Value::Number(x) => write!(f, "{x:?}"),
            Value::Flag(b) => write!(f, "{b}"),
            Value::Word(w) => write!(f, "\"{w}\""),
        }
    }
}

/// What values an option takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// An integer between two.
    Count(usize, usize),
    /// A number between two.
    Number(f64, f64),
    /// true or false.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// An option. Made by [`count`], [`number`], [`flag`] and [`word`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Opt {
    /// Its key.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The value where none is given.
    pub default: Value,
    /// What stands for the default in the documentation, where the value itself says nothing.
    pub unset: &'static str,
    /// What it is for, for users.
    pub doc: &'static str,
    /// What a short description says where the value is not the default; `{}` is the value. Nothing where empty.
    pub said: &'static str,
    /// Whether the short description says it always.
    pub always: bool,
    /// Other names of words: (other, word).
    pub aliases: &'static [(&'static str, &'static str)],
}

const fn opt(name: &'static str, kind: Kind, default: Value, doc: &'static str) -> Opt {
    Opt { name, kind, default, unset: "", doc, said: "", always: false, aliases: &[] }
}
/// An integer from `least` to `most`.
pub const fn count(name: &'static str, default: usize, [least, most]: [usize; 2], doc: &'static str) -> Opt {
    opt(name, Kind::Count(least, most), Value::Count(default), doc)
}
/// A number from `least` to `most`.
pub const fn number(name: &'static str, default: f64, [least, most]: [f64; 2], doc: &'static str) -> Opt {
    opt(name, Kind::Number(least, most), Value::Number(default), doc)
}
/// true or false.
pub const fn flag(name: &'static str, default: bool, doc: &'static str) -> Opt {
    opt(name, Kind::Flag, Value::Flag(default), doc)
}
/// One of `words`, the first by default.
pub const fn word(name: &'static str, words: &'static [&'static str], doc: &'static str) -> Opt {
    opt(name, Kind::Word(words), Value::Word(words[0]), doc)
}

impl Opt {
    /// Without a default value; `unset` says what happens then.
    pub const fn or(mut self, unset: &'static str) -> Opt {
        self.default = Value::Unset;
        self.unset = unset;
        self
    }
    /// Said in short descriptions where it is not the default.
    pub const fn said(mut self, text: &'static str) -> Opt {
        self.said = text;
        self
    }
    /// Said in every short description.
    pub const fn always(mut self, text: &'static str) -> Opt {
        self.said = text;
        self.always = true;
        self
    }
    /// With other names of its words.
    pub const fn aliases(mut self, aliases: &'static [(&'static str, &'static str)]) -> Opt {
        self.aliases = aliases;
        self
    }

    /// What a value must be, for messages and documentation (`"1 to 4"`).
    pub fn range(&self) -> String {
        let between = |lo: f64, hi: f64| match (lo, hi) {
            (_, hi) if hi >= f64::MAX => format!("at least {lo}"),
            (lo, hi) => format!("{lo} to {hi}"),
        };
        match self.kind {
            Kind::Count(lo, usize::MAX) => format!("at least {lo}"),
            Kind::Count(lo, hi) => format!("{lo} to {hi}"),
            Kind::Number(lo, hi) => between(lo, hi),
            Kind::Flag => "true or false".into(),
            Kind::Word(words) => words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(" or "),
        }
    }
    /// Its line in a list of options: name, default, range, what it is for.
    pub fn line(&self) -> String {
        let default = if self.unset.is_empty() { self.default.to_string() } else { self.unset.to_string() };
        let others =
            |words: &[&str]| words.iter().skip(1).map(|w| format!("or \"{w}\"")).collect::<Vec<_>>().join(", ");
        let range = match self.kind {
            Kind::Flag | Kind::Count(_, usize::MAX) => String::new(),
            Kind::Word(words) => others(words),
            _ => self.range(),
        };
        let alias = self.aliases.iter().map(|(other, word)| format!(" (\"{other}\" is another name of \"{word}\")"));
        let text = [range.as_str(), self.doc].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join("; ");
        format!("- `{}` ({default}): {text}{}", self.name, alias.collect::<String>())
    }

    /// The word of that name, or of that other name.
    pub fn word(&self, text: &str) -> Option<&'static str> {
        let Kind::Word(words) = self.kind else { return None };
        let text = self.aliases.iter().find(|(other, _)| *other == text).map_or(text, |(_, word)| word);
        words.iter().find(|w| **w == text).copied()
    }
    /// A value as this option holds it.
    ///
    /// # Errors
    /// Values of another kind and out of range; `of` is what has the option.
    pub fn accept(&self, of: &str, value: Value) -> Result<Value> {
        let name = self.name;
        let inside = |x: f64, lo: f64, hi: f64| match x >= lo && x <= hi {
            true => Ok(()),
            false if hi >= f64::MAX => Err(Error::value(format!("{of}: {name} must be at least {lo}, not {x}"))),
            false => Err(Error::value(format!("{of}: {name} must be between {lo} and {hi}, not {x}"))),
        };
        match (self.kind, value) {
            (_, Value::Unset) => Ok(self.default),
            (Kind::Count(lo, hi), Value::Count(n)) => {
                let hi = if hi == usize::MAX { f64::MAX } else { hi as f64 };
                inside(n as f64, lo as f64, hi).map(|()| value)
            }
            (Kind::Number(..), Value::Count(n)) => self.accept(of, Value::Number(n as f64)),
            (Kind::Number(lo, hi), Value::Number(x)) => inside(x, lo, hi).map(|()| value),
            (Kind::Flag, Value::Flag(_)) => Ok(value),
            (Kind::Word(words), Value::Word(w)) => self
                .word(w)
                .map(Value::Word)
                .ok_or_else(|| Error::unknown(&format!("value for option `{name}` of {of}"), w, words.iter().copied())),
            _ => {
                Err(Error::new(ErrorKind::Type, format!("{of}: option `{name}` must be {}, not {value}", self.range())))
            }
        }
    }
    /// The value that JSON gives; null is none.
    ///
    /// # Errors
    /// As [`Opt::accept`].
    pub fn from_json(&self, of: &str, json: &Json) -> Result<Value> {
        let value = match (self.kind, json) {
            (_, Json::Null) => Some(Value::Unset),
            (Kind::Count(..), n) => n.as_u64().and_then(|n| usize::try_from(n).ok()).map(Value::Count),
            (Kind::Number(..), n) => n.as_f64().map(Value::Number),
            (Kind::Flag, b) => b.as_bool().map(Value::Flag),
            (Kind::Word(words), Json::String(w)) => match self.word(w) {
                Some(w) => Some(Value::Word(w)),
                None => {
                    let what = format!("value for option `{}` of {of}", self.name);
                    return Err(Error::unknown(&what, w, words.iter().copied()));
                }
            },
            _ => None,
        };
        let wrong = || {
            let m = format!("{of}: option `{}` must be {}, not {json}", self.name, self.range());
            Error::new(ErrorKind::Type, m)
        };
        self.accept(of, value.ok_or_else(wrong)?)
    }
}

impl Value {
    /// As JSON; what is not set and what is infinite is null.
    pub fn to_json(self) -> Json {
        match self {
            Value::Unset => Json::Null,
            Value::Count(n) => n.into(),
            Value::Number(x) => x.into(),
            Value::Flag(b) => b.into(),
            Value::Word(w) => w.into(),
        }
    }
}

/// The values of some options.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Values(Vec<(&'static Opt, Value)>);

impl Values {
    /// The defaults.
    pub fn new(options: impl Iterator<Item = &'static Opt>) -> Values {
        Values(options.map(|o| (o, o.default)).collect())
    }
    /// The options with their values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Opt, Value)> + '_ {
        self.0.iter().copied()
    }
    /// Whether there is an option of that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(o, _)| o.name == name)
    }
    /// Sets an option; its value must be one that it accepts.
    pub fn set(&mut self, name: &str, value: Value) {
        match self.0.iter_mut().find(|(o, _)| o.name == name) {
            Some((_, v)) => *v = value,
            None => debug_assert!(false, "no option `{name}`"),
        }
    }
    fn get(&self, name: &str) -> Value {
        let found = self.0.iter().find(|(o, _)| o.name == name);
        debug_assert!(found.is_some(), "no option `{name}`");
        found.map_or(Value::Unset, |(_, v)| *v)
    }
    /// An integer, if it is set.
    pub fn some_count(&self, name: &str) -> Option<usize> {
        if let Value::Count(n) = self.get(name) { Some(n) } else { None }
    }
    /// An integer that has a default.
    pub fn count(&self, name: &str) -> usize {
        self.some_count(name).unwrap_or_default()
    }
    /// A number, if it is set.
    pub fn some_number(&self, name: &str) -> Option<f64> {
        if let Value::Number(x) = self.get(name) { Some(x) } else { None }
    }
    /// A number that has a default.
    pub fn number(&self, name: &str) -> f64 {
        self.some_number(name).unwrap_or_default()
    }
    /// true or false.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name) == Value::Flag(true)
    }
    /// Whether an option is set to this word.
    pub fn is(&self, name: &str, word: &'static str) -> bool {
        self.get(name) == Value::Word(word)
    }
}
