//! A differentiable f64 scalar: noise schedules and solver coefficients are written once, over [`Real`], and
//! have exact reverse-mode gradients everywhere. A `Real` without a tape is a plain constant.
use crate::Result;
use crate::tensor::grad;
use candle_core::{DType, Device, Shape, Tensor};
use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::rc::Rc;

/// The record of a computation on [`Real`]s.
#[derive(Clone, Default)]
pub struct Tape(Rc<RefCell<Nodes>>);

#[derive(Default)]
struct Nodes {
    /// Node i owns `edges[ends[i-1]..ends[i]]`.
    ends: Vec<u32>,
    /// (parent, local derivative).
    edges: Vec<(u32, f64)>,
}

/// A scalar that may remember how it was computed.
#[derive(Clone)]
pub struct Real {
    v: f64,
    node: Option<(Tape, u32)>,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }
    /// A fresh independent variable.
    pub fn leaf(&self, v: f64) -> Real {
        Real { v, node: Some((self.clone(), self.push(&[]))) }
    }
    /// Fresh independent variables.
    pub fn leaves(&self, v: &[f64]) -> Vec<Real> {
        v.iter().map(|v| self.leaf(*v)).collect()
    }
    fn push(&self, edges: &[(u32, f64)]) -> u32 {
        let mut n = self.0.borrow_mut();
        n.edges.extend_from_slice(edges);
        let end = n.edges.len() as u32;
        n.ends.push(end);
        (n.ends.len() - 1) as u32
    }
    /// The gradient of Σ seed·value over `seeds` with respect to every node; read it with [`Grads::of`].
    pub fn backward(&self, seeds: &[(&Real, f64)]) -> Grads {
        let n = self.0.borrow();
        let mut g = vec![0.0; n.ends.len()];
        for (r, s) in seeds {
            if let Some((t, i)) = &r.node {
                debug_assert!(Rc::ptr_eq(&t.0, &self.0), "a Real of another tape");
                g[*i as usize] += s;
            }
        }
        for i in (0..g.len()).rev() {
            let gi = g[i];
            if gi != 0.0 {
                let start = if i == 0 { 0 } else { n.ends[i - 1] };
                for &(p, d) in &n.edges[start as usize..n.ends[i] as usize] {
                    g[p as usize] += gi * d;
                }
            }
        }
        Grads(g)
    }
}

/// The result of [`Tape::backward`].
pub struct Grads(Vec<f64>);

impl Grads {
    /// The gradient with respect to `r`; zero for a constant.
    pub fn of(&self, r: &Real) -> f64 {
        r.node.as_ref().map_or(0.0, |(_, i)| self.0[*i as usize])
    }
}

impl Real {
    /// The value.
    pub fn v(&self) -> f64 {
        self.v
    }
    /// Whether gradients flow through it.
    pub fn is_tracked(&self) -> bool {
        self.node.is_some()
    }
    /// The same value as a constant.
    pub fn detach(&self) -> Real {
        self.v.into()
    }
    /// A value computed outside with its partial derivatives with respect to `parents` (implicit functions,
    /// tables). Constant parents are ignored.
    pub fn custom(v: f64, parents: &[(&Real, f64)]) -> Real {
        let mut tape: Option<&Tape> = None;
        let mut edges = Vec::with_capacity(parents.len());
        for (p, d) in parents {
            if let Some((t, i)) = &p.node {
                debug_assert!(tape.is_none_or(|x| Rc::ptr_eq(&x.0, &t.0)), "two tapes in one expression");
                tape = Some(t);
                edges.push((*i, *d));
            }
        }
        let node = tape.map(|t| (t.clone(), t.push(&edges)));
        Real { v, node }
    }
    fn map(&self, v: f64, d: f64) -> Real {
        Real::custom(v, &[(self, d)])
    }
    /// eˣ.
    pub fn exp(&self) -> Real {
        let e = self.v.exp();
        self.map(e, e)
    }
    /// eˣ − 1, exact near zero.
    pub fn exp_m1(&self) -> Real {
        self.map(self.v.exp_m1(), self.v.exp())
    }
    /// Natural logarithm.
    pub fn ln(&self) -> Real {
        self.map(self.v.ln(), 1.0 / self.v)
    }
    /// ln(1 + x), exact near zero.
    pub fn ln_1p(&self) -> Real {
        self.map(self.v.ln_1p(), 1.0 / (1.0 + self.v))
    }
    /// Square root.
    pub fn sqrt(&self) -> Real {
        let s = self.v.sqrt();
        self.map(s, 0.5 / s)
    }
    /// xᵖ for a constant p.
    pub fn powf(&self, p: f64) -> Real {
        self.map(self.v.powf(p), p * self.v.powf(p - 1.0))
    }
    /// xᵏ for a constant integer k.
    pub fn powi(&self, k: i32) -> Real {
        if k == 0 {
            return 1.0.into();
        }
        self.map(self.v.powi(k), f64::from(k) * self.v.powi(k - 1))
    }
    /// Sine.
    pub fn sin(&self) -> Real {
        self.map(self.v.sin(), self.v.cos())
    }
    /// Cosine.
    pub fn cos(&self) -> Real {
        self.map(self.v.cos(), -self.v.sin())
    }
    /// Tangent.
    pub fn tan(&self) -> Real {
        let t = self.v.tan();
        self.map(t, 1.0 + t * t)
    }
    /// Arc cosine.
    pub fn acos(&self) -> Real {
        self.map(self.v.acos(), -1.0 / (1.0 - self.v * self.v).sqrt())
    }
    /// x².
    pub fn square(&self) -> Real {
        self.map(self.v * self.v, 2.0 * self.v)
    }
    /// The value limited to [lo, hi]; no gradient flows where it is outside.
    pub fn clamp(&self, lo: f64, hi: f64) -> Real {
        let d = if self.v < lo || self.v > hi { 0.0 } else { 1.0 };
        // not f64::clamp, which panics where lo > hi
        self.map(self.v.max(lo).min(hi), d)
    }
}

impl From<f64> for Real {
    fn from(v: f64) -> Self {
        Real { v, node: None }
    }
}
impl std::fmt::Debug for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.v, if self.node.is_some() { "'" } else { "" })
    }
}
impl std::iter::Sum for Real {
    fn sum<I: Iterator<Item = Real>>(iter: I) -> Self {
        iter.fold(Real::from(0.0), |a, b| a + b)
    }
}

macro_rules! binary {
    ($trait:ident, $f:ident, |$a:ident, $b:ident| $v:expr, $da:expr, $db:expr) => {
        impl $trait<&Real> for &Real {
            type Output = Real;
            fn $f(self, o: &Real) -> Real {
                let ($a, $b) = (self.v, o.v);
                Real::custom($v, &[(self, $da), (o, $db)])
            }
        }
        impl $trait<Real> for Real {
            type Output = Real;
            fn $f(self, o: Real) -> Real {
                (&self).$f(&o)
            }
        }
        impl $trait<&Real> for Real {
            type Output = Real;
            fn $f(self, o: &Real) -> Real {
                (&self).$f(o)
            }
        }
        impl $trait<Real> for &Real {
            type Output = Real;
            fn $f(self, o: Real) -> Real {
                self.$f(&o)
            }
        }
        impl $trait<f64> for &Real {
            type Output = Real;
            fn $f(self, o: f64) -> Real {
                self.$f(&Real::from(o))
            }
        }
        impl $trait<f64> for Real {
            type Output = Real;
            fn $f(self, o: f64) -> Real {
                (&self).$f(&Real::from(o))
            }
        }
        impl $trait<&Real> for f64 {
            type Output = Real;
            fn $f(self, o: &Real) -> Real {
                (&Real::from(self)).$f(o)
            }
        }
        impl $trait<Real> for f64 {
            type Output = Real;
            fn $f(self, o: Real) -> Real {
                (&Real::from(self)).$f(&o)
            }
        }
    };
}
binary!(Add, add, |a, b| a + b, 1.0, 1.0);
binary!(Sub, sub, |a, b| a - b, 1.0, -1.0);
binary!(Mul, mul, |a, b| a * b, b, a);
binary!(Div, div, |a, b| a / b, 1.0 / b, -a / (b * b));

impl Neg for &Real {
    type Output = Real;
    fn neg(self) -> Real {
        self.map(-self.v, -1.0)
    }
}
impl Neg for Real {
    type Output = Real;
    fn neg(self) -> Real {
        -&self
    }
}

/// The elements of a tensor of any shape, dtype and device, in order, as f64 on the host.
pub fn host_values(t: &Tensor) -> Result<Vec<f64>> {
    Ok(t.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?)
}

/// Runs scalar code on the elements of tensors: `f` receives each input's elements (in order) and returns each output's
/// elements with its shape. The outputs are f64 tensors on the CPU; where an input is tracked, so are they, with
/// the exact gradient of `f`. For small host-side work (schedules, coefficients), not for images.
pub fn through_tensors(
    inputs: &[Tensor],
    f: impl FnOnce(&[Vec<Real>]) -> Result<Vec<(Vec<Real>, Shape)>>,
) -> Result<Vec<Tensor>> {
    let tape = inputs.iter().any(grad::is_tracked).then(Tape::new);
    let args = inputs
        .iter()
        .map(|t| {
            let values = host_values(t)?;
            Ok(match &tape {
                Some(tape) if grad::is_tracked(t) => tape.leaves(&values),
                _ => values.into_iter().map(Real::from).collect(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let results = f(&args)?;
    let outputs = results
        .iter()
        .map(|(v, shape)| Ok(Tensor::from_vec(v.iter().map(Real::v).collect(), shape.clone(), &Device::Cpu)?))
        .collect::<Result<Vec<_>>>()?;
    let Some(tape) = tape else { return Ok(outputs) };
    let places: Vec<_> = inputs.iter().map(|t| (t.shape().clone(), t.dtype(), t.device().clone())).collect();
    let pullback: grad::RecordPullback = Box::new(move |_, cots| {
        let mut seeds = vec![];
        for ((values, _), cot) in results.iter().zip(cots) {
            if let Some(cot) = cot {
                seeds.extend(values.iter().zip(host_values(cot)?));
            }
        }
        let grads = tape.backward(&seeds);
        args.iter()
            .zip(&places)
            .map(|(arg, (shape, dtype, device))| {
                if !arg.iter().any(Real::is_tracked) {
                    return Ok(None);
                }
                let g = Tensor::from_vec(arg.iter().map(|r| grads.of(r)).collect(), shape, &Device::Cpu)?;
                Ok(Some(g.to_dtype(*dtype)?.to_device(device)?))
            })
            .collect()
    });
    grad::record(outputs, inputs, pullback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_its_derivative() {
        type F = fn(&Real) -> Real;
        let functions: [(&str, F); 16] = [
            ("exp", Real::exp),
            ("exp_m1", Real::exp_m1),
            ("ln", Real::ln),
            ("ln_1p", Real::ln_1p),
            ("sqrt", Real::sqrt),
            ("powf", |x| x.powf(2.3)),
            ("powi", |x| x.powi(-3)),
            ("powi 0", |x| x.powi(0)),
            ("sin", Real::sin),
            ("cos", Real::cos),
            ("tan", Real::tan),
            ("acos", Real::acos),
            ("square", Real::square),
            ("neg", |x| -x),
            ("div", |x| 2.0 / x - x / 3.0),
            ("sum", |x| [x.clone(), x * x].into_iter().sum()),
        ];
        for (name, f) in functions {
            for a in [0.1, 0.45, 0.9] {
                let tape = Tape::new();
                let x = tape.leaf(a);
                let y = f(&x);
                let d = tape.backward(&[(&y, 1.0)]).of(&x);
                let h = 1e-6;
                let fd = (f(&(a + h).into()).v() - f(&(a - h).into()).v()) / (2.0 * h);
                assert!((d - fd).abs() < 1e-7 * (1.0 + d.abs()), "{name} at {a}: {d} against {fd}");
            }
        }
        for (a, d) in [(-0.5, 0.0), (0.3, 1.0), (2.0, 0.0)] {
            let tape = Tape::new();
            let x = tape.leaf(a);
            assert_eq!(tape.backward(&[(&x.clamp(0.0, 1.0), 1.0)]).of(&x), d);
        }
    }

    #[test]
    fn tensors_pass_through_scalar_code_with_their_gradients() -> Result<()> {
        let host = crate::host::Quiet;
        let a = grad::variable(&Tensor::new(&[[0.5f32, 1.5], [2.0, 3.0]], &Device::Cpu)?)?;
        let b = Tensor::new(&[2.0f64], &Device::Cpu)?;
        let run = |a: &Tensor| {
            through_tensors(&[a.clone(), b.clone()], |x| {
                let scaled: Vec<Real> = x[0].iter().map(|v| v.ln() * &x[1][0]).collect();
                let sum = x[0].iter().cloned().sum::<Real>().square();
                Ok(vec![(scaled, Shape::from((2, 2))), (vec![sum], Shape::from(()))])
            })
        };
        let out = run(&a)?;
        assert_eq!(out[0].dims(), [2, 2]);
        assert_eq!(out[1].to_scalar::<f64>()?, 49.0);
        let loss = (out[0].sum_all()? + &out[1])?;
        let g = grad::grad(&host, &loss, std::slice::from_ref(&a))?;
        for (g, want) in host_values(&g[0])?.iter().zip([18.0, 14.0 + 4.0 / 3.0, 15.0, 14.0 + 2.0 / 3.0]) {
            assert!((g - want).abs() < 1e-6, "{g} against {want}");
        }
        // nothing is recorded for constants, nor under no_grad
        assert!(!grad::is_tracked(&run(&a.detach())?[0]));
        let quiet = grad::no_grad(|| run(&a))?;
        assert!(!quiet[0].track_op());
        Ok(())
    }

    #[test]
    fn gradients_match_finite_differences() {
        let f = |x: &Real, y: &Real| {
            (x * y + x.exp() / y.ln_1p() - (x.sqrt() * 3.0).powf(1.5)).sin() + (2.0 - y).exp_m1() * x.cos()
        };
        let (a, b) = (0.7, 1.3);
        let tape = Tape::new();
        let (x, y) = (tape.leaf(a), tape.leaf(b));
        let z = f(&x, &y);
        let g = tape.backward(&[(&z, 1.0)]);
        let at = |a: f64, b: f64| f(&a.into(), &b.into()).v();
        let h = 1e-6;
        assert!(((at(a + h, b) - at(a - h, b)) / (2.0 * h) - g.of(&x)).abs() < 1e-8);
        assert!(((at(a, b + h) - at(a, b - h)) / (2.0 * h) - g.of(&y)).abs() < 1e-8);
    }
}
