//! Solvers with their options as Rust values: what reference implementations take, and the solvers that they are compared with.
#![allow(dead_code)]
use ld3sh::denoise::Prediction;
use ld3sh::schema::Value;
use ld3sh::solve::Solver;

/// The solver of that name with these options.
pub fn of(name: &str, options: &[(&str, Value)]) -> Solver {
    options.iter().fold(Solver::named(name).unwrap(), |s, (option, value)| s.with(option, *value).unwrap())
}
/// The same solver with `afs` and `denoise_to_zero`.
pub fn with_ends(solver: &Solver, afs: bool, denoise_to_zero: bool) -> Solver {
    solver.clone().with("afs", afs).unwrap().with("denoise_to_zero", denoise_to_zero).unwrap()
}

#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    Euler,
    Ddim { eta: f64 },
    Heun { nfe: Option<usize> },
    Dpm { order: usize, nfe: Option<usize>, options: SinglestepOptions },
    Dpmpp { order: usize, options: MultistepOptions },
    DpmppSinglestep { order: usize, nfe: Option<usize>, options: SinglestepOptions },
    Unipc { order: usize, options: UnipcOptions },
    Ipndm { order: usize },
    IpndmV { order: usize },
    Deis { order: usize },
    EdmStochastic { churn: Churn, nfe: Option<usize> },
    SdeDpmpp { options: SdeOptions },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expansion {
    #[default]
    Midpoint,
    Taylor,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Variant {
    #[default]
    Bh1,
    Bh2,
}
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SinglestepOptions {
    pub solver_type: Expansion,
    pub r1: Option<f64>,
    pub r2: Option<f64>,
}
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultistepOptions {
    pub solver_type: Expansion,
    pub lower_order_final: bool,
}
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnipcOptions {
    pub variant: Variant,
    pub corrector: bool,
    pub lower_order_final: bool,
    pub predicts: Prediction,
}
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SdeOptions {
    pub solver_type: Expansion,
    pub eta: f64,
    pub s_noise: f64,
    pub lower_order_final: bool,
}
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Churn {
    pub s_churn: f64,
    pub s_min: f64,
    pub s_max: f64,
    pub s_noise: f64,
}

impl Default for MultistepOptions {
    fn default() -> Self {
        MultistepOptions { solver_type: Expansion::Midpoint, lower_order_final: true }
    }
}
impl Default for UnipcOptions {
    fn default() -> Self {
        UnipcOptions { variant: Variant::Bh1, corrector: true, lower_order_final: true, predicts: Prediction::Data }
    }
}
impl Default for SdeOptions {
    fn default() -> Self {
        SdeOptions { solver_type: Expansion::Midpoint, eta: 1.0, s_noise: 1.0, lower_order_final: false }
    }
}
impl Default for Churn {
    fn default() -> Self {
        Churn { s_churn: 0.0, s_min: 0.0, s_max: f64::INFINITY, s_noise: 1.0 }
    }
}

fn kind(e: Expansion) -> Value {
    Value::Word(if e == Expansion::Taylor { "taylor" } else { "midpoint" })
}
fn count(n: Option<usize>) -> Value {
    n.map_or(Value::Unset, Value::Count)
}
fn number(x: Option<f64>) -> Value {
    x.map_or(Value::Unset, Value::Number)
}

impl From<Method> for Solver {
    fn from(method: Method) -> Solver {
        let singlestep = |name, order: usize, nfe, o: SinglestepOptions| {
            let (r1, r2) = (number(o.r1), number(o.r2));
            let options = [("order", order.into()), ("nfe", count(nfe)), ("solver_type", kind(o.solver_type))];
            let solver = of(name, &options).with("r1", r1);
            solver.unwrap().with("r2", r2).unwrap()
        };
        match method {
            Method::Euler => of("euler", &[]),
            Method::Ddim { eta } => of("ddim", &[("eta", eta.into())]),
            Method::Heun { nfe } => of("heun", &[("nfe", count(nfe))]),
            Method::Dpm { order, nfe, options } => singlestep("dpm", order, nfe, options),
            Method::DpmppSinglestep { order, nfe, options } => singlestep("dpmpp_singlestep", order, nfe, options),
            Method::Dpmpp { order, options: o } => of(
                "dpmpp",
                &[
                    ("order", order.into()),
                    ("solver_type", kind(o.solver_type)),
                    ("lower_order_final", o.lower_order_final.into()),
                ],
            ),
            Method::Unipc { order, options: o } => of(
                "unipc",
                &[
                    ("order", order.into()),
                    ("variant", if o.variant == Variant::Bh1 { "bh1" } else { "bh2" }.into()),
                    ("corrector", o.corrector.into()),
                    ("lower_order_final", o.lower_order_final.into()),
                    ("predicts", if o.predicts == Prediction::Data { "data" } else { "noise" }.into()),
                ],
            ),
            Method::Ipndm { order } => of("ipndm", &[("order", order.into())]),
            Method::IpndmV { order } => of("ipndm_v", &[("order", order.into())]),
            Method::Deis { order } => of("deis", &[("order", order.into())]),
            Method::EdmStochastic { churn: c, nfe } => of(
                "edm_stochastic",
                &[
                    ("s_churn", c.s_churn.into()),
                    ("s_min", c.s_min.into()),
                    ("s_max", c.s_max.into()),
                    ("s_noise", c.s_noise.into()),
                    ("nfe", count(nfe)),
                ],
            ),
            Method::SdeDpmpp { options: o } => of(
                "sde_dpmpp",
                &[
                    ("solver_type", kind(o.solver_type)),
                    ("eta", o.eta.into()),
                    ("s_noise", o.s_noise.into()),
                    ("lower_order_final", o.lower_order_final.into()),
                ],
            ),
        }
    }
}
