//! What the engine's metadata does not tell: the language's keywords, its built-in functions, and what the types are.

/// A type of values.
pub struct TypeInfo {
    /// The name that users see.
    pub name: &'static str,
    /// The names that Rust code has for it, by their last part.
    pub rust: &'static [&'static str],
    /// What it is.
    pub summary: &'static str,
}

const fn named(name: &'static str, rust: &'static [&'static str], summary: &'static str) -> TypeInfo {
    TypeInfo { name, rust, summary }
}

/// The types that scripts meet, ld3sh's own first.
pub const TYPES: &[TypeInfo] = &[
    named("Tensor", &[], "An array of numbers of any rank, with numpy's broadcasting, slicing and gradients."),
    named("Noise", &["DynNoise"], "A noise schedule: α(t) and σ(t) of x_t = α x_0 + σ ε, made in module `noise`."),
    named(
        "Denoiser",
        &["DynDenoiser"],
        "A network or closed form that predicts data from a noisy state, made in module `denoiser`.",
    ),
    named(
        "TextEncoder",
        &[],
        "Text encoders with their tokenizers, which make conditions of texts, loaded by `text::load`.",
    ),
    named("Model", &[], "A denoiser with the autoencoder, or the prior, beside it, made by `model::load`."),
    named("Schedule", &[], "The time steps of a sampler, from T down to t_min, made in module `schedule` or by `tau`."),
    named("Solver", &["ScriptSolver"], "A way to turn time steps into a sampler, made in module `solver`."),
    named("Plan", &["Tracked"], "A sampler as data: the coefficients of all its steps, made by `plan`."),
    named("Optimizer", &["SharedOptimizer"], "An update rule with its state, made in module `optim`."),
    named(
        "Plateau",
        &["SharedPlateau"],
        "Counts the steps without improvement and lowers learning rates, made by `optim::plateau`.",
    ),
    named(
        "Statistics",
        &["ScriptStats"],
        "Count, mean and covariance of features, gathered batch by batch, made by `metric::stats`.",
    ),
    named("FeatureNetwork", &["ScriptExtractor"], "A network whose features are measured, made by `metric::network`."),
    named(
        "Graph",
        &["TracedGraph"],
        "A function of tensors that was recorded (`graph::trace`), or a network of an ONNX file (`graph::onnx`); kernels run it.",
    ),
    named("Checkpoint", &["ScriptCheckpoint"], "A file of tensors by name, opened by `checkpoint::open`."),
    named("Dataset", &[], "Pictures with labels, read as they are asked for, opened by `data::open`."),
    named("Batches", &[], "The batches of a data set in an order, for `for`, made by `batches`."),
    named("Image", &[], "A picture of 8-bit pixels, made in module `image`."),
    named("Plot", &["ScriptPlot"], "A plot, made in module `plot`."),
    named("Table", &[], "Rows aligned in columns for print and Markdown, made by `table`."),
    named("Option", &["Declared"], "An option of a method, declared by `option` for `with_defaults`."),
    named("Progress", &["Bar"], "A progress bar, made by `progress`."),
    named("Error", &["Caught"], "What `catch (e)` receives: `e.kind`, `e.message`, `e.hint`, `e.shapes`."),
    named("int", &["i64", "INT", "usize"], "A whole number of 64 bits."),
    named("float", &["f64", "FLOAT"], "A floating-point number of 64 bits."),
    named("number", &[], "An int or a float."),
    named("bool", &[], "true or false."),
    named("char", &[], "One character, written 'a'."),
    named("string", &["str", "String", "ImmutableString"], "Text, written \"a\" or `a${expression}`."),
    named("array", &["Array", "Vec"], "A list of any values, written [1, 2, 3]."),
    named("map", &["Map", "BTreeMap"], "Values by name, written #{ a: 1 }."),
    named("blob", &["Blob"], "A list of bytes."),
    named("range", &["Range", "RangeInclusive"], "Whole numbers from one to another, written 0..3 or 0..=3."),
    named("function", &["FnPtr", "Fn"], "A function as a value, written |x| x + 1."),
    named("timestamp", &["Instant"], "A point in time, made by `timestamp`."),
    named("iterator", &["CharsStream", "BitRange", "StepRange"], "What a `for` loop can go through once."),
    named("any", &["Dynamic", "?"], "A value of any type."),
];

/// A word of the language: its name, what it does, an example.
pub type Word = (&'static str, &'static str, &'static str);

/// The keywords.
pub const KEYWORDS: &[Word] = &[
    ("let", "Declares a variable.", "let x = 1;\nx += 1;\nx"),
    (
        "const",
        "Declares a constant; functions see those of the top level, also as `global::NAME`.",
        "const N = 10;\nfn twice() { 2 * global::N }\ntwice()",
    ),
    (
        "if",
        "Runs a block where a condition is true; it has a value.",
        "let nfe = 5;\nlet kind = if nfe < 10 { \"few\" } else { \"many\" };\nkind",
    ),
    ("else", "The other branch of `if`.", "if 1 > 2 { \"a\" } else if 2 > 2 { \"b\" } else { \"c\" }"),
    (
        "switch",
        "Picks a branch by value; `_` is the rest. Cases may be ranges, and have conditions with `if`.",
        "let n = 7;\nswitch n {\n    0 => \"none\",\n    1..=9 if n % 2 == 1 => \"few and odd\",\n    1..=9 => \"few\",\n    _ => \"many\",\n}",
    ),
    (
        "for",
        "Goes through a range, an array, the characters of a string (`s.chars()`) or the first dimension of a tensor. Each pass has variables of its own.",
        "let sum = 0;\nfor i in 0..4 { sum += i; }\nfor (x, i) in [10, 20] { sum += x * i; }\nsum",
    ),
    ("in", "Goes with `for`; between values: whether a thing is in another.", "2 in [1, 2, 3]"),
    ("while", "Repeats a block while a condition is true.", "let x = 1;\nwhile x < 100 { x *= 2; }\nx"),
    (
        "loop",
        "Repeats a block until `break`, which may give the loop's value.",
        "let n = 0;\nlet found = loop { n += 1; if n * n > 50 { break n; } };\nfound",
    ),
    (
        "do",
        "Repeats a block at least once: `do { … } while c` or `until c`.",
        "let x = 1;\ndo { x *= 2; } until x > 10;\nx",
    ),
    ("until", "Ends `do { … } until c` when the condition is true.", "let x = 1;\ndo { x *= 2; } until x > 10;\nx"),
    ("break", "Leaves a loop.", "let last = 0;\nfor i in 0..10 { if i > 3 { break; } last = i; }\nlast"),
    (
        "continue",
        "Goes on with the next round of a loop.",
        "let odd = [];\nfor i in 0..6 { if i % 2 == 0 { continue; } odd.push(i); }\nodd",
    ),
    (
        "fn",
        "Defines a function. Its last expression is its value; it sees the variables of the script's top level.",
        "fn lerp(a, b, t) { a + (b - a) * t }\nlerp(0.0, 10.0, 0.3)",
    ),
    (
        "private",
        "Before `fn`: a function that importers of the module do not see.",
        "private fn helper() { 1 }\nhelper()",
    ),
    ("return", "Leaves a function with a value.", "fn sign_of(x) { if x < 0 { return -1; } 1 }\nsign_of(-3)"),
    (
        "import",
        "Loads a module: beside the script, in LD3SH_PATH, or compiled in.",
        "import \"ld3\" as ld3;\nld3::defaults(5).lr_xi",
    ),
    ("export", "Makes a variable of a module visible to its importers.", "export const ANSWER = 42;"),
    ("as", "Names what `import` or `export` brings.", "import \"ld3\" as method;\nmethod::defaults(5).lr_xi"),
    (
        "try",
        "Runs a block; where it fails, `catch (e)` goes on with the error.",
        "try { matmul(ones([2, 3]), ones([2, 3])); } catch (e) { print(e.kind); }",
    ),
    (
        "catch",
        "Goes on after an error in `try`; `e` is an Error or what `throw` threw.",
        "try { throw \"too many steps\"; } catch (e) { print(e); }",
    ),
    (
        "throw",
        "Raises an error: a text, of which `catch` receives an Error, or any value, which it receives as it is.",
        "try { throw #{ code: 3 }; } catch (e) { print(e.code); }",
    ),
    ("true", "The bool that is true.", "true || false"),
    ("false", "The bool that is false.", "true && false"),
    (
        "this",
        "In a function called as a method: the value before the dot.",
        "fn double() { this *= 2; }\nlet x = 4;\nx.double();\nx",
    ),
    (
        "global",
        "The constants of the script, seen from functions.",
        "const N = 10;\nfn twice() { 2 * global::N }\ntwice()",
    ),
];

/// Functions of Rhai itself: name, signature, summary, example.
pub const BUILT_IN: &[(&str, &str, &str, &str)] = &[
    ("print", "print(value)", "Writes a line to standard output.", "print(`1 + 1 = ${1 + 1}`);"),
    ("debug", "debug(value)", "Writes a value and the place of the call to standard error.", "debug([1, \"a\"]);"),
    ("INF", "INF", "Infinity, a float: larger than all numbers.", "min(INF, 3.0)  // 3.0"),
    ("type_of", "type_of(value) -> string", "The name of a value's type.", "type_of(1.5)  // \"f64\""),
    (
        "is_def_var",
        "is_def_var(name: string) -> bool",
        "Whether a variable of that name exists.",
        "is_def_var(\"x\")  // false",
    ),
    (
        "is_def_fn",
        "is_def_fn(name: string, arguments: int) -> bool",
        "Whether the script defines a function of that name with so many arguments.",
        "fn f(x) { x }\nis_def_fn(\"f\", 1)  // true",
    ),
    (
        "is_shared",
        "is_shared(variable) -> bool",
        "Whether closures share the variable.",
        "let x = 1;\nis_shared(x)  // false",
    ),
    (
        "Fn",
        "Fn(name: string) -> function",
        "The function of that name as a value; `|x| …` is shorter.",
        "fn f(x) { x + 1 }\nFn(\"f\").call(1)  // 2",
    ),
    ("call", "call(arguments…)", "Calls a function value.", "let f = |x| x + 1;\nf.call(1)  // 2"),
    (
        "curry",
        "curry(arguments…) -> function",
        "A function value with its first arguments given.",
        "let add = |a, b| a + b;\nadd.curry(1).call(2)  // 3",
    ),
    ("eval", "eval(script: string)", "Runs text as a script in place.", "eval(\"1 + 2\")  // 3"),
];
