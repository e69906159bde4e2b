//! Values under other shapes, and constants that are made from shapes.
use super::super::data::{self, Elem};
use super::super::lower::{Lower, Step, V};
use super::super::num::{Num, Size, count};
use super::{Note, axes, axes_of, axis};
use crate::nets::kernels::{Fixed, Join, Side, Strided};
use crate::{Error, Kind, Result};
use candle_core::{Device, Tensor};

/// The value itself.
pub fn identity(_: &mut Lower, step: &Step) -> Result<V> {
    step.input(0)
}

/// Dropout, which does nothing to a network that was trained.
pub fn dropout(low: &mut Lower, step: &Step) -> Result<V> {
    if let Some(v) = step.maybe(2)
        && low.whole(v, "whether it trains")?.iter().any(|t| *t != 0)
    {
        return Err(Error::value("a dropout in training mode draws random numbers")
            .hint("export the network in evaluation mode: `model.eval()`"));
    }
    step.input(0)
}

/// A constant of the file.
pub fn constant(low: &mut Lower, step: &Step) -> Result<V> {
    if let Some(t) = step.attribute("value").and_then(|a| a.t.as_ref()) {
        let array = low.read(t)?;
        return low.array(array);
    }
    let a = |name: &str| step.attribute(name);
    if let Some(a) = a("value_int") {
        return Ok(low.nums(Elem::Int, vec![], vec![a.i.into()]));
    }
    if let Some(a) = a("value_ints") {
        return Ok(low.nums(
            Elem::Int,
            vec![Size::Fixed(a.ints.len())],
            a.ints.iter().map(|i| Num::from(*i)).collect(),
        ));
    }
    if let Some(a) = a("value_float") {
        return Ok(low.fixed(Tensor::full(a.f, (), &Device::Cpu)?));
    }
    if let Some(a) = a("value_floats") {
        return Ok(low.fixed(Tensor::new(&a.floats[..], &Device::Cpu)?));
    }
    Err(Error::new(Kind::Format, "it has no value that is a number"))
}

/// A shape as numbers.
fn numbers(low: &Lower, v: V, what: &str) -> Result<Vec<Num>> {
    match low.known(v) {
        Some(all) => Ok(all.to_vec()),
        None => Ok(low.whole(v, what)?.into_iter().map(Num::from).collect()),
    }
}

/// The sizes of a value.
pub fn shape(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let rank = low.rank(x) as i64;
    let end = |a: i64| (if a < 0 { a + rank } else { a }).clamp(0, rank) as usize;
    let (from, to) = (end(step.int("start", 0)), end(step.int("end", rank)));
    let all: Vec<Num> = low.sizes(x)[from..to.max(from)].iter().map(|&s| s.into()).collect();
    Ok(low.nums(Elem::Int, vec![Size::Fixed(all.len())], all))
}

/// How many values there are.
pub fn size(low: &mut Lower, step: &Step) -> Result<V> {
    let (n, grows) = count(low.sizes(step.input(0)?))?;
    let size = if grows { Size::Per(n) } else { Size::Fixed(n) };
    Ok(low.nums(Elem::Int, vec![], vec![size.into()]))
}

/// Another shape.
pub fn reshape(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let to = numbers(low, step.input(1)?, "the new shape")?;
    let zero_stays = step.int("allowzero", 0) == 0;
    let mut sizes: Vec<Option<Size>> = vec![];
    for (i, n) in to.iter().enumerate() {
        sizes.push(match *n {
            n if n == (-1).into() => None,
            n if n == 0.into() && zero_stays => match low.sizes(x).get(i) {
                Some(s) => Some(*s),
                None => return Err(Error::new(Kind::Format, format!("there is no dimension {i} to keep"))),
            },
            n => Some(n.size()?),
        });
    }
    let known: Vec<Size> = sizes.iter().flatten().copied().collect();
    if known.len() + 1 < sizes.len() {
        return Err(Error::new(Kind::Format, "two sizes of the new shape are left open"));
    }
    let ((all, grows), (have, growing)) = (count(low.sizes(x))?, count(&known)?);
    let left = match all.checked_div(have) {
        Some(n) if grows == growing => Size::Fixed(n),
        Some(n) => Size::Per(n),
        None => Size::Fixed(0),
    };
    let sizes: Vec<Size> = sizes.into_iter().map(|s| s.unwrap_or(left)).collect();
    let grouped = match (low.sizes(x), &sizes[..]) {
        (&[b, c, _, ..], &[g, Size::Fixed(n), _]) if b == g && low.is_image(x) => {
            c.fixed().filter(|c| n > 0 && c % n == 0).map(|_| n)
        }
        _ => None,
    };
    // what has been normalized in groups, back in its own shape
    if let Some(Note::Normed(source, groups, eps)) = low.val(x).note
        && low.sizes(source) == &sizes[..]
    {
        return super::norms::of_groups(low, source, groups, eps);
    }
    let y = low.reshaped(x, sizes)?;
    if let Some(n) = grouped {
        low.note(y, Note::Grouped(x, n));
    }
    Ok(y)
}

/// All dimensions before an axis as one, and all from it on as another.
pub fn flatten(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let (rank, a) = (low.rank(x), step.int("axis", 1));
    let a = if a == rank as i64 { rank } else { axis(a, rank)? };
    let one = |s: &[Size]| -> Result<Size> {
        let (n, grows) = count(s)?;
        Ok(if grows { Size::Per(n) } else { Size::Fixed(n) })
    };
    let sizes = vec![one(&low.sizes(x)[..a])?, one(&low.sizes(x)[a..])?];
    low.reshaped(x, sizes)
}

/// Without dimensions of size 1.
pub fn squeeze(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let dims = match axes_of(low, step, 1, low.rank(x))? {
        Some(dims) => dims,
        None => (0..low.rank(x)).filter(|d| low.sizes(x)[*d] == Size::Fixed(1)).collect(),
    };
    if let Some(d) = dims.iter().find(|d| low.sizes(x)[**d] != Size::Fixed(1)) {
        let m = format!("dimension {d} of {} is not 1", super::super::num::told(low.sizes(x)));
        return Err(Error::new(Kind::Format, m));
    }
    let left = low.sizes(x).iter().enumerate().filter(|(d, _)| !dims.contains(d)).map(|(_, s)| *s).collect();
    low.reshaped(x, left)
}

/// With more dimensions of size 1.
pub fn unsqueeze(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let list = match (step.ints("axes"), step.maybe(1)) {
        (Some(all), _) => all.to_vec(),
        (_, Some(v)) => low.whole(v, "its axes")?,
        _ => return Err(Error::new(Kind::Format, "it does not say where")),
    };
    let rank = low.rank(x) + list.len();
    let dims = axes(&list, rank)?;
    let mut have = low.sizes(x).iter();
    let sizes =
        (0..rank).filter_map(|d| if dims.contains(&d) { Some(Size::Fixed(1)) } else { have.next().copied() }).collect();
    low.reshaped(x, sizes)
}

/// Dimensions in another order.
pub fn transpose(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let rank = low.rank(x);
    let order = match step.ints("perm") {
        Some(p) => axes(p, rank)?,
        None => (0..rank).rev().collect(),
    };
    if order.len() != rank {
        return Err(Error::new(Kind::Format, format!("{order:?} is no order of {rank} dimensions")));
    }
    low.permuted(x, &order)
}

/// Values side by side.
pub fn concat(low: &mut Lower, step: &Step) -> Result<V> {
    let all = (0..step.inputs.len()).map(|i| step.input(i)).collect::<Result<Vec<_>>>()?;
    let first = *all.first().ok_or_else(|| Error::new(Kind::Format, "it joins nothing"))?;
    let (rank, elem) = (low.rank(first), low.val(first).elem);
    let dim = axis(step.int("axis", 0), rank)?;
    if all.len() == 1 {
        return Ok(first);
    }
    if dim == 0 && rank == 1 && all.iter().all(|v| low.known(*v).is_some() && low.rank(*v) == 1) {
        let made: Vec<Num> = all.iter().flat_map(|v| low.known(*v).unwrap_or_default().to_vec()).collect();
        return Ok(low.nums(elem, vec![Size::Fixed(made.len())], made));
    }
    if all.iter().any(|v| low.rank(*v) != rank) {
        return Err(Error::new(Kind::Format, "what it joins has different numbers of dimensions"));
    }
    if all.iter().any(|v| low.sizes(*v)[dim].fixed().is_none()) {
        return Err(Error::value("it joins values along the batch, which runs samples together")
            .hint("do what it is for (guidance?) outside the network: `guided(net, scale)`"));
    }
    if all.iter().all(|v| !low.in_graph(*v)) {
        let whole = all.iter().all(|v| low.known(*v).is_some());
        let mut parts = vec![];
        for v in &all {
            parts.extend(low.tensor(*v, false)?.map(|t| t.to_dtype(low.dtype())).transpose()?);
        }
        let t = Tensor::cat(&parts, dim)?;
        let mut sizes = low.sizes(first).to_vec();
        sizes[dim] = Size::Fixed(t.dim(dim)?);
        if whole && let Ok(all) = t.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1::<f64>() {
            return Ok(low.nums(elem, sizes, all.into_iter().map(|v| Num::from(v as i64)).collect()));
        }
        return Ok(low.constant(elem, sizes, t));
    }
    let images = all.iter().all(|v| low.in_graph(*v) && low.is_image(*v));
    if images && all.iter().any(|v| low.only_last(*v)) {
        let at = low.dim_in_last(first, dim);
        return low.images(Join { dim: at, parts: vec![Side::Input; all.len()] }, &all);
    }
    let (mut parts, mut inputs) = (vec![], vec![]);
    for v in &all {
        parts.push(match low.tensor(*v, false)? {
            Some(t) => Side::Fixed(Fixed::new(&t)?),
            None => {
                inputs.push(*v);
                Side::Input
            }
        });
    }
    low.apply_all(Join { dim, parts }, &inputs)
}

/// The sizes to which two shapes broadcast.
fn meet(a: &[Size], b: &[Size]) -> Result<Vec<Size>> {
    let rank = a.len().max(b.len());
    let of = |s: &[Size], i: usize| if i + s.len() < rank { Size::Fixed(1) } else { s[i + s.len() - rank] };
    let one = |i: usize| match (of(a, i), of(b, i)) {
        (x, y) if x == y || y == Size::Fixed(1) => Ok(x),
        (Size::Fixed(1), y) => Ok(y),
        (x, y) => Err(Error::new(Kind::Format, format!("{} and {} do not broadcast", Num::from(x), Num::from(y)))),
    };
    (0..rank).map(one).collect()
}

/// Repeated to a shape.
pub fn expand(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let to = numbers(low, step.input(1)?, "the new shape")?;
    let to =
        to.iter().map(|n| if *n == (-1).into() { Ok(Size::Fixed(1)) } else { n.size() }).collect::<Result<Vec<_>>>()?;
    let sizes = meet(low.sizes(x), &to)?;
    repeated(low, x, sizes)
}

/// Repeated to sizes to which it broadcasts.
pub fn repeated(low: &mut Lower, x: V, sizes: Vec<Size>) -> Result<V> {
    if sizes == low.sizes(x) {
        return Ok(x);
    }
    let (have, elem) = (low.sizes(x).to_vec(), low.val(x).elem);
    let new = sizes.len() - have.len();
    if !low.in_graph(x) {
        // along what grows with the batch it stays once
        let dims: Vec<usize> = sizes.iter().map(|s| s.of(1)).collect();
        if sizes.iter().any(|s| matches!(s, Size::Per(k) if *k > 1)) {
            return Err(Error::value("a constant would differ from sample to sample"));
        }
        low.room(&dims)?;
        if let (Some(all), true) = (low.known(x).map(<[Num]>::to_vec), sizes.iter().all(|s| s.fixed().is_some())) {
            let at = Tensor::arange(0u32, all.len() as u32, &Device::Cpu)?.reshape(low.at_one(x))?;
            let at: Vec<u32> = at.broadcast_as(&dims[..])?.contiguous()?.flatten_all()?.to_vec1()?;
            return Ok(low.nums(elem, sizes, at.iter().map(|i| all[*i as usize]).collect()));
        }
        let t = low.tensor(x, false)?.ok_or_else(|| Error::new(Kind::Internal, "a constant without values"))?;
        return Ok(low.constant(elem, sizes, t.broadcast_as(&dims[..])?.contiguous()?));
    }
    let one = |(i, to): (usize, &Size)| match (i.checked_sub(new).map(|i| have[i]), to.fixed()) {
        (Some(h), _) if h == *to => Ok(None),
        (_, Some(n)) => Ok(Some(n)),
        _ => Err(Error::value("one sample's values would be those of the whole batch")),
    };
    let to = sizes.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?;
    low.apply(Strided::Expand(to), x)
}

/// One number, as often as a shape says.
pub fn constant_of_shape(low: &mut Lower, step: &Step) -> Result<V> {
    let to = numbers(low, step.input(0)?, "its shape")?;
    let sizes = to.iter().map(|n| n.size()).collect::<Result<Vec<_>>>()?;
    let one = match step.attribute("value").and_then(|a| a.t.as_ref()) {
        Some(t) => low.read(t)?,
        None => data::Array {
            dims: vec![1],
            elem: Elem::Float,
            values: data::Values::Floats(Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu)?),
        },
    };
    if one.dims.iter().product::<usize>() != 1 {
        return Err(Error::new(Kind::Format, "its value is not one number"));
    }
    let v = low.array(one)?;
    let v = low.reshaped(v, vec![])?;
    repeated(low, v, sizes)
}

/// Numbers from one to another by steps.
pub fn range(low: &mut Lower, step: &Step) -> Result<V> {
    /// More are not meant.
    const MOST: f64 = 16e6;
    let mut ends = [0f64; 3];
    let inputs = [step.input(0)?, step.input(1)?, step.input(2)?];
    let whole = inputs.iter().all(|v| low.val(*v).elem == Elem::Int);
    for (end, v) in ends.iter_mut().zip(inputs) {
        let all = match whole {
            true => low.whole(v, "its bounds")?.first().map(|i| *i as f64),
            false => low.floats(v)?.and_then(|f| f.first().map(|f| f64::from(*f))),
        };
        *end = all.ok_or_else(|| Error::value("its bounds are computed from the input"))?;
    }
    let [start, end, by] = ends;
    let n = ((end - start) / by).ceil().max(0.0);
    if by == 0.0 || !n.is_finite() || n > MOST {
        return Err(Error::new(Kind::Format, format!("{start} to {end} by {by} is no range")));
    }
    let all = (0..n as usize).map(|i| start + i as f64 * by);
    Ok(match whole {
        true => low.nums(Elem::Int, vec![Size::Fixed(n as usize)], all.map(|v| Num::from(v as i64)).collect()),
        false => low.fixed(Tensor::from_vec(all.map(|v| v as f32).collect::<Vec<_>>(), n as usize, &Device::Cpu)?),
    })
}
