//! Arithmetic as a researcher expects it: `12 / 5` is 2.4, `12 / 4` stays an integer, `2 ** -1` is 0.5, and comparisons
//! of floats are exact.
use super::error::RhaiResult;
use crate::Error;
use rhai::{Dynamic, Engine, FLOAT, INT, Position};

/// Replaces Rhai's integer division, power and comparisons. The engine must not take its built-in fast path for operators.
pub fn register(engine: &mut Engine) {
    engine.set_fast_operators(false);
    for (name, f) in OF_FLOAT {
        engine.register_fn(name, move |x: INT| f(x as FLOAT));
    }
    for (name, f) in COMPARISONS {
        engine.register_fn(name, move |x: FLOAT, y: FLOAT| f(&x, &y));
        engine.register_fn(name, move |x: INT, y: FLOAT| f(&(x as FLOAT), &y));
        engine.register_fn(name, move |x: FLOAT, y: INT| f(&x, &(y as FLOAT)));
    }
    engine.register_fn("/", divide);
    engine.register_fn("**", power);
    engine.register_fn("/=", |x: &mut Dynamic, y: INT| assign(x, y, "/=", divide, |a, b| a / b));
    engine.register_fn("**=", |x: &mut Dynamic, y: INT| assign(x, y, "**=", power, |a, b| a.powf(b)));
}

/// The constants that every script knows by name. (π and e are functions, as in Rhai: `PI()`.)
pub fn constant(name: &str) -> Option<Dynamic> {
    (name == "INF").then(|| Dynamic::from_float(FLOAT::INFINITY))
}

type OfFloat = fn(FLOAT) -> FLOAT;

/// Rhai's functions of a float, for integers too: `sqrt(256)`.
const OF_FLOAT: [(&str, OfFloat); 11] = [
    ("sqrt", FLOAT::sqrt),
    ("exp", FLOAT::exp),
    ("ln", FLOAT::ln),
    ("log", FLOAT::log10),
    ("sin", FLOAT::sin),
    ("cos", FLOAT::cos),
    ("tan", FLOAT::tan),
    ("tanh", FLOAT::tanh),
    ("floor", FLOAT::floor),
    ("ceiling", FLOAT::ceil),
    ("round", FLOAT::round),
];

/// An operator and what it does.
type Comparison = (&'static str, fn(&FLOAT, &FLOAT) -> bool);

/// Rhai compares floats with a tolerance relative to the larger one, which makes `0.1 < 1.0 / 0.0` false and two losses
/// that differ in the last bit equal. Here they are compared as IEEE 754 has it.
const COMPARISONS: [Comparison; 6] =
    [("<", FLOAT::lt), ("<=", FLOAT::le), (">", FLOAT::gt), (">=", FLOAT::ge), ("==", FLOAT::eq), ("!=", FLOAT::ne)];

/// x / y: an integer if it divides, else a float.
fn divide(x: INT, y: INT) -> RhaiResult<Dynamic> {
    if y == 0 {
        return Err(Error::value(format!("division of {x} by zero")).hint("infinity is `INF`").into());
    }
    match (x.checked_rem(y), x.checked_div(y)) {
        (Some(0), Some(q)) => Ok(q.into()),
        (Some(_), _) => Ok((x as FLOAT / y as FLOAT).into()),
        (None, _) => Err(overflow(&format!("{x} / {y}"))),
    }
}

/// x ** y: an integer if y ≥ 0, else a float.
fn power(x: INT, y: INT) -> RhaiResult<Dynamic> {
    if y < 0 {
        return match x {
            0 => Err(Error::value(format!("0 ** {y} is a division by zero")).into()),
            _ => Ok((x as FLOAT).powf(y as FLOAT).into()),
        };
    }
    match (x, u32::try_from(y)) {
        (0 | 1, _) => Ok(if y == 0 { 1 } else { x }.into()),
        (-1, _) => Ok(if y % 2 == 0 { 1 } else { -1 }.into()),
        (_, Ok(n)) => x.checked_pow(n).map(Dynamic::from).ok_or_else(|| overflow(&format!("{x} ** {y}"))),
        (_, Err(_)) => Err(overflow(&format!("{x} ** {y}"))),
    }
}

fn overflow(what: &str) -> Box<rhai::EvalAltResult> {
    Error::value(format!("{what} does not fit in a 64-bit integer")).hint("use floats: `2.0 ** 80`").into()
}

/// x op= y for numbers. For anything else the error that makes Rhai try `x = x op y`.
fn assign(
    x: &mut Dynamic,
    y: INT,
    op: &str,
    ints: fn(INT, INT) -> RhaiResult<Dynamic>,
    floats: fn(FLOAT, FLOAT) -> FLOAT,
) -> RhaiResult<()> {
    if let Ok(i) = x.as_int() {
        *x = ints(i, y)?;
    } else if let Ok(f) = x.as_float() {
        *x = floats(f, y as FLOAT).into();
    } else {
        return Err(rhai::EvalAltResult::ErrorFunctionNotFound(op.into(), Position::NONE).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_and_quotients() {
        assert_eq!(divide(12, 4).unwrap().as_int(), Ok(3));
        assert_eq!(divide(12, 5).unwrap().as_float(), Ok(2.4));
        assert!(divide(1, 0).is_err());
        assert!(divide(INT::MIN, -1).is_err());
        assert_eq!(power(2, 10).unwrap().as_int(), Ok(1024));
        assert_eq!(power(2, -1).unwrap().as_float(), Ok(0.5));
        assert_eq!(power(-1, INT::MAX).unwrap().as_int(), Ok(-1));
        assert_eq!(power(0, 0).unwrap().as_int(), Ok(1));
        assert!(power(2, 64).is_err());
        assert!(power(3, INT::MAX).is_err());
        assert!(power(0, -1).is_err());
    }
}
