//! Trunks of perceptual losses with weights by the formula of tests/fixtures/make_lpips.py.
use candle_core::{Device, Tensor};
use ld3sh::nets::features::{State, spec};

/// The generator's formula: values in [−1, 1) by SplitMix64 of FNV-1a(name) + i.
pub fn uniform(name: &str, n: usize) -> Vec<f64> {
    let seed = name.bytes().fold(0xcbf29ce484222325u64, |h, b| (h ^ b as u64).wrapping_mul(0x100000001b3));
    let value = |i: u64| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9e3779b97f4a7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n as u64).map(value).collect()
}

pub fn filled(name: &str, shape: &[usize]) -> Tensor {
    let bound = if shape.len() == 1 { 0.1 } else { (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt() };
    let v: Vec<f32> = uniform(name, shape.iter().product()).into_iter().map(|u| (u * bound) as f32).collect();
    Tensor::from_vec(v, shape, &Device::Cpu).unwrap()
}

/// (name, input channels, output channels, window) of every convolution, as torchvision has them.
fn convolutions(net: &str) -> Vec<(String, usize, usize, usize)> {
    let plain = |list: &[(usize, usize, usize, usize)]| {
        list.iter().map(|(i, cin, cout, k)| (format!("features.{i}"), *cin, *cout, *k)).collect::<Vec<_>>()
    };
    match net {
        "vgg" => {
            let widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512];
            let at = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28];
            let cin = |i: usize| if i == 0 { 3 } else { widths[i - 1] };
            plain(&(0..13).map(|i| (at[i], cin(i), widths[i], 3)).collect::<Vec<_>>())
        }
        "alex" => plain(&[(0, 3, 64, 11), (3, 64, 192, 5), (6, 192, 384, 3), (8, 384, 256, 3), (10, 256, 256, 3)]),
        _ => {
            let mut list = plain(&[(0, 3, 64, 3)]);
            let fires = [(3, 64, 16, 64), (4, 128, 16, 64), (6, 128, 32, 128), (7, 256, 32, 128), (9, 256, 48, 192)];
            for (i, cin, squeeze, each) in
                fires.into_iter().chain([(10, 384, 48, 192), (11, 384, 64, 256), (12, 512, 64, 256)])
            {
                list.push((format!("features.{i}.squeeze"), cin, squeeze, 1));
                list.push((format!("features.{i}.expand1x1"), squeeze, each, 1));
                list.push((format!("features.{i}.expand3x3"), squeeze, each, 3));
            }
            list
        }
    }
}

/// A trunk's state dict.
pub fn state(net: &str) -> State {
    if net == "fashion28" {
        return spec(net).unwrap().builtin().unwrap().unwrap();
    }
    let of = |(name, cin, cout, k): (String, usize, usize, usize)| {
        let (w, b) = (format!("{name}.weight"), format!("{name}.bias"));
        [(w.clone(), filled(&w, &[cout, cin, k, k])), (b.clone(), filled(&b, &[cout]))]
    };
    convolutions(net).into_iter().flat_map(of).collect()
}
