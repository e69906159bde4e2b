//! With `remat: true` a solve on a network of 256 channels at 64×64 holds at most 3 states per evaluation.
use crate::alone;
use crate::counting::{LIVE, PEAK};
use crate::methods::*;
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::{DynDenoiser, Preconditioned, Predicts};
use ld3sh::discretize::Schedule;
use ld3sh::host::Quiet;
use ld3sh::nets::edm::{self, Config};
use ld3sh::plan::{Remat, SolveOptions};
use ld3sh::solve::Solver;
use ld3sh::tensor::grad;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

#[test]
#[ignore = "a minute or more on two cores: 256 channels at 64×64"]
fn nfe_20_holds_at_most_three_states_per_evaluation_more_than_nfe_5() {
    let _alone = alone();
    let json = r#"{"img_resolution": 64, "img_channels": 3, "model_channels": 256, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}"#;
    let net = edm::random(&Config::parse(json).unwrap(), 1, &Device::Cpu).unwrap();
    let noise = ld3sh::noise::from_spec(&serde_json::json!({ "name": "edm" })).unwrap();
    let net: DynDenoiser =
        Rc::new(Preconditioned::new(Rc::new(net), noise.clone(), Predicts::EdmF { sigma_data: 0.5 }).unwrap());
    let shape = (1, 3, 64, 64);
    let state = (3 * 64 * 64 * 4) as f64;
    let solver = Solver::from(Method::Unipc { order: 3, options: UnipcOptions::default() });
    let peak = |n: usize| {
        let t: Vec<f64> = (0..=n).map(|i| 80.0 * (0.002f64 / 80.0).powf(i as f64 / n as f64)).collect();
        let t = grad::variable(&Tensor::from_vec(t, n + 1, &Device::Cpu).unwrap()).unwrap();
        let s = Schedule::new(noise.clone(), &t, "test").unwrap();
        let z = grad::variable(&Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()).unwrap();
        let plan = solver.plan(&s).unwrap();
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        let opts = SolveOptions { remat: Remat::Always, ..SolveOptions::default() };
        let y = plan.solve(&net, &Quiet, &(&z).into(), &opts, None).unwrap().x.into_tensor().unwrap();
        let g = grad::grad(&Quiet, &y.sum_all().unwrap(), &[t, z]).unwrap();
        assert!(g.iter().all(|g| {
            g.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap() > 0.0
        }));
        (PEAK.load(Relaxed) - before) as f64 / state
    };
    // packed weights and workspaces are there after the first run
    peak(2);
    let (few, many) = (peak(5), peak(20));
    let each = (many - few) / 15.0;
    println!("256 channels at 64×64: {few:.2} states at NFE 5, {many:.2} at NFE 20: {each:.2} per evaluation");
    assert!(each > 0.0 && each <= 3.0, "{few} {many}");
}
