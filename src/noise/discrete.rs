//! The variance-preserving schedule of a network trained at N discrete steps: ln α interpolated between them.
use super::vp::Curve;
use crate::real::Real;
use crate::{Error, Result};

/// How β runs over the training steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Run {
    /// √β linearly from step to step, between the roots of these ("scaled_linear"; CompVis calls it "linear").
    Root(f64, f64),
    /// β linearly between these.
    Linear(f64, f64),
    /// ᾱ a squared cosine of (t + s)/(1 + s), β at most 0.999 (Nichol & Dhariwal 2021).
    Cosine(f64),
}

/// Published schedules: name, number of steps, and how β runs.
pub const PRESETS: [(&str, usize, Run); 6] = [
    // Stable Diffusion 1.x, 2.x and XL
    ("sd", 1000, Run::Root(0.00085, 0.012)),
    // latent diffusion's models (LSUN, FFHQ, CelebA, ImageNet)
    ("ldm", 1000, Run::Root(0.0015, 0.0195)),
    // improved-diffusion's ImageNet-64 and its LSUN
    ("iddpm_cosine", 4000, Run::Cosine(0.008)),
    ("iddpm_linear", 1000, Run::Linear(1e-4, 0.02)),
    // diffusion-point-cloud's generators, whose last step still holds a third of the signal
    ("dmpg", 100, Run::Linear(1e-4, 0.02)),
    // guided-diffusion's ImageNet-64
    ("adm_cosine", 1000, Run::Cosine(0.008)),
];

/// β of step `i` of `n`.
fn beta(run: Run, i: usize, n: usize) -> f64 {
    let part = i as f64 / (n - 1) as f64;
    match run {
        Run::Root(a, b) => (a.sqrt() + (b.sqrt() - a.sqrt()) * part).powi(2),
        Run::Linear(a, b) => a + (b - a) * part,
        Run::Cosine(s) => {
            let bar = |i: usize| ((i as f64 / n as f64 + s) / (1.0 + s) * std::f64::consts::FRAC_PI_2).cos().powi(2);
            (1.0 - bar(i + 1) / bar(i)).min(0.999)
        }
    }
}

/// ᾱ of a published schedule, or none of that name.
pub fn preset_alphas(name: &str) -> Option<Vec<f64>> {
    let table = Table::preset(name).ok()?;
    Some(table.log_alpha.iter().map(|a| (2.0 * a).exp()).collect())
}

/// ln α at t = 1/N, 2/N, …, 1, linear between (as in DPM-Solver), and beyond the ends as in the outermost pieces.
pub struct Table {
    log_alpha: Vec<f64>,
}

impl Table {
    /// From β_1…β_N, each in (0, 1): α_n² = Π_{k≤n} (1 − β_k).
    pub(super) fn from_betas(betas: &[f64]) -> Result<Table> {
        if let Some(i) = betas.iter().position(|b| !(*b > 0.0 && *b < 1.0)) {
            return Err(Error::value(format!("noise::vp_discrete: betas[{i}] = {} must be in (0, 1)", betas[i])));
        }
        let mut sum = 0.0;
        let log_alpha = betas.iter().map(|b| {
            sum += 0.5 * (-b).ln_1p();
            sum
        });
        Table::new(log_alpha.collect())
    }
    /// From α_1², …, α_N² (`alphas_cumprod`), strictly descending in (0, 1).
    pub(super) fn from_alphas_cumprod(a: &[f64]) -> Result<Table> {
        if let Some(i) = a.iter().position(|a| !(*a > 0.0 && *a < 1.0)) {
            let e = Error::value(format!("noise::vp_discrete: alphas_cumprod[{i}] = {} must be in (0, 1)", a[i]));
            return Err(match a[i] == 0.0 {
                true => e.hint("a schedule with zero terminal SNR has λ = −∞ at its end: replace the 0 by e.g. 1e-6"),
                false => e,
            });
        }
        Table::new(a.iter().map(|a| 0.5 * a.ln()).collect())
    }
    /// A published schedule by name.
    pub(super) fn preset(name: &str) -> Result<Table> {
        let Some((_, n, run)) = PRESETS.iter().find(|p| p.0 == name) else {
            return Err(Error::unknown("preset of noise::vp_discrete", name, PRESETS.iter().map(|p| p.0)));
        };
        let betas: Vec<f64> = (0..*n).map(|i| beta(*run, i, *n)).collect();
        Table::from_betas(&betas)
    }
    fn new(log_alpha: Vec<f64>) -> Result<Table> {
        if log_alpha.len() < 2 {
            let m = format!("noise::vp_discrete: at least 2 training steps are needed, not {}", log_alpha.len());
            return Err(Error::value(m));
        }
        match log_alpha.windows(2).position(|w| w[1] >= w[0]) {
            None => Ok(Table { log_alpha }),
            Some(i) => {
                let a = |i: usize| (2.0 * log_alpha[i]).exp();
                let m = format!("alphas_cumprod must descend, but [{i}] = {} is followed by {}", a(i), a(i + 1));
                Err(Error::value(m).context("noise::vp_discrete"))
            }
        }
    }
    /// The number of training steps.
    pub(super) fn steps(&self) -> usize {
        self.log_alpha.len()
    }
    /// The piece that `t` lies in, as (ln α at its left knot, that knot's time, slope).
    fn piece(&self, left: usize) -> (f64, f64, f64) {
        let (n, i) = (self.steps() as f64, left.min(self.steps() - 2));
        (self.log_alpha[i], (i + 1) as f64 / n, (self.log_alpha[i + 1] - self.log_alpha[i]) * n)
    }
    /// `t` at a knot belongs to the piece on its right; the last knot, to the last piece.
    fn piece_at(&self, t: f64) -> (f64, f64, f64) {
        // a saturating cast: what lies outside (or is NaN) takes an outermost piece
        self.piece((t * self.steps() as f64 - 1.0).floor() as usize)
    }
}

impl Curve for Table {
    const NAME: &'static str = "vp_discrete";
    fn log_alpha(&self, t: &Real) -> Real {
        let (value, start, slope) = self.piece_at(t.v());
        (t - start) * slope + value
    }
    fn dlog_alpha(&self, t: &Real) -> Real {
        self.piece_at(t.v()).2.into()
    }
    fn invert(&self, log_alpha: f64, _: f64) -> (f64, f64) {
        let above = self.log_alpha.partition_point(|v| *v >= log_alpha);
        let (value, start, slope) = self.piece(above.saturating_sub(1));
        (start + (log_alpha - value) / slope, slope)
    }
}
