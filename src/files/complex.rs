//! A prepared complex: a ligand and a receptor as docking networks take them, with features and edges, in a safetensors file.
use super::safetensors as st;
use crate::geometry::vectors::{add, mean, sub};
use crate::geometry::{Torsions, Turn, Vec3};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// Numbers that a language model has for each residue (ESM2, 650M).
pub const LANGUAGE: usize = 1280;
/// How many entries each column of a ligand atom's features may have: element, chirality, degree, charge, implicit valence, hydrogens,
/// radical electrons, hybridisation, aromaticity, rings, and rings of 3 to 8.
pub const LIGAND: [usize; 16] = [119, 4, 12, 12, 8, 10, 6, 6, 2, 8, 2, 2, 2, 2, 2, 2];
/// How many kinds of residues there are.
pub const RESIDUES: usize = 38;
/// How many entries each column of a protein atom's features may have: residue, element, first letters of its name, name.
pub const ATOM: [usize; 4] = [38, 119, 23, 38];

/// Edges by the numbers of their ends: who receives, and who sends.
pub type Ends = [Vec<usize>; 2];

/// A ligand: its atoms, bonds and what turns.
#[derive(Debug, Clone, PartialEq)]
pub struct Ligand {
    /// Sixteen categories for each atom, by [`LIGAND`].
    pub x: Vec<usize>,
    /// Where its atoms are.
    pub positions: Vec<Vec3>,
    /// Each bond in both directions, one after the other.
    pub bonds: Ends,
    /// For each of these its kind: single, double, triple, aromatic.
    pub kinds: Vec<usize>,
    /// Bonds that turn.
    pub torsions: Torsions,
}

/// A receptor by its residues.
#[derive(Debug, Clone, PartialEq)]
pub struct Receptor {
    /// The kind of each.
    pub x: Vec<usize>,
    /// Where its Cα is.
    pub positions: Vec<Vec3>,
    /// Residues that hear each other.
    pub edges: Ends,
    /// A language model's numbers for each, where there are some.
    pub language: Option<Vec<f64>>,
}

/// A receptor's atoms without hydrogens, for networks that look at them.
#[derive(Debug, Clone, PartialEq)]
pub struct Atoms {
    /// Four categories for each, by [`ATOM`].
    pub x: Vec<usize>,
    /// Where they are.
    pub positions: Vec<Vec3>,
    /// Atoms that hear each other.
    pub edges: Ends,
    /// The residue of each.
    pub residue: Vec<usize>,
}

/// A ligand and a receptor, which lie around the origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Complex {
    /// The ligand, in the pose that the file has.
    pub ligand: Ligand,
    /// The receptor.
    pub receptor: Receptor,
    /// Its atoms, where they were prepared.
    pub atoms: Option<Atoms>,
    /// Where the origin lies in the file: the mean of the residues' places.
    pub centre: Vec3,
}

/// What a file holds, with errors that name its tensor.
struct Held(BTreeMap<String, Tensor>);

impl Held {
    fn tensor(&self, name: &str, shape: &[Option<usize>]) -> Result<&Tensor> {
        let Some(t) = self.0.get(name) else {
            let e = Error::new(Kind::Format, format!("a prepared complex needs the tensor `{name}`"));
            return Err(e.hint("docs/docking.md lists what it holds"));
        };
        let fits = t.rank() == shape.len() && t.dims().iter().zip(shape).all(|(n, w)| w.is_none_or(|w| w == *n));
        match fits {
            true => Ok(t),
            false => {
                let wanted: Vec<String> = shape.iter().map(|n| n.map_or("…".into(), |n| n.to_string())).collect();
                let m = format!("`{name}` has shape {:?}, expected [{}]", t.dims(), wanted.join(", "));
                Err(Error::new(Kind::Format, m))
            }
        }
    }

    fn numbers(&self, name: &str, shape: &[Option<usize>]) -> Result<Vec<f64>> {
        let all = self.tensor(name, shape)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        match all.iter().find(|v| !v.is_finite()) {
            None => Ok(all),
            Some(bad) => Err(Error::new(Kind::Format, format!("`{name}` holds {bad}"))),
        }
    }

    /// Whole numbers, of which the k-th of each `columns.len()` is below `columns[k]`.
    fn counts(&self, name: &str, shape: &[Option<usize>], columns: &[usize]) -> Result<Vec<usize>> {
        let all = self.numbers(name, shape)?;
        let one = |(i, v): (usize, &f64)| {
            let most = columns[i % columns.len()];
            match v.fract() == 0.0 && *v >= 0.0 && *v < most as f64 {
                true => Ok(*v as usize),
                false => {
                    let at =
                        if columns.len() > 1 { format!(" in column {}", i % columns.len()) } else { String::new() };
                    Err(Error::new(Kind::Format, format!("`{name}` holds {v}{at}, which is no number below {most}")))
                }
            }
        };
        all.iter().enumerate().map(one).collect()
    }

    fn places(&self, name: &str, rows: Option<usize>) -> Result<Vec<Vec3>> {
        let all = self.numbers(name, &[rows, Some(3)])?;
        match all.is_empty() {
            false => Ok(all.chunks(3).map(|p| [p[0], p[1], p[2]]).collect()),
            true => Err(Error::new(Kind::Format, format!("`{name}` is empty"))),
        }
    }

    fn ends(&self, name: &str, nodes: usize) -> Result<Ends> {
        let all = self.counts(name, &[Some(2), None], &[nodes])?;
        let (to, from) = all.split_at(all.len() / 2);
        Ok([to.to_vec(), from.to_vec()])
    }

    fn ligand(&self) -> Result<Ligand> {
        let positions = self.places("lig.pos", None)?;
        let n = positions.len();
        let x = self.counts("lig.x", &[Some(n), Some(16)], &LIGAND)?;
        let bonds = self.ends("lig.edge_index", n)?;
        let e = bonds[0].len();
        let paired = |k: usize| (bonds[0][k], bonds[1][k]) == (bonds[1][k + 1], bonds[0][k + 1]);
        if e % 2 == 1 || (0..e).step_by(2).any(|k| !paired(k)) {
            let m = "`lig.edge_index` must hold each bond twice in a row, in both directions";
            return Err(Error::new(Kind::Format, m));
        }
        let kinds = self.counts("lig.edge_type", &[Some(e)], &[4])?;
        let torsions = match self.0.contains_key("lig.mask_rotate") {
            true => {
                let turns = self.counts("lig.edge_mask", &[Some(e)], &[2])?;
                let turns: Vec<usize> = (0..e).filter(|k| turns[*k] == 1).collect();
                let masks = self.counts("lig.mask_rotate", &[Some(turns.len()), Some(n)], &[2])?;
                let turn = |(e, mask): (usize, &[usize])| Turn {
                    from: bonds[0][e],
                    to: bonds[1][e],
                    moved: (0..n).filter(|k| mask[*k] == 1).collect(),
                };
                Torsions::new(n, turns.into_iter().zip(masks.chunks(n)).map(turn).collect())
            }
            // the bonds say it too
            false => {
                let each: Vec<[usize; 2]> = (0..e).step_by(2).map(|k| [bonds[0][k], bonds[1][k]]).collect();
                Torsions::of_bonds(n, &each)
            }
        };
        let torsions = torsions.map_err(|e| Error::new(Kind::Format, e.message().to_string()))?;
        Ok(Ligand { x, positions, bonds, kinds, torsions })
    }

    fn receptor(&self) -> Result<Receptor> {
        let positions = self.places("rec.pos", None)?;
        let n = positions.len();
        let language = match self.0.contains_key("rec.language") {
            true => Some(self.numbers("rec.language", &[Some(n), Some(LANGUAGE)])?),
            false => None,
        };
        let x = self.counts("rec.residue_type", &[Some(n)], &[RESIDUES])?;
        Ok(Receptor { x, positions, edges: self.ends("rec.edge_index", n)?, language })
    }

    fn atoms(&self, residues: usize) -> Result<Option<Atoms>> {
        if !self.0.contains_key("atom.pos") {
            return Ok(None);
        }
        let positions = self.places("atom.pos", None)?;
        let n = positions.len();
        let x = self.counts("atom.x", &[Some(n), Some(4)], &ATOM)?;
        let residue = self.counts("atom.residue", &[Some(n)], &[residues])?;
        Ok(Some(Atoms { x, positions, edges: self.ends("atom.edge_index", n)?, residue }))
    }
}

impl Complex {
    /// Reads a prepared complex.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape, or whose numbers mean nothing, by its name.
    pub fn load(path: impl AsRef<Path>) -> Result<Complex> {
        let path = path.as_ref();
        let held = Held(st::read(path)?.tensors.into_iter().collect());
        Complex::of(&held).map_err(|e| e.context(format!("`{}`", path.display())))
    }

    fn of(held: &Held) -> Result<Complex> {
        let (ligand, receptor) = (held.ligand()?, held.receptor()?);
        let atoms = held.atoms(receptor.x.len())?;
        Ok(Complex { ligand, receptor, atoms, centre: [0.0; 3] }.centred())
    }

    /// The same around the origin.
    pub fn centred(mut self) -> Complex {
        let here = mean(&self.receptor.positions);
        let atoms = self.atoms.iter_mut().flat_map(|a| &mut a.positions);
        let all = self.ligand.positions.iter_mut().chain(&mut self.receptor.positions).chain(atoms);
        all.for_each(|p| *p = sub(*p, here));
        self.centre = add(self.centre, here);
        self
    }

    /// Writes it, in the places that it was read in.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let cpu = &Device::Cpu;
        let there = |all: &[Vec3]| -> Result<Tensor> {
            let flat: Vec<f64> = all.iter().flat_map(|p| add(*p, self.centre)).collect();
            Ok(Tensor::from_vec(flat, (all.len(), 3), cpu)?)
        };
        let whole = |all: &[usize], shape: &[usize]| -> Result<Tensor> {
            let all: Vec<i64> = all.iter().map(|v| *v as i64).collect();
            Ok(Tensor::from_vec(all, shape, cpu)?)
        };
        let ends = |e: &Ends| whole(&e.concat(), &[2, e[0].len()]);
        let (lig, rec) = (&self.ligand, &self.receptor);
        let (n, e) = (lig.positions.len(), lig.kinds.len());
        let turns = lig.torsions.turns();
        let at = |t: &Turn| (0..e).find(|k| (lig.bonds[0][*k], lig.bonds[1][*k]) == (t.from, t.to));
        let mut marked = vec![0; e];
        turns.iter().filter_map(at).for_each(|k| marked[k] = 1);
        let masks: Vec<usize> = turns.iter().flat_map(|t| (0..n).map(|k| usize::from(t.moved.contains(&k)))).collect();
        let mut out = vec![
            ("lig.x", whole(&lig.x, &[n, 16])?),
            ("lig.pos", there(&lig.positions)?),
            ("lig.edge_index", ends(&lig.bonds)?),
            ("lig.edge_type", whole(&lig.kinds, &[e])?),
            ("lig.edge_mask", whole(&marked, &[e])?),
            ("lig.mask_rotate", whole(&masks, &[turns.len(), n])?),
            ("rec.residue_type", whole(&rec.x, &[rec.x.len()])?),
            ("rec.pos", there(&rec.positions)?),
            ("rec.edge_index", ends(&rec.edges)?),
        ];
        if let Some(language) = &rec.language {
            let t = Tensor::from_vec(language.clone(), (rec.x.len(), LANGUAGE), cpu)?;
            out.push(("rec.language", t.to_dtype(DType::F32)?));
        }
        if let Some(atoms) = &self.atoms {
            let n = atoms.positions.len();
            out.push(("atom.x", whole(&atoms.x, &[n, 4])?));
            out.push(("atom.pos", there(&atoms.positions)?));
            out.push(("atom.edge_index", ends(&atoms.edges)?));
            out.push(("atom.residue", whole(&atoms.residue, &[n])?));
        }
        let named: Vec<(String, Tensor)> = out.into_iter().map(|(name, t)| (name.to_string(), t)).collect();
        st::write(path, &named, &[])
    }
}
