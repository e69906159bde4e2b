//! The pieces that both networks of docking are made of: embeddings of nodes and edges, and messages between them.
use super::facts::Facts;
use crate::nets::build::{Builder, Id};
use crate::nets::graph::{Absent, Dim, Layout};
use crate::nets::kernels::irreps::{Irrep, Irreps, Path, connected, weights, width, written};
use crate::nets::kernels::{
    Arithmetic, Arrive, Broadcast, Bumps, Categories, Channels, Edgewise, Gather, Harmonics, Reduce, Side, Spread,
    Widen,
};
use crate::{Error, Kind, Result};
use std::sync::Arc;

/// The last bump along distances within the receptor, and from a centre.
pub const FAR: f64 = 30.0;
/// Sizes where a graph is printed.
pub const SOME: usize = 40;

/// A vector's direction as the networks are told it.
pub const HARMONICS: [Irrep; 3] = [Irrep::new(1, 0, false), Irrep::new(1, 1, true), Irrep::new(1, 2, false)];

/// Features of a node before round `layer`, and after the last one.
pub fn features(facts: &Facts, layer: usize) -> Irreps {
    let (ns, nv) = (facts.ns, facts.nv);
    let runs: &[Irrep] = match facts.second {
        false => {
            &[Irrep::new(ns, 0, false), Irrep::new(nv, 1, true), Irrep::new(nv, 1, false), Irrep::new(ns, 0, true)]
        }
        true => &[
            Irrep::new(ns, 0, false),
            Irrep::new(nv, 1, true),
            Irrep::new(nv, 2, false),
            Irrep::new(nv, 1, false),
            Irrep::new(nv, 2, true),
            Irrep::new(ns, 0, true),
        ],
    };
    let grown: &[usize] = if facts.second { &[1, 3, 5, 6] } else { &[1, 2, 3, 4] };
    runs[..grown[layer.min(3)]].to_vec()
}

/// Edges of one kind: their two ends by number, the first one is who receives; their features and directions.
#[derive(Clone, Copy)]
pub struct Edges {
    /// Who receives.
    pub to: Id,
    /// Who sends.
    pub from: Id,
    /// Embedded features.
    pub told: Id,
    /// Harmonics of their directions.
    pub harmonics: Id,
}

impl Edges {
    /// The same edges the other way round, with the same directions.
    pub fn back(self) -> Edges {
        Edges { to: self.from, from: self.to, ..self }
    }
}

/// A message's product.
pub struct Product {
    /// What the sender has.
    pub a: Irreps,
    /// What the edge has.
    pub s: Irreps,
    /// What arrives.
    pub out: Irreps,
}

impl Product {
    /// From one feature to another along directions.
    pub fn new(a: &[Irrep], out: &[Irrep]) -> Product {
        Product { a: a.to_vec(), s: HARMONICS.to_vec(), out: out.to_vec() }
    }
}

/// An input with a row for each of some nodes or edges.
pub fn rows(b: &mut Builder, name: &str, width: Option<usize>, absent: Absent) -> Result<Id> {
    let dims: Vec<Dim> = [Dim::About(SOME)].into_iter().chain(width.map(Dim::Exactly)).collect();
    b.input(name, &dims, Layout::Plain, absent)
}

/// Linear, ReLU, linear, at `0` and `3` of a place: between them stood dropout.
pub fn mlp(b: &mut Builder, x: Id, widths: [usize; 2]) -> Result<Id> {
    let x = b.under("0").linear(x, widths[0])?;
    let x = b.under("1").relu(x)?;
    b.under("3").linear(x, widths[1])
}

/// Values side by side.
pub fn beside(b: &mut Builder, all: &[Id]) -> Result<Id> {
    let mut joined = all[0];
    for (k, next) in all[1..].iter().enumerate() {
        joined = b.under(&format!("beside{k}")).concat(joined, *next)?;
    }
    Ok(joined)
}

/// Σ of embedded categories, and a linear map of scalars that are the same for all nodes or a row for each.
pub fn nodes(b: &mut Builder, categories: Id, sizes: &[usize], scalars: Id, width: usize) -> Result<Id> {
    let mut tables = vec![];
    let mut named = vec![];
    for (k, n) in sizes.iter().enumerate() {
        let (table, weight) = b.under(&format!("atom_embedding_list.{k}")).weight("weight", &[*n, width], &[])?;
        tables.push(table);
        named.push(weight);
    }
    let op = Arc::new(Categories::new(tables)?);
    let embedded = b.under("categories").add(op, &[categories], named)?[0];
    let told = b.under("linear").linear(scalars, width)?;
    let told = match b.shape(told).len() {
        1 => b.under("linear.all").apply(Spread, &[told, categories])?,
        _ => told,
    };
    b.under("sum").sum(embedded, told, 1.0)
}

/// From one place to another along edges: x[from] − y[to].
pub fn vectors(b: &mut Builder, (x, from): (Id, Id), (y, to): (Id, Id)) -> Result<Id> {
    let there = b.under("there").apply(Gather, &[x, from])?;
    let here = b.under("here").apply(Gather, &[y, to])?;
    difference(b, there, here)
}

/// a − b, where b may be one row for all.
pub fn difference(b: &mut Builder, x: Id, y: Id) -> Result<Id> {
    let op = Broadcast { op: Arithmetic::Difference, sides: [Side::Input, Side::Input] };
    b.under("vector").apply(op, &[x, y])
}

/// Bumps along lengths, and directions.
pub fn lengths(b: &mut Builder, vectors: Id, count: usize, last: f64) -> Result<(Id, Id)> {
    let bumps = b.under("distance").apply(Bumps { range: [0.0, last], count }, &[vectors])?;
    Ok((bumps, b.under("direction").apply(Harmonics, &[vectors])?))
}

/// A row of the embedded time for each of what is counted.
pub fn level(b: &mut Builder, level: Id, like: Id) -> Result<Id> {
    b.under("level").apply(Spread, &[level, like])
}

/// The scalars that a message is told of a node.
pub fn scalars(b: &mut Builder, h: Id, ns: usize) -> Result<Id> {
    match b.channels(h) - ns {
        0 => Ok(h),
        rest => Ok(b.under("scalars").split(h, &[ns, rest])?[0]),
    }
}

/// What edges are told beside their own features: the scalars of both ends, the first `ends[0]` that of a node of `ends[0].0`.
pub fn told(b: &mut Builder, edges: &Edges, ends: [(Id, Id); 2]) -> Result<Id> {
    let mut all = vec![edges.told];
    for (k, (scalars, ids)) in ends.into_iter().enumerate() {
        all.push(b.under(&format!("end{k}")).apply(Gather, &[scalars, ids])?);
    }
    beside(b, &all)
}

/// What edges send: products of their sender's features and their directions, with weights that a small network makes from `told`.
fn sent(b: &mut Builder, of: &Product, sender: Id, harmonics: Id, told: Id) -> Result<Id> {
    let hidden = b.channels(told);
    let x = b.under("fc.0").linear(told, hidden)?;
    let x = b.under("fc.1").relu(x)?;
    let paths: Vec<Path> = connected(&of.a, &of.s, &of.out);
    let (w, weight) = b.under("fc.3").weight("weight", &[weights(&paths), hidden], &[])?;
    let (bias, second) = b.under("fc.3").weight("bias", &[weights(&paths)], &[])?;
    let sizes = [width(&of.a), width(&of.s), width(&of.out)];
    let detail = format!("{} ⊗ {} → {}", written(&of.a), written(&of.s), written(&of.out));
    let op = Edgewise::new(paths, sizes, &w, bias, detail)?;
    Ok(b.under("tp").add(Arc::new(op), &[x, sender, harmonics], vec![weight, second])?[0])
}

/// What arrives at nodes (as many as `like` has) along edges from `h`: the mean of what they send, normalized where the file says so.
pub fn messages(b: &mut Builder, facts: &Facts, of: &Product, h: Id, edges: &Edges, told: Id, like: Id) -> Result<Id> {
    let sender = b.under("sender").apply(Gather, &[h, edges.from])?;
    let sent = sent(b, of, sender, edges.harmonics, told)?;
    let mean = b.under("arrive").apply(Arrive, &[sent, edges.to, like])?;
    normalized(b, facts, &of.out, mean)
}

/// The same from every node to the one centre of all.
pub fn centred(b: &mut Builder, facts: &Facts, of: &Product, h: Id, harmonics: Id, told: Id) -> Result<Id> {
    let sent = sent(b, of, h, harmonics, told)?;
    let mean = b.under("arrive").apply(Reduce { mean: true, dims: vec![1], keep: false }, &[sent])?;
    normalized(b, facts, &of.out, mean)
}

fn normalized(b: &mut Builder, facts: &Facts, irreps: &[Irrep], x: Id) -> Result<Id> {
    if !facts.norm {
        return Ok(x);
    }
    let b = &mut b.under("batch_norm");
    let norm = norm(b, irreps)?;
    b.apply(Channels::new(norm), &[x])
}

/// The variances of a normalization that stands here.
pub fn variances(b: &mut Builder, count: usize) -> Result<Vec<f64>> {
    let all = b.values("running_var", &[count])?;
    match all.iter().find(|v| **v < 0.0) {
        None => Ok(all),
        Some(bad) => {
            let m = format!("`{}` holds {bad}, and a variance is at least 0", b.full("running_var"));
            Err(Error::new(Kind::Format, m).hint("the checkpoint is damaged"))
        }
    }
}

/// e3nn's normalization as it is after training: a scale for each vector, and a shift for each number that no mirror changes.
fn norm(b: &mut Builder, irreps: &[Irrep]) -> Result<Vec<(f64, f64)>> {
    let count = irreps.iter().map(|i| i.mul).sum::<usize>();
    let plain = irreps.iter().filter(|i| i.l == 0 && !i.odd).map(|i| i.mul).sum::<usize>();
    let (weight, var) = (b.values("weight", &[count])?, variances(b, count)?);
    let (bias, mean) = match plain {
        0 => (vec![], vec![]),
        n => (b.values("bias", &[n])?, b.values("running_mean", &[n])?),
    };
    let mut shifts = bias.into_iter().zip(mean);
    let mut scales = weight.into_iter().zip(var).map(|(w, v)| w / (v + 1e-5).sqrt());
    let mut out = vec![];
    for run in irreps {
        for _ in 0..run.mul {
            let scale = scales.next().unwrap_or(1.0);
            let shift = match run.l == 0 && !run.odd {
                true => shifts.next().map_or(0.0, |(bias, mean)| bias - mean * scale),
                false => 0.0,
            };
            out.extend(std::iter::repeat_n((scale, shift), run.each()));
        }
    }
    Ok(out)
}

/// h, widened, with what arrived added.
pub fn updated(b: &mut Builder, h: Id, arrived: &[Id]) -> Result<Id> {
    let wide = b.channels(arrived[0]);
    let mut sum = match b.channels(h) == wide {
        true => h,
        false => b.under("widened").apply(Widen(wide), &[h])?,
    };
    for (k, a) in arrived.iter().enumerate() {
        sum = b.under(&format!("plus{k}")).sum(sum, *a, 1.0)?;
    }
    Ok(sum)
}
