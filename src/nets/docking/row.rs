//! The family's row.
use super::load::{Built, built, find};
use crate::Result;
use crate::nets::family::{Family, Part, Parts, Role};
use crate::nets::weights::File;

/// The row.
pub const FAMILY: Family = Family { name: "docking", recognises: find, build, builtin: &[] };

fn build(file: &mut File) -> Result<Parts> {
    Ok(match built(file)? {
        Built::Score(net) => [(Role::Score, Part::Score(net))].into(),
        Built::Confidence(net) => [(Role::Confidence, Part::Confidence(net))].into(),
    })
}
