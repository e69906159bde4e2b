//! The arithmetic of shapes: whole numbers that are known, some of which grow with the batch.
use super::super::data::Elem;
use super::super::lower::{Lower, V};
use super::super::num::{Num, Size};
use crate::{Error, Kind, Result};

/// Sizes that do not grow.
fn dims(low: &Lower, v: V) -> Vec<usize> {
    low.at_one(v)
}

/// What `f` makes of two arrays of known numbers, broadcast together; none where one of them is something else.
pub fn zipped(low: &mut Lower, a: V, b: V, elem: Elem, f: impl Fn(Num, Num) -> Result<Num>) -> Result<Option<V>> {
    let (Some(x), Some(y)) = (low.known(a), low.known(b)) else { return Ok(None) };
    let (da, db) = (dims(low, a), dims(low, b));
    let rank = da.len().max(db.len());
    let size = |d: &[usize], i: usize| if i + d.len() < rank { 1 } else { d[i + d.len() - rank] };
    let mut all = vec![];
    for i in 0..rank {
        all.push(match (size(&da, i), size(&db, i)) {
            (p, q) if p == q || q == 1 => p,
            (1, q) => q,
            _ => return Err(Error::new(Kind::Format, format!("shapes do not broadcast: {da:?} and {db:?}"))),
        });
    }
    let n: usize = all.iter().product();
    if n > 1 << 22 {
        return Ok(None);
    }
    let place = |d: &[usize], mut i: usize| {
        let (mut at, mut step) = (0, 1);
        for k in (0..rank).rev() {
            let (own, here) = (size(d, k), i % all[k]);
            i /= all[k];
            if own > 1 {
                at += here * step;
            }
            step *= own;
        }
        at
    };
    let made = (0..n).map(|i| f(x[place(&da, i)], y[place(&db, i)])).collect::<Result<Vec<_>>>()?;
    Ok(Some(low.nums(elem, all.into_iter().map(Size::Fixed).collect(), made)))
}

/// What `f` makes of known numbers; none where they are something else.
pub fn mapped(low: &mut Lower, a: V, elem: Elem, f: impl Fn(Num) -> Result<Num>) -> Result<Option<V>> {
    let Some(all) = low.known(a) else { return Ok(None) };
    let made = all.iter().map(|n| f(*n)).collect::<Result<Vec<_>>>()?;
    let sizes = low.sizes(a).to_vec();
    Ok(Some(low.nums(elem, sizes, made)))
}

/// Truth as a number.
pub fn truth(yes: bool) -> Num {
    i64::from(yes).into()
}

/// Entries `at` of dimension `dim` of known numbers; none where they are something else.
pub fn picked(low: &mut Lower, v: V, dim: usize, at: &[usize]) -> Option<V> {
    let all = low.known(v)?;
    let d = dims(low, v);
    let (outer, n, inner) = (d[..dim].iter().product::<usize>(), d[dim], d[dim + 1..].iter().product::<usize>());
    let mut made = Vec::with_capacity(outer * at.len() * inner);
    for o in 0..outer {
        for i in at {
            made.extend_from_slice(&all[(o * n + i) * inner..][..inner]);
        }
    }
    let (mut sizes, elem) = (low.sizes(v).to_vec(), low.val(v).elem);
    sizes[dim] = Size::Fixed(at.len());
    Some(low.nums(elem, sizes, made))
}
