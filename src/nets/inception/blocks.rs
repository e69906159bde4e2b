//! InceptionV3 as data: blocks of branches that stand side by side, and the graph that is made of them.
use super::{CLASSES, Resize};
use crate::Result;
use crate::nets::build::{Builder, ConvSize, Id};
use crate::nets::graph::{Absent, Dim, Layout};
use crate::nets::kernels::{AveragePool, Bilinear, Channels, Corners, GlobalMean, MaxPool, Pad};

/// A convolution of a branch with batch norm and ReLU: name, channels, kernel; one with a stride has no zeros around the image.
#[derive(Clone, Copy)]
struct Layer(&'static str, usize, [usize; 2], usize);

/// Square, of stride 1.
const fn square(name: &'static str, channels: usize, window: usize) -> Layer {
    Layer(name, channels, [window; 2], 1)
}
/// Of one row.
const fn row(name: &'static str, channels: usize, width: usize) -> Layer {
    Layer(name, channels, [1, width], 1)
}
/// Of one column.
const fn column(name: &'static str, channels: usize, height: usize) -> Layer {
    Layer(name, channels, [height, 1], 1)
}
/// 3×3 that halves the image.
const fn half(name: &'static str, channels: usize) -> Layer {
    Layer(name, channels, [3; 2], 2)
}

/// What a branch begins with.
#[derive(Clone, Copy, PartialEq)]
enum First {
    /// Its convolutions.
    Nothing,
    /// The mean of 3×3 pixels, of those within.
    Mean,
    /// The largest of 3×3 pixels.
    Max,
    /// The same of every second pixel.
    HalfMax,
}

/// Convolutions one after the other, and perhaps two more side by side at the end.
struct Branch {
    first: First,
    layers: Vec<Layer>,
    fork: Option<[Layer; 2]>,
}

fn branch(layers: impl Into<Vec<Layer>>) -> Branch {
    Branch { first: First::Nothing, layers: layers.into(), fork: None }
}
fn pooled(first: First, channels: Option<usize>) -> Branch {
    let layers = channels.map(|c| square("branch_pool", c, 1)).into_iter().collect();
    Branch { first, layers, fork: None }
}

/// A block: its name, and its branches in the order of their channels in the result.
type Block = (&'static str, Vec<Branch>);

fn a(pool: usize) -> Vec<Branch> {
    let double = [square("branch3x3dbl_1", 64, 1), square("branch3x3dbl_2", 96, 3), square("branch3x3dbl_3", 96, 3)];
    vec![
        branch([square("branch1x1", 64, 1)]),
        branch([square("branch5x5_1", 48, 1), square("branch5x5_2", 64, 5)]),
        branch(double),
        pooled(First::Mean, Some(pool)),
    ]
}

fn b() -> Vec<Branch> {
    vec![
        branch([half("branch3x3", 384)]),
        branch([square("branch3x3dbl_1", 64, 1), square("branch3x3dbl_2", 96, 3), half("branch3x3dbl_3", 96)]),
        pooled(First::HalfMax, None),
    ]
}

fn c(width: usize) -> Vec<Branch> {
    vec![
        branch([square("branch1x1", 192, 1)]),
        branch([square("branch7x7_1", width, 1), row("branch7x7_2", width, 7), column("branch7x7_3", 192, 7)]),
        branch([
            square("branch7x7dbl_1", width, 1),
            column("branch7x7dbl_2", width, 7),
            row("branch7x7dbl_3", width, 7),
            column("branch7x7dbl_4", width, 7),
            row("branch7x7dbl_5", 192, 7),
        ]),
        pooled(First::Mean, Some(192)),
    ]
}

fn d() -> Vec<Branch> {
    let long = [
        square("branch7x7x3_1", 192, 1),
        row("branch7x7x3_2", 192, 7),
        column("branch7x7x3_3", 192, 7),
        half("branch7x7x3_4", 192),
    ];
    vec![branch([square("branch3x3_1", 192, 1), half("branch3x3_2", 320)]), branch(long), pooled(First::HalfMax, None)]
}

fn e(first: First) -> Vec<Branch> {
    let fork = |a, b| Some([row(a, 384, 3), column(b, 384, 3)]);
    let double = [square("branch3x3dbl_1", 448, 1), square("branch3x3dbl_2", 384, 3)];
    vec![
        branch([square("branch1x1", 320, 1)]),
        Branch { fork: fork("branch3x3_2a", "branch3x3_2b"), ..branch([square("branch3x3_1", 384, 1)]) },
        Branch { fork: fork("branch3x3dbl_3a", "branch3x3dbl_3b"), ..branch(double) },
        pooled(first, Some(192)),
    ]
}

/// The blocks; FID's differ from torchvision's in the last, whose pool takes the largest.
fn blocks() -> Vec<Block> {
    vec![
        ("Mixed_5b", a(32)),
        ("Mixed_5c", a(64)),
        ("Mixed_5d", a(64)),
        ("Mixed_6a", b()),
        ("Mixed_6b", c(128)),
        ("Mixed_6c", c(160)),
        ("Mixed_6d", c(160)),
        ("Mixed_6e", c(192)),
        ("Mixed_7a", d()),
        ("Mixed_7b", e(First::Mean)),
        ("Mixed_7c", e(First::Max)),
    ]
}

/// A convolution in front of the blocks: name, channels, window, stride, zeros, and whether every second pixel's largest follows.
type Stem = (&'static str, usize, usize, usize, usize, bool);

const STEM: [Stem; 5] = [
    ("Conv2d_1a_3x3", 32, 3, 2, 0, false),
    ("Conv2d_2a_3x3", 32, 3, 1, 0, false),
    ("Conv2d_2b_3x3", 64, 3, 1, 1, true),
    ("Conv2d_3b_1x1", 80, 1, 1, 0, false),
    ("Conv2d_4a_3x3", 192, 3, 1, 0, true),
];

/// The name and the weights' shape of every convolution.
pub(super) fn convolutions() -> Vec<(String, [usize; 4])> {
    let mut all = vec![];
    let mut cin = 3;
    for (name, cout, window, ..) in STEM {
        all.push((name.to_string(), [cout, cin, window, window]));
        cin = cout;
    }
    for (name, branches) in blocks() {
        let mut width = 0;
        for b in &branches {
            let mut now = cin;
            for l in &b.layers {
                all.push((format!("{name}.{}", l.0), [l.1, now, l.2[0], l.2[1]]));
                now = l.1;
            }
            for l in b.fork.iter().flatten() {
                all.push((format!("{name}.{}", l.0), [l.1, now, l.2[0], l.2[1]]));
            }
            width += b.fork.map_or(now, |f| f[0].1 + f[1].1);
        }
        cin = width;
    }
    all
}

const HALF: MaxPool = MaxPool { window: 3, stride: 2, ceil: false };

fn layer(b: &mut Builder, x: Id, l: &Layer) -> Result<Id> {
    let Layer(name, channels, kernel, stride) = *l;
    let mut here = b.under(name);
    let x = match kernel {
        [h, w] if h == w && stride == 1 => here.conv(x, ConvSize::same(channels, h))?,
        [h, w] if h == w => here.conv(x, ConvSize { channels, window: h, stride, padding: [0; 2] })?,
        _ => here.conv_oblong(x, channels, kernel)?,
    };
    here.under("relu").relu(x)
}

fn run(b: &mut Builder, x: Id, branch: &Branch) -> Result<Id> {
    let mut x = match branch.first {
        First::Nothing => x,
        First::Mean => b.under("branch_pool.mean").apply(AveragePool { window: 3 }, &[x])?,
        First::HalfMax => b.under("branch_pool.max").max_pool(x, HALF)?,
        First::Max => {
            // behind a ReLU nothing is below the zeros outside
            let x = b.under("branch_pool.pad").apply(Pad(1), &[x])?;
            b.under("branch_pool.max").max_pool(x, MaxPool { window: 3, stride: 1, ceil: false })?
        }
    };
    for l in &branch.layers {
        x = layer(b, x, l)?;
    }
    match &branch.fork {
        Some([first, second]) => {
            let (p, q) = (layer(b, x, first)?, layer(b, x, second)?);
            b.under(first.0).under("concat").concat(p, q)
        }
        None => Ok(x),
    }
}

/// Where ADM's sFID looks, and how many channels it takes: the first of `mixed_6/conv`, the 1×1 convolution that this block begins with.
const SPATIAL: (&str, usize) = ("Mixed_6d", 7);

/// Those channels of a block's result, pixel by pixel, as ADM's statistics have them.
fn cut(b: &mut Builder, x: Id) -> Result<Id> {
    let (keep, all, dims) = (SPATIAL.1, b.channels(x), b.shape(x).to_vec());
    let parts = b.under("spatial").split(x, &[keep, all - keep])?;
    b.under("spatial.row").shaped(parts[0], &[dims[0] * dims[1] * keep])
}

/// The graph: an image in [−1, 1] of any size, of 3 channels or 1 (grey); `features` [2048], `logits` [1008] without their bias, and
/// `spatial` [2023].
pub(super) fn layers(b: &mut Builder, resize: Resize) -> Result<()> {
    let (any, channels) = (Dim::About(32), Dim::About(3));
    let mut x = b.input("x", &[any, any, channels], Layout::Image, Absent::Error)?;
    let (corners, scale) = match resize {
        // a pixel p = 127.5 x + 127.5 becomes (p − 128) / 128
        Resize::TensorFlow1 => (Corners::TensorFlow1, (127.5 / 128.0, -0.5 / 128.0)),
        Resize::Torch => (Corners::Centres, (1.0, 0.0)),
    };
    x = b.under("resize").apply(Bilinear { size: 299, corners }, &[x])?;
    x = b.under("scaling").apply(Channels::new([scale; 3]), &[x])?;
    for (name, channels, window, stride, padding, pool) in STEM {
        x = b.under(name).conv(x, ConvSize { channels, window, stride, padding: [padding; 2] })?;
        x = b.under(name).under("relu").relu(x)?;
        if pool {
            x = b.under(name).under("max").max_pool(x, HALF)?;
        }
    }
    let mut spatial = None;
    for (name, branches) in blocks() {
        let b = &mut b.under(name);
        let mut all = vec![];
        for branch in &branches {
            all.push(run(b, x, branch)?);
        }
        x = all[0];
        for (i, next) in all[1..].iter().enumerate() {
            x = b.under(&format!("concat{i}")).concat(x, *next)?;
        }
        if name == SPATIAL.0 {
            spatial = Some(cut(b, x)?);
        }
    }
    let features = b.under("mean").apply(GlobalMean, &[x])?;
    b.output("features", features, Layout::Plain);
    let logits = b.under("fc").map_unbiased(features, CLASSES)?;
    b.output("logits", logits, Layout::Plain);
    if let Some(spatial) = spatial {
        b.output("spatial", spatial, Layout::Plain);
    }
    Ok(())
}
