//! Samplers that are a function of one step, for what no plan can say: a loop over it, differentiated by the tensor tape.
use super::run::{OnStep, StepInfo};
use crate::denoise::{Counting, DynDenoiser, State};
use crate::host::check_cancelled;
use crate::tensor::vector::is_finite;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::rc::Rc;

/// What a step is given; `M` is what it remembers from one to the next.
pub struct Step<'a, M> {
    /// The denoiser, which counts its evaluations.
    pub net: &'a DynDenoiser,
    /// The state.
    pub x: &'a Tensor,
    /// The number of the step, from 0.
    pub i: usize,
    /// How many steps there are.
    pub n: usize,
    /// The time of the state, a scalar.
    pub t: Tensor,
    /// The time to step to.
    pub t_next: Tensor,
    /// The time that the denoiser is to be told.
    pub t_eval: Tensor,
    /// What the step before returned beside its state.
    pub memory: M,
}

/// A finished loop.
pub struct Walk {
    /// The last state.
    pub x: Tensor,
    /// The states, the first included, if asked for.
    pub trajectory: Vec<Tensor>,
    /// The times of all states.
    pub t: Vec<f64>,
    /// How often the denoiser was evaluated.
    pub nfe: usize,
}

/// A step: from what it is given to the next state and what it remembers.
pub type StepFn<'a, M> = &'a mut dyn FnMut(Step<M>) -> Result<(Tensor, M)>;

/// Goes along the times `t` [N + 1] from `x` [B, …]; `step` returns the next state and what it wants to remember.
///
/// # Errors
/// A state of another shape or not finite (names the step and the time), cancellation, and whatever `step` or `on_step` fails with.
pub fn walk<M>(
    net: &DynDenoiser,
    (t, t_eval): (&Tensor, Option<&Tensor>),
    x: &Tensor,
    start: M,
    trajectory: bool,
    step: StepFn<M>,
    mut on_step: Option<OnStep>,
) -> Result<Walk> {
    // only counting tells how many evaluations a function makes
    let net: DynDenoiser = Rc::new(Counting::new(net.clone()));
    let n = t.elem_count().saturating_sub(1);
    let value = |i: usize| -> Result<f64> { Ok(t.get(i)?.to_dtype(DType::F64)?.to_scalar::<f64>()?) };
    let mut memory = start;
    let mut walk = Walk { x: x.clone(), trajectory: vec![], t: vec![value(0)?], nfe: 0 };
    if trajectory {
        walk.trajectory.push(x.clone());
    }
    for i in 0..n {
        check_cancelled()?;
        let (now, next, told) = (t.get(i)?, t.get(i + 1)?, t_eval.unwrap_or(t).get(i)?);
        let given = Step { net: &net, x: &walk.x, i, n, t: now, t_next: next, t_eval: told, memory };
        let (next, kept) = step(given)?;
        memory = kept;
        if next.dims() != x.dims() {
            let m =
                format!("solver::from_fn: step {} returned shape {:?} for a state {:?}", i + 1, next.dims(), x.dims());
            return Err(Error::shape(m, &[next.dims(), x.dims()]));
        }
        // times are f64: what they touched goes back to the state's own type
        walk.x = next.to_dtype(x.dtype())?;
        let t = value(i + 1)?;
        if !is_finite(&walk.x)? {
            return Err(Error::value(format!("the state has NaN or infinite values after step {} (t = {t})", i + 1)));
        }
        walk.t.push(t);
        if trajectory {
            walk.trajectory.push(walk.x.clone());
        }
        if let Some(f) = on_step.as_mut() {
            f(&StepInfo { step: i + 1, t, x: &State::from(&walk.x), output: None })?;
        }
    }
    walk.nfe = net.counter().map_or(0, |c| c.nfe() as usize);
    Ok(walk)
}
