//! Einstein summation by permutations, reshapes and batched matrix products.
use super::dtype::promote;
use super::linalg::matmul;
use super::{index, reduce};
use crate::{Error, Result};
use candle_core::Tensor;

/// A tensor whose dimensions carry labels, each once.
struct Labelled {
    t: Tensor,
    labels: Vec<char>,
}

fn wrong(spec: &str, why: impl std::fmt::Display) -> Error {
    Error::value(format!("einsum: \"{spec}\": {why}"))
        .hint("write it like \"ij,jk->ik\": one letter for each dimension")
}

/// `einsum("bij,bjk->bik", [a, b])`. Letters that appear once and not in the output are summed; a letter twice in one
/// operand takes the diagonal; without `->` the output has the letters that appear once, in alphabetical order; `...` is
/// not understood.
pub fn einsum(spec: &str, operands: &[Tensor]) -> Result<Tensor> {
    let text: String = spec.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((l, r)) => (l.to_string(), Some(r.to_string())),
        None => (text, None),
    };
    let inputs: Vec<Vec<char>> = left.split(',').map(|s| s.chars().collect()).collect();
    let letters = || inputs.iter().flatten();
    if let Some(c) = letters().copied().chain(right.iter().flat_map(|r| r.chars())).find(|c| !c.is_alphabetic()) {
        return Err(wrong(spec, format!("`{c}` is not a letter")));
    }
    if inputs.len() != operands.len() || operands.is_empty() {
        let m = format!("names {} operands, got {}", inputs.len(), operands.len());
        return Err(wrong(spec, m));
    }
    let output: Vec<char> = match right {
        Some(r) => r.chars().collect(),
        None => {
            let mut once: Vec<char> =
                letters().copied().filter(|c| letters().filter(|d| *d == c).count() == 1).collect();
            once.sort_unstable();
            once
        }
    };
    for (i, c) in output.iter().enumerate() {
        if !letters().any(|d| d == c) || output[..i].contains(c) {
            return Err(wrong(spec, format!("`{c}` in the output must appear there once, and in an operand")));
        }
    }
    check_sizes(spec, &inputs, operands)?;

    let dtype = operands.iter().skip(1).fold(operands[0].dtype(), |d, t| promote(d, t.dtype()));
    let mut parts = operands
        .iter()
        .zip(&inputs)
        .map(|(t, l)| diagonals(Labelled { t: t.to_dtype(dtype)?, labels: l.clone() }))
        .collect::<Result<Vec<_>>>()?
        .into_iter();
    let Some(mut acc) = parts.next() else { return Err(wrong(spec, "no operands")) };
    let mut rest: Vec<Labelled> = parts.collect();
    while !rest.is_empty() {
        let next = rest.remove(0);
        let later: Vec<char> =
            output.iter().copied().chain(rest.iter().flat_map(|p| p.labels.iter().copied())).collect();
        acc = contract(acc, next, &later)?;
    }
    let acc = sum_out(acc, &output)?;
    permute_to(&acc, &output)
}

fn check_sizes(spec: &str, inputs: &[Vec<char>], operands: &[Tensor]) -> Result<()> {
    let mut sizes: Vec<(char, usize, &[usize])> = vec![];
    for (labels, t) in inputs.iter().zip(operands) {
        if labels.len() != t.rank() {
            let m = format!("has {} letters for a tensor of {} dimensions", labels.len(), t.rank());
            return Err(wrong(spec, m).shapes(&[t.dims()]));
        }
        for (c, n) in labels.iter().zip(t.dims()) {
            match sizes.iter().find(|(d, ..)| d == c) {
                None => sizes.push((*c, *n, t.dims())),
                Some((_, m, _)) if m == n => {}
                Some((_, m, other)) => {
                    let text = format!("einsum: \"{spec}\": `{c}` has size {m} in one place and {n} in another");
                    return Err(Error::shape(text, &[other, t.dims()]));
                }
            }
        }
    }
    Ok(())
}

/// Takes the diagonal of every letter that appears twice in one operand.
fn diagonals(mut p: Labelled) -> Result<Labelled> {
    while let Some((i, j)) =
        (0..p.labels.len()).find_map(|i| (i + 1..p.labels.len()).find(|j| p.labels[*j] == p.labels[i]).map(|j| (i, j)))
    {
        let n = p.t.dims()[i];
        let others: Vec<usize> = (0..p.labels.len()).filter(|k| *k != i && *k != j).collect();
        let t = p.t.permute([others.as_slice(), &[i, j]].concat())?;
        let lead: Vec<usize> = others.iter().map(|k| p.t.dims()[*k]).collect();
        let t = t.reshape([lead.as_slice(), &[n * n]].concat())?;
        let rows: Vec<i64> = (0..n as i64).map(|k| k * (n as i64 + 1)).collect();
        p.t = index::take(&t, lead.len(), &rows, &[n])?;
        p.labels = others.iter().map(|k| p.labels[*k]).chain([p.labels[i]]).collect();
    }
    Ok(p)
}

/// Sums the dimensions whose letters are not in `keep`.
fn sum_out(p: Labelled, keep: &[char]) -> Result<Labelled> {
    let gone: Vec<i64> = (0..p.labels.len()).filter(|i| !keep.contains(&p.labels[*i])).map(|i| i as i64).collect();
    if gone.is_empty() {
        return Ok(p);
    }
    let t = reduce::sum(&p.t, Some(&gone), false)?;
    Ok(Labelled { t, labels: p.labels.into_iter().filter(|c| keep.contains(c)).collect() })
}

fn permute_to(p: &Labelled, order: &[char]) -> Result<Tensor> {
    let at = |c: &char| p.labels.iter().position(|l| l == c);
    let dims: Vec<usize> = order.iter().filter_map(at).collect();
    if dims.iter().enumerate().all(|(i, d)| i == *d) { Ok(p.t.clone()) } else { Ok(p.t.permute(dims)?) }
}

/// The product of two operands, summed over letters that nobody needs later.
fn contract(a: Labelled, b: Labelled, later: &[char]) -> Result<Labelled> {
    let has = |list: &[char], c: &char| list.contains(c);
    let keep_a: Vec<char> = later.iter().chain(&b.labels).copied().collect();
    let keep_b: Vec<char> = later.iter().chain(&a.labels).copied().collect();
    let (a, b) = (sum_out(a, &keep_a)?, sum_out(b, &keep_b)?);
    let pick =
        |list: &[char], f: &dyn Fn(&char) -> bool| -> Vec<char> { list.iter().copied().filter(|c| f(c)).collect() };
    let batch = pick(&a.labels, &|c| has(&b.labels, c) && has(later, c));
    let inner = pick(&a.labels, &|c| has(&b.labels, c) && !has(later, c));
    let rows = pick(&a.labels, &|c| !has(&b.labels, c));
    let cols = pick(&b.labels, &|c| !has(&a.labels, c));
    let size = |p: &Labelled, list: &[char]| -> Vec<usize> {
        list.iter().filter_map(|c| p.labels.iter().position(|l| l == c).map(|i| p.t.dims()[i])).collect()
    };
    let count = |s: &[usize]| s.iter().product::<usize>();
    let (sb, sr, sc, si) = (size(&a, &batch), size(&a, &rows), size(&b, &cols), size(&a, &inner));
    let x = permute_to(&a, &[batch.clone(), rows.clone(), inner.clone()].concat())?;
    let y = permute_to(&b, &[batch.clone(), inner, cols.clone()].concat())?;
    let x = x.reshape((count(&sb), count(&sr), count(&si)))?;
    let y = y.reshape((count(&sb), count(&si), count(&sc)))?;
    let t = matmul(&x, &y)?.reshape([sb, sr, sc].concat())?;
    Ok(Labelled { t, labels: [batch, rows, cols].concat() })
}
