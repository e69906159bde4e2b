//! Exponential integrators in λ: the exact solution of the probability-flow ODE between two points, with the model's
//! prediction expanded in λ (Lu et al. 2022, "DPM-Solver", eq. 3.4, and "DPM-Solver++", eq. 8). One form serves both predictions:
//!
//! x_t = a x_s − e · (z φ₁(z) m + z φ₂(z) h m′ + z φ₃(z) h² m″ + …)
//!
//! with z = −h, e = α_t, a = σ_t/σ_s for the data prediction and z = h, e = σ_t, a = α_t/α_s for the noise prediction; h = λ_t − λ_s.
use super::grid::Point;
use crate::denoise::Prediction;
use crate::real::Real;

/// φ_k(z) = Σ_n zⁿ / (n + k)!, for k ≥ 0: exact near zero, and with its exact derivative φ_k − k φ_{k+1}.
pub(super) fn phi(k: usize, z: &Real) -> Real {
    let v = phi_value(k, z.v());
    Real::custom(v, &[(z, v - k as f64 * phi_value(k + 1, z.v()))])
}

fn phi_value(k: usize, z: f64) -> f64 {
    if z.abs() < 2.0 {
        let mut term = 1.0 / (1..=k).map(|i| i as f64).product::<f64>();
        let mut sum = term;
        for n in 1..40 {
            term *= z / (n + k) as f64;
            sum += term;
        }
        return sum;
    }
    let mut v = z.exp();
    let mut factorial = 1.0;
    for i in 0..k {
        v = (v - 1.0 / factorial) / z;
        factorial *= (i + 1) as f64;
    }
    v
}

/// The step from `s` to `t`.
pub(super) struct Expo {
    /// The coefficient of the state.
    pub a: Real,
    /// The scale of the prediction's part.
    pub e: Real,
    /// ∓h.
    pub z: Real,
    /// e z φ₁(z): minus the coefficient of a constant prediction.
    pub first: Real,
    /// h = λ_t − λ_s; infinite in a step from or to an end of λ.
    pub h: Real,
}

impl Expo {
    /// The step from `s` to `t`. With the noise prediction `s` has signal: the step from α = 0 is [`Draft::first_order`]'s.
    ///
    /// [`Draft::first_order`]: super::grid::Draft::first_order
    pub fn new(s: &Point, t: &Point, want: Prediction) -> Expo {
        let h = &t.lambda - &s.lambda;
        let finite = h.v().is_finite();
        match want {
            Prediction::Data => {
                let a = &t.sigma / &s.sigma;
                let z = -&h;
                let first = if finite { &t.alpha * z.exp_m1() } else { &a * &s.alpha - &t.alpha };
                Expo { a, e: t.alpha.clone(), z, first, h }
            }
            Prediction::Noise => {
                let a = &t.alpha / &s.alpha;
                let first = if finite { &t.sigma * h.exp_m1() } else { &a * &s.sigma - &t.sigma };
                Expo { a, e: t.sigma.clone(), z: h.clone(), first, h }
            }
        }
    }
    /// e z φ_k(z).
    pub fn psi(&self, k: usize) -> Real {
        &self.e * &self.z * phi(k, &self.z)
    }
    /// Whether h is finite, so that terms beyond the first exist.
    pub fn is_finite(&self) -> bool {
        self.h.v().is_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::Tape;

    #[test]
    fn phi_is_smooth_across_its_two_branches_and_its_derivative_exact() {
        for k in 0..6 {
            for z in [-30.0, -2.0 - 1e-9, -2.0 + 1e-9, -0.3, 0.0, 1e-8, 1.0, 2.0, 5.0] {
                let tape = Tape::new();
                let x = tape.leaf(z);
                let y = phi(k, &x);
                let g = tape.backward(&[(&y, 1.0)]).of(&x);
                let h = 1e-5 * (1.0 + z.abs());
                let at = |z: f64| phi(k, &z.into()).v();
                let fd = (at(z + h) - at(z - h)) / (2.0 * h);
                assert!((g - fd).abs() < 1e-7 * (1.0 + g.abs()), "φ_{k}({z}): {g} {fd}");
            }
            let jump = phi_value(k, 2.0 - 1e-13) - phi_value(k, 2.0 + 1e-13);
            assert!(jump.abs() < 1e-11, "φ_{k}: {jump}");
        }
    }
}
