//! What every solver starts from: the steps with α, σ, λ, the decoupled evaluation times, and the plan being drafted.
use super::expo::Expo;
use crate::denoise::Prediction;
use crate::noise::Noise;
use crate::plan::{Builder, Label, Lin, Node, Plan};
use crate::real::Real;
use crate::{Error, Result};
use std::cmp::Ordering;

/// A time with the noise schedule's values there.
#[derive(Clone)]
pub(super) struct Point {
    /// The time.
    pub t: Real,
    /// α(t).
    pub alpha: Real,
    /// σ(t).
    pub sigma: Real,
    /// λ(t); infinite where α or σ is zero.
    pub lambda: Real,
}

impl Point {
    pub fn new(noise: &Noise, t: &Real) -> Point {
        Point { t: t.clone(), alpha: noise.alpha(t), sigma: noise.sigma(t), lambda: noise.lambda(t) }
    }
    /// The point where λ has the given value.
    pub fn of_lambda(noise: &Noise, lambda: Real) -> Point {
        let t = noise.inverse_lambda(&lambda);
        Point { lambda, ..Point::new(noise, &t) }
    }
    /// Whether λ is finite: neither α nor σ is zero.
    pub fn is_inner(&self) -> bool {
        self.lambda.v().is_finite()
    }
}

/// A plan being drafted over a grid of steps.
pub(super) struct Draft<'a> {
    pub noise: &'a Noise,
    /// The steps, t_0 first.
    pub pts: Vec<Point>,
    t_eval: Option<&'a [Real]>,
    afs: bool,
    denoise_to_zero: bool,
    /// The evaluations that the solver was fixed to, without those of `afs` and `denoise_to_zero`.
    pub evaluations: Option<usize>,
    builder: Builder,
    start: Node,
    asked: usize,
}

impl<'a> Draft<'a> {
    /// Checks the steps. `t_eval` has one entry per step end (N+1) or one per evaluation.
    pub fn new(
        name: String,
        noise: &'a Noise,
        t: &[Real],
        t_eval: Option<&'a [Real]>,
        afs: bool,
        denoise_to_zero: bool,
    ) -> Result<Draft<'a>> {
        if t.len() < 2 {
            let e = Error::value(format!(
                "{name}: {} time steps given; a solver needs at least 2 (start and end)",
                t.len()
            ));
            return Err(e.hint("a schedule of N steps has N + 1 times"));
        }
        if let Some((i, bad)) = t.iter().enumerate().find(|(_, t)| !t.v().is_finite()) {
            return Err(Error::value(format!("{name}: time step {i} is {}", bad.v())));
        }
        if let Some(i) = (1..t.len()).find(|i| t[*i].v() >= t[i - 1].v()) {
            let e = Error::value(format!(
                "{name}: the steps must descend strictly, but step {} is {} and step {i} is {}",
                i - 1,
                t[i - 1].v(),
                t[i].v()
            ));
            return Err(e.hint("time runs from noise (large t) to data (small t)"));
        }
        let pts: Vec<Point> = t.iter().map(|t| Point::new(noise, t)).collect();
        for (i, p) in pts.iter().enumerate() {
            let (a, s) = (p.alpha.v(), p.sigma.v());
            if !(a.is_finite() && s.is_finite() && a >= 0.0 && s >= 0.0 && a + s > 0.0) {
                let m = format!(
                    "{name}: the noise schedule {} has α = {a}, σ = {s} at step {i} (t = {})",
                    noise.name(),
                    p.t.v()
                );
                return Err(Error::value(m).hint(format!(
                    "its times run from {} down to {}",
                    noise.t_max(),
                    noise.t_min()
                )));
            }
        }
        let rises = |p: &[Point]| p[1].lambda.v().partial_cmp(&p[0].lambda.v()) == Some(Ordering::Greater);
        if let Some(i) = pts.windows(2).position(|p| !rises(p)) {
            let m = format!(
                "{name}: steps {i} and {} have the same signal-to-noise ratio (t = {}, {})",
                i + 1,
                t[i].v(),
                t[i + 1].v()
            );
            return Err(Error::value(m));
        }
        let (builder, start) = Builder::new(name, &t[0]);
        Ok(Draft { noise, pts, t_eval, afs, denoise_to_zero, evaluations: None, builder, start, asked: 0 })
    }
    /// The same draft for a solver that is fixed to a number of evaluations.
    pub fn with_evaluations(self, evaluations: Option<usize>) -> Self {
        Draft { evaluations, ..self }
    }
    /// x_T.
    pub fn start(&self) -> Node {
        self.start
    }
    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.pts.len() - 1
    }
    /// The time to tell the denoiser: `own` unless evaluation times are decoupled.
    fn told(&self, own: &Real, node: Option<usize>) -> Real {
        let Some(times) = self.t_eval else { return own.clone() };
        let by_step = times.len() == self.pts.len();
        let index = if by_step { node } else { Some(self.builder.evals()) };
        index.and_then(|i| times.get(i)).unwrap_or(own).clone()
    }
    /// Evaluates at state `x`, which is at step end `i`.
    pub fn eval(&mut self, x: Node, i: usize, want: Prediction) -> Lin {
        let p = self.pts[i].clone();
        self.eval_point(x, &p, Some(i), want)
    }
    /// Evaluates at state `x`, which is at a point of its own; `node` is the step end whose decoupled time is used, if any.
    pub fn eval_point(&mut self, x: Node, p: &Point, node: Option<usize>, want: Prediction) -> Lin {
        self.asked += 1;
        if self.afs && self.asked == 1 {
            return x.v() * &analytic(p, want);
        }
        let t = self.told(&p.t, node);
        self.builder.eval(x, &t, want)
    }
    /// The step of first order from state `x` at step end `i - 1` to step end `i`, and the prediction that it follows.
    ///
    /// A state without signal (α = 0) is its own noise, and says nothing of the data: there the denoiser is asked for these, and
    /// x_t = α_t x̂₀ + σ_t ε̂ is the limit of the step.
    pub fn first_order(&mut self, x: Node, i: usize, want: Prediction) -> (Lin, Lin) {
        let (s, t) = (self.pts[i - 1].clone(), self.pts[i].clone());
        if want == Prediction::Noise && s.alpha.v() == 0.0 {
            let data = self.eval(x, i - 1, Prediction::Data);
            let noise = x * &(1.0 / &s.sigma);
            return (data * &t.alpha + &noise * &t.sigma, noise);
        }
        let step = Expo::new(&s, &t, want);
        let m = self.eval(x, i - 1, want);
        (x * &step.a - &m * &step.first, m)
    }
    /// A column of unit-variance noise.
    pub fn noise(&mut self) -> Lin {
        self.builder.noise()
    }
    /// A state inside a step.
    pub fn inner(&mut self, v: Lin, t: &Real, label: Label) -> Node {
        self.builder.state(v, t, label)
    }
    /// The state that ends step `i` (at step end `i`).
    pub fn step(&mut self, v: Lin, i: usize, label: Label) -> Node {
        let t = self.pts[i].t.clone();
        let x = self.builder.state(v, &t, label);
        self.builder.end_step(x);
        x
    }
    /// The finished plan with result `x`.
    pub fn finish(mut self, mut x: Node) -> Result<Plan> {
        let last = self.pts.len() - 1;
        if self.denoise_to_zero {
            let m = self.eval(x, last, Prediction::Data);
            let t = self.pts[last].t.clone();
            x = self.builder.state(m, &t, Label::Denoised);
            self.builder.end_step(x);
        }
        let evals = self.builder.evals();
        let ends = self.pts.len();
        if let Some(n) = self.t_eval.map(|times| times.len()).filter(|n| *n != ends && *n != evals) {
            let m = format!(
                "{n} evaluation times given; expected one per step end ({ends}) or one per evaluation ({evals})"
            );
            return Err(Error::shape(m, &[&[n], &[ends]]));
        }
        if evals == 0 {
            return Err(Error::value("the plan evaluates nothing: `afs` replaces the only evaluation")
                .hint("use at least 2 steps"));
        }
        self.builder.finish(x)
    }
}

/// The prediction of the analytical first step as a multiple of x: that of data with unit variance around zero, which is
/// right at high noise (Dockhorn et al. 2022, "GENIE", section 3.3): ε̂ = x / √(α² + σ²).
fn analytic(p: &Point, want: Prediction) -> Real {
    let root = (p.alpha.square() + p.sigma.square()).sqrt();
    match want {
        Prediction::Noise => 1.0 / root,
        // (x − σ ε̂) / α, without the cancellation
        Prediction::Data => &p.alpha / (&root * (&root + &p.sigma)),
    }
}

/// The order of the step to step end `i` (from 1) of `n` in a multistep method of order `order`: warm-up from order 1, and
/// with `lower_order_final` back down to 1 at the end.
pub(super) fn order_at(order: usize, i: usize, n: usize, lower_order_final: bool) -> usize {
    let order = order.min(n);
    match i {
        i if i < order => i,
        i if lower_order_final => order.min(n + 1 - i),
        _ => order,
    }
}

/// `order` as far as the history allows: the step from `i - 1` to `i` is of first order where λ is infinite at either
/// end, and points where it is infinite are no history.
pub(super) fn usable(pts: &[Point], i: usize, order: usize) -> usize {
    if !pts[i].is_inner() {
        return 1;
    }
    (0..order).take_while(|j| pts[i - 1 - j].is_inner()).count().max(1)
}
