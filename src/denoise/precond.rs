//! From what a network was trained to predict to data and noise predictions, in value and in every gradient.
use super::query::{self, Coefs};
use super::{Denoiser, InputGrad, Network, Prediction, Pullback, Query, State};
use crate::host::{Host, check_cancelled};
use crate::noise::Noise;
use crate::real::Real;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use std::rc::Rc;
use std::sync::Arc;

/// What a network's output F means, for x_t = α x_0 + σ ε.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Predicts {
    /// F = ε.
    Noise,
    /// F = x_0.
    Data,
    /// F = v = α ε − σ x_0 (Salimans & Ho 2022).
    V,
    /// F = ∇ ln p(x_t) = −ε/σ, the score (Song et al. 2021).
    Score,
    /// F = u = ε − x_0, the velocity of a straight path (rectified flow).
    Flow,
    /// EDM's F_θ (Karras et al. 2022, table 1): D(x̃; s) = c_skip x̃ + c_out F(c_in x̃), for x̃ = x/α and s = σ/α.
    EdmF {
        /// The standard deviation of the data.
        sigma_data: f64,
    },
    /// F = ε, from an input of about unit variance, x_t / √(α² + σ²) (EDM's VP and iDDPM preconditioning).
    UnitNoise,
    /// F = −ε, from x_t / α (EDM's VE preconditioning: σ/α times the score).
    NegativeNoise,
}

/// What a network is told about the noise, its second input.
#[derive(Debug, Clone, PartialEq)]
pub enum TimeInput {
    /// ln(s)/4 for the VE noise level s = σ/α (EDM).
    LnSigmaOver4,
    /// The VE noise level s = σ/α.
    Sigma,
    /// The noise schedule's own time t.
    T,
    /// The index of the training step, (t − 1/N)·N from 0 to N − 1 (LDM and Stable Diffusion with N = 1000).
    Discrete {
        /// The number N of training steps.
        steps: usize,
    },
    /// The same on a scale of 1000 whatever N is: (t − 1/N)·1000 (improved-diffusion's `rescale_timesteps`).
    PerMille {
        /// The number N of training steps.
        steps: usize,
    },
    /// k·t.
    Scaled(f64),
    /// β of the training step, linear between the steps t = 1/N … 1 that the table has, and beyond its ends as in the outermost pieces
    /// (diffusion-point-cloud).
    Beta(Arc<[f64]>),
    /// The time of an unshifted rectified flow at this noise level, σ/(α + σ) from 0 to 1.
    FlowTime,
    /// ln(s/2) for the VE noise level s = σ/α (EDM's VE preconditioning).
    LnHalfSigma,
    /// (M − 1)·t for the time t at which VP with β linear in time has the noise level s = σ/α (EDM's VP preconditioning):
    /// t = (√(β_min² + 2β_d ln(1 + s²)) − β_min) / β_d.
    VpSteps {
        /// β_max − β_min.
        beta_d: f64,
        /// β at t = 0.
        beta_min: f64,
        /// The number M of training steps.
        steps: usize,
    },
    /// M − 1 − j for the entry u_j of a falling table u_0 … u_M that is nearest to s = σ/α (EDM's iDDPM preconditioning): constant
    /// between the middles of neighbouring entries, with no gradient.
    Nearest(Arc<[f64]>),
}

impl Predicts {
    /// (c_x, c_F, c_in) of the wanted prediction m = c_x x + c_F F(c_in x, ·). Each formula is written so that nothing cancels
    /// at either end of a noise schedule.
    fn coefs(self, want: Prediction, alpha: &Real, sigma: &Real) -> [Real; 3] {
        use Prediction as W;
        let (one, zero) = (|| Real::from(1.0), || Real::from(0.0));
        match (self, want) {
            (Predicts::Data, W::Data) | (Predicts::Noise, W::Noise) => [zero(), one(), one()],
            (Predicts::Noise, W::Data) => [1.0 / alpha, -(sigma / alpha), one()],
            (Predicts::Data, W::Noise) => [1.0 / sigma, -(alpha / sigma), one()],
            (Predicts::UnitNoise, _) => {
                let c_in = 1.0 / (alpha.square() + sigma.square()).sqrt();
                match want {
                    W::Data => [1.0 / alpha, -(sigma / alpha), c_in],
                    W::Noise => [zero(), one(), c_in],
                }
            }
            (Predicts::NegativeNoise, W::Data) => [1.0 / alpha, sigma / alpha, 1.0 / alpha],
            (Predicts::NegativeNoise, W::Noise) => [zero(), (-1.0).into(), 1.0 / alpha],
            (Predicts::Score, W::Data) => [1.0 / alpha, sigma.square() / alpha, one()],
            (Predicts::Score, W::Noise) => [zero(), -sigma, one()],
            (Predicts::V, _) => {
                let q = alpha.square() + sigma.square();
                match want {
                    W::Data => [alpha / &q, -(sigma / &q), one()],
                    W::Noise => [sigma / &q, alpha / &q, one()],
                }
            }
            (Predicts::Flow, _) => {
                let q = alpha + sigma;
                match want {
                    W::Data => [1.0 / &q, -(sigma / &q), one()],
                    W::Noise => [1.0 / &q, alpha / &q, one()],
                }
            }
            (Predicts::EdmF { sigma_data: d }, _) => {
                let q = sigma.square() + (alpha * d).square();
                let root = q.sqrt();
                let c_in = 1.0 / &root;
                match want {
                    W::Data => [alpha * (d * d) / &q, sigma * d / &root, c_in],
                    W::Noise => [sigma / &q, -(alpha * d / &root), c_in],
                }
            }
        }
    }
}

/// The index of the entry of a falling table that is nearest to `s`; the first of two at the same distance.
pub fn nearest(table: &[f64], s: f64) -> usize {
    let after = table.partition_point(|u| *u > s);
    match after.checked_sub(1) {
        Some(before) if after == table.len() || table[before] - s <= s - table[after] => before,
        _ => after,
    }
}

impl TimeInput {
    fn of(&self, noise: &Noise, t: &Real) -> Real {
        match self {
            TimeInput::LnSigmaOver4 => noise.lambda(t) * -0.25,
            TimeInput::Sigma => noise.ve_sigma(t),
            TimeInput::T => t.clone(),
            TimeInput::Discrete { steps } => t * *steps as f64 - 1.0,
            TimeInput::PerMille { steps } => (t - 1.0 / *steps as f64) * 1000.0,
            TimeInput::Scaled(k) => t * *k,
            TimeInput::Beta(table) => {
                let at = t * table.len() as f64 - 1.0;
                // a saturating cast: what lies outside takes an outermost piece
                let i = (at.v().floor() as usize).min(table.len().saturating_sub(2));
                match table[..] {
                    [] => 0.0.into(),
                    [only] => only.into(),
                    _ => (at - i as f64) * (table[i + 1] - table[i]) + table[i],
                }
            }
            TimeInput::FlowTime => {
                let sigma = noise.sigma(t);
                &sigma / (noise.alpha(t) + &sigma)
            }
            TimeInput::LnHalfSigma => -noise.lambda(t) - std::f64::consts::LN_2,
            TimeInput::VpSteps { beta_d, beta_min, steps } => {
                let q = noise.ve_sigma(t).square().ln_1p() * (2.0 * beta_d);
                // √(b² + q) − b, where nothing cancels at small q
                let root = (&q + beta_min * beta_min).sqrt();
                q / (root + *beta_min) * ((*steps as f64 - 1.0) / beta_d)
            }
            TimeInput::Nearest(u) => {
                let j = nearest(u, noise.ve_sigma(t).v());
                (u.len() as f64 - 2.0 - j as f64).into()
            }
        }
    }
}

/// A network with the meaning of its output: a denoiser in the noise schedule that it was trained in.
///
/// A network knows the noise levels of its schedule's [t_min, t_max]. Outside (by more than one per cent in σ/α) an
/// evaluation is an error, unless [`Preconditioned::clamp_time`] allows it: then the network is told the nearest end's noise
/// (its second input is clamped, with no gradient there) while all other coefficients stay exact.
pub struct Preconditioned {
    net: Rc<dyn Network>,
    noise: Noise,
    predicts: Predicts,
    time: TimeInput,
    /// Where the trained range is not that of the schedule: its ends as times, with their noise levels.
    trained: Option<[(f64, f64); 2]>,
    clamp: bool,
}

impl Preconditioned {
    /// A denoiser from `net`, trained in `noise` to predict `predicts`. Its second input is ln(σ/α)/4 for EDM's F_θ, the flow's
    /// time σ/(α + σ) for flow prediction, and t otherwise; change that with [`Preconditioned::with_time`].
    pub fn new(net: Rc<dyn Network>, noise: Noise, predicts: Predicts) -> Result<Self> {
        if let Predicts::EdmF { sigma_data } = predicts
            && !(sigma_data.is_finite() && sigma_data > 0.0)
        {
            return Err(Error::value(format!("sigma_data must be a positive number, not {sigma_data}")));
        }
        let time = match predicts {
            Predicts::EdmF { .. } => TimeInput::LnSigmaOver4,
            Predicts::Flow => TimeInput::FlowTime,
            _ => TimeInput::T,
        };
        Ok(Preconditioned { net, noise, predicts, time, trained: None, clamp: false })
    }
    /// Says what the network's second input is.
    pub fn with_time(mut self, time: TimeInput) -> Result<Self> {
        match time {
            TimeInput::Discrete { steps: 0 } | TimeInput::PerMille { steps: 0 } => {
                return Err(Error::value("the number of training steps must be at least 1"));
            }
            TimeInput::Nearest(ref u) if u.len() < 2 || u.iter().any(|u| u.is_nan()) => {
                return Err(Error::value("a table of noise levels needs at least two, in falling order"));
            }
            TimeInput::Beta(ref table) if table.is_empty() || table.iter().any(|b| !b.is_finite()) => {
                return Err(Error::value("a table of β needs at least one number, all of them finite"));
            }
            TimeInput::Scaled(k) if !k.is_finite() => {
                return Err(Error::value(format!("the time's factor must be finite, not {k}")));
            }
            _ => self.time = time,
        }
        Ok(self)
    }
    /// Says which noise levels σ/α the network knows, where these are not the ends of its schedule (of EDM's kind).
    pub fn with_range(mut self, lowest: f64, highest: f64) -> Result<Self> {
        if !(0.0 < lowest && lowest < highest && highest.is_finite()) {
            return Err(Error::value(format!("a network cannot know the noise levels from {lowest} to {highest}")));
        }
        let end = |s: f64| (self.noise.t_of_sigma(&s.into()).v(), s);
        self.trained = Some([end(lowest), end(highest)]);
        Ok(self)
    }
    /// Allows noise levels that the network was not trained at (see [`Preconditioned`]).
    pub fn clamp_time(mut self, allow: bool) -> Self {
        self.clamp = allow;
        self
    }

    /// (c_x, c_F, c_in, c_noise) at each time.
    fn coefs(&self, t: &[f64], want: Prediction) -> Result<Coefs<4>> {
        let [lo, hi] = self.range();
        if !self.clamp {
            self.check_range(t, lo, hi)?;
        }
        Coefs::new(t, query::name(want), |t| {
            let [x, f, input] = self.predicts.coefs(want, &self.noise.alpha(t), &self.noise.sigma(t));
            let told = if self.clamp { t.clamp(lo.0, hi.0) } else { t.clone() };
            [x, f, input, self.time.of(&self.noise, &told)]
        })
    }
    /// The ends of the trained range: their times and noise levels.
    fn range(&self) -> [(f64, f64); 2] {
        let end = |t: f64| (t, self.noise.ve_sigma(&t.into()).v());
        self.trained.unwrap_or_else(|| [end(self.noise.t_min()), end(self.noise.t_max())])
    }
    fn check_range(&self, t: &[f64], (lo, lowest): (f64, f64), (hi, highest): (f64, f64)) -> Result<()> {
        for &t in t {
            if (lo..=hi).contains(&t) {
                continue;
            }
            let s = self.noise.ve_sigma(&t.into()).v();
            // one per cent: what interpolation between steps, and a finite difference at an end, may need
            if !(s >= 0.99 * lowest && s <= 1.01 * highest) {
                let m = format!(
                    "time {t} (noise level {s:.4e}) is outside the network's range {lo} to {hi} (noise levels {lowest:.4e} to {highest:.4e})"
                );
                return Err(
                    Error::value(m).hint("sample between these, or allow it with the option `clamp_time: true`")
                );
            }
        }
        Ok(())
    }
    /// (x_in, c_noise) for the network.
    fn inputs(&self, x: &Tensor, c: &Coefs<4>) -> Result<(Tensor, Tensor)> {
        let b = x.dim(0)?;
        let c_noise = Tensor::from_vec(c.rows(3, b), b, x.device())?.to_dtype(x.dtype())?;
        Ok((c.scale(2, x)?, c_noise))
    }
    /// m = c_x x + c_F F, F in x's dtype.
    fn combine(c: &Coefs<4>, x: &Tensor, f: &Tensor) -> Result<Tensor> {
        let f = c.scale(1, f)?;
        Ok(if c.values(0).iter().all(|c| *c == 0.0) { f } else { (c.scale(0, x)? + f)? })
    }
    fn check(&self, q: &Query) -> Result<Tensor> {
        check_cancelled()?;
        crate::host::count_evaluation();
        let classes = match self.net.classes() {
            // a network without classes may still take rows of its own kind (embeddings); it judges them itself
            0 => None,
            k => Some(k),
        };
        query::check(q, self.net.sample_shape().as_deref(), classes)
    }
    fn output(&self, x: &Tensor, f: Tensor) -> Result<Tensor> {
        if f.dims() != x.dims() {
            let m = format!("the network must return its input's shape {:?}, not {:?}", x.dims(), f.dims());
            return Err(Error::shape(m, &[x.dims(), f.dims()]));
        }
        if !f.device().same_device(x.device()) {
            return Err(Error::new(Kind::Device, "the network returned a tensor on another device than its input"));
        }
        Ok(f.detach().to_dtype(x.dtype())?)
    }
}

impl Denoiser for Preconditioned {
    fn noise(&self) -> &Noise {
        &self.noise
    }
    fn describe(&self) -> String {
        let what = match self.predicts {
            Predicts::Noise => "predicts noise",
            Predicts::Data => "predicts data",
            Predicts::Score => "predicts the score",
            Predicts::V => "predicts v",
            Predicts::Flow => "predicts flow",
            Predicts::EdmF { .. } => "EDM preconditioning",
            // the network's own line names its kind
            Predicts::UnitNoise | Predicts::NegativeNoise => "predicts noise",
        };
        format!("{}, {what}, noise {}", self.net.describe(), self.noise.name())
    }
    fn hash(&self) -> Option<String> {
        let range = self.trained.map_or_else(String::new, |r| format!(" {r:?}"));
        let how = format!("{:?} {:?} {}{range}", self.predicts, self.time, self.clamp);
        let noise = self.noise.spec().to_string();
        self.net.hash().map(|h| query::digest(&[h.as_bytes(), noise.as_bytes(), how.as_bytes()]))
    }
    fn sample_shape(&self) -> Option<Vec<usize>> {
        self.net.sample_shape()
    }
    fn classes(&self) -> usize {
        self.net.classes()
    }
    fn conditions(&self) -> Vec<String> {
        self.net.conditions()
    }
    fn known_levels(&self) -> Option<&[f64]> {
        match &self.time {
            // the last one is 0, where there is nothing to denoise
            TimeInput::Nearest(u) => u.split_last().map(|(_, levels)| levels),
            _ => None,
        }
    }
    fn kept(&self, batch: usize) -> Option<u64> {
        self.net.kept(batch)
    }
    fn places(&self) -> Vec<String> {
        self.net.places()
    }
    fn hidden(&self, host: &dyn Host, q: &Query, place: &str) -> Result<Tensor> {
        let x = self.check(q)?;
        let (x_in, c_noise) = self.inputs(&x, &self.coefs(q.t, Prediction::Data)?)?;
        self.net.hidden(host, &x_in, &c_noise, q.cond, place)
    }
    fn eval(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<State> {
        let x = self.check(q)?;
        let c = self.coefs(q.t, want)?;
        let (x_in, c_noise) = self.inputs(&x, &c)?;
        let f = self.output(&x, self.net.forward(host, &x_in, &c_noise, q.cond)?)?;
        Ok(Self::combine(&c, &x, &f)?.into())
    }
    fn linearize(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<(State, Pullback)> {
        let x = self.check(q)?;
        let c = self.coefs(q.t, want)?;
        let (x_in, c_noise) = self.inputs(&x, &c)?;
        let (f, net_pull) = self.net.linearize(host, &x_in, &c_noise, q.cond)?;
        let f = self.output(&x, f)?;
        let m = Self::combine(&c, &x, &f)?;
        let pull: Pullback = Box::new(move |host, m_bar| {
            let m_bar = m_bar.tensor()?.detach().to_dtype(x.dtype())?;
            let (x_in_bar, c_noise_bar) = net_pull(host, &c.scale(1, &m_bar)?)?;
            let x_in_bar = x_in_bar.detach().to_dtype(x.dtype())?;
            let c_noise_bar = c_noise_bar.detach().to_device(x.device())?.to_dtype(candle_core::DType::F64)?;
            let t = c.pull(query::read([
                query::products(&m_bar, &x)?,
                query::products(&m_bar, &f)?,
                query::products(&x_in_bar, &x)?,
                c_noise_bar,
            ])?);
            let direct = c.scale(0, &m_bar)?;
            Ok(InputGrad { x: (direct + c.scale(2, &x_in_bar)?)?.into(), t })
        });
        Ok((m.into(), pull))
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_entry_is_found_everywhere() {
        let table = [100.0, 10.0, 4.0, 1.0, 0.0];
        let by_distance = |s: f64| {
            let mut best = 0;
            for (i, u) in table.iter().enumerate() {
                if (u - s).abs() < (table[best] - s).abs() {
                    best = i;
                }
            }
            best
        };
        for s in [1e9, 100.0, 55.0, 54.9, 55.1, 10.0, 7.0, 6.9, 2.5, 1.0, 0.5, 0.49, 0.0] {
            assert_eq!(nearest(&table, s), by_distance(s), "{s}");
        }
        assert_eq!(nearest(&[], 1.0), 0);
        assert_eq!(nearest(&[3.0], 1.0), 0);
    }
}
