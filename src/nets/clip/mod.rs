//! CLIP's text encoders: OpenAI's ViT-L/14, OpenCLIP's H and bigG, in the layouts in which they are published.
mod config;
mod place;

pub use config::{BARE, Config, End, GELU};
pub use place::{PLACES, Place, Reads, places, state};

use super::build::{Builder, Id, graph};
use super::family::{Described, Family, Part, Parts, Role};
use super::graph::{Absent, Adapt, Dim, Graph, Layout};
use super::kernels::{Gelu, LayerNorm, Linear, Op, Pick, TokenEmbedding};
use super::runner::Runner;
use super::weights::{File, Names as Asked, Weights};
use crate::files::checkpoint::Checkpoint;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use place::Names;
use std::borrow::Cow;
use std::sync::Arc;

/// Text encoders in files of their own. One in a file with other parts is found by [`places`].
pub const FAMILY: Family = Family { name: "CLIP", recognises, build, builtin: &[] };

const ADVICE: &str = "the file must hold a text encoder of CLIP's kind, whole";

/// The input of token numbers [B, T].
const TOKENS: &str = "tokens";
/// The input of the places of the last token [B], for the pooled output.
const END: &str = "end";
/// The output of one row for each text.
const POOLED: &str = "pooled";

fn recognises(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    let (tensors, metadata) = (state(checkpoint), checkpoint.metadata());
    // beside a denoiser it is a part of something larger
    let part = tensors.keys().any(|k| k.starts_with("model.diffusion_model."));
    Ok((!part && !places(&tensors).is_empty()).then_some((tensors, Cow::Borrowed(metadata))))
}

fn build(file: &mut File) -> Result<Parts> {
    let place = PLACES.iter().find(|p| file.has(&p.table()));
    let place = place.ok_or_else(|| Error::new(Kind::Format, "it holds no text encoder").hint(ADVICE))?;
    Ok([(Role::Text, Part::Text(Encoder::build(place, file)?))].into())
}

/// A text encoder; cheap to clone.
#[derive(Clone)]
pub struct Encoder {
    runner: Runner,
    config: Arc<Config>,
    place: &'static Place,
}

/// What texts have become.
pub struct Encoded {
    /// A row for each token, [B, tokens, width].
    pub context: Tensor,
    /// A row for each text [B, projection or width], where it was asked for.
    pub pooled: Option<Tensor>,
}

impl Encoder {
    /// The encoder that stands at this place of a file.
    pub fn build(place: &'static Place, file: &mut File) -> Result<Encoder> {
        let config = Config::read(place, file)?;
        file.allow_more(ADVICE);
        let (device, dtype) = (file.device.clone(), super::weights::wide(file.dtype));
        let runner = Runner::new(transformer(file, place, &config, dtype)?, &device, dtype);
        Ok(Encoder { runner, config: Arc::new(config), place })
    }

    /// Its sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where it was found, which says how denoisers read it.
    pub fn place(&self) -> &'static Place {
        self.place
    }

    /// What runs it.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// One line for printing.
    pub fn describe(&self) -> String {
        let Config { tokens, positions, width, layers, .. } = &*self.config;
        format!("CLIP text encoder, {layers} layers of {width}, {positions} tokens of {tokens}")
    }

    /// Encodes texts, each as many token numbers as there are places.
    ///
    /// Fails where there are more or fewer, where one is beyond the embedding, and where more layers are left out than there are.
    pub fn encode(&self, texts: &[Vec<u32>], reads: Reads) -> Result<Encoded> {
        let Config { tokens, positions, layers, .. } = *self.config;
        if texts.is_empty() {
            return Err(Error::value("there is no text to encode"));
        }
        if let Some(t) = texts.iter().find(|t| t.len() != positions) {
            let m = format!("the text encoder reads {positions} tokens at a time, got {}", t.len());
            return Err(Error::shape(m, &[&[t.len()], &[positions]]));
        }
        if let Some(id) = texts.iter().flatten().find(|id| **id as usize >= tokens) {
            return Err(Error::value(format!("token {id} is beyond the text encoder's {tokens}"))
                .hint("is the tokenizer that of another network?"));
        }
        let Some(layer) = layers.checked_sub(reads.skip).filter(|l| *l > 0) else {
            let m = format!("{} layers cannot be left out: the text encoder has {layers}", reads.skip);
            return Err(Error::value(m).hint(format!("at most {}", layers - 1)));
        };
        let context = output(reads.normed, layer);
        let wanted = [&context[..], POOLED];
        let graph = self.runner.graph().only(&wanted[..if reads.pooled { 2 } else { 1 }])?;
        let runner = Runner::new(graph, self.runner.device(), self.runner.dtype());
        let ids: Vec<f64> = texts.iter().flatten().map(|id| *id as f64).collect();
        let ends: Vec<f64> = texts.iter().map(|t| self.config.end.place(t) as f64).collect();
        let make = |v: Vec<f64>, dims: &[usize]| -> Result<Tensor> {
            Ok(Tensor::from_vec(v, dims, &Device::Cpu)?.to_dtype(runner.dtype())?.to_device(runner.device())?)
        };
        let (ids, ends) = (make(ids, &[texts.len(), positions])?, make(ends, &[texts.len()])?);
        let mut given = vec![(TOKENS, &ids)];
        if reads.pooled {
            given.push((END, &ends));
        }
        let mut outs = runner.forward(&given)?.into_iter();
        let lost = || Error::new(Kind::Internal, "a text encoder without a result");
        Ok(Encoded { context: outs.next().ok_or_else(lost)?, pooled: outs.next() })
    }
}

/// The tensors that a checkpoint of this configuration holds at a place, by name and shape. It builds the network with zeros, so it
/// takes the memory of one.
pub fn tensors(place: &Place, config: &Config) -> Result<Vec<(String, Vec<usize>)>> {
    let mut names = Asked::default();
    transformer(&mut names, place, config, DType::F32)?;
    Ok(names.0)
}

/// The output behind so many layers.
fn output(normed: bool, layer: usize) -> String {
    format!("{}.{layer}", if normed { "normed" } else { "hidden" })
}

/// The graph, with an output behind each layer, with and without the final norm, and the pooled one.
fn transformer(weights: &mut dyn Weights, place: &Place, config: &Config, dtype: DType) -> Result<Graph> {
    let Names { table, places, layer, norm, projection, .. } = place.names;
    graph(weights, place.root, dtype, |b| {
        b.wide(config.width >= 64);
        let ids = b.input(TOKENS, &[Dim::Exactly(config.positions)], Layout::Plain, Absent::Error)?;
        let end = b.input(END, &[], Layout::Plain, Absent::LeftOut)?;
        let (table, w) = b.weight(table, &[config.tokens, config.width], &[])?;
        let (places, p) = b.weight(places, &[config.positions, config.width], &[])?;
        let embedding = Arc::new(TokenEmbedding::new(table, Some(places))?);
        let mut x = b.under("embeddings").add(embedding, &[ids], vec![w, p])?[0];
        // one norm behind every layer of which a text may be read
        let (g, w) = b.weight(&format!("{norm}.weight"), &[config.width], &[])?;
        let (s, p) = b.weight(&format!("{norm}.bias"), &[config.width], &[])?;
        let (last, held): (Arc<dyn Op>, _) = (Arc::new(LayerNorm::new(g, s, config.eps)?), vec![w, p]);
        for i in 0..config.layers {
            x = block(&mut b.under(&format!("{layer}.{i}")), x, place, config)?;
            let normed = b.under(norm).add(last.clone(), &[x], held.clone())?[0];
            b.output(&output(false, i + 1), x, Layout::Plain);
            b.output(&output(true, i + 1), normed, Layout::Plain);
            if i + 1 == config.layers {
                let mut pooled = b.under(POOLED).apply(Pick, &[normed, end])?;
                if let Some(n) = config.projection {
                    pooled = project(b, pooled, projection, place.names.transposed, n)?;
                }
                b.output(POOLED, pooled, Layout::Plain);
            }
        }
        Ok(())
    })
}

/// The map of the pooled output, which OpenCLIP keeps as [in, out].
fn project(b: &mut Builder, x: Id, name: &str, transposed: bool, n: usize) -> Result<Id> {
    let c = b.channels(x);
    let (dims, adapt) = if transposed { ([c, n], vec![Adapt::Transpose]) } else { ([n, c], vec![]) };
    let (w, weight) = b.weight(name, &dims, &adapt)?;
    let zeros = Tensor::zeros(n, w.dtype(), w.device())?;
    Ok(b.under("projection").add(Arc::new(Linear::new(&w, zeros)?), &[x], vec![weight])?[0])
}

/// Attention to the tokens before, and two maps with a GELU between them; a norm before each.
fn block(b: &mut Builder, x: Id, place: &Place, config: &Config) -> Result<Id> {
    let Names { norms, attention, qkv, out, maps, .. } = place.names;
    let c = config.width;
    let h = b.under(norms[0]).layer_norm(x, config.eps)?;
    let [q, k, v] = match qkv {
        Some(parts) => {
            let mut part = |name: &str| b.under(attention).under(name).linear(h, c);
            [part(parts[0])?, part(parts[1])?, part(parts[2])?]
        }
        None => {
            let mut b = b.under(attention);
            let (w, weight) = b.weight("in_proj_weight", &[3 * c, c], &[])?;
            let (s, bias) = b.weight("in_proj_bias", &[3 * c], &[])?;
            let all = b.under("in_proj").add(Arc::new(Linear::new(&w, s)?), &[h], vec![weight, bias])?[0];
            match b.under("parts").split(all, &[c; 3])?[..] {
                [q, k, v] => [q, k, v],
                _ => return Err(Error::new(Kind::Internal, "q, k and v are not three")),
            }
        }
    };
    let h = b.under(attention).cross_attention([q, k, v], config.heads, true)?;
    let h = b.under(attention).under(out).linear(h, c)?;
    let x = b.under("attended").sum(x, h, 1.0)?;
    let h = b.under(norms[1]).layer_norm(x, config.eps)?;
    let h = b.under(maps[0]).linear(h, config.inner)?;
    let h = b.under("gelu").gelu(h, if config.quick { Gelu::Quick } else { Gelu::Exact })?;
    let h = b.under(maps[1]).linear(h, c)?;
    b.under("mapped").sum(x, h, 1.0)
}
