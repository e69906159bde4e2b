//! A denoiser's network: a graph whose first input is the state, whose second is the noise level, and whose others are conditions.
use super::graph::{Absent, Port};
use super::runner::Runner;
pub use crate::denoise::CLASSES;
use crate::denoise::{Cond, NetPullback, Network, Preconditioned, Predicts, TimeInput};
use crate::host::Host;
use crate::{Error, Kind, Result};
use candle_core::{DType, Tensor};
use std::rc::Rc;
use std::sync::Arc;

/// The name of the input that is the state, scaled as the network was trained.
pub const STATE: &str = "x";
/// The name of the input that tells the noise level, [B].
pub const TIME: &str = "c_noise";
/// The name of the input for augmentation labels.
pub const AUGMENT: &str = "augment";

/// What a user needs to know of a denoiser's network, and what its denoiser is made from.
#[derive(Debug, Clone)]
pub struct Card {
    /// The kind of preconditioning: "EDM", "VP", "VE", "iDDPM".
    pub kind: &'static str,
    /// The architecture: "DDPM++", "ADM", ….
    pub architecture: &'static str,
    /// What the network's output means.
    pub predicts: Predicts,
    /// What the network is told about the noise.
    pub time: TimeInput,
    /// The noise levels σ/α that the network knows, lowest and highest.
    pub trained: [f64; 2],
    /// Those between which it is sampled by default.
    pub sampled: [f64; 2],
    /// Names of the classes, numbers where the file has none; empty for an unconditional network.
    pub classes: Vec<String>,
    /// Whether its file says that it was meant for half precision on a GPU.
    pub half: bool,
}

/// A frozen network F(x_in, c_noise, conditions), with or without [`Net::denoiser`] around it; cheap to clone.
#[derive(Clone)]
pub struct Net {
    runner: Runner,
    card: Arc<Card>,
    hash: String,
    /// What it is called, where that is not for its family to say.
    name: Option<Arc<str>>,
    /// Augmentation labels of every sample.
    augment: Option<Arc<[f64]>>,
    /// The noise schedule that it was trained in, where that is not EDM's.
    noise: Option<Arc<serde_json::Value>>,
    /// What its family has to say to users.
    notes: Arc<[String]>,
    /// Conditions of every sample that is not told others.
    untold: Arc<[(&'static str, Vec<f64>)]>,
}

impl Net {
    /// From a graph with the inputs [`STATE`] and [`TIME`] first and one output; `hash` is of weights and configuration.
    pub fn new(runner: Runner, card: Card, hash: String) -> Net {
        let (name, augment, noise) = (None, None, None);
        Net { runner, card: Arc::new(card), hash, name, augment, noise, notes: [].into(), untold: [].into() }
    }

    /// The same network, trained in another noise schedule than EDM's, with notes for users.
    pub fn trained_in(self, noise: serde_json::Value, notes: Vec<String>) -> Net {
        Net { noise: Some(Arc::new(noise)), notes: notes.into(), ..self }
    }

    /// The same network under a name of its own.
    pub fn named(self, name: &str) -> Net {
        Net { name: Some(name.into()), ..self }
    }

    /// The same network with a row for a condition that it is not told.
    pub fn unless_told(self, name: &'static str, row: Vec<f64>) -> Net {
        let untold = self.untold.iter().cloned().chain([(name, row)]).collect();
        Net { untold, ..self }
    }

    /// What a user needs to know.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// What runs it.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// The width of a condition; 0 where there is none of this name.
    fn width(&self, name: &str) -> usize {
        let port = self.runner.graph().inputs.iter().find(|p| p.name == name);
        port.map_or(0, |p| p.sizes().iter().product())
    }

    /// What a user may want to know when it is loaded: where it does not do what might be expected.
    pub fn notes(&self) -> Vec<String> {
        let Card { time, trained, half, .. } = &*self.card;
        let mut notes = self.notes.to_vec();
        if let TimeInput::Nearest(u) = time {
            notes.push(format!(
                "it knows {} noise levels from {:.4} to {:.4}, and between them is told the nearest; `net.round_sigma(sigma)` rounds steps to them",
                u.len() - 1, trained[0], trained[1],
            ));
        }
        if *half && self.runner.dtype() == DType::F32 {
            notes.push(match self.runner.device().is_cpu() {
                true => "its file asks for half precision on a GPU; on the CPU it runs in f32, as in EDM's code".into(),
                false => "its file asks for half precision; it runs in f32 unless loaded with `dtype: \"f16\"`".into(),
            });
        }
        notes
    }

    /// The same network with these augmentation labels for every sample: what training told it about how an image was
    /// changed (EDM's nine numbers). Without them, and with zeros, it makes images as they are.
    pub fn augmented(&self, labels: &[f64]) -> Result<Net> {
        let n = self.width(AUGMENT);
        if n == 0 {
            return Err(Error::value("this network takes no augmentation labels"));
        }
        if labels.len() != n || labels.iter().any(|v| !v.is_finite()) {
            return Err(Error::value(format!("expected {n} finite augmentation labels, got {labels:?}")));
        }
        let hash = format!("{} augment {labels:?}", self.hash);
        Ok(Net { augment: Some(labels.into()), hash, ..self.clone() })
    }

    /// The network with its preconditioning, in its own noise schedule: for most EDM's between the noise levels of [`Card::sampled`].
    pub fn denoiser(self) -> Result<Preconditioned> {
        let Card { predicts, time, trained, sampled, .. } = (*self.card).clone();
        if let Some(own) = self.noise.clone() {
            return Preconditioned::new(Rc::new(self), crate::noise::from_spec(&own)?, predicts)?.with_time(time);
        }
        let own = serde_json::json!({ "name": "edm", "sigma_min": sampled[0], "sigma_max": sampled[1] });
        let d = Preconditioned::new(Rc::new(self), crate::noise::from_spec(&own)?, predicts)?.with_time(time)?;
        if trained == sampled { Ok(d) } else { d.with_range(trained[0], trained[1]) }
    }

    /// The values of all inputs, by name.
    fn given(&self, x: &Tensor, c_noise: &Tensor, cond: &Cond) -> Result<Vec<(String, Tensor)>> {
        let mut given = vec![(STATE.to_string(), x.clone()), (TIME.to_string(), c_noise.clone())];
        let batch = x.dims().first().copied().unwrap_or(0);
        let each = |row: &[f64]| -> Result<Tensor> {
            let row = Tensor::new(row, x.device())?.to_dtype(c_noise.dtype())?.unsqueeze(0)?;
            Ok(row.broadcast_as((batch, row.dim(1)?))?.contiguous()?)
        };
        if let Some(row) = &self.augment {
            given.push((AUGMENT.into(), each(row)?));
        }
        let known = self.conditions();
        let known: Vec<&str> = known.iter().map(|n| &**n).collect();
        match cond {
            Cond::None => {}
            Cond::Named(all) => {
                for (name, t) in all.iter() {
                    if !known.contains(&&**name) {
                        return Err(no_such_condition(name, t, &known));
                    }
                    given.push((name.clone(), t.detach()));
                }
            }
            Cond::Opaque(_) => {
                let e = Error::new(Kind::Type, "this network takes tensors as its conditions, not a script's value");
                return Err(match known.is_empty() {
                    true => e.hint("leave the condition out"),
                    false => e.hint(format!("it takes `{}`", known.join("`, `"))),
                });
            }
        }
        for (name, row) in self.untold.iter() {
            if given.iter().all(|(n, _)| n != name) {
                given.push((name.to_string(), each(row)?));
            }
        }
        Ok(given)
    }
}

fn no_such_condition(name: &str, t: &Tensor, known: &[&str]) -> Error {
    if !known.is_empty() {
        return Error::unknown("condition of this network", name, known.iter().copied());
    }
    let m = match name {
        CLASSES => "this network has no classes, but class rows were given".into(),
        _ => format!("this network takes no conditions, but `{name}` was given"),
    };
    Error::shape(m, &[t.dims()]).hint("leave the condition out")
}

fn borrowed(given: &[(String, Tensor)]) -> Vec<(&str, &Tensor)> {
    given.iter().map(|(n, t)| (&**n, t)).collect()
}

fn lost() -> Error {
    Error::new(Kind::Internal, "a network without a result")
}

impl Network for Net {
    fn describe(&self) -> String {
        // channels last; a family may leave sizes open, and then there are none to tell
        let shape = self.sample_shape().unwrap_or_default();
        let (channels, rest) = shape.split_at(shape.len().min(1));
        let size: Vec<String> = rest.iter().chain(channels).map(usize::to_string).collect();
        let needs = |p: &&Port| p.absent == Absent::Error && ![STATE, TIME].contains(&&*p.name);
        let needed: Vec<&str> = self.runner.graph().inputs.iter().filter(needs).map(|p| &*p.name).collect();
        let classes = match self.classes() {
            0 if !needed.is_empty() => format!("told `{}`", needed.join("`, `")),
            0 => "unconditional".to_string(),
            n => format!("{n} classes"),
        };
        match &self.name {
            Some(name) => format!("{name} {}, {classes}", size.join("×")),
            None => format!("{} {} {}, {classes}", self.card.kind, self.card.architecture, size.join("×")),
        }
    }
    fn hash(&self) -> Option<String> {
        Some(self.hash.clone())
    }
    fn sample_shape(&self) -> Option<Vec<usize>> {
        self.runner.graph().inputs.first()?.outside().into_iter().collect()
    }
    fn classes(&self) -> usize {
        self.width(CLASSES)
    }
    fn conditions(&self) -> Vec<String> {
        let takes = |p: &&Port| p.name != STATE && p.name != TIME && p.name != AUGMENT;
        self.runner.graph().inputs.iter().filter(takes).map(|p| p.name.clone()).collect()
    }
    fn kept(&self, batch: usize) -> Option<u64> {
        self.runner.kept(batch, &[STATE, TIME]).ok()
    }
    fn places(&self) -> Vec<String> {
        self.runner.graph().nodes.iter().map(|n| n.name.clone()).collect()
    }
    fn hidden(&self, _: &dyn Host, x_in: &Tensor, c_noise: &Tensor, cond: &Cond, place: &str) -> Result<Tensor> {
        let part = Runner::new(self.runner.graph().up_to(place)?, self.runner.device(), self.runner.dtype());
        let given = self.given(x_in, c_noise, cond)?;
        part.forward(&borrowed(&given))?.pop().ok_or_else(lost)
    }
    fn forward(&self, _: &dyn Host, x_in: &Tensor, c_noise: &Tensor, cond: &Cond) -> Result<Tensor> {
        let given = self.given(x_in, c_noise, cond)?;
        self.runner.forward(&borrowed(&given))?.pop().ok_or_else(lost)
    }
    fn linearize(&self, _: &dyn Host, x_in: &Tensor, c_noise: &Tensor, cond: &Cond) -> Result<(Tensor, NetPullback)> {
        let given = self.given(x_in, c_noise, cond)?;
        let (mut outs, pull) = self.runner.linearize(&borrowed(&given), &[STATE, TIME])?;
        let pull: NetPullback = Box::new(move |_, cot| {
            let mut grads = pull(&[Some(cot)])?.into_iter();
            Ok((grads.next().ok_or_else(lost)?, grads.next().ok_or_else(lost)?))
        });
        Ok((outs.pop().ok_or_else(lost)?, pull))
    }
}
