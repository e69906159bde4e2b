//! Functions of values, shapes, images and norms of ONNX graphs.
use super::{At, axis, list, one, options, refused, value};
use crate::Result;
use crate::script::trace::native::call;
use crate::script::trace::record::is_traced;
use candle_core::Tensor;
use rhai::{Array, Dynamic};

impl At<'_> {
    pub(super) fn pointwise(&self) -> Result<Tensor> {
        let x = self.input(0)?;
        Ok(match &*self.node.op {
            "Where" => one("where", vec![value(x), value(self.input(1)?), value(self.input(2)?)])?,
            "Gelu" => one(if self.text("approximate") == "tanh" { "gelu_tanh" } else { "gelu" }, vec![value(x)])?,
            "ReduceSumSquare" => self.reduce("sum", &one("square", vec![value(x)])?)?,
            "Pow" => {
                let e = self.input(1)?;
                let e = if e.elem_count() == 1 && !is_traced(e) { self.number(e)?.into() } else { value(e) };
                one("**", vec![value(x), e])?
            }
            "Clip" => {
                let bound = |i: usize| self.maybe(i).map_or(Ok(Dynamic::UNIT), |t| self.number(t).map(Dynamic::from));
                one("clamp", vec![value(x), bound(1)?, bound(2)?])?
            }
            "Max" | "Min" => {
                let f = if self.node.op == "Max" { "maximum" } else { "minimum" };
                let rest = (1..self.node.inputs.len()).map(|i| self.input(i));
                rest.into_iter().try_fold(x.clone(), |m, t| one(f, vec![value(&m), value(t?)]))?
            }
            "LeakyRelu" | "Elu" => {
                let alpha = self.float("alpha", if self.node.op == "Elu" { 1.0 } else { 0.01 });
                let low = match &*self.node.op {
                    "Elu" => one("expm1", vec![value(&one("minimum", vec![value(x), 0.0.into()])?)])?,
                    _ => x.clone(),
                };
                let low = one("*", vec![value(&low), alpha.into()])?;
                one("where", vec![value(&one(">", vec![value(x), 0.0.into()])?), value(x), value(&low)])?
            }
            "HardSigmoid" => {
                let y = one("*", vec![value(x), self.float("alpha", 0.2).into()])?;
                one(
                    "clamp",
                    vec![value(&one("+", vec![value(&y), self.float("beta", 0.5).into()])?), 0.0.into(), 1.0.into()],
                )?
            }
            other => return Err(refused(format!("`{other}` is not known"))),
        })
    }

    pub(super) fn split(&self) -> Result<Vec<Tensor>> {
        let x = self.input(0)?;
        let d = axis(self.integer("axis", 0), x.rank())?;
        let n = x.dims()[d];
        let parts = self.node.outputs.len().max(1);
        let sizes = match self.ints(1, "split")? {
            Some(sizes) => sizes,
            None => {
                let each = n.div_ceil(parts);
                (0..parts).map(|i| (n.saturating_sub(i * each)).min(each) as i64).collect()
            }
        };
        call("split", vec![value(x), list(sizes), (d as i64).into()])
    }

    pub(super) fn shaped(&self) -> Result<Tensor> {
        let x = self.input(0)?;
        let rank = x.rank();
        let axes = |all: Vec<i64>, rank: usize| all.into_iter().map(|a| axis(a, rank)).collect::<Result<Vec<_>>>();
        Ok(match &*self.node.op {
            "Reshape" => {
                let wanted = self.whole(self.input(1)?)?;
                let zeros = self.integer("allowzero", 0) != 0;
                let size = |(i, n): (usize, &i64)| match n {
                    0 if !zeros => {
                        x.dims().get(i).map(|n| *n as i64).ok_or_else(|| refused("a size that is not there"))
                    }
                    n => Ok(*n),
                };
                let dims = wanted.iter().enumerate().map(size).collect::<Result<Vec<_>>>()?;
                one("reshape", vec![value(x), list(dims)])?
            }
            "Flatten" => {
                let at = self.integer("axis", 1);
                let at = if at < 0 { at + rank as i64 } else { at }.clamp(0, rank as i64) as usize;
                let dims = [&x.dims()[..at], &x.dims()[at..]].map(|d| d.iter().product::<usize>() as i64);
                one("reshape", vec![value(x), list(dims)])?
            }
            "Squeeze" => match self.ints(1, "axes")? {
                Some(a) => one("squeeze", vec![value(x), list(a)])?,
                None => one("squeeze", vec![value(x)])?,
            },
            "Unsqueeze" => {
                let given = self.ints(1, "axes")?.ok_or_else(|| refused("without axes"))?;
                let mut at = axes(given.clone(), rank + given.len())?;
                at.sort_unstable();
                at.into_iter().try_fold(x.clone(), |t, d| one("unsqueeze", vec![value(&t), (d as i64).into()]))?
            }
            "Transpose" => {
                let order = self.integers("perm").unwrap_or_else(|| (0..rank as i64).rev().collect());
                one("permute", vec![value(x), list(order)])?
            }
            "Expand" => {
                let wanted = self.whole(self.input(1)?)?;
                let all = wanted.len().max(rank);
                let own = |i: usize| if i + rank >= all { x.dims()[i + rank - all] as i64 } else { 1 };
                let asked = |i: usize| if i + wanted.len() >= all { wanted[i + wanted.len() - all] } else { 1 };
                let dims = (0..all).map(|i| if asked(i) == 1 { own(i) } else { asked(i) });
                one("expand", vec![value(x), list(dims)])?
            }
            "Tile" => one("repeat", vec![value(x), list(self.whole(self.input(1)?)?)])?,
            "Concat" => {
                let all = (0..self.node.inputs.len()).map(|i| Ok(value(self.input(i)?))).collect::<Result<Array>>()?;
                let at = axis(self.integer("axis", 0), rank)? as i64;
                match &all[..] {
                    [only] => only.clone().try_cast::<Tensor>().ok_or_else(|| refused("nothing to join"))?,
                    _ => one("cat", vec![all.into(), at.into()])?,
                }
            }
            "Slice" => {
                let wanted = |i: usize| self.maybe(i).map(|t| self.whole(t)).transpose();
                let (Some(starts), Some(ends)) = (wanted(1)?, wanted(2)?) else {
                    return Err(refused("without its ends"));
                };
                let at = axes(wanted(3)?.unwrap_or_else(|| (0..starts.len() as i64).collect()), rank)?;
                let steps = wanted(4)?.unwrap_or_else(|| vec![1; starts.len()]);
                let mut y = x.clone();
                for (((d, start), end), step) in at.into_iter().zip(starts).zip(ends).zip(steps) {
                    let n = x.dims()[d] as i64;
                    if step < 1 {
                        return Err(refused("a step backwards is not supported"));
                    }
                    let place = |i: i64| (if i < 0 { i.saturating_add(n) } else { i }).clamp(0, n);
                    let (start, end) = (place(start), place(end));
                    y = match step {
                        1 if start == 0 && end == n => y,
                        1 => one(
                            "narrow",
                            vec![value(&y), (d as i64).into(), start.into(), (end - start).max(0).into()],
                        )?,
                        _ => one("slice", vec![value(&y), (d as i64).into(), start.into(), end.into(), step.into()])?,
                    };
                }
                y
            }
            _ => self.padded(x)?,
        })
    }

    fn padded(&self, x: &Tensor) -> Result<Tensor> {
        let pads = self.ints(1, "pads")?.ok_or_else(|| refused("without its sizes"))?;
        let at: Vec<usize> = match self.maybe(3) {
            Some(t) => self.whole(t)?.into_iter().map(|a| axis(a, x.rank())).collect::<Result<_>>()?,
            None => (0..x.rank()).collect(),
        };
        let fill: Dynamic = match &*self.text("mode") {
            "" | "constant" => self.maybe(2).map_or(Ok(0.0), |t| self.number(t))?.into(),
            "reflect" => "reflect".into(),
            "edge" => "replicate".into(),
            other => return Err(refused(format!("padding by `{other}` is not supported"))),
        };
        let mut y = x.clone();
        for (i, d) in at.iter().enumerate() {
            let (Some(before), Some(after)) = (pads.get(i), pads.get(i + at.len())) else {
                return Err(refused("without all its sizes"));
            };
            if (*before, *after) != (0, 0) {
                let sides = [*before, *after].map(Dynamic::from_int);
                let [before, after] = sides;
                y = one("pad", vec![value(&y), (*d as i64).into(), before, after, fill.clone()])?;
            }
        }
        Ok(y)
    }

    pub(super) fn image(&self) -> Result<Tensor> {
        let x = self.input(0)?;
        if x.rank() != 4 {
            return Err(refused(format!("images [B, C, H, W] only, not {:?}", x.dims())));
        }
        let bias = || self.maybe(2).map_or(Dynamic::UNIT, value);
        Ok(match &*self.node.op {
            "Conv" => {
                let sides = self.sides()?;
                let same = sides.iter().all(|s| *s == sides[0]);
                let padding = if same { sides[0] } else { 0 };
                let x = if same { x.clone() } else { one("pad2d", vec![value(x), list(sides)])? };
                let geometry = options([
                    ("bias", bias()),
                    ("stride", self.same("strides", 1)?.into()),
                    ("padding", padding.into()),
                    ("dilation", self.same("dilations", 1)?.into()),
                    ("groups", self.integer("group", 1).into()),
                ]);
                one("conv2d", vec![value(&x), value(self.input(1)?), geometry])?
            }
            "ConvTranspose" => {
                let geometry = options([
                    ("bias", bias()),
                    ("stride", self.same("strides", 1)?.into()),
                    ("padding", self.padding()?.into()),
                    ("dilation", self.same("dilations", 1)?.into()),
                    ("groups", self.integer("group", 1).into()),
                    ("output_padding", self.same("output_padding", 0)?.into()),
                ]);
                one("conv_transpose2d", vec![value(x), value(self.input(1)?), geometry])?
            }
            "GlobalAveragePool" => one("mean", vec![value(x), list([2, 3]), true.into()])?,
            "Resize" => self.resized(x)?,
            op => {
                let window = self.integers("kernel_shape").ok_or_else(|| refused("without a window"))?;
                let [left, right, top, bottom] = self.sides()?;
                let padded = [left, right, top, bottom] != [0; 4];
                let counted = op == "MaxPool" || !padded || self.integer("count_include_pad", 0) != 0;
                if self.integer("ceil_mode", 0) != 0
                    || (left, top) != (right, bottom)
                    || !counted
                    || self.same("dilations", 1)? != 1
                {
                    return Err(refused("windows of this kind are not supported"));
                }
                let stride = self.integers("strides").unwrap_or_else(|| vec![1; 2]);
                let geometry = options([("stride", list(stride)), ("padding", list([top, left]))]);
                let f = if op == "MaxPool" { "max_pool2d" } else { "avg_pool2d" };
                one(f, vec![value(x), list(window), geometry])?
            }
        })
    }

    fn resized(&self, x: &Tensor) -> Result<Tensor> {
        let (h, w) = (x.dims()[2] as i64, x.dims()[3] as i64);
        let scales = self.maybe(2).filter(|t| t.elem_count() > 0);
        let [to_h, to_w] = match (scales, self.maybe(3)) {
            (_, Some(sizes)) => match self.whole(sizes)?[..] {
                [_, _, h, w] => [h, w],
                ref other => return Err(refused(format!("sizes of {other:?} are not supported"))),
            },
            (Some(scales), None) if !is_traced(scales) => match crate::tensor::create::to_f64(scales)?[..] {
                [1.0, 1.0, a, b] => [(h as f64 * a).floor() as i64, (w as f64 * b).floor() as i64],
                ref other => return Err(refused(format!("scales of {other:?} are not supported"))),
            },
            _ => return Err(refused("without a size")),
        };
        let corners = self.text("coordinate_transformation_mode") == "align_corners";
        match &*self.text("mode") {
            // repetition, whatever the rounding
            "" | "nearest" if h > 0 && to_h % h == 0 && to_w == w * (to_h / h) => {
                one("upsample", vec![value(x), (to_h / h).into()])
            }
            "linear" => {
                let how = options([("mode", "bilinear".into()), ("align_corners", corners.into())]);
                one("upsample", vec![value(x), list([to_h, to_w]), how])
            }
            other => Err(refused(format!("resizing {h}×{w} to {to_h}×{to_w} by `{other}` is not supported"))),
        }
    }

    pub(super) fn norm(&self) -> Result<Tensor> {
        let x = self.input(0)?;
        let eps = self.float("epsilon", 1e-5);
        let bias = || self.maybe(2).map_or(Dynamic::UNIT, value);
        let scale = self.input(1)?;
        // channels, and a 1 for each dimension of the pixels
        let channels = |t: &Tensor| one("reshape", vec![value(t), list([-1].into_iter().chain(vec![1; x.rank() - 2]))]);
        Ok(match &*self.node.op {
            "LayerNormalization" => {
                let at = axis(self.integer("axis", -1), x.rank())?;
                if scale.dims() != &x.dims()[at..] {
                    return Err(refused(format!("a scale of shape {:?} for {:?}", scale.dims(), x.dims())));
                }
                one(
                    "layer_norm",
                    vec![value(x), options([("weight", value(scale)), ("bias", bias()), ("eps", eps.into())])],
                )?
            }
            "RMSNormalization" => {
                let at = axis(self.integer("axis", -1), x.rank())? as i64;
                let dims = list(at..x.rank() as i64);
                let square = one("mean", vec![value(&one("square", vec![value(x)])?), dims, true.into()])?;
                let root = one("rsqrt", vec![value(&one("+", vec![value(&square), eps.into()])?)])?;
                let y = one("*", vec![value(x), value(&root)])?;
                one("*", vec![value(&y), value(scale)])?
            }
            "InstanceNormalization" if x.rank() == 3 => {
                let y = one("layer_norm", vec![value(x), options([("eps", eps.into())])])?;
                // exporters write a group norm so, with ones and zeros
                let is =
                    |t: &Tensor, v: f64| crate::tensor::create::to_f64(t).is_ok_and(|all| all.iter().all(|x| *x == v));
                let b = self.input(2)?;
                if is(scale, 1.0) && is(b, 0.0) {
                    return Ok(y);
                }
                let y = one("*", vec![value(&y), value(&channels(scale)?)])?;
                one("+", vec![value(&y), value(&channels(b)?)])?
            }
            "InstanceNormalization" | "GroupNormalization" => {
                let c = x.dims().get(1).copied().unwrap_or(0);
                let groups =
                    if self.node.op == "GroupNormalization" { self.integer("num_groups", 1) } else { c as i64 };
                let eps = ("eps", eps.into());
                if scale.dims() == [c] {
                    one(
                        "group_norm",
                        vec![value(x), groups.into(), options([("weight", value(scale)), ("bias", bias()), eps])],
                    )?
                } else {
                    // before set 21 a weight belongs to a group
                    let each = |t: &Tensor| -> Result<Tensor> {
                        let n = c as i64 / groups.max(1);
                        let wide =
                            one("expand", vec![value(&one("unsqueeze", vec![value(t), 1.into()])?), list([-1, n])])?;
                        one("flatten", vec![value(&wide)])
                    };
                    let w = each(scale)?;
                    let b = each(self.input(2)?)?;
                    one(
                        "group_norm",
                        vec![value(x), groups.into(), options([("weight", value(&w)), ("bias", value(&b)), eps])],
                    )?
                }
            }
            _ => {
                // as in inference: with the moments of training
                if self.integer("training_mode", 0) != 0 {
                    return Err(refused("batch norm in training is not supported"));
                }
                let (b, mean, var) = (self.input(2)?, self.input(3)?, self.input(4)?);
                let root = one("rsqrt", vec![value(&one("+", vec![value(var), eps.into()])?)])?;
                let a = one("*", vec![value(scale), value(&root)])?;
                let k = one("-", vec![value(b), value(&one("*", vec![value(mean), value(&a)])?)])?;
                let y = one("*", vec![value(x), value(&channels(&a)?)])?;
                one("+", vec![value(&y), value(&channels(&k)?)])?
            }
        })
    }
}
