//! A plan as a self-contained Python function: what no tool has a slot for (learned coefficients, decoupled times), torch only.
use crate::denoise::Prediction;
use crate::noise::Noise;
use crate::plan::{Plan, Source};
use serde_json::{Value, json};

/// The thirty lines that run a plan.
const RUN: &str = r#"
@torch.no_grad()
def sample(denoise, z, noise=(), plan=PLAN):
    """The sample that unit-variance noise z leads to.

    denoise(x, alpha, sigma, t) -> the network's estimate of the data in x = alpha * data + sigma * noise; t is the time
    that the network is to be told, in the schedule's own units. alpha, sigma, t are floats. noise: one tensor like z
    for each noise column of the plan (samplers of SDEs).
    """
    states, outputs, at = [plan["start"] * z], [], 0
    for k, row in enumerate(plan["rows"]):
        # the evaluations of the state before, then the next state
        while at < len(plan["evals"]) and plan["evals"][at]["state"] == k:
            e = plan["evals"][at]
            x = states[k]
            out = denoise(x, e["alpha"], e["sigma"], e["t"])
            if e["predicts"] == "noise":
                out = (x - e["alpha"] * out) / e["sigma"]
            outputs.append(out)
            at += 1
        vectors = {"x": states, "m": outputs, "n": noise}
        states.append(sum(c * vectors[kind][i] for kind, i, c in row))
    return states[plan["result"]]
"#;

/// The Python file of a plan over a noise schedule.
pub fn plan_function(plan: &Plan, noise: &Noise) -> String {
    let start = noise.prior_std(plan.states[0].t.v());
    let evals: Vec<Value> = plan
        .evals
        .iter()
        .map(|e| {
            let want = if e.want == Prediction::Data { "data" } else { "noise" };
            let [alpha, sigma] = [noise.alpha(&e.t).v(), noise.sigma(&e.t).v()];
            json!({ "state": e.state, "t": e.t.v(), "alpha": alpha, "sigma": sigma, "predicts": want })
        })
        .collect();
    let rows: Vec<Value> = plan.states[1..]
        .iter()
        .map(|s| {
            let term = |t: &crate::plan::Term| match t.source {
                Source::State(i) => json!(["x", i, t.coef.v()]),
                Source::Output(i) => json!(["m", i, t.coef.v()]),
                Source::Noise(i) => json!(["n", i, t.coef.v()]),
            };
            Value::Array(s.terms.iter().map(term).collect())
        })
        .collect();
    let lines = |list: &[Value]| list.iter().map(|v| format!("        {v},\n")).collect::<String>();
    format!(
        "\"\"\"{name}: {nfe} evaluations, in the time of noise schedule {noise}. Written by ld3sh {version}.\"\"\"\nimport torch\n\n\
         PLAN = {{\n    \"start\": {start:?},  # times unit-variance noise\n    \"evals\": [\n{evals}    ],\n    # each state from those \
         before (x), the network's outputs (m) and noise (n)\n    \"rows\": [\n{rows}    ],\n    \"result\": {result},\n}}\n\n{RUN}",
        name = plan.name.replace('"', "'").replace('\\', "/"),
        nfe = plan.evals.len(),
        noise = noise.name(),
        version = crate::VERSION,
        evals = lines(&evals),
        rows = lines(&rows),
        result = plan.result,
    )
}
