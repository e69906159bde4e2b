//! Images of other sizes: the nearest pixel, or interpolated along each axis.
use super::super::lower::{Lower, Step, V};
use super::super::num::Num;
use super::axes;
use crate::nets::kernels::{Mix, Up2};
use crate::tensor::dtype::elements;
use crate::{Error, Kind, Result};

/// How places in the result are told as places in the image.
struct Coordinates {
    mode: String,
    from: usize,
    to: usize,
    scale: f64,
}

impl Coordinates {
    fn at(&self, j: usize) -> Result<f64> {
        // in f32, as the runtimes have it: what lies halfway between two pixels is nearest to the one that it is there
        let (from, to, s, j) = (self.from as f32, self.to as f32, self.scale as f32, j as f32);
        Ok(f64::from(match &*self.mode {
            "half_pixel" => (j + 0.5) / s - 0.5,
            "pytorch_half_pixel" => {
                if to > 1.0 {
                    (j + 0.5) / s - 0.5
                } else {
                    0.0
                }
            }
            "asymmetric" => j / s,
            "align_corners" => {
                if to > 1.0 {
                    j * (from - 1.0) / (to - 1.0)
                } else {
                    0.0
                }
            }
            "half_pixel_symmetric" => {
                let offset = from / 2.0 * (1.0 - to / (s * from));
                offset + (j + 0.5) / s - 0.5
            }
            other => return Err(Error::value(format!("places are told as `{other}`, which is not run"))),
        }))
    }
}

/// The weights of a filter around a place: those outside count for the edge, or for nothing.
fn taps(at: f64, n: usize, reach: f64, outside: bool, weight: impl Fn(f64) -> f64) -> Vec<(usize, f64)> {
    let (first, end) = ((at - reach).floor() as i64, (at + reach).ceil() as i64);
    let mut all: Vec<(usize, f64)> = vec![];
    for i in first..=end {
        let w = weight(i as f64 - at);
        let inside = (0..n as i64).contains(&i);
        if w == 0.0 || (!inside && !outside) {
            continue;
        }
        let i = i.clamp(0, n as i64 - 1) as usize;
        match all.iter_mut().find(|(k, _)| *k == i) {
            Some((_, sum)) => *sum += w,
            None => all.push((i, w)),
        }
    }
    let sum: f64 = all.iter().map(|(_, w)| w).sum();
    all.iter_mut().for_each(|(_, w)| *w /= sum);
    all
}

/// An image of another size.
pub fn resize(low: &mut Lower, step: &Step) -> Result<V> {
    let mut x = step.input(0)?;
    let rank = low.rank(x);
    let upsample = step.node.op == "Upsample";
    let (scales, sizes) = if upsample { (step.maybe(1), None) } else { (step.maybe(2), step.maybe(3)) };
    let dims = match step.ints("axes") {
        Some(all) => axes(all, rank)?,
        None => (0..rank).collect(),
    };
    let scales = match scales {
        Some(v) => low.floats(v)?.ok_or_else(|| Error::value("its scales are computed from the input"))?,
        None => vec![],
    };
    let sizes: Option<Vec<Num>> = match sizes.filter(|_| scales.is_empty()) {
        Some(v) => Some(match low.known(v) {
            Some(all) => all.to_vec(),
            None => low.whole(v, "its sizes")?.into_iter().map(Num::from).collect(),
        }),
        None => None,
    };
    if sizes.as_ref().map_or(scales.len(), Vec::len) != dims.len() {
        return Err(Error::new(Kind::Format, "its scales or sizes do not fit its axes"));
    }
    if step.text("keep_aspect_ratio_policy", "stretch") != "stretch" {
        return Err(Error::value("a size that keeps the aspect ratio is not run")
            .hint("export it with the size that it comes to"));
    }
    let mode = step.text("mode", "nearest");
    let told = if upsample { "asymmetric".into() } else { step.text("coordinate_transformation_mode", "half_pixel") };
    let round = if upsample { "floor".into() } else { step.text("nearest_mode", "round_prefer_floor") };
    let (smooth, outside) = (step.int("antialias", 0) != 0, step.int("exclude_outside", 0) == 0);
    let a = step.float("cubic_coeff_a", -0.75);
    let mut changed = vec![];
    for (i, d) in dims.iter().enumerate() {
        let own = low.sizes(x)[*d];
        let Some(from) = own.fixed() else {
            let same = sizes.as_ref().map_or(scales.get(i) == Some(&1.0), |s| s[i] == own.into());
            if same {
                continue;
            }
            return Err(Error::value("it changes the number of samples"));
        };
        let (to, scale) = match &sizes {
            Some(s) => {
                let to = usize::try_from(s[i].plain()?).ok().filter(|n| *n > 0);
                let to = to.ok_or_else(|| Error::new(Kind::Format, format!("{} is no size", s[i])))?;
                (to, to as f64 / from.max(1) as f64)
            }
            None => ((from as f32 * scales[i]).floor() as usize, f64::from(scales[i])),
        };
        let most = to <= 1 << 20 && to > 0 && from > 0 && scale > 0.0;
        if !most {
            return Err(Error::new(Kind::Format, format!("{from} pixels become {to}")));
        }
        if (from, scale) == (to, 1.0) {
            continue;
        }
        let at = Coordinates { mode: told.clone(), from, to, scale };
        let wide = if smooth { scale.min(1.0) } else { 1.0 };
        let mut each = vec![];
        for j in 0..to {
            let p = at.at(j)?;
            each.push(match &*mode {
                "nearest" => {
                    let i = match &*round {
                        "round_prefer_floor" => (p - 0.5).ceil(),
                        "round_prefer_ceil" => (p + 0.5).floor(),
                        "ceil" => p.ceil(),
                        _ => p.floor(),
                    };
                    vec![((i.max(0.0) as usize).min(from - 1), 1.0)]
                }
                "linear" if smooth => taps(p, from, 1.0 / wide, outside, |d| (1.0 - (d * wide).abs()).max(0.0)),
                "linear" => taps(p, from, 1.0, true, |d| (1.0 - d.abs()).max(0.0)),
                "cubic" => taps(p, from, 2.0 / wide, outside, |d| {
                    let d = (d * wide).abs();
                    match d {
                        d if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
                        d if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
                        _ => 0.0,
                    }
                }),
                other => return Err(Error::new(Kind::Format, format!("there is no mode `{other}`"))),
            });
        }
        changed.push((*d, from, each));
    }
    // each pixel twice along both axes has a kernel of its own
    let twice = |(_, from, each): &(usize, usize, Vec<Vec<(usize, f64)>>)| {
        each.len() == 2 * from && each.iter().enumerate().all(|(j, t)| t[..] == [(j / 2, 1.0)])
    };
    if rank == 4
        && low.is_image(x)
        && low.in_graph(x)
        && changed.iter().map(|c| c.0).eq([2, 3])
        && changed.iter().all(twice)
    {
        return low.image(Up2, x);
    }
    for (d, from, each) in changed {
        let mut dims = low.at_one(x);
        dims[d] = each.len();
        if elements(&dims).is_none_or(|n| n > 1 << 30) {
            return Err(Error::new(Kind::Memory, format!("an image of shape {dims:?} is too large")));
        }
        x = low.along(x, d, |dim| Mix::new("resizing", dim, from, each))?;
    }
    Ok(x)
}
