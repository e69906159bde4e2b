//! Clipping by total norm, and projection of each sample to a ball.
use super::{fused, in_range};
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// Scales all gradients by min(1, `max` / (‖g‖ + 1e-6)), where ‖g‖ is the L2 norm over all of them together, as
/// `torch.nn.utils.clip_grad_norm_` does. Returns the scaled gradients and ‖g‖ before clipping.
///
/// Errors: `max` not positive, a norm that is not finite.
pub fn clip_norm(grads: &[Tensor], max: f64) -> Result<(Vec<Tensor>, f64)> {
    clip_norm_named(&[], grads, max)
}

/// [`clip_norm`] of gradients with names, by which errors call them.
pub fn clip_norm_named(paths: &[String], grads: &[Tensor], max: f64) -> Result<(Vec<Tensor>, f64)> {
    in_range("clip_norm: the largest norm", max, f64::MIN_POSITIVE, f64::INFINITY)?;
    let mut square = 0.0;
    for (i, g) in grads.iter().enumerate() {
        let own = fused::square(g)?;
        if !own.is_finite() {
            let of = paths.get(i).filter(|p| !p.is_empty()).map(|p| format!(", that of `{p}` to begin with"));
            let m = format!("clip_norm: the gradients' total norm is {}{}", own.sqrt(), of.unwrap_or_default());
            return Err(Error::value(m).hint("look at the loss that they came from: it divided by zero or overflowed"));
        }
        square += own;
    }
    let norm = square.sqrt();
    if !norm.is_finite() {
        return Err(Error::value(format!("clip_norm: the gradients' total norm is {norm}")));
    }
    let scale = max / (norm + 1e-6);
    if scale >= 1.0 {
        return Ok((grads.to_vec(), norm));
    }
    Ok((grads.iter().map(|g| Ok((g * scale)?)).collect::<Result<_>>()?, norm))
}

/// The point nearest to each sample of `x` [B, …] within L2 distance `r` of the same sample of `center` (LD3,
/// Algorithm 1, line 6). Samples inside are returned with the same bits. Not differentiated.
///
/// Errors: shapes that differ, no batch dimension, `r` negative or not finite, `x` not finite.
pub fn project_ball(x: &Tensor, center: &Tensor, r: f64) -> Result<Tensor> {
    in_range("project_ball: the radius", r, 0.0, f64::INFINITY)?;
    if x.dims() != center.dims() || x.rank() == 0 {
        let m = format!(
            "project_ball: x and center must have the same shape [B, …], not {:?} and {:?}",
            x.dims(),
            center.dims()
        );
        return Err(Error::shape(m, &[x.dims(), center.dims()]));
    }
    let (x, center) = (x.detach(), center.detach().to_dtype(x.dtype())?);
    let b = x.dim(0)?;
    if x.elem_count() == 0 {
        return Ok(x);
    }
    let diff = (&x - &center)?;
    // norms in f64: the bound should hold to the last bits of x's own precision
    let norms = diff.reshape((b, ()))?.to_dtype(DType::F64)?.sqr()?.sum(1)?.sqrt()?.to_vec1::<f64>()?;
    if let Some(i) = norms.iter().position(|n| !n.is_finite()) {
        return Err(Error::value(format!("project_ball: sample {i} is not finite (NaN or infinite)")));
    }
    if norms.iter().all(|n| *n <= r) {
        return Ok(x);
    }
    let mut shape = vec![1; x.rank()];
    shape[0] = b;
    let scale: Vec<f64> = norms.iter().map(|n| if *n <= r { 1.0 } else { r / n }).collect();
    let outside: Vec<u8> = norms.iter().map(|n| u8::from(*n > r)).collect();
    let scale = Tensor::from_vec(scale, shape.as_slice(), x.device())?.to_dtype(x.dtype())?;
    let outside = Tensor::from_vec(outside, shape.as_slice(), x.device())?.broadcast_as(x.dims())?;
    Ok(outside.where_cond(&(center + diff.broadcast_mul(&scale)?)?, &x)?)
}
