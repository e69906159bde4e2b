//! What type an expression in front of a dot has, as far as it can be told without evaluating anything.
use super::Known;
use crate::shell::catalogue::{Catalogue, Entry, Kind as EntryKind, type_name};
use crate::shell::lex::{Kind, Token};
use rhai::{Array, Dynamic, Engine, Map};
use std::collections::BTreeMap;

/// How deep maps in maps are looked into.
const DEPTH: usize = 4;
/// How many keys of a map are looked at.
const MOST_KEYS: usize = 200;

/// What is known about a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Its type, by the users' name of it.
    Of(String),
    /// A map with these keys.
    Map(BTreeMap<String, Shape>),
    /// An array; what its first value is.
    List(Option<Box<Shape>>),
}

impl Shape {
    /// A type by its name.
    pub fn of(name: &str) -> Shape {
        Shape::Of(name.into())
    }
    /// The users' name of the type.
    pub fn type_name(&self) -> &str {
        match self {
            Shape::Of(name) => name,
            Shape::Map(_) => "map",
            Shape::List(_) => "array",
        }
    }
    /// What a value of the session is.
    pub fn from_value(engine: &Engine, v: &Dynamic) -> Shape {
        Shape::at_depth(engine, v, 0)
    }
    fn at_depth(engine: &Engine, v: &Dynamic, depth: usize) -> Shape {
        if depth < DEPTH {
            if let Some(m) = v.read_lock::<Map>() {
                let keys = m.iter().take(MOST_KEYS);
                return Shape::Map(keys.map(|(k, v)| (k.to_string(), Shape::at_depth(engine, v, depth + 1))).collect());
            }
            if let Some(a) = v.read_lock::<Array>() {
                return Shape::List(a.first().map(|v| Shape::at_depth(engine, v, depth + 1).into()));
            }
        }
        Shape::Of(type_name(engine, v))
    }
}

/// The index of the bracket that opens what the one at `close` closes.
pub fn opening(text: &str, tokens: &[Token], close: usize) -> Option<usize> {
    let mut depth = 0usize;
    for i in (0..=close).rev() {
        match tokens[i].kind {
            Kind::Close => depth += 1,
            Kind::Open => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    let pair = (tokens[i].of(text).chars().last(), tokens[close].of(text));
                    return matches!(pair, (Some('('), ")") | (Some('['), "]") | (Some('{'), "}")).then_some(i);
                }
            }
            _ => {}
        }
    }
    None
}

/// Where the chain of names, calls, indices and dots that ends before token `end` begins.
pub fn chain_start(text: &str, tokens: &[Token], end: usize) -> usize {
    let mut start = end;
    // whether what was passed last can follow a value directly: an index, call or dot
    let mut joins = true;
    while start > 0 {
        let t = &tokens[start - 1];
        let word = t.of(text);
        match t.kind {
            Kind::Close if joins => match opening(text, tokens, start - 1) {
                Some(open) => {
                    start = open;
                    // `(`, `[`: a value may stand in front; a map literal begins a chain
                    joins = matches!(tokens[open].of(text), "(" | "[" | "?[");
                }
                None => return end,
            },
            Kind::Name | Kind::Number | Kind::Text if joins => (start, joins) = (start - 1, false),
            Kind::Keyword if joins && word == "this" => (start, joins) = (start - 1, false),
            Kind::Operator if matches!(word, "." | "?." | "::") => (start, joins) = (start - 1, true),
            _ => break,
        }
    }
    start
}

/// The type of the expression in `tokens`; None unless the whole of it is one chain that is understood.
pub fn infer(known: &Known, text: &str, tokens: &[Token]) -> Option<Shape> {
    let word = |i: usize| tokens.get(i).map(|t| t.of(text));
    let close = |open: usize| (open + 1..tokens.len()).find(|c| opening(text, tokens, *c) == Some(open));
    let first = tokens.first()?;
    let (mut shape, mut i) = match (first.kind, first.of(text)) {
        (Kind::Text, _) => (Shape::of("string"), 1),
        (Kind::Number, n) => (Shape::of(if n.contains('.') || n.contains('e') { "float" } else { "int" }), 1),
        (Kind::Open, "(") => {
            let end = close(0)?;
            (infer(known, text, &tokens[1..end])?, end + 1)
        }
        (Kind::Open, "[") => {
            let end = close(0)?;
            let comma = top_level(text, &tokens[1..end], ",");
            let first = infer(known, text, &tokens[1..comma.map_or(end, |c| 1 + c)]);
            (Shape::List(first.map(Box::new)), end + 1)
        }
        (Kind::Open, "#{") => {
            let end = close(0)?;
            let keys = map_keys(text, &tokens[1..end]).into_iter();
            let typed = keys.map(|(k, v)| (k, infer(known, text, v).unwrap_or_else(|| Shape::of("any"))));
            (Shape::Map(typed.collect()), end + 1)
        }
        (Kind::Name, _) => {
            let mut name = first.of(text).to_string();
            let mut i = 1;
            while word(i) == Some("::") && tokens.get(i + 1).is_some_and(|t| t.kind == Kind::Name) {
                name = format!("{name}::{}", tokens[i + 1].of(text));
                i += 2;
            }
            if word(i) == Some("(") {
                let end = close(i)?;
                (called(known, &name)?, end + 1)
            } else {
                (known.variable(&name)?.clone(), i)
            }
        }
        _ => return None,
    };
    while i < tokens.len() {
        match word(i)? {
            "." | "?." => {
                let name = word(i + 1)?;
                if word(i + 2) == Some("(") {
                    let end = close(i + 2)?;
                    shape = member(known.catalogue, &shape, name, false)?;
                    i = end + 1;
                } else {
                    shape = member(known.catalogue, &shape, name, true)?;
                    i += 2;
                }
            }
            "[" | "?[" => {
                let end = close(i)?;
                shape = indexed(&shape)?;
                i = end + 1;
            }
            _ => return None,
        }
    }
    Some(shape)
}

/// Where an operator stands outside of all brackets.
pub fn top_level(text: &str, tokens: &[Token], operator: &str) -> Option<usize> {
    let mut depth = 0i32;
    tokens.iter().position(|t| {
        depth += i32::from(t.kind == Kind::Open) - i32::from(t.kind == Kind::Close);
        depth == 0 && t.of(text) == operator
    })
}

/// The keys of a map's inner tokens, with the tokens of their values.
pub fn map_keys<'a>(text: &str, mut tokens: &'a [Token]) -> Vec<(String, &'a [Token])> {
    let mut found = vec![];
    while !tokens.is_empty() {
        let end = top_level(text, tokens, ",").unwrap_or(tokens.len());
        if let [key, colon, value @ ..] = &tokens[..end]
            && colon.of(text) == ":"
        {
            found.push((key.of(text).trim_matches('"').to_string(), value));
        }
        tokens = tokens.get(end + 1..).unwrap_or_default();
    }
    found
}

fn returned(e: &Entry) -> Option<Shape> {
    e.returns.as_deref().filter(|r| !r.is_empty()).map(Shape::of)
}

/// What a call of a function gives.
fn called(known: &Known, name: &str) -> Option<Shape> {
    let name = known.real_name(name);
    known.catalogue.get(&name).iter().filter(|e| e.kind != EntryKind::Property).find_map(returned)
}

/// What a property or a method of a value gives.
fn member(catalogue: &Catalogue, of: &Shape, name: &str, property: bool) -> Option<Shape> {
    if let (Shape::Map(keys), true) = (of, property) {
        return keys.get(name).cloned();
    }
    let entries = catalogue.get(name).iter();
    let mut fits = entries.filter(|e| e.follows_dot() && (e.kind == EntryKind::Property) == property);
    fits.find(|e| e.receiver.as_deref() == Some(of.type_name())).and_then(returned)
}

fn indexed(of: &Shape) -> Option<Shape> {
    match of {
        Shape::List(first) => first.as_deref().cloned(),
        Shape::Of(name) if name == "Tensor" => Some(of.clone()),
        Shape::Of(name) if name == "string" => Some(Shape::of("char")),
        _ => None,
    }
}
