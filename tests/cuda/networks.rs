//! Whole networks by the kernels on the host: every operation has some, and gets the types that they expect.
use crate::host::{Host, Way};
use crate::kernels::{close, numbers};
use candle_core::{DType, Device};
use ld3sh::Result;
use ld3sh::nets::edm::{self, Config};
use ld3sh::nets::graph::{Exec, Node};
use ld3sh::nets::kernels::gpu::{Array, Input};
use ld3sh::nets::tape::Tape;
use std::sync::Arc;

#[derive(Clone)]
struct Value {
    values: Vec<f32>,
    dims: Vec<usize>,
    dtype: DType,
    node: usize,
}

struct Step {
    op: Arc<Node>,
    inputs: Vec<Value>,
    node: usize,
}

/// Runs each operation on a machine of its own, and remembers it.
struct Recorder {
    steps: Vec<Step>,
    nodes: usize,
}

const WAY: Way = Way { backwards: false, library: false, room: 1 << 24 };

fn given<'a>(host: &mut Host, inputs: &[&'a Value]) -> Vec<Input<'a>> {
    inputs.iter().map(|v| Input { array: host.input(&v.values, v.dtype), dims: &v.dims }).collect()
}

impl Recorder {
    fn input(&mut self, values: Vec<f32>, dims: &[usize], dtype: DType) -> Value {
        self.nodes += 1;
        Value { values, dims: dims.to_vec(), dtype, node: self.nodes - 1 }
    }
    fn pull(self, out: &Value, cot: Vec<f32>) -> Vec<Vec<f32>> {
        let mut grads: Vec<Vec<f32>> = vec![vec![]; self.nodes];
        grads[out.node] = cot;
        for step in self.steps.iter().rev() {
            let cot = std::mem::take(&mut grads[step.node]);
            if cot.is_empty() {
                continue;
            }
            let mut host = Host::new(WAY);
            let inputs = given(&mut host, &step.inputs.iter().collect::<Vec<_>>());
            let cot = host.input(&cot, step.inputs[0].dtype);
            let pulled = step.op.op.frozen().unwrap().gpu().unwrap().enqueue_pull(&mut host, &inputs, cot).unwrap();
            for (array, input) in pulled.iter().zip(&step.inputs) {
                assert_eq!(array.dtype, input.dtype, "{}", step.op.name);
                let g = host.values(*array, input.values.len());
                let sum = &mut grads[input.node];
                match sum.is_empty() {
                    true => *sum = g,
                    false => sum.iter_mut().zip(g).for_each(|(s, g)| *s += g),
                }
            }
        }
        grads
    }
}

impl Exec for Recorder {
    type Value = Value;
    fn apply(&mut self, node: &Arc<Node>, inputs: &[&Value]) -> Result<Vec<Value>> {
        let op = node.op.frozen().unwrap();
        let gpu = op.gpu().unwrap_or_else(|| panic!("{} has no kernels", op.name()));
        let alike = inputs.iter().all(|v| v.dtype == inputs[0].dtype);
        assert!(alike || gpu.mixed(), "{} gets different types", op.name());
        let shapes: Vec<&[usize]> = inputs.iter().map(|v| &v.dims[..]).collect();
        let dims = op.dims(&shapes).unwrap();
        let mut host = Host::new(WAY);
        let views = given(&mut host, inputs);
        let out: Array = gpu.enqueue(&mut host, &views).unwrap();
        let values = host.values(out, dims.iter().product());
        let out = self.input(values, &dims, out.dtype);
        self.steps.push(Step {
            op: node.clone(),
            inputs: inputs.iter().map(|v| (*v).clone()).collect(),
            node: out.node,
        });
        Ok(vec![out])
    }
}

/// DDPM++, NCSN++ and ADM, as small as they go.
const NETWORKS: [&str; 3] = [
    r#"{"img_resolution": 8, "img_channels": 3, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}"#,
    r#"{"img_resolution": 8, "img_channels": 3, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4], "embedding_type": "fourier", "encoder_type": "residual", "decoder_type": "standard", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]}"#,
    r#"{"model_type": "DhariwalUNet", "img_resolution": 8, "img_channels": 3, "model_channels": 64, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [8]}"#,
];

#[test]
fn networks_run_on_kernels_alone() {
    for json in NETWORKS {
        let config = Config::parse(json).unwrap();
        let dims = [2, 8, 8, 3];
        let (x, cot) = (numbers(384, 1), numbers(384, 2));
        let c = vec![-0.75, 0.5];
        let net = edm::random(&config, 5, &Device::Cpu).unwrap();
        let mut tape = Tape::new(true, false);
        let (tx, tc) = (tape.variable(&x, dims.to_vec()), tape.variable(&c, vec![2]));
        let wanted = net.runner().graph().run(&mut tape, vec![Some(tx.clone()), Some(tc.clone())]).unwrap().remove(0);
        let values = wanted.data().to_vec();
        let grads = tape.pull(vec![(&wanted, cot.clone())], &[&tx, &tc]).unwrap();
        for t in [DType::F32, DType::F16, DType::BF16] {
            let net = edm::random_in(&config, 5, &Device::Cpu, t).unwrap();
            let mut e = Recorder { steps: vec![], nodes: 0 };
            let (ex, ec) = (e.input(x.clone(), &dims, t), e.input(c.clone(), &[2], DType::F32));
            let out = net.runner().graph().run(&mut e, vec![Some(ex.clone()), Some(ec.clone())]).unwrap().remove(0);
            assert_eq!(out.dtype, t);
            // errors add up over some thirty operations
            let close = |what: &str, got: &[f32], wanted: &[f32]| close(what, t, got, wanted, 8.0);
            close(&format!("{json}: value"), &out.values, &values);
            let got = e.pull(&out, cot.clone());
            close(&format!("{json}: gradient in x"), &got[ex.node], &grads[0]);
            // a sum over all channels, most of which cancels: bfloat16 leaves nothing of it to compare
            if t != DType::BF16 {
                close(&format!("{json}: gradient in c_noise"), &got[ec.node], &grads[1]);
            }
        }
    }
}
