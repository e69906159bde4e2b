//! `noise::from_fn`: a schedule from functions of a script, as a table that is as fine as they need.
use super::build;
use crate::noise::table::{Knots, MOST};
use crate::noise::{Noise, Spec};
use crate::real::host_values;
use crate::schema::{Kind as Of, Schema, number, value};
use crate::script::error::RhaiResult;
use crate::script::host::ScriptHost;
use crate::script::options::number_of;
use crate::tensor::grad;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use rhai::plugin::*;
use rhai::{Dynamic, FnPtr, Map};

const OF: &str = "noise::from_fn";
const ANY: [f64; 2] = [f64::MIN, f64::MAX];
pub(super) const FROM_FN: Schema = Schema::new(
    OF,
    &[
        value("alpha", Of::Function, "", "α(t)").needed("|t| 1.0 - t"),
        value("sigma", Of::Function, "", "σ(t)").needed("|t| t"),
        number("t_min", 1e-3, ANY, "the ends of time"),
        number("t_max", 1.0, ANY, "the ends of time"),
    ],
);
/// How far the table may be from the functions' logarithms.
const CLOSE: f64 = 1e-8;
/// Knots to begin with.
const FIRST: usize = 33;

/// ln f and its slope at each time.
fn curve(ctx: &NativeCallContext, name: &str, f: &FnPtr, t: &[f64]) -> RhaiResult<Vec<[f64; 2]>> {
    let host = ScriptHost::new(ctx);
    let at = grad::variable(&Tensor::new(t, &Device::Cpu).map_err(Error::from)?)?;
    let found: Dynamic = f.call_raw(ctx, None, [Dynamic::from(at.clone())])?;
    let kind = crate::script::error::type_of(&found);
    let constant = number_of(&found);
    let (values, slopes) = match (constant, found.try_cast::<Tensor>()) {
        (Some(c), _) => (vec![c; t.len()], vec![0.0; t.len()]),
        (None, Some(y)) if y.elem_count() == t.len() => {
            let y = y.reshape(t.len()).and_then(|y| y.to_dtype(DType::F64)).map_err(Error::from)?;
            let ones = y.ones_like().map_err(Error::from)?.detach();
            let slopes = match grad::is_tracked(&y) {
                true => host_values(&grad::vjp(&host, &[(y.clone(), ones)], &[at])?[0])?,
                false => vec![0.0; t.len()],
            };
            (host_values(&y.detach())?, slopes)
        }
        _ => {
            let m =
                format!("{OF}: {name} must return a number, or one for each of the times that it is given, not {kind}");
            return Err(Error::new(Kind::Type, m)
                .hint("write it with operations of tensors: `|t| (1.0 - t * t).sqrt()`")
                .into());
        }
    };
    let one = |((t, y), d): ((&f64, &f64), &f64)| match *y > 0.0 && y.is_finite() && d.is_finite() {
        true => Ok([y.ln(), d / y]),
        false => {
            let e =
                Error::value(format!("{OF}: {name} is {y} with slope {d} at t = {t}: it must be above 0 and finite"));
            Err(e.hint("leave out an end where it is not, with `t_min` or `t_max`"))
        }
    };
    Ok(t.iter().zip(&values).zip(&slopes).map(one).collect::<Result<_>>()?)
}

/// Knots that are put in the middle of pieces until those are as good as the functions.
fn knots(ctx: &NativeCallContext, [alpha, sigma]: [&FnPtr; 2], [t_min, t_max]: [f64; 2]) -> RhaiResult<Knots> {
    let even = |i: usize| t_min + (t_max - t_min) * i as f64 / (FIRST - 1) as f64;
    let t: Vec<f64> = (0..FIRST).map(even).collect();
    let mut k = Knots { alpha: curve(ctx, "alpha", alpha, &t)?, sigma: curve(ctx, "sigma", sigma, &t)?, t };
    let mut open: Vec<usize> = (0..FIRST - 1).collect();
    while !open.is_empty() {
        let middles: Vec<f64> = open.iter().map(|i| 0.5 * (k.t[*i] + k.t[i + 1])).collect();
        let (a, s) = (curve(ctx, "alpha", alpha, &middles)?, curve(ctx, "sigma", sigma, &middles)?);
        let (mut next, mut still) = (Knots::default(), vec![]);
        let mut push = |t: f64, a: [f64; 2], s: [f64; 2]| {
            next.t.push(t);
            next.alpha.push(a);
            next.sigma.push(s);
            next.t.len() - 1
        };
        let mut asked = open.iter().zip(&middles).zip(a.iter().zip(&s)).peekable();
        for i in 0..k.t.len() {
            let here = push(k.t[i], k.alpha[i], k.sigma[i]);
            if let Some(((_, middle), (a, s))) = asked.next_if(|((open, _), _)| **open == i) {
                let off = |curve: &[[f64; 2]], exact: f64| (Knots::middle(curve, &k.t, i) - exact).abs();
                let close = off(&k.alpha, a[0]) < CLOSE && off(&k.sigma, s[0]) < CLOSE;
                push(*middle, *a, *s);
                if !close {
                    still.extend([here, here + 1]);
                }
            }
        }
        k = next;
        open = still;
        if k.t.len() + open.len() > MOST {
            let near = k.t[open[open.len() / 2]];
            let m = format!("{OF}: alpha and sigma cannot be followed to 8 digits near t = {near}");
            let hint = "they must be smooth, and each value a function of its own time alone; an end where one of them is 0 or jumps is left out with `t_min` or `t_max`";
            return Err(Error::value(m).hint(hint).into());
        }
    }
    Ok(k)
}

fn made(ctx: &NativeCallContext, options: Map) -> RhaiResult<Noise> {
    let o = FROM_FN.read(options)?;
    let needed = |name| o.function(name).ok_or_else(|| Error::value(format!("{OF}: {name} must be given")));
    let (alpha, sigma) = (needed("alpha")?, needed("sigma")?);
    let (t_min, t_max) = (o.number("t_min"), o.number("t_max"));
    if !(t_min < t_max && t_min.is_finite() && t_max.is_finite()) {
        return Err(Error::value(format!("{OF}: t_min = {t_min} must be below t_max = {t_max}")).into());
    }
    let k = knots(ctx, [&alpha, &sigma], [t_min, t_max])?;
    k.check().map_err(|e| e.context(OF))?;
    let part = |curve: &[[f64; 2]], i: usize| curve.iter().map(|p| p[i]).collect();
    let spec = Spec::Table {
        log_alpha: part(&k.alpha, 0),
        log_sigma: part(&k.sigma, 0),
        dlog_alpha: part(&k.alpha, 1),
        dlog_sigma: part(&k.sigma, 1),
        t: k.t,
    };
    Ok(spec.build()?)
}

/// Noise schedules of one's own.
#[export_module]
pub(super) mod api {
    /// A noise schedule from functions α(t) and σ(t) of one's own.
    ///
    /// The functions are asked for tensors of times, f64, and answer with as many values, or with a number that holds for all. They become a table, cubic in ln α
    /// and ln σ, of about nine digits; it is what results record, so nothing of the script is needed to sample with them again.
    /// Errors unless α and σ are above 0 and smooth, and σ/α grows with t.
    ///
    /// Example: `noise::from_fn(#{ alpha: |t| (t * 1.5).cos(), sigma: |t| (t * 1.5).sin() }).lambda(0.5)` is about 0.0709
    #[rhai_fn(return_raw)]
    pub fn from_fn(ctx: NativeCallContext, options: Map) -> RhaiResult<Noise> {
        made(&ctx, options)
    }
    /// A noise schedule from a table: ln α and ln σ with their slopes at times, cubic between them. What `noise::from_fn` makes.
    ///
    /// Errors unless σ/α grows with t, between the knots too.
    ///
    /// Example: `noise::table(#{ t: [0, 1], log_alpha: [0, 0], log_sigma: [-3, 2], dlog_alpha: [0, 0], dlog_sigma: [5, 5] }).ve_sigma(0.6)` is 1
    #[rhai_fn(return_raw)]
    pub fn table(options: Map) -> RhaiResult<Noise> {
        build("table", options)
    }
}
