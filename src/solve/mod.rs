//! Solvers: each a function from time steps to a plan, a file per family, a row of [`TABLE`] each.
mod ddim;
mod ddpm;
mod dpmpp;
mod er_sde;
mod euler;
mod expo;
mod grid;
mod heunpp;
mod ipndm;
mod row;
mod sa;
mod singlestep;
mod unipc;

pub use ipndm::IPNDM;
pub use row::{COMMON, Cost, Row};
pub use unipc::UNIPC;

use crate::discretize::Schedule;
use crate::noise::Noise;
use crate::plan::{Plan, Tracked};
use crate::real::Real;
use crate::schema::{Opt, Value, Values};
use crate::{Error, Kind, Result};
use serde_json::{Map, Value as Json};

/// All solvers.
pub static TABLE: &[&Row] = &[
    &euler::EULER,
    &ddim::DDIM,
    &ddpm::DDPM,
    &euler::HEUN,
    &singlestep::DPM,
    &singlestep::DPM2,
    &singlestep::DPM3,
    &dpmpp::DPMPP,
    &dpmpp::DPMPP_3M,
    &dpmpp::RES,
    &singlestep::DPMPP_SINGLESTEP,
    &singlestep::DPMPP_2S,
    &unipc::UNIPC,
    &ipndm::IPNDM,
    &ipndm::IPNDM_V,
    &ipndm::LMS,
    &ipndm::DEIS,
    &sa::SA,
    &heunpp::HEUNPP,
    &euler::EDM_STOCHASTIC,
    &dpmpp::SDE_DPMPP,
    &er_sde::ER_SDE,
];

/// A solver: a row of the table with values for its options.
#[derive(Clone)]
pub struct Solver {
    row: &'static Row,
    values: Values,
}

impl PartialEq for Solver {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.values == other.values
    }
}
impl std::fmt::Debug for Solver {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}", self.to_json())
    }
}

impl Solver {
    /// The row's solver with the defaults of all options.
    pub fn of(row: &'static Row) -> Solver {
        Solver { row, values: Values::new(row.all_options()) }
    }
    /// The solver of that name, with the defaults of all options.
    ///
    /// # Errors
    /// Names that are not in the table.
    pub fn named(name: &str) -> Result<Solver> {
        let row = TABLE.iter().find(|r| r.name == name);
        row.map(|r| Solver::of(r)).ok_or_else(|| Error::unknown("solver", name, TABLE.iter().map(|r| r.name)))
    }
    /// The same solver with an option set.
    ///
    /// # Errors
    /// Options that it does not have, and values that the option does not take.
    pub fn with(mut self, option: &str, value: impl Into<Value>) -> Result<Solver> {
        let Some(o) = self.row.all_options().find(|o| o.name == option) else {
            let names = self.row.all_options().map(|o| o.name);
            return Err(Error::unknown(&format!("option of {}", self.name()), option, names));
        };
        let value = o.accept(self.name(), value.into())?;
        self.values.set(option, value);
        Ok(self)
    }
    /// The solver of that name with the options for which `given` has a value.
    ///
    /// # Errors
    /// Unknown names, what `given` fails with, values out of range, options that do not go together.
    pub fn build<E: From<Error>>(
        name: &str,
        given: impl FnOnce(&'static Row) -> std::result::Result<Vec<(&'static Opt, Value)>, E>,
    ) -> std::result::Result<Solver, E> {
        let mut solver = Solver::named(name)?;
        for (o, value) in given(solver.row)? {
            let value = o.accept(name, value)?;
            solver.values.set(o.name, value);
        }
        solver.check()?;
        Ok(solver)
    }
    /// The solver that [`Solver::to_json`] wrote; what is missing has its default.
    ///
    /// # Errors
    /// As [`Solver::build`].
    pub fn from_json(json: &Json) -> Result<Solver> {
        let wrong = |m: &str| Error::new(Kind::Format, format!("a solver as JSON: {m}"));
        let map = json.as_object().ok_or_else(|| wrong("it must be an object"))?;
        let name = map.get("name").and_then(Json::as_str).ok_or_else(|| wrong("`name` is missing"))?;
        Solver::build(name, |row| {
            let read = |(key, value): (&String, &Json)| {
                let o = row.all_options().find(|o| o.name == key).ok_or_else(|| {
                    Error::unknown(&format!("option of {name}"), key, row.all_options().map(|o| o.name))
                })?;
                Ok((o, o.from_json(name, value)?))
            };
            map.iter().filter(|(key, _)| *key != "name").map(read).collect()
        })
    }
    /// Name and options, as results store them: `{"name":"unipc","order":3,"variant":"bh1",…}`.
    pub fn to_json(&self) -> Json {
        let options = self.values.iter().map(|(o, v)| (o.name.to_string(), v.to_json()));
        Json::Object(Map::from_iter([("name".to_string(), self.name().into())].into_iter().chain(options)))
    }

    /// What the table says of it.
    pub fn row(&self) -> &'static Row {
        self.row
    }
    /// The name in scripts and results (`"unipc"`).
    pub fn name(&self) -> &'static str {
        self.row.name
    }
    /// The order of the method.
    pub fn order(&self) -> usize {
        if self.values.has("order") { self.values.count("order") } else { self.row.order }
    }
    /// A short description for tables: name, order and what differs from the defaults (`"unipc(3, bh2)"`).
    pub fn describe(&self) -> String {
        let told = |(o, v): (&Opt, Value)| {
            let value = match v {
                Value::Word(w) => w.to_string(),
                Value::Number(x) => x.to_string(),
                v => v.to_string(),
            };
            let shown = !o.said.is_empty() && (o.always || v != o.default);
            shown.then(|| o.said.replace("{}", &value))
        };
        let parts: Vec<String> = self.values.iter().filter_map(told).collect();
        if parts.is_empty() { self.name().into() } else { format!("{}({})", self.name(), parts.join(", ")) }
    }

    /// What the options `afs` and `denoise_to_zero` add to evaluations, and take from them.
    fn ends(&self) -> (usize, usize) {
        (usize::from(self.values.flag("denoise_to_zero")), usize::from(self.values.flag("afs")))
    }
    /// The number of evaluations that was fixed, without AFS and `denoise_to_zero`.
    fn fixed(&self) -> Option<usize> {
        let (more, fewer) = self.ends();
        let nfe = if self.values.has("nfe") { self.values.some_count("nfe") } else { None };
        nfe.map(|n| (n + fewer).saturating_sub(more))
    }
    /// The evaluations that `steps` steps to an end with σ > 0 take. (A last step to σ = 0 is of first order and takes one.)
    pub fn nfe(&self, steps: usize) -> usize {
        let (more, fewer) = self.ends();
        let own = match (self.fixed(), self.row.cost) {
            (Some(n), _) => n,
            (None, Cost::One) => steps,
            (None, Cost::Two) => 2 * steps,
            (None, Cost::Order) => self.order() * steps,
            (None, Cost::Tapered) => (3 * steps).saturating_sub(3).max(usize::from(steps > 0)),
        };
        (own + more).saturating_sub(fewer)
    }
    /// The steps that a schedule for `nfe` evaluations has.
    pub fn steps_for_nfe(&self, nfe: usize) -> usize {
        let (more, fewer) = self.ends();
        let own = (nfe + fewer).saturating_sub(more);
        match self.row.cost {
            Cost::One => own,
            Cost::Two => own.div_ceil(2),
            Cost::Tapered => {
                if own > 1 {
                    (own + 3).div_ceil(3)
                } else {
                    own
                }
            }
            Cost::Order => singlestep::orders(self.order(), own).len(),
        }
    }
    /// The same solver, fixed to `nfe` evaluations where the number of steps does not determine them (Heun, singlestep).
    pub fn for_nfe(&self, evaluations: usize) -> Solver {
        let mut solver = self.clone();
        if solver.values.has("nfe") {
            solver.values.set("nfe", Value::Count(evaluations));
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
        let (more, fewer) = self.ends();
        let draft = grid::Draft::new(self.describe(), noise, t, t_eval, fewer == 1, more == 1)?;
        (self.row.plan)(draft.with_evaluations(self.fixed()), &self.values)
    }
    /// The plan for a schedule, differentiable in its steps and evaluation times.
    pub fn plan(&self, schedule: &Schedule) -> Result<Tracked> {
        let Schedule { noise, t, t_eval, .. } = schedule;
        Tracked::over(t, t_eval.as_ref(), |t, e| self.plan_from(noise, t, e))
    }

    /// Fails unless every option is in range and they go together.
    pub fn check(&self) -> Result<()> {
        for (o, v) in self.values.iter() {
            o.accept(self.name(), v)?;
        }
        (self.row.check)(&self.values)?;
        match self.fixed() {
            Some(0) => Err(Error::value(format!("{}: nfe leaves no evaluation for the solver itself", self.name()))),
            _ => Ok(()),
        }
    }
}
