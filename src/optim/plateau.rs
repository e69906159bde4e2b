//! Learning-rate decay when a validation loss stops improving.
use super::in_range;
use crate::{Error, Result};

/// Counts validations that do not improve on the best, and says when to decay (LD3, appendix D: factor 0.8 after 5).
#[derive(Debug, Clone, PartialEq)]
pub struct Plateau {
    /// What a learning rate is multiplied by at a decay, in (0, 1].
    pub factor: f64,
    /// Validations without improvement before a decay, at least 1.
    pub patience: u64,
    /// What no learning rate decays below.
    pub floor: f64,
    /// The lowest loss so far; infinite before the first.
    pub best: f64,
    /// Validations since the last improvement or decay.
    pub bad: u64,
    /// How often [`Plateau::step`] said to decay.
    pub decays: u64,
    /// How often [`Plateau::decay`] was asked to decay a rate that was already at the floor.
    pub floored: u64,
}

impl Plateau {
    /// A fresh counter. `factor` in (0, 1], `patience` ≥ 1, `floor` ≥ 0.
    pub fn new(factor: f64, patience: u64, floor: f64) -> Result<Self> {
        in_range("plateau: factor", factor, f64::MIN_POSITIVE, 1.0)?;
        in_range("plateau: floor", floor, 0.0, f64::INFINITY)?;
        if patience == 0 {
            return Err(Error::value("plateau: patience must be at least 1"));
        }
        Ok(Plateau { factor, patience, floor, best: f64::INFINITY, bad: 0, decays: 0, floored: 0 })
    }
    /// Takes the next validation loss; true when it is the `patience`-th in a row that does not improve on the best,
    /// and the count starts again. A loss that is NaN does not improve.
    pub fn step(&mut self, loss: f64) -> bool {
        if loss < self.best {
            self.best = loss;
            self.bad = 0;
            return false;
        }
        self.bad += 1;
        if self.bad < self.patience {
            return false;
        }
        self.bad = 0;
        self.decays += 1;
        true
    }
    /// The decayed rate max(`lr`·factor, floor); a rate at or below the floor stays, and is counted in `floored`.
    pub fn decay(&mut self, lr: f64) -> f64 {
        if lr <= self.floor {
            self.floored += 1;
            return lr;
        }
        (lr * self.factor).max(self.floor)
    }
}
