//! Network architectures and feature networks, a folder each, the frozen kernels that they share, and scripts' way to these.
pub mod constant;
pub mod edm;
pub mod features;
pub mod kernels;
pub mod profile;
pub mod tape;
pub(crate) mod threads;

/// Whether a weight holds neither NaN nor ±Inf: they are the values whose product with zero is not zero.
pub(crate) fn is_finite(t: &candle_core::Tensor) -> candle_core::Result<bool> {
    let odd = t.affine(0.0, 0.0)?.to_dtype(candle_core::DType::F64)?.abs()?.sum_all()?.to_scalar::<f64>()?;
    Ok(odd == 0.0)
}
