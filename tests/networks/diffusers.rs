//! Networks as diffusers saves them, against the numbers of its own code (tests/fixtures/diffusers/make_diffusers.py).
use crate::helpers::fixture;
use candle_core::safetensors::load;
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::{Cond, Network};
use ld3sh::host::Quiet;
use ld3sh::model::{self, Given, Source};
use ld3sh::nets::family::{Part, Role};
use ld3sh::nets::network::Net;
use serde_json::json;
use std::collections::HashMap;

type Named = HashMap<String, Tensor>;

fn net(name: &str, dtype: DType, options: serde_json::Value) -> Net {
    let given: Given = options.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let source = Source::Path(fixture("diffusers").join(name));
    match model::load_given(&source, &Device::Cpu, dtype, given).unwrap().remove(&Role::Denoiser) {
        Some(Part::Denoiser(net)) => net,
        _ => panic!("no denoiser"),
    }
}

fn near(what: &str, got: &Tensor, wanted: &Tensor, tolerance: f64) {
    let e = super::nets::error(got, wanted);
    eprintln!("{what}: {e:.1e}");
    assert!(e < tolerance, "{what} is off by {e:e}");
}

/// A condition of the fixture as the network takes it: classes as rows, of which the last is none; numbers as rows of one.
fn given(io: &Named, name: &str) -> Tensor {
    match name {
        "classes" => {
            let labels: Vec<i64> = io["labels"].to_vec1().unwrap();
            let all = ld3sh::denoise::one_hot(&labels, 6, DType::F32, &Device::Cpu).unwrap();
            all.narrow(1, 0, 5).unwrap().contiguous().unwrap()
        }
        "guidance" => io[name].unsqueeze(1).unwrap(),
        _ => io[name].clone(),
    }
}

/// Holds outputs to 3e-5 and gradients to 1e-4, in f32 and in f64.
fn parity(name: &str, options: serde_json::Value, conditions: &[&str]) -> Named {
    let io = load(fixture("diffusers").join(format!("{name}.io.safetensors")), &Device::Cpu).unwrap();
    for dtype in [DType::F32, DType::F64] {
        let net = net(name, dtype, options.clone());
        let named = conditions.iter().map(|c| (c.to_string(), given(&io, c))).collect();
        let cond = if conditions.is_empty() { Cond::None } else { Cond::Named(named) };
        let (y, pull) = net.linearize(&Quiet, &io["x"], &io["t"], &cond).unwrap();
        near(&format!("{name} {dtype:?} out"), &y, &io["out"], 3e-5);
        let (gx, gt) = pull(&Quiet, &io["cotangent"]).unwrap();
        near(&format!("{name} {dtype:?} grad x"), &gx, &io["grad_x"], 1e-4);
        near(&format!("{name} {dtype:?} grad t"), &gt, &io["grad_t"], 1e-4);
        if conditions.contains(&"context") {
            let mut given = vec![("x", &io["x"]), ("c_noise", &io["t"])];
            let own: Vec<Tensor> = conditions.iter().map(|c| self::given(&io, c)).collect();
            given.extend(conditions.iter().zip(&own).map(|(c, t)| (*c, t)));
            let (_, pull) = net.runner().linearize(&given, &["context"]).unwrap();
            let g = pull(&[Some(&io["cotangent"])]).unwrap().remove(0);
            near(&format!("{name} {dtype:?} grad context"), &g, &io["grad_context"], 1e-4);
        }
    }
    io
}

#[test]
fn sdxls_network_is_that_of_diffusers() {
    let io = parity("sdxl", json!({}), &["context", "pooled", "sizes"]);
    let net = net("sdxl", DType::F32, json!({}));
    assert!(net.describe().ends_with("8×8×4, told `context`, `pooled`"), "{}", net.describe());
    assert_eq!(net.conditions(), ["context", "pooled", "sizes"]);
    // without sizes those of a whole image as large as the latents are for: the first sample differs from the fixture, the second is not cropped
    let cond = |sizes: Option<Tensor>| {
        let all = [("context", Some(io["context"].clone())), ("pooled", Some(io["pooled"].clone())), ("sizes", sizes)];
        Cond::Named(all.into_iter().filter_map(|(n, t)| Some((n.to_string(), t?))).collect())
    };
    let whole = Tensor::new(&[64f32, 64.0, 0.0, 0.0, 64.0, 64.0], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let whole = whole.broadcast_as((2, 6)).unwrap().contiguous().unwrap();
    let run = |c: &Cond| super::nets::flat(&net.forward(&Quiet, &io["x"], &io["t"], c).unwrap());
    assert_eq!(run(&cond(None)), run(&cond(Some(whole))));
    assert_ne!(run(&cond(None)), run(&cond(Some(io["sizes"].clone()))));
}

#[test]
fn dits_network_is_that_of_diffusers() {
    parity("dit", json!({}), &["classes"]);
    let (dit, sit) = (net("dit", DType::F64, json!({})), net("dit", DType::F64, json!({ "predicts": "velocity" })));
    assert!(dit.describe().starts_with("DiT transformer 8×8×4, 5 classes"), "{}", dit.describe());
    assert!(dit.notes().iter().any(|n| n.contains("SiT")), "{:?}", dit.notes());
    assert!(sit.describe().starts_with("SiT") && sit.notes().is_empty());
    // the same weights, told 1 − t, give the other direction
    let x = super::helpers::uniform("sit", &[1, 4, 8, 8]);
    let at = |t: f64| Tensor::new(&[t], &Device::Cpu).unwrap();
    let a = sit.forward(&Quiet, &x, &at(0.25), &Cond::None).unwrap();
    let b = dit.forward(&Quiet, &x, &at(0.75), &Cond::None).unwrap();
    near("sit", &a, &b.neg().unwrap(), 1e-12);
    let d = sit.denoiser().unwrap();
    assert_eq!(ld3sh::denoise::Denoiser::noise(&d).name(), "flow");
}

#[test]
fn stable_diffusion_3s_network_is_that_of_diffusers() {
    parity("sd3", json!({}), &["context", "pooled"]);
    // with norms of heads, and a block with an attention of its own
    parity("sd35", json!({}), &["context", "pooled"]);
    let e = refused("sd3", json!({ "size": 22 }));
    assert!(e.to_string().contains("20×20") && e.fix().unwrap().contains("smaller"), "{e}");
    let e = refused("sd3", json!({ "size": 7 }));
    assert!(e.fix().unwrap().contains("multiples of 2"), "{e}");
}

fn refused(name: &str, options: serde_json::Value) -> ld3sh::Error {
    let given: Given = options.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    model::load_given(&Source::Path(fixture("diffusers").join(name)), &Device::Cpu, DType::F32, given).err().unwrap()
}

#[test]
fn pixarts_network_is_that_of_diffusers() {
    let io = parity("pixart", json!({}), &["context", "mask"]);
    parity("pixart_sized", json!({}), &["context", "mask", "sizes"]);
    let net = net("pixart", DType::F32, json!({}));
    assert!(net.describe().starts_with("PixArt transformer 8×8×4, told `context`"), "{}", net.describe());
    let run = |context: Tensor, mask: Option<Tensor>| {
        let all = [("context", Some(context)), ("mask", mask)];
        let cond = Cond::Named(all.into_iter().filter_map(|(n, t)| Some((n.to_string(), t?))).collect());
        super::nets::flat(&net.forward(&Quiet, &io["x"], &io["t"], &cond).unwrap())
    };
    // rows that do not count have no effect; without a mask all do
    let other = (io["context"].clone() * 3.0).unwrap();
    let mixed = io["mask"].unsqueeze(2).unwrap();
    let mixed =
        (io["context"].broadcast_mul(&mixed).unwrap() + other.broadcast_mul(&(1.0 - mixed).unwrap()).unwrap()).unwrap();
    let masked = run(io["context"].clone(), Some(io["mask"].clone()));
    assert_eq!(run(mixed.clone(), Some(io["mask"].clone())), masked);
    assert_ne!(run(mixed.clone(), None), masked);
    assert_eq!(run(mixed.clone(), None), run(mixed, Some(io["mask"].ones_like().unwrap())));
}

/// The original code's files have q, k and v in one, places, and the text that stands for none.
#[test]
fn pixarts_original_names_are_read() {
    let all = load(fixture("diffusers/pixart/diffusion_pytorch_model.safetensors"), &Device::Cpu).unwrap();
    let joined = |at: &str, parts: &[&str], end: &str| {
        Tensor::cat(&parts.iter().map(|p| all[&format!("{at}.{p}.{end}")].clone()).collect::<Vec<_>>(), 0).unwrap()
    };
    let mut list: Vec<(String, Tensor)> = vec![];
    let top = [
        ("x_embedder.proj", "pos_embed.proj"),
        ("t_embedder.mlp.0", "adaln_single.emb.timestep_embedder.linear_1"),
        ("t_embedder.mlp.2", "adaln_single.emb.timestep_embedder.linear_2"),
        ("t_block.1", "adaln_single.linear"),
        ("y_embedder.y_proj.fc1", "caption_projection.linear_1"),
        ("y_embedder.y_proj.fc2", "caption_projection.linear_2"),
        ("final_layer.linear", "proj_out"),
    ];
    for end in ["weight", "bias"] {
        list.extend(top.map(|(to, from)| (format!("{to}.{end}"), all[&format!("{from}.{end}")].clone())));
        for i in 0..2 {
            let (to, at) = (format!("blocks.{i}"), format!("transformer_blocks.{i}"));
            let own = |name: &str| all[&format!("{at}.{name}.{end}")].clone();
            list.push((format!("{to}.attn.qkv.{end}"), joined(&format!("{at}.attn1"), &["to_q", "to_k", "to_v"], end)));
            list.push((
                format!("{to}.cross_attn.kv_linear.{end}"),
                joined(&format!("{at}.attn2"), &["to_k", "to_v"], end),
            ));
            for (name, from) in [
                ("attn.proj", "attn1.to_out.0"),
                ("cross_attn.q_linear", "attn2.to_q"),
                ("cross_attn.proj", "attn2.to_out.0"),
                ("mlp.fc1", "ff.net.0.proj"),
                ("mlp.fc2", "ff.net.2"),
            ] {
                list.push((format!("{to}.{name}.{end}"), own(from)));
            }
        }
    }
    list.push(("final_layer.scale_shift_table".into(), all["scale_shift_table"].clone()));
    for i in 0..2 {
        let table = all[&format!("transformer_blocks.{i}.scale_shift_table")].clone();
        list.push((format!("blocks.{i}.scale_shift_table"), table));
    }
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    list.push(("pos_embed".into(), zeros(&[1, 16, 24])));
    list.push(("y_embedder.y_embedding".into(), zeros(&[300, 20])));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("PixArt-Sigma.safetensors");
    let io = load(fixture("diffusers/pixart.io.safetensors"), &Device::Cpu).unwrap();
    for root in ["", "state_dict.", "model.diffusion_model."] {
        let list: Vec<_> = list.iter().map(|(n, t)| (format!("{root}{n}"), t.clone())).collect();
        ld3sh::files::safetensors::write(&path, &list, &[]).unwrap();
        // the configuration would say how far apart places are: 2 here, and 8 pixels where they were trained
        let config = r#"{"num_attention_heads": 2, "sample_size": 8, "interpolation_scale": 2}"#;
        ld3sh::files::safetensors::write(&path, &list, &[("transformer.config".into(), config.into())]).unwrap();
        let mut parts = model::load(&Source::Path(path.clone()), &Device::Cpu, DType::F64).unwrap();
        let Some(Part::Denoiser(net)) = parts.remove(&Role::Denoiser) else { panic!("no denoiser") };
        let named = ["context", "mask"].iter().map(|c| (c.to_string(), io[*c].to_dtype(DType::F64).unwrap())).collect();
        let y = net.forward(
            &Quiet,
            &io["x"].to_dtype(DType::F64).unwrap(),
            &io["t"].to_dtype(DType::F64).unwrap(),
            &Cond::Named(named),
        );
        near(root, &y.unwrap(), &io["out"].to_dtype(DType::F64).unwrap(), 3e-6);
    }
}

#[test]
fn fluxs_network_is_that_of_diffusers() {
    let size = json!({ "height": 8, "width": 6 });
    parity("flux", size.clone(), &["context", "pooled", "guidance"]);
    // without a guidance it is told 3.5
    let io = load(fixture("diffusers/flux.io.safetensors"), &Device::Cpu).unwrap();
    let net = net("flux", DType::F32, size);
    let run = |guidance: Option<f32>| {
        let g = guidance.map(|g| ("guidance".to_string(), Tensor::new(&[[g], [g]], &Device::Cpu).unwrap()));
        let named = ["context", "pooled"].map(|c| (c.to_string(), io[c].clone()));
        super::nets::flat(
            &net.forward(&Quiet, &io["x"], &io["t"], &Cond::Named(named.into_iter().chain(g).collect())).unwrap(),
        )
    };
    assert_eq!(run(None), run(Some(3.5)));
    assert_ne!(run(None), run(Some(1.0)));
}

/// The halves of a modulation, the other way round.
fn swapped(t: &Tensor) -> Tensor {
    let n = t.dim(0).unwrap() / 2;
    Tensor::cat(&[t.narrow(0, n, n).unwrap(), t.narrow(0, 0, n).unwrap()], 0).unwrap()
}

/// Writes the fixture's tensors by the names of the original code, in a single file.
fn original(
    name: &str,
    table: &[(&str, &str)],
    change: impl Fn(&str, &Tensor) -> Tensor,
) -> (tempfile::TempDir, std::path::PathBuf) {
    let all = load(fixture("diffusers").join(name).join("diffusion_pytorch_model.safetensors"), &Device::Cpu).unwrap();
    let mut out: HashMap<String, Tensor> = HashMap::new();
    let mut fused: HashMap<String, Vec<(usize, Tensor)>> = HashMap::new();
    for (from, t) in &all {
        let (mut to, t) = (from.clone(), change(from, t));
        for (a, b) in table {
            to = to.replace(a, b);
        }
        // `#k` in a name: part k of what is one tensor in the original
        match to.split_once('#') {
            Some((head, rest)) => {
                let (k, tail) = rest.split_at(1);
                fused.entry(format!("model.diffusion_model.{head}{tail}")).or_default().push((k.parse().unwrap(), t));
            }
            None => drop(out.insert(format!("model.diffusion_model.{to}"), t)),
        }
    }
    for (name, mut parts) in fused {
        parts.sort_by_key(|p| p.0);
        let parts: Vec<Tensor> = parts.into_iter().map(|p| p.1).collect();
        out.insert(name, Tensor::cat(&parts, 0).unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("single.safetensors");
    let config = std::fs::read_to_string(fixture("diffusers").join(name).join("config.json")).unwrap();
    let metadata = [("transformer.config".to_string(), config)].into();
    safetensors::serialize_to_file(&out, Some(metadata), &path).unwrap();
    (dir, path)
}

fn same(name: &str, path: &std::path::Path, options: serde_json::Value, conditions: &[&str]) {
    let io = load(fixture("diffusers").join(format!("{name}.io.safetensors")), &Device::Cpu).unwrap();
    let given: Given = options.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut parts = model::load_given(&Source::Path(path.into()), &Device::Cpu, DType::F32, given).unwrap();
    let Some(Part::Denoiser(net)) = parts.remove(&Role::Denoiser) else { panic!("no denoiser") };
    let named = conditions.iter().map(|c| (c.to_string(), self::given(&io, c))).collect();
    let y = net.forward(&Quiet, &io["x"], &io["t"], &Cond::Named(named)).unwrap();
    near(&format!("{name}, original names"), &y, &io["out"], 3e-5);
}

#[test]
fn the_names_of_the_original_code_mean_the_same_networks() {
    let sd3 = [
        ("pos_embed.pos_embed", "pos_embed"),
        ("pos_embed.proj", "x_embedder.proj"),
        ("proj_out.", "final_layer.linear."),
        ("norm_out.linear", "final_layer.adaLN_modulation.1"),
        ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
        ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
        ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
        ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
        ("transformer_blocks.0.", "joint_blocks.0.x_block."),
        ("transformer_blocks.1.", "joint_blocks.1.x_block."),
        ("x_block.norm1_context.linear", "context_block.adaLN_modulation.1"),
        ("norm1.linear", "adaLN_modulation.1"),
        ("x_block.ff_context.net.0.proj", "context_block.mlp.fc1"),
        ("x_block.ff_context.net.2", "context_block.mlp.fc2"),
        ("ff.net.0.proj", "mlp.fc1"),
        ("ff.net.2", "mlp.fc2"),
        ("x_block.attn.to_add_out", "context_block.attn.proj"),
        ("x_block.attn.norm_added_", "context_block.attn.ln_"),
        ("x_block.attn.add_q_proj", "context_block.attn.qkv#0"),
        ("x_block.attn.add_k_proj", "context_block.attn.qkv#1"),
        ("x_block.attn.add_v_proj", "context_block.attn.qkv#2"),
        (".norm_", ".ln_"),
        ("to_out.0", "proj"),
        ("to_q", "qkv#0"),
        ("to_k", "qkv#1"),
        ("to_v", "qkv#2"),
    ];
    // its last modulations have shift before scale
    let last =
        |n: &str, t: &Tensor| match n.starts_with("norm_out.") || n.starts_with("transformer_blocks.1.norm1_context") {
            true => swapped(t),
            false => t.clone(),
        };
    for name in ["sd3", "sd35"] {
        let (_dir, path) = original(name, &sd3, last);
        same(name, &path, json!({ "size": 8, "heads": 3 }), &["context", "pooled"]);
    }
    let flux = [
        ("time_text_embed.timestep_embedder.linear_1", "time_in.in_layer"),
        ("time_text_embed.timestep_embedder.linear_2", "time_in.out_layer"),
        ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer"),
        ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer"),
        ("time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer"),
        ("time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer"),
        ("x_embedder", "img_in"),
        ("context_embedder", "txt_in"),
        ("norm_out.linear", "final_layer.adaLN_modulation.1"),
        ("single_transformer_blocks.0.proj_out", "single_blocks.0.linear2"),
        ("proj_out", "final_layer.linear"),
        ("single_transformer_blocks.0.norm.linear", "single_blocks.0.modulation.lin"),
        ("single_transformer_blocks.0.attn.norm_q.weight", "single_blocks.0.norm.query_norm.scale"),
        ("single_transformer_blocks.0.attn.norm_k.weight", "single_blocks.0.norm.key_norm.scale"),
        ("single_transformer_blocks.0.attn.to_q", "single_blocks.0.linear1#0"),
        ("single_transformer_blocks.0.attn.to_k", "single_blocks.0.linear1#1"),
        ("single_transformer_blocks.0.attn.to_v", "single_blocks.0.linear1#2"),
        ("single_transformer_blocks.0.proj_mlp", "single_blocks.0.linear1#3"),
        ("transformer_blocks.0", "double_blocks.0"),
        ("norm1_context.linear", "txt_mod.lin"),
        ("norm1.linear", "img_mod.lin"),
        ("attn.norm_added_q.weight", "txt_attn.norm.query_norm.scale"),
        ("attn.norm_added_k.weight", "txt_attn.norm.key_norm.scale"),
        ("attn.norm_q.weight", "img_attn.norm.query_norm.scale"),
        ("attn.norm_k.weight", "img_attn.norm.key_norm.scale"),
        ("attn.to_add_out", "txt_attn.proj"),
        ("attn.to_out.0", "img_attn.proj"),
        ("attn.add_q_proj", "txt_attn.qkv#0"),
        ("attn.add_k_proj", "txt_attn.qkv#1"),
        ("attn.add_v_proj", "txt_attn.qkv#2"),
        ("attn.to_q", "img_attn.qkv#0"),
        ("attn.to_k", "img_attn.qkv#1"),
        ("attn.to_v", "img_attn.qkv#2"),
        ("ff_context.net.0.proj", "txt_mlp.0"),
        ("ff_context.net.2", "txt_mlp.2"),
        ("ff.net.0.proj", "img_mlp.0"),
        ("ff.net.2", "img_mlp.2"),
    ];
    let (_dir, path) = original("flux", &flux, |n, t| if n.starts_with("norm_out.") { swapped(t) } else { t.clone() });
    same("flux", &path, json!({ "height": 8, "width": 6 }), &["context", "pooled", "guidance"]);
    // without a configuration it is taken for the published one, whose heads are wider
    let bare = load(&path, &Device::Cpu).unwrap();
    safetensors::serialize_to_file(&bare, None, &path).unwrap();
    let of = |given: Given| {
        model::load_given(&Source::Path(path.clone()), &Device::Cpu, DType::F32, given).err().unwrap().to_string()
    };
    assert!(of(Given::new()).contains("heads"), "{}", of(Given::new()));
    assert!(of([("heads".to_string(), json!(2))].into()).contains("rotary"));
}
