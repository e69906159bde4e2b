//! A solver as a row of a table: all that is known of it.
use super::grid::Draft;
use crate::Result;
use crate::plan::Plan;
use crate::schema::{Opt, Values, flag};

/// Evaluations per step, and how steps and evaluations are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// One evaluation per step.
    One,
    /// Two per step; one in the last for an odd number (option `nfe`).
    Two,
    /// As many per step as the order; with option `nfe` as the published list of orders says.
    Order,
    /// Three per step, two in the last but one, one in the last.
    Tapered,
}

/// A solver. From a row follow `solver::NAME` and `solver::named`, checks, descriptions, reference pages, and the tests that run
/// over all solvers.
pub struct Row {
    /// Its key in scripts and files.
    pub name: &'static str,
    /// What it is, for the first line of its documentation; its cost is added.
    pub title: &'static str,
    /// Source, and what else is to be known.
    pub notes: &'static str,
    /// A line of code, and after `is` its value.
    pub example: &'static str,
    /// Its order, where no option `order` says so.
    pub order: usize,
    /// Its evaluations.
    pub cost: Cost,
    /// Its options, beside those of every solver ([`COMMON`]).
    pub options: &'static [Opt],
    /// Options that make another solver of it: (a flag, that solver's name).
    pub forms: &'static [(Opt, &'static str)],
    /// Fails where options do not go together.
    pub check: fn(&Values) -> Result<()>,
    /// The plan over drafted steps.
    pub(super) plan: fn(Draft, &Values) -> Result<Plan>,
}

/// The options of every solver.
pub static COMMON: [Opt; 2] = [
    flag(
        "afs",
        false,
        "replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs nothing",
    )
    .said("afs"),
    flag("denoise_to_zero", false, "end with one more evaluation, whose data prediction is the result")
        .said("denoise to zero"),
];

/// Any options go together.
pub(super) fn any(_: &Values) -> Result<()> {
    Ok(())
}

impl Row {
    /// All options, with those of every solver.
    pub fn all_options(&'static self) -> impl Iterator<Item = &'static Opt> + Clone {
        self.options.iter().chain(&COMMON)
    }
    /// The documentation of `solver::NAME`, in the form of doc comments.
    pub fn doc(&self) -> String {
        let cost = match (self.cost, self.options.iter().any(|o| o.name == "order"), self.order) {
            (Cost::One, ..) => "one evaluation per step",
            (Cost::Tapered, ..) => "three evaluations per step, two in the last but one, one in the last",
            (Cost::Two, ..) | (Cost::Order, false, 2) => "two evaluations per step",
            (Cost::Order, false, 3) => "three evaluations per step",
            (Cost::Order, ..) => "as many evaluations per step as its order",
        };
        let notes = if self.notes.is_empty() { String::new() } else { format!("{}\n\n", self.notes) };
        let options = self.options.iter().chain(self.forms.iter().map(|(form, _)| form)).chain(&COMMON);
        let options: String = options.map(|o| o.line() + "\n").collect();
        format!("{}; {cost}.\n\n{notes}Options:\n{options}\nExample: {}", self.title, self.example)
    }
}
