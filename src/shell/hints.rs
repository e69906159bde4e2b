//! What users who come from other languages write, and what it is here: one-line hints for errors, as tables.

/// A place in a script's text.
pub struct Place<'a> {
    /// The line above it that is not empty.
    pub above: &'a str,
    /// Its line, up to the token.
    pub before: &'a str,
    /// The token.
    pub token: &'a str,
    /// The line behind the token.
    pub after: &'a str,
}

impl Place<'_> {
    /// The word that ends right before the token.
    fn last_word(&self) -> &str {
        let text = self.before.trim_end();
        let start = text.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |i| i + 1);
        text.get(start..).unwrap_or_default()
    }
    /// The first word of the line.
    fn first_word(&self) -> &str {
        let line = if self.before.trim().is_empty() { self.token } else { self.before.trim_start() };
        let end = line.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(line.len());
        line.get(..end).unwrap_or_default()
    }
    fn behind(&self) -> &str {
        self.after.trim_start()
    }
}

/// Words of other languages that stand where a value should.
const VALUES: &[(&[&str], &str)] = &[
    (&["None", "null", "nil", "NULL", "undefined", "nullptr"], "nothing is `()` here"),
    (&["True", "TRUE"], "write `true`"),
    (&["False", "FALSE"], "write `false`"),
    (&["self"], "inside a method the object is `this`"),
    (&["inf", "Inf", "infinity"], "infinity is `INF`"),
    (&["nan", "NaN"], "not-a-number is `0.0 / 0.0`"),
    (&["pi", "math"], "π is `PI()`; functions like `sqrt(x)`, `exp(x)` need no module"),
    (&["np", "numpy", "torch", "plt", "F", "nn"], "tensor functions need no module: `zeros([2, 3])`, `x.sum()`"),
    (&["elif"], "write `else if`"),
    (&["pass"], "an empty block `{ }` does nothing"),
];

/// Words of other languages that the parser cannot digest: where they stand, and what to write.
const WORDS: &[(&[&str], &str)] = &[
    (&["and"], "write `&&`"),
    (&["or"], "write `||`"),
    (&["not"], "write `!`: `if !done { … }`"),
    (&["is"], "write `==`; `type_of(x)` tells a type"),
    (&["elif"], "write `else if`"),
];

/// Words that begin a statement elsewhere.
const STATEMENTS: &[(&[&str], &str)] = &[
    (&["def", "function", "func"], "functions are `fn f(x) { … }`; the last value is the result"),
    (&["lambda"], "closures are `|x| x + 1`"),
    (&["class", "struct"], "there are no classes: maps hold data, `#{ a: 1 }`, and functions, `#{ f: |x| x + 1 }`"),
    (&["from"], "modules are imported as a whole: `import \"ld3\" as ld3;`"),
    (&["del"], "a variable ends with its block; a name can be declared again with `let`"),
    (&["raise"], "errors are thrown: `throw \"message\"`"),
    (&["except"], "write `try { … } catch (e) { … }`"),
    (&["with", "async", "await", "yield", "global", "nonlocal", "assert"], "there is no such statement here"),
    (&["var", "int", "float", "auto", "val"], "variables are declared with `let x = …;`"),
];

/// Methods known elsewhere by another name: of which types, the names, what to write.
const METHODS: &[(&str, &[&str], &str)] = &[
    ("Tensor", &["view", "resize"], "`x.reshape([2, -1])`"),
    ("Tensor", &["numpy", "tolist", "list"], "`x.to_array()`"),
    ("Tensor", &["cuda", "cpu"], "`x.to(\"cuda\")`, `x.to(\"cpu\")`"),
    ("Tensor", &["float", "double", "half", "astype", "type"], "`x.to(\"f32\")`"),
    ("Tensor", &["dim", "ndimension", "rank"], "`x.ndim`"),
    ("Tensor", &["numel", "nelement"], "`x.size`"),
    ("Tensor", &["mm", "bmm", "dot", "mv"], "`a.matmul(b)`"),
    ("Tensor", &["backward"], "gradients are a function: `grad(loss, [x])`"),
    ("Tensor", &["requires_grad_", "requires_grad"], "`variable(x)` makes a tensor to differentiate for"),
    ("Tensor", &["add", "add_", "sub", "mul", "mul_", "div"], "the operators `+ - * /`"),
    ("Tensor", &["concat", "concatenate"], "`cat([a, b], 0)`"),
    ("Tensor", &["argmin", "argmax"], "`x.argmax(dim)`"),
    ("string", &["format"], "text with values in it stands in backquotes: `` `loss ${x}` ``"),
    ("string", &["upper"], "`s.to_upper()`"),
    ("string", &["lower"], "`s.to_lower()`"),
    ("string", &["strip"], "`s.trim()`"),
    ("string", &["startswith"], "`s.starts_with(\"…\")`"),
    ("string", &["endswith"], "`s.ends_with(\"…\")`"),
    ("array", &["append", "add"], "`a.push(x)`"),
    ("array", &["length", "size", "count"], "`a.len()`"),
    ("map", &["items", "iteritems"], "`for k in m.keys() { m[k] }`"),
];

/// Functions known elsewhere by another name, or called in another way.
const FUNCTIONS: &[(&str, &str)] = &[
    ("range", "`0..n` counts from 0 to n − 1, `0..=n` to n: `for i in 0..n { … }`"),
    ("xrange", "`0..n` counts from 0 to n − 1: `for i in 0..n { … }`"),
    ("enumerate", "a loop counts if asked: `for (x, i) in list { … }`"),
    ("zip", "count, and use the index: `for (x, i) in a { b[i] }`"),
    ("print", "print takes one value; several go into backquotes: `` print(`${a} ${b}`) ``"),
    ("printf", "text with values in it stands in backquotes: `` print(`loss ${x}`) ``"),
    ("println", "`print` ends the line"),
    ("str", "`x.to_string()`"),
    ("int", "`to_int(x)`"),
    ("float", "`to_float(x)`"),
    ("isinstance", "`type_of(x) == \"string\"`"),
    ("type", "`type_of(x)`"),
    ("input", "parameters are set from outside: `param(\"n\", 3)`, `--set n=5`"),
    ("dict", "maps are `#{ a: 1 }`"),
    ("list", "arrays are `[1, 2]`"),
    ("uniform", "`rand([2, 3])`: numbers from 0 to 1"),
    ("normal", "`noise([2, 3])`"),
    ("vstack", "`cat([a, b], 0)`"),
    ("concatenate", "`cat([a, b], 0)`"),
    ("array", "`tensor([1.0, 2.0])`"),
    ("assert", "`if !ok { throw \"message\" }`"),
    ("sample_noise", "`noise([2, 3])`"),
];

/// For `7 // 2`.
const DIVISION: &str = "`//` begins a comment; the whole part of a quotient is `(7 / 2).to_int()`";

/// Whether a `//` in a line looks like the division that it is elsewhere: an operand before it, and nothing but one behind it.
fn divides(line: &str) -> bool {
    let Some((before, after)) = line.split_once("//") else { return false };
    let operand = |c: char| c.is_alphanumeric() || "_)]".contains(c);
    let rest = after.trim().trim_end_matches([';', ')', ']', '}', ' ']);
    before.trim_end().ends_with(operand)
        && !rest.is_empty()
        && rest.chars().all(|c| c.is_alphanumeric() || "_.".contains(c))
        && rest.split('.').all(|part| part.parse::<u64>().is_ok() || !part.is_empty())
}

/// A line of a text in which `//` silently cuts off what is likely a divisor: a number or a variable (of the text, or one that is
/// `known`), one blank before and behind the `//`.
pub fn silent_division(text: &str, known: impl Fn(&str) -> bool) -> Option<(usize, String)> {
    text.lines().enumerate().find_map(|(i, line)| {
        let (before, after) = line.split_once(" // ")?;
        let divisor = after.trim_end_matches([';', ')', '}', ' ']);
        let operand = before.ends_with(|c: char| c.is_alphanumeric() || "_)]".contains(c));
        let quoted = before.matches(['"', '\u{60}']).count() % 2 == 1 || before.contains("//");
        let divides = || divisor.parse::<f64>().is_ok() || known(divisor) || declares(text, divisor);
        (operand && !quoted && divides()).then(|| (i + 1, DIVISION.to_string()))
    })
}

/// Whether a text has a variable, or a function with a parameter, of this name.
fn declares(text: &str, name: &str) -> bool {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.into_iter().any(|line| {
        let words: Vec<&str> =
            line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty()).collect();
        let function = words.first() == Some(&"fn");
        (1..words.len())
            .any(|i| words[i] == name && (matches!(words[i - 1], "let" | "const" | "for") || function && i > 1))
    })
}

fn look<'t>(table: &[(&[&str], &'t str)], word: &str) -> Option<&'t str> {
    table.iter().find(|(words, _)| words.contains(&word)).map(|(_, hint)| *hint)
}

/// The hint for an unknown variable.
pub fn variable(name: &str, place: Option<&Place>) -> Option<String> {
    if name == "_" {
        return Some("it is the value of the last input that had one, and there was none yet".into());
    }
    if let Some(hint) = look(VALUES, name) {
        return Some(hint.into());
    }
    let place = place?;
    if place.last_word() == "import" {
        return Some(format!("a module is named by a string: `import \"{name}\" as {name};`"));
    }
    let behind = place.behind();
    if place.before.trim().is_empty() && behind.starts_with('=') && !behind.starts_with("==") {
        return Some(format!("declare it first: `let {name} = …;`"));
    }
    None
}

/// The hint for an unknown function, or one that does not take what it was given; `types` are those of the arguments.
pub fn function(name: &str, types: &[&str]) -> Option<String> {
    let method = METHODS.iter().find(|(of, names, _)| types.first() == Some(of) && names.contains(&name));
    if let Some((_, _, write)) = method {
        return Some(match write.starts_with('`') {
            true => format!("here it is {write}"),
            false => write.to_string(),
        });
    }
    if matches!(name, ".." | "..=") && types.contains(&"float") {
        return Some("a range counts integers, and `5 / 2` is 2.5: `0..(n / 2).to_int()`".into());
    }
    if name == "**" && types.contains(&"array") {
        return Some("arrays are lists; `tensor(a) ** 2` computes".into());
    }
    if ["+", "-", "*", "/"].contains(&name) && types.contains(&"array") {
        return Some(format!("arrays are lists; `tensor(a) {name} …` computes"));
    }
    FUNCTIONS.iter().find(|(f, _)| *f == name).map(|(_, hint)| hint.to_string())
}

/// The hint for what the parser stumbled over.
pub fn syntax(message: &str, place: &Place) -> Option<String> {
    let line = [place.before, place.token, place.after].concat();
    let (token, last, first) = (place.token, place.last_word(), place.first_word());
    if let Some(hint) = look(WORDS, token).or_else(|| look(WORDS, last)).or_else(|| look(VALUES, token)) {
        return Some(hint.into());
    }
    if message.contains("scape sequence") {
        return Some("a backslash is written `\\\\`; in backquotes text stands as it is".into());
    }
    if token == "@" || message.contains("'@'") {
        return Some("the matrix product is `a.matmul(b)`".into());
    }
    if first == "let" && token == "," {
        return Some("each name has its own `let`: `let a = pair[0]; let b = pair[1];`".into());
    }
    if let Some(hint) = look(STATEMENTS, first) {
        return Some(hint.into());
    }
    if first == "try" && (token == ":" || message.contains("catch")) {
        return Some("write `try { … } catch (e) { … }`".into());
    }
    if token == "lambda" || last == "lambda" {
        return look(STATEMENTS, "lambda").map(String::from);
    }
    if token == "for" && line.contains('[') {
        return Some("a list is made from another by `list.map(|x| x * 2)`, or in a loop with `push`".into());
    }
    if token == ":" && matches!(first, "for" | "while" | "if" | "else") {
        return Some(format!("a block stands in braces: `{first} … {{ … }}`"));
    }
    // the brackets before it are closed: a keyword argument
    if token == ":"
        && message.contains("argument")
        && place.before.matches('[').count() == place.before.matches(']').count()
    {
        return Some(format!("options go into a map at the end: `f(x, #{{ {last}: … }})`"));
    }
    if token == ":" && (place.before.trim_end().ends_with(['[', ',']) || place.after.trim_start().starts_with(',')) {
        return Some("`()` takes a whole dimension: `x[[(), 0]]` is every row's first".into());
    }
    if token == ":" && place.before.contains('[') {
        return Some("a part of a tensor or array is `x[0..2]`".into());
    }
    if token == ":" && place.before.contains('{') && !place.before.contains("#{") {
        return Some("maps begin with `#{`: `#{ a: 1 }`".into());
    }
    if token == "=" && message.contains("argument") {
        return Some(format!("options go into a map at the end: `f(x, #{{ {last}: … }})`"));
    }
    if token == "if" && place.after.contains(" else ") {
        return Some("`if` is an expression: `if ok { a } else { b }`".into());
    }
    if matches!(last, "f" | "r") && token.starts_with(['"', '\'']) {
        return Some("text with values in it stands in backquotes: `` `loss ${x}` ``".into());
    }
    if divides(&line) || divides(place.above) {
        return Some(DIVISION.into());
    }
    if message.contains("Invalid character") {
        return Some("strings stand in double quotes; single quotes hold one character".into());
    }
    if message.contains("'++'") || message.contains("'--'") {
        return Some("write `i += 1`, `i -= 1`".into());
    }
    if message.contains("reserved keyword") {
        return Some("choose another name".into());
    }
    if token == "#" {
        return Some("comments begin with `//`".into());
    }
    if message.contains("terminate this statement") && !place.before.trim().is_empty() {
        return Some("statements end with `;`".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_has_one_hint() {
        for table in [VALUES, WORDS, STATEMENTS] {
            let mut words: Vec<&str> = table.iter().flat_map(|(w, _)| w.iter().copied()).collect();
            let n = words.len();
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), n);
        }
    }
}
