//! Operations that choose: comparisons, the larger or smaller of two, and one of two by a third; and powers of two values.
use super::arithmetic::{Side, sides, tensor_sides, told};
use super::lines::{Lines, broadcast, broadcast_strides};
use super::{Frozen, View, pool};
use crate::tensor::{arith, elementwise};
use candle_core::{Result, Tensor};

/// What is made of two values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// The larger.
    Max,
    /// The smaller.
    Min,
    /// a^b.
    Power,
    /// 1 where a < b, else 0; without gradient, as all that follow.
    Less,
    /// 1 where a ≤ b, else 0.
    LessOrEqual,
    /// 1 where a = b, else 0.
    Equal,
}

/// An operation on two sides, of which one may be constant, broadcast together.
pub struct Choose {
    /// What is made of them.
    pub op: Choice,
    /// Left and right.
    pub sides: [Side; 2],
}

impl Choice {
    fn value(self, a: f32, b: f32) -> f32 {
        let one = |yes: bool| if yes { 1.0 } else { 0.0 };
        match self {
            Choice::Max if a.is_nan() => a,
            Choice::Min if a.is_nan() => a,
            Choice::Max => {
                if a > b {
                    a
                } else {
                    b
                }
            }
            Choice::Min => {
                if a < b {
                    a
                } else {
                    b
                }
            }
            Choice::Power => a.powf(b),
            Choice::Less => one(a < b),
            Choice::LessOrEqual => one(a <= b),
            Choice::Equal => one(a == b),
        }
    }
    /// The slopes with respect to both; of two that are alike each takes half, as PyTorch's do.
    fn slopes(self, a: f32, b: f32) -> [f32; 2] {
        let share = |first: bool, alike: bool| match (alike, first) {
            (true, _) => [0.5, 0.5],
            (_, true) => [1.0, 0.0],
            _ => [0.0, 1.0],
        };
        match self {
            Choice::Max => share(a > b, a == b),
            Choice::Min => share(a < b, a == b),
            Choice::Power => {
                [if b == 0.0 { 0.0 } else { b * a.powf(b - 1.0) }, if a > 0.0 { a.powf(b) * a.ln() } else { 0.0 }]
            }
            _ => [0.0, 0.0],
        }
    }
}

/// Where each of several arrays is read for each value of the shape to which they broadcast.
fn walk<const K: usize>(dims: &[usize], of: [&[usize]; K], mut f: impl FnMut(usize, [usize; K])) {
    let lines = Lines::new(dims, of.map(|d| broadcast_strides(d, dims)));
    let mut at = 0;
    let (n, steps) = (lines.len(), lines.along());
    lines.each(1, [0; K], |start| {
        for i in 0..n {
            f(at, std::array::from_fn(|k| start[k] + i * steps[k] as usize));
            at += 1;
        }
    });
}

impl Frozen for Choose {
    fn name(&self) -> &'static str {
        match self.op {
            Choice::Max => "maximum",
            Choice::Min => "minimum",
            Choice::Power => "power",
            Choice::Less => "less",
            Choice::LessOrEqual => "less or equal",
            Choice::Equal => "equal",
        }
    }
    fn detail(&self) -> String {
        told(&self.sides)
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        let views: Vec<View> = inputs.iter().map(|dims| View { data: &[], dims }).collect();
        let [a, b] = sides(&self.sides, &views);
        broadcast(a.dims, b.dims).ok_or_else(|| format!("shapes do not broadcast: {:?} and {:?}", a.dims, b.dims))
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let [a, b] = sides(&self.sides, inputs);
        let dims = broadcast(a.dims, b.dims).unwrap_or_default();
        walk(&dims, [a.dims, b.dims], |o, [i, j]| out[o] = self.op.value(a.data[i], b.data[j]));
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let [a, b] = sides(&self.sides, inputs);
        let dims = broadcast(a.dims, b.dims).unwrap_or_default();
        let (mut da, mut db) = (pool::zeros(a.data.len()), pool::zeros(b.data.len()));
        walk(&dims, [a.dims, b.dims], |o, [i, j]| {
            let [sa, sb] = self.op.slopes(a.data[i], b.data[j]);
            da[i] += cot[o] * sa;
            db[j] += cot[o] * sb;
        });
        let given = |(side, g): (&Side, Vec<f32>)| matches!(side, Side::Input).then_some(g);
        self.sides.iter().zip([da, db]).filter_map(given).collect()
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let [a, b] = tensor_sides(&self.sides, inputs)?;
        let own = |t: crate::Result<Tensor>| t.map_err(|e| candle_core::Error::Msg(e.to_string()));
        let mask = |op| own(arith::compare(op, &a.detach(), &b.detach()))?.to_dtype(inputs[0].dtype());
        match self.op {
            Choice::Max => own(arith::binary(arith::Op::Maximum, &a, &b)),
            Choice::Min => own(arith::binary(arith::Op::Minimum, &a, &b)),
            Choice::Power => own(elementwise::exp(&own(elementwise::log(&a))?.broadcast_mul(&b)?)),
            Choice::Less => mask(arith::CmpOp::Lt),
            Choice::LessOrEqual => mask(arith::CmpOp::Le),
            Choice::Equal => mask(arith::CmpOp::Eq),
        }
    }
}

/// The second where the first is not 0, else the third, broadcast together; any of them may be constant.
pub struct Where(pub [Side; 3]);

impl Where {
    fn views<'a>(&'a self, inputs: &[View<'a>]) -> [View<'a>; 3] {
        let mut given = inputs.iter().copied();
        let mut one = |s: &'a Side| match s {
            Side::Input => given.next().unwrap_or(View { data: &[], dims: &[] }),
            Side::Fixed(f) => f.view(),
        };
        let [c, a, b] = &self.0;
        [one(c), one(a), one(b)]
    }
}

fn meet([c, a, b]: [&[usize]; 3]) -> Option<Vec<usize>> {
    broadcast(&broadcast(c, a)?, b)
}

impl Frozen for Where {
    fn name(&self) -> &'static str {
        "one of two"
    }
    fn detail(&self) -> String {
        let one = |s: &Side| match s {
            Side::Input => "…".to_string(),
            Side::Fixed(f) => format!("constant {:?}", f.view().dims),
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(", ")
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        let views: Vec<View> = inputs.iter().map(|dims| View { data: &[], dims }).collect();
        let dims = self.views(&views).map(|v| v.dims);
        meet(dims).ok_or_else(|| format!("shapes do not broadcast: {dims:?}"))
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let [c, a, b] = self.views(inputs);
        let of = [c.dims, a.dims, b.dims];
        walk(&meet(of).unwrap_or_default(), of, |o, [k, i, j]| {
            out[o] = if c.data[k] != 0.0 { a.data[i] } else { b.data[j] };
        });
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let views = self.views(inputs);
        let of = views.map(|v| v.dims);
        let [dc, mut da, mut db] = views.map(|v| pool::zeros(v.data.len()));
        walk(&meet(of).unwrap_or_default(), of, |o, [k, i, j]| match views[0].data[k] != 0.0 {
            true => da[i] += cot[o],
            false => db[j] += cot[o],
        });
        let given = |(side, g): (&Side, Vec<f32>)| matches!(side, Side::Input).then_some(g);
        self.0.iter().zip([dc, da, db]).filter_map(given).collect()
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let mut given = inputs.iter();
        let mut one = |s: &Side| match s {
            Side::Input => Ok((*given.next().unwrap_or(&inputs[0])).clone()),
            Side::Fixed(f) => f.like(inputs[0]),
        };
        let [c, a, b] = &self.0;
        let (c, a, b) = (one(c)?, one(a)?, one(b)?);
        let dims = meet([c.dims(), a.dims(), b.dims()]).unwrap_or_default();
        let [c, a, b] = [c.broadcast_as(&dims[..])?, a.broadcast_as(&dims[..])?, b.broadcast_as(&dims[..])?];
        c.detach().ne(0.0)?.contiguous()?.where_cond(&a.contiguous()?, &b.contiguous()?)
    }
}
