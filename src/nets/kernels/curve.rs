//! Functions of each value that have parameters, or bends: what other frameworks' graphs are written with.
use super::pointwise::{each, exp};
use super::{Frozen, View, pool};
use crate::tensor::elementwise as el;
use candle_core::{Result, Tensor};

/// A function of each value. Where it bends, its slope is that of the side that PyTorch takes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Curve {
    /// |x|.
    Abs,
    /// The error function.
    Erf,
    /// ln(1 + e^x).
    Softplus,
    /// x tanh(ln(1 + e^x)).
    Mish,
    /// x, or k·x below 0.
    Leaky(f64),
    /// x, or k·(e^x − 1) below 0.
    Elu(f64),
    /// k·x + b, held between 0 and 1.
    HardSigmoid(f64, f64),
    /// x times the former with 1/6 and 1/2.
    HardSwish,
    /// x between two bounds, of which either may be infinite.
    Clip(f64, f64),
    /// x^k.
    Power(f64),
    /// The whole number towards zero; constant in between.
    Trunc,
    /// The next whole number below.
    Floor,
    /// The next whole number above.
    Ceil,
    /// The nearest whole number, halves to even ones.
    Round,
    /// −1, 0 or 1.
    Sign,
}

/// erf x and its slope: by the series near 0, and from a fit to erfc elsewhere (Press et al., Numerical Recipes, erfcc), whose relative error is
/// 1.2e-7.
fn erf(x: f32) -> f32 {
    let z = f64::from(x.abs());
    let t = 1.0 / (1.0 + 0.5 * z);
    let terms = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let p = terms.iter().fold(0.0, |p, c| p * t + c);
    let far = 1.0 - t * (p - z * z).exp();
    let s = z * z;
    // up to z⁹: below 1e-9 where it is used
    let near = z
        * std::f64::consts::FRAC_2_SQRT_PI
        * (1.0 + s * (-1.0 / 3.0 + s * (0.1 + s * (-1.0 / 42.0 + s * (1.0 / 216.0 - s / 1320.0)))));
    (if z < 0.3 { near } else { far } as f32).copysign(x)
}

fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

fn power(x: f32, k: f64) -> f32 {
    match k.fract() == 0.0 && k.abs() < 64.0 {
        true => x.powi(k as i32),
        false => x.powf(k as f32),
    }
}

impl Curve {
    fn values(self, x: &[f32], out: &mut [f32], par: bool) {
        match self {
            Curve::Abs => each(x, x, out, par, |x, _| x.abs()),
            Curve::Erf => each(x, x, out, par, |x, _| erf(x)),
            Curve::Softplus => each(x, x, out, par, |x, _| softplus(x)),
            Curve::Mish => each(x, x, out, par, |x, _| x * softplus(x).tanh()),
            Curve::Leaky(k) => each(x, x, out, par, move |x, _| if x < 0.0 { k as f32 * x } else { x }),
            Curve::Elu(k) => each(x, x, out, par, move |x, _| if x < 0.0 { k as f32 * x.exp_m1() } else { x }),
            Curve::HardSigmoid(k, b) => each(x, x, out, par, move |x, _| (k as f32 * x + b as f32).clamp(0.0, 1.0)),
            Curve::HardSwish => each(x, x, out, par, |x, _| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            Curve::Clip(low, high) => each(x, x, out, par, move |x, _| {
                let x = if x < low as f32 { low as f32 } else { x };
                if x > high as f32 { high as f32 } else { x }
            }),
            Curve::Power(k) => each(x, x, out, par, move |x, _| power(x, k)),
            Curve::Trunc => each(x, x, out, par, |x, _| x.trunc()),
            Curve::Floor => each(x, x, out, par, |x, _| x.floor()),
            Curve::Ceil => each(x, x, out, par, |x, _| x.ceil()),
            Curve::Round => each(x, x, out, par, |x, _| x.round_ties_even()),
            Curve::Sign => each(x, x, out, par, |x, _| if x == 0.0 { x } else { x.signum() }),
        }
    }

    fn slopes(self, x: &[f32], cot: &[f32], to: &mut [f32], par: bool) {
        match self {
            Curve::Abs => each(x, cot, to, par, |x, g| if x == 0.0 { 0.0 } else { g * x.signum() }),
            Curve::Erf => each(x, cot, to, par, |x, g| g * std::f32::consts::FRAC_2_SQRT_PI * exp(-x * x)),
            Curve::Softplus => each(x, cot, to, par, |x, g| g * sigmoid(x)),
            Curve::Mish => each(x, cot, to, par, |x, g| {
                let t = softplus(x).tanh();
                g * (t + x * sigmoid(x) * (1.0 - t * t))
            }),
            Curve::Leaky(k) => each(x, cot, to, par, move |x, g| if x > 0.0 { g } else { k as f32 * g }),
            Curve::Elu(k) => each(x, cot, to, par, move |x, g| if x > 0.0 { g } else { g * k as f32 * x.exp() }),
            Curve::HardSigmoid(k, b) => each(x, cot, to, par, move |x, g| {
                let y = k as f32 * x + b as f32;
                if y > 0.0 && y < 1.0 { k as f32 * g } else { 0.0 }
            }),
            Curve::HardSwish => each(x, cot, to, par, |x, g| match x {
                x if x <= -3.0 => 0.0,
                x if x >= 3.0 => g,
                x => g * (x / 3.0 + 0.5),
            }),
            Curve::Clip(low, high) => {
                each(x, cot, to, par, move |x, g| if x >= low as f32 && x <= high as f32 { g } else { 0.0 })
            }
            Curve::Power(k) => {
                each(x, cot, to, par, move |x, g| if k == 0.0 { 0.0 } else { g * k as f32 * power(x, k - 1.0) })
            }
            Curve::Trunc | Curve::Floor | Curve::Ceil | Curve::Round | Curve::Sign => to.fill(0.0),
        }
    }
}

impl Frozen for Curve {
    fn name(&self) -> &'static str {
        match self {
            Curve::Abs => "abs",
            Curve::Erf => "erf",
            Curve::Softplus => "softplus",
            Curve::Mish => "mish",
            Curve::Leaky(_) => "leaky relu",
            Curve::Elu(_) => "elu",
            Curve::HardSigmoid(..) => "hard sigmoid",
            Curve::HardSwish => "hard swish",
            Curve::Clip(..) => "clip",
            Curve::Power(_) => "power",
            Curve::Trunc => "trunc",
            Curve::Floor => "floor",
            Curve::Ceil => "ceil",
            Curve::Round => "round",
            Curve::Sign => "sign",
        }
    }
    fn detail(&self) -> String {
        match self {
            Curve::Leaky(k) | Curve::Elu(k) | Curve::Power(k) => format!("{k}"),
            Curve::HardSigmoid(a, b) | Curve::Clip(a, b) => format!("{a}, {b}"),
            _ => String::new(),
        }
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        Ok(inputs[0].to_vec())
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        self.values(inputs[0].data, out, par);
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(cot.len());
        self.slopes(inputs[0].data, cot, &mut grad, par);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let x = inputs[0];
        let own = |t: crate::Result<Tensor>| t.map_err(|e| candle_core::Error::Msg(e.to_string()));
        // below 0 and above, each without the other's infinities
        let sides = || -> Result<(Tensor, Tensor)> { Ok((own(el::relu(x))?, own(el::relu(&x.neg()?))?.neg()?)) };
        match *self {
            Curve::Abs => own(el::abs(x)),
            Curve::Erf => own(el::erf(x)),
            Curve::Softplus => own(el::softplus(x)),
            Curve::Mish => x * own(el::tanh(&own(el::softplus(x))?))?,
            Curve::Leaky(k) => {
                let (above, below) = sides()?;
                above + (below * k)?
            }
            Curve::Elu(k) => {
                let (above, below) = sides()?;
                above + (own(el::expm1(&below))? * k)?
            }
            Curve::HardSigmoid(k, b) => own(el::clamp(&x.affine(k, b)?, Some(0.0), Some(1.0))),
            Curve::HardSwish => x * own(el::clamp(&x.affine(1.0 / 6.0, 0.5)?, Some(0.0), Some(1.0)))?,
            Curve::Clip(low, high) => {
                let bound = |v: f64| v.is_finite().then_some(v);
                own(el::clamp(x, bound(low), bound(high)))
            }
            Curve::Power(k) => own(el::powf(x, k)),
            Curve::Trunc => own(el::trunc(x)),
            Curve::Floor => own(el::floor(x)),
            Curve::Ceil => own(el::ceil(x)),
            Curve::Round => own(el::round(x)),
            Curve::Sign => own(el::sign(x)),
        }
    }
}
