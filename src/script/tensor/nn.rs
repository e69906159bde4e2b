//! Functional layers.
use super::args;
use super::{Defs, heavy, on};
use crate::nets::{constant, normal, pointwise};
use crate::script::error::RhaiResult;
use crate::script::options::Options;
use crate::tensor::aside;
use crate::tensor::conv::{self, Geometry};
use crate::tensor::{index, nn, pool};
use candle_core::Tensor;
use rhai::{Dynamic, INT, Map};

fn geometry(o: &mut Options) -> RhaiResult<Geometry> {
    Ok(Geometry {
        stride: o.count("stride")?.unwrap_or(1),
        padding: o.count("padding")?.unwrap_or(0),
        dilation: o.count("dilation")?.unwrap_or(1),
        groups: o.count("groups")?.unwrap_or(1),
    })
}
fn given(o: &mut Options, key: &'static str) -> RhaiResult<Option<Tensor>> {
    o.native::<Tensor>(key, "a tensor")
}

fn conv2d(x: Tensor, w: Tensor, map: Map) -> RhaiResult<Tensor> {
    let mut o = Options::new("conv2d", map);
    let (bias, g) = (given(&mut o, "bias")?, geometry(&mut o)?);
    o.finish()?;
    heavy(aside::load_of_pairs(&[&x, &w]), [&x, &w], move |[x, w]| constant::conv2d(x, w, bias.as_ref(), g))
}
fn conv_transpose2d(x: Tensor, w: Tensor, map: Map) -> RhaiResult<Tensor> {
    let mut o = Options::new("conv_transpose2d", map);
    let (bias, g) = (given(&mut o, "bias")?, geometry(&mut o)?);
    let extra = o.count("output_padding")?.unwrap_or(0);
    o.finish()?;
    heavy(aside::load_of_pairs(&[&x, &w]), [&x, &w], move |[x, w]| {
        conv::conv_transpose2d(x, w, bias.as_ref(), g, extra)
    })
}
fn group_norm(x: Tensor, groups: INT, map: Map) -> RhaiResult<Tensor> {
    let mut o = Options::new("group_norm", map);
    let (w, b, eps) = (given(&mut o, "weight")?, given(&mut o, "bias")?, o.float("eps")?.unwrap_or(1e-5));
    o.finish()?;
    let groups = args::count("group_norm", groups)?;
    on([&x], move |[x]| normal::group_norm(x, groups, w.as_ref(), b.as_ref(), eps))
}
fn layer_norm(x: Tensor, map: Map) -> RhaiResult<Tensor> {
    let mut o = Options::new("layer_norm", map);
    let (w, b, eps) = (given(&mut o, "weight")?, given(&mut o, "bias")?, o.float("eps")?.unwrap_or(1e-5));
    o.finish()?;
    on([&x], move |[x]| normal::layer_norm(x, w.as_ref(), b.as_ref(), eps))
}
fn attention(q: Tensor, k: Tensor, v: Tensor, map: Map) -> RhaiResult<Tensor> {
    let mut o = Options::new("attention", map);
    let (mask, causal, scale) = (given(&mut o, "mask")?, o.bool("causal")?.unwrap_or(false), o.float("scale")?);
    o.finish()?;
    heavy(aside::load_of_pairs(&[&q, &k]), [&q, &k, &v], move |[q, k, v]| {
        nn::attention(q, k, v, mask.as_ref(), causal, scale)
    })
}
fn upsample(x: Tensor, size: Dynamic, map: Map) -> RhaiResult<Tensor> {
    let mut o = Options::new("upsample", map);
    let mode = o.one_of("mode", &["nearest", "bilinear"])?.unwrap_or("nearest");
    let corners = o.bool("align_corners")?.unwrap_or(false);
    o.finish()?;
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
fn pooled(name: &'static str, f: Pool, x: &Tensor, kernel: &Dynamic, map: Map) -> RhaiResult<Tensor> {
    let mut o = Options::new(name, map);
    let kernel = args::pair(name, kernel)?;
    let stride = o.take("stride").map_or(Ok(kernel), |v| args::pair(name, &v))?;
    let padding = o.take("padding").map_or(Ok((0, 0)), |v| args::pair(name, &v))?;
    o.finish()?;
    on([x], move |[x]| f(x, kernel, stride, padding))
}

pub(super) fn register(d: &mut Defs) {
    let doc = "x Wᵀ + b, for x [.., in], weight [out, in], bias [out].\n\nExample: `linear(ones([5, 3]), ones([2, 3]), zeros([2])).shape` is [5, 2]";
    d.add("linear", "x: Tensor, weight: Tensor -> Tensor", doc, |x: Tensor, w: Tensor| linear(&x, &w, None));
    d.add("linear", "x: Tensor, weight: Tensor, bias: Tensor -> Tensor", doc, |x: Tensor, w: Tensor, b: Dynamic| {
        linear(&x, &w, args::maybe_tensor("linear: the bias", &b)?)
    });
    let doc = "Convolution of x [B, Cin, H, W] with weight [Cout, Cin/groups, kh, kw].\n\n\
               Options:\n- `bias` (none): a tensor [Cout]\n- `stride` (1), `padding` (0), `dilation` (1): integers, for both directions\n\
               - `groups` (1): how many parts the channels are cut into\n\n\
               Example: `conv2d(ones([1, 3, 8, 8]), ones([4, 3, 3, 3]), #{ bias: zeros([4]), padding: 1 }).shape` is [1, 4, 8, 8]";
    d.add("conv2d", "x: Tensor, weight: Tensor -> Tensor", doc, |x: Tensor, w: Tensor| conv2d(x, w, Map::new()));
    d.add("conv2d", "x: Tensor, weight: Tensor, options: map -> Tensor", doc, conv2d);
    let doc = "Transposed convolution of x [B, Cin, H, W] with weight [Cin, Cout/groups, kh, kw].\n\n\
               Options:\n- `bias` (none): a tensor [Cout]\n- `stride` (1), `padding` (0), `dilation` (1): integers, for both directions\n\
               - `output_padding` (0): rows and columns added at the end\n\
               - `groups` (1): how many parts the channels are cut into\n\n\
               Example: `conv_transpose2d(ones([1, 4, 8, 8]), ones([4, 3, 2, 2]), #{ stride: 2 }).shape` is [1, 3, 16, 16]";
    d.add("conv_transpose2d", "x: Tensor, weight: Tensor -> Tensor", doc, |x: Tensor, w: Tensor| {
        conv_transpose2d(x, w, Map::new())
    });
    d.add("conv_transpose2d", "x: Tensor, weight: Tensor, options: map -> Tensor", doc, conv_transpose2d);
    let doc = "Group normalization of x [B, C, …] in `groups` groups of channels.\n\n\
               Options:\n- `weight` (ones), `bias` (zeros): tensors [C]\n- `eps` (1e-5): added to the variance\n\n\
               Example: `group_norm(randn([1, 4, 2, 2]), 2, #{ weight: ones([4]), bias: zeros([4]) })`";
    d.add("group_norm", "x: Tensor, groups: int -> Tensor", doc, |x: Tensor, g: INT| group_norm(x, g, Map::new()));
    d.add("group_norm", "x: Tensor, groups: int, options: map -> Tensor", doc, group_norm);
    let doc = "Layer normalization over the last dimensions: those of the weight, else one.\n\n\
               Options:\n- `weight` (ones), `bias` (zeros): tensors of the shape of the last dimensions\n- `eps` (1e-5): added to the variance\n\n\
               Example: `layer_norm(randn([2, 4]), #{ weight: ones([4]), bias: zeros([4]) })`";
    d.add("layer_norm", "x: Tensor -> Tensor", doc, |x: Tensor| layer_norm(x, Map::new()));
    d.add("layer_norm", "x: Tensor, options: map -> Tensor", doc, layer_norm);
    let doc = "Layer normalization over the last dimensions, those of the weight, with eps 1e-5.\n\nExample: `layer_norm(randn([2, 4]), ones([4]), zeros([4])).shape` is [2, 4]";
    d.add("layer_norm", "x: Tensor, weight: Tensor, bias: Tensor -> Tensor", doc, |x: Tensor, w: Tensor, b: Tensor| {
        on([&x], move |[x]| normal::layer_norm(x, Some(&w), Some(&b), 1e-5))
    });
    let doc = "Attention softmax(q kᵀ · scale) v, for q [.., n, d], k [.., m, d], v [.., m, e].\n\n\
               Options:\n- `mask` (none): a tensor [.., n, m]; u8: 0 hides, floating point: added to q kᵀ · scale\n\
               - `causal` (false): hides what comes later\n- `scale` (1/√d): a number\n\n\
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
    for (name, f) in [("avg_pool2d", pool::avg_pool2d as Pool), ("max_pool2d", pool::max_pool2d)] {
        let doc = format!(
            "The mean (zeros of the padding count) or maximum over windows of x [B, C, H, W].\n\n\
             Options:\n- `stride` (the window), `padding` (0): integers or pairs\n\nExample: `{name}(ones([1, 1, 4, 4]), 2, #{{ stride: 1 }}).shape` is [1, 1, 3, 3]"
        );
        d.add(name, "x: Tensor, window: int -> Tensor", &doc, move |x: Tensor, k: Dynamic| {
            pooled(name, f, &x, &k, Map::new())
        });
        d.add(name, "x: Tensor, window: int, options: map -> Tensor", &doc, move |x: Tensor, k: Dynamic, m: Map| {
            pooled(name, f, &x, &k, m)
        });
    }
    let doc = "Images [B, C, H, W] enlarged by an integer factor, or to a size [h, w].\n\n\
               Options:\n- `mode` (\"nearest\"): or \"bilinear\"\n- `align_corners` (false): of \"bilinear\": the corners' centres stay\n\n\
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
