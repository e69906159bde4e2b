//! Muon: the momentum of a matrix, made orthogonal by a Newton–Schulz iteration (Jordan et al., 2024), as `torch.optim.Muon` has it, but in
//! the parameter's own precision instead of bf16.
use super::{Rule, Slot};
use crate::{Error, Kind, Result};
use candle_core::Tensor;

/// The coefficients of the iteration x ← a·x + (b·xxᵀ + c·(xxᵀ)²)·x.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.775, 2.0315];
/// What the norm that is divided by does not fall below.
const EPS: f64 = 1e-7;

/// The new value of one matrix; what has more dimensions is a matrix with a row for each entry of the first.
pub(super) fn update(rule: &Rule, lr: f64, p: &Tensor, g: &Tensor, slot: &mut Slot) -> Result<Tensor> {
    let Rule::Muon { momentum, nesterov, weight_decay, steps, rms, .. } = *rule else {
        return Err(Error::new(Kind::Internal, "a rule that is not Muon"));
    };
    let mean = match slot.buffers.get("momentum") {
        Some(old) => ((old * momentum)? + (g * (1.0 - momentum))?)?,
        None => (g * (1.0 - momentum))?,
    };
    let ahead = if nesterov { ((g * (1.0 - momentum))? + (&mean * momentum)?)? } else { mean.clone() };
    let rows = p.dims().first().copied().unwrap_or(1);
    if p.elem_count() == 0 {
        return Ok(p.clone());
    }
    let flat = ahead.reshape((rows, ()))?;
    let wide = flat.dim(1)?;
    let direction = orthogonal(&flat, steps)?.reshape(p.shape())?;
    slot.buffers.insert("momentum".into(), mean);
    let scale = match rms {
        true => 0.2 * (rows.max(wide) as f64).sqrt(),
        false => (rows as f64 / wide as f64).max(1.0).sqrt(),
    };
    Ok(((p * (1.0 - lr * weight_decay))? - (direction * (lr * scale))?)?)
}

/// The nearest matrix whose singular values are about 1.
fn orthogonal(x: &Tensor, steps: usize) -> Result<Tensor> {
    let [a, b, c] = COEFFICIENTS;
    let (rows, wide) = x.dims2()?;
    let turned = rows > wide;
    let mut x = if turned { x.t()?.contiguous()? } else { x.clone() };
    let norm = super::fused::square(&x)?.sqrt().max(EPS);
    x = (x / norm)?;
    for _ in 0..steps {
        let gram = x.matmul(&x.t()?)?;
        let bend = ((&gram * b)? + (gram.matmul(&gram)? * c)?)?;
        x = ((&x * a)? + bend.matmul(&x)?)?;
    }
    Ok(if turned { x.t()?.contiguous()? } else { x })
}
