//! A denoiser for tests in 2 dimensions.
use crate::common::Gmm;
use candle_core::{Device, Tensor};
use ld3sh::noise::Noise;
use std::rc::Rc;

/// A mixture of three in 2 dimensions [1, 1, 2].
pub fn small(noise: Noise) -> Rc<Gmm> {
    let means = Tensor::new(&[[1.0, -0.5], [-1.2, 0.3], [0.2, 1.4]], &Device::Cpu).unwrap();
    Gmm::new(noise, means.reshape((3, 1, 1, 2)).unwrap(), vec![0.3, 0.5, 0.2], vec![0.5, 0.3, 0.2])
}
