//! The reverse pass: one walk backwards differentiates every plan. It needs a vector-Jacobian product from the
//! denoiser and inner products Ā = ⟨ȳ, v⟩ for the coefficients.
use super::run::Kept;
use super::{Plan, Source};
use crate::denoise::{Denoiser, Query, State};
use crate::host::{Host, check_cancelled};
use crate::real::Real;
use crate::tensor::vector::Scalar;
use crate::{Error, Result};

/// What comes out at the start of the plan.
pub struct Cotangents {
    /// With respect to x_T; `None` where nothing reached it.
    pub x: Option<State>,
    /// With respect to tracked coefficients and evaluation times: seeds for [`crate::real::Tape::backward`].
    pub seeds: Vec<(Real, f64)>,
}

/// A cotangent as the sum Σ c · v that it will be, formed when it is needed.
type Pending = Vec<(f64, State)>;

fn collect(pending: &mut Pending) -> Result<Option<State>> {
    let parts = std::mem::take(pending);
    Ok(match parts.as_slice() {
        [] => None,
        [(c, v)] if *c == 1.0 => Some(v.clone()),
        [(_, like), ..] => Some(State::sum(&parts.iter().map(|(c, v)| (*c, v)).collect::<Vec<_>>(), like)?),
    })
}

/// Pulls cotangents of states (`outs`: state number and cotangent, e.g. of the result) back through a run of `plan`.
pub fn pull_back(
    plan: &Plan,
    net: &dyn Denoiser,
    host: &dyn Host,
    kept: &Kept,
    outs: &[(usize, State)],
) -> Result<Cotangents> {
    let mut states: Vec<Pending> = vec![vec![]; plan.states.len()];
    let mut outputs: Vec<Pending> = vec![vec![]; plan.nfe()];
    let (mut seeds, mut bars): (Vec<Real>, Vec<Scalar>) = (vec![], vec![]);
    for (k, cot) in outs {
        match states.get_mut(*k) {
            Some(p) => p.push((1.0, cot.map(|t| Ok(t.detach().contiguous()?))?)),
            None => return Err(Error::value(format!("the plan has no state {k}"))),
        }
    }
    for (k, state) in plan.states.iter().enumerate().rev() {
        for (s, eval) in plan.evals.iter().enumerate().rev().filter(|(_, e)| e.state == k) {
            let Some(cot) = collect(&mut outputs[s])? else { continue };
            check_cancelled()?;
            let stored = kept.pullbacks.borrow_mut().get_mut(s).and_then(Option::take);
            let pull = match stored {
                Some(pull) => pull,
                None => {
                    let x = kept.value(plan, Source::State(k))?;
                    net.linearize(host, &Query { x: &x, t: &[eval.t.v()], cond: &kept.cond }, eval.want)?.1
                }
            };
            let back = pull(host, &cot)?;
            states[k].push((1.0, back.x.detach()));
            if eval.t.is_tracked() {
                seeds.push(eval.t.clone());
                bars.push(Scalar::Known(back.t.iter().sum()));
            }
        }
        if k == 0 {
            break;
        }
        let Some(cot) = collect(&mut states[k])? else { continue };
        let [at, by] = match cot.is_curved() {
            true => {
                let values = state.terms.iter().map(|t| kept.value(plan, t.source)).collect::<Result<Vec<_>>>()?;
                let terms: Vec<_> = state.terms.iter().zip(&values).map(|(t, v)| (t.coef.v(), v)).collect();
                State::pull(&terms, &cot)?
            }
            false => [cot.clone(), cot],
        };
        for term in &state.terms {
            let cot = if matches!(term.source, Source::State(_)) { &at } else { &by };
            if term.coef.is_tracked() {
                // one inner product for each part: seeds of one number add up
                for bar in cot.dot(&kept.value(plan, term.source)?)? {
                    seeds.push(term.coef.clone());
                    bars.push(bar);
                }
            }
            let c = term.coef.v();
            match term.source {
                _ if c == 0.0 => {}
                Source::State(j) => states[j].push((c, cot.clone())),
                Source::Output(s) => outputs[s].push((c, cot.clone())),
                Source::Noise(_) => {}
            }
        }
    }
    let x = states.first_mut().map(collect).transpose()?.flatten();
    Ok(Cotangents { x, seeds: seeds.into_iter().zip(Scalar::read(bars)?).collect() })
}
