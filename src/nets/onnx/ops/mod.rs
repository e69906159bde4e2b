//! The operations of ONNX, a row each: how each becomes kernels, or a number at once.
mod elementwise;
mod images;
mod indices;
mod linear;
mod norms;
mod numbers;
mod pools;
mod resize;
mod shapes;

use super::lower::{Lower, Step, V};
use crate::{Error, Kind, Result};

/// How a value came about, where operations after it may together be one kernel.
#[derive(Clone)]
pub enum Note {
    /// Channels of `0` put into this many groups.
    Grouped(V, usize),
    /// These groups normalized.
    Normed(V, usize, f64),
    /// A group norm.
    Norm(norms::Norm),
    /// The sigmoid of a value.
    SigmoidOf(V),
    /// A value that what is added next is in already.
    Biased(V),
    /// Numbers of so many classes.
    Classes(usize),
}

/// How an operation is lowered.
enum How {
    /// To one result.
    One(fn(&mut Lower, &Step) -> Result<V>),
    /// To several.
    Many(fn(&mut Lower, &Step) -> Result<Vec<V>>),
}
use How::{Many, One};

/// The operations by name.
const TABLE: &[(&str, How)] = &[
    ("Abs", One(elementwise::unary)),
    ("Add", One(elementwise::add)),
    ("And", One(elementwise::logic)),
    ("Attention", One(linear::attention)),
    ("AveragePool", One(pools::average)),
    ("BatchNormalization", One(norms::batch)),
    ("Cast", One(elementwise::cast)),
    ("CastLike", One(elementwise::cast)),
    ("Ceil", One(elementwise::unary)),
    ("Clip", One(elementwise::clip)),
    ("Concat", One(shapes::concat)),
    ("Constant", One(shapes::constant)),
    ("ConstantOfShape", One(shapes::constant_of_shape)),
    ("Conv", One(images::conv)),
    ("ConvTranspose", One(images::conv_transpose)),
    ("Cos", One(elementwise::unary)),
    ("CumSum", One(indices::cum_sum)),
    ("DepthToSpace", One(images::depth_to_space)),
    ("Div", One(elementwise::div)),
    ("Dropout", One(shapes::dropout)),
    ("Einsum", One(linear::einsum)),
    ("Elu", One(elementwise::unary)),
    ("Equal", One(elementwise::compare)),
    ("Erf", One(elementwise::unary)),
    ("Exp", One(elementwise::unary)),
    ("Expand", One(shapes::expand)),
    ("Flatten", One(shapes::flatten)),
    ("Floor", One(elementwise::unary)),
    ("Gather", One(indices::gather)),
    ("Gelu", One(elementwise::unary)),
    ("Gemm", One(linear::gemm)),
    ("GlobalAveragePool", One(pools::global_average)),
    ("GlobalMaxPool", One(pools::global_max)),
    ("Greater", One(elementwise::compare)),
    ("GreaterOrEqual", One(elementwise::compare)),
    ("GroupNormalization", One(norms::group)),
    ("HardSigmoid", One(elementwise::unary)),
    ("HardSwish", One(elementwise::unary)),
    ("Identity", One(shapes::identity)),
    ("InstanceNormalization", One(norms::instance)),
    ("LayerNormalization", One(norms::layer)),
    ("LeakyRelu", One(elementwise::unary)),
    ("Less", One(elementwise::compare)),
    ("LessOrEqual", One(elementwise::compare)),
    ("Log", One(elementwise::unary)),
    ("LogSoftmax", One(linear::softmax)),
    ("MatMul", One(linear::matmul)),
    ("Max", One(elementwise::extreme)),
    ("MaxPool", One(pools::max)),
    ("Min", One(elementwise::extreme)),
    ("Mish", One(elementwise::unary)),
    ("Mul", One(elementwise::mul)),
    ("Neg", One(elementwise::unary)),
    ("Not", One(elementwise::not)),
    ("OneHot", One(indices::one_hot)),
    ("Or", One(elementwise::logic)),
    ("PRelu", One(elementwise::prelu)),
    ("Pad", One(indices::pad)),
    ("Pow", One(elementwise::pow)),
    ("RMSNormalization", One(norms::rms)),
    ("Range", One(shapes::range)),
    ("Reciprocal", One(elementwise::unary)),
    ("ReduceL2", One(pools::reduce)),
    ("ReduceMax", One(pools::reduce)),
    ("ReduceMean", One(pools::reduce)),
    ("ReduceMin", One(pools::reduce)),
    ("ReduceProd", One(pools::reduce)),
    ("ReduceSum", One(pools::reduce)),
    ("ReduceSumSquare", One(pools::reduce)),
    ("Relu", One(elementwise::unary)),
    ("Reshape", One(shapes::reshape)),
    ("Resize", One(resize::resize)),
    ("Round", One(elementwise::unary)),
    ("Selu", One(elementwise::unary)),
    ("Shape", One(shapes::shape)),
    ("Sigmoid", One(elementwise::sigmoid)),
    ("Sign", One(elementwise::unary)),
    ("Sin", One(elementwise::unary)),
    ("Size", One(shapes::size)),
    ("Slice", One(indices::slice)),
    ("Softmax", One(linear::softmax)),
    ("Softplus", One(elementwise::unary)),
    ("Softsign", One(elementwise::unary)),
    ("SpaceToDepth", One(images::space_to_depth)),
    ("Split", Many(indices::split)),
    ("Sqrt", One(elementwise::unary)),
    ("Squeeze", One(shapes::squeeze)),
    ("Sub", One(elementwise::sub)),
    ("Sum", One(elementwise::sum)),
    ("SwiGLU", One(elementwise::swiglu)),
    ("Swish", One(elementwise::swish)),
    ("Tanh", One(elementwise::unary)),
    ("Tile", One(indices::tile)),
    ("Transpose", One(shapes::transpose)),
    ("Trilu", One(indices::trilu)),
    ("Unsqueeze", One(shapes::unsqueeze)),
    ("Upsample", One(resize::resize)),
    ("Where", One(elementwise::choose)),
];

/// The names of all operations that are known.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// Lowers an operation.
pub fn lower(low: &mut Lower, step: &Step) -> Result<Vec<V>> {
    let node = step.node;
    let standard = node.domain.is_empty() || node.domain == "ai.onnx";
    match TABLE.iter().find(|(name, _)| *name == node.op).filter(|_| standard) {
        Some((_, One(f))) => Ok(vec![f(low, step)?]),
        Some((_, Many(f))) => f(low, step),
        None => Err(missing(&node.op, &node.domain, standard)),
    }
}

/// The error for an operation that is not known, with what to do.
fn missing(op: &str, domain: &str, standard: bool) -> Error {
    let (what, fix) = match op {
        _ if !standard => (
            format!("the operation is of the domain `{domain}`, not one of ONNX's own"),
            "save the model without a runtime's optimizations, or decompose the operation when you export it",
        ),
        "If" | "Loop" | "Scan" => (
            "what it does depends on values (dynamic control flow), which no graph here has".into(),
            "export the network for the sizes that it will run at, so that the exporter unrolls loops and drops branches",
        ),
        "QuantizeLinear"
        | "DequantizeLinear"
        | "QLinearConv"
        | "ConvInteger"
        | "MatMulInteger"
        | "DynamicQuantizeLinear" => ("the network is quantized, which is not read".into(), "export it in f32 or f16"),
        "RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike" | "Bernoulli" | "Multinomial" => (
            "it draws random numbers, which a network here may not".into(),
            "export the network in evaluation mode (`model.eval()`)",
        ),
        _ => (
            "the operation is not known here".into(),
            "replace it in the network by operations that are, and export it again; docs/onnx.md lists them",
        ),
    };
    Error::new(Kind::Format, what).hint(fix)
}

/// The first channels of a value.
pub fn first(low: &mut Lower, v: V, channels: usize) -> Result<V> {
    indices::picked(low, v, 1, (0..channels).collect())
}

/// Axes as dimensions: negative ones count from the end; each once.
fn axes(all: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut dims = vec![];
    for a in all {
        let d = axis(*a, rank)?;
        if dims.contains(&d) {
            return Err(Error::new(Kind::Format, format!("the axis {a} stands twice in {all:?}")));
        }
        dims.push(d);
    }
    Ok(dims)
}

/// An axis as a dimension.
fn axis(a: i64, rank: usize) -> Result<usize> {
    let d = if a < 0 { a.saturating_add(rank as i64) } else { a };
    let found = usize::try_from(d).ok().filter(|d| *d < rank);
    found.ok_or_else(|| Error::new(Kind::Format, format!("there is no axis {a} in {rank} dimensions")))
}

/// Axes from an attribute, or from input `i` as later versions have them; none where neither is there.
fn axes_of(low: &Lower, step: &Step, i: usize, rank: usize) -> Result<Option<Vec<usize>>> {
    match (step.ints("axes"), step.maybe(i)) {
        (Some(all), _) => axes(all, rank).map(Some),
        (_, Some(v)) => axes(&low.whole(v, "its axes")?, rank).map(Some),
        _ => Ok(None),
    }
}
