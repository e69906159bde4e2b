//! The values of a model, as they become known: how operations are applied to them, now or in the graph, and in which order their dimensions
//! lie.
use super::data::{self, Array, Elem, Values};
use super::lower::{Held, Id, Lower, V, Val};
use super::num::{Num, Size, count, told};
use super::{ops, proto};
use crate::nets::graph::Node;
use crate::nets::kernels::{Fixed, Op, Product, Reshaped, Side, Strided, View};
use crate::tensor::dtype::elements;
use crate::tensor::memory;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

/// Values that a constant may have which the arithmetic of shapes makes: a wrong size must not fill the memory.
const MOST: usize = 1 << 27;

/// Whole numbers that are followed one by one; more are weights.
const MOST_NUMBERS: usize = 1 << 22;

/// Which sizes an operation gives: those for batches of two and three tell what grows.
fn infer(op: &dyn Op, inputs: &[&[Size]]) -> Result<Vec<Vec<Size>>> {
    let of = |n: usize| {
        let dims: Vec<Vec<usize>> = inputs.iter().map(|s| s.iter().map(|s| s.of(n)).collect()).collect();
        op.dims(&dims.iter().map(|d| &d[..]).collect::<Vec<_>>()).map_err(|e| Error::new(Kind::Format, e))
    };
    let (two, three) = (of(2)?, of(3)?);
    let one = |(a, b): (&usize, &usize)| match (a, b) {
        (a, b) if a == b => Ok(Size::Fixed(*a)),
        (a, b) if a % 2 == 0 && a / 2 * 3 == *b => Ok(Size::Per(a / 2)),
        _ => Err(Error::value("a size neither stays nor grows with the batch")),
    };
    two.iter().zip(&three).map(|(a, b)| a.iter().zip(b).map(one).collect()).collect()
}

impl Lower<'_> {
    /// A value.
    pub fn value(&mut self, v: Val) -> V {
        self.vals.push(v);
        self.vals.len() - 1
    }
    /// What is known of one.
    pub fn val(&self, v: V) -> &Val {
        &self.vals[v]
    }
    /// Its sizes.
    pub fn sizes(&self, v: V) -> &[Size] {
        &self.vals[v].sizes
    }
    /// How many dimensions it has.
    pub fn rank(&self, v: V) -> usize {
        self.vals[v].sizes.len()
    }
    /// Notes how a value came about.
    pub fn note(&mut self, v: V, note: ops::Note) {
        self.vals[v].note = Some(note);
    }

    /// Reads an array of the file.
    pub fn read(&mut self, t: &proto::Tensor) -> Result<Array> {
        data::read(t, self.beside)
    }
    /// A constant from a file.
    pub fn array(&mut self, a: Array) -> Result<V> {
        let sizes: Vec<Size> = a.dims.iter().map(|d| Size::Fixed(*d)).collect();
        Ok(match a.values {
            Values::Floats(t) => self.value(Val { elem: a.elem, sizes, held: Held::Const(t), note: None }),
            Values::Ints(all) if all.len() <= MOST_NUMBERS => {
                self.nums(a.elem, sizes, all.into_iter().map(Num::from).collect())
            }
            Values::Ints(all) => {
                if all.iter().any(|v| v.unsigned_abs() > 1 << 24) {
                    return Err(Error::value("its whole numbers are too large for a table of so many"));
                }
                let t = Tensor::from_vec(all.into_iter().map(|v| v as f32).collect::<Vec<_>>(), a.dims, &Device::Cpu)?;
                self.value(Val { elem: a.elem, sizes, held: Held::Const(t), note: None })
            }
        })
    }
    /// Whole numbers.
    pub fn nums(&mut self, elem: Elem, sizes: Vec<Size>, all: Vec<Num>) -> V {
        self.value(Val { elem, sizes, held: Held::Nums(all.into()), note: None })
    }
    /// A constant.
    pub fn constant(&mut self, elem: Elem, sizes: Vec<Size>, t: Tensor) -> V {
        self.value(Val { elem, sizes, held: Held::Const(t), note: None })
    }
    /// A constant without sizes that grow.
    pub fn fixed(&mut self, t: Tensor) -> V {
        let sizes = t.dims().iter().map(|d| Size::Fixed(*d)).collect();
        self.constant(Elem::Float, sizes, t)
    }

    /// The whole numbers of a value, where they are known.
    pub fn known(&self, v: V) -> Option<&[Num]> {
        match &self.vals[v].held {
            Held::Nums(all) => Some(all),
            _ => None,
        }
    }
    /// The same, all of them of one batch as of another; an error otherwise.
    pub fn whole(&self, v: V, what: &str) -> Result<Vec<i64>> {
        match (&self.vals[v].held, self.vals[v].elem) {
            (Held::Nums(all), _) => all.iter().map(|n| n.plain().map_err(|e| e.context(what))).collect(),
            (Held::Const(t), Elem::Int | Elem::Bool) => Ok(floats(t)?.into_iter().map(|v| v as i64).collect()),
            _ => Err(Error::value(format!("{what} must be constant, but it is computed from the input"))
                .hint("export the network for fixed sizes")),
        }
    }
    /// The values of a constant as fractional numbers, or none where it is computed from an input.
    pub fn floats(&self, v: V) -> Result<Option<Vec<f32>>> {
        Ok(match &self.vals[v].held {
            Held::Nums(all) => Some(all.iter().map(|n| Ok(n.plain()? as f32)).collect::<Result<_>>()?),
            Held::Const(t) => Some(floats(t)?),
            Held::Graph { .. } => None,
        })
    }
    /// Whether it is computed from an input.
    pub fn in_graph(&self, v: V) -> bool {
        matches!(self.vals[v].held, Held::Graph { .. })
    }
    /// A constant as a tensor of as many values as one sample has, in the type and on the device of the network; as it is stored if
    /// `stored` and of 16 bits. None where it is computed from an input.
    pub fn tensor(&self, v: V, stored: bool) -> Result<Option<Tensor>> {
        let t = match &self.vals[v].held {
            Held::Const(t) => t.clone(),
            Held::Nums(all) => {
                let all = all.iter().map(|n| Ok(n.plain()? as f32)).collect::<Result<Vec<f32>>>()?;
                Tensor::from_vec(all, self.at_one(v), &Device::Cpu)?
            }
            Held::Graph { .. } => return Ok(None),
        };
        let half =
            stored && matches!(t.dtype(), DType::F16 | DType::BF16) && self.dtype == DType::F32 && self.device.is_cpu();
        Ok(Some(if half { t } else { t.to_dtype(self.dtype)?.to_device(&self.device)? }))
    }
    /// A constant that an operation needs, or an error that says which.
    pub fn weight(&self, v: V, what: &str) -> Result<Tensor> {
        self.tensor(v, true)?.ok_or_else(|| {
            Error::value(format!("its {what} is computed from the input; only constant ones can be run"))
        })
    }
    /// The sizes of one sample, its batch included.
    pub fn at_one(&self, v: V) -> Vec<usize> {
        self.sizes(v).iter().map(|s| s.of(1)).collect()
    }
    /// The type of the network's numbers.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// Where the network's numbers are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether its batch stands in front of at least two more dimensions, so that it can lie with channels last.
    pub fn is_image(&self, v: V) -> bool {
        matches!(self.sizes(v), [Size::Per(1) | Size::Fixed(1), _, rest @ ..] if !rest.is_empty() && rest.iter().all(|s| s.fixed().is_some()))
            && self.sizes(v)[1].fixed().is_some()
    }
    /// Whether it lies with channels last, and not as the model has it.
    pub fn only_last(&self, v: V) -> bool {
        matches!(self.vals[v].held, Held::Graph { plain: None, last: Some(_) })
    }

    /// A value of the graph as the model has it.
    pub fn plain(&mut self, v: V) -> Result<Id> {
        let id = match self.vals[v].held {
            Held::Graph { plain: Some(id), .. } => return Ok(id),
            Held::Graph { last: Some(id), .. } => {
                self.add(Arc::new(Strided::Permute(from_last(self.rank(v)))), &[id])?[0]
            }
            _ => return Err(Error::value("it takes a constant where only what is computed from an input can be")),
        };
        if let Held::Graph { plain, .. } = &mut self.vals[v].held {
            *plain = Some(id);
        }
        Ok(id)
    }
    /// A value of the graph with channels last.
    pub fn last(&mut self, v: V) -> Result<Id> {
        if let Held::Graph { last: Some(id), .. } = self.vals[v].held {
            return Ok(id);
        }
        let id = self.plain(v)?;
        let id = self.add(Arc::new(Strided::Permute(to_last(self.rank(v)))), &[id])?[0];
        if let Held::Graph { last, .. } = &mut self.vals[v].held {
            *last = Some(id);
        }
        Ok(id)
    }

    /// Adds an operation to the graph.
    pub(super) fn add(&mut self, op: Arc<dyn Op>, inputs: &[Id]) -> Result<Vec<Id>> {
        let given: Vec<&[Size]> = inputs.iter().map(|i| &self.sizes[*i][..]).collect();
        let sizes = infer(&*op, &given)?;
        let one = |s: &Vec<Size>| s.iter().map(|s| s.of(1)).collect::<Vec<usize>>();
        let dims: Vec<Vec<usize>> = sizes.iter().map(one).collect();
        for d in &dims {
            let n = elements(d).filter(|n| *n < 1 << 31);
            if n.is_none() {
                return Err(Error::new(
                    Kind::Memory,
                    format!("node `{}`: a value of shape {d:?} is too large", self.at),
                ));
            }
        }
        // as they print: without the batch where that stands in front
        let dims = dims.into_iter().map(|d| if d.first() == Some(&1) { d[1..].to_vec() } else { d }).collect();
        let first = self.sizes.len();
        self.sizes.extend(sizes);
        let (name, inputs) = (self.at.clone(), inputs.to_vec());
        self.nodes.push(Arc::new(Node { name, op, inputs, first, dims, weights: vec![] }));
        Ok((first..self.sizes.len()).collect())
    }

    /// The values of an operation on values, all of them of the graph or all constant; with channels last if `last`.
    fn made(&mut self, op: Arc<dyn Op>, inputs: &[V], elem: Elem, last: bool) -> Result<Vec<V>> {
        if inputs.iter().all(|v| !self.in_graph(*v)) {
            return self.computed(&op, inputs, elem);
        }
        let ids =
            inputs.iter().map(|v| if last { self.last(*v) } else { self.plain(*v) }).collect::<Result<Vec<Id>>>()?;
        let made = self.add(op, &ids)?;
        Ok(made.into_iter().map(|id| self.placed(id, elem, last)).collect())
    }

    /// A value of the graph as one of the model.
    pub fn placed(&mut self, id: Id, elem: Elem, last: bool) -> V {
        let mut sizes = self.sizes[id].clone();
        let held = match last {
            true => {
                sizes[1..].rotate_right(1);
                Held::Graph { plain: None, last: Some(id) }
            }
            false => Held::Graph { plain: Some(id), last: None },
        };
        self.value(Val { elem, sizes, held, note: None })
    }

    /// The same for constants: now.
    fn computed(&mut self, op: &Arc<dyn Op>, inputs: &[V], elem: Elem) -> Result<Vec<V>> {
        let given: Vec<Vec<Size>> = inputs.iter().map(|v| self.sizes(*v).to_vec()).collect();
        let sizes = infer(&**op, &given.iter().map(|s| &s[..]).collect::<Vec<_>>())?;
        let dims: Vec<Vec<usize>> = sizes.iter().map(|s| s.iter().map(|s| s.of(1)).collect()).collect();
        let mut outs = vec![];
        for d in &dims {
            outs.push(vec![0f32; self.room(d)?]);
        }
        let mut data = vec![];
        for v in inputs {
            data.push((self.floats(*v)?.unwrap_or_default(), self.at_one(*v)));
        }
        let views: Vec<View> = data.iter().map(|(data, dims)| View { data, dims }).collect();
        op.run(&views, &mut outs, false);
        let made = outs.into_iter().zip(dims).zip(sizes);
        made.map(|((out, dims), sizes)| Ok(self.constant(elem, sizes, Tensor::from_vec(out, dims, &Device::Cpu)?)))
            .collect()
    }

    /// How many values a constant of these sizes has, if there is room for them.
    pub fn room(&mut self, dims: &[usize]) -> Result<usize> {
        let n = elements(dims).filter(|n| *n <= MOST);
        let n = n.ok_or_else(|| {
            Error::new(Kind::Memory, format!("node `{}`: a constant of shape {dims:?} is too large", self.at))
        })?;
        self.counted = self.counted.saturating_add(n);
        if self.counted > 8 * MOST {
            return Err(Error::new(
                Kind::Memory,
                format!("node `{}`: the constants that the graph makes are too large", self.at),
            ));
        }
        memory::room("a constant of the graph", n * 4)?;
        Ok(n)
    }

    /// An operation on one value, as the model has it.
    pub fn apply(&mut self, op: impl Op + 'static, v: V) -> Result<V> {
        self.apply_all(op, &[v])
    }
    /// An operation on several.
    pub fn apply_all(&mut self, op: impl Op + 'static, inputs: &[V]) -> Result<V> {
        let elem = self.vals[inputs[0]].elem;
        Ok(self.made(Arc::new(op), inputs, elem, false)?[0])
    }
    /// An operation on images with channels last.
    pub fn image(&mut self, op: impl Op + 'static, v: V) -> Result<V> {
        if !self.in_graph(v) {
            return Err(Error::value("its image is constant; it must come from an input"));
        }
        Ok(self.made(Arc::new(op), &[v], Elem::Float, true)?[0])
    }
    /// An operation on each value by itself, wherever they lie.
    pub fn each(&mut self, op: impl Op + 'static, v: V) -> Result<V> {
        let (elem, last) = (self.vals[v].elem, self.only_last(v));
        Ok(self.made(Arc::new(op), &[v], elem, last)?[0])
    }
    /// An operation along one dimension, wherever the value lies.
    pub fn along<O: Op + 'static>(&mut self, v: V, dim: usize, op: impl FnOnce(usize) -> O) -> Result<V> {
        let (elem, last) = (self.vals[v].elem, self.only_last(v));
        let dim = if last { self.dim_in_last(v, dim) } else { dim };
        Ok(self.made(Arc::new(op(dim)), &[v], elem, last)?[0])
    }
    /// Where a dimension is with channels last.
    pub fn dim_in_last(&self, v: V, dim: usize) -> usize {
        match dim {
            0 => 0,
            1 => self.rank(v) - 1,
            d => d - 1,
        }
    }

    /// An operation whose inputs may be constants, broadcast together; `make` gets the sides.
    pub fn sides<O: Op + 'static, const K: usize>(
        &mut self,
        given: [V; K],
        elem: Elem,
        make: impl FnOnce([Side; K]) -> O,
    ) -> Result<V> {
        if given.iter().all(|v| !self.in_graph(*v)) {
            return Ok(self.computed(&(Arc::new(make(given.map(|_| Side::Input))) as Arc<dyn Op>), &given, elem)?[0]);
        }
        let rank = given.iter().map(|v| self.rank(*v)).max().unwrap_or(0);
        let images = given.iter().filter(|v| self.in_graph(**v)).all(|v| self.rank(*v) == rank && self.is_image(*v));
        let last = images && given.iter().any(|v| self.only_last(*v));
        self.sided(given, elem, last, make)
    }

    /// The product of matrices, of which one may be constant: as the model has them, for here it matters which dimensions are last.
    pub fn product(&mut self, a: V, b: V) -> Result<V> {
        if !self.in_graph(a) && !self.in_graph(b) {
            let op: Arc<dyn Op> = Arc::new(Product([Side::Input, Side::Input]));
            return Ok(self.computed(&op, &[a, b], Elem::Float)?[0]);
        }
        self.sided([a, b], Elem::Float, false, Product)
    }

    /// The same as [`Self::sides`] where at least one of them is of the graph, with channels last if `last`.
    fn sided<O: Op + 'static, const K: usize>(
        &mut self,
        given: [V; K],
        elem: Elem,
        last: bool,
        make: impl FnOnce([Side; K]) -> O,
    ) -> Result<V> {
        let rank = given.iter().map(|v| self.rank(*v)).max().unwrap_or(0);
        let (mut sides, mut ids) = (vec![], vec![]);
        for v in given {
            match self.tensor(v, false)? {
                None => {
                    ids.push(if last { self.last(v)? } else { self.plain(v)? });
                    sides.push(Side::Input);
                }
                Some(t) if t.elem_count() == 1 && self.sizes(v).iter().all(|s| s.fixed().is_some()) => {
                    sides.push(Side::Fixed(Fixed::new(&t.reshape(())?)?));
                }
                Some(t) if last => {
                    let whole = [&vec![1; rank - t.rank()], t.dims()].concat();
                    sides.push(Side::Fixed(Fixed::new(&t.reshape(whole)?.permute(to_last(rank))?.contiguous()?)?));
                }
                Some(t) => sides.push(Side::Fixed(Fixed::new(&t)?)),
            }
        }
        let Ok(sides) = <[Side; K]>::try_from(sides) else { return Err(Error::new(Kind::Internal, "sides were lost")) };
        let id = self.add(Arc::new(make(sides)), &ids)?[0];
        // a constant may have given dimensions that the values have not
        let last = last && self.sizes[id].len() == rank;
        Ok(self.placed(id, elem, last))
    }

    /// An operation on several images with channels last.
    pub fn images(&mut self, op: impl Op + 'static, inputs: &[V]) -> Result<V> {
        Ok(self.made(Arc::new(op), inputs, Elem::Float, true)?[0])
    }

    /// The same values under other sizes.
    pub fn reshaped(&mut self, v: V, sizes: Vec<Size>) -> Result<V> {
        if sizes == self.sizes(v) {
            return Ok(v);
        }
        if count(&sizes)? != count(self.sizes(v))? {
            let m = format!("{} does not reshape to {}", told(self.sizes(v)), told(&sizes));
            let e = Error::new(Kind::Format, m);
            return Err(if self.alone { e } else { e.hint("was the network exported with a fixed batch in it?") });
        }
        let elem = self.vals[v].elem;
        let dims: Vec<usize> = sizes.iter().map(|s| s.of(1)).collect();
        let held = match self.vals[v].held.clone() {
            Held::Nums(all) => Held::Nums(all),
            Held::Const(t) => Held::Const(t.contiguous()?.reshape(dims)?),
            Held::Graph { plain, last } => {
                let by = |s: &[Size]| Reshaped(s.iter().map(|s| s.fixed()).collect());
                // pixels in a row or in rows: the same with channels last
                let alike = |a: &[Size], b: &[Size]| a.len() > 2 && b.len() > 2 && a[..2] == b[..2];
                if let (None, Some(id)) = (plain, last)
                    && alike(self.sizes(v), &sizes)
                {
                    let mut inside = sizes.clone();
                    inside[1..].rotate_left(1);
                    let id = self.add(Arc::new(by(&inside)), &[id])?[0];
                    Held::Graph { plain: None, last: Some(id) }
                } else {
                    let id = self.plain(v)?;
                    let id = self.add(Arc::new(by(&sizes)), &[id])?[0];
                    Held::Graph { plain: Some(id), last: None }
                }
            }
        };
        Ok(self.value(Val { elem, sizes, held, note: None }))
    }

    /// Dimensions in another order.
    pub fn permuted(&mut self, v: V, order: &[usize]) -> Result<V> {
        let rank = self.rank(v);
        if order.iter().copied().eq(0..rank) {
            return Ok(v);
        }
        let sizes: Vec<Size> = order.iter().map(|d| self.sizes(v)[*d]).collect();
        let elem = self.vals[v].elem;
        let held = match self.vals[v].held.clone() {
            Held::Nums(all) => {
                let at =
                    Tensor::arange(0u32, all.len() as u32, &Device::Cpu)?.reshape(self.at_one(v))?.permute(order)?;
                let at: Vec<u32> = at.contiguous()?.flatten_all()?.to_vec1()?;
                Held::Nums(at.iter().map(|i| all[*i as usize]).collect())
            }
            Held::Const(t) => Held::Const(t.permute(order)?.contiguous()?),
            // channels last in the model's own order, or the model's order as channels last
            Held::Graph { last: Some(id), .. } if rank > 2 && order == to_last(rank) => {
                Held::Graph { plain: Some(id), last: None }
            }
            Held::Graph { plain: Some(id), .. } if rank > 2 && order == from_last(rank) => {
                Held::Graph { plain: None, last: Some(id) }
            }
            Held::Graph { plain: None, last: Some(id) } => {
                let from = to_last(rank);
                let order = order.iter().map(|d| from.iter().position(|f| f == d).unwrap_or(*d)).collect();
                let id = self.add(Arc::new(Strided::Permute(order)), &[id])?[0];
                Held::Graph { plain: Some(id), last: None }
            }
            Held::Graph { .. } => {
                let id = self.plain(v)?;
                let id = self.add(Arc::new(Strided::Permute(order.to_vec())), &[id])?[0];
                Held::Graph { plain: Some(id), last: None }
            }
        };
        Ok(self.value(Val { elem, sizes, held, note: None }))
    }
}

/// The order of dimensions that puts the second last, and the one that puts it back.
pub fn to_last(rank: usize) -> Vec<usize> {
    [0].into_iter().chain(2..rank).chain([1]).collect()
}
/// See [`to_last`].
pub fn from_last(rank: usize) -> Vec<usize> {
    [0, rank - 1].into_iter().chain(1..rank - 1).collect()
}

fn floats(t: &Tensor) -> Result<Vec<f32>> {
    Ok(t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}
