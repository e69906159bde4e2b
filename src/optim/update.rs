//! The update rules on tensors: one pass over parameter, gradient and running means on the CPU, and the same composed of candle's
//! operations elsewhere. Both take the same steps in the same order.
use super::fused::{PIECE, Value, copied, with};
use super::{Rule, Slot};
use crate::{Error, Kind, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// The new value of one parameter by candle's operations. Expressions follow `torch/optim/*.py` (single-tensor form) term by term.
pub(super) fn composed(rule: &Rule, lr: f64, p: &Tensor, g: &Tensor, slot: &mut Slot) -> Result<Tensor> {
    let penalized = |decay: f64| if decay == 0.0 { Ok(g.clone()) } else { g + (p * decay)? };
    match *rule {
        Rule::Sgd { momentum, dampening, weight_decay, nesterov } => {
            let g = penalized(weight_decay)?;
            let d = if momentum == 0.0 {
                g
            } else {
                let buf = match slot.buffers.get("momentum") {
                    Some(b) => ((b * momentum)? + (&g * (1.0 - dampening))?)?,
                    None => g.clone(),
                };
                slot.buffers.insert("momentum".into(), buf.clone());
                if nesterov { (g + (buf * momentum)?)? } else { buf }
            };
            Ok((p - (d * lr)?)?)
        }
        Rule::RmsProp { alpha, eps, weight_decay, momentum, centered } => {
            let g = penalized(weight_decay)?;
            let square = average(slot, "square_avg", &g.sqr()?, alpha)?;
            let var = match centered {
                true => (square - average(slot, "grad_avg", &g, alpha)?.sqr()?)?,
                false => square,
            };
            let d = (g / (var.sqrt()? + eps)?)?;
            let d = if momentum > 0.0 {
                let buf = match slot.buffers.get("momentum") {
                    Some(b) => ((b * momentum)? + d)?,
                    None => d,
                };
                slot.buffers.insert("momentum".into(), buf.clone());
                buf
            } else {
                d
            };
            Ok((p - (d * lr)?)?)
        }
        Rule::Adam { betas: (b1, b2), eps, weight_decay, amsgrad, decoupled } => {
            let (p, g) = match decoupled {
                true => ((p * (1.0 - lr * weight_decay))?, g.clone()),
                false => (p.clone(), penalized(weight_decay)?),
            };
            let t = (slot.step + 1) as f64;
            let m = average(slot, "exp_avg", &g, b1)?;
            let mut v = average(slot, "exp_avg_sq", &g.sqr()?, b2)?;
            if amsgrad {
                v = match slot.buffers.get("max_exp_avg_sq") {
                    Some(old) => old.maximum(&v)?,
                    None => v,
                };
                slot.buffers.insert("max_exp_avg_sq".into(), v.clone());
            }
            let (c1, c2) = (1.0 - b1.powf(t), 1.0 - b2.powf(t));
            let denom = ((v.sqrt()? / c2.sqrt())? + eps)?;
            Ok((p - (m / denom)?.affine(lr / c1, 0.0)?)?)
        }
        Rule::Muon { .. } => Err(Error::new(Kind::Internal, "Muon is no update of single values")),
    }
}

/// Exponential moving average `old·a + new·(1 − a)` from zero, kept in `slot`.
fn average(slot: &mut Slot, name: &str, new: &Tensor, a: f64) -> Result<Tensor> {
    let avg = match slot.buffers.get(name) {
        Some(old) => ((old * a)? + (new * (1.0 - a))?)?,
        None => (new * (1.0 - a))?,
    };
    slot.buffers.insert(name.into(), avg.clone());
    Ok(avg)
}

/// The numbers of a rule for one update of one parameter.
#[derive(Clone, Copy)]
enum Numbers<T> {
    Sgd { lr: T, decay: Option<T>, momentum: Option<T>, keep: T, nesterov: bool, first: bool },
    RmsProp { lr: T, decay: Option<T>, alpha: T, rest: T, eps: T, momentum: Option<T>, centered: bool },
    Adam { shrink: Option<T>, decay: Option<T>, b1: [T; 2], b2: [T; 2], root: T, eps: T, lr: T, most: bool },
}

/// The new value of one parameter on the CPU in one pass.
pub(super) fn fused<T: Value>(rule: &Rule, lr: f64, p: &Tensor, g: &Tensor, slot: &mut Slot) -> Result<Tensor> {
    let not_zero = |x: f64| (x != 0.0).then_some(T::of(x));
    // which running means are kept, in the order of their names
    let (numbers, kept): (Numbers<T>, [bool; 3]) = match *rule {
        Rule::Sgd { momentum, dampening, weight_decay, nesterov } => {
            let first = !slot.buffers.contains_key("momentum");
            let (decay, momentum, keep) = (not_zero(weight_decay), not_zero(momentum), T::of(1.0 - dampening));
            let kept = momentum.is_some();
            (Numbers::Sgd { lr: T::of(lr), decay, momentum, keep, nesterov, first }, [kept, false, false])
        }
        Rule::RmsProp { alpha, eps, weight_decay, momentum, centered } => {
            let (decay, momentum) = (not_zero(weight_decay), (momentum > 0.0).then_some(T::of(momentum)));
            let (rest, alpha, eps) = (T::of(1.0 - alpha), T::of(alpha), T::of(eps));
            let kept = [true, centered, momentum.is_some()];
            (Numbers::RmsProp { lr: T::of(lr), decay, alpha, rest, eps, momentum, centered }, kept)
        }
        Rule::Adam { betas: (b1, b2), eps, weight_decay, amsgrad, decoupled } => {
            let t = (slot.step + 1) as f64;
            let (c1, c2) = (1.0 - b1.powf(t), 1.0 - b2.powf(t));
            let both = |b: f64| [T::of(b), T::of(1.0 - b)];
            let numbers = Numbers::Adam {
                shrink: decoupled.then_some(T::of(1.0 - lr * weight_decay)),
                decay: not_zero(weight_decay).filter(|_| !decoupled),
                b1: both(b1),
                b2: both(b2),
                root: T::of(1.0 / c2.sqrt()),
                eps: T::of(eps),
                lr: T::of(lr / c1),
                most: amsgrad,
            };
            (numbers, [true, true, amsgrad])
        }
        Rule::Muon { .. } => return Err(Error::new(Kind::Internal, "Muon is no update of single values")),
    };
    let names = rule.buffer_names();
    let mut means: [Vec<T>; 3] = [vec![], vec![], vec![]];
    for (k, mean) in means.iter_mut().enumerate().filter(|(k, _)| kept[*k]) {
        *mean = match slot.buffers.get(names[k]) {
            Some(old) => copied(&old.to_dtype(p.dtype())?)?,
            None => vec![T::zero(); p.elem_count()],
        };
    }
    let mut new: Vec<T> = copied(p)?;
    with(g, |g: &[T]| {
        let mut parts = means.each_mut().map(|m| m.chunks_mut(PIECE));
        let pieces = new.chunks_mut(PIECE).zip(g.chunks(PIECE));
        let jobs = pieces.map(|(p, g)| (p, g, parts.each_mut().map(|m| m.next().unwrap_or_default())));
        jobs.collect::<Vec<_>>().into_par_iter().for_each(|(p, g, means)| numbers.piece(p, g, means));
    })?;
    let tensor = |v: Vec<T>| Ok::<_, Error>(Tensor::from_vec(v, p.shape(), &Device::Cpu)?);
    for (k, mean) in means.into_iter().enumerate().filter(|(k, _)| kept[*k]) {
        slot.buffers.insert(names[k].into(), tensor(mean)?);
    }
    tensor(new)
}

impl<T: Value> Numbers<T> {
    /// Updates a piece of a parameter and of its running means.
    fn piece(&self, p: &mut [T], g: &[T], [a, b, c]: [&mut [T]; 3]) {
        let penalized = |g: T, p: T, decay: Option<T>| decay.map_or(g, |d| g + p * d);
        match *self {
            Numbers::Sgd { lr, decay, momentum: None, .. } => {
                p.iter_mut().zip(g).for_each(|(p, g)| *p -= penalized(*g, *p, decay) * lr);
            }
            Numbers::Sgd { lr, decay, momentum: Some(mu), keep, nesterov, first } => {
                for ((p, g), m) in p.iter_mut().zip(g).zip(a) {
                    let g = penalized(*g, *p, decay);
                    *m = if first { g } else { *m * mu + g * keep };
                    let d = if nesterov { g + *m * mu } else { *m };
                    *p -= d * lr;
                }
            }
            Numbers::RmsProp { lr, decay, alpha, rest, eps, momentum, centered } => {
                for (i, (p, g)) in p.iter_mut().zip(g).enumerate() {
                    let g = penalized(*g, *p, decay);
                    a[i] = a[i] * alpha + g * g * rest;
                    let mut var = a[i];
                    if centered {
                        b[i] = b[i] * alpha + g * rest;
                        var -= b[i] * b[i];
                    }
                    let mut d = g / (var.root() + eps);
                    if let Some(mu) = momentum {
                        c[i] = c[i] * mu + d;
                        d = c[i];
                    }
                    *p -= d * lr;
                }
            }
            Numbers::Adam { shrink, decay, b1, b2, root, eps, lr, most } => {
                let step = |p: &mut T, g: T, m: &mut T, v: &mut T, top: Option<&mut T>| {
                    let g = penalized(g, *p, decay);
                    let q = shrink.map_or(*p, |s| *p * s);
                    *m = *m * b1[0] + g * b1[1];
                    *v = *v * b2[0] + g * g * b2[1];
                    let v = match top {
                        Some(top) => {
                            *top = top.most(*v);
                            *top
                        }
                        None => *v,
                    };
                    *p = q - *m / (v.root() * root + eps) * lr;
                };
                let each = p.iter_mut().zip(g).zip(a.iter_mut()).zip(b.iter_mut());
                match most {
                    true => each.zip(c).for_each(|((((p, g), m), v), top)| step(p, *g, m, v, Some(top))),
                    false => each.for_each(|(((p, g), m), v)| step(p, *g, m, v, None)),
                }
            }
        }
    }
}
