//! Rhai functions for perceptual losses, and where their networks' weights are found.
use super::{of_two, reduction};
use crate::files::checkpoint;
use crate::host::Host;
use crate::loss::Reduction;
use crate::loss::perceptual::{Compare, Perceptual, Settings};
use crate::nets::features::{DISTS, Spec, State, spec};
use crate::schema::{Kind as Of, Opt, Schema, flag, value};
use crate::script::error::RhaiResult;
use crate::script::host::ScriptHost;
use crate::{Result, zoo};
use rhai::plugin::*;
use rhai::{FnPtr, Map};
use std::path::Path;

/// The tensors of a state dict that `wanted` names; the others (a classifier's) stay on disk.
fn read_state(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<State> {
    let file = checkpoint::open(path)?;
    file.tensors().keys().filter(|name| wanted(name)).map(|name| Ok((name.clone(), file.tensor(name)?))).collect()
}

/// A trunk's weights: from `path`, the published file, or the binary.
fn state(spec: &Spec, path: Option<&str>, host: &dyn Host) -> Result<State> {
    let read = |path: &Path| read_state(path, |name| spec.uses(name));
    match (path, spec.file) {
        (Some(path), _) => read(Path::new(path)),
        (None, Some(published)) => read(&zoo::locate(published, host)?),
        (None, None) => Ok(spec.builtin()?.unwrap_or_default()),
    }
}

const SHARED: &[Opt] =
    &[flag("normalize", false, "true where images are in [0, 1]"), reduction("or \"sum\", or \"none\": [B]")];
const LPIPS: Schema = Schema::new(
    "loss::lpips",
    &[
        value("trunk", Of::Text, "the published file", "a file with torchvision's weights, `.pth` or safetensors"),
        value("heads", Of::Text, "those of the `lpips` package", "a file with other linear heads"),
        flag("lpips", true, "false leaves the heads out, all weights are 1"),
    ],
)
.with(&[SHARED]);
const FEATURES: Schema = Schema::new(
    "loss::features",
    &[
        value("layers", Of::List(&Of::COUNT, 0), "all", "which layers, counted from 0"),
        flag("unit", false, "true compares features of unit length over channels, summed over channels"),
        value("trunk", Of::Text, "the published file, or the one built in", "a file with the network's weights"),
    ],
)
.with(&[SHARED]);
const DISTANCE: Schema = Schema::new(
    "loss::dists",
    &[
        value(
            "trunk",
            Of::Text,
            "the published file",
            "a file with torchvision's weights of VGG16, `.pth` or safetensors",
        ),
        value("weights", Of::Text, "its authors'", "a file with other weights of the channels, `alpha` and `beta`"),
    ],
)
.with(&[SHARED]);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[LPIPS, FEATURES, DISTANCE];

fn make(ctx: &NativeCallContext, schema: Schema, name: &'static str, net: &str, map: Map) -> RhaiResult<FnPtr> {
    let o = schema.read(map)?;
    let trunk = o.some_text("trunk");
    let unit_range = o.flag("normalize");
    let reduction = Reduction::of(o.word("reduction"))?;
    let (mut layers, mut heads) = (None, None);
    let compare = if name == "lpips" {
        heads = o.some_text("heads").map(|path| read_state(Path::new(&path), |_| true)).transpose()?;
        if o.flag("lpips") { Compare::Lpips } else { Compare::Unit }
    } else {
        layers = o.counts("layers");
        if o.flag("unit") { Compare::Unit } else { Compare::Plain }
    };
    let spec = spec(net)?;
    let state = state(spec, trunk.as_deref(), &ScriptHost::new(ctx))
        .map_err(|e| e.context(format!("{}(\"{net}\")", schema.of)))?;
    let loss = Perceptual::new(spec, state, Settings { compare, layers, unit_range, heads });
    let loss = loss.map_err(|e| match &trunk {
        Some(path) => e.context(format!("`{path}`")),
        None => e,
    })?;
    of_two(name, move |x, target| loss.eval(x, target, reduction))
}

fn make_dists(ctx: &NativeCallContext, map: Map) -> RhaiResult<FnPtr> {
    let o = DISTANCE.read(map)?;
    let trunk = o.some_text("trunk");
    let weights = o.some_text("weights").map(|path| read_state(Path::new(&path), |_| true)).transpose()?;
    let unit_range = o.flag("normalize");
    let reduction = Reduction::of(o.word("reduction"))?;
    let state = state(&DISTS, trunk.as_deref(), &ScriptHost::new(ctx)).map_err(|e| e.context("loss::dists"))?;
    let loss = Perceptual::dists(state, unit_range, weights).map_err(|e| match &trunk {
        Some(path) => e.context(format!("`{path}`")),
        None => e,
    })?;
    of_two("dists", move |x, target| loss.eval(x, target, reduction))
}

/// Losses that look at images through a network.
#[export_module]
pub mod perceptual_api {
    /// LPIPS (version 0.1) over "vgg", "alex" or "squeeze" as a function value `|x, target|`: the mean over the batch.
    ///
    /// Images are [B, C, H, W] in [−1, 1]; one channel is taken as grey. The network's weights are downloaded once to the cache folder, if they
    /// are not there and no `trunk` is given. Differentiable in both images. Zhang et al. 2018.
    ///
    /// Example: `loss::lpips("squeeze", #{ trunk: "squeezenet.safetensors" }).call(rand([1, 3, 32, 32], #{ seed: 0 }), zeros([1, 3, 32, 32])).shape` is []
    #[rhai_fn(return_raw)]
    pub fn lpips(ctx: NativeCallContext, net: &str) -> RhaiResult<FnPtr> {
        make(&ctx, LPIPS, "lpips", net, Map::new())
    }
    /// LPIPS (version 0.1) over "vgg", "alex" or "squeeze" as a function value `|x, target|` of images [B, C, H, W].
    ///
    /// Example: `loss::lpips("squeeze", #{ trunk: "squeezenet.safetensors", reduction: "none" }).call(zeros([2, 3, 32, 32]), zeros([2, 3, 32, 32])).shape` is [2]
    #[rhai_fn(name = "lpips", return_raw)]
    pub fn lpips_with(ctx: NativeCallContext, net: &str, options: Map) -> RhaiResult<FnPtr> {
        make(&ctx, LPIPS, "lpips", net, options)
    }
    /// DISTS over VGG16 as a function value `|x, target|` of images [B, C, H, W] in [−1, 1]: the mean over the batch.
    ///
    /// Example: `let k = (); try { loss::dists(#{ trunk: "absent.pth" }); } catch (e) { k = e.kind; } k` is "io"
    #[rhai_fn(return_raw)]
    pub fn dists(ctx: NativeCallContext) -> RhaiResult<FnPtr> {
        make_dists(&ctx, Map::new())
    }
    /// DISTS over VGG16 as a function value `|x, target|` of images [B, C, H, W] in [−1, 1]: 0 for equal images, towards 1 for very different ones.
    ///
    /// It compares means, variances and covariances of features over the whole image, so that textures count as alike wherever their parts lie.
    /// One channel is taken as grey. Published values are of images whose smaller side is at most 256. The network's weights are downloaded
    /// once to the cache folder, if they are not there and no `trunk` is given. Differentiable in both images. Ding et al. 2020.
    ///
    /// Example: `let k = (); try { loss::dists(#{ trunk: "absent.pth", reduction: "none" }); } catch (e) { k = e.kind; } k` is "io"
    #[rhai_fn(name = "dists", return_raw)]
    pub fn dists_with(ctx: NativeCallContext, options: Map) -> RhaiResult<FnPtr> {
        make_dists(&ctx, options)
    }
    /// The mean squared difference of a network's features ("fashion28", built in; "vgg", "alex", "squeeze"), as a function
    /// value `|x, target|` of images [B, C, H, W] in [−1, 1].
    ///
    /// Example: `loss::features("fashion28").call(zeros([1, 1, 28, 28]), zeros([1, 1, 28, 28])).item()` is 0.0
    #[rhai_fn(return_raw)]
    pub fn features(ctx: NativeCallContext, net: &str) -> RhaiResult<FnPtr> {
        make(&ctx, FEATURES, "features", net, Map::new())
    }
    /// A distance of features as a function value `|x, target|`: the sum over layers of the mean squared difference.
    ///
    /// Example: `loss::features("fashion28", #{ layers: [1, 2], reduction: "none" }).call(zeros([2, 1, 28, 28]), zeros([2, 1, 28, 28])).shape` is [2]
    #[rhai_fn(name = "features", return_raw)]
    pub fn features_with(ctx: NativeCallContext, net: &str, options: Map) -> RhaiResult<FnPtr> {
        make(&ctx, FEATURES, "features", net, options)
    }
}
