//! The trunks as data: what torchvision's `features` do up to the last layer that LPIPS looks at, and the small built-in one.
use crate::nets::kernels::MaxPool;

/// One step of a trunk. Every convolution is followed by a ReLU.
#[derive(Debug, Clone, Copy)]
pub(super) enum Layer {
    /// Name, output channels, window, stride, padding.
    Conv(&'static str, usize, usize, usize, usize),
    /// Window, stride, and whether windows may reach over the edge.
    MaxPool(usize, usize, bool),
    /// The mean of 2×2 pixels.
    MeanPool,
    /// DISTS's pooling: the root of a mean of squares in windows of 3×3 pixels, of every second pixel; the weights are Hann's.
    RootPool,
    /// SqueezeNet's module: name, channels of the 1×1 convolution in front, channels of each of the two behind it.
    Fire(&'static str, usize, usize),
    /// The values here are features.
    Tap,
}
use Layer::{Conv, Fire, MaxPool as Max, MeanPool, RootPool, Tap};

/// A feature network: its layers and what it expects.
#[derive(Debug)]
pub struct Spec {
    /// The name that scripts use.
    pub name: &'static str,
    /// The name in errors.
    pub title: &'static str,
    /// The published file of its weights; none where they are compiled in.
    pub file: Option<&'static str>,
    /// Colour channels of its input.
    pub channels: usize,
    /// Height and width must be multiples of it.
    pub multiple: usize,
    /// Whether the image itself, in [0, 1], is the first of the features.
    pub(super) image: bool,
    /// LPIPS's ScalingLayer, (shift, scale) of each channel for inputs in [−1, 1]: (x − shift) / scale.
    pub(super) scaling: &'static [(f32, f32)],
    pub(super) layers: &'static [Layer],
}

/// In f32, as the reference keeps them.
const IMAGENET: &[(f32, f32)] = &[(-0.030, 0.458), (-0.088, 0.448), (-0.188, 0.450)];

/// VGG16's five stages, with this pooling between them.
const fn vgg16(pool: Layer) -> [Layer; 22] {
    [
        Conv("features.0", 64, 3, 1, 1),
        Conv("features.2", 64, 3, 1, 1),
        Tap,
        pool,
        Conv("features.5", 128, 3, 1, 1),
        Conv("features.7", 128, 3, 1, 1),
        Tap,
        pool,
        Conv("features.10", 256, 3, 1, 1),
        Conv("features.12", 256, 3, 1, 1),
        Conv("features.14", 256, 3, 1, 1),
        Tap,
        pool,
        Conv("features.17", 512, 3, 1, 1),
        Conv("features.19", 512, 3, 1, 1),
        Conv("features.21", 512, 3, 1, 1),
        Tap,
        pool,
        Conv("features.24", 512, 3, 1, 1),
        Conv("features.26", 512, 3, 1, 1),
        Conv("features.28", 512, 3, 1, 1),
        Tap,
    ]
}
const VGG16: [Layer; 22] = vgg16(Max(2, 2, false));
const DISTS_VGG16: [Layer; 22] = vgg16(RootPool);

/// Every trunk. The first three are LPIPS's.
pub static SPECS: [Spec; 4] = [
    Spec {
        name: "vgg",
        title: "VGG16",
        file: Some("vgg16-397923af.pth"),
        channels: 3,
        multiple: 1,
        image: false,
        scaling: IMAGENET,
        layers: &VGG16,
    },
    Spec {
        name: "alex",
        title: "AlexNet",
        file: Some("alexnet-owt-7be5be79.pth"),
        channels: 3,
        multiple: 1,
        image: false,
        scaling: IMAGENET,
        layers: &[
            Conv("features.0", 64, 11, 4, 2),
            Tap,
            Max(3, 2, false),
            Conv("features.3", 192, 5, 1, 2),
            Tap,
            Max(3, 2, false),
            Conv("features.6", 384, 3, 1, 1),
            Tap,
            Conv("features.8", 256, 3, 1, 1),
            Tap,
            Conv("features.10", 256, 3, 1, 1),
            Tap,
        ],
    },
    Spec {
        name: "squeeze",
        title: "SqueezeNet 1.1",
        file: Some("squeezenet1_1-b8a52dc0.pth"),
        channels: 3,
        multiple: 1,
        image: false,
        scaling: IMAGENET,
        layers: &[
            Conv("features.0", 64, 3, 2, 0),
            Tap,
            Max(3, 2, true),
            Fire("features.3", 16, 64),
            Fire("features.4", 16, 64),
            Tap,
            Max(3, 2, true),
            Fire("features.6", 32, 128),
            Fire("features.7", 32, 128),
            Tap,
            Max(3, 2, true),
            Fire("features.9", 48, 192),
            Tap,
            Fire("features.10", 48, 192),
            Tap,
            Fire("features.11", 64, 256),
            Tap,
            Fire("features.12", 64, 256),
            Tap,
        ],
    },
    Spec {
        name: "fashion28",
        title: "the built-in feature network",
        file: None,
        channels: 1,
        multiple: 4,
        image: false,
        scaling: &[(0.0, 1.0)],
        layers: &[
            Conv("conv.0", 32, 3, 1, 1),
            Conv("conv.1", 32, 3, 1, 1),
            Tap,
            MeanPool,
            Conv("conv.2", 64, 3, 1, 1),
            Conv("conv.3", 64, 3, 1, 1),
            Tap,
            MeanPool,
            Conv("conv.4", 128, 3, 1, 1),
            Conv("conv.5", 128, 3, 1, 1),
            Tap,
        ],
    },
];

/// What DISTS compares: VGG16 with a pooling of its own, and the image beside its features. No name leads here: other distances were not
/// made for it.
pub static DISTS: Spec = Spec {
    name: "dists",
    title: "DISTS's VGG16",
    file: Some("vgg16-397923af.pth"),
    channels: 3,
    multiple: 1,
    image: true,
    // (x − mean) / deviation of [0, 1], with both in f32, as the reference keeps them
    scaling: &[(2.0 * 0.485 - 1.0, 2.0 * 0.229), (2.0 * 0.456 - 1.0, 2.0 * 0.224), (2.0 * 0.406 - 1.0, 2.0 * 0.225)],
    layers: &DISTS_VGG16,
};

impl Layer {
    /// The height (or width) of its result for `n` pixels; none where it cannot be applied.
    fn size(&self, n: usize) -> Option<usize> {
        let n = match *self {
            Conv(_, _, window, stride, padding) => (n + 2 * padding).checked_sub(window)? / stride + 1,
            Max(window, stride, ceil) => MaxPool { window, stride, ceil }.windows(n),
            MeanPool => n / 2,
            RootPool => n.div_ceil(2),
            Fire(..) | Tap => n,
        };
        (n > 0).then_some(n)
    }
}

impl Spec {
    /// The smallest height and width that every layer can be applied to.
    pub fn minimum(&self) -> usize {
        let fits = |n: usize| self.layers.iter().try_fold(n, |n, layer| layer.size(n)).is_some();
        (1..=64).map(|k| k * self.multiple).find(|n| fits(*n)).unwrap_or(64 * self.multiple)
    }
    /// The weights of its convolutions, by name and shape.
    pub(super) fn weights(&self) -> Vec<(String, Vec<usize>)> {
        let (mut cin, mut all) = (self.channels, vec![]);
        let mut conv = |name: String, cin: usize, cout: usize, k: usize| {
            all.push((format!("{name}.weight"), vec![cout, cin, k, k]));
            all.push((format!("{name}.bias"), vec![cout]));
        };
        for layer in self.layers {
            match *layer {
                Conv(name, cout, k, ..) => {
                    conv(name.into(), cin, cout, k);
                    cin = cout;
                }
                Fire(name, squeeze, each) => {
                    conv(format!("{name}.squeeze"), cin, squeeze, 1);
                    conv(format!("{name}.expand1x1"), squeeze, each, 1);
                    conv(format!("{name}.expand3x3"), squeeze, each, 3);
                    cin = 2 * each;
                }
                Max(..) | MeanPool | RootPool | Tap => {}
            }
        }
        all
    }
    /// Channels of each tap.
    pub fn taps(&self) -> Vec<usize> {
        let mut now = self.channels;
        let mut taps = if self.image { vec![now] } else { vec![] };
        for layer in self.layers {
            match *layer {
                Conv(_, cout, ..) => now = cout,
                Fire(_, _, each) => now = 2 * each,
                Tap => taps.push(now),
                Max(..) | MeanPool | RootPool => {}
            }
        }
        taps
    }
}
