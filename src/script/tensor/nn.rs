//! Functional layers.
use super::args;
use super::{Defs, heavy, on};
use crate::nets::{constant, normal, pointwise};
use crate::schema::{Kind as Of, Opt, Schema, count, flag, number, value, word};
use crate::script::error::RhaiResult;
use crate::script::options::Given;
use crate::tensor::aside;
use crate::tensor::conv::{self, Geometry};
use crate::tensor::{index, nn, pool};
use candle_core::Tensor;
use rhai::{Dynamic, INT, Map};

/// The most that strides, padding and dilation may be.
const MOST: usize = 1 << 20;
const BOTH: &str = "for both directions";
const GEOMETRY: &[Opt] = &[
    value("bias", Of::TENSOR, "none", "a tensor [Cout]"),
    count("stride", 1, [1, MOST], BOTH),
    count("padding", 0, [0, MOST], BOTH),
    count("dilation", 1, [1, MOST], BOTH),
    count("groups", 1, [1, usize::MAX], "how many parts the channels are cut into"),
];
const CONV: Schema = Schema::new("conv2d", GEOMETRY);
const CONV_TRANSPOSE: Schema =
    Schema::new("conv_transpose2d", &[count("output_padding", 0, [0, MOST], "rows and columns added at the end")])
        .with(&[GEOMETRY]);
const fn affine(weight: &'static str) -> [Opt; 3] {
    [
        value("weight", Of::TENSOR, "ones", weight),
        value("bias", Of::TENSOR, "zeros", weight),
        number("eps", 1e-5, [0.0, f64::MAX], "added to the variance"),
    ]
}
const GROUP_NORM: Schema = Schema::new("group_norm", &affine("tensors [C]"));
const LAYER_NORM: Schema = Schema::new("layer_norm", &affine("tensors of the shape of the last dimensions"));
const ATTENTION: Schema = Schema::new(
    "attention",
    &[
        value("mask", Of::TENSOR, "none", "a tensor [.., n, m]; u8: 0 hides, floating point: added to q kᵀ · scale"),
        flag("causal", false, "hides what comes later"),
        value("scale", Of::NUMBER, "1/√d", "a number"),
    ],
);
const UPSAMPLE: Schema = Schema::new(
    "upsample",
    &[
        word("mode", &["nearest", "bilinear"], ""),
        flag("align_corners", false, "of \"bilinear\": the corners' centres stay"),
    ],
);
const STEP: Of = Of::Count(1, usize::MAX);
const WINDOWS: &[Opt] = &[
    value("stride", Of::Either(&[STEP, Of::List(&STEP, 2)]), "the window", "for both directions, or for each"),
    value("padding", Of::Either(&[Of::COUNT, Of::List(&Of::COUNT, 2)]), "0", "for both directions, or for each"),
];
const AVG_POOL: Schema = Schema::new("avg_pool2d", WINDOWS);
const MAX_POOL: Schema = Schema::new("max_pool2d", WINDOWS);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[CONV, CONV_TRANSPOSE, GROUP_NORM, LAYER_NORM, ATTENTION, UPSAMPLE, AVG_POOL, MAX_POOL];

fn geometry(o: &Given) -> Geometry {
    Geometry {
        stride: o.count("stride"),
        padding: o.count("padding"),
        dilation: o.count("dilation"),
        groups: o.count("groups"),
    }
}

fn conv2d(x: Tensor, w: Tensor, map: Map) -> RhaiResult<Tensor> {
    let o = CONV.read(map)?;
    let (bias, g) = (o.native::<Tensor>("bias"), geometry(&o));
    heavy(aside::load_of_pairs(&[&x, &w]), [&x, &w], move |[x, w]| constant::conv2d(x, w, bias.as_ref(), g))
}
fn conv_transpose2d(x: Tensor, w: Tensor, map: Map) -> RhaiResult<Tensor> {
    let o = CONV_TRANSPOSE.read(map)?;
    let (bias, g, extra) = (o.native::<Tensor>("bias"), geometry(&o), o.count("output_padding"));
    heavy(aside::load_of_pairs(&[&x, &w]), [&x, &w], move |[x, w]| {
        conv::conv_transpose2d(x, w, bias.as_ref(), g, extra)
    })
}
fn group_norm(x: Tensor, groups: INT, map: Map) -> RhaiResult<Tensor> {
    let o = GROUP_NORM.read(map)?;
    let (w, b, eps) = (o.native::<Tensor>("weight"), o.native::<Tensor>("bias"), o.number("eps"));
    let groups = args::count("group_norm", groups)?;
    on([&x], move |[x]| normal::group_norm(x, groups, w.as_ref(), b.as_ref(), eps))
}
fn layer_norm(x: Tensor, map: Map) -> RhaiResult<Tensor> {
    let o = LAYER_NORM.read(map)?;
    let (w, b, eps) = (o.native::<Tensor>("weight"), o.native::<Tensor>("bias"), o.number("eps"));
    on([&x], move |[x]| normal::layer_norm(x, w.as_ref(), b.as_ref(), eps))
}
fn attention(q: Tensor, k: Tensor, v: Tensor, map: Map) -> RhaiResult<Tensor> {
    let o = ATTENTION.read(map)?;
    let (mask, causal, scale) = (o.native::<Tensor>("mask"), o.flag("causal"), o.some_number("scale"));
    heavy(aside::load_of_pairs(&[&q, &k]), [&q, &k, &v], move |[q, k, v]| {
        nn::attention(q, k, v, mask.as_ref(), causal, scale)
    })
}
fn upsample(x: Tensor, size: Dynamic, map: Map) -> RhaiResult<Tensor> {
    let o = UPSAMPLE.read(map)?;
    let (mode, corners) = (o.word("mode"), o.flag("align_corners"));
    let (h, w) = match (size.as_int(), x.dims()) {
        (Ok(f), &[_, _, h, w]) => {
            let f = args::count("upsample: the factor", f)?;
            (h.saturating_mul(f), w.saturating_mul(f))
        }
        _ => args::pair("upsample: the size", &size)?,
    };
    let load = aside::load(&[&x]).saturating_mul(h.saturating_mul(w));
    heavy(load, [&x], move |[x]| match mode {
        "nearest" => nn::upsample_nearest(x, h, w),
        _ => nn::upsample_bilinear(x, h, w, corners),
    })
}
fn linear(x: &Tensor, w: &Tensor, bias: Option<Tensor>) -> RhaiResult<Tensor> {
    heavy(aside::load_of_pairs(&[x, w]), [x, w], move |[x, w]| pointwise::linear(x, w, bias.as_ref()))
}
type Pool = fn(&Tensor, (usize, usize), (usize, usize), (usize, usize)) -> crate::Result<Tensor>;
fn pooled(schema: Schema, f: Pool, x: &Tensor, kernel: &Dynamic, map: Map) -> RhaiResult<Tensor> {
    let (o, name) = (schema.read(map)?, schema.of);
    let kernel = args::pair(name, kernel)?;
    let stride = o.get("stride").map_or(Ok(kernel), |v| args::pair(name, &v))?;
    let padding = o.get("padding").map_or(Ok((0, 0)), |v| args::pair(name, &v))?;
    on([x], move |[x]| f(x, kernel, stride, padding))
}

pub(super) fn register(d: &mut Defs) {
    let doc = "x Wᵀ + b, for x [.., in], weight [out, in], bias [out].\n\nExample: `linear(ones([5, 3]), ones([2, 3]), zeros([2])).shape` is [5, 2]";
    d.add("linear", "x: Tensor, weight: Tensor -> Tensor", doc, |x: Tensor, w: Tensor| linear(&x, &w, None));
    d.add("linear", "x: Tensor, weight: Tensor, bias: Tensor -> Tensor", doc, |x: Tensor, w: Tensor, b: Dynamic| {
        linear(&x, &w, args::maybe_tensor("linear: the bias", &b)?)
    });
    let doc = "Convolution of x [B, Cin, H, W] with weight [Cout, Cin/groups, kh, kw].\n\n\
               Example: `conv2d(ones([1, 3, 8, 8]), ones([4, 3, 3, 3]), #{ bias: zeros([4]), padding: 1 }).shape` is [1, 4, 8, 8]";
    d.add("conv2d", "x: Tensor, weight: Tensor -> Tensor", doc, |x: Tensor, w: Tensor| conv2d(x, w, Map::new()));
    d.add("conv2d", "x: Tensor, weight: Tensor, options: map -> Tensor", doc, conv2d);
    let doc = "Transposed convolution of x [B, Cin, H, W] with weight [Cin, Cout/groups, kh, kw].\n\n\
               Example: `conv_transpose2d(ones([1, 4, 8, 8]), ones([4, 3, 2, 2]), #{ stride: 2 }).shape` is [1, 3, 16, 16]";
    d.add("conv_transpose2d", "x: Tensor, weight: Tensor -> Tensor", doc, |x: Tensor, w: Tensor| {
        conv_transpose2d(x, w, Map::new())
    });
    d.add("conv_transpose2d", "x: Tensor, weight: Tensor, options: map -> Tensor", doc, conv_transpose2d);
    let doc = "Group normalization of x [B, C, …] in `groups` groups of channels.\n\n\
               Example: `group_norm(randn([1, 4, 2, 2]), 2, #{ weight: ones([4]), bias: zeros([4]) })`";
    d.add("group_norm", "x: Tensor, groups: int -> Tensor", doc, |x: Tensor, g: INT| group_norm(x, g, Map::new()));
    d.add("group_norm", "x: Tensor, groups: int, options: map -> Tensor", doc, group_norm);
    let doc = "Layer normalization over the last dimensions: those of the weight, else one.\n\n\
               Example: `layer_norm(randn([2, 4]), #{ weight: ones([4]), bias: zeros([4]) })`";
    d.add("layer_norm", "x: Tensor -> Tensor", doc, |x: Tensor| layer_norm(x, Map::new()));
    d.add("layer_norm", "x: Tensor, options: map -> Tensor", doc, layer_norm);
    let doc = "Layer normalization over the last dimensions, those of the weight, with eps 1e-5.\n\nExample: `layer_norm(randn([2, 4]), ones([4]), zeros([4])).shape` is [2, 4]";
    d.add("layer_norm", "x: Tensor, weight: Tensor, bias: Tensor -> Tensor", doc, |x: Tensor, w: Tensor, b: Tensor| {
        on([&x], move |[x]| normal::layer_norm(x, Some(&w), Some(&b), 1e-5))
    });
    let doc = "Attention softmax(q kᵀ · scale) v, for q [.., n, d], k [.., m, d], v [.., m, e].\n\n\
               Example: `let q = randn([2, 5, 8]); attention(q, q, q, #{ causal: true }).shape` is [2, 5, 8]";
    d.add("attention", "q: Tensor, k: Tensor, v: Tensor -> Tensor", doc, |q: Tensor, k: Tensor, v: Tensor| {
        attention(q, k, v, Map::new())
    });
    d.add("attention", "q: Tensor, k: Tensor, v: Tensor, options: map -> Tensor", doc, attention);
    for (name, f) in
        [("softmax", pointwise::softmax as fn(&Tensor, i64) -> crate::Result<Tensor>), ("log_softmax", nn::log_softmax)]
    {
        let doc = format!(
            "e^x / Σ e^x along `dim` (the last); `log_softmax` is its logarithm.\n\nExample: `{name}(tensor([[1.0, 2.0, 3.0]]), 1)`"
        );
        d.add(name, "x: Tensor -> Tensor", &doc, move |x: Tensor| on([&x], move |[x]| f(x, -1)));
        d.add(name, "x: Tensor, dim: int -> Tensor", &doc, move |x: Tensor, dim: INT| on([&x], move |[x]| f(x, dim)));
    }
    for (schema, f) in [(AVG_POOL, pool::avg_pool2d as Pool), (MAX_POOL, pool::max_pool2d)] {
        let name = schema.of;
        let doc = format!(
            "The mean (zeros of the padding count) or maximum over windows of x [B, C, H, W].\n\n\
             Example: `{name}(ones([1, 1, 4, 4]), 2, #{{ stride: 1 }}).shape` is [1, 1, 3, 3]"
        );
        d.add(name, "x: Tensor, window: int -> Tensor", &doc, move |x: Tensor, k: Dynamic| {
            pooled(schema, f, &x, &k, Map::new())
        });
        d.add(name, "x: Tensor, window: int, options: map -> Tensor", &doc, move |x: Tensor, k: Dynamic, m: Map| {
            pooled(schema, f, &x, &k, m)
        });
    }
    let doc = "Images [B, C, H, W] enlarged by an integer factor, or to a size [h, w].\n\n\
               Example: `upsample(ones([1, 1, 4, 4]), 2)`, `upsample(ones([1, 1, 4, 4]), [6, 6], #{ mode: \"bilinear\" })`";
    d.add("upsample", "x: Tensor, size: array -> Tensor", doc, |x: Tensor, s: Dynamic| upsample(x, s, Map::new()));
    d.add("upsample", "x: Tensor, size: array, options: map -> Tensor", doc, upsample);
    let doc = "Images [B, C, H, W] made smaller by an integer factor: the mean of blocks.\n\nExample: `downsample(ones([1, 1, 4, 4]), 2).shape` is [1, 1, 2, 2]";
    d.add("downsample", "x: Tensor, factor: int -> Tensor", doc, |x: Tensor, f: INT| -> RhaiResult<Tensor> {
        let f = args::count("downsample", f)?;
        on([&x], move |[x]| nn::downsample(x, f))
    });
    let doc = "Rows of a weight [n, d] by integer ids [..]: [.., d].\n\nExample: `embedding(eye(4), tensor([2, 0]))`";
    d.add("embedding", "weight: Tensor, ids: Tensor -> Tensor", doc, |w: Tensor, ids: Tensor| {
        heavy(aside::load_of_pairs(&[&w, &ids]), [&w, &ids], |[w, ids]| index::embedding(w, ids))
    });
}
