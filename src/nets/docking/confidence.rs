//! The confidence model: from a pose, with all atoms of the protein, to how sure it is that the pose is near the truth.
use super::facts::Facts;
use super::layers::{Edges, FAR, Product, features, messages, nodes, rows, scalars, told, updated, variances};
use super::score::{Inputs, between};
use crate::Result;
use crate::files::complex::ATOM;
use crate::nets::build::{Builder, Id, graph};
use crate::nets::graph::{Absent, Graph, Layout};
use crate::nets::kernels::{Channels, Reduce};
use crate::nets::weights::Weights;
use candle_core::DType;

/// What the confidence is called.
pub const CONFIDENCE: &str = "confidence";

/// Where the nodes of one kind receive from the others in a round, by the places of convolutions that are numbered through.
struct Round<'f> {
    facts: &'f Facts,
    of: Product,
    first: usize,
}

impl Round<'_> {
    /// What arrives by convolution `k` of this round: from `h` along edges, told scalars of both ends, those of the receiver first.
    fn arrived(&self, b: &mut Builder, k: usize, h: Id, edges: &Edges, scalars: [Id; 2], like: Id) -> Result<Id> {
        let b = &mut b.under(&format!("conv_layers.{}", self.first + k));
        let x = told(b, edges, [(scalars[0], edges.to), (scalars[1], edges.from)])?;
        messages(b, self.facts, &self.of, h, edges, x, like)
    }
}

/// The network, with `outputs` numbers for each pose; whether its receptor is told by a language model is for the file to say.
pub fn network(
    weights: &mut dyn Weights,
    facts: &Facts,
    language: bool,
    outputs: usize,
    dtype: DType,
) -> Result<Graph> {
    let made = graph(weights, "", dtype, |b| {
        let given = Inputs::new(b, facts, language)?;
        let needed = Absent::Error;
        let atom_x = rows(b, "atom.x", Some(ATOM.len()), needed)?;
        let atom_pos = rows(b, "atom.pos", Some(3), needed)?;
        let mut ends = |to: &str, from: &str| -> Result<[Id; 2]> {
            Ok([rows(b, to, None, needed)?, rows(b, from, None, needed)?])
        };
        let atom_ends = ends("atom.to", "atom.from")?;
        let near_ends = ends("near.lig", "near.atom")?;
        let part_ends = ends("part.atom", "part.rec")?;
        let (ns, time) = (facts.ns, given.level);
        let (mut lig, mut rec) = (given.ligand(b, facts)?, given.receptor(b, facts)?);
        let mut atom = nodes(&mut b.under("atom_node_embedding"), atom_x, &ATOM, time, ns)?;
        let lig_edges = given.ligand_edges(b, facts)?;
        let rec_edges = given.receptor_edges(b, facts)?;
        let mut edges = |name: &str, places: [Id; 2], ends: [Id; 2], bumps: (usize, f64)| {
            between(&mut b.under(&format!("{name}_edge_embedding")), facts, places, ends, time, bumps)
        };
        let atom_edges = edges("atom", [atom_pos; 2], atom_ends, (facts.near, facts.radius))?;
        let far = (facts.far, facts.cross);
        let lr = edges("lr", [given.pos, given.rec_pos], given.cross_ends, far)?;
        let la = edges("la", [given.pos, atom_pos], near_ends, far)?;
        let ar = edges("ar", [atom_pos, given.rec_pos], part_ends, (facts.near, FAR))?;
        for layer in 0..facts.layers {
            let of = Product::new(&features(facts, layer), &features(facts, layer + 1));
            let round = Round { facts, of, first: 9 * layer };
            let at = &mut b.under(&format!("round.{layer}"));
            let [l, r, a] = [("lig", lig), ("rec", rec), ("atom", atom)].map(|(n, h)| scalars(&mut at.under(n), h, ns));
            let (l, r, a) = (l?, r?, a?);
            let to_lig = [
                round.arrived(b, 0, lig, &lig_edges, [l, l], lig)?,
                round.arrived(b, 1, rec, &lr, [l, r], lig)?,
                round.arrived(b, 2, atom, &la, [l, a], lig)?,
            ];
            let to_atom = [
                round.arrived(b, 3, atom, &atom_edges, [a, a], atom)?,
                round.arrived(b, 4, lig, &la.back(), [a, l], atom)?,
                round.arrived(b, 5, rec, &ar, [a, r], atom)?,
            ];
            let to_rec = [
                round.arrived(b, 6, rec, &rec_edges, [r, r], rec)?,
                round.arrived(b, 7, lig, &lr.back(), [r, l], rec)?,
                round.arrived(b, 8, atom, &ar.back(), [r, a], rec)?,
            ];
            lig = updated(&mut b.under(&format!("lig.{layer}")), lig, &to_lig)?;
            // what arrives in the last round nobody reads, and the pruned graph computes no more
            atom = updated(&mut b.under(&format!("atom.{layer}")), atom, &to_atom)?;
            rec = updated(&mut b.under(&format!("rec.{layer}")), rec, &to_rec)?;
        }
        let all = numbers(b, facts, lig)?;
        let b = &mut b.under("confidence_predictor");
        let x = b.under("mean").apply(Reduce { mean: true, dims: vec![1], keep: false }, &[all])?;
        let x = hidden(b, x, [0, 1, 2], ns)?;
        let x = hidden(b, x, [4, 5, 6], ns)?;
        let x = b.under("8").linear(x, outputs)?;
        b.output(CONFIDENCE, x, Layout::Plain);
        Ok(())
    })?;
    Ok(made.only(&[CONFIDENCE])?.one_by_one())
}

/// The numbers of an atom: the first ones, and the last ones, which a mirror changes, where there are such.
fn numbers(b: &mut Builder, facts: &Facts, lig: Id) -> Result<Id> {
    let b = &mut b.under("numbers");
    let ns = facts.ns;
    if facts.layers < 3 {
        return scalars(b, lig, ns);
    }
    let middle = b.channels(lig) - 2 * ns;
    let parts = b.under("parts").split(lig, &[ns, middle, ns])?;
    b.concat(parts[0], parts[2])
}

/// Linear, batch norm as it is after training, ReLU.
fn hidden(b: &mut Builder, x: Id, [linear, norm, relu]: [usize; 3], width: usize) -> Result<Id> {
    let x = b.under(&linear.to_string()).linear(x, width)?;
    let at = &mut b.under(&norm.to_string());
    let mut values = |name: &str| at.values(name, &[width]);
    let (weight, bias) = (values("weight")?, values("bias")?);
    let (mean, var) = (values("running_mean")?, variances(at, width)?);
    let each = weight.iter().zip(bias).zip(mean.iter().zip(var)).map(|((w, b), (m, v))| {
        let scale = w / (v + 1e-5).sqrt();
        (scale, b - m * scale)
    });
    let op = Channels::new(each.collect::<Vec<_>>());
    let x = at.apply(op, &[x])?;
    b.under(&relu.to_string()).relu(x)
}
