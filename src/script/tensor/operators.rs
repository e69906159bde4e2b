//! Operators: arithmetic, comparison, logic; `where`.
use super::{Defs, args, done, on};
use crate::Error;
use crate::nets::pointwise;
use crate::script::error::RhaiResult;
use crate::tensor::arith::{self, CmpOp, Op, Operand};
use crate::tensor::aside;
use candle_core::Tensor;
use rhai::{Dynamic, FLOAT, INT};

const BINARY: [(&str, Op, &str); 6] = [
    ("+", Op::Add, "Sum, with broadcasting; numbers adapt to the tensor's dtype."),
    ("-", Op::Sub, "Difference, with broadcasting."),
    ("*", Op::Mul, "Product element by element, with broadcasting (`matmul` for matrices)."),
    ("/", Op::Div, "Quotient, always floating point."),
    ("%", Op::Rem, "Remainder with the sign of the divisor, as in Python."),
    ("**", Op::Pow, "Power; an integer tensor to a negative integer becomes floating point."),
];

const COMPARE: [(&str, CmpOp, &str); 6] = [
    ("==", CmpOp::Eq, "Whether equal, element by element: a mask, or true and false between scalars."),
    ("!=", CmpOp::Ne, "Whether different, element by element."),
    ("<", CmpOp::Lt, "Whether less, element by element."),
    ("<=", CmpOp::Le, "Whether less or equal, element by element."),
    (">", CmpOp::Gt, "Whether greater, element by element."),
    (">=", CmpOp::Ge, "Whether greater or equal, element by element."),
];

fn tensor_in(o: &Operand) -> Option<&Tensor> {
    match o {
        Operand::Tensor(t) => Some(t),
        _ => None,
    }
}

/// `on` for two sides that may be numbers.
fn of_operands(
    a: Operand,
    b: Operand,
    f: impl FnOnce(Operand, Operand) -> crate::Result<Tensor> + Send + 'static,
) -> RhaiResult<Tensor> {
    let tensors: Vec<&Tensor> = [&a, &b].into_iter().filter_map(tensor_in).collect();
    done(aside::run(aside::load(&tensors), move || f(a, b)))
}

fn compare(o: CmpOp, a: impl Into<Operand>, b: impl Into<Operand>) -> RhaiResult<Dynamic> {
    let mask = of_operands(a.into(), b.into(), move |a, b| arith::compare(o, a, b))?;
    // `if loss < best` must work
    Ok(match mask.rank() {
        0 => Dynamic::from_bool(mask.to_scalar::<u8>().map_err(Error::from)? != 0),
        _ => Dynamic::from(mask),
    })
}

fn where_(c: Dynamic, a: Dynamic, b: Dynamic) -> RhaiResult<Tensor> {
    let (x, y) = (args::operand("where", &a)?, args::operand("where", &b)?);
    let c = match args::operand("where: the condition", &c)? {
        Operand::Tensor(t) => t,
        _ => return Err(args::wrong_type("where: the condition", "a mask", &c).into()),
    };
    // true and false, made on the CPU, follow the tensors
    let c = match (&x, &y) {
        (Operand::Tensor(t), _) | (_, Operand::Tensor(t)) => c.to_device(t.device()).map_err(Error::from)?,
        _ => c,
    };
    let tensors: Vec<&Tensor> = [&x, &y].into_iter().filter_map(tensor_in).chain([&c]).collect();
    done(aside::run(aside::load(&tensors), move || arith::where_(&c, x, y)))
}

pub(super) fn register(d: &mut Defs) {
    for (name, op, doc) in BINARY {
        let sig = |a: &str, b: &str| format!("a: {a}, b: {b} -> Tensor");
        d.add(name, &sig("Tensor", "Tensor"), doc, move |a: Tensor, b: Tensor| {
            on([&a, &b], move |[a, b]| pointwise::binary(op, a, b))
        });
        d.add(name, &sig("Tensor", "float"), doc, move |a: Tensor, b: FLOAT| {
            on([&a], move |[a]| arith::binary(op, a, b))
        });
        d.add(name, &sig("Tensor", "int"), doc, move |a: Tensor, b: INT| on([&a], move |[a]| arith::binary(op, a, b)));
        d.add(name, &sig("float", "Tensor"), doc, move |a: FLOAT, b: Tensor| {
            on([&b], move |[b]| arith::binary(op, a, b))
        });
        d.add(name, &sig("int", "Tensor"), doc, move |a: INT, b: Tensor| on([&b], move |[b]| arith::binary(op, a, b)));
    }
    for (name, op, doc) in COMPARE {
        let sig = |a: &str, b: &str| format!("a: {a}, b: {b} -> Tensor");
        d.add(name, &sig("Tensor", "Tensor"), doc, move |a: Tensor, b: Tensor| compare(op, &a, &b));
        d.add(name, &sig("Tensor", "float"), doc, move |a: Tensor, b: FLOAT| compare(op, &a, b));
        d.add(name, &sig("Tensor", "int"), doc, move |a: Tensor, b: INT| compare(op, &a, b));
        d.add(name, &sig("float", "Tensor"), doc, move |a: FLOAT, b: Tensor| compare(op, a, &b));
        d.add(name, &sig("int", "Tensor"), doc, move |a: INT, b: Tensor| compare(op, a, &b));
    }
    for (name, equal) in [("==", false), ("!=", true)] {
        let doc = "A tensor is never `()`.";
        d.add(name, "a: Tensor, b: () -> bool", doc, move |_: Tensor, (): ()| equal);
        d.add(name, "a: (), b: Tensor -> bool", doc, move |(): (), _: Tensor| equal);
    }
    d.add("-", "x: Tensor -> Tensor", "The negative.", |x: Tensor| on([&x], |[x]| arith::neg(x)));
    d.add("+", "x: Tensor -> Tensor", "The tensor itself.", |x: Tensor| x);
    d.add("!", "mask: Tensor -> Tensor", "1 where the mask is 0, else 0.", |x: Tensor| on([&x], |[x]| arith::not(x)));
    let doc = "1 where both masks are not 0.\n\nExample: `let x = arange(4); (x > 0) & (x < 3)`";
    d.add("&", "a: Tensor, b: Tensor -> Tensor", doc, |a: Tensor, b: Tensor| on([&a, &b], |[a, b]| arith::and(a, b)));
    let doc = "1 where either mask is not 0.";
    d.add("|", "a: Tensor, b: Tensor -> Tensor", doc, |a: Tensor, b: Tensor| on([&a, &b], |[a, b]| arith::or(a, b)));
    let doc = "1 where exactly one mask is not 0.";
    d.add("^", "a: Tensor, b: Tensor -> Tensor", doc, |a: Tensor, b: Tensor| on([&a, &b], |[a, b]| arith::xor(a, b)));

    let doc = "Values of `a` where the condition is not 0, else of `b`; all broadcast, each a tensor or a number.\n\n\
               Example: `let x = tensor([-1.0, 2.0]); where(x > 0, x, 0.0)`";
    d.add("where", "condition: Tensor, a: Tensor, b: Tensor -> Tensor", doc, where_);
    for (name, op, doc) in [
        (
            "maximum",
            Op::Maximum,
            "The larger of two, element by element (NaN if either is); each a tensor or a number.\n\nExample: `maximum(tensor([1, 5]), 3)`",
        ),
        (
            "minimum",
            Op::Minimum,
            "The smaller of two, element by element (NaN if either is); each a tensor or a number.\n\nExample: `minimum(tensor([1, 5]), 3)`",
        ),
    ] {
        d.add(name, "a: Tensor, b: Tensor -> Tensor", doc, move |a: Dynamic, b: Dynamic| {
            of_operands(args::operand(name, &a)?, args::operand(name, &b)?, move |a, b| arith::binary(op, a, b))
        });
    }
    let doc = "x to the power e, a number or a tensor: `x ** e`.\n\nExample: `tensor([1.0, 2.0]).pow(3)`";
    d.add("pow", "x: Tensor, e: Tensor -> Tensor", doc, |x: Tensor, e: Dynamic| {
        of_operands(Operand::from(&x), args::operand("pow", &e)?, |x, e| arith::binary(Op::Pow, x, e))
    });
}
