//! Every function that a script can call, by name: quick to collect, for error reports and `ld3sh check`. The catalogue knows more.
use rhai::Engine;
use std::collections::{BTreeMap, BTreeSet};

/// A function's signatures, by its name with namespace (`solver::unipc`).
pub struct Names {
    functions: BTreeMap<String, Vec<String>>,
    properties: BTreeSet<String>,
}

/// A signature's number of parameters, from its text `f(x: Tensor, y: i64) -> Tensor`.
pub(super) fn arity(signature: &str) -> usize {
    let Some(start) = signature.find('(') else { return 0 };
    let (mut depth, mut commas, mut any) = (0, 0, false);
    for c in signature[start..].chars() {
        match c {
            '(' | '[' | '<' | '{' => depth += 1,
            ')' if depth == 1 => break,
            ')' | ']' | '}' => depth -= 1,
            '>' => depth = 1.max(depth - 1),
            ',' if depth == 1 => commas += 1,
            c if !c.is_whitespace() => any = true,
            _ => {}
        }
    }
    if any { commas + 1 } else { 0 }
}

impl Names {
    /// Collects the names from an engine.
    pub fn of(engine: &Engine) -> Self {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut properties = BTreeSet::new();
        for s in engine.gen_fn_signatures(true) {
            let Some(name) = s.split('(').next() else { continue };
            // accessors (`get$shape`) are written without a call
            let name = name.trim();
            if let Some(property) = name.strip_prefix("get$") {
                properties.insert(property.to_string());
            }
            if !name.contains('$') && !name.starts_with("__") {
                names.entry(name.to_string()).or_default().push(s);
            }
        }
        Names { functions: names, properties }
    }
    /// The names.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }
    /// The signatures of a function; empty if there is none of that name.
    pub fn signatures(&self, name: &str) -> &[String] {
        self.functions.get(name).map_or(&[], Vec::as_slice)
    }
    /// Whether some type has a property of that name.
    pub fn has_property(&self, name: &str) -> bool {
        self.properties.contains(name)
    }
    /// The properties of all types.
    pub fn properties(&self) -> impl Iterator<Item = &str> {
        self.properties.iter().map(|p| p.as_ref())
    }
    /// How many arguments a function can take.
    pub fn arities(&self, name: &str) -> BTreeSet<usize> {
        self.signatures(name).iter().map(|s| arity(s)).collect()
    }
    /// The namespaces (`solver`, `schedule`, …).
    pub fn namespaces(&self) -> BTreeSet<&str> {
        self.all().filter_map(|n| n.split_once("::")).map(|(ns, _)| ns).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::arity;

    #[test]
    fn arities_from_signatures() {
        for (s, n) in [
            ("f()", 0),
            ("f() -> i64", 0),
            ("f(x: i64)", 1),
            ("f(x: RhaiResultOf<A, B>, y: [i64; 2]) -> T", 2),
            ("f(_: fn(i64, i64) -> i64, _)", 2),
        ] {
            assert_eq!(arity(s), n, "{s}");
        }
    }
}
