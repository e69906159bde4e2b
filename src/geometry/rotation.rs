//! Rotations by a vector: its direction is the axis, its length the angle.
use super::vectors::{IDENTITY, Mat3, Vec3, cross, dot, scale, skew};

/// sin θ/θ, (1 − cos θ)/θ² and (θ − sin θ)/θ³ from θ², without loss for small angles.
fn shares(square: f64) -> [f64; 3] {
    if square < 1e-2 {
        // six terms of each series leave an error below 1e-17 here
        let series = |first: f64, from: f64| {
            (0..6).fold((first, 0.0), |(term, sum), k| {
                let n = from + 2.0 * f64::from(k);
                (-term * square / ((n + 1.0) * (n + 2.0)), sum + term)
            })
        };
        return [series(1.0, 1.0).1, series(0.5, 2.0).1, series(1.0 / 6.0, 3.0).1];
    }
    let angle = square.sqrt();
    let (sin, half) = (angle.sin(), (0.5 * angle).sin());
    [sin / angle, 2.0 * half * half / square, (angle - sin) / (square * angle)]
}

/// I + a·W + b·W² for W = w ×.
fn polynomial(w: Vec3, a: f64, b: f64) -> Mat3 {
    let (w1, square) = (skew(w), dot(w, w));
    // W² = w wᵀ − |w|² I
    std::array::from_fn(|i| {
        std::array::from_fn(|j| IDENTITY[i][j] * (1.0 - b * square) + a * w1[i][j] + b * w[i] * w[j])
    })
}

/// The rotation about `w` by |w|.
pub fn rotation(w: Vec3) -> Mat3 {
    let [a, b, _] = shares(dot(w, w));
    polynomial(w, a, b)
}

/// From τ, where a small change w + dw turns what was rotated by δ and ⟨τ, δ⟩ is the change of a function, its gradient in w.
pub fn pulled(w: Vec3, torque: Vec3) -> Vec3 {
    let [_, b, c] = shares(dot(w, w));
    super::vectors::times(&polynomial(w, -b, c), torque)
}

/// The part of a torque that turning about `axis` (of length 1) does not see.
pub fn across(axis: Vec3, v: Vec3) -> Vec3 {
    super::vectors::sub(v, scale(axis, dot(axis, v)))
}

/// q × g, the torque of a force g at the point q.
pub fn torque(q: Vec3, g: Vec3) -> Vec3 {
    cross(q, g)
}
