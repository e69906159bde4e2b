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

/// Numbers between two ends; an infinite end is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// The lowest number, or what all are above.
    pub low: f64,
    /// The highest number, or what all are below.
    pub high: f64,
    /// Whether the ends themselves are outside.
    pub open: [bool; 2],
}

impl Span {
    /// Any number.
    pub const ANY: Span = Span::between(f64::NEG_INFINITY, f64::INFINITY);

    /// From `low` to `high`.
    pub const fn between(low: f64, high: f64) -> Span {
        Span { low, high, open: [false, false] }
    }
    /// Reads `"1.."`, `">0..1"`, `"0..<1"`.
    pub fn parse(text: &str) -> Option<Span> {
        let (low, high) = text.split_once("..")?;
        let end = |text: &str, outside: char, none: f64| {
            let bare = text.trim().trim_start_matches(outside);
            let value = if bare.is_empty() { none } else { bare.parse().ok()? };
            Some((value, text.trim().starts_with(outside)))
        };
        let (low, above) = end(low, '>', f64::NEG_INFINITY)?;
        let (high, below) = end(high, '<', f64::INFINITY)?;
        Some(Span { low, high, open: [above, below] })
    }
    /// Whether a number is inside.
    pub fn holds(&self, x: f64) -> bool {
        let [above, below] = self.open;
        (if above { x > self.low } else { x >= self.low }) && (if below { x < self.high } else { x <= self.high })
    }
    /// What stands behind the name of a kind of numbers: `" ≥ 1"`, `" from 0 to 1"`.
    pub fn spoken(&self) -> String {
        let (low, high) = (self.low > -f64::MAX, self.high < f64::MAX);
        if low && high && self.open == [false, false] {
            return format!(" from {} to {}", self.low, self.high);
        }
        let ends = [
            (low, self.low, [" ≥", " >"][usize::from(self.open[0])]),
            (high, self.high, [" ≤", " <"][usize::from(self.open[1])]),
        ];
        let ends = ends.iter().filter(|(there, ..)| *there).map(|(_, end, sign)| format!("{sign} {end}"));
        ends.collect::<Vec<_>>().join(" and")
    }
}

/// What values an option takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Whatever the function itself makes something of.
    Any,
    /// An integer between two.
    Count(usize, usize),
    /// Any integer.
    Integer,
    /// A number, an integer among them.
    Number(Span),
    /// true or false.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text.
    Text,
    /// A function of the script.
    Function,
    /// A map.
    Map,
    /// An array of what the first takes; so many, or any number where 0.
    List(&'static Kind, usize),
    /// A value of a native type: its name in Rust, and what users call it.
    Native(&'static str, &'static str),
    /// What one of these takes.
    Either(&'static [Kind]),
}

impl Kind {
    /// Integers from 0.
    pub const COUNT: Kind = Kind::Count(0, usize::MAX);
    /// Any number.
    pub const NUMBER: Kind = Kind::Number(Span::ANY);
    /// A tensor.
    pub const TENSOR: Kind = Kind::Native("Tensor", "tensor");
    /// An array of any values.
    pub const ARRAY: Kind = Kind::List(&Kind::Any, 0);
    /// An array of texts.
    pub const TEXTS: Kind = Kind::List(&Kind::Text, 0);
    /// Sizes of the dimensions of one sample.
    pub const SIZES: Kind = Kind::List(&Kind::Count(1, usize::MAX), 0);
    /// A number, or numbers in a tensor or nested arrays.
    pub const NESTED: Kind = Kind::Either(&[Kind::TENSOR, Kind::NUMBER, Kind::ARRAY]);
    /// Numbers in a tensor or an array.
    pub const NUMBERS: Kind = Kind::Either(&[Kind::TENSOR, Kind::List(&Kind::NUMBER, 0)]);

    /// What a value is, for messages and documentation, or (`many`) what several are.
    fn said(&self, many: bool) -> String {
        let of = |one: &str, plural: &str, rest: String| format!("{}{rest}", if many { plural } else { one });
        let ends = |lo: usize, hi: usize| {
            let high = if hi == usize::MAX { f64::INFINITY } else { hi as f64 };
            Span::between(lo as f64, high).spoken()
        };
        match *self {
            Kind::Any => of("a value", "values", String::new()),
            Kind::Count(lo, hi) => of("an integer", "integers", ends(lo, hi)),
            Kind::Integer => of("an integer", "integers", String::new()),
            Kind::Number(span) => of("a number", "numbers", span.spoken()),
            Kind::Flag => "true or false".into(),
            Kind::Word(words) => {
                let all: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
                match all.split_last() {
                    Some((last, before)) if !before.is_empty() => format!("{} or {last}", before.join(", ")),
                    _ => all.concat(),
                }
            }
            Kind::Text => of("a text", "texts", String::new()),
            Kind::Function => of("a function", "functions", String::new()),
            Kind::Map => of("a map", "maps", String::new()),
            Kind::List(Kind::Any, 0) => of("an array", "arrays", String::new()),
            Kind::List(kind, 0) => of("an array", "arrays", format!(" of {}", kind.said(true))),
            Kind::List(kind, n) => of("an array", "arrays", format!(" of {n} {}", kind.said(true))),
            Kind::Native(_, name) if many => format!("{name}s"),
            Kind::Native(_, name) => format!("a {name}"),
            Kind::Either(kinds) => kinds.iter().map(|k| k.said(many)).collect::<Vec<_>>().join(" or "),
        }
    }
    /// What a value must be: `"an integer from 1 to 4"`.
    pub fn words(&self) -> String {
        self.said(false)
    }
    /// Whether it is a number within ends that a user should know.
    fn has_ends(&self) -> bool {
        match *self {
            Kind::Count(lo, hi) => lo > 0 || hi < usize::MAX,
            Kind::Number(span) => !span.spoken().is_empty(),
            Kind::List(kind, _) => kind.has_ends(),
            Kind::Either(kinds) => kinds.iter().any(Kind::has_ends),
            _ => false,
        }
    }
}

/// An option. Made by [`count`], [`number`], [`flag`], [`word`] and their like.
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
    /// An example of it where it must be given; empty where it need not be.
    pub needed: &'static str,
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
    Opt { name, kind, default, unset: "", needed: "", doc, said: "", always: false, aliases: &[] }
}
/// An integer from `least` to `most`.
pub const fn count(name: &'static str, default: usize, [least, most]: [usize; 2], doc: &'static str) -> Opt {
    opt(name, Kind::Count(least, most), Value::Count(default), doc)
}
/// Any integer.
pub const fn integer(name: &'static str, default: usize, doc: &'static str) -> Opt {
    opt(name, Kind::Integer, Value::Count(default), doc)
}
/// A number from `least` to `most`.
pub const fn number(name: &'static str, default: f64, [least, most]: [f64; 2], doc: &'static str) -> Opt {
    opt(name, Kind::Number(Span::between(least, most)), Value::Number(default), doc)
}
/// A number above `low`, up to `most`.
pub const fn above(name: &'static str, default: f64, [low, most]: [f64; 2], doc: &'static str) -> Opt {
    let span = Span { low, high: most, open: [true, false] };
    opt(name, Kind::Number(span), Value::Number(default), doc)
}
/// true or false.
pub const fn flag(name: &'static str, default: bool, doc: &'static str) -> Opt {
    opt(name, Kind::Flag, Value::Flag(default), doc)
}
/// One of `words`, the first by default.
pub const fn word(name: &'static str, words: &'static [&'static str], doc: &'static str) -> Opt {
    opt(name, Kind::Word(words), Value::Word(words[0]), doc)
}
/// A text.
pub const fn text(name: &'static str, default: &'static str, doc: &'static str) -> Opt {
    opt(name, Kind::Text, Value::Word(default), doc)
}
/// What `kind` takes, or nothing: `unset` says what happens then.
pub const fn value(name: &'static str, kind: Kind, unset: &'static str, doc: &'static str) -> Opt {
    opt(name, kind, Value::Unset, doc).or(unset)
}

impl Opt {
    /// Without a default value; `unset` says what happens then.
    pub const fn or(mut self, unset: &'static str) -> Opt {
        self.default = Value::Unset;
        self.unset = unset;
        self
    }
    /// One that must be given; `example` is a value, for the hint.
    pub const fn needed(mut self, example: &'static str) -> Opt {
        self.default = Value::Unset;
        self.needed = example;
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

    /// Its default as documentation writes it; none where it must be given.
    pub fn default_words(&self) -> Option<String> {
        match (self.needed, self.unset) {
            ("", "") => Some(self.default.to_string()),
            ("", unset) => Some(unset.to_string()),
            _ => None,
        }
    }
    /// What it is for and what it may be: the words that the sentence itself does not name come first, ends of numbers last.
    pub fn described(&self) -> String {
        let others = match self.kind {
            Kind::Word(words) => {
                let skip = usize::from(self.needed.is_empty() && self.default == Value::Word(words[0]));
                let quoted = words
                    .iter()
                    .skip(skip)
                    .map(|w| format!("\"{w}\""))
                    .filter(|w| ![self.doc, self.unset].iter().any(|t| t.contains(w.as_str())));
                let or = if skip == 1 { "or " } else { "" };
                Some(quoted.collect::<Vec<_>>().join(", or ")).filter(|w| !w.is_empty()).map(|w| format!("{or}{w}"))
            }
            _ => None,
        };
        let ends = Some(self.kind.words()).filter(|_| self.kind.has_ends());
        let parts = [others, Some(self.doc.to_string()).filter(|d| !d.is_empty()), ends];
        let alias = self.aliases.iter().map(|(other, word)| format!(" (\"{other}\" is another name of \"{word}\")"));
        let text = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
        format!("{text}{}", alias.collect::<String>())
    }
    /// Its line in a list of options: name, default, what it is for, range.
    pub fn line(&self) -> String {
        let default = self.default_words().map(|d| format!(" ({d})")).unwrap_or_default();
        format!("- `{}`{default}: {}", self.name, self.described())
    }
    /// That it must be another value than the one that was given, `not`.
    pub fn wrong(&self, of: &str, kind: ErrorKind, not: &str) -> Error {
        Error::new(kind, format!("{of}: option `{}` must be {}, not {not}", self.name, self.kind.words()))
    }
    /// That a word is none of its words.
    pub fn unknown(&self, of: &str, given: &str) -> Error {
        let words = |kind: &Kind| if let Kind::Word(words) = *kind { Some(words) } else { None };
        let words = match self.kind {
            Kind::Either(kinds) => kinds.iter().find_map(words),
            kind => words(&kind),
        };
        let words = words.unwrap_or_default();
        Error::unknown(&format!("value for option `{}` of {of}", self.name), given, words.iter().copied())
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
        let inside = |yes: bool| match yes {
            true => Ok(value),
            false => Err(self.wrong(of, ErrorKind::Value, &value.to_string())),
        };
        match (self.kind, value) {
            (_, Value::Unset) => Ok(self.default),
            (Kind::Count(lo, hi), Value::Count(n)) => inside((lo..=hi).contains(&n)),
            (Kind::Number(..), Value::Count(n)) => self.accept(of, Value::Number(n as f64)),
            (Kind::Number(span), Value::Number(x)) => inside(span.holds(x)),
            (Kind::Flag, Value::Flag(_)) => Ok(value),
            (Kind::Word(_), Value::Word(w)) => self.word(w).map(Value::Word).ok_or_else(|| self.unknown(of, w)),
            _ => Err(self.wrong(of, ErrorKind::Type, &value.to_string())),
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
            (Kind::Word(_), Json::String(w)) => Some(Value::Word(self.word(w).ok_or_else(|| self.unknown(of, w))?)),
            _ => None,
        };
        let wrong = || self.wrong(of, ErrorKind::Type, &json.to_string());
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

/// The options of a function of scripts. They are read by it, and documented from it.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The function, as a user writes it.
    pub of: &'static str,
    /// The type before the dot, where functions of several types have this name; else empty.
    pub receiver: &'static str,
    own: &'static [Opt],
    shared: &'static [&'static [Opt]],
}

impl Schema {
    /// Those of function `of`.
    pub const fn new(of: &'static str, own: &'static [Opt]) -> Schema {
        Schema { of, receiver: "", own, shared: &[] }
    }
    /// Those of a method of `receiver`.
    pub const fn method(receiver: &'static str, of: &'static str, own: &'static [Opt]) -> Schema {
        Schema { of, receiver, own, shared: &[] }
    }
    /// The one of function `of` in a family.
    ///
    /// # Errors
    /// [`ErrorKind::Name`] where there is none.
    pub fn among(family: &[Schema], of: &str) -> Result<Schema> {
        let found = family.iter().find(|s| s.of == of);
        found.copied().ok_or_else(|| Error::unknown("function", of, family.iter().map(|s| s.of)))
    }
    /// With groups of options that several functions have.
    pub const fn with(mut self, shared: &'static [&'static [Opt]]) -> Schema {
        self.shared = shared;
        self
    }
    /// All options.
    pub fn options(&self) -> impl Iterator<Item = &'static Opt> + Clone + use<> {
        self.own.iter().chain(self.shared.iter().copied().flatten())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, inside, outside, said) in [
            ("1..", 1.0, 0.99, " ≥ 1"),
            (">0..1", 1e-9, 0.0, " > 0 and ≤ 1"),
            ("0..<1", 0.0, 1.0, " ≥ 0 and < 1"),
            ("0..1", 1.0, 1.01, " from 0 to 1"),
            ("..5", -3.0, 6.0, " ≤ 5"),
        ] {
            let span = Span::parse(text).unwrap();
            assert!(span.holds(inside) && !span.holds(outside) && !span.holds(f64::NAN), "{text}");
            assert_eq!(span.spoken(), said);
        }
        assert!(Span::parse("a..b").is_none() && Span::parse("every|sparse").is_none());
        assert!(Span::ANY.holds(f64::INFINITY) && !Span::ANY.holds(f64::NAN) && Span::ANY.spoken().is_empty());
    }

    #[test]
    fn words_and_lines() {
        const BETA: Kind = Kind::Number(Span { low: 0.0, high: 1.0, open: [false, true] });
        for (kind, words) in [
            (Kind::COUNT, "an integer ≥ 0"),
            (Kind::Count(1, 4), "an integer from 1 to 4"),
            (Kind::NUMBER, "a number"),
            (Kind::Word(&["a", "b"]), "\"a\" or \"b\""),
            (Kind::List(&BETA, 2), "an array of 2 numbers ≥ 0 and < 1"),
            (Kind::List(&Kind::SIZES, 0), "an array of arrays of integers ≥ 1"),
            (Kind::Either(&[Kind::Flag, Kind::Word(&["auto"])]), "true or false or \"auto\""),
            (Kind::NESTED, "a tensor or a number or an array"),
        ] {
            assert_eq!(kind.words(), words);
        }
        for (opt, line) in [
            (count("k", 5, [1, usize::MAX], "how many"), "- `k` (5): how many; an integer ≥ 1"),
            (count("first", 0, [0, usize::MAX], "the first"), "- `first` (0): the first"),
            (word("how", &["one", "two"], ""), "- `how` (\"one\"): or \"two\""),
            (word("how", &["one", "two"], "or \"two\", which is slow"), "- `how` (\"one\"): or \"two\", which is slow"),
            (word("how", &["one", "two"], "").needed("\"one\""), "- `how`: \"one\", or \"two\""),
            (
                value("betas", Kind::List(&BETA, 2), "[0, 0]", "two"),
                "- `betas` ([0, 0]): two; an array of 2 numbers ≥ 0 and < 1",
            ),
        ] {
            assert_eq!(opt.line(), line);
        }
    }
}
