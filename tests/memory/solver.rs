//! With `remat: true` a solve keeps no more than 3 states per evaluation.
use crate::alone;
use crate::counting::{LIVE, PEAK};
use crate::methods::*;
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::{Denoiser, DynDenoiser, InputGrad, Prediction, Pullback, Query, State};
use ld3sh::discretize::Schedule;
use ld3sh::host::{Host, Quiet};
use ld3sh::noise::Noise;
use ld3sh::plan::{Remat, SolveOptions};
use ld3sh::solve::Solver;
use ld3sh::tensor::grad;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

/// A denoiser that keeps one state for its pull-back: D(x, t) = x / (1 + t²).
struct Linear(Noise);

impl Denoiser for Linear {
    fn noise(&self) -> &Noise {
        &self.0
    }
    fn describe(&self) -> String {
        "linear".into()
    }
    fn hash(&self) -> Option<String> {
        None
    }
    fn eval(&self, _: &dyn Host, q: &Query, want: Prediction) -> ld3sh::Result<State> {
        let t = q.t[0];
        let c = if want == Prediction::Data { 1.0 / (1.0 + t * t) } else { t / (1.0 + t * t) };
        Ok(q.x.tensor()?.affine(c, 0.0)?.into())
    }
    fn linearize(&self, host: &dyn Host, q: &Query, want: Prediction) -> ld3sh::Result<(State, Pullback)> {
        let y = self.eval(host, q, want)?;
        let t = q.t[0];
        let c = if want == Prediction::Data { 1.0 / (1.0 + t * t) } else { t / (1.0 + t * t) };
        let pull: Pullback =
            Box::new(move |_, cot| Ok(InputGrad { x: cot.tensor()?.affine(c, 0.0)?.into(), t: vec![0.0] }));
        Ok((y, pull))
    }
}

#[test]
fn remat_keeps_at_most_three_states_per_evaluation() {
    let _alone = alone();
    let noise = ld3sh::noise::from_spec(&serde_json::json!({ "name": "edm" })).unwrap();
    let net: DynDenoiser = Rc::new(Linear(noise.clone()));
    let elements = 1 << 16;
    let state = (elements * 4) as f64;
    for method in [
        Method::Euler,
        Method::Ipndm { order: 3 },
        Method::Dpmpp { order: 3, options: MultistepOptions::default() },
        Method::Unipc { order: 3, options: UnipcOptions::default() },
        Method::Heun { nfe: None },
        Method::Dpm { order: 2, nfe: None, options: SinglestepOptions::default() },
    ] {
        let solver = Solver::from(method);
        let peak = |nfe: usize| {
            let solver = solver.for_nfe(nfe);
            let n = solver.steps_for_nfe(nfe);
            let t: Vec<f64> = (0..=n).map(|i| 80.0 * (0.002f64 / 80.0).powf(i as f64 / n as f64)).collect();
            let t = grad::variable(&Tensor::from_vec(t, n + 1, &Device::Cpu).unwrap()).unwrap();
            let s = Schedule::new(noise.clone(), &t, "test").unwrap();
            let x = grad::variable(&Tensor::ones((1, elements), DType::F32, &Device::Cpu).unwrap()).unwrap();
            let plan = solver.plan(&s).unwrap();
            let before = LIVE.load(Relaxed);
            PEAK.store(before, Relaxed);
            let opts = SolveOptions { remat: Remat::Always, ..SolveOptions::default() };
            let y = plan.solve(&net, &Quiet, &(&x).into(), &opts, None).unwrap().x.into_tensor().unwrap();
            let loss = y.sum_all().unwrap();
            grad::grad(&Quiet, &loss, &[t, x]).unwrap();
            (PEAK.load(Relaxed) - before) as f64 / state
        };
        let (few, many) = (peak(5), peak(20));
        println!(
            "{}: {few:.2} states at NFE 5, {many:.2} at NFE 20: {:.2} per evaluation",
            solver.describe(),
            (many - few) / 15.0
        );
        assert!(many - few < 2.2 * 15.0, "{}: {few} {many}", solver.describe());
    }
}
