//! Linear combinations of a plan's vectors, so that solvers read like their papers.
use super::{Source, Term};
use crate::real::Real;
use std::borrow::Borrow;
use std::ops::{Add, Mul, Sub};

/// Σ coef · vector, each vector at most once, in order of first appearance.
#[derive(Debug, Clone, Default)]
pub struct Lin(pub(crate) Vec<Term>);

impl Lin {
    /// One vector.
    pub fn of(source: Source) -> Lin {
        Lin(vec![Term { source, coef: 1.0.into() }])
    }
    /// The terms.
    pub fn terms(&self) -> &[Term] {
        &self.0
    }
    fn add_scaled(mut self, other: &Lin, sign: f64) -> Lin {
        for t in &other.0 {
            match self.0.iter_mut().find(|x| x.source == t.source) {
                Some(x) if sign > 0.0 => x.coef = &x.coef + &t.coef,
                Some(x) => x.coef = &x.coef - &t.coef,
                None if sign > 0.0 => self.0.push(t.clone()),
                None => self.0.push(Term { source: t.source, coef: -&t.coef }),
            }
        }
        self
    }
    fn scaled(&self, c: &Real) -> Lin {
        Lin(self.0.iter().map(|t| Term { source: t.source, coef: &t.coef * c }).collect())
    }
}

impl<L: Borrow<Lin>> Add<L> for Lin {
    type Output = Lin;
    fn add(self, o: L) -> Lin {
        self.add_scaled(o.borrow(), 1.0)
    }
}
impl<L: Borrow<Lin>> Add<L> for &Lin {
    type Output = Lin;
    fn add(self, o: L) -> Lin {
        self.clone().add_scaled(o.borrow(), 1.0)
    }
}
impl<L: Borrow<Lin>> Sub<L> for Lin {
    type Output = Lin;
    fn sub(self, o: L) -> Lin {
        self.add_scaled(o.borrow(), -1.0)
    }
}
impl<L: Borrow<Lin>> Sub<L> for &Lin {
    type Output = Lin;
    fn sub(self, o: L) -> Lin {
        self.clone().add_scaled(o.borrow(), -1.0)
    }
}
macro_rules! times {
    ($($lin:ty, $c:ty, |$x:ident| $real:expr;)*) => { $(
        impl Mul<$c> for $lin {
            type Output = Lin;
            fn mul(self, $x: $c) -> Lin {
                self.scaled($real)
            }
        }
    )* };
}
times! {
    Lin, &Real, |c| c;
    &Lin, &Real, |c| c;
    Lin, Real, |c| &c;
    &Lin, Real, |c| &c;
    Lin, f64, |c| &Real::from(c);
    &Lin, f64, |c| &Real::from(c);
}
