//! The score model: from where a ligand's atoms are to a shift, a rotation and torsions.
use super::facts::Facts;
use super::layers::{
    Edges, FAR, HARMONICS, Product, beside, centred, difference, features, lengths, level, messages, mlp, nodes, rows,
    scalars, told, updated, vectors,
};
use crate::Result;
use crate::files::complex::{LANGUAGE, LIGAND, RESIDUES};
use crate::nets::build::{Builder, Id, graph};
use crate::nets::graph::{Absent, Dim, Graph, Layout};
use crate::nets::kernels::irreps::{Irrep, full, width};
use crate::nets::kernels::{Coupled, Directed, Function, Gather, Harmonics, Length, Reduce};
use crate::nets::weights::Weights;
use candle_core::DType;

/// The port of the ligand's places, with respect to which there are gradients.
pub const POSITIONS: &str = "pos";
/// The port of the embedded time.
pub const LEVEL: &str = "level";

/// What all docking networks are given of ligand and receptor.
pub struct Inputs {
    pub pos: Id,
    pub level: Id,
    pub lig: Id,
    pub bond: Id,
    pub lig_ends: [Id; 2],
    pub rec: Id,
    pub language: Option<Id>,
    pub rec_pos: Id,
    pub rec_ends: [Id; 2],
    pub cross_ends: [Id; 2],
}

impl Inputs {
    /// Declares them.
    pub fn new(b: &mut Builder, facts: &Facts, language: bool) -> Result<Inputs> {
        let needed = Absent::Error;
        let ends = |b: &mut Builder, to: &str, from: &str| -> Result<[Id; 2]> {
            Ok([rows(b, to, None, needed)?, rows(b, from, None, needed)?])
        };
        Ok(Inputs {
            pos: rows(b, POSITIONS, Some(3), needed)?,
            level: b.input(LEVEL, &[Dim::Exactly(facts.level)], Layout::Plain, needed)?,
            lig: rows(b, "lig.x", Some(LIGAND.len()), needed)?,
            bond: rows(b, "lig.bond", Some(4), needed)?,
            lig_ends: ends(b, "lig.to", "lig.from")?,
            rec: rows(b, "rec.x", Some(1), needed)?,
            language: if language { Some(rows(b, "rec.language", Some(LANGUAGE), needed)?) } else { None },
            rec_pos: rows(b, "rec.pos", Some(3), needed)?,
            rec_ends: ends(b, "rec.to", "rec.from")?,
            cross_ends: ends(b, "cross.lig", "cross.rec")?,
        })
    }

    /// Features of ligand atoms.
    pub fn ligand(&self, b: &mut Builder, facts: &Facts) -> Result<Id> {
        nodes(&mut b.under("lig_node_embedding"), self.lig, &LIGAND, self.level, facts.ns)
    }

    /// Features of residues. With a language model, what is taken for scalars are its first numbers, and what is taken for its numbers
    /// are the others and the time: so the published weights were trained.
    pub fn receptor(&self, b: &mut Builder, facts: &Facts) -> Result<Id> {
        let b = &mut b.under("rec_node_embedding");
        let Some(language) = self.language else {
            return nodes(b, self.rec, &[RESIDUES], self.level, facts.ns);
        };
        let parts = b.under("language").split(language, &[facts.level, LANGUAGE - facts.level])?;
        let h = nodes(b, self.rec, &[RESIDUES], parts[0], facts.ns)?;
        let time = level(b, self.level, self.rec)?;
        let all = beside(b, &[h, parts[1], time])?;
        b.under("lm_embedding_layer").linear(all, facts.ns)
    }

    /// Bonds and near atoms of the ligand.
    pub fn ligand_edges(&self, b: &mut Builder, facts: &Facts) -> Result<Edges> {
        let b = &mut b.under("lig_edge_embedding");
        let [to, from] = self.lig_ends;
        let v = vectors(b, (self.pos, from), (self.pos, to))?;
        let (bumps, harmonics) = lengths(b, v, facts.near, facts.radius)?;
        let time = level(b, self.level, to)?;
        let x = beside(b, &[self.bond, time, bumps])?;
        Ok(Edges { to, from, told: mlp(b, x, [facts.ns; 2])?, harmonics })
    }

    /// Near residues.
    pub fn receptor_edges(&self, b: &mut Builder, facts: &Facts) -> Result<Edges> {
        let places = [self.rec_pos, self.rec_pos];
        between(&mut b.under("rec_edge_embedding"), facts, places, self.rec_ends, self.level, (facts.near, FAR))
    }
}

/// Edges between places, told the time and their lengths; the first of each is who receives.
pub fn between(
    b: &mut Builder,
    facts: &Facts,
    [here, there]: [Id; 2],
    [to, from]: [Id; 2],
    time: Id,
    (count, last): (usize, f64),
) -> Result<Edges> {
    let v = vectors(b, (there, from), (here, to))?;
    let (bumps, harmonics) = lengths(b, v, count, last)?;
    let time = level(b, time, to)?;
    let x = beside(b, &[time, bumps])?;
    Ok(Edges { to, from, told: mlp(b, x, [facts.ns; 2])?, harmonics })
}

/// What the network gives.
pub fn outputs(facts: &Facts) -> &'static [&'static str] {
    if facts.torsion { &["tr", "rot", "tor"] } else { &["tr", "rot"] }
}

/// The network; whether its receptor is told by a language model is for the file to say.
pub fn network(weights: &mut dyn Weights, facts: &Facts, language: bool, dtype: DType) -> Result<Graph> {
    let made = graph(weights, "", dtype, |b| {
        let given = Inputs::new(b, facts, language)?;
        let turns = match facts.torsion {
            true => {
                let left = Absent::LeftOut;
                let [u, v] = [rows(b, "tor.u", None, left)?, rows(b, "tor.v", None, left)?];
                Some([u, v, rows(b, "tor.bond", None, left)?, rows(b, "tor.atom", None, left)?])
            }
            false => None,
        };
        let (ns, pos) = (facts.ns, given.pos);
        let (mut lig, mut rec) = (given.ligand(b, facts)?, given.receptor(b, facts)?);
        let lig_edges = given.ligand_edges(b, facts)?;
        let rec_edges = given.receptor_edges(b, facts)?;
        let (places, far) = ([pos, given.rec_pos], (facts.far, facts.cross));
        let cross = &mut b.under("cross_edge_embedding");
        let cross = between(cross, facts, places, given.cross_ends, given.level, far)?;
        for layer in 0..facts.layers {
            let of = Product::new(&features(facts, layer), &features(facts, layer + 1));
            let last = layer + 1 == facts.layers;
            let at = &mut b.under(&format!("lig_conv_layers.{layer}"));
            let lig_scalars = scalars(at, lig, ns)?;
            let x = told(at, &lig_edges, [(lig_scalars, lig_edges.to), (lig_scalars, lig_edges.from)])?;
            let inside = messages(at, facts, &of, lig, &lig_edges, x, lig)?;
            let at = &mut b.under(&format!("rec_to_lig_conv_layers.{layer}"));
            let rec_scalars = scalars(at, rec, ns)?;
            let across = told(at, &cross, [(lig_scalars, cross.to), (rec_scalars, cross.from)])?;
            let outside = messages(at, facts, &of, rec, &cross, across, lig)?;
            // weights of the last round's other half are in the files all the same
            let at = &mut b.under(&format!("rec_conv_layers.{layer}"));
            let x = told(at, &rec_edges, [(rec_scalars, rec_edges.to), (rec_scalars, rec_edges.from)])?;
            let own = messages(at, facts, &of, rec, &rec_edges, x, rec)?;
            let at = &mut b.under(&format!("lig_to_rec_conv_layers.{layer}"));
            let back = messages(at, facts, &of, lig, &cross.back(), across, rec)?;
            lig = updated(&mut b.under(&format!("lig.{layer}")), lig, &[inside, outside])?;
            if !last {
                rec = updated(&mut b.under(&format!("rec.{layer}")), rec, &[own, back])?;
            }
        }
        let (shift, turn) = whole(b, facts, &given, lig)?;
        b.output("tr", shift, Layout::Plain);
        b.output("rot", turn, Layout::Plain);
        if let Some(turns) = turns {
            let torsions = torsions(b, facts, pos, lig, turns)?;
            b.output("tor", torsions, Layout::Plain);
        }
        Ok(())
    })?;
    Ok(made.only(outputs(facts))?.one_by_one())
}

/// Shift and rotation, before they are scaled: sums of an odd and of an even vector, of lengths that a small network says.
fn whole(b: &mut Builder, facts: &Facts, given: &Inputs, lig: Id) -> Result<(Id, Id)> {
    let at = &mut b.under("center_edge_embedding");
    let mean = |keep: bool| Reduce { mean: true, dims: vec![1], keep };
    let centre = at.under("centre").apply(mean(true), &[given.pos])?;
    let v = difference(at, given.pos, centre)?;
    let (bumps, harmonics) = lengths(at, v, facts.near, FAR)?;
    let time = level(at, given.level, given.pos)?;
    let x = beside(at, &[bumps, time])?;
    let edge = mlp(at, x, [facts.ns; 2])?;
    let at = &mut b.under("final_conv");
    let near = scalars(at, lig, facts.ns)?;
    let x = beside(at, &[edge, near])?;
    let of = Product::new(&features(facts, facts.layers), &[Irrep::new(2, 1, true), Irrep::new(2, 1, false)]);
    // every atom sends to the one centre
    let arrived = centred(at, facts, &of, lig, harmonics, x)?;
    let parts = b.under("final_conv.parts").split(arrived, &[3; 4])?;
    let shift = b.under("tr").sum(parts[0], parts[2], 1.0)?;
    let turn = b.under("rot").sum(parts[1], parts[3], 1.0)?;
    let head = |b: &mut Builder, v: Id| -> Result<Id> {
        let n = b.under("length").apply(Length, &[v])?;
        let x = b.under("told").concat(n, given.level)?;
        let n = mlp(b, x, [facts.ns, 1])?;
        b.under("directed").apply(Directed, &[v, n])
    };
    Ok((head(&mut b.under("tr_final_layer"), shift)?, head(&mut b.under("rot_final_layer"), turn)?))
}

/// A number for each rotatable bond, from the atoms near its middle and its direction.
fn torsions(b: &mut Builder, facts: &Facts, pos: Id, lig: Id, [u, v, bond, atom]: [Id; 4]) -> Result<Id> {
    let ns = facts.ns;
    let at = &mut b.under("final_edge_embedding");
    let [pu, pv] = [at.under("u").apply(Gather, &[pos, u])?, at.under("v").apply(Gather, &[pos, v])?];
    let middle = at.under("middle").sum(pu, pv, 0.5)?;
    let along = difference(&mut at.under("bond"), pv, pu)?;
    let to_atom = vectors(at, (pos, atom), (middle, bond))?;
    let (bumps, harmonics) = lengths(at, to_atom, facts.near, facts.radius)?;
    let edge = mlp(at, bumps, [ns; 2])?;
    let at = &mut b.under("final_tp_tor");
    let along = at.under("harmonics").apply(Harmonics, &[along])?;
    let even = at.under("second").split(along, &[1, 3, 5])?[2];
    let even = at.under("bonds").apply(Gather, &[even, bond])?;
    // kinds above 2 meet nothing in what nodes have
    let (paths, kinds) = full(&HARMONICS, &[Irrep::new(1, 2, false)], 2);
    let harmonics = at.apply(Coupled::new(paths, [9, 5, width(&kinds)]), &[harmonics, even])?;
    let at = &mut b.under("tor_bond_conv");
    let near = scalars(at, lig, ns)?;
    let [hu, hv] = [at.under("at_u").apply(Gather, &[near, u])?, at.under("at_v").apply(Gather, &[near, v])?];
    let ends = at.under("ends").sum(hu, hv, 1.0)?;
    let edges = Edges { to: bond, from: atom, told: edge, harmonics };
    let x = told(at, &edges, [(near, atom), (ends, bond)])?;
    let out = vec![Irrep::new(ns, 0, true), Irrep::new(ns, 0, false)];
    let of = Product { a: features(facts, facts.layers), s: kinds, out };
    let arrived = messages(at, facts, &of, lig, &edges, x, u)?;
    let at = &mut b.under("tor_final_layer");
    let x = at.under("0").linear_unbiased(arrived, ns)?;
    let x = at.under("1").apply(Function::Tanh, &[x])?;
    let x = at.under("3").linear_unbiased(x, 1)?;
    let sum = Reduce { mean: false, dims: vec![2], keep: false };
    at.under("each").apply(sum, &[x])
}
