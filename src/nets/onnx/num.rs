//! Sizes and whole numbers that may grow with the batch: what the arithmetic of shapes in a graph computes with.
pub use crate::nets::graph::Size;
use crate::{Error, Result};

/// fixed + per · batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Num {
    /// What does not depend on the batch.
    pub fixed: i64,
    /// What each sample adds.
    pub per: i64,
}

impl From<i64> for Num {
    fn from(fixed: i64) -> Num {
        Num { fixed, per: 0 }
    }
}

impl From<Size> for Num {
    fn from(size: Size) -> Num {
        match size {
            Size::Fixed(k) => Num { fixed: k as i64, per: 0 },
            Size::Per(k) => Num { fixed: 0, per: k as i64 },
        }
    }
}

impl std::fmt::Display for Num {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Num { fixed, per: 0 } => write!(f, "{fixed}"),
            Num { fixed: 0, per: 1 } => write!(f, "batch"),
            Num { fixed: 0, per } => write!(f, "{per}·batch"),
            Num { fixed, per } => write!(f, "{fixed} + {per}·batch"),
        }
    }
}

fn beyond(what: &str, a: Num, b: Num) -> Error {
    Error::value(format!("{a} {what} {b} is no number of the form a + b·batch that can be followed"))
}

impl Num {
    /// Where it does not depend on the batch.
    pub fn plain(self) -> Result<i64> {
        match self.per {
            0 => Ok(self.fixed),
            _ => Err(Error::value(format!("{self} depends on the size of the batch"))),
        }
    }
    /// As a size.
    pub fn size(self) -> Result<Size> {
        match self {
            Num { fixed, per: 0 } if fixed >= 0 => Ok(Size::Fixed(fixed as usize)),
            Num { fixed: 0, per } if per > 0 => Ok(Size::Per(per as usize)),
            _ => Err(Error::value(format!("{self} is no size"))),
        }
    }
    fn parts(self, b: Num, f: impl Fn(i64, i64) -> Option<i64>) -> Option<Num> {
        Some(Num { fixed: f(self.fixed, b.fixed)?, per: f(self.per, b.per)? })
    }
    /// The sum.
    pub fn plus(self, b: Num) -> Result<Num> {
        self.parts(b, i64::checked_add).ok_or_else(|| beyond("+", self, b))
    }
    /// The difference.
    pub fn minus(self, b: Num) -> Result<Num> {
        self.parts(b, i64::checked_sub).ok_or_else(|| beyond("−", self, b))
    }
    /// The product.
    pub fn times(self, b: Num) -> Result<Num> {
        let (a, k) = if self.per == 0 { (b, self.fixed) } else { (self, b.fixed) };
        let scaled = (self.per == 0 || b.per == 0).then(|| a.parts(a, |v, _| v.checked_mul(k))).flatten();
        scaled.ok_or_else(|| beyond("·", self, b))
    }
    /// The quotient, cut towards zero where nothing depends on the batch.
    pub fn over(self, b: Num) -> Result<Num> {
        let exact = |v: i64, k: i64| (k != 0 && v % k == 0).then(|| v / k);
        let found = match (self, b) {
            (Num { fixed: a, per: 0 }, Num { fixed: k, per: 0 }) => a.checked_div(k).map(Num::from),
            (_, Num { fixed: k, per: 0 }) => self.parts(self, |v, _| exact(v, k)),
            (Num { fixed: 0, per: a }, Num { fixed: 0, per: k }) => exact(a, k).map(Num::from),
            _ => None,
        };
        found.ok_or_else(|| beyond("/", self, b))
    }
    /// Whether it is less, for every batch.
    pub fn less(self, b: Num) -> Result<bool> {
        match self.per == b.per {
            true => Ok(self.fixed < b.fixed),
            false => Err(beyond("<", self, b)),
        }
    }
}

/// How many values sizes have together: as a number for each sample, and whether it grows with the batch.
pub fn count(sizes: &[Size]) -> Result<(usize, bool)> {
    let mut all = (1usize, false);
    for s in sizes {
        let (k, grows) = match s {
            Size::Fixed(k) => (*k, false),
            Size::Per(k) => (*k, true),
        };
        if grows && all.1 {
            return Err(Error::value("two dimensions of one value grow with the batch"));
        }
        let n = all.0.checked_mul(k).ok_or_else(|| Error::value("a value has more entries than can be counted"))?;
        all = (n, all.1 || grows);
    }
    Ok(all)
}

/// How sizes print.
pub fn told(sizes: &[Size]) -> String {
    let all: Vec<String> = sizes.iter().map(|&s| Num::from(s).to_string()).collect();
    format!("[{}]", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_batch() -> Result<()> {
        let b = Num::from(Size::Per(1));
        let eight = b.times(8.into())?;
        assert_eq!(eight.size()?, Size::Per(8));
        assert_eq!(eight.over(4.into())?.size()?, Size::Per(2));
        assert_eq!(eight.over(b)?, 8.into());
        assert_eq!(Num::from(7).over(2.into())?, 3.into());
        assert_eq!(eight.minus(eight)?, 0.into());
        for wrong in [eight.times(b), eight.over(3.into()), eight.over(0.into()), Num::from(1).over(b)] {
            assert!(wrong.is_err());
        }
        assert!(Num::from(i64::MAX).plus(1.into()).is_err() && eight.plus(1.into())?.size().is_err());
        assert!(eight.less(1.into()).is_err() && Num::from(1).less(2.into())?);
        assert_eq!(count(&[Size::Per(2), Size::Fixed(3)])?, (6, true));
        assert!(count(&[Size::Per(2), Size::Per(3)]).is_err());
        assert!(count(&[Size::Fixed(usize::MAX), Size::Fixed(2)]).is_err());
        Ok(())
    }
}
