//! Makes graphs: operations by the place where they stand, their weights taken by name, shapes known as it goes.
use super::graph::{Absent, Adapt, Dim, Graph, Layout, Node, Output, Port, Weight};
use super::kernels::{
    AddScale, Attention, Concat, Conv, CrossAttention, Frozen, Geglu, Gelu, GroupNorm, LayerNorm, Linear,
    MaskedAttention, MaxPool, Modulation, Nearest, Op, Relu, Scale, Shaped, Silu, Split, TokenEmbedding, Within,
};
use super::weights::{Weights, wide};
use crate::{Error, Kind, Result};
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// A value of the graph that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(usize);

struct State<'w> {
    weights: &'w mut dyn Weights,
    /// What stands before every weight's name in the checkpoint.
    root: &'static str,
    trunk: DType,
    inputs: Vec<Port>,
    nodes: Vec<Arc<Node>>,
    outputs: Vec<Output>,
    /// The shape of one sample of each value.
    shapes: Vec<Vec<usize>>,
    wide: bool,
}

/// A place in a graph that is being made: what is added there is named by it.
pub struct Builder<'b, 'w> {
    state: &'b mut State<'w>,
    at: String,
}

/// The sizes of a convolution.
#[derive(Clone, Copy)]
pub struct ConvSize {
    /// Output channels.
    pub channels: usize,
    /// Height and width of the kernel.
    pub window: usize,
    /// Pixels from window to window.
    pub stride: usize,
    /// Zeros above and to the left, and below and to the right.
    pub padding: [usize; 2],
}

impl ConvSize {
    /// As many pixels as before: stride 1 and a padding of half the window.
    pub fn same(channels: usize, window: usize) -> ConvSize {
        ConvSize { channels, window, stride: 1, padding: [window / 2; 2] }
    }
}

/// Makes a graph whose weights come from `weights`, their names after `root`. `trunk` is the type of the images between
/// operations; weights come in f32 or f64, which is also the type of everything that is no image.
///
/// `f` declares inputs, adds operations and names outputs. Fails where it does, and where weights are left over.
pub fn graph(
    weights: &mut dyn Weights,
    root: &'static str,
    trunk: DType,
    f: impl FnOnce(&mut Builder) -> Result<()>,
) -> Result<Graph> {
    let (inputs, nodes, outputs, shapes) = Default::default();
    let mut state = State { weights, root, trunk, inputs, nodes, outputs, shapes, wide: false };
    f(&mut Builder { state: &mut state, at: String::new() })?;
    state.weights.finish()?;
    Ok(Graph::new(state.inputs, state.nodes, state.outputs, state.wide))
}

impl<'w> Builder<'_, 'w> {
    /// A place within this one.
    pub fn under(&mut self, part: &str) -> Builder<'_, 'w> {
        let at = if self.at.is_empty() { part.to_string() } else { format!("{}.{part}", self.at) };
        Builder { state: self.state, at }
    }

    /// Says that the weights outgrow the caches (see [`Graph::wide`]).
    pub fn wide(&mut self, wide: bool) {
        self.state.wide = wide;
    }

    /// Declares an input; all of them come before the first operation.
    pub fn input(&mut self, name: &str, dims: &[Dim], layout: Layout, absent: Absent) -> Result<Id> {
        if !self.state.nodes.is_empty() {
            return Err(Error::new(Kind::Internal, format!("the input `{name}` is declared after an operation")));
        }
        self.state.inputs.push(Port { name: name.into(), dims: dims.into(), layout, absent });
        self.state.shapes.push(dims.iter().map(|d| d.size()).collect());
        Ok(Id(self.state.shapes.len() - 1))
    }

    /// Names a result.
    pub fn output(&mut self, name: &str, value: Id, layout: Layout) {
        self.state.outputs.push(Output { name: name.into(), value: value.0, layout });
    }

    /// The shape of one sample of a value.
    pub fn shape(&self, value: Id) -> &[usize] {
        &self.state.shapes[value.0]
    }

    /// The last size of a value.
    pub fn channels(&self, value: Id) -> usize {
        self.shape(value).last().copied().unwrap_or_default()
    }

    /// Adds an operation here, whose weights have been taken.
    pub fn add(&mut self, op: Arc<dyn Op>, inputs: &[Id], weights: Vec<Weight>) -> Result<Vec<Id>> {
        let batch = |id: &Id| [&[1], self.shape(*id)].concat();
        let shapes: Vec<Vec<usize>> = inputs.iter().map(batch).collect();
        let node = Node {
            name: self.at.clone(),
            op,
            inputs: inputs.iter().map(|i| i.0).collect(),
            first: self.state.shapes.len(),
            dims: vec![],
            weights,
        };
        let dims = node.check(&shapes.iter().map(|s| &s[..]).collect::<Vec<_>>()).map_err(|e| {
            Error::new(Kind::Format, e.message().to_string()).hint("does its configuration describe this network?")
        })?;
        let dims: Vec<Vec<usize>> = dims.into_iter().map(|d| d[1..].to_vec()).collect();
        let ids = (0..dims.len()).map(|k| Id(node.first + k)).collect();
        self.state.shapes.extend(dims.iter().cloned());
        self.state.nodes.push(Arc::new(Node { dims, ..node }));
        Ok(ids)
    }

    /// Adds an operation with one result.
    fn one(&mut self, op: impl Op + 'static, inputs: &[Id], weights: Vec<Weight>) -> Result<Id> {
        self.add(Arc::new(op), inputs, weights).map(|ids| ids[0])
    }

    /// Adds an operation without weights and with one result.
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[Id]) -> Result<Id> {
        self.one(op, inputs, vec![])
    }

    /// Adds an operation on images that computes in f32 where the images are of half precision.
    pub fn apply_wide(&mut self, op: impl Frozen + 'static, inputs: &[Id]) -> Result<Id> {
        self.widened(op, inputs, vec![])
    }

    fn widened(&mut self, op: impl Frozen + 'static, inputs: &[Id], weights: Vec<Weight>) -> Result<Id> {
        match self.state.trunk {
            DType::F16 | DType::BF16 => self.one(Within { op: Arc::new(op), dtype: DType::F32 }, inputs, weights),
            _ => self.one(op, inputs, weights),
        }
    }

    /// Values that the checkpoint of a file holds beside the trained ones, or `computed` where there is no file.
    pub fn buffer(&mut self, name: &str, shape: &[usize], computed: &[f64]) -> Result<Vec<f64>> {
        let name = self.full(name);
        self.state.weights.buffer(&name, shape, computed)
    }

    /// Values that an operation without weights is made from, such as frequencies.
    pub fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f64>> {
        let name = self.full(name);
        Ok(self.state.weights.take(&name, shape)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
    }

    /// Where in the checkpoint this is.
    pub fn place(&self) -> String {
        format!("{}{}", self.state.root, self.at)
    }

    /// A weight's name in the checkpoint.
    pub fn full(&self, name: &str) -> String {
        let dot = if self.at.is_empty() { "" } else { "." };
        format!("{}{}{dot}{name}", self.state.root, self.at)
    }

    /// Takes a matrix of a linear map or convolution, which stays in 16 bits where it is stored in them and runs in f32.
    fn matrix(&mut self, dims: &[usize], image: bool, adapt: &[Adapt]) -> Result<(Tensor, Weight)> {
        let name = self.full("weight");
        let t = self.state.weights.take_stored(&name, dims)?;
        self.taken(name, t, dims, image, adapt)
    }

    /// Takes a weight of what stands here, in the type of the images or in that of everything else.
    fn take(&mut self, name: &str, dims: &[usize], image: bool, adapt: &[Adapt]) -> Result<(Tensor, Weight)> {
        let name = self.full(name);
        let t = self.state.weights.take(&name, dims)?;
        self.taken(name, t, dims, image, adapt)
    }

    fn taken(&self, name: String, t: Tensor, dims: &[usize], image: bool, adapt: &[Adapt]) -> Result<(Tensor, Weight)> {
        let t = if image { narrowed(&name, t, self.state.trunk)? } else { t };
        let weight = Weight { name, dims: dims.to_vec(), adapt: adapt.to_vec() };
        Ok((weight.adapted(&t)?, weight))
    }

    /// Takes a weight of what stands here and is no image, for [`Builder::add`]; `name` is the rest of its name.
    pub fn weight(&mut self, name: &str, dims: &[usize], adapt: &[Adapt]) -> Result<(Tensor, Weight)> {
        self.take(name, dims, false, adapt)
    }

    /// A convolution of images.
    pub fn conv(&mut self, x: Id, size: ConvSize) -> Result<Id> {
        self.conv_first(x, size, size.channels)
    }

    /// A convolution with an oblong kernel and zeros of half its size around the image, of stride 1.
    pub fn conv_oblong(&mut self, x: Id, channels: usize, kernel: [usize; 2]) -> Result<Id> {
        let cin = self.channels(x);
        let (w, weight) = self.take("weight", &[channels, cin, kernel[0], kernel[1]], true, &[])?;
        let (b, bias) = self.take("bias", &[channels], true, &[])?;
        self.one(Conv::oblong(w, b, 1, kernel.map(|k| [k / 2; 2]))?, &[x], vec![weight, bias])
    }

    /// A convolution of which the first `keep` output channels are wanted.
    pub fn conv_first(&mut self, x: Id, size: ConvSize, keep: usize) -> Result<Id> {
        let ConvSize { channels, window, stride, padding } = size;
        let cin = self.channels(x);
        let mut adapt = if keep == channels { vec![] } else { vec![Adapt::First(keep)] };
        if ([window, stride], padding) == ([1, 1], [0, 0]) {
            let (bias_adapt, dims) = (adapt.clone(), [channels, cin, 1, 1]);
            adapt.push(Adapt::Reshape(vec![keep, cin]));
            return self.linear_of(x, &dims, &adapt, &bias_adapt, true);
        }
        let (w, weight) = self.matrix(&[channels, cin, window, window], true, &adapt)?;
        let (b, bias) = self.take("bias", &[channels], true, &adapt)?;
        self.one(Conv::padded(w, b, stride, padding)?, &[x], vec![weight, bias])
    }

    /// A 1×1 convolution of images whose output channels alternate between `parts`, put part after part; its weights have the
    /// shape `dims`, whatever ones it has beside [out, in].
    pub fn conv1_apart(&mut self, x: Id, dims: &[usize], apart: Adapt) -> Result<Id> {
        let adapt = [Adapt::Reshape(vec![dims[0], self.channels(x)]), apart.clone()];
        self.linear_of(x, dims, &adapt, &[apart], true)
    }

    fn linear_of(&mut self, x: Id, dims: &[usize], adapt: &[Adapt], bias: &[Adapt], image: bool) -> Result<Id> {
        let (w, weight) = self.matrix(dims, image, adapt)?;
        let (b, bias) = self.take("bias", &dims[..1], image, bias)?;
        self.one(Linear::new(&w, b)?, &[x], vec![weight, bias])
    }

    /// A linear map of what is no image.
    pub fn linear(&mut self, x: Id, channels: usize) -> Result<Id> {
        self.linear_of(x, &[channels, self.channels(x)], &[], &[], false)
    }

    /// A linear map of what is no image, without bias.
    pub fn linear_unbiased(&mut self, x: Id, channels: usize) -> Result<Id> {
        self.unbiased(x, channels, false)
    }

    fn unbiased(&mut self, x: Id, channels: usize, image: bool) -> Result<Id> {
        let (w, weight) = self.matrix(&[channels, self.channels(x)], image, &[])?;
        let dtype = if image { self.state.trunk } else { wide(self.state.trunk) };
        let zeros = Tensor::zeros(channels, dtype, w.device())?;
        self.one(Linear::new(&w, zeros)?, &[x], vec![weight])
    }

    /// A 1×1 convolution of images whose weights have the shape `dims`, whatever ones it has beside [out, in].
    pub fn pointwise(&mut self, x: Id, dims: &[usize]) -> Result<Id> {
        let adapt = [Adapt::Reshape(vec![dims[0], self.channels(x)])];
        self.linear_of(x, dims, &adapt, &[], true)
    }

    /// The mean of an embedding's entries by the weights in `rows` [B, entries], which are one-hot as a rule. Where the last entry is
    /// that of no class, `rows` have no column for it, and a row of zeros means it.
    pub fn embedding(&mut self, rows: Id, [entries, width]: [usize; 2], last_is_none: bool) -> Result<Id> {
        let (name, dims) = (self.full("weight"), vec![entries, width]);
        let stored = self.state.weights.take(&name, &dims)?;
        let part = |adapt: &[Adapt]| -> Result<(Tensor, Weight)> {
            let weight = Weight { name: name.clone(), dims: dims.clone(), adapt: adapt.to_vec() };
            Ok((weight.adapted(&stored)?, weight))
        };
        if !last_is_none {
            let (w, weight) = part(&[Adapt::Transpose])?;
            let zeros = Tensor::zeros(width, w.dtype(), w.device())?;
            return self.one(Linear::new(&w, zeros)?, &[rows], vec![weight]);
        }
        let ((w, weight), (b, bias)) = (part(&[Adapt::AgainstLast, Adapt::Transpose])?, part(&[Adapt::Last])?);
        self.one(Linear::new(&w, b)?, &[rows], vec![weight, bias])
    }

    /// A row of a table for each of some numbers, which stays in 16 bits where it is stored in them.
    pub fn tokens(&mut self, ids: Id, dims: [usize; 2]) -> Result<Id> {
        let (table, weight) = self.matrix(&dims, false, &[])?;
        self.one(TokenEmbedding::new(table, None)?, &[ids], vec![weight])
    }

    /// The same values in another shape of a sample.
    pub fn shaped(&mut self, x: Id, dims: &[usize]) -> Result<Id> {
        self.apply(Shaped(dims.to_vec()), &[x])
    }

    /// A map whose rows have one magnitude, without bias: of images by a window, or of what is no image where there is none. `apart` puts
    /// output channels in another order.
    pub fn magnitude(&mut self, x: Id, channels: usize, window: Option<usize>, apart: Option<Adapt>) -> Result<Id> {
        let (cin, image) = (self.channels(x), window.is_some());
        let dims: Vec<usize> = [channels, cin].into_iter().chain(window.into_iter().flat_map(|n| [n, n])).collect();
        let mut adapt = vec![Adapt::Magnitude];
        if window == Some(1) {
            adapt.push(Adapt::Reshape(vec![channels, cin]));
        }
        adapt.extend(apart);
        let (w, weight) = self.take("weight", &dims, image, &adapt)?;
        let zeros = Tensor::zeros(channels, w.dtype(), w.device())?;
        match window {
            Some(n) if n > 1 => self.one(Conv::padded(w, zeros, 1, [n / 2; 2])?, &[x], vec![weight]),
            _ => self.one(Linear::new(&w, zeros)?, &[x], vec![weight]),
        }
    }

    /// The nearest of some codes, for each pixel; its gradient is that of the identity.
    pub fn nearest(&mut self, x: Id, codes: usize) -> Result<Id> {
        let (w, weight) = self.take("weight", &[codes, self.channels(x)], false, &[])?;
        self.widened(Nearest::new(w)?, &[x], vec![weight])
    }

    /// A linear map of the last dimension of images and tokens, in the type of the images.
    pub fn map(&mut self, x: Id, channels: usize) -> Result<Id> {
        self.linear_of(x, &[channels, self.channels(x)], &[], &[], true)
    }

    /// The same without bias.
    pub fn map_unbiased(&mut self, x: Id, channels: usize) -> Result<Id> {
        self.unbiased(x, channels, true)
    }

    /// A group norm of images, modulated by an embedding where there is one, with SiLU after it where asked.
    pub fn group_norm(
        &mut self,
        x: Id,
        groups: usize,
        eps: f64,
        by: Option<(Modulation, Id)>,
        silu: bool,
    ) -> Result<Id> {
        let c = self.channels(x);
        let (w, weight) = self.take("weight", &[c], false, &[])?;
        let (b, bias) = self.take("bias", &[c], false, &[])?;
        let (modulation, inputs) = match by {
            Some((modulation, e)) => (modulation, vec![x, e]),
            None => (Modulation::None, vec![x]),
        };
        self.widened(GroupNorm::new(w, b, groups, eps, modulation, silu)?, &inputs, vec![weight, bias])
    }

    /// Softmax attention over pixels of q | k | v.
    pub fn attention(&mut self, qkv: Id, heads: usize) -> Result<Id> {
        self.apply_wide(Attention { heads }, &[qkv])
    }

    /// Softmax attention of queries to keys and values, in order.
    pub fn cross_attention(&mut self, qkv: [Id; 3], heads: usize, causal: bool) -> Result<Id> {
        self.apply_wide(CrossAttention { heads, causal }, &qkv)
    }

    /// The same to the keys that a mask of ones and zeros counts.
    pub fn masked_attention(&mut self, qkv: [Id; 3], mask: Id, heads: usize) -> Result<Id> {
        let [q, k, v] = qkv;
        self.apply(MaskedAttention { heads }, &[q, k, v, mask])
    }

    /// A layer norm over the last dimension.
    pub fn layer_norm(&mut self, x: Id, eps: f64) -> Result<Id> {
        let c = self.channels(x);
        let (w, weight) = self.take("weight", &[c], false, &[])?;
        let (b, bias) = self.take("bias", &[c], false, &[])?;
        self.widened(LayerNorm::new(w, b, eps)?, &[x], vec![weight, bias])
    }

    /// GELU in one of its forms.
    pub fn gelu(&mut self, x: Id, form: Gelu) -> Result<Id> {
        self.apply(form, &[x])
    }

    /// The first half of the channels times GELU of the second.
    pub fn geglu(&mut self, x: Id) -> Result<Id> {
        self.apply(Geglu, &[x])
    }

    /// (a + b) · scale.
    pub fn sum(&mut self, a: Id, b: Id, scale: f64) -> Result<Id> {
        self.apply(AddScale(scale), &[a, b])
    }

    /// x · factor.
    pub fn scale(&mut self, x: Id, factor: f64) -> Result<Id> {
        self.apply(Scale(factor), &[x])
    }

    /// x / (1 + exp(−x)).
    pub fn silu(&mut self, x: Id) -> Result<Id> {
        self.apply(Silu, &[x])
    }

    /// max(x, 0).
    pub fn relu(&mut self, x: Id) -> Result<Id> {
        self.apply(Relu, &[x])
    }

    /// Values side by side.
    pub fn concat(&mut self, a: Id, b: Id) -> Result<Id> {
        self.apply(Concat, &[a, b])
    }

    /// Values cut apart along the last dimension.
    pub fn split(&mut self, x: Id, widths: &[usize]) -> Result<Vec<Id>> {
        self.add(Arc::new(Split(widths.to_vec())), &[x], vec![])
    }

    /// The largest value in windows.
    pub fn max_pool(&mut self, x: Id, pool: MaxPool) -> Result<Id> {
        self.apply(pool, &[x])
    }
}

/// A weight in the type of the images; fails where that cannot represent it.
fn narrowed(name: &str, t: Tensor, trunk: DType) -> Result<Tensor> {
    if t.dtype() == trunk || wide(trunk) == trunk {
        return Ok(t);
    }
    let half = t.to_dtype(trunk)?;
    let largest = half.to_dtype(DType::F32)?.abs()?.max_all()?.to_scalar::<f32>()?;
    if !largest.is_finite() {
        let m = format!("`{name}` holds values that {} cannot represent", trunk.as_str());
        return Err(Error::new(Kind::Format, m).hint("run the network in f32, or in bf16 on a GPU"));
    }
    Ok(half)
}
