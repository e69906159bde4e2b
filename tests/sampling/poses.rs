//! Moves of a ligand against numbers from DiffDock's code, their gradients against differences, and the norms of scores.
use crate::fixtures::{fixture, numbers as list};
use candle_core::{DType, Device, Tensor};
use ld3sh::geometry::vectors::{add, cross, length, mean, sub, times};
use ld3sh::geometry::{Motion, Torsions, Turn, Vec3, align, rotation, so3, torus};
use ld3sh::metric::poses::Molecule;
use std::collections::HashMap;

type Named = HashMap<String, Tensor>;

fn read() -> Named {
    let path = format!("{}/tests/fixtures/docking/ligand_poses.safetensors", env!("CARGO_MANIFEST_DIR"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn numbers(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn points(t: &Tensor) -> Vec<Vec3> {
    numbers(t).chunks(3).map(|c| [c[0], c[1], c[2]]).collect()
}

/// The largest distance between points that should be the same.
fn apart(a: &[Vec3], b: &[Vec3]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| length(sub(*a, *b))).fold(0.0, f64::max)
}

/// The rotatable bonds that masks of edges and of atoms say.
fn masked(edges: &[f64], mask: &[f64], rotate: &[f64], atoms: usize) -> Torsions {
    let n = mask.len();
    let marked = (0..n).filter(|e| mask[*e] != 0.0);
    let turn = |(e, row): (usize, &[f64])| {
        let moved = (0..atoms).filter(|k| row[*k] != 0.0).collect();
        Turn { from: edges[e] as usize, to: edges[n + e] as usize, moved }
    };
    Torsions::new(atoms, marked.zip(rotate.chunks(atoms)).map(turn).collect()).unwrap()
}

fn molecule(io: &Named) -> (Torsions, Vec<Vec3>) {
    let [edges, mask, rotate] = ["edge_index", "edge_mask", "mask_rotate"].map(|n| numbers(&io[n]));
    let start = points(&io["pos"]);
    (masked(&edges, &mask, &rotate, start.len()), start)
}

#[test]
fn moves_are_diffdocks() {
    let io = read();
    let (torsions, start) = molecule(&io);
    assert_eq!(torsions.turns().len(), 5);
    for case in ["big", "full", "rot_only", "rot_tiny", "tor_one", "tor_only", "zero"] {
        let of = |part: &str| io.get(&format!("{case}.{part}"));
        let row: Vec<f64> = ["tr", "rot", "tor"].iter().filter_map(|p| of(p)).flat_map(numbers).collect();
        let motion = Motion::from_row(&row);
        assert_eq!(motion.row(), row);
        let off = apart(&motion.apply(&torsions, &start).positions(), &points(of("after").unwrap()));
        assert!(off < 1e-12, "{case}: {off}");
        if let Some(turned) = of("torsion_step_only") {
            let off = apart(torsions.turned(&start, &motion.torsions).positions(), &points(turned));
            assert!(off < 1e-12, "{case}, torsions alone: {off}");
        }
    }
}

#[test]
fn rotations_and_alignments_are_diffdocks() {
    let io = read();
    for (w, want) in points(&io["axis_angle"]).into_iter().zip(points(&io["axis_angle.matrix"]).chunks(3)) {
        assert!(apart(&rotation(w), want) < 1e-12, "{w:?}");
    }
    for case in ["kabsch", "kabsch_reflect"] {
        let columns = |part: &str| points(&io[&format!("{case}.{part}")].t().unwrap().contiguous().unwrap());
        let found = align(&columns("a"), &columns("b"));
        let want = points(&io[&format!("{case}.r")]);
        assert!(apart(&found.rotation, &want) < 1e-12, "{case}");
        assert!(apart(&[found.shift()], &columns("t")) < 1e-12, "{case}");
    }
}

#[test]
fn bonds_that_turn_are_bridges() {
    let io = read();
    let (torsions, start) = molecule(&io);
    let edges = numbers(&io["edge_index"]);
    let half = edges.len() / 2;
    let bonds: Vec<[usize; 2]> = (0..half).step_by(2).map(|e| [edges[e] as usize, edges[half + e] as usize]).collect();
    assert_eq!(Torsions::of_bonds(start.len(), &bonds).unwrap(), torsions);
    // two atoms turn about nothing, a ring does not turn, and nothing turns about a ring's bond
    assert!(Torsions::of_bonds(2, &[[0, 1]]).unwrap().turns().is_empty());
    assert!(Torsions::of_bonds(1, &[]).unwrap().turns().is_empty());
    assert!(Torsions::of_bonds(3, &[[0, 1], [1, 2], [2, 0]]).unwrap().turns().is_empty());
    // halves of one size: that of the first atom turns
    let four = Torsions::of_bonds(4, &[[2, 0], [0, 1], [1, 3]]).unwrap();
    assert_eq!(four.turns(), [Turn { from: 1, to: 0, moved: vec![0, 2] }]);
    let said = |atoms: usize, bonds: &[[usize; 2]]| Torsions::of_bonds(atoms, bonds).unwrap_err().to_string();
    assert!(said(4, &[[0, 1], [2, 3]]).contains("several pieces"));
    assert!(said(2, &[[0, 2]]).contains("no bond between atoms 0 and 2"));
    let odd = Torsions::new(3, vec![Turn { from: 0, to: 1, moved: vec![0, 2] }]).unwrap_err().to_string();
    assert!(odd.contains("bond 0") && odd.contains("must move 1 and not 0"), "{odd}");
    assert!(Torsions::new(3, vec![Turn { from: 0, to: 1, moved: vec![1, 3] }]).is_err());
}

/// Numbers without order, the same in each run.
fn noise(seed: f64, n: usize) -> Vec<f64> {
    (0..n)
        .map(|k| ((k as f64 + 1.0) * 12.9898 + seed * 78.233).sin() * 43758.5453)
        .map(|v| 2.0 * (v - v.floor()) - 1.0)
        .collect()
}

fn inner(a: &[Vec3], b: &[Vec3]) -> f64 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| a * b).sum()
}

/// The derivative of ⟨cot, moved pose⟩ along a direction, by its pull-back and by differences.
fn checked(torsions: &Torsions, start: &[Vec3], row: &[f64]) {
    let n = start.len();
    let of = |v: Vec<f64>| -> Vec<Vec3> { v.chunks(3).map(|c| [c[0], c[1], c[2]]).collect() };
    let (cot, dx, dm) = (of(noise(1.0, 3 * n)), of(noise(2.0, 3 * n)), noise(3.0, row.len()));
    let motion = Motion::from_row(row);
    let (gx, gm) = motion.apply(torsions, start).pull(torsions, &motion, &cot);
    let got = inner(&gx, &dx) + gm.row().iter().zip(&dm).map(|(a, b)| a * b).sum::<f64>();
    let at = |h: f64| {
        let x: Vec<Vec3> = start.iter().zip(&dx).map(|(x, d)| [0, 1, 2].map(|k| x[k] + h * d[k])).collect();
        let row: Vec<f64> = row.iter().zip(&dm).map(|(m, d)| m + h * d).collect();
        inner(&cot, &Motion::from_row(&row).apply(torsions, &x).positions())
    };
    let h = 1e-3;
    let want = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
    assert!((got - want).abs() < 1e-8 * (1.0 + want.abs()), "{got} against {want}");
}

#[test]
fn gradients_of_moves_match_differences() {
    let io = read();
    let (torsions, start) = molecule(&io);
    for (case, size) in [0.0, 1e-6, 0.05, 0.3, 1.0, 3.0].into_iter().enumerate() {
        let row: Vec<f64> = noise(case as f64, 11).iter().map(|v| v * size).collect();
        checked(&torsions, &start, &row);
        checked(&torsions, &start, &row[..6]);
    }
}

#[test]
fn gradients_on_a_line_are_finite() {
    // three atoms on a line, and all in one place: a rotation that nothing determines passes nothing on
    let line = Torsions::new(4, vec![Turn { from: 1, to: 2, moved: vec![2, 3] }]).unwrap();
    for step in [1.0, 0.0] {
        let start: Vec<Vec3> = (0..4).map(|k| [step * f64::from(k), 0.0, 0.0]).collect();
        let motion = Motion { torsions: vec![0.4], ..Motion::default() };
        let moved = motion.apply(&line, &start);
        assert!(apart(&moved.positions(), &start) < 1e-12);
        let (x, m) = moved.pull(&line, &motion, &[[1.0, 2.0, 3.0]; 4]);
        assert!(x.iter().flatten().chain(&m.row()).all(|v| v.is_finite()));
    }
}

#[test]
fn moves_turn_with_the_ligand() {
    let io = read();
    let (torsions, start) = molecule(&io);
    let (r, s) = (rotation([0.3, -1.1, 0.7]), [5.0, -3.0, 11.0]);
    let there = |x: &[Vec3]| -> Vec<Vec3> {
        x.iter()
            .map(|p| {
                let q = times(&r, *p);
                [0, 1, 2].map(|k| q[k] + s[k])
            })
            .collect()
    };
    let motion = Motion::from_row(&noise(4.0, 11));
    let turned = Motion { shift: times(&r, motion.shift), turn: times(&r, motion.turn), ..motion.clone() };
    let want = there(&motion.apply(&torsions, &start).positions());
    assert!(apart(&turned.apply(&torsions, &there(&start)).positions(), &want) < 1e-11);
}

#[test]
fn torsions_move_nothing_as_a_whole() {
    let io = read();
    let (torsions, start) = molecule(&io);
    // to first order: neither the centre nor the turn about it changes
    let h = 1e-5;
    for k in 0..5 {
        let torsion = |h: f64| {
            let mut row = vec![0.0; 11];
            row[6 + k] = h;
            Motion::from_row(&row).apply(&torsions, &start).positions()
        };
        let speed: Vec<Vec3> =
            torsion(h).iter().zip(&torsion(-h)).map(|(a, b)| sub(*a, *b).map(|v| v / (2.0 * h))).collect();
        let centre = mean(&start);
        let spin = start.iter().zip(&speed).map(|(x, v)| cross(sub(*x, centre), *v));
        let spin = spin.fold([0.0; 3], add);
        assert!(length(mean(&speed)) < 1e-9 && length(spin) < 1e-7, "{spin:?}");
    }
}

#[test]
fn norms_of_scores_are_the_published_ones() {
    let want = fixture("docking/score_norms.json");
    let so = &want["so3"];
    for (s, n) in list(&so["sigma"]).into_iter().zip(list(&so["score_norm"])) {
        // the reference hands them out in f32
        assert!((so3::norm(s) / n - 1.0).abs() < 1e-6, "{s}: {} against {n}", so3::norm(s));
    }
    for (k, n) in list(&so["table_1000"]).into_iter().enumerate().step_by(111) {
        let sigma = 0.01 * 200f64.powf(k as f64 / 999.0);
        assert!((so3::computed(sigma) / n - 1.0).abs() < 1e-9, "row {k}: {} against {n}", so3::computed(sigma));
    }
    let ring = &want["torus"];
    let drawn = list(&ring["score_norm_monte_carlo"]);
    for ((s, n), drawn) in
        list(&ring["sigma"]).into_iter().zip(list(&ring["score_norm_quadrature_at_clipped_sigma"])).zip(drawn)
    {
        let got = torus::norm(s)[0];
        assert!((got / n - 1.0).abs() < 2e-3, "{s}: {got} against {n}");
        assert!((got / drawn - 1.0).abs() < 5e-2, "{s}: {got} against {drawn}");
    }
}

#[test]
fn norms_change_smoothly() {
    for s in [0.04, 0.2, 0.9, 1.4] {
        let h: f64 = 1e-3;
        let differences = |f: &dyn Fn(f64) -> f64| (f(s * h.exp()) - f(s * (-h).exp())) / (2.0 * h);
        let want = differences(&so3::computed);
        // the rows that the published code takes are up to one step off the level that they are taken for
        assert!((so3::slope(s) / want - 1.0).abs() < 6e-2, "{s}: {} against {want}", so3::slope(s));
        let want = differences(&|s| torus::norm(s)[0]);
        assert!((torus::norm(s)[1] / want - 1.0).abs() < 1e-4, "{s}: {} against {want}", torus::norm(s)[1]);
    }
    assert_eq!([so3::slope(1e-3), so3::slope(9.0), torus::norm(50.0)[1]], [0.0; 3]);
}

#[test]
fn symmetric_distances_are_spyrmsds() {
    let whole = |v: &serde_json::Value| list(v).into_iter().map(|v| v as usize).collect::<Vec<usize>>();
    let places = |v: &serde_json::Value| -> Vec<Vec3> { list(v).chunks(3).map(|p| [p[0], p[1], p[2]]).collect() };
    for case in fixture("docking/rmsd.json")["cases"].as_array().unwrap() {
        let bonds: Vec<[usize; 2]> = whole(&case["bonds"]).chunks(2).map(|b| [b[0], b[1]]).collect();
        let molecule = Molecule::new(&whole(&case["atomic_numbers"]), &bonds).unwrap();
        let count = whole(&case["automorphisms"])[0];
        assert_eq!(molecule.symmetries(1000), count, "{}", case["smiles"]);
        assert_eq!(molecule.symmetries(1), 1);
        let reference = places(&case["reference"]);
        let (symmetric, plain) = (list(&case["symmetry_rmsd"]), list(&case["plain_rmsd"]));
        for (k, pose) in case["poses"].as_array().unwrap().iter().enumerate() {
            let pose = places(pose);
            let (a, b) =
                (molecule.symmetric_rmsd(&pose, &reference).unwrap(), molecule.rmsd(&pose, &reference).unwrap());
            assert!((a - symmetric[k]).abs() < 1e-9, "{}, pose {k}: {a} against {}", case["smiles"], symmetric[k]);
            assert!((b - plain[k]).abs() < 1e-9, "{}, pose {k}", case["smiles"]);
        }
        let e = molecule.symmetric_rmsd(&reference[1..], &reference).unwrap_err().to_string();
        assert!(e.contains("of a molecule of"), "{e}");
    }
    assert!(Molecule::new(&[], &[]).is_err() && Molecule::new(&[6, 6], &[[0, 2]]).is_err());
}

#[test]
fn many_symmetries_take_no_time() {
    // twelve methyl-like ends on a ring of twelve, each with three alike atoms: 6¹² · 24 ways
    let mut bonds: Vec<[usize; 2]> = (0..12).map(|k| [k, (k + 1) % 12]).collect();
    for k in 0..12 {
        bonds.push([k, 12 + k]);
        bonds.extend((0..3).map(|j| [12 + k, 24 + 3 * k + j]));
    }
    let molecule = Molecule::new(&[6; 60], &bonds).unwrap();
    let turned = |k: usize, by: f64, r: f64, z: f64| {
        let a = std::f64::consts::TAU * (k as f64 + by) / 12.0;
        [r * a.cos(), r * a.sin(), z]
    };
    let place = |k: usize| match k {
        0..12 => turned(k, 0.0, 3.0, 0.0),
        12..24 => turned(k, 0.0, 4.5, 0.0),
        _ => turned((k - 24) / 3, 0.1 * ((k - 24) % 3) as f64 - 0.1, 5.2, 0.7 * ((k - 24) % 2) as f64),
    };
    let reference: Vec<Vec3> = (0..60).map(place).collect();
    // the same, each end numbered otherwise
    let other = |k: usize| if k < 24 { k } else { 24 + (k - 24) / 3 * 3 + (k - 24 + 1) % 3 };
    let pose: Vec<Vec3> = (0..60).map(|k| reference[other(k)]).collect();
    assert!(molecule.rmsd(&pose, &reference).unwrap() > 0.1);
    assert!(molecule.symmetric_rmsd(&pose, &reference).unwrap() < 1e-9);
}
