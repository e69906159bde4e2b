//! UniPC (Zhao et al. 2023, algorithms 1 and 2): a multistep predictor of any order with a corrector that reuses the
//! next evaluation, in the B(h) variants bh1 (B = z) and bh2 (B = e^z − 1).
use super::expo::{Expo, phi};
use super::grid::{Draft, Point, order_at, usable};
use super::row::{Cost, Row, any};
use crate::denoise::Prediction;
use crate::plan::{Label, Lin, Node, Plan};
use crate::real::Real;
use crate::schema::{Values, count, flag, word};
use crate::{Error, Kind, Result};

/// UniPC.
pub static UNIPC: Row = Row {
    name: "unipc",
    title: "UniPC of any order",
    notes: "Zhao et al., 2023. The network sees the predicted state, the corrected one is what the next step builds on.",
    example: "`solver::unipc(#{ order: 3, variant: \"bh1\" })`",
    order: 3,
    cost: Cost::One,
    options: &[
        count("order", 3, [1, 12], "").always("{}"),
        word("variant", &["bh1", "bh2"], "B(h) = h, or e^h − 1").always("{}"),
        flag("corrector", true, "correct each state with the next evaluation").said("no corrector"),
        flag("lower_order_final", true, "let the order fall to 1 over the last steps").said("full order to the end"),
        word("predicts", &["data", "noise"], "which prediction is expanded in λ").said("{} prediction"),
        word(
            "ratios",
            &["exact", "constant"],
            "whether gradients go through the ratios r_k of the steps in R ρ = b; in the published code they are constants",
        )
        .said("{} ratios"),
    ],
    forms: &[],
    check: any,
    plan,
};

/// N evaluations for N steps: the corrector of a step uses the evaluation of the next, and there is none after the last.
fn plan(mut d: Draft, o: &Values) -> Result<Plan> {
    let (order, corrector, lower_order_final) = (o.count("order"), o.flag("corrector"), o.flag("lower_order_final"));
    let predicts = if o.is("predicts", "noise") { Prediction::Noise } else { Prediction::Data };
    let (bh2, constant) = (o.is("variant", "bh2"), o.is("ratios", "constant"));
    let n = d.steps();
    let mut x = d.start();
    let (first, m) = d.first_order(x, 1, predicts);
    let mut m: Vec<Lin> = vec![m];
    for i in 1..=n {
        let p = usable(&d.pts, i, order_at(order, i, n, lower_order_final));
        let step = Update::new(&d.pts, i, p, predicts, bh2, constant);
        let predicted = if i == 1 { first.clone() } else { step.predict(x, &m)? };
        if i == n {
            x = d.step(predicted, i, Label::Step);
            break;
        }
        if !corrector || !step.expo.is_finite() {
            x = d.step(predicted, i, Label::Step);
            m.insert(0, d.eval(x, i, predicts));
        } else {
            let guess = d.inner(predicted, &d.pts[i].t.clone(), Label::Predicted);
            let next = d.eval(guess, i, predicts);
            let corrected = step.correct(x, &m, &next)?;
            x = d.step(corrected, i, Label::Corrected);
            m.insert(0, next);
        }
        m.truncate(order.max(1));
    }
    d.finish(x)
}

/// The step to one step end.
struct Update {
    expo: Expo,
    order: usize,
    /// r_k = (λ_{i−1−k} − λ_{i−1}) / h for the history, then 1 for the new point.
    r: Vec<Real>,
    /// The same as they stand in R: without gradients, if asked for.
    in_r: Vec<Real>,
    /// B(h).
    b_h: Real,
}

impl Update {
    fn new(pts: &[Point], i: usize, order: usize, predicts: Prediction, bh2: bool, constant: bool) -> Update {
        let expo = Expo::new(&pts[i - 1], &pts[i], predicts);
        let mut r: Vec<Real> = (1..order).map(|k| (&pts[i - 1 - k].lambda - &pts[i - 1].lambda) / &expo.h).collect();
        r.push(1.0.into());
        let b_h = if bh2 { expo.z.exp_m1() } else { expo.z.clone() };
        let in_r = r.iter().map(|r| if constant { r.v().into() } else { r.clone() }).collect();
        Update { expo, order, r, in_r, b_h }
    }
    /// ρ from R ρ = b with R[i][k] = r_kⁱ, b[i] = z φ_{i+2}(z) (i+1)! / B(h), for the first `n` points.
    fn rho(&self, n: usize) -> Result<Vec<Real>> {
        let z = &self.expo.z;
        let mut factorial = 1.0;
        let (mut rows, mut b) = (vec![], vec![]);
        for i in 0..n {
            factorial *= (i + 1) as f64;
            rows.push(self.in_r[..n].iter().map(|r| r.powi(i as i32)).collect());
            b.push(z * phi(i + 2, z) * factorial / &self.b_h);
        }
        solve(rows, b)
    }
    /// The first-order part, which predictor and corrector share.
    fn base(&self, x: Node, m: &[Lin]) -> Lin {
        x * &self.expo.a - &m[0] * &self.expo.first
    }
    /// Σ ρ_k (m_k − m_0) / r_k over the history.
    fn history(&self, m: &[Lin], rho: &[Real]) -> Lin {
        let parts = self.r.iter().zip(&m[1..]).zip(rho);
        parts.take(self.order - 1).fold(Lin::default(), |sum, ((r, mk), rho)| sum + (mk - &m[0]) * (rho / r))
    }
    fn predict(&self, x: Node, m: &[Lin]) -> Result<Lin> {
        let rho = match self.order {
            1 => return Ok(self.base(x, m)),
            // the simplified form that the method defines for order 2
            2 => vec![Real::from(0.5)],
            p => self.rho(p - 1)?,
        };
        Ok(self.base(x, m) - self.history(m, &rho) * (&self.expo.e * &self.b_h))
    }
    fn correct(&self, x: Node, m: &[Lin], next: &Lin) -> Result<Lin> {
        let rho = match self.order {
            1 => vec![Real::from(0.5)],
            p => self.rho(p)?,
        };
        let newest = (next - &m[0]) * &rho[self.order - 1];
        Ok(self.base(x, m) - (self.history(m, &rho) + newest) * (&self.expo.e * &self.b_h))
    }
}

/// Solves a small linear system by elimination with partial pivoting, differentiably.
fn solve(mut a: Vec<Vec<Real>>, mut b: Vec<Real>) -> Result<Vec<Real>> {
    let n = b.len();
    for c in 0..n {
        let pivot = (c..n).max_by(|i, j| a[*i][c].v().abs().total_cmp(&a[*j][c].v().abs())).unwrap_or(c);
        if a[pivot][c].v() == 0.0 {
            return Err(Error::new(Kind::Value, "unipc: two steps have the same signal-to-noise ratio"));
        }
        a.swap(c, pivot);
        b.swap(c, pivot);
        let (done, rest) = a.split_at_mut(c + 1);
        let row = &done[c];
        for (i, other) in rest.iter_mut().enumerate() {
            let f = &other[c] / &row[c];
            for (x, y) in other[c..].iter_mut().zip(&row[c..]) {
                *x = &*x - &f * y;
            }
            b[c + 1 + i] = &b[c + 1 + i] - &f * &b[c];
        }
    }
    for c in (0..n).rev() {
        for k in c + 1..n {
            b[c] = &b[c] - &a[c][k] * &b[k];
        }
        b[c] = &b[c] / &a[c][c];
    }
    Ok(b)
}
