//! LPIPS (Zhang et al. 2018, the `lpips` package, heads v0.1), DISTS (Ding et al. 2020) and plain distances of features, with the gradient
//! in both images.
use super::kept::{Kept, Key, key};
use super::measure::Measure;
use super::{Reduction, check_pair, reduce};
use crate::host::Host;
use crate::nets::features::{DISTS, Spec, State, Trunk};
use crate::nets::runner::{Batch, Cotangents, Run};
use crate::tensor::grad;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, DeviceLocation, Tensor};
use rayon::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// The linear heads of all three networks, `vgg.lin0` and so on.
const HEADS: &[u8] = include_bytes!("../../models/lpips-heads.safetensors");
/// DISTS's weights `alpha` and `beta` of all channels, the image's and five taps'.
const DISTS_WEIGHTS: &[u8] = include_bytes!("../../models/dists-weights.safetensors");
/// Images that are compared at a time where no gradient is wanted: their features need not all be there at once.
const BLOCK: usize = 32;

/// How features are compared. Distances of the taps are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// LPIPS: unit length over channels, squared differences weighted by the learned heads, mean over positions.
    Lpips,
    /// LPIPS's baseline without heads: all weights 1 (the package's `lpips=False`).
    Unit,
    /// The mean squared difference of the features as they are.
    Plain,
    /// DISTS: means, variances and covariances of each channel, weighted by learned numbers.
    Dists,
}

/// What a perceptual loss is made of, beside its network.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How features are compared.
    pub compare: Compare,
    /// Which taps count, from 0; all where absent.
    pub layers: Option<Vec<usize>>,
    /// Images are in [0, 1] instead of [−1, 1] (the package's `normalize`).
    pub unit_range: bool,
    /// Linear heads as the `lpips` package stores them (`lin0.model.1.weight`, …); its own version 0.1 where absent. For DISTS its weights,
    /// `alpha` and `beta`; its authors' where absent.
    pub heads: Option<State>,
}

impl From<Compare> for Settings {
    /// All layers, images in [−1, 1], the package's heads.
    fn from(compare: Compare) -> Self {
        Settings { compare, layers: None, unit_range: false, heads: None }
    }
}

/// The linear head of tap `k`, [channels].
fn head(what: &str, spec: &Spec, given: Option<&State>, k: usize, channels: usize) -> Result<Vec<f32>> {
    let name = format!("lin{k}.model.1.weight");
    let weights = match given {
        Some(heads) => heads.get(&name).cloned(),
        None => candle_core::safetensors::load_buffer(HEADS, &Device::Cpu)?.remove(&format!("{}.lin{k}", spec.name)),
    };
    match weights {
        Some(w) if w.elem_count() == channels && w.dtype().is_float() => {
            Ok(w.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
        }
        Some(w) => {
            let m = format!("{what}: `{name}` has shape {:?}, expected [1, {channels}, 1, 1]", w.dims());
            Err(Error::new(Kind::Format, m).shapes(&[w.dims()]).hint("these heads are of another network"))
        }
        None if given.is_some() => {
            let e = Error::new(Kind::Format, format!("{what}: the heads have no `{name}`"));
            Err(e.hint("the file must hold the `lpips` package's heads for this network"))
        }
        None => {
            let e = Error::new(Kind::Name, format!("{what}: there are no heads for {}", spec.title));
            Err(e.hint("use `loss::features`, or one of \"vgg\", \"alex\", \"squeeze\""))
        }
    }
}

/// DISTS's weights for each of these widths, which sum to 1 together.
fn weights(what: &str, widths: &[usize], given: Option<&State>) -> Result<Vec<[Vec<f64>; 2]>> {
    let own;
    let state = match given {
        Some(state) => state,
        None => {
            own = candle_core::safetensors::load_buffer(DISTS_WEIGHTS, &Device::Cpu)?.into_iter().collect();
            &own
        }
    };
    let n: usize = widths.iter().sum();
    let read = |name: &str| -> Result<Vec<f64>> {
        let hint = "the file must hold DISTS's `weights.pt`: `alpha` and `beta`";
        match state.get(name) {
            Some(w) if w.elem_count() == n && w.dtype().is_float() => {
                Ok(w.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
            }
            Some(w) => {
                let m = format!("{what}: `{name}` has shape {:?}, expected [1, {n}, 1, 1]", w.dims());
                Err(Error::new(Kind::Format, m).shapes(&[w.dims()]).hint(hint))
            }
            None => Err(Error::new(Kind::Format, format!("{what}: the weights have no `{name}`")).hint(hint)),
        }
    };
    let (alpha, beta) = (read("alpha")?, read("beta")?);
    let sum: f64 = alpha.iter().chain(&beta).sum();
    if !(sum.is_finite() && sum != 0.0) {
        let e = Error::new(Kind::Format, format!("{what}: the weights sum to {sum}, which cannot be made 1"));
        return Err(e.hint("they are damaged, or of another network"));
    }
    let part = |w: &[f64], at: usize, c: usize| w[at..at + c].iter().map(|w| w / sum).collect::<Vec<f64>>();
    let mut at = 0;
    let mut each = vec![];
    for c in widths {
        each.push([part(&alpha, at, *c), part(&beta, at, *c)]);
        at += c;
    }
    Ok(each)
}

/// A perceptual loss; cheap to clone. It remembers the features of targets that it has seen (up to 256 MiB).
#[derive(Clone)]
pub struct Perceptual(Rc<Inner>);

struct Inner {
    spec: &'static Spec,
    what: &'static str,
    state: State,
    unit_range: bool,
    /// One for each tap up to the last that counts; none where a tap does not.
    measures: Vec<Option<Measure>>,
    nets: RefCell<Vec<(DType, DeviceLocation, Rc<Net>)>>,
}

/// The features of one image: a buffer for each tap.
type Features = Arc<Vec<Vec<f32>>>;

struct Net {
    trunk: Trunk,
    seen: RefCell<Kept<Features>>,
    seen_composed: RefCell<Kept<Vec<Tensor>>>,
}

impl Net {
    /// [B, H', W', C'] for each tap, in candle operations.
    fn features(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        self.trunk.runner.forward(&[("x", x)])
    }
    /// Both batches, each with whether its gradient will be wanted, over all threads; images are of size [H, W, C].
    fn run(&self, batches: [(&[f32], bool); 2], dims: [usize; 3]) -> Result<[Run; 2]> {
        let size: usize = dims.iter().product();
        let of = |(x, tracked): (_, bool)| Batch {
            values: vec![Some((x, dims.to_vec()))],
            count: <[f32]>::len(x) / size,
            wanted: if tracked { vec![0] } else { vec![] },
        };
        let runs = self.trunk.runner.start(&batches.map(of))?;
        runs.try_into().map_err(|_| Error::new(Kind::Internal, "a batch got lost"))
    }
}

impl Perceptual {
    /// A loss over the trunk `spec` with weights `state`.
    ///
    /// Errors: weights or heads that are missing or do not fit, no such layer, no heads for the trunk.
    pub fn new(spec: &'static Spec, state: State, settings: impl Into<Settings>) -> Result<Perceptual> {
        let Settings { compare, layers, unit_range, heads } = settings.into();
        let what = match compare {
            Compare::Lpips => "LPIPS",
            Compare::Unit | Compare::Plain => "features",
            Compare::Dists => "DISTS",
        };
        let channels = spec.taps();
        let layers = layers.unwrap_or_else(|| (0..channels.len()).collect());
        if let Some(odd) = layers.iter().find(|k| **k >= channels.len()) {
            let m = format!("{what}: there is no layer {odd} among the {} of {}", channels.len(), spec.title);
            return Err(Error::value(m).hint(format!("layers count from 0 to {}", channels.len() - 1)));
        }
        let Some(last) = layers.iter().max() else {
            return Err(Error::value(format!("{what}: no layers to compare")).hint("leave `layers` out to take all"));
        };
        let structure = match compare {
            Compare::Dists => weights(what, &channels, heads.as_ref())?,
            _ => vec![],
        };
        let measure = |k: usize| -> Result<Option<Measure>> {
            Ok(match (layers.contains(&k), compare) {
                (false, _) => None,
                (true, Compare::Unit) => Some(Measure::Unit),
                (true, Compare::Plain) => Some(Measure::Plain),
                (true, Compare::Dists) => structure.get(k).cloned().map(Measure::Structure),
                (true, Compare::Lpips) => Some(Measure::Weighted(head(what, spec, heads.as_ref(), k, channels[k])?)),
            })
        };
        let measures = (0..=*last).map(measure).collect::<Result<_>>()?;
        let state = state.into_iter().filter(|(name, _)| spec.uses(name)).collect();
        let nets = RefCell::new(vec![]);
        let loss = Perceptual(Rc::new(Inner { spec, what, state, unit_range, measures, nets }));
        loss.net(DType::F32, &crate::tensor::device::default_device())?;
        Ok(loss)
    }

    /// DISTS over VGG16's weights `state`, for images in [−1, 1], or in [0, 1] where `unit_range`; `weights` are its authors' where absent.
    pub fn dists(state: State, unit_range: bool, weights: Option<State>) -> Result<Perceptual> {
        let settings = Settings { unit_range, heads: weights, ..Compare::Dists.into() };
        Perceptual::new(&DISTS, state, settings)
    }

    fn net(&self, dtype: DType, device: &Device) -> Result<Rc<Net>> {
        let at = device.location();
        if let Some((_, _, net)) = self.0.nets.borrow().iter().find(|(d, l, _)| *d == dtype && *l == at) {
            return Ok(net.clone());
        }
        let trunk = Trunk::build(self.0.spec, &self.0.state, self.0.unit_range, dtype, device)?;
        let trunk = trunk.first_taps(self.0.measures.len())?;
        let net = Rc::new(Net { trunk, seen: RefCell::new(Kept::new()), seen_composed: RefCell::new(Kept::new()) });
        self.0.nets.borrow_mut().push((dtype, at, net.clone()));
        Ok(net)
    }

    /// The loss between images x and target [B, C, H, W] (one shape), in x's dtype, differentiable in both.
    ///
    /// One value per sample, the sum over taps; `Mean` and `Sum` reduce over the batch. Images of one channel are taken as
    /// grey: all channels of the trunk get the same values. In f32 (and f16, bf16) on the CPU it runs on frozen kernels,
    /// in f64 and on other devices on candle operations.
    ///
    /// Errors: shapes that differ or are not images, images that are too small (the message names the smallest size).
    pub fn eval(&self, x: &Tensor, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        let Inner { what, .. } = &*self.0;
        check_pair(what, x, target)?;
        let dtype = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let net = self.net(dtype, x.device())?;
        net.trunk.check(what, x.dims())?;
        let [x_own, y] = [x, target].map(|t| if grad::is_tracked(t) { t.clone() } else { t.detach() });
        let y = y.to_device(x.device())?.to_dtype(dtype)?;
        let x_own = x_own.to_dtype(dtype)?;
        let one = |x: &Tensor, y: &Tensor| match dtype == DType::F32 && x.device().is_cpu() {
            true => self.fast(&net, x, y),
            false => self.composed(&net, x, y),
        };
        let each = if grad::is_tracked(&x_own) || grad::is_tracked(&y) {
            one(&x_own, &y)?
        } else {
            let n = x.dim(0)?;
            let block = |start: usize| {
                let len = BLOCK.min(n - start);
                one(&x_own.narrow(0, start, len)?, &y.narrow(0, start, len)?)
            };
            Tensor::cat(&(0..n).step_by(BLOCK).map(block).collect::<Result<Vec<_>>>()?, 0)?
        };
        reduce(what, &each.to_dtype(x.dtype())?, reduction)
    }

    /// [B] in candle operations.
    fn composed(&self, net: &Net, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let b = x.dim(0)?;
        let (fx, fy) = if grad::is_tracked(y) {
            let both = net.features(&Tensor::cat(&[x, y], 0)?)?;
            let half =
                |start: usize| both.iter().map(|t| t.narrow(0, start, b)).collect::<candle_core::Result<Vec<_>>>();
            (half(0)?, half(b)?)
        } else {
            (net.features(x)?, self.composed_target(net, y)?)
        };
        let mut sum = None;
        for ((f, g), m) in fx.iter().zip(&fy).zip(&self.0.measures) {
            let Some(m) = m else { continue };
            let d = m.compose(f, g)?;
            sum = Some(match sum {
                None => d,
                Some(s) => (s + d)?,
            });
        }
        sum.ok_or_else(|| Error::new(Kind::Internal, "a perceptual loss without layers"))
    }

    /// The target's features, those seen before from memory.
    fn composed_target(&self, net: &Net, y: &Tensor) -> Result<Vec<Tensor>> {
        let keys: Vec<Key> = (0..y.dim(0)?)
            .map(|i| {
                let image: Vec<f64> = y.get(i)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
                Ok(key(&image, y.dims(), f64::to_le_bytes))
            })
            .collect::<Result<_>>()?;
        let mut seen = net.seen_composed.borrow_mut();
        let mut each: Vec<Option<Vec<Tensor>>> = keys.iter().map(|k| seen.get(k)).collect();
        let new: Vec<usize> = (0..keys.len()).filter(|i| each[*i].is_none()).collect();
        if !new.is_empty() {
            let index = Tensor::new(new.iter().map(|i| *i as u32).collect::<Vec<_>>(), y.device())?;
            let taps = net.features(&y.index_select(&index, 0)?)?;
            for (j, i) in new.into_iter().enumerate() {
                // a view would keep the whole batch
                let own = taps.iter().map(|t| Ok(t.get(j)?.force_contiguous()?)).collect::<Result<Vec<_>>>()?;
                let bytes = own.iter().map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum();
                seen.put(keys[i], own.clone(), bytes);
                each[i] = Some(own);
            }
        }
        let each: Vec<Vec<Tensor>> = each.into_iter().flatten().collect();
        let tap = |k: usize| Ok(Tensor::stack(&each.iter().map(|f| &f[k]).collect::<Vec<_>>(), 0)?);
        (0..self.0.measures.len()).map(tap).collect()
    }

    /// [B] on the frozen kernels, as a record.
    fn fast(&self, net: &Rc<Net>, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let tracked = [x, y].map(grad::is_tracked);
        let forward = self.forward(net, &x.detach(), &y.detach(), tracked)?;
        let values: Vec<f32> = forward.values(&self.0.measures).into_iter().map(|v| v as f32).collect();
        let out = Tensor::new(values, &Device::Cpu)?;
        let (this, net, images) = (self.clone(), net.clone(), [x.detach(), y.detach()]);
        // a second pull-back through the same record runs the networks again
        let kept = RefCell::new(tracked.contains(&true).then_some(forward));
        let pullback = move |_: &dyn Host, cots: &[Option<Tensor>]| {
            let Some(Some(cot)) = cots.first() else { return Ok(vec![None, None]) };
            let cot: Vec<f64> = cot.to_dtype(DType::F64)?.to_vec1()?;
            let forward = match kept.take() {
                Some(f) => f,
                None => this.forward(&net, &images[0], &images[1], tracked)?,
            };
            let grads = forward.pull(&this.0.measures, &cot, tracked)?;
            grads.into_iter().zip(&images).map(|(g, x)| g.map(|g| image(g, x)).transpose()).collect()
        };
        let mut out = grad::record(vec![out], &[x.clone(), y.clone()], Box::new(pullback))?;
        out.pop().ok_or_else(|| Error::new(Kind::Internal, "record returned nothing"))
    }

    fn forward(&self, net: &Net, x: &Tensor, y: &Tensor, tracked: [bool; 2]) -> Result<Forward> {
        let host =
            |t: &Tensor| -> Result<Vec<f32>> { Ok(t.permute((0, 2, 3, 1))?.contiguous()?.flatten_all()?.to_vec1()?) };
        let (b, c, h, w) = x.dims4()?;
        let dims = [h, w, c];
        let (x, y) = (host(x)?, host(y)?);
        if tracked[1] {
            let [x, y] = net.run([(&x, tracked[0]), (&y, true)], dims)?;
            return Ok(Forward { x, y: Side::Live(y) });
        }
        let size = h * w * c;
        let keys: Vec<Key> = y.chunks_exact(size).map(|image| key(image, &dims, f32::to_le_bytes)).collect();
        let mut seen = net.seen.borrow_mut();
        let mut each: Vec<Option<Features>> = keys.iter().map(|k| seen.get(k)).collect();
        let new: Vec<usize> = (0..b).filter(|i| each[*i].is_none()).collect();
        let missing: Vec<f32> = new.iter().flat_map(|i| &y[i * size..(i + 1) * size]).copied().collect();
        let [x, found] = net.run([(&x, tracked[0]), (&missing, false)], dims)?;
        for (j, i) in new.into_iter().enumerate() {
            let own: Features = Arc::new((0..self.0.measures.len()).map(|k| found.sample(k, j).to_vec()).collect());
            seen.put(keys[i], own.clone(), own.iter().map(|v| 4 * v.len()).sum());
            each[i] = Some(own);
        }
        Ok(Forward { x, y: Side::Seen(each.into_iter().flatten().collect()) })
    }
}

/// Gradients [B, H, W, C] as an image tensor of x's shape.
fn image(g: Vec<f32>, x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    Ok(Tensor::from_vec(g, (b, h, w, c), &Device::Cpu)?.permute((0, 3, 1, 2))?.contiguous()?)
}

/// Where the target's features are.
enum Side {
    Live(Run),
    Seen(Vec<Features>),
}

impl Side {
    fn get(&self, i: usize, k: usize) -> &[f32] {
        match self {
            Side::Live(run) => run.sample(k, i),
            Side::Seen(each) => &each[i][k],
        }
    }
}

/// Both batches after their forward run.
struct Forward {
    x: Run,
    y: Side,
}

fn channels(run: &Run, k: usize) -> usize {
    run.dims(k).last().copied().unwrap_or(1)
}

impl Forward {
    /// The distance of each pair.
    fn values(&self, measures: &[Option<Measure>]) -> Vec<f64> {
        let tap = |i: usize, (k, m): (usize, &Option<Measure>)| {
            m.as_ref().map_or(0.0, |m| m.value(self.x.sample(k, i), self.y.get(i, k), channels(&self.x, k)))
        };
        let each = |i: usize| measures.iter().enumerate().map(|m| tap(i, m)).sum();
        (0..self.x.count()).into_par_iter().map(each).collect()
    }
    /// The gradients of Σ cot_i · value_i in both batches, where wanted.
    fn pull(self, measures: &[Option<Measure>], cot: &[f64], want: [bool; 2]) -> Result<[Option<Vec<f32>>; 2]> {
        let given: Vec<bool> = measures.iter().map(Option::is_some).collect();
        // adds the cotangent of tap `k` of image `i` on one side, given the other side's features
        let one = |run: &Run, other: &[f32], k: usize, i: usize, to: &mut [f32]| {
            if let Some(m) = &measures[k] {
                m.pull(run.sample(k, i), other, channels(run, k), cot[i], to);
            }
        };
        let gx = want[0].then(|| self.x.cotangents(&given, |k, i, to| one(&self.x, self.y.get(i, k), k, i, to)));
        let gy = match &self.y {
            Side::Live(y) if want[1] => Some(y.cotangents(&given, |k, i, to| one(y, self.x.sample(k, i), k, i, to))),
            _ => None,
        };
        let through = |run: Run, g: Option<Cotangents>| -> Result<Option<Vec<f32>>> {
            Ok(match g {
                Some(g) => run.pull(g)?.pop(),
                None => None,
            })
        };
        let y = match self.y {
            Side::Live(y) => through(y, gy)?,
            Side::Seen(_) => None,
        };
        Ok([through(self.x, gx)?, y])
    }
}
