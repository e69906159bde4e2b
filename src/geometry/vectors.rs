//! Vectors of three numbers and matrices of three rows, in f64.

/// A point or a direction.
pub type Vec3 = [f64; 3];
/// Three rows.
pub type Mat3 = [[f64; 3]; 3];

/// The matrix that changes nothing.
pub const IDENTITY: Mat3 = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// a + b.
pub fn add(a: Vec3, b: Vec3) -> Vec3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

/// a − b.
pub fn sub(a: Vec3, b: Vec3) -> Vec3 {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

/// c · a.
pub fn scale(a: Vec3, c: f64) -> Vec3 {
    a.map(|v| v * c)
}

/// ⟨a, b⟩.
pub fn dot(a: Vec3, b: Vec3) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// |a − b|².
pub fn apart(a: Vec3, b: Vec3) -> f64 {
    let d = sub(a, b);
    dot(d, d)
}

/// |a|.
pub fn length(a: Vec3) -> f64 {
    dot(a, a).sqrt()
}

/// a × b.
pub fn cross(a: Vec3, b: Vec3) -> Vec3 {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// m a.
pub fn times(m: &Mat3, a: Vec3) -> Vec3 {
    [dot(m[0], a), dot(m[1], a), dot(m[2], a)]
}

/// mᵀ a.
pub fn back(m: &Mat3, a: Vec3) -> Vec3 {
    std::array::from_fn(|j| m[0][j] * a[0] + m[1][j] * a[1] + m[2][j] * a[2])
}

/// a b.
pub fn product(a: &Mat3, b: &Mat3) -> Mat3 {
    a.map(|row| back(b, row))
}

/// mᵀ.
pub fn transpose(m: &Mat3) -> Mat3 {
    std::array::from_fn(|i| std::array::from_fn(|j| m[j][i]))
}

/// The matrix of a × ·.
pub fn skew(a: Vec3) -> Mat3 {
    [[0.0, -a[2], a[1]], [a[2], 0.0, -a[0]], [-a[1], a[0], 0.0]]
}

/// The vector v with ⟨m, skew(w)⟩ = ⟨v, w⟩ for every w.
pub fn unskew(m: &Mat3) -> Vec3 {
    [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]]
}

/// Σ a bᵀ over pairs.
pub fn outer(pairs: impl Iterator<Item = (Vec3, Vec3)>) -> Mat3 {
    let mut m = [[0.0; 3]; 3];
    for (a, b) in pairs {
        for (row, a) in m.iter_mut().zip(a) {
            *row = add(*row, scale(b, a));
        }
    }
    m
}

/// The mean of some points, which are not none.
pub fn mean(points: &[Vec3]) -> Vec3 {
    scale(points.iter().copied().fold([0.0; 3], add), 1.0 / points.len() as f64)
}
