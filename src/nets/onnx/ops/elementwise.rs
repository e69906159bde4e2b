//! What is done to each value, and to values that are broadcast together.
use super::super::data::{self, Elem};
use super::super::lower::{Held, Lower, Step, V};
use super::super::num::{Num, Size};
use super::numbers::{mapped, truth, zipped};
use super::{Note, norms};
use crate::nets::kernels::{Arithmetic, Broadcast, Choice, Choose, Curve, Function, Gelu, Relu, Scale, Silu, Where};
use crate::{Error, Kind, Result};
use candle_core::{Device, Tensor};

/// A function of each value.
pub fn unary(low: &mut Lower, step: &Step) -> Result<V> {
    let v = step.input(0)?;
    match &*step.node.op {
        "Neg" => {
            if let Some(v) = mapped(low, v, low.val(v).elem, |n| Num::from(0).minus(n))? {
                return Ok(v);
            }
            low.each(Function::Neg, v)
        }
        "Abs" => {
            let whole = |n: Num| Ok(n.plain()?.saturating_abs().into());
            match mapped(low, v, low.val(v).elem, whole)? {
                Some(v) => Ok(v),
                None => low.each(Curve::Abs, v),
            }
        }
        "Sign" => low.each(Curve::Sign, v),
        "Ceil" => low.each(Curve::Ceil, v),
        "Floor" => low.each(Curve::Floor, v),
        "Round" => low.each(Curve::Round, v),
        "Cos" => low.each(Function::Cos, v),
        "Sin" => low.each(Function::Sin, v),
        "Exp" => low.each(Function::Exp, v),
        "Log" => low.each(Function::Log, v),
        "Sqrt" => low.each(Function::Sqrt, v),
        "Tanh" => low.each(Function::Tanh, v),
        "Reciprocal" => low.each(Function::Recip, v),
        "Relu" => low.each(Relu, v),
        "Erf" => low.each(Curve::Erf, v),
        "Mish" => low.each(Curve::Mish, v),
        "Softplus" => low.each(Curve::Softplus, v),
        "Elu" => low.each(Curve::Elu(step.float("alpha", 1.0)), v),
        "LeakyRelu" => low.each(Curve::Leaky(step.float("alpha", 0.01)), v),
        "HardSigmoid" => low.each(Curve::HardSigmoid(step.float("alpha", 0.2), step.float("beta", 0.5)), v),
        "HardSwish" => low.each(Curve::HardSwish, v),
        "Gelu" => match &*step.text("approximate", "none") {
            "none" => low.each(Gelu::Exact, v),
            "tanh" => low.each(Function::GeluTanh, v),
            other => Err(Error::new(Kind::Format, format!("GELU has no form `{other}`"))),
        },
        "Selu" => {
            let y = low.each(Curve::Elu(step.float("alpha", 1.673_263_192_176_818_8)), v)?;
            low.each(Scale(step.float("gamma", 1.050_701_022_148_132_3)), y)
        }
        "Softsign" => {
            let size = low.each(Curve::Abs, v)?;
            let one = number(low, 1.0)?;
            let below = binary(low, Arithmetic::Sum, size, one)?;
            binary(low, Arithmetic::Quotient, v, below)
        }
        other => Err(Error::new(Kind::Internal, format!("no function `{other}`"))),
    }
}

/// A constant number.
pub fn number(low: &mut Lower, x: f64) -> Result<V> {
    Ok(low.fixed(Tensor::full(x, (), &Device::Cpu)?))
}

/// One of the four operations on fractional numbers.
pub fn binary(low: &mut Lower, op: Arithmetic, a: V, b: V) -> Result<V> {
    let whole = [a, b].iter().all(|v| low.val(*v).elem != Elem::Float);
    let elem = if whole { Elem::Int } else { Elem::Float };
    low.sides([a, b], elem, |sides| Broadcast { op, sides })
}

fn both(step: &Step) -> Result<[V; 2]> {
    Ok([step.input(0)?, step.input(1)?])
}

/// a + b.
pub fn add(low: &mut Lower, step: &Step) -> Result<V> {
    let [a, b] = both(step)?;
    for (x, other) in [(a, b), (b, a)] {
        if let Some(Note::Biased(bias)) = low.val(x).note
            && bias == other
        {
            return Ok(x);
        }
    }
    if let Some(v) = zipped(low, a, b, low.val(a).elem, Num::plus)? {
        return Ok(v);
    }
    if let Some(v) = norms::shifted(low, a, b)? {
        return Ok(v);
    }
    binary(low, Arithmetic::Sum, a, b)
}

/// Any number of values.
pub fn sum(low: &mut Lower, step: &Step) -> Result<V> {
    let mut sum = step.input(0)?;
    for i in 1..step.inputs.len() {
        sum = binary(low, Arithmetic::Sum, sum, step.input(i)?)?;
    }
    Ok(sum)
}

/// a − b.
pub fn sub(low: &mut Lower, step: &Step) -> Result<V> {
    let [a, b] = both(step)?;
    match zipped(low, a, b, low.val(a).elem, Num::minus)? {
        Some(v) => Ok(v),
        None => binary(low, Arithmetic::Difference, a, b),
    }
}

/// a · b.
pub fn mul(low: &mut Lower, step: &Step) -> Result<V> {
    let [a, b] = both(step)?;
    if let Some(v) = zipped(low, a, b, low.val(a).elem, Num::times)? {
        return Ok(v);
    }
    for (x, s) in [(a, b), (b, a)] {
        if let Some(Note::SigmoidOf(of)) = low.val(s).note
            && of == x
        {
            return silu(low, x);
        }
    }
    if let Some(v) = norms::scaled(low, a, b)? {
        return Ok(v);
    }
    if a == b {
        return low.each(Function::Square, a);
    }
    binary(low, Arithmetic::Product, a, b)
}

/// x · sigmoid(x), within the norm before it where there is one.
fn silu(low: &mut Lower, x: V) -> Result<V> {
    match norms::with_silu(low, x)? {
        Some(v) => Ok(v),
        None => low.each(Silu, x),
    }
}

/// x · sigmoid(αx).
pub fn swish(low: &mut Lower, step: &Step) -> Result<V> {
    let (x, alpha) = (step.input(0)?, step.float("alpha", 1.0));
    match alpha {
        1.0 => silu(low, x),
        1.702 => low.each(Gelu::Quick, x),
        alpha => {
            let inner = low.each(Scale(alpha), x)?;
            let gate = low.each(Function::Sigmoid, inner)?;
            binary(low, Arithmetic::Product, x, gate)
        }
    }
}

/// a · sigmoid(αa) · b.
pub fn swiglu(low: &mut Lower, step: &Step) -> Result<V> {
    let gate = swish(low, step)?;
    let b = step.input(1)?;
    binary(low, Arithmetic::Product, gate, b)
}

/// The sigmoid.
pub fn sigmoid(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let y = low.each(Function::Sigmoid, x)?;
    low.note(y, Note::SigmoidOf(x));
    Ok(y)
}

/// a / b; of whole numbers cut towards zero.
pub fn div(low: &mut Lower, step: &Step) -> Result<V> {
    let [a, b] = both(step)?;
    if let Some(v) = zipped(low, a, b, low.val(a).elem, Num::over)? {
        return Ok(v);
    }
    let y = binary(low, Arithmetic::Quotient, a, b)?;
    if low.val(y).elem == Elem::Int { low.each(Curve::Trunc, y) } else { Ok(y) }
}

/// a^b.
pub fn pow(low: &mut Lower, step: &Step) -> Result<V> {
    let [a, b] = both(step)?;
    let whole = |x: Num, k: Num| match (x.plain()?, u32::try_from(k.plain()?)) {
        (x, Ok(k)) => x.checked_pow(k).map(Num::from).ok_or_else(|| Error::value(format!("{x}^{k} is too large"))),
        (x, Err(_)) => Err(Error::value(format!("{x} to a negative power is no whole number"))),
    };
    if let Some(v) = zipped(low, a, b, low.val(a).elem, whole)? {
        return Ok(v);
    }
    let exponent = match low.floats(b)? {
        Some(all) if all.len() == 1 => Some(f64::from(all[0])),
        _ => None,
    };
    let elem = low.val(a).elem;
    match exponent {
        Some(1.0) => Ok(a),
        Some(2.0) => low.each(Function::Square, a),
        Some(0.5) => low.each(Function::Sqrt, a),
        Some(-1.0) => low.each(Function::Recip, a),
        Some(-0.5) => low.each(Function::Rsqrt, a),
        Some(k) => low.each(Curve::Power(k), a),
        None => low.sides([a, b], elem, |sides| Choose { op: Choice::Power, sides }),
    }
}

/// The largest or smallest of any number of values.
pub fn extreme(low: &mut Lower, step: &Step) -> Result<V> {
    let op = if step.node.op == "Max" { Choice::Max } else { Choice::Min };
    let mut most = step.input(0)?;
    for i in 1..step.inputs.len() {
        let next = step.input(i)?;
        let pick = |a: Num, b: Num| Ok(if a.less(b)? == (op == Choice::Max) { b } else { a });
        most = match zipped(low, most, next, low.val(most).elem, pick)? {
            Some(v) => v,
            None => {
                let elem = low.val(most).elem;
                low.sides([most, next], elem, |sides| Choose { op, sides })?
            }
        };
    }
    Ok(most)
}

/// Values held between two bounds.
pub fn clip(low: &mut Lower, step: &Step) -> Result<V> {
    let (x, mut bounds) = (step.input(0)?, [f64::NEG_INFINITY, f64::INFINITY]);
    for (i, bound) in bounds.iter_mut().enumerate() {
        let Some(v) = step.maybe(i + 1) else { continue };
        match low.floats(v)?.as_deref() {
            Some(&[b]) => *bound = f64::from(b),
            _ => return Err(Error::value("its bounds must be constant numbers")),
        }
    }
    let whole = |n: Num| Ok(((n.plain()? as f64).max(bounds[0]).min(bounds[1]) as i64).into());
    match mapped(low, x, low.val(x).elem, whole)? {
        Some(v) => Ok(v),
        None => low.each(Curve::Clip(bounds[0], bounds[1]), x),
    }
}

/// x, or slope · x below 0, with a slope of its own for each channel.
pub fn prelu(low: &mut Lower, step: &Step) -> Result<V> {
    let [x, slope] = both(step)?;
    let (above, below) =
        (low.each(Curve::Clip(0.0, f64::INFINITY), x)?, low.each(Curve::Clip(f64::NEG_INFINITY, 0.0), x)?);
    let below = binary(low, Arithmetic::Product, below, slope)?;
    binary(low, Arithmetic::Sum, above, below)
}

/// Comparisons.
pub fn compare(low: &mut Lower, step: &Step) -> Result<V> {
    let [a, b] = both(step)?;
    let op = &*step.node.op;
    let less = |x: Num, y: Num| x.less(y);
    let whole = |x: Num, y: Num| {
        Ok(truth(match op {
            // a size that grows is no fixed one: exporters ask so whether it is −1
            "Equal" => x == y,
            "Less" => less(x, y)?,
            "Greater" => less(y, x)?,
            "LessOrEqual" => !less(y, x)?,
            _ => !less(x, y)?,
        }))
    };
    if let Some(v) = zipped(low, a, b, Elem::Bool, whole)? {
        return Ok(v);
    }
    let (choice, a, b) = match op {
        "Equal" => (Choice::Equal, a, b),
        "Less" => (Choice::Less, a, b),
        "Greater" => (Choice::Less, b, a),
        "LessOrEqual" => (Choice::LessOrEqual, a, b),
        _ => (Choice::LessOrEqual, b, a),
    };
    low.sides([a, b], Elem::Bool, |sides| Choose { op: choice, sides })
}

/// And, or.
pub fn logic(low: &mut Lower, step: &Step) -> Result<V> {
    let [a, b] = both(step)?;
    let and = step.node.op == "And";
    let whole = |x: Num, y: Num| {
        let (x, y) = (x != 0.into(), y != 0.into());
        Ok(truth(if and { x && y } else { x || y }))
    };
    if let Some(v) = zipped(low, a, b, Elem::Bool, whole)? {
        return Ok(v);
    }
    let op = if and { Choice::Min } else { Choice::Max };
    low.sides([a, b], Elem::Bool, |sides| Choose { op, sides })
}

/// Not.
pub fn not(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    if let Some(v) = mapped(low, x, Elem::Bool, |n| Ok(truth(n == 0.into())))? {
        return Ok(v);
    }
    let zero = number(low, 0.0)?;
    low.sides([x, zero], Elem::Bool, |sides| Choose { op: Choice::Equal, sides })
}

/// One of two by a third.
pub fn choose(low: &mut Lower, step: &Step) -> Result<V> {
    let [c, a, b] = [step.input(0)?, step.input(1)?, step.input(2)?];
    let elem = low.val(a).elem;
    // the same everywhere: the one that it is, where the other gives it no other shape
    if let Some(all) = low.known(c).map(<[Num]>::to_vec)
        && let Some(first) = all.first().copied().filter(|f| all.iter().all(|n| (*n == 0.into()) == (*f == 0.into())))
    {
        let (x, y) = if first == 0.into() { (b, a) } else { (a, b) };
        let scalar = |v: V| low.sizes(v).iter().all(|s| *s == Size::Fixed(1)) && low.rank(v) <= low.rank(x);
        let alike = low.sizes(x) == low.sizes(y)
            && low.rank(c) <= low.rank(x)
            && (all.len() == 1 || low.sizes(c) == low.sizes(x));
        if alike || (scalar(y) && (scalar(c) || low.sizes(c) == low.sizes(x))) {
            return Ok(x);
        }
    }
    if low.known(c).is_some() && low.known(a).is_some() && low.known(b).is_some() {
        // first with the condition, then between the two: each is known
        let chosen =
            zipped(low, c, a, elem, |c, a| Ok(if c == 0.into() { Num { fixed: i64::MIN, per: i64::MIN } } else { a }))?;
        if let Some(chosen) = chosen
            && let Some(v) = zipped(low, chosen, b, elem, |x, b| Ok(if x.per == i64::MIN { b } else { x }))?
        {
            return Ok(v);
        }
    }
    low.sides([c, a, b], elem, Where)
}

/// Another type of number.
pub fn cast(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let to = match step.node.op == "Cast" {
        true => data::elem(step.int("to", 1) as i32)?,
        false => low.val(step.input(1)?).elem,
    };
    let from = low.val(x).elem;
    let as_is = |low: &mut Lower| {
        let mut v = low.val(x).clone();
        v.elem = to;
        // a number that is told in other types is the same to what comes after
        low.value(v)
    };
    if from == to {
        return Ok(x);
    }
    match (&low.val(x).held, from, to) {
        (Held::Nums(all), _, Elem::Float) if all.iter().all(|n| n.per == 0) => {
            let t = low.tensor(x, false)?;
            let t = t.ok_or_else(|| Error::new(Kind::Internal, "known numbers without values"))?;
            let sizes = low.sizes(x).to_vec();
            Ok(low.constant(Elem::Float, sizes, t))
        }
        (Held::Nums(_), _, Elem::Bool) => {
            let made = mapped(low, x, Elem::Bool, |n| Ok(truth(n != 0.into())))?;
            made.ok_or_else(|| Error::new(Kind::Internal, "known numbers without values"))
        }
        (Held::Nums(_), ..) => Ok(as_is(low)),
        (Held::Const(_), Elem::Float, _) if low.sizes(x).iter().all(|s| s.fixed().is_some()) => {
            let sizes = low.sizes(x).to_vec();
            let all = low.floats(x)?.unwrap_or_default();
            let whole = |v: &f32| if to == Elem::Bool { truth(*v != 0.0) } else { Num::from(*v as i64) };
            Ok(low.nums(to, sizes, all.iter().map(whole).collect()))
        }
        (_, Elem::Float, Elem::Int) => {
            let y = low.each(Curve::Trunc, x)?;
            let mut v = low.val(y).clone();
            v.elem = to;
            Ok(low.value(v))
        }
        (_, _, Elem::Bool) => {
            let zero = number(low, 0.0)?;
            let is = low.sides([x, zero], Elem::Bool, |sides| Choose { op: Choice::Equal, sides })?;
            low.sides([is, zero], Elem::Bool, |sides| Choose { op: Choice::Equal, sides })
        }
        _ => Ok(as_is(low)),
    }
}
