//! Python literals, as the headers of numpy's files are written in: dictionaries, tuples, lists, texts, integers, True and False.

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// A dictionary whose keys are texts, in order; a key may come twice.
    Dict(Vec<(String, Literal)>),
    /// A tuple.
    Tuple(Vec<Literal>),
    /// A list.
    List(Vec<Literal>),
    /// A text without escapes.
    Text(String),
    /// An integer; Python 2 wrote some with an `L`.
    Int(i128),
    /// True or False.
    Bool(bool),
    /// None.
    None,
}

/// Values inside values: numpy's records of records are not nested deeper by people.
const DEEPEST: usize = 16;

/// The value that `text` is as a whole, blanks around it aside.
pub fn parse(text: &str) -> Result<Literal, String> {
    let mut p = Parser { rest: text };
    let value = p.value(0)?;
    match p.rest.trim_start() {
        "" => Ok(value),
        more => Err(format!("`{}` behind its end", excerpt(more))),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(20).map(|c| if c.is_control() { '?' } else { c }).collect()
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn eat(&mut self, what: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(what) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
    /// Values up to `end`; whether there was a comma.
    fn values(&mut self, end: &str, depth: usize) -> Result<(Vec<Literal>, bool), String> {
        let (mut out, mut comma) = (vec![], false);
        while !self.eat(end) {
            if !out.is_empty() && !comma {
                return Err(format!("a comma is missing before `{}`", excerpt(self.rest)));
            }
            out.push(self.value(depth + 1)?);
            comma = self.eat(",");
        }
        Ok((out, comma))
    }
    fn value(&mut self, depth: usize) -> Result<Literal, String> {
        if depth > DEEPEST {
            return Err("it is nested too deeply".into());
        }
        if self.eat("{") {
            let mut out = vec![];
            while !self.eat("}") {
                let Literal::Text(key) = self.value(depth + 1)? else { return Err("a key that is no text".into()) };
                if !self.eat(":") {
                    return Err(format!("`{}` has no value", excerpt(&key)));
                }
                out.push((key, self.value(depth + 1)?));
                if !self.eat(",") && !self.rest.trim_start().starts_with('}') {
                    return Err(format!("a comma is missing before `{}`", excerpt(self.rest)));
                }
            }
            return Ok(Literal::Dict(out));
        }
        if self.eat("(") {
            // without a comma, brackets only group
            return match self.values(")", depth)? {
                (mut one, false) if one.len() == 1 => Ok(one.remove(0)),
                (all, _) => Ok(Literal::Tuple(all)),
            };
        }
        if self.eat("[") {
            return Ok(Literal::List(self.values("]", depth)?.0));
        }
        self.rest = self.rest.trim_start();
        let quote = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"'));
        if let Some(q) = quote {
            let (text, rest) = self.rest[1..].split_once(q).ok_or("a text without end")?;
            if text.contains(['\\', '\n']) {
                return Err("a text with escapes".into());
            }
            self.rest = rest;
            return Ok(Literal::Text(text.into()));
        }
        let sign = usize::from(self.rest.starts_with('-'));
        let end = self.rest[sign..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let end = end.map_or(self.rest.len(), |i| sign + i);
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "True" => Ok(Literal::Bool(true)),
            "False" => Ok(Literal::Bool(false)),
            "None" => Ok(Literal::None),
            _ => match word.strip_suffix('L').unwrap_or(word) {
                digits if digits.len() > sign && digits[sign..].bytes().all(|b| b.is_ascii_digit()) => {
                    digits.parse().map(Literal::Int).map_err(|_| format!("the number {digits} is too large"))
                }
                _ => Err(format!("`{}` is no value", excerpt(if word.is_empty() { self.rest } else { word }))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        use Literal::*;
        let dict = parse("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3), }  \n").unwrap();
        let entries =
            [("descr", Text("<f4".into())), ("fortran_order", Bool(false)), ("shape", Tuple(vec![Int(2), Int(3)]))];
        assert_eq!(dict, Dict(entries.map(|(k, v)| (k.to_string(), v)).into()));
        assert!(parse("[('a', \"<f4\", (2,)), ('b', '<i8')]").is_ok());
        assert_eq!(parse("()").unwrap(), Tuple(vec![]));
        assert_eq!(parse("(3)").unwrap(), Int(3));
    }

    #[test]
    fn what_is_no_literal() {
        for text in [
            "",
            "{",
            "{'a'}",
            "{'a': 1",
            "{'a': 1 'b': 2}",
            "{1: 2}",
            "Truex",
            "-",
            "--1",
            "1 2",
            "(1 2)",
            "'a",
            "x()",
            "'\\x41'",
            "9999999999999999999999999999999999999999999999",
            "((((((((((((((((((((1))))))))))))))))))))",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
