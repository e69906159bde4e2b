//! The built-in classifier as FID would have it: features averaged over pixels, logits, and statistics of real images.
use super::{ADVICE, State, layers, spec};
use crate::nets::build::graph;
use crate::nets::graph::Layout;
use crate::nets::kernels::GlobalMean;
use crate::nets::runner::Runner;
use crate::nets::weights::File;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};

/// Images of each set of real ones that the file has statistics of.
const SETS: [(&str, u64); 2] = [("train", 60_000), ("test", 10_000)];

fn state() -> Result<State> {
    Ok(spec("fashion28")?.builtin()?.unwrap_or_default())
}

/// The network: images [B, 1, H, W] in [−1, 1], H and W multiples of 4; `features` [128] and `logits` [10].
pub fn fashion28(dtype: DType, device: &Device) -> Result<Runner> {
    let state = state()?;
    let mut weights = File::some(&state, ADVICE, device, dtype);
    let spec = spec("fashion28")?;
    let graph = graph(&mut weights, "", dtype, |b| {
        let x = layers(b, spec, false)?;
        let features = b.under("mean").apply(GlobalMean, &[x])?;
        b.output("features", features, Layout::Plain);
        let logits = b.under("head").map(features, 10)?;
        b.output("logits", logits, Layout::Plain);
        Ok(())
    })?;
    let graph = graph.only(&["features", "logits"])?;
    Ok(Runner::new(graph, device, dtype))
}

/// Mean [128], covariance [128, 128] and count of the features of real images: "train" or "test".
pub fn reference(set: &str) -> Result<(Tensor, Tensor, u64)> {
    let Some((name, count)) = SETS.iter().find(|(name, _)| *name == set) else {
        return Err(Error::unknown("set of real images", set, SETS.iter().map(|(name, _)| *name)));
    };
    let mut state = state()?;
    let mut take = |what: &str| {
        let name = format!("stats.{name}.{what}");
        state.remove(&name).ok_or_else(|| Error::new(Kind::Internal, format!("the built-in file has no `{name}`")))
    };
    Ok((take("mean")?, take("cov")?, *count))
}
