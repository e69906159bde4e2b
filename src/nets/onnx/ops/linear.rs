//! Products of matrices, softmax and attention.
use super::super::data::Elem;
use super::super::lower::{Lower, Step, V};
use super::super::num::{Size, count};
use super::{Note, axis, elementwise, pools};
use crate::nets::kernels::{Arithmetic, CrossAttention, Function, Linear, Reduce, Scale, Softmax};
use crate::{Error, Kind, Result};
use candle_core::Tensor;

/// A bias of zeros, or a constant one of `n` values; none for what is no such bias.
fn bias(low: &Lower, v: Option<V>, n: usize) -> Result<Option<Tensor>> {
    let Some(v) = v else { return Ok(Some(Tensor::zeros(n, low.dtype(), low.device())?)) };
    match low.tensor(v, false)? {
        Some(t) if t.elem_count() == n && t.dims().last() == Some(&n) => Ok(Some(t.flatten_all()?)),
        _ => Ok(None),
    }
}

/// The product of matrices; by a constant one it is a linear map, with the bias that is added next.
pub fn matmul(low: &mut Lower, step: &Step) -> Result<V> {
    let [a, b] = [step.input(0)?, step.input(1)?];
    if low.in_graph(a)
        && low.rank(b) == 2
        && low.rank(a) >= 2
        && let Some(w) = low.tensor(b, true)?
    {
        let (w, n) = (w.t()?.contiguous()?, w.dim(1)?);
        let own = match step.added {
            Some(v) if low.rank(v) == 1 => bias(low, Some(v), n)?,
            _ => None,
        };
        let with = own.is_some();
        let b = match own {
            Some(b) => b,
            None => Tensor::zeros(n, low.dtype(), low.device())?,
        };
        let y = low.apply(Linear::new(&w, b)?, a)?;
        if let (true, Some(v)) = (with, step.added) {
            low.note(y, Note::Biased(v));
        }
        return Ok(y);
    }
    product(low, a, b)
}

/// a · b, of vectors too.
fn product(low: &mut Lower, a: V, b: V) -> Result<V> {
    let (ra, rb) = (low.rank(a), low.rank(b));
    if ra == 0 || rb == 0 {
        return Err(Error::new(Kind::Format, "a number is no matrix"));
    }
    let with = |sizes: &[Size], at: usize| {
        let mut s = sizes.to_vec();
        s.insert(at, Size::Fixed(1));
        s
    };
    let a = if ra == 1 { low.reshaped(a, with(low.sizes(a), 0))? } else { a };
    let b = if rb == 1 { low.reshaped(b, with(low.sizes(b), 1))? } else { b };
    let y = low.product(a, b)?;
    let mut sizes = low.sizes(y).to_vec();
    if rb == 1 {
        sizes.pop();
    }
    if ra == 1 {
        sizes.remove(sizes.len() - if rb == 1 { 1 } else { 2 });
    }
    low.reshaped(y, sizes)
}

/// α A B + β C, of matrices that may be transposed.
pub fn gemm(low: &mut Lower, step: &Step) -> Result<V> {
    let [mut a, b] = [step.input(0)?, step.input(1)?];
    let (alpha, beta) = (step.float("alpha", 1.0), step.float("beta", 1.0));
    let turned = |name: &str| step.int(name, 0) != 0;
    if turned("transA") {
        a = low.permuted(a, &[1, 0])?;
    }
    if low.rank(a) != 2 || low.rank(b) != 2 {
        return Err(Error::new(Kind::Format, "its inputs are no matrices"));
    }
    if low.in_graph(a)
        && let Some(w) = low.tensor(b, true)?
    {
        let w = if turned("transB") { w } else { w.t()?.contiguous()? };
        let w = if alpha == 1.0 { w } else { (w.to_dtype(low.dtype())? * alpha)? };
        let n = w.dim(0)?;
        let own = bias(low, step.maybe(2), n)?;
        if let Some(b) = own {
            let b = if beta == 1.0 { b } else { (b * beta)? };
            return low.apply(Linear::new(&w, b)?, a);
        }
    }
    let b = if turned("transB") { low.permuted(b, &[1, 0])? } else { b };
    let mut y = low.product(a, b)?;
    if alpha != 1.0 {
        y = low.each(Scale(alpha), y)?;
    }
    let Some(mut c) = step.maybe(2) else { return Ok(y) };
    if beta != 1.0 {
        c = low.each(Scale(beta), c)?;
    }
    elementwise::binary(low, Arithmetic::Sum, y, c)
}

/// Softmax along an axis, or its logarithm.
pub fn softmax(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let rank = low.rank(x);
    let dim = axis(step.int("axis", -1), rank)?;
    if low.sizes(x)[dim].fixed().is_none() {
        return Err(Error::value("a softmax over the samples of a batch"));
    }
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(dim, rank - 1);
    let x = low.permuted(x, &order)?;
    let y = match step.node.op == "LogSoftmax" {
        // not by the softmax, which is 0 where its logarithm is still far from −∞
        true => {
            let most = pools::largest(low, x, vec![rank - 1], true, false)?;
            let below = elementwise::binary(low, Arithmetic::Difference, x, most)?;
            let each = low.each(Function::Exp, below)?;
            let all = low.apply(Reduce { mean: false, dims: vec![rank - 1], keep: true }, each)?;
            let all = low.each(Function::Log, all)?;
            elementwise::binary(low, Arithmetic::Difference, below, all)?
        }
        false => low.apply(Softmax, x)?,
    };
    low.permuted(y, &order)
}

/// The letters of one side of an einsum, with those that `…` stands for as capitals.
fn letters(term: &str, rank: usize) -> Result<Vec<char>> {
    let wrong = || Error::new(Kind::Format, format!("`{term}` does not fit {rank} dimensions"));
    let (before, after) = match term.split_once("...") {
        Some((a, b)) => (a, Some(b)),
        None => (term, None),
    };
    let mut all: Vec<char> = before.chars().collect();
    if let Some(after) = after {
        let rest = rank.checked_sub(before.len() + after.len()).ok_or_else(wrong)?;
        // aligned at their end, as shapes broadcast
        all.extend((0..rest).map(|i| (b'Z' - (rest - 1 - i) as u8) as char));
        all.extend(after.chars());
    }
    let mut seen = all.clone();
    seen.sort_unstable();
    seen.dedup();
    if all.len() != rank || rank > 12 || seen.len() != rank || all.iter().any(|c| !c.is_ascii_alphabetic()) {
        return Err(wrong());
    }
    Ok(all)
}

/// Sums of products over indices, of one or two values.
pub fn einsum(low: &mut Lower, step: &Step) -> Result<V> {
    let text: String = step.text("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let (given, to) = text
        .split_once("->")
        .ok_or_else(|| Error::new(Kind::Format, format!("`{text}` does not say what it gives")))?;
    let terms: Vec<&str> = given.split(',').collect();
    if terms.len() != step.inputs.len() || !(1..=2).contains(&terms.len()) {
        return Err(Error::value(format!("`{text}`: sums of products of one or two values are run")));
    }
    let mut sides = vec![];
    for (i, term) in terms.iter().enumerate() {
        let v = step.input(i)?;
        sides.push((v, letters(term, low.rank(v))?));
    }
    let dots = sides.iter().map(|(_, l)| l.iter().filter(|c| is_dot(**c, &terms)).count()).max().unwrap_or(0);
    let out = letters(to, to.replace("...", "").len() + if to.contains("...") { dots } else { 0 })?;
    // what only one side has and the result has not is summed at once
    let other = |k: usize, sides: &[(V, Vec<char>)]| {
        sides.iter().enumerate().filter(|(i, _)| *i != k).flat_map(|(_, s)| s.1.clone()).collect::<Vec<_>>()
    };
    for k in 0..sides.len() {
        let keep = [out.clone(), other(k, &sides)].concat();
        let (v, l) = sides[k].clone();
        let gone: Vec<usize> = (0..l.len()).filter(|i| !keep.contains(&l[*i])).collect();
        if gone.is_empty() {
            continue;
        }
        if gone.iter().any(|d| low.sizes(v)[*d].fixed().is_none()) {
            return Err(Error::value("it sums over the samples of a batch"));
        }
        let left = l.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, c)| *c).collect();
        sides[k] = (low.apply(Reduce { mean: false, dims: gone, keep: false }, v)?, left);
    }
    if let [(v, l)] = &sides[..] {
        return ordered(low, *v, l, &out);
    }
    let [(a, la), (b, lb)] = &sides[..] else { return Err(Error::new(Kind::Internal, "an einsum lost its sides")) };
    let both: Vec<char> = out.iter().copied().filter(|c| la.contains(c) && lb.contains(c)).collect();
    let summed: Vec<char> = la.iter().copied().filter(|c| lb.contains(c) && !out.contains(c)).collect();
    let only =
        |l: &[char], o: &[char]| out.iter().copied().filter(|c| l.contains(c) && !o.contains(c)).collect::<Vec<char>>();
    let (left, right) = (only(la, lb), only(lb, la));
    let size = |low: &Lower, c: char| {
        let find = |v: V, l: &[char]| l.iter().position(|x| *x == c).map(|i| low.sizes(v)[i]);
        match (find(*a, la), find(*b, lb)) {
            (Some(Size::Fixed(1)), Some(s)) | (Some(s), _) | (None, Some(s)) => s,
            _ => Size::Fixed(1),
        }
    };
    let merged = |low: &Lower, l: &[char]| -> Result<Size> {
        let all: Vec<Size> = l.iter().map(|c| size(low, *c)).collect();
        let (n, grows) = count(&all)?;
        Ok(if grows { Size::Per(n) } else { Size::Fixed(n) })
    };
    let own = |low: &Lower, v: V, l: &[char], of: &[char]| -> Vec<Size> {
        of.iter().map(|c| l.iter().position(|x| x == c).map_or(Size::Fixed(1), |i| low.sizes(v)[i])).collect()
    };
    let (m, k, n) = (merged(low, &left)?, merged(low, &summed)?, merged(low, &right)?);
    let x = ordered(low, *a, la, &[&both[..], &left, &summed].concat())?;
    let shape = [own(low, *a, la, &both), vec![m, k]].concat();
    let x = low.reshaped(x, shape)?;
    let y = ordered(low, *b, lb, &[&both[..], &summed, &right].concat())?;
    let shape = [own(low, *b, lb, &both), vec![k, n]].concat();
    let y = low.reshaped(y, shape)?;
    let z = low.product(x, y)?;
    let have = [&both[..], &left, &right].concat();
    let sizes = have.iter().map(|c| size(low, *c)).collect();
    let z = low.reshaped(z, sizes)?;
    ordered(low, z, &have, &out)
}

/// Whether a letter is written in an equation.
fn term_has(terms: &[&str], c: char) -> bool {
    terms.iter().any(|t| t.contains(c))
}
/// Whether a letter stands for one of the dimensions of `…`.
fn is_dot(c: char, terms: &[&str]) -> bool {
    c.is_ascii_uppercase() && !term_has(terms, c)
}

/// Dimensions named `have` in the order `want`.
fn ordered(low: &mut Lower, v: V, have: &[char], want: &[char]) -> Result<V> {
    let find = |c: &char| {
        let found = have.iter().position(|h| h == c);
        found.ok_or_else(|| Error::new(Kind::Format, format!("the index `{c}` of the result is in no input")))
    };
    let order = want.iter().map(find).collect::<Result<Vec<_>>>()?;
    if order.len() != have.len() {
        return Err(Error::new(Kind::Format, "an index is lost"));
    }
    low.permuted(v, &order)
}

/// Scaled dot-product attention.
pub fn attention(low: &mut Lower, step: &Step) -> Result<V> {
    let (q, k, v) = (step.input(0)?, step.input(1)?, step.input(2)?);
    if step.maybe(4).is_some() || step.maybe(5).is_some() || step.node.outputs.len() > 1 || step.maybe(6).is_some() {
        return Err(Error::value("attention with a cache of keys is not run").hint("export the network without one"));
    }
    let (causal, softcap) = (step.int("is_causal", 0) != 0, step.float("softcap", 0.0));
    let flat = low.rank(q) == 3;
    let heads = |low: &mut Lower, x: V, n: i64| -> Result<V> {
        if low.rank(x) != 3 {
            return Ok(x);
        }
        let &[b, t, Size::Fixed(c)] = low.sizes(x) else {
            return Err(Error::new(Kind::Format, "it takes tokens [B, T, C]"));
        };
        let n = usize::try_from(n).ok().filter(|n| *n > 0 && c % n == 0);
        let n = n.ok_or_else(|| Error::new(Kind::Format, "its heads do not divide the channels"))?;
        let x = low.reshaped(x, vec![b, t, Size::Fixed(n), Size::Fixed(c / n)])?;
        low.permuted(x, &[0, 2, 1, 3])
    };
    let (nq, nk) = (step.int("q_num_heads", 0), step.int("kv_num_heads", 0));
    let (q, mut k, mut v) = (heads(low, q, nq)?, heads(low, k, nk)?, heads(low, v, nk)?);
    let [Some(h), Some(d), Some(n)] = [1, 3, 2].map(|i| low.sizes(q).get(i).and_then(|s| s.fixed())) else {
        return Err(Error::new(Kind::Format, "it takes queries of fixed sizes"));
    };
    let [Some(hk), Some(m)] = [1, 2].map(|i| low.sizes(k).get(i).and_then(|s| s.fixed())) else {
        return Err(Error::new(Kind::Format, "it takes keys of fixed sizes"));
    };
    if hk == 0 || h % hk != 0 {
        return Err(Error::new(Kind::Format, format!("{h} heads of queries for {hk} of keys")));
    }
    if hk != h {
        let at: Vec<usize> = (0..h).map(|i| i / (h / hk)).collect();
        k = super::indices::picked(low, k, 1, at.clone())?;
        v = super::indices::picked(low, v, 1, at)?;
    }
    let scale = step.float("scale", 0.0);
    let own = 1.0 / (d as f64).sqrt();
    let scale = if scale == 0.0 { own } else { scale };
    let plain = (scale / own - 1.0).abs() < 1e-6 && step.maybe(3).is_none() && softcap == 0.0 && (!causal || n == m);
    let alike = low.sizes(k) == low.sizes(v) && [q, k, v].iter().all(|x| low.in_graph(*x));
    let sizes = [low.sizes(q)[..3].to_vec(), vec![low.sizes(v)[3]]].concat();
    let y = if plain && alike && low.sizes(k)[3] == Size::Fixed(d) {
        let rows = |low: &mut Lower, x: V, t: usize| -> Result<V> {
            let b = match low.sizes(x)[0] {
                Size::Fixed(b) => Size::Fixed(b * h),
                Size::Per(b) => Size::Per(b * h),
            };
            low.reshaped(x, vec![b, Size::Fixed(t), Size::Fixed(d)])
        };
        let all = [rows(low, q, n)?, rows(low, k, m)?, rows(low, v, m)?];
        let y = low.apply_all(CrossAttention { heads: 1, causal }, &all)?;
        low.reshaped(y, sizes)?
    } else {
        let kt = low.permuted(k, &[0, 1, 3, 2])?;
        let q = low.each(Scale(scale), q)?;
        let mut s = low.product(q, kt)?;
        if softcap != 0.0 {
            s = low.each(Scale(1.0 / softcap), s)?;
            s = low.each(Function::Tanh, s)?;
            s = low.each(Scale(softcap), s)?;
        }
        if let Some(mask) = step.maybe(3) {
            s = match low.val(mask).elem {
                Elem::Float => elementwise::binary(low, Arithmetic::Sum, s, mask)?,
                _ => {
                    let never = elementwise::number(low, -1e30)?;
                    low.sides([mask, s, never], Elem::Float, crate::nets::kernels::Where)?
                }
            };
        }
        if causal {
            low.room(&[n, m])?;
            let mask: Vec<f32> = (0..n * m).map(|i| if i % m > i / m { -1e30 } else { 0.0 }).collect();
            let mask = low.fixed(Tensor::from_vec(mask, (n, m), &candle_core::Device::Cpu)?);
            s = elementwise::binary(low, Arithmetic::Sum, s, mask)?;
        }
        let s = low.apply(Softmax, s)?;
        low.product(s, v)?
    };
    if !flat {
        return Ok(y);
    }
    let y = low.permuted(y, &[0, 2, 1, 3])?;
    let (b, c) = (low.sizes(y)[0], low.sizes(y)[3].fixed().unwrap_or(0));
    low.reshaped(y, vec![b, Size::Fixed(n), Size::Fixed(h * c)])
}
