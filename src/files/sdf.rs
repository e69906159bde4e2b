//! Poses as SDF (V2000): a record for each, with properties.
use super::atomic;
use super::complex::{Complex, LIGAND};
use crate::geometry::Vec3;
use crate::geometry::vectors::add;
use crate::{Error, Result};
use std::fmt::Write;
use std::path::Path;

/// Symbols by atomic number, from 1.
const SYMBOLS: &str = "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag \
Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf \
Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og";
/// What the format has columns for.
const MOST: usize = 999;

/// A pose with its name and its properties, in the order in which they are written.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The first line of its record.
    pub name: String,
    /// Where its atoms are, around the origin of the complex.
    pub positions: Vec<Vec3>,
    /// Properties: names and values.
    pub properties: Vec<(String, String)>,
}

/// Writes poses of a complex's ligand, in the places that its file has: atoms without hydrogens, bonds, charges.
///
/// # Errors
/// More atoms or bonds than the format has room for, poses of another number of atoms, names that the format cannot hold.
pub fn write(path: impl AsRef<Path>, complex: &Complex, records: &[Record]) -> Result<()> {
    let mut out = String::new();
    for record in records {
        one(&mut out, complex, record)?;
    }
    atomic::write(path, out.as_bytes())
}

fn one(out: &mut String, complex: &Complex, record: &Record) -> Result<()> {
    let ligand = &complex.ligand;
    let (n, m) = (ligand.positions.len(), ligand.kinds.len() / 2);
    if n.max(m) > MOST {
        return Err(Error::value(format!(
            "a ligand of {n} atoms and {m} bonds does not fit into SDF, which holds {MOST} of each"
        )));
    }
    if record.positions.len() != n {
        let m = format!("`{}` has {} atoms, the ligand {n}", record.name, record.positions.len());
        return Err(Error::shape(m, &[&[record.positions.len(), 3], &[n, 3]]));
    }
    let words = record.properties.iter().flat_map(|(name, value)| [name, value]).chain([&record.name]);
    if let Some(bad) = words.clone().find(|w| w.contains(['\n', '\r'])) {
        return Err(Error::value(format!("{bad:?} has several lines, which SDF cannot hold here")));
    }
    if let Some((bad, _)) = record.properties.iter().find(|(name, _)| name.is_empty() || name.contains(['<', '>'])) {
        return Err(Error::value(format!("`{bad}` cannot be the name of a property in SDF")));
    }
    let symbols: Vec<&str> = SYMBOLS.split_whitespace().collect();
    let line = |out: &mut String, text: std::fmt::Arguments| {
        // a String takes whatever it is given
        let _ = writeln!(out, "{text}");
    };
    line(out, format_args!("{}", record.name));
    line(out, format_args!("  ld3sh           3D"));
    line(out, format_args!(""));
    line(out, format_args!("{n:>3}{m:>3}  0  0  0  0  0  0  0  0999 V2000"));
    let columns = LIGAND.len();
    for (k, p) in record.positions.iter().enumerate() {
        let [x, y, z] = add(*p, complex.centre);
        // an element that features do not name
        let symbol = symbols.get(ligand.x[columns * k]).copied().unwrap_or("*");
        line(out, format_args!("{x:>10.4}{y:>10.4}{z:>10.4} {symbol:<3} 0  0  0  0  0  0  0  0  0  0  0  0"));
    }
    for k in (0..2 * m).step_by(2) {
        let (a, b) = (ligand.bonds[0][k] + 1, ligand.bonds[1][k] + 1);
        line(out, format_args!("{a:>3}{b:>3}{:>3}  0", ligand.kinds[k] + 1));
    }
    // charges from −5 on; the last entry means another one
    let charge = |k: usize| ligand.x[columns * k + 3] as i64 - 5;
    let charged: Vec<usize> = (0..n).filter(|k| charge(*k) != 0 && charge(*k) < 6).collect();
    for some in charged.chunks(8) {
        let each: String = some.iter().map(|k| format!(" {:>3} {:>3}", k + 1, charge(*k))).collect();
        line(out, format_args!("M  CHG{:>3}{each}", some.len()));
    }
    line(out, format_args!("M  END"));
    for (name, value) in &record.properties {
        line(out, format_args!("> <{name}>\n{value}\n"));
    }
    line(out, format_args!("$$$$"));
    Ok(())
}
