//! A row per tool: what it takes, at which noise levels it then steps, and what to paste or to save.
use super::samplers::sampler;
use super::{End, Levels, flow_of, list, number, numbers, of_flow};
use crate::{Error, Result};
use serde_json::json;

/// A tool, or a scheduler in one.
pub struct Tool {
    /// Its name in `--as` and `export`.
    pub name: &'static str,
    /// What is written.
    pub about: &'static str,
    /// What it can do at the end, the default first.
    pub ends: &'static [End],
    /// Whether it is for flow models alone (true) or for others alone (false).
    pub flow: Option<bool>,
    /// The solvers that it runs, where it is one sampler.
    pub runs: Option<&'static [&'static str]>,
    /// The name for a file.
    pub file: &'static str,
    /// Why its levels are not those that were wanted.
    pub rounds: &'static str,
    /// The levels σ/α at which it steps.
    pub(super) given: fn(&Levels) -> Result<Vec<f64>>,
    /// The text for levels with their end, and the levels given.
    pub(super) write: fn(&Levels, &[f64]) -> Result<String>,
}

/// Significant digits of σ: more than tools keep in f32.
const DIGITS: usize = 8;
const ANY_END: &[End] = &[End::Append, End::Replace, End::Keep];
const EXACT: &[End] = &[End::Keep, End::Append, End::Replace];
const ZERO: &[End] = &[End::Append, End::Replace];

const SIGMAS: Tool = Tool {
    name: "",
    about: "",
    ends: ANY_END,
    flow: None,
    runs: None,
    file: "schedule.txt",
    rounds: "rounding to 8 digits",
    given: |l| digits(l, DIGITS),
    write: |l, _| Ok(numbers(&shown(l), DIGITS)),
};

/// All tools.
pub static TOOLS: &[&Tool] = &[
    &Tool { name: "text", about: "the list, N + 1 values", ends: EXACT, ..SIGMAS },
    &Tool {
        name: "json",
        about: "the list as JSON",
        ends: EXACT,
        file: "schedule.json",
        given: |l| Ok(l.sigma.clone()),
        write: |l, _| Ok(json!(shown(l)).to_string()),
        ..SIGMAS
    },
    &Tool { name: "comfyui", about: "text for ComfyUI's node ManualSigmas (no exponents)", ..SIGMAS },
    &Tool {
        name: "comfyui-workflow",
        about: "a ComfyUI workflow with ManualSigmas and SamplerCustom",
        file: "workflow.json",
        write: |l, _| Ok(workflow(l)),
        ..SIGMAS
    },
    &Tool {
        name: "k-diffusion",
        about: "Python for k-diffusion's samplers",
        ends: EXACT,
        file: "sigmas.py",
        write: |l, _| Ok(k_diffusion(l)),
        ..SIGMAS
    },
    &Tool {
        name: "diffusers:euler",
        about: "Python for EulerDiscreteScheduler (floats; nothing is rounded)",
        ends: EXACT,
        flow: Some(false),
        runs: Some(&["euler", "ddim"]),
        file: "schedule.py",
        write: |l, _| {
            Ok(diffusers(
                "EulerDiscreteScheduler.from_config(pipe.scheduler.config)",
                "sigmas",
                &numbers(&shown(l), DIGITS),
            ))
        },
        ..SIGMAS
    },
    &Tool {
        name: "diffusers:heun",
        about: "Python for HeunDiscreteScheduler (timesteps as floats)",
        ends: ZERO,
        flow: Some(false),
        runs: Some(&["heun"]),
        file: "schedule.py",
        rounds: "it interpolates σ between training steps, in f32",
        given: |l| timesteps(l, false),
        write: |l, _| {
            let k = before_zero(&l.sigma)
                .iter()
                .map(|s| list::timestep_linear(&l.noise, *s))
                .collect::<Result<Vec<_>>>()?;
            Ok(diffusers("HeunDiscreteScheduler.from_config(pipe.scheduler.config)", "timesteps", &numbers(&k, DIGITS)))
        },
    },
    &Tool {
        name: "diffusers:dpmsolver++",
        about: "Python for DPMSolverMultistepScheduler (integer timesteps)",
        runs: Some(&["dpmpp"]),
        write: |l, _| {
            let order = l.solver.as_ref().map_or(2, |s| s.order());
            let made = format!("DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, solver_order={order})");
            Ok(diffusers(&made, "timesteps", &integers(l)?))
        },
        ..INTEGERS
    },
    &Tool {
        name: "diffusers:dpmsolver++-singlestep",
        about: "Python for DPMSolverSinglestepScheduler (integer timesteps)",
        runs: Some(&["dpmpp_singlestep", "dpmpp_2s"]),
        write: |l, _| {
            let made = "DPMSolverSinglestepScheduler.from_config(pipe.scheduler.config)";
            Ok(diffusers(made, "timesteps", &integers(l)?))
        },
        ..INTEGERS
    },
    &Tool {
        name: "diffusers:flow-euler",
        about: "Python for FlowMatchEulerDiscreteScheduler (shift 1; told times may differ from σ)",
        ends: ZERO,
        flow: Some(true),
        runs: Some(&["euler", "ddim"]),
        file: "schedule.py",
        write: |l, _| {
            let made = "FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, shift=1.0, use_dynamic_shifting=False)";
            Ok(diffusers(made, "sigmas", &numbers(&shown_before_zero(l), DIGITS)))
        },
        ..SIGMAS
    },
    &Tool {
        name: "diffusers:flow-unipc",
        about: "Python for UniPCMultistepScheduler of flow models",
        ends: ZERO,
        flow: Some(true),
        runs: Some(&["unipc"]),
        file: "schedule.py",
        write: |l, _| {
            let made = "UniPCMultistepScheduler.from_config(pipe.scheduler.config, use_flow_sigmas=True, flow_shift=1.0, prediction_type=\"flow_prediction\", solver_type=\"bh2\")";
            let list = numbers(&shown_before_zero(l), DIGITS);
            Ok(diffusers_with(made, "sigmas", &format!("numpy.array([{list}])"), "import numpy\n"))
        },
        ..SIGMAS
    },
    &Tool {
        name: "a1111",
        about: "an extension's file for A1111, Forge and reForge: extensions/ld3/scripts/ld3.py",
        ends: ZERO,
        file: "ld3.py",
        write: |l, _| Ok(a1111(l)),
        ..SIGMAS
    },
    &Tool {
        name: "sdnext",
        about: "text for SD.Next's \"Timesteps override\" (integers)",
        file: "timesteps.txt",
        write: |l, _| {
            let text = integers(l)?;
            match text.split(',').count() {
                n if n > 2 => Ok(text),
                _ => Err(Error::value("sdnext: it ignores lists of fewer than 3 timesteps")),
            }
        },
        ..INTEGERS
    },
    &Tool {
        name: "stable-diffusion.cpp",
        about: "the option --sigmas of stable-diffusion.cpp",
        ends: ZERO,
        write: |l, _| Ok(format!("--sigmas \"{}\"", numbers(&shown(l), DIGITS).replace(' ', ""))),
        ..SIGMAS
    },
];

const INTEGERS: Tool = Tool {
    ends: ZERO,
    flow: Some(false),
    file: "schedule.py",
    rounds: "timesteps are integers there",
    given: |l| timesteps(l, true),
    ..SIGMAS
};

/// The tool of that name. `diffusers` is its scheduler that fits the solver and the model.
pub fn tool(name: &str, levels: &Levels) -> Result<&'static Tool> {
    let name = match name {
        "forge" | "reforge" => "a1111",
        "diffusers" => {
            let solver = levels.solver.as_ref().map_or("euler", |s| s.name());
            let fits = |t: &&&Tool| {
                t.name.starts_with("diffusers:")
                    && t.flow == Some(levels.is_flow())
                    && t.runs.is_some_and(|r| r.contains(&solver))
            };
            let Some(found) = TOOLS.iter().find(fits) else {
                let e =
                    Error::value(format!("diffusers: no scheduler takes a list for solver {solver} and this model"));
                return Err(
                    e.hint("export the solver's plan as \"python\", or name a scheduler, like \"diffusers:euler\"")
                );
            };
            found.name
        }
        n => n,
    };
    let names = || TOOLS.iter().map(|t| t.name).chain(["diffusers", "forge"]);
    TOOLS.iter().find(|t| t.name == name).copied().ok_or_else(|| Error::unknown("tool", name, names()))
}

/// The levels in the tool's unit: σ of flow models, else σ/α.
fn shown(l: &Levels) -> Vec<f64> {
    if l.is_flow() { l.sigma.iter().map(|s| flow_of(*s)).collect() } else { l.sigma.clone() }
}

fn before_zero(values: &[f64]) -> &[f64] {
    if values.last() == Some(&0.0) { &values[..values.len() - 1] } else { values }
}

fn shown_before_zero(l: &Levels) -> Vec<f64> {
    before_zero(&shown(l)).to_vec()
}

/// The levels after rounding to so many digits in the tool's unit.
fn digits(l: &Levels, digits: usize) -> Result<Vec<f64>> {
    let rounded = shown(l).into_iter().map(|v| number(v, digits).parse().unwrap_or(v));
    Ok(if l.is_flow() { rounded.map(of_flow).collect() } else { rounded.collect() })
}

/// The levels at timesteps: rounded to integers, or where σ is interpolated linearly.
fn timesteps(l: &Levels, rounded: bool) -> Result<Vec<f64>> {
    let mut out = vec![];
    for s in before_zero(&l.sigma) {
        out.push(match rounded {
            true => list::level_of_timestep(&l.noise, list::timestep(&l.noise, *s)?.round())?,
            // f32 on the way
            false => f64::from(*s as f32),
        });
    }
    if l.ends_at_zero() {
        out.push(0.0);
    }
    if let Some(i) = out.windows(2).position(|w| w[1] >= w[0]) {
        let m = format!("steps {i} and {} fall on the same timestep", i + 1);
        return Err(Error::value(m).hint("ask for fewer steps, or for a tool that takes σ"));
    }
    Ok(out)
}

fn integers(l: &Levels) -> Result<String> {
    let k = before_zero(&l.sigma).iter().map(|s| Ok(format!("{:.0}", list::timestep(&l.noise, *s)?.round())));
    Ok(k.collect::<Result<Vec<_>>>()?.join(", "))
}

fn diffusers(scheduler: &str, argument: &str, list: &str) -> String {
    diffusers_with(scheduler, argument, &format!("[{list}]"), "")
}

fn diffusers_with(scheduler: &str, argument: &str, list: &str, import: &str) -> String {
    let class = scheduler.split('.').next().unwrap_or_default();
    format!(
        "{import}from diffusers import {class}\n\n{argument} = {list}\npipe.scheduler = {class}{rest}\n\
         # in a pipeline: pipe(prompt, {argument}={argument}); in a loop of your own:\n\
         pipe.scheduler.set_timesteps({argument}={argument})\n",
        rest = &scheduler[class.len()..]
    )
}

fn k_diffusion(l: &Levels) -> String {
    let call =
        l.solver.as_ref().and_then(sampler).and_then(|s| s.k_diffusion).unwrap_or("sample_euler(model, x, sigmas)");
    let sigmas = numbers(&shown(l), DIGITS);
    let start = if l.is_flow() { "noise" } else { "noise * sigmas[0]" };
    format!(
        "import torch\nfrom k_diffusion import sampling\n\nsigmas = torch.tensor([{sigmas}])\n\
         # x = {start}; model(x, sigma) predicts the data\nx_0 = sampling.{call}\n"
    )
}

/// A file for the folder scripts/ of an extension.
fn a1111(l: &Levels) -> String {
    let levels = numbers(&shown_before_zero(l), DIGITS);
    let label = crate::access::clean(&l.name).to_string();
    let key: String =
        label.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    format!(
        r#"# extensions/ld3/scripts/ld3.py: a schedule for the list of schedule types. With {n} steps it is used as it is, with
# another number it is interpolated log-linearly. Written by ld3sh {version}.
import math
import torch
from modules import sd_schedulers

SIGMAS = [{levels}]


def schedule(n, sigma_min=None, sigma_max=None, device="cpu"):
    logs = [math.log(s) for s in SIGMAS]
    at = [i * (len(logs) - 1) / max(n - 1, 1) for i in range(n)]
    low = [min(int(u), len(logs) - 2) for u in at]
    sigmas = [math.exp(logs[k] + (logs[k + 1] - logs[k]) * (u - k)) for k, u in zip(low, at)]
    return torch.tensor(sigmas + [0.0], dtype=torch.float32).to(device)


if "ld3_{key}" not in {{s.name for s in sd_schedulers.schedulers}}:
    entry = sd_schedulers.Scheduler("ld3_{key}", {label}, schedule)
    sd_schedulers.schedulers.append(entry)
    sd_schedulers.schedulers_map["ld3_{key}"] = entry
    sd_schedulers.schedulers_map[{label}] = entry
"#,
        n = before_zero(&l.sigma).len(),
        version = crate::VERSION,
        label = json!(format!("LD3 {label}"))
    )
}

/// A workflow for ComfyUI's canvas: a checkpoint, two texts, the list, a sampler, a picture.
fn workflow(l: &Levels) -> String {
    let name = l.solver.as_ref().and_then(sampler).and_then(|s| s.comfyui).unwrap_or("euler");
    let text = numbers(&shown(l), DIGITS);
    // node: (id, type, inputs (name, type, link), outputs (name, type, links), widgets)
    type Node<'a> = (u32, &'a str, Vec<(&'a str, &'a str, u32)>, Vec<(&'a str, &'a str, Vec<u32>)>, serde_json::Value);
    let nodes: Vec<Node> = vec![
        (
            1,
            "CheckpointLoaderSimple",
            vec![],
            vec![("MODEL", "MODEL", vec![1]), ("CLIP", "CLIP", vec![2, 3]), ("VAE", "VAE", vec![4])],
            json!(["model.safetensors"]),
        ),
        (
            2,
            "CLIPTextEncode",
            vec![("clip", "CLIP", 2)],
            vec![("CONDITIONING", "CONDITIONING", vec![5])],
            json!(["a photo of a cat"]),
        ),
        (3, "CLIPTextEncode", vec![("clip", "CLIP", 3)], vec![("CONDITIONING", "CONDITIONING", vec![6])], json!([""])),
        (4, "EmptyLatentImage", vec![], vec![("LATENT", "LATENT", vec![7])], json!([512, 512, 1])),
        (5, "KSamplerSelect", vec![], vec![("SAMPLER", "SAMPLER", vec![8])], json!([name])),
        (6, "ManualSigmas", vec![], vec![("SIGMAS", "SIGMAS", vec![9])], json!([text])),
        (
            7,
            "SamplerCustom",
            vec![
                ("model", "MODEL", 1),
                ("positive", "CONDITIONING", 5),
                ("negative", "CONDITIONING", 6),
                ("sampler", "SAMPLER", 8),
                ("sigmas", "SIGMAS", 9),
                ("latent_image", "LATENT", 7),
            ],
            vec![("output", "LATENT", vec![10]), ("denoised_output", "LATENT", vec![])],
            json!([true, 0, "fixed", 7.5]),
        ),
        (
            8,
            "VAEDecode",
            vec![("samples", "LATENT", 10), ("vae", "VAE", 4)],
            vec![("IMAGE", "IMAGE", vec![11])],
            json!([]),
        ),
        (9, "SaveImage", vec![("images", "IMAGE", 11)], vec![], json!(["ld3"])),
    ];
    let mut links = vec![];
    for (id, _, _, outputs, _) in &nodes {
        for (slot, (_, kind, out)) in outputs.iter().enumerate() {
            for link in out {
                let to = nodes.iter().find_map(|n| Some((n.0, n.2.iter().position(|i| i.2 == *link)?)));
                if let Some((to, at)) = to {
                    links.push(json!([link, id, slot, to, at, kind]));
                }
            }
        }
    }
    let shown: Vec<serde_json::Value> = nodes
        .iter()
        .map(|(id, kind, inputs, outputs, widgets)| {
            let ins: Vec<_> = inputs.iter().map(|(n, t, k)| json!({ "name": n, "type": t, "link": k })).collect();
            let outs: Vec<_> = outputs
                .iter()
                .enumerate()
                .map(|(s, (n, t, k))| json!({ "name": n, "type": t, "links": k, "slot_index": s }))
                .collect();
            json!({
                "id": id, "type": kind, "pos": [40 + 330 * ((id - 1) / 3), 60 + 240 * ((id - 1) % 3)], "size": [300, 180],
                "flags": {}, "order": id - 1, "mode": 0, "inputs": ins, "outputs": outs,
                "properties": { "Node name for S&R": kind }, "widgets_values": widgets,
            })
        })
        .collect();
    let all = json!({
        "last_node_id": nodes.len(), "last_link_id": links.len(), "nodes": shown, "links": links,
        "groups": [], "config": {}, "extra": {}, "version": 0.4,
    });
    serde_json::to_string_pretty(&all).unwrap_or_default()
}
