//! JSON, read strictly: an object with one key twice is an error, where most readers silently take one of the two.
use super::sniff;
use crate::tensor::memory;
use crate::{Error, Kind, Result};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// A value whose objects have each key once.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        d.deserialize_any(Any).map(Strict)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> std::result::Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, v: &str) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> std::result::Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut out = vec![];
        while let Some(Strict(v)) = items.next_element()? {
            out.push(v);
        }
        Ok(Value::Array(out))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some((key, Strict(v))) = entries.next_entry::<String, Strict>()? {
            if out.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` appears twice")));
            }
            out.insert(key, v);
        }
        Ok(Value::Object(out))
    }
}

/// The value of a text. Errors: not JSON, one key twice in an object; what else it is, where that can be told.
pub fn parse(text: &str) -> Result<Value> {
    // there is a comma or a colon before each value but the first
    let values = text.bytes().filter(|b| matches!(b, b',' | b':')).count();
    memory::room("JSON", values.saturating_mul(size_of::<Value>()))?;
    match serde_json::from_str::<Strict>(text) {
        Ok(Strict(value)) => Ok(value),
        Err(e) => Err(sniff::instead(text.as_bytes(), "JSON", &[])
            .unwrap_or_else(|| Error::new(Kind::Format, format!("not valid JSON: {e}")))),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_is_read_is_what_others_read() {
        for text in ["null", "[1, -2, 2.5, 18446744073709551615, 1e300]", r#"{"a": {"b": ["é", true]}, "c": {}}"#] {
            assert_eq!(parse(text).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
        }
        let deep = "[".repeat(200);
        for (text, why) in [
            (r#"{"a": 1, "a": 1}"#, "`a` appears twice"),
            (r#"[{"x": {"b": 1, "\u0062": 2}}]"#, "`b`"),
            ("", "an empty file"),
            (&deep, "recursion"),
        ] {
            assert!(parse(text).unwrap_err().message().contains(why), "{text}");
        }
    }
}
