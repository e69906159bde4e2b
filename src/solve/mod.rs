//! Solvers: each a function from time steps to a plan, a file per family.
mod ddim;
mod dpmpp;
mod euler;
mod expo;
mod grid;
mod ipndm;
mod singlestep;
mod unipc;

use crate::denoise::Prediction;
use crate::noise::Noise;
use crate::plan::{Plan, Tracked};
use crate::real::Real;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// A solver as data: a method with its options. Serializes to what results store, e.g.
/// `{"name":"unipc","order":3,"variant":"bh1",…}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Solver {
    /// The method.
    #[serde(flatten)]
    pub method: Method,
    /// Analytical first step: the first evaluation is replaced by ε̂ = x / √(α² + σ²) (Dockhorn et al. 2022), which costs nothing.
    #[serde(default)]
    pub afs: bool,
    /// One more evaluation at the end, whose data prediction is the result.
    #[serde(default)]
    pub denoise_to_zero: bool,
}

/// The methods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Method {
    /// Euler in t on the probability-flow ODE.
    Euler,
    /// DDIM with η.
    Ddim {
        /// 0: the ODE; 1: ancestral sampling.
        eta: f64,
    },
    /// Heun (EDM): two evaluations per step; an odd remainder is one Euler step at the end.
    Heun {
        /// Evaluations, where they are odd and fixed: the last step is then an Euler step.
        nfe: Option<usize>,
    },
    /// Singlestep DPM-Solver (noise prediction), order 1 to 3.
    Dpm {
        /// The order.
        order: usize,
        /// Evaluations: steps then follow the published order list; otherwise all are of order `order`.
        nfe: Option<usize>,
        /// Options.
        #[serde(flatten)]
        options: SinglestepOptions,
    },
    /// Multistep DPM-Solver++ (data prediction), order 1 to 3.
    Dpmpp {
        /// The order.
        order: usize,
        /// Options.
        #[serde(flatten)]
        options: MultistepOptions,
    },
    /// Singlestep DPM-Solver++ (data prediction), order 1 to 3.
    DpmppSinglestep {
        /// The order.
        order: usize,
        /// As for `Dpm`.
        nfe: Option<usize>,
        /// Options.
        #[serde(flatten)]
        options: SinglestepOptions,
    },
    /// UniPC of any order.
    Unipc {
        /// The order, at least 1.
        order: usize,
        /// Options.
        #[serde(flatten)]
        options: UnipcOptions,
    },
    /// iPNDM, order 1 to 4.
    Ipndm {
        /// The order.
        order: usize,
    },
    /// iPNDM with weights for the actual steps in the VE noise level, order 1 to 4.
    IpndmV {
        /// The order.
        order: usize,
    },
    /// DEIS tAB: extrapolation in t with `order` predictions, 1 to 4.
    Deis {
        /// The order.
        order: usize,
    },
    /// Karras et al. 2022's stochastic sampler: Heun with churn.
    EdmStochastic {
        /// The churn.
        #[serde(flatten)]
        churn: Churn,
        /// As for `Heun`.
        nfe: Option<usize>,
    },
    /// SDE-DPM-Solver++(2M).
    SdeDpmpp {
        /// Options.
        #[serde(flatten)]
        options: SdeOptions,
    },
}

/// How second-order terms are formed where papers leave a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expansion {
    /// The published default: half the first-order coefficient (`"dpmsolver"` or `"midpoint"` in the references).
    #[default]
    Midpoint,
    /// The Taylor expansion integrated exactly (`"taylor"`; `"heun"` in diffusers and k-diffusion).
    #[serde(alias = "heun")]
    Taylor,
}

/// UniPC's B(h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// B(h) = z.
    #[default]
    Bh1,
    /// B(h) = e^z − 1.
    Bh2,
}

/// Options of singlestep solvers.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SinglestepOptions {
    /// How the second-order terms are formed.
    #[serde(default)]
    pub solver_type: Expansion,
    /// Where in λ the first inner point is, as a fraction of the step: 1/2 (order 2) or 1/3 (order 3) unless given.
    #[serde(default)]
    pub r1: Option<f64>,
    /// Where the second inner point of order 3 is: 2/3 unless given.
    #[serde(default)]
    pub r2: Option<f64>,
}

/// Options of multistep DPM-Solver++.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MultistepOptions {
    /// How the second-order terms are formed.
    #[serde(default)]
    pub solver_type: Expansion,
    /// Whether the order falls to 1 over the last steps.
    #[serde(default = "yes")]
    pub lower_order_final: bool,
}

/// Options of UniPC.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct UnipcOptions {
    /// B(h).
    #[serde(default)]
    pub variant: Variant,
    /// Whether states are corrected with the next evaluation.
    #[serde(default = "yes")]
    pub corrector: bool,
    /// Whether the order falls to 1 over the last steps.
    #[serde(default = "yes")]
    pub lower_order_final: bool,
    /// The prediction that is expanded in λ.
    #[serde(default = "data", with = "prediction")]
    pub predicts: Prediction,
}

/// Options of SDE-DPM-Solver++(2M).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SdeOptions {
    /// How the second-order term is formed.
    #[serde(default)]
    pub solver_type: Expansion,
    /// Noise: 0 is DPM-Solver++(2M), 1 the SDE.
    pub eta: f64,
    /// A factor on the noise.
    pub s_noise: f64,
    /// Whether the last step is of order 1.
    #[serde(default)]
    pub lower_order_final: bool,
}

/// The churn of [`Method::EdmStochastic`], named as in the paper; noise levels are VE (σ/α).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Churn {
    /// The total amount of churn, over all steps.
    pub s_churn: f64,
    /// The lowest noise level with churn.
    pub s_min: f64,
    /// The highest noise level with churn.
    #[serde(default = "infinity", deserialize_with = "infinity_or", serialize_with = "finite_or_null")]
    pub s_max: f64,
    /// A factor on the noise.
    pub s_noise: f64,
}

fn yes() -> bool {
    true
}
fn data() -> Prediction {
    Prediction::Data
}
fn infinity() -> f64 {
    f64::INFINITY
}
/// JSON has no infinity: it is stored as null.
fn infinity_or<'de, D: serde::Deserializer<'de>>(d: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(d)?.unwrap_or(f64::INFINITY))
}
fn finite_or_null<S: serde::Serializer>(x: &f64, s: S) -> std::result::Result<S::Ok, S::Error> {
    x.is_finite().then_some(*x).serialize(s)
}
mod prediction {
    //! `"data"` or `"noise"`.
    use crate::denoise::Prediction;
    use crate::plan::prediction_name;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    pub fn serialize<S: Serializer>(p: &Prediction, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(prediction_name(*p))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Prediction, D::Error> {
        match String::deserialize(d)?.as_str() {
            "data" => Ok(Prediction::Data),
            "noise" => Ok(Prediction::Noise),
            other => Err(D::Error::unknown_variant(other, &["data", "noise"])),
        }
    }
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

impl From<Method> for Solver {
    fn from(method: Method) -> Self {
        Solver { method, afs: false, denoise_to_zero: false }
    }
}

/// Evaluations per step, and how steps and evaluations are counted.
enum Cost {
    /// One evaluation per step.
    One,
    /// Two per step; one in the last for an odd number.
    Heun,
    /// `order` per step, or as the order list says.
    Singlestep(usize),
}

impl Solver {
    /// The name in scripts and results (`"unipc"`).
    pub fn name(&self) -> &'static str {
        match &self.method {
            Method::Euler => "euler",
            Method::Ddim { .. } => "ddim",
            Method::Heun { .. } => "heun",
            Method::Dpm { .. } => "dpm",
            Method::Dpmpp { .. } => "dpmpp",
            Method::DpmppSinglestep { .. } => "dpmpp_singlestep",
            Method::Unipc { .. } => "unipc",
            Method::Ipndm { .. } => "ipndm",
            Method::IpndmV { .. } => "ipndm_v",
            Method::Deis { .. } => "deis",
            Method::EdmStochastic { .. } => "edm_stochastic",
            Method::SdeDpmpp { .. } => "sde_dpmpp",
        }
    }
    /// The order of the method.
    pub fn order(&self) -> usize {
        match &self.method {
            Method::Euler | Method::Ddim { .. } => 1,
            Method::Heun { .. } | Method::EdmStochastic { .. } | Method::SdeDpmpp { .. } => 2,
            Method::Dpm { order, .. }
            | Method::Dpmpp { order, .. }
            | Method::DpmppSinglestep { order, .. }
            | Method::Unipc { order, .. }
            | Method::Ipndm { order }
            | Method::IpndmV { order }
            | Method::Deis { order } => *order,
        }
    }
    /// A short description for tables: name, order and what differs from the defaults (`"unipc(3, bh2)"`).
    pub fn describe(&self) -> String {
        let mut parts: Vec<String> = vec![];
        let has_order = !matches!(
            self.method,
            Method::Euler | Method::Ddim { .. } | Method::Heun { .. } | Method::EdmStochastic { .. }
        );
        if has_order {
            parts.push(self.order().to_string());
        }
        let mut flag = |on: bool, text: &str| {
            if on {
                parts.push(text.into());
            }
        };
        match &self.method {
            Method::Ddim { eta } => flag(*eta != 0.0, &format!("eta {eta}")),
            Method::Unipc { options: o, .. } => {
                flag(true, if o.variant == Variant::Bh1 { "bh1" } else { "bh2" });
                flag(!o.corrector, "no corrector");
                flag(!o.lower_order_final, "full order to the end");
                flag(o.predicts == Prediction::Noise, "noise prediction");
            }
            Method::Dpmpp { options: o, .. } => {
                flag(o.solver_type == Expansion::Taylor, "taylor");
                flag(!o.lower_order_final, "full order to the end");
            }
            Method::Dpm { options: o, .. } | Method::DpmppSinglestep { options: o, .. } => {
                flag(o.solver_type == Expansion::Taylor, "taylor");
            }
            Method::EdmStochastic { churn, .. } => flag(true, &format!("churn {}", churn.s_churn)),
            Method::SdeDpmpp { options: o } => flag(true, &format!("eta {}", o.eta)),
            _ => {}
        }
        flag(self.afs, "afs");
        flag(self.denoise_to_zero, "denoise to zero");
        if parts.is_empty() { self.name().into() } else { format!("{}({})", self.name(), parts.join(", ")) }
    }

    fn cost(&self) -> Cost {
        match &self.method {
            Method::Heun { .. } | Method::EdmStochastic { .. } => Cost::Heun,
            Method::Dpm { order, .. } | Method::DpmppSinglestep { order, .. } => Cost::Singlestep(*order),
            _ => Cost::One,
        }
    }
    /// The number of evaluations that was fixed, without AFS and `denoise_to_zero`.
    fn fixed(&self) -> Option<usize> {
        let nfe = match &self.method {
            Method::Heun { nfe }
            | Method::EdmStochastic { nfe, .. }
            | Method::Dpm { nfe, .. }
            | Method::DpmppSinglestep { nfe, .. } => *nfe,
            _ => None,
        };
        nfe.map(|n| (n + usize::from(self.afs)).saturating_sub(usize::from(self.denoise_to_zero)))
    }
    /// The evaluations that `steps` steps to an end with σ > 0 take. (A last step to σ = 0 is of first order and takes one.)
    pub fn nfe(&self, steps: usize) -> usize {
        let own = match (self.fixed(), self.cost()) {
            (Some(n), _) => n,
            (None, Cost::One) => steps,
            (None, Cost::Heun) => 2 * steps,
            (None, Cost::Singlestep(order)) => order * steps,
        };
        (own + usize::from(self.denoise_to_zero)).saturating_sub(usize::from(self.afs))
    }
    /// The steps that a schedule for `nfe` evaluations has.
    pub fn steps_for_nfe(&self, nfe: usize) -> usize {
        let own = (nfe + usize::from(self.afs)).saturating_sub(usize::from(self.denoise_to_zero));
        match self.cost() {
            Cost::One => own,
            Cost::Heun => own.div_ceil(2),
            Cost::Singlestep(order) => singlestep::orders(order, own).len(),
        }
    }
    /// The same solver, fixed to `nfe` evaluations where the number of steps does not determine them (Heun, singlestep).
    pub fn for_nfe(&self, evaluations: usize) -> Solver {
        let mut solver = self.clone();
        match &mut solver.method {
            Method::Heun { nfe }
            | Method::EdmStochastic { nfe, .. }
            | Method::Dpm { nfe, .. }
            | Method::DpmppSinglestep { nfe, .. } => *nfe = Some(evaluations),
            _ => {}
        }
        solver
    }

    /// The plan for steps `t` (N+1, descending) and, if decoupled, evaluation times (one per step end or per evaluation).
    ///
    /// # Errors
    /// Steps that do not descend, are not finite or leave the noise schedule; options out of range; a number of steps that
    /// does not fit the number of evaluations.
    pub fn plan_from(&self, noise: &Noise, t: &[Real], t_eval: Option<&[Real]>) -> Result<Plan> {
        self.check()?;
        let d = grid::Draft::new(self.describe(), noise, t, t_eval, self.afs, self.denoise_to_zero)?;
        let steps = d.steps();
        let odd = match self.fixed() {
            Some(n) if matches!(self.cost(), Cost::Heun) => {
                if n.div_ceil(2) != steps {
                    let m = format!(
                        "{}: {n} evaluations take {} steps, the schedule has {steps}",
                        self.name(),
                        n.div_ceil(2)
                    );
                    return Err(Error::value(m).hint("make the schedule with `solver.steps(nfe)` steps"));
                }
                n % 2 == 1
            }
            _ => false,
        };
        match &self.method {
            Method::Euler => euler::euler(d),
            Method::Ddim { eta } => ddim::plan(d, *eta),
            Method::Heun { .. } => euler::heun(d, odd, None),
            Method::EdmStochastic { churn, .. } => euler::heun(d, odd, Some(churn)),
            Method::Dpm { order, options, .. } => singlestep::plan(d, *order, self.fixed(), Prediction::Noise, options),
            Method::DpmppSinglestep { order, options, .. } => {
                singlestep::plan(d, *order, self.fixed(), Prediction::Data, options)
            }
            Method::Dpmpp { order, options } => dpmpp::multistep(d, *order, options),
            Method::Unipc { order, options } => unipc::plan(d, *order, options),
            Method::Ipndm { order } => ipndm::plan(d, *order, ipndm::Weights::Equal),
            Method::IpndmV { order } => ipndm::plan(d, *order, ipndm::Weights::Sigma),
            Method::Deis { order } => ipndm::plan(d, *order, ipndm::Weights::Time),
            Method::SdeDpmpp { options } => dpmpp::sde(d, options),
        }
    }
    /// The plan for a schedule, differentiable in its steps and evaluation times.
    pub fn plan(&self, schedule: &crate::discretize::Schedule) -> Result<Tracked> {
        Tracked::new(self, schedule)
    }

    /// Fails unless every option is in range.
    pub fn check(&self) -> Result<()> {
        let name = self.name();
        let in_range = |what: &str, x: f64, lo: f64, hi: f64| match x >= lo && x <= hi {
            true => Ok(()),
            false => Err(Error::value(format!("{name}: {what} must be between {lo} and {hi}, not {x}"))),
        };
        let highest = match &self.method {
            Method::Unipc { .. } => 12,
            Method::Ipndm { .. } | Method::IpndmV { .. } | Method::Deis { .. } => 4,
            _ => 3,
        };
        in_range("order", self.order() as f64, 1.0, f64::from(highest))?;
        match &self.method {
            Method::Ddim { eta } => in_range("eta", *eta, 0.0, 1.0)?,
            Method::SdeDpmpp { options: o } => {
                in_range("eta", o.eta, 0.0, 1e3)?;
                in_range("s_noise", o.s_noise, 0.0, 1e3)?;
            }
            Method::EdmStochastic { churn: c, .. } => {
                in_range("s_churn", c.s_churn, 0.0, 1e6)?;
                in_range("s_min", c.s_min, 0.0, f64::MAX)?;
                in_range("s_max", c.s_max, 0.0, f64::INFINITY)?;
                in_range("s_noise", c.s_noise, 0.0, 1e3)?;
            }
            Method::Dpm { order, options: o, .. } | Method::DpmppSinglestep { order, options: o, .. } => {
                let (r1, r2) = (o.r1.unwrap_or(if *order == 3 { 1.0 / 3.0 } else { 0.5 }), o.r2.unwrap_or(2.0 / 3.0));
                in_range("r1", r1, 1e-6, 1.0)?;
                if *order == 3 {
                    in_range("r2", r2, r1 + 1e-6, 1.0)?;
                }
            }
            _ => {}
        }
        if self.fixed() == Some(0) {
            return Err(Error::value(format!("{name}: nfe leaves no evaluation for the solver itself")));
        }
        Ok(())
    }
}
