//! What networks of docking are given of a complex: what stays while a ligand moves, and for each pose what its places make.
use super::score::{LEVEL, POSITIONS};
use crate::files::complex::{Complex, Ends};
use crate::geometry::Vec3;
use crate::geometry::vectors::{add, apart, scale};
use std::collections::BTreeMap;

/// Values for a port: of one scene, and their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    /// The values, row by row.
    pub data: Vec<f64>,
    /// Their shape, without a batch.
    pub dims: Vec<usize>,
}

/// Values by port.
pub type Ports = BTreeMap<&'static str, Filled>;

/// Up to which distance protein atoms hear a ligand's, in Å.
const NEAR: f64 = 5.0;
/// How many an atom is heard by, at most, among the ligand's and around a bond (torch_cluster's default).
const MOST: usize = 32;

fn rows(data: Vec<f64>, dims: &[usize]) -> Filled {
    Filled { data, dims: dims.to_vec() }
}

fn counts(all: &[usize], dims: &[usize]) -> Filled {
    rows(all.iter().map(|v| *v as f64).collect(), dims)
}

fn places(all: &[Vec3]) -> Filled {
    rows(all.iter().flatten().copied().collect(), &[all.len(), 3])
}

/// Both ends of edges; where there are none, an edge between nodes that there are not.
fn ends(to: &mut Ports, names: [&'static str; 2], ends: &Ends, nodes: [usize; 2]) {
    for ((name, ids), beyond) in names.into_iter().zip(ends).zip(nodes) {
        let ids = if ids.is_empty() { vec![beyond] } else { ids.clone() };
        to.insert(name, counts(&ids, &[ids.len()]));
    }
}

/// What stays: features, the receptor's places and edges. With atoms, where a network looks at them.
pub fn fixed(complex: &Complex, language: bool, with_atoms: bool) -> Ports {
    let (lig, rec) = (&complex.ligand, &complex.receptor);
    let (n, r) = (lig.positions.len(), rec.positions.len());
    let mut to = Ports::new();
    to.insert("lig.x", counts(&lig.x, &[n, 16]));
    to.insert("rec.x", counts(&rec.x, &[r, 1]));
    to.insert("rec.pos", places(&rec.positions));
    ends(&mut to, ["rec.to", "rec.from"], &rec.edges, [r, r]);
    if let Some(numbers) = rec.language.as_ref().filter(|_| language) {
        to.insert("rec.language", rows(numbers.clone(), &[r, numbers.len() / r]));
    }
    if let Some(atoms) = complex.atoms.as_ref().filter(|_| with_atoms) {
        let a = atoms.positions.len();
        to.insert("atom.x", counts(&atoms.x, &[a, 4]));
        to.insert("atom.pos", places(&atoms.positions));
        ends(&mut to, ["atom.to", "atom.from"], &atoms.edges, [a, a]);
        let own: Vec<usize> = (0..a).collect();
        ends(&mut to, ["part.atom", "part.rec"], &[own, atoms.residue.clone()], [a, r]);
    }
    let turns = lig.torsions.turns();
    if !turns.is_empty() {
        let [u, v] = [0, 1].map(|k| turns.iter().map(|t| [t.from, t.to][k]).collect::<Vec<_>>());
        to.insert("tor.u", counts(&u, &[u.len()]));
        to.insert("tor.v", counts(&v, &[v.len()]));
    }
    to
}

/// What a pose makes: its places, edges within the ligand (up to `radius`) and to the receptor (up to `reach`), and the embedded time.
pub fn moving(complex: &Complex, radius: f64, pose: &[Vec3], embedding: &[f64], reach: f64, with_atoms: bool) -> Ports {
    let mut to = Ports::new();
    let (n, r) = (pose.len(), complex.receptor.positions.len());
    to.insert(POSITIONS, places(pose));
    to.insert(LEVEL, rows(embedding.to_vec(), &[embedding.len()]));
    let (edges, bonds) = within(complex, pose, radius);
    let bonds = if bonds.is_empty() { vec![0.0; 4] } else { bonds };
    to.insert("lig.bond", rows(bonds, &[edges[0].len().max(1), 4]));
    ends(&mut to, ["lig.to", "lig.from"], &edges, [n, n]);
    let cross = near(pose, &complex.receptor.positions, reach, usize::MAX);
    ends(&mut to, ["cross.lig", "cross.rec"], &cross, [n, r]);
    if let Some(atoms) = complex.atoms.as_ref().filter(|_| with_atoms) {
        let found = near(pose, &atoms.positions, NEAR, usize::MAX);
        ends(&mut to, ["near.lig", "near.atom"], &found, [n, atoms.positions.len()]);
    }
    let turns = complex.ligand.torsions.turns();
    if !turns.is_empty() && !with_atoms {
        let middle = |t: &crate::geometry::Turn| scale(add(pose[t.from], pose[t.to]), 0.5);
        let middles: Vec<Vec3> = turns.iter().map(middle).collect();
        ends(&mut to, ["tor.bond", "tor.atom"], &near(&middles, pose, radius, MOST), [turns.len(), n]);
    }
    to
}

/// Pairs nearer than `reach`, at most the first `most` for each of `a`.
fn near(a: &[Vec3], b: &[Vec3], reach: f64, most: usize) -> Ends {
    let mut out = Ends::default();
    for (i, p) in a.iter().enumerate() {
        let hits = b.iter().enumerate().filter(|(_, q)| apart(*p, **q) < reach * reach);
        for (j, _) in hits.take(most) {
            out[0].push(i);
            out[1].push(j);
        }
    }
    out
}

/// Edges of a ligand: its bonds, and then all pairs nearer than `radius`, bonded ones among them; with the kinds of bonds in one-hot rows.
///
/// The published cap counts an atom itself among those that hear it, if it comes early enough.
fn within(complex: &Complex, pose: &[Vec3], radius: f64) -> (Ends, Vec<f64>) {
    let lig = &complex.ligand;
    let mut ends = lig.bonds.clone();
    let mut kinds = vec![];
    for kind in &lig.kinds {
        kinds.extend((0..4).map(|k| f64::from(u8::from(k == *kind))));
    }
    for (j, sender) in pose.iter().enumerate() {
        let hears = pose.iter().enumerate().filter(|(_, p)| apart(*sender, **p) < radius * radius);
        for (i, _) in hears.take(MOST + 1).filter(|(i, _)| *i != j) {
            ends[0].push(i);
            ends[1].push(j);
        }
    }
    kinds.resize(4 * ends[0].len(), 0.0);
    (ends, kinds)
}
