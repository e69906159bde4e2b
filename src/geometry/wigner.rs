//! How vectors of irreducible kinds of rotation join: real Wigner 3j coefficients in e3nn's basis, of Frobenius norm 1.

/// C[i][j][k] for kinds l1, l2, l3 with 2l + 1 numbers each, row-major; none where the three do not join.
///
/// A vector of kind 1 is x, y, z, and kind 2 is that of the spherical harmonics beside it.
pub fn joint(l1: usize, l2: usize, l3: usize) -> Option<Vec<f64>> {
    if l3 < l1.abs_diff(l2) || l3 > l1 + l2 {
        return None;
    }
    let dims = [l1, l2, l3].map(|l| 2 * l + 1);
    let [a, b, c] = [l1, l2, l3].map(basis);
    let mut out = vec![0.0; dims.iter().product()];
    for (m1, row1) in a.iter().enumerate() {
        for (m2, row2) in b.iter().enumerate() {
            let (p, q) = (m1 as i32 - l1 as i32, m2 as i32 - l2 as i32);
            if (p + q).unsigned_abs() as usize > l3 {
                continue;
            }
            let row3 = &c[(p + q + l3 as i32) as usize];
            let value = clebsch_gordan([l1 as i32, l2 as i32, l3 as i32], [p, q]);
            for (i, x) in row1.iter().enumerate() {
                for (j, y) in row2.iter().enumerate() {
                    for (k, z) in row3.iter().enumerate() {
                        // the last kind's basis is conjugated; the product is real
                        let xy = times(*x, *y);
                        out[(i * dims[1] + j) * dims[2] + k] += value * (xy[0] * z[0] + xy[1] * z[1]);
                    }
                }
            }
        }
    }
    let norm = out.iter().map(|v| v * v).sum::<f64>().sqrt();
    Some(out.into_iter().map(|v| v / norm).collect())
}

fn times(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

/// For each complex harmonic what each real one has of it, as real and imaginary parts.
fn basis(l: usize) -> Vec<Vec<[f64; 2]>> {
    let half = 0.5f64.sqrt();
    let mut q = vec![vec![[0.0; 2]; 2 * l + 1]; 2 * l + 1];
    for m in 1..=l {
        let sign = if m % 2 == 0 { half } else { -half };
        q[l - m][l + m] = [half, 0.0];
        q[l - m][l - m] = [0.0, -half];
        q[l + m][l + m] = [sign, 0.0];
        q[l + m][l - m] = [0.0, sign];
    }
    q[l][l] = [1.0, 0.0];
    // (−i)^l makes the coefficients real
    let phase = [[1.0, 0.0], [0.0, -1.0], [-1.0, 0.0], [0.0, 1.0]][l % 4];
    q.iter_mut().flatten().for_each(|v| *v = times(*v, phase));
    q
}

/// ⟨l1 m1 l2 m2 | l3 m1+m2⟩ by Racah's formula; exact in f64 for the small kinds that are asked for.
fn clebsch_gordan([l1, l2, l3]: [i32; 3], [m1, m2]: [i32; 2]) -> f64 {
    let f = |n: i32| (1..=n).map(f64::from).product::<f64>();
    let m3 = m1 + m2;
    let (first, last) = ((l2 - l3 - m1).max(l1 - l3 + m2).max(0), (l1 + l2 - l3).min(l1 - m1).min(l2 + m2));
    let sum: f64 = (first..=last)
        .map(|k| {
            let below = f(k)
                * f(l1 + l2 - l3 - k)
                * f(l1 - m1 - k)
                * f(l2 + m2 - k)
                * f(l3 - l2 + m1 + k)
                * f(l3 - l1 - m2 + k);
            if k % 2 == 0 { 1.0 / below } else { -1.0 / below }
        })
        .sum();
    let triangle = f(l1 + l2 - l3) * f(l1 - l2 + l3) * f(l2 + l3 - l1) / f(l1 + l2 + l3 + 1);
    let ends = f(l1 + m1) * f(l1 - m1) * f(l2 + m2) * f(l2 - m2) * f(l3 + m3) * f(l3 - m3);
    (f64::from(2 * l3 + 1) * triangle * ends).sqrt() * sum
}
