//! The blocks in which ld3sh's own objects print at the prompt.
use super::spark::spark;
use super::value::{cut, cut_middle, short};
use crate::denoise::DynDenoiser;
use crate::discretize::Schedule;
use crate::noise::{Noise, NoiseSchedule};
use crate::plan::Tracked;
use crate::real::Real;
use crate::script::noise::describe;
use crate::script::plan::ScriptSolver;
use crate::tensor::{aside, display};
use candle_core::Tensor;
use rhai::{Dynamic, Engine};

/// The lines for a native object; None for what has no form of its own here.
pub fn block(engine: &Engine, v: &Dynamic, width: usize) -> Option<String> {
    if let Some(t) = v.read_lock::<Tensor>() {
        // a look at all values: after Ctrl-C there is nothing to see
        let (load, t) = (aside::load(&[&t]), t.clone());
        let text = aside::run(load, move || Ok(display::text_within(&t, width)));
        return Some(text.unwrap_or_else(|e| e.message().to_string()));
    }
    if let Some(s) = v.read_lock::<Schedule>() {
        return Some(schedule(&s, width));
    }
    if let Some(p) = v.read_lock::<Tracked>() {
        return Some(cut_middle(p.plan().to_string().trim_end(), width));
    }
    if let Some(n) = v.read_lock::<Noise>() {
        return Some(lines(&describe(n.as_ref()), &ends(n.as_ref()), width));
    }
    if let Some(d) = v.read_lock::<DynDenoiser>() {
        return Some(denoiser(&d, width));
    }
    if let Some(s) = v.read_lock::<ScriptSolver>() {
        return Some(solver(&s, width));
    }
    // what an area registered for its type
    let own = engine.eval_fn_call::<String>("to_string", None, (v.clone(),)).ok()?;
    own.contains('\n').then_some(own)
}

/// A title, and named facts below it.
fn lines(title: &str, facts: &[(&str, String)], width: usize) -> String {
    let widest = facts.iter().map(|(k, _)| k.chars().count()).max().unwrap_or(0);
    let fact = |(k, v): &(&str, String)| cut(&format!("  {k:widest$}  {v}"), width);
    std::iter::once(cut(title, width)).chain(facts.iter().map(fact)).collect::<Vec<_>>().join("\n")
}

fn range(a: f64, b: f64) -> String {
    format!("{} … {}", short(a), short(b))
}

/// What a noise schedule's two ends are, from noise to data.
fn ends(n: &dyn NoiseSchedule) -> Vec<(&'static str, String)> {
    let (a, b) = (Real::from(n.t_max()), Real::from(n.t_min()));
    vec![
        ("t", range(a.v(), b.v())),
        ("alpha", range(n.alpha(&a).v(), n.alpha(&b).v())),
        ("sigma", range(n.sigma(&a).v(), n.sigma(&b).v())),
        ("lambda", range(n.lambda(&a).v(), n.lambda(&b).v())),
    ]
}

/// The table of steps, and how large each step is in ln σ.
fn schedule(s: &Schedule, width: usize) -> String {
    let table = cut_middle(&s.to_string(), width);
    let Ok(t) = s.times() else { return table };
    let log: Vec<f64> = t.iter().map(|t| s.noise.ve_sigma(&Real::from(*t)).v().ln()).collect();
    let steps: Vec<f64> = log.windows(2).map(|w| w[0] - w[1]).collect();
    let finite = || steps.iter().copied().filter(|s| s.is_finite());
    if finite().count() == 0 {
        return table;
    }
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let line = spark(&steps, width.saturating_sub(34).clamp(8, 60));
    format!("{table}\n{}", cut(&format!("steps in ln sigma {line} {}", range(low, high)), width))
}

fn denoiser(d: &DynDenoiser, width: usize) -> String {
    let shape = d.sample_shape().map_or("any".into(), |s| {
        let s: Vec<String> = s.iter().map(usize::to_string).collect();
        format!("[{}]", s.join(", "))
    });
    let mut facts = vec![("noise", describe(d.noise().as_ref())), ("shape", shape)];
    if d.classes() > 0 {
        facts.push(("classes", d.classes().to_string()));
    }
    if d.runs_per_eval() != 1 {
        facts.push(("runs", format!("{} of the network per evaluation", d.runs_per_eval())));
    }
    if let Some(c) = d.counter() {
        facts.push(("nfe", format!("{} evaluations so far", c.nfe())));
    }
    lines(&d.describe(), &facts, width)
}

fn solver(s: &ScriptSolver, width: usize) -> String {
    let ScriptSolver::Native(native) = s else { return cut(&s.describe(), width) };
    let nfe: Vec<String> = [5, 10].map(|n| format!("{} for {n} steps", native.nfe(n))).into();
    let mut facts = vec![("order", native.order().to_string()), ("evaluations", nfe.join(", "))];
    if let serde_json::Value::Object(all) = native.to_json() {
        let shown = all.iter().filter(|(k, v)| !matches!(k.as_str(), "name" | "order") && !v.is_null());
        let options: Vec<String> = shown.map(|(k, v)| format!("{k}: {v}")).collect();
        facts.push(("options", options.join(", ")));
    }
    lines(&native.describe(), &facts, width)
}
