//! Pictures of point clouds: small shaded balls seen from afar, nearer ones before others, from several sides.
use crate::files::image::Image;
use crate::{Error, Result};

/// How clouds are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudOptions {
    /// Pixels of a view's side.
    pub size: usize,
    /// From where: azimuth and elevation in degrees, z being up; a picture for each, side by side.
    pub views: Vec<(f64, f64)>,
    /// The radius of a ball, in units of the cloud's extent; by default less for more points.
    pub radius: Option<f64>,
    /// Red, green and blue of the balls.
    pub color: [u8; 3],
    /// Which coordinate is up: 0, 1 or 2.
    pub up: usize,
    /// Half of the side of the cube that fills the picture; by default as the cloud needs it.
    pub extent: Option<f64>,
    /// Clouds in a row; by default about as many as rows.
    pub columns: Option<usize>,
}

impl Default for CloudOptions {
    fn default() -> Self {
        CloudOptions {
            size: 200,
            views: vec![(-52.0, 26.0)],
            radius: None,
            color: [92, 132, 190],
            up: 2,
            extent: None,
            columns: None,
        }
    }
}

/// The most pixels of a picture.
const LARGEST: usize = 1 << 28;
const SHEET: [u8; 3] = [255; 3];
/// Pixels of each side of a pixel that are drawn and averaged.
const FINE: usize = 2;

/// The direction of the light, seen from the eye: to the right, up, and towards the eye.
const LIGHT: [f64; 3] = [-0.45, 0.6, 0.66];

/// Draws clouds, each of points [x, y, z]: a row of views for each, in a grid.
///
/// Errors: no clouds, a cloud without points or with one that is not finite, sizes that no picture has.
pub fn clouds(all: &[Vec<[f64; 3]>], o: &CloudOptions) -> Result<Image> {
    let refuse = |m: String| Err(Error::value(format!("cloud::picture: {m}")));
    if !(8..=4096).contains(&o.size) {
        return refuse(format!("size must be within [8, 4096] pixels, not {}", o.size));
    }
    if o.views.is_empty() || o.views.len() > 64 || o.views.iter().any(|(a, e)| !(a.is_finite() && e.is_finite())) {
        return refuse("views must be 1 to 64 pairs [azimuth, elevation] in degrees".into());
    }
    if o.up > 2 {
        return refuse(format!("up must be 0, 1 or 2 (x, y or z), not {}", o.up));
    }
    let positive = |name: &str, v: Option<f64>| match v.filter(|v| !(*v > 0.0 && v.is_finite())) {
        Some(v) => Err(Error::value(format!("cloud::picture: {name} must be a finite number above 0, not {v}"))),
        None => Ok(()),
    };
    positive("radius", o.radius)?;
    positive("extent", o.extent)?;
    if all.is_empty() {
        return refuse("there are no clouds".into());
    }
    for (i, cloud) in all.iter().enumerate() {
        if cloud.is_empty() {
            return refuse(format!("cloud {i} has no points"));
        }
        if let Some(k) = cloud.iter().position(|p| p.iter().any(|v| !v.is_finite())) {
            return refuse(format!("point {k} of cloud {i} is not finite"));
        }
    }
    let across = (all.len() as f64 / o.views.len() as f64).sqrt().ceil() as usize;
    let columns = o.columns.unwrap_or(across).clamp(1, all.len());
    let rows = all.len().div_ceil(columns);
    let (width, height) = (columns * o.views.len() * o.size, rows * o.size);
    if width.saturating_mul(height) > LARGEST {
        return refuse(format!(
            "{} clouds of {} views are {width}×{height} pixels, which is too large",
            all.len(),
            o.views.len()
        ));
    }
    let mut out = Image::filled(width, height, 3, SHEET)?;
    for (i, cloud) in all.iter().enumerate() {
        let (row, column) = (i / columns, i % columns);
        for (v, view) in o.views.iter().enumerate() {
            let picture = one(cloud, *view, o)?;
            out.paste(&picture, (column * o.views.len() + v) * o.size, row * o.size);
        }
    }
    Ok(out)
}

/// What the eye sees: to the right, up, and towards it.
fn turned(p: [f64; 3], (azimuth, elevation): (f64, f64), up: usize) -> [f64; 3] {
    // up becomes z; the others keep their order around it
    let p = [p[(up + 1) % 3], p[(up + 2) % 3], p[up]];
    let ((sa, ca), (se, ce)) = (azimuth.to_radians().sin_cos(), elevation.to_radians().sin_cos());
    let right = -sa * p[0] + ca * p[1];
    let ahead = ca * p[0] + sa * p[1];
    [right, ce * p[2] - se * ahead, ce * ahead + se * p[2]]
}

fn one(cloud: &[[f64; 3]], view: (f64, f64), o: &CloudOptions) -> Result<Image> {
    let ends = |axis: usize| {
        cloud.iter().map(|p| p[axis]).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)))
    };
    let middle: [f64; 3] = std::array::from_fn(|k| 0.5 * (ends(k).0 + ends(k).1));
    let seen: Vec<[f64; 3]> =
        cloud.iter().map(|p| turned([p[0] - middle[0], p[1] - middle[1], p[2] - middle[2]], view, o.up)).collect();
    // as large in every view: the farthest point from the middle
    let reach = cloud
        .iter()
        .map(|p| (0..3).map(|k| (p[k] - middle[k]) * (p[k] - middle[k])).sum::<f64>().sqrt())
        .fold(0.0, f64::max);
    let extent = o.extent.unwrap_or(reach).max(1e-12);
    let ball = o.radius.unwrap_or((0.9 / (cloud.len() as f64).sqrt()).clamp(0.012, 0.12)) * extent;
    let n = o.size * FINE;
    let scale = 0.5 * n as f64 / (extent + ball);
    let radius = (ball * scale).max(0.75);
    let mut depth = vec![f64::NEG_INFINITY; n * n];
    let mut light = vec![[0f32; 3]; n * n];
    let (near, far) = seen.iter().fold((f64::NEG_INFINITY, f64::INFINITY), |(n, f), p| (p[2].max(n), p[2].min(f)));
    for p in &seen {
        let (cx, cy) = (0.5 * n as f64 + p[0] * scale, 0.5 * n as f64 - p[1] * scale);
        // what is farther is paler
        let fade = if near > far { (near - p[2]) / (near - far) } else { 0.0 };
        let span = |c: f64| ((c - radius).floor().max(0.0) as usize, ((c + radius).ceil().max(0.0) as usize).min(n));
        let ((x0, x1), (y0, y1)) = (span(cx), span(cy));
        for y in y0..y1 {
            for x in x0..x1 {
                let (dx, dy) = ((x as f64 + 0.5 - cx) / radius, (cy - y as f64 - 0.5) / radius);
                let left = 1.0 - dx * dx - dy * dy;
                if left < 0.0 {
                    continue;
                }
                let dz = left.sqrt();
                let z = p[2] * scale + dz * radius;
                let at = y * n + x;
                if z <= depth[at] {
                    continue;
                }
                depth[at] = z;
                let facing = (dx * LIGHT[0] + dy * LIGHT[1] + dz * LIGHT[2]).max(0.0);
                let shade = 0.42 + 0.66 * facing;
                light[at] = std::array::from_fn(|k| {
                    let lit = (f64::from(o.color[k]) * shade).min(255.0);
                    (lit + 0.45 * fade * (f64::from(SHEET[k]) - lit)) as f32
                });
            }
        }
    }
    let mut out = Image::filled(o.size, o.size, 3, SHEET)?;
    for y in 0..o.size {
        for x in 0..o.size {
            let mut sum = [0f32; 3];
            for (fy, fx) in (0..FINE * FINE).map(|k| (k / FINE, k % FINE)) {
                let at = (y * FINE + fy) * n + x * FINE + fx;
                let drawn = depth[at] > f64::NEG_INFINITY;
                sum.iter_mut()
                    .zip(light[at])
                    .zip(SHEET)
                    .for_each(|((s, v), w)| *s += if drawn { v } else { f32::from(w) });
            }
            let at = (y * o.size + x) * 3;
            sum.iter().enumerate().for_each(|(k, s)| out.data[at + k] = (s / (FINE * FINE) as f32 + 0.5) as u8);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ball_is_a_disc_and_the_nearer_hides_the_other() -> Result<()> {
        let o = CloudOptions {
            size: 40,
            extent: Some(1.0),
            radius: Some(0.5),
            views: vec![(0.0, 0.0)],
            ..CloudOptions::default()
        };
        let dark = |i: &Image| i.data.chunks_exact(3).filter(|p| p[0] < 250).count() as f64;
        let single = clouds(&[vec![[0.0; 3]]], &o)?;
        // radius 0.5 of 1.5 is a third of half the picture
        let area = std::f64::consts::PI * (20.0f64 / 3.0).powi(2);
        assert!((dark(&single) / area - 1.0).abs() < 0.15, "{} {area}", dark(&single));
        // seen along x: of two on one line of sight only one shows
        let two = clouds(&[vec![[-0.2, 0.0, 0.0], [0.2, 0.0, 0.0]]], &o)?;
        assert!((dark(&two) / area - 1.0).abs() < 0.15);
        let apart = clouds(&[vec![[0.0, -0.6, 0.0], [0.0, 0.6, 0.0]]], &o)?;
        assert!(dark(&apart) > 1.6 * area);
        Ok(())
    }

    #[test]
    fn views_and_clouds_lie_side_by_side() -> Result<()> {
        let o = CloudOptions {
            size: 16,
            views: vec![(0.0, 0.0), (90.0, 0.0)],
            columns: Some(2),
            ..CloudOptions::default()
        };
        let cloud = vec![[0.0; 3], [1.0, 0.0, 0.0]];
        let i = clouds(&[cloud.clone(), cloud.clone(), cloud], &o)?;
        assert_eq!((i.width, i.height), (64, 32));
        Ok(())
    }
}
