//! A network that is a function of a script.
use super::query::{digest, times};
use super::{Cond, NetPullback, Network};
use crate::host::{Callback, Host, Value};
use crate::tensor::grad;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use std::cell::Cell;

/// A network written in a script: a function of (x_in [B, …], c_noise [B], condition) that returns F, of x_in's shape. The
/// condition arrives as a tensor of rows, as whatever value the script gave, or as `()`. Gradients are taken through the
/// function by both tapes, with the host of the moment.
pub struct FnNetwork {
    /// The function.
    pub function: Callback,
    /// The shape of one sample, where it is fixed.
    pub shape: Option<Vec<usize>>,
    /// The number of classes; 0 when conditions are not class labels.
    pub classes: usize,
    /// Its name, for people.
    pub name: Option<String>,
    /// What tells it from every other, where that is known.
    pub key: Option<String>,
    /// Bytes that the latest pull-back held for each sample.
    pub kept: Cell<Option<u64>>,
}

impl FnNetwork {
    /// A network with this function.
    pub fn new(function: Callback, shape: Option<Vec<usize>>, classes: usize) -> Self {
        FnNetwork { function, shape, classes, name: None, key: None, kept: Cell::new(None) }
    }
    /// What the function gives.
    pub fn call(&self, host: &dyn Host, x: &Tensor, c: &Tensor, cond: &Cond) -> Result<Tensor> {
        let cond = match cond {
            Cond::None => Value::Unit,
            Cond::Named(all) => match cond.rows() {
                Some(rows) => Value::Tensor(rows.clone()),
                None => Value::Named(all.clone()),
            },
            Cond::Opaque(v) => Value::Opaque(v.clone()),
        };
        let f = host.call(&self.function, vec![Value::Tensor(x.clone()), Value::Tensor(c.clone()), cond])?;
        let f = f.tensor("the function of `denoiser::from_fn`")?;
        if f.dims() != x.dims() {
            let m = format!(
                "the function of `denoiser::from_fn` must return its input's shape {:?}, not {:?}",
                x.dims(),
                f.dims()
            );
            return Err(Error::shape(m, &[x.dims(), f.dims()]));
        }
        if !f.dtype().is_float() {
            let m = format!(
                "the function of `denoiser::from_fn` must return floating-point values, not {}",
                f.dtype().as_str()
            );
            return Err(Error::new(Kind::Type, m));
        }
        Ok(f)
    }
}

impl Network for FnNetwork {
    fn describe(&self) -> String {
        let mut s = self.name.clone().unwrap_or_else(|| "script function".into());
        if let Some(shape) = &self.shape {
            s += &format!(" {}", times(shape));
        }
        if self.classes > 0 {
            s += &format!(", {} classes", self.classes);
        }
        s
    }
    fn hash(&self) -> Option<String> {
        Some(digest(&[self.key.as_ref()?.as_bytes(), self.describe().as_bytes()]))
    }
    fn sample_shape(&self) -> Option<Vec<usize>> {
        self.shape.clone()
    }
    fn classes(&self) -> usize {
        self.classes
    }
    fn kept(&self, batch: usize) -> Option<u64> {
        Some(self.kept.get()?.saturating_mul(batch as u64))
    }
    fn forward(&self, host: &dyn Host, x_in: &Tensor, c_noise: &Tensor, cond: &Cond) -> Result<Tensor> {
        Ok(self.call(host, x_in, c_noise, cond)?.detach())
    }
    fn linearize(
        &self,
        host: &dyn Host,
        x_in: &Tensor,
        c_noise: &Tensor,
        cond: &Cond,
    ) -> Result<(Tensor, NetPullback)> {
        let (x, c) = (grad::variable(x_in)?, grad::variable(c_noise)?);
        let f = grad::with_grad(|| self.call(host, &x, &c, cond))?;
        let rows = x.dims().first().copied().unwrap_or(1).max(1) as u64;
        self.kept.set(Some(grad::held_bytes(&f).div_ceil(rows)));
        let out = f.detach();
        let pull: NetPullback = Box::new(move |host, bar| {
            let vars = [x, c];
            let mut g = grad::vjp(host, &[(f, bar.detach())], &vars)?.into_iter();
            match (g.next(), g.next()) {
                (Some(x), Some(c)) => Ok((x, c)),
                _ => Err(Error::new(Kind::Internal, "two gradients were expected")),
            }
        });
        Ok((out, pull))
    }
}
