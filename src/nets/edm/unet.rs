//! What all U-Nets of EDM are when they run: an embedding of the noise level, and steps down and up that share skips.
use super::blocks::{Block, Op};
use crate::nets::kernels::{AddScale, Concat, Silu};
use crate::nets::tape::Exec;
use crate::{Error, Kind, Result};
use std::f64::consts::FRAC_1_SQRT_2;
use std::sync::Arc;

/// One step of the encoder or decoder: x is the main path, `aux` the second one of NCSN++'s variants.
pub(super) enum Step {
    /// x = conv(x), remembered as a skip.
    Conv(Op),
    /// x = block(x), remembered as a skip.
    Down(Block),
    /// x = block(x).
    Up(Block),
    /// x = block(x | the latest skip).
    Join(Block),
    /// aux = op(aux), where there is one.
    Aux(Op),
    /// x = x + op(aux), in place of the latest skip.
    AddAux(Op),
    /// x = aux = (x + ops(aux)) / √2, in place of the latest skip.
    Residual(Vec<Op>),
    /// aux = aux + conv(norm(x)), or conv(norm(x)) where there is none yet.
    Out(Op, Op),
}

/// What is added to the embedding, and where from.
pub(super) struct Conditions {
    pub label: Option<Op>,
    pub augment: Option<Op>,
}

/// From noise level and conditions to the embedding that all blocks see.
pub(super) struct Mapping {
    pub waves: Op,
    pub conditions: Conditions,
    pub layers: [Op; 2],
    /// Whether labels are added after both layers (ADM), or before them.
    pub label_late: bool,
    /// Factor of the labels.
    pub label_scale: f64,
}

/// The network F(x_in, c_noise, labels).
pub struct UNet {
    pub(super) mapping: Mapping,
    pub(super) encoder: Vec<Step>,
    pub(super) decoder: Vec<Step>,
    pub(super) shared: Shared,
}

/// Operations without weights.
pub(super) struct Shared {
    silu: Op,
    plus: Op,
    mean: Op,
    concat: Op,
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            silu: Arc::new(Silu),
            plus: Arc::new(AddScale(1.0)),
            mean: Arc::new(AddScale(FRAC_1_SQRT_2)),
            concat: Arc::new(Concat),
        }
    }
}

/// What a network is conditioned on besides the noise level.
pub struct Given<'a, V> {
    /// [B, classes], times [`UNet::label_scale`].
    pub labels: Option<&'a V>,
    /// [B, augment_dim].
    pub augment: Option<&'a V>,
}

impl UNet {
    /// What one-hot labels are multiplied with before they are given.
    pub fn label_scale(&self) -> f64 {
        self.mapping.label_scale
    }

    fn embed<E: Exec>(&self, e: &mut E, c_noise: &E::Value, given: &Given<E::Value>) -> Result<E::Value> {
        let Mapping { waves, conditions, layers, label_late, .. } = &self.mapping;
        let add = |e: &mut E, emb: E::Value, map: &Option<Op>, rows: Option<&E::Value>| match (map, rows) {
            (Some(map), Some(rows)) => {
                let more = e.apply(map, &[rows])?;
                e.apply(&self.shared.plus, &[&emb, &more])
            }
            _ => Ok(emb),
        };
        let mut emb = e.apply(waves, &[c_noise])?;
        if !label_late {
            emb = add(e, emb, &conditions.label, given.labels)?;
        }
        emb = add(e, emb, &conditions.augment, given.augment)?;
        emb = e.apply(&layers[0], &[&emb])?;
        emb = e.apply(&self.shared.silu, &[&emb])?;
        emb = e.apply(&layers[1], &[&emb])?;
        if *label_late {
            emb = add(e, emb, &conditions.label, given.labels)?;
        }
        e.apply(&self.shared.silu, &[&emb])
    }

    /// F for x [B, H, W, C] and c_noise [B].
    pub fn run<E: Exec>(
        &self,
        e: &mut E,
        x: &E::Value,
        c_noise: &E::Value,
        given: &Given<E::Value>,
    ) -> Result<E::Value> {
        let odd = || Error::new(Kind::Internal, "a U-Net whose steps do not fit together");
        let emb = self.embed(e, c_noise, given)?;
        let (mut x, mut aux, mut skips) = (x.clone(), Some(x.clone()), vec![]);
        for (i, step) in self.encoder.iter().chain(&self.decoder).enumerate() {
            if i == self.encoder.len() {
                aux = None;
            }
            match step {
                Step::Conv(op) => {
                    x = e.apply(op, &[&x])?;
                    skips.push(x.clone());
                }
                Step::Down(block) => {
                    x = block.run(e, x, &emb)?;
                    skips.push(x.clone());
                }
                Step::Up(block) => x = block.run(e, x, &emb)?,
                Step::Join(block) => {
                    let skip = skips.pop().ok_or_else(odd)?;
                    x = e.apply(&self.shared.concat, &[&x, &skip])?;
                    x = block.run(e, x, &emb)?;
                }
                Step::Aux(op) => {
                    if let Some(a) = aux {
                        aux = Some(e.apply(op, &[&a])?);
                    }
                }
                Step::AddAux(op) => {
                    let more = e.apply(op, &[aux.as_ref().ok_or_else(odd)?])?;
                    x = e.apply(&self.shared.plus, &[&x, &more])?;
                    *skips.last_mut().ok_or_else(odd)? = x.clone();
                }
                Step::Residual(ops) => {
                    let mut more = aux.ok_or_else(odd)?;
                    for op in ops {
                        more = e.apply(op, &[&more])?;
                    }
                    x = e.apply(&self.shared.mean, &[&x, &more])?;
                    *skips.last_mut().ok_or_else(odd)? = x.clone();
                    aux = Some(x.clone());
                }
                Step::Out(norm, conv) => {
                    let mut out = e.apply(norm, &[&x])?;
                    out = e.apply(conv, &[&out])?;
                    aux = Some(match aux {
                        Some(a) => e.apply(&self.shared.plus, &[&out, &a])?,
                        None => out,
                    });
                }
            }
        }
        aux.ok_or_else(odd)
    }
}
