//! The mean length of the score of Gaussian noise on rotations, as DiffDock's networks were trained with it.
use std::f64::consts::PI;
use std::sync::OnceLock;

/// The noise levels of the table, spread evenly in the logarithm, and how many there are.
const LEVELS: [f64; 2] = [0.01, 2.0];
const COUNT: usize = 1000;
/// Angles kπ/2000 for k from 1.
const ANGLES: usize = 2000;
/// Terms of the series in the published code.
const TERMS: usize = 2000;

static TABLE: [OnceLock<f64>; COUNT] = [const { OnceLock::new() }; COUNT];

/// The noise level of a row of the table.
fn level(row: usize) -> f64 {
    LEVELS[0] * (LEVELS[1] / LEVELS[0]).powf(row as f64 / (COUNT - 1) as f64)
}

/// √(E|score|²/π) at a noise level, by sums over the angles: the density of the angle is f(ω)(1 − cos ω)/π with
/// f = Σ (2l + 1) exp(−l(l + 1)σ²) sin((l + ½)ω)/sin(ω/2), the score f′/f. That π is the published code's.
pub fn computed(sigma: f64) -> f64 {
    // beyond these the exponential is below what an f64 can add
    let terms = TERMS.min((40.0f64.sqrt() / sigma).ceil() as usize + 2);
    let weights: Vec<f64> = (0..terms)
        .map(|l| {
            let l = l as f64;
            (2.0 * l + 1.0) * (-l * (l + 1.0) * sigma * sigma).exp()
        })
        .collect();
    let (mut square, mut mass) = (0.0, 0.0);
    for k in 1..=ANGLES {
        let angle = PI * k as f64 / ANGLES as f64;
        let (low, dlow) = ((0.5 * angle).sin(), 0.5 * (0.5 * angle).cos());
        let (mut f, mut df) = (0.0, 0.0);
        for (l, w) in weights.iter().enumerate() {
            let n = l as f64 + 0.5;
            let (high, dhigh) = (n * angle).sin_cos();
            f += w * high / low;
            df += w * (low * n * dhigh - high * dlow) / (low * low);
        }
        let p = f * (1.0 - angle.cos()) / PI;
        square += (df / f).powi(2) * p;
        mass += p;
    }
    (square / mass / PI).sqrt()
}

/// The table's row that the published code takes for a noise level: it spreads its rows over one step more than there are.
fn row(sigma: f64) -> usize {
    let share = (sigma / LEVELS[0]).ln() / (LEVELS[1] / LEVELS[0]).ln();
    (share * COUNT as f64).round_ties_even().clamp(0.0, (COUNT - 1) as f64) as usize
}

fn entry(row: usize) -> f64 {
    *TABLE[row].get_or_init(|| computed(level(row)))
}

/// The norm that the published code uses at a noise level: that of the nearest row of its table. A row is computed on first use.
pub fn norm(sigma: f64) -> f64 {
    entry(row(sigma))
}

/// d norm/d ln σ, between the neighbours of the row: the norm itself moves in steps. 0 beyond the ends of the table.
pub fn slope(sigma: f64) -> f64 {
    let k = row(sigma);
    if k == 0 || k == COUNT - 1 {
        return 0.0;
    }
    (entry(k + 1) - entry(k - 1)) / (level(k + 1) / level(k - 1)).ln()
}
