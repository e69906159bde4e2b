//! Schedules, a small network and a gradient check for the tests of denoisers.
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::*;
use ld3sh::host::{Host, Quiet};
use ld3sh::noise::{Noise, from_spec};
use ld3sh::{Error, Result};
use serde_json::json;
use std::rc::Rc;

pub const WANTS: [Prediction; 2] = [Prediction::Data, Prediction::Noise];

pub fn noise(spec: serde_json::Value) -> Noise {
    from_spec(&spec).unwrap()
}
pub fn edm() -> Noise {
    noise(json!({"name": "edm"}))
}
/// Every schedule with three times in it, none on a knot of the discrete one.
pub fn schedules() -> Vec<(Noise, [f64; 3])> {
    vec![
        (edm(), [7.5, 0.4, 0.01]),
        (noise(json!({"name": "vp_linear"})), [0.9, 0.43, 0.01]),
        (noise(json!({"name": "vp_cosine"})), [0.95, 0.5, 0.02]),
        (noise(json!({"name": "vp_discrete", "preset": "sd"})), [0.93215, 0.4123, 0.0314]),
        (noise(json!({"name": "flow"})), [0.97, 0.5, 0.03]),
        (noise(json!({"name": "flow", "shift": 3.0})), [0.97, 0.5, 0.03]),
    ]
}

/// Values that look random, the same ever.
pub fn wave(shape: &[usize], seed: f64) -> Tensor {
    let n: usize = shape.iter().product();
    let v: Vec<f64> = (0..n).map(|i| ((i as f64 + 1.0) * (1.7 + seed)).sin() * 1.3).collect();
    Tensor::from_vec(v, shape, &Device::Cpu).unwrap()
}
pub fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}
/// The largest difference relative to the largest value.
pub fn gap(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let size = b.iter().fold(1e-300, |m: f64, v| m.max(v.abs()));
    a.iter().zip(b).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / size
}
pub fn close(a: &Tensor, b: &Tensor, tol: f64) {
    assert_eq!(a.dims(), b.dims());
    let g = gap(&values(a), &values(b));
    assert!(g <= tol, "differ by {g:e}, more than {tol:e}");
}
pub fn dot(a: &Tensor, b: &Tensor) -> f64 {
    values(a).iter().zip(values(b)).map(|(a, b)| a * b).sum()
}

/// sin(x W + c u + labels V), mixing all entries of a sample.
pub struct Toy {
    pub shape: Vec<usize>,
    pub classes: usize,
}
impl Toy {
    pub fn net(classes: usize) -> Rc<dyn Network> {
        Rc::new(Toy { shape: vec![2, 3], classes })
    }
}
impl Network for Toy {
    fn describe(&self) -> String {
        "toy".into()
    }
    fn hash(&self) -> Option<String> {
        Some("toy".into())
    }
    fn sample_shape(&self) -> Option<Vec<usize>> {
        Some(self.shape.clone())
    }
    fn classes(&self) -> usize {
        self.classes
    }
    fn forward(&self, _: &dyn Host, x: &Tensor, c: &Tensor, cond: &Cond) -> Result<Tensor> {
        let (b, d) = (x.dim(0)?, 6);
        let dtype = x.dtype();
        let z = x.reshape((b, d))?.matmul(&wave(&[d, d], 0.3).to_dtype(dtype)?)?;
        let mut z = (z + c.reshape((b, 1))?.matmul(&wave(&[1, d], 0.9).to_dtype(dtype)?)?)?;
        if let Some(rows) = cond.rows() {
            z = (z + rows.to_dtype(dtype)?.matmul(&wave(&[self.classes, d], 0.6).to_dtype(dtype)?)?)?;
        }
        Ok(z.sin()?.reshape(x.shape())?)
    }
}
pub fn toy(noise: Noise, predicts: Predicts) -> DynDenoiser {
    Rc::new(Preconditioned::new(Toy::net(3), noise, predicts).unwrap())
}

pub fn eval(d: &dyn Denoiser, x: &Tensor, t: &[f64], cond: &Cond, want: Prediction) -> Tensor {
    d.eval(&Quiet, &Query { x: &x.into(), t, cond }, want).unwrap().into_tensor().unwrap()
}
pub fn error(d: &dyn Denoiser, x: &Tensor, t: &[f64], cond: &Cond) -> Error {
    d.eval(&Quiet, &Query { x: &x.into(), t, cond }, Prediction::Data).unwrap_err()
}

/// Compares both gradients with central differences, relative to their sizes.
pub fn check_gradients(host: &dyn Host, d: &dyn Denoiser, x: &Tensor, t: &[f64], cond: &Cond, tol: f64) {
    for want in WANTS {
        let q = Query { x: &x.into(), t, cond };
        let (m, pull) = d.linearize(host, &q, want).unwrap();
        let m = m.into_tensor().unwrap();
        close(&m, &d.eval(host, &q, want).unwrap().into_tensor().unwrap(), 1e-14);
        let bar = wave(x.dims(), 0.11);
        let g = pull(host, &(&bar).into()).unwrap();
        let gx = g.x.tensor().unwrap();
        let at = |x: &Tensor, t: &[f64]| {
            dot(&d.eval(host, &Query { x: &x.into(), t, cond }, want).unwrap().into_tensor().unwrap(), &bar)
        };
        let h = 1e-5;
        for seed in [0.2, 0.7] {
            let v = wave(x.dims(), seed);
            let step = (&v * h).unwrap();
            let fd = (at(&(x + &step).unwrap(), t) - at(&(x - &step).unwrap(), t)) / (2.0 * h);
            let size = gx.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
            assert!((fd - dot(gx, &v)).abs() <= tol * (1.0 + size), "x ({want:?}): {fd} against {}", dot(gx, &v));
        }
        assert_eq!(g.t.len(), t.len());
        for i in 0..t.len() {
            // five points: near the ends of a schedule the higher derivatives are large
            let h = 3e-5 * t[i];
            let shift = |k: f64| {
                let mut t = t.to_vec();
                t[i] += k * h;
                at(x, &t)
            };
            let fd = (8.0 * (shift(1.0) - shift(-1.0)) - (shift(2.0) - shift(-2.0))) / (12.0 * h);
            assert!(
                (fd - g.t[i]).abs() * t[i] <= tol * (1.0 + fd.abs() * t[i]),
                "t[{i}] = {} ({want:?}): {fd} against {}",
                t[i],
                g.t[i]
            );
        }
    }
}

pub fn predictions() -> [Predicts; 8] {
    let edm = Predicts::EdmF { sigma_data: 0.7 };
    let [noise, data, v, flow] = [Predicts::Noise, Predicts::Data, Predicts::V, Predicts::Flow];
    [noise, data, v, flow, edm, Predicts::Score, Predicts::UnitNoise, Predicts::NegativeNoise]
}
