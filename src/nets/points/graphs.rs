//! The two graphs of a generator of point clouds: PointwiseNet, and the way from Gaussian numbers to a latent.
use crate::nets::build::{Builder, Id, graph};
use crate::nets::graph::{Absent, Dim, Graph, Layout};
use crate::nets::kernels::{Arithmetic, Broadcast, Channels, Function, Side, Squash};
use crate::nets::network::{STATE, TIME};
use crate::nets::weights::Weights;
use crate::{Error, Kind, Result};
use candle_core::DType;

/// The condition that is the latent of a cloud, [B, latent].
pub const LATENT: &str = "z";
/// The prior's input: standard normal numbers, [B, latent].
pub const PRIOR_INPUT: &str = "w";
/// The slope of the leaky ReLU below 0.
const SLOPE: f64 = 0.01;

/// What the denoiser's graph is made by.
#[derive(Debug)]
pub struct How {
    /// Points of a cloud.
    pub points: usize,
    /// Entries of the latent.
    pub latent: usize,
    /// Numbers for each point before, between and after the layers.
    pub widths: Vec<usize>,
    /// Whether the output is added to the input.
    pub residual: bool,
}

/// ε of each point, from its place, from β, and from the cloud's latent: layers of W x · sigmoid(G c) + H c for c = (β, sin β, cos β, z).
pub fn network(weights: &mut dyn Weights, root: &'static str, how: &How, dtype: DType) -> Result<Graph> {
    graph(weights, root, dtype, |b| {
        let x = b.input(STATE, &[how.points, 3].map(Dim::Exactly), Layout::Plain, Absent::Error)?;
        let beta = b.input(TIME, &[], Layout::Plain, Absent::Error)?;
        let z = b.input(LATENT, &[Dim::Exactly(how.latent)], Layout::Plain, Absent::Error)?;
        let beta = b.under("beta").shaped(beta, &[1])?;
        let (sin, cos) = (b.under("sin").apply(Function::Sin, &[beta])?, b.under("cos").apply(Function::Cos, &[beta])?);
        let level = b.under("level").concat(beta, sin)?;
        let level = b.under("level").concat(level, cos)?;
        let c = b.under("context").concat(level, z)?;
        let last = how.widths.len() - 2;
        let mut h = x;
        for (i, width) in how.widths[1..].iter().enumerate() {
            let b = &mut b.under(&format!("layers.{i}"));
            let y = b.under("_layer").linear(h, *width)?;
            let gate = b.under("_hyper_gate").linear(c, *width)?;
            let shift = b.under("_hyper_bias").linear_unbiased(c, *width)?;
            h = b.under("squash").apply(Squash { slope: if i == last { 1.0 } else { SLOPE } }, &[y, gate, shift])?;
        }
        if how.residual {
            h = b.under("residual").sum(x, h, 1.0)?;
        }
        b.output("noise", h, Layout::Plain);
        Ok(())
    })
}

/// The latent from standard normal numbers: couplings in reverse order, each undone; the numbers themselves where there are none.
pub fn prior(
    weights: &mut dyn Weights,
    root: &'static str,
    latent: usize,
    couplings: &[[usize; 2]],
    dtype: DType,
) -> Result<Graph> {
    graph(weights, root, dtype, |b| {
        let mut w = b.input(PRIOR_INPUT, &[Dim::Exactly(latent)], Layout::Plain, Absent::Error)?;
        for (i, hidden) in couplings.iter().enumerate().rev() {
            w = undone(&mut b.under(&format!("chain.{i}")), w, latent / 2, *hidden, i % 2 == 0)?;
        }
        b.output(LATENT, w, Layout::Plain);
        Ok(())
    })
}

/// One coupling undone: (y − shift) / sigmoid(s + 2) for one half, with s and shift from the other.
fn undone(b: &mut Builder, y: Id, half: usize, hidden: [usize; 2], swap: bool) -> Result<Id> {
    let halves = |b: &mut Builder, name: &str, x: Id, n: usize| match b.under(name).split(x, &[n, n])?[..] {
        [a, c] => Ok((a, c)),
        _ => Err(Error::new(Kind::Internal, "two halves are not two")),
    };
    let (first, second) = halves(b, "halves", y, half)?;
    let (kept, moved) = if swap { (second, first) } else { (first, second) };
    let h = b.under("net_s_t.0").linear(kept, hidden[0])?;
    let h = b.under("net_s_t.1").relu(h)?;
    let h = b.under("net_s_t.2").linear(h, hidden[1])?;
    let h = b.under("net_s_t.3").relu(h)?;
    let h = b.under("net_s_t.4").linear(h, 2 * half)?;
    let (s, shift) = halves(b, "scale_and_shift", h, half)?;
    let s = b.under("plus_two").apply(Channels::new(vec![(1.0, 2.0); half]), &[s])?;
    let s = b.under("sigmoid").apply(Function::Sigmoid, &[s])?;
    let of = |op| Broadcast { op, sides: [Side::Input, Side::Input] };
    let x = b.under("less_shift").apply(of(Arithmetic::Difference), &[moved, shift])?;
    let x = b.under("over_scale").apply(of(Arithmetic::Quotient), &[x, s])?;
    let (first, second) = if swap { (x, kept) } else { (kept, x) };
    b.under("joined").concat(first, second)
}
