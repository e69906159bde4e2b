//! `train::denoiser`: every loss learns, runs go on with the same bits, files bring the denoiser back, and what is wrong is said with its place.
use crate::code::{session, shown};

#[track_caller]
fn value(code: &str) -> String {
    let code = format!("{HEAD}{code}");
    session(move |s| shown(s, &code)).trim().to_string()
}

/// An array as it would stand in one line; it is shown over several.
fn one_line(text: &str) -> String {
    text.lines()
        .flat_map(|l| l.split("  "))
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .replace("[ ", "[")
        .replace(", ]", "]")
        .replace(",]", "]")
}

/// Two blobs in the plane, of which the exact denoiser is known, and a network for them.
const HEAD: &str = r#"
    import "nn" as nn; import "train" as train;
    let means = tensor([[-0.6, 0.2], [0.5, -0.3]]);
    let which = randint(0, 2, [2048], #{ seed: 1 });
    let data = means.index(0, which) + 0.1 * randn([2048, 2], #{ seed: 2 });
    let net = |p, x, t, cond| {
        let told = nn::embed(p.told, t, cond);
        nn::mlp(p.mlp, cat([x, told], 1))
    };
    let params = #{ told: nn::embed_params(16, 16, 2, 7), mlp: nn::mlp_params([18, 64, 64, 2], #{ seed: 3 }) };
    let small = #{ steps: 6, batch: 32, warmup: 2, lr: 0.003 };
"#;

#[test]
fn every_loss_comes_near_the_exact_denoiser() {
    for loss in ["edm", "noise", "v", "flow"] {
        let code = format!(
            r#"let run = train::denoiser(net, params, data, #{{ loss: "{loss}", steps: 400, batch: 128, lr: 0.003, ema: 0.98, valid: 256, valid_every: 200 }});
            let net = run.denoiser;
            let exact = denoiser::mixture(#{{ means: means, stds: 0.1, noise: net.noise }});
            let x0 = data[0..256];
            let worst = 0.0;
            for s in [0.1, 0.3, 1.0] {{
                let t = net.noise.t_of_sigma(s);
                let x = net.noise.alpha(t) * x0 + net.noise.sigma(t) * noise([256, 2], #{{ seed: 9 }});
                let wanted = exact.denoise(x, t);
                let off = ((net.denoise(x, t) - wanted).sqr().mean() / wanted.sqr().mean()).sqrt().item();
                if off > worst {{ worst = off; }}
            }}
            let v = run.valid;
            if worst < 0.6 && v.len == 2 && v[1].levels.len == 8 && run.steps == 400 && run.stopped == () && net.hash != () {{ "good" }} else {{ `${{worst}} ${{v}}` }}"#
        );
        assert_eq!(value(&code), "\"good\"", "{loss}");
    }
}

#[test]
fn a_consistency_function_samples_in_one_step() {
    let code = r#"let run = train::denoiser(net, params, data, #{ loss: "consistency", steps: 300, batch: 128, lr: 0.002, ema: 0.98, stages: 5 });
        let net = run.denoiser;
        let z = noise([512, 2], #{ seed: 11 });
        let x = sample(net, solver::euler(), schedule::edm(net.noise, 1), z);
        let near = minimum((x - means[0]).norm([1]), (x - means[1]).norm([1]));
        let share = (near < 0.5).to("f32").mean().item();
        if share > 0.7 { "good" } else { `${share}` }"#;
    assert_eq!(value(code), "\"good\"");
}

#[test]
fn an_interrupted_run_goes_on_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.state");
    let code = format!(
        r#"let labelled = small + #{{ labels: which, accumulate: 3, optimizer: "adamw", valid: 64, valid_every: 3, checkpoint_every: 2 }};
        let whole = train::denoiser(net, params, data, labelled);
        let kept = labelled + #{{ checkpoint: "{0}" }};
        let part = train::denoiser(net, params, data, kept + #{{ callback: |s| s.step < 3 }});
        let there = file_exists("{0}");
        let rest = train::denoiser(net, params, data, kept);
        let again = train::denoiser(net, params, data, labelled);
        [part.steps, part.stopped, there, file_exists("{0}"), hash_of(rest.params) == hash_of(whole.params), hash_of(rest.valid) == hash_of(whole.valid),
            hash_of(rest.history) == hash_of(whole.history), rest.denoiser.hash == whole.denoiser.hash, hash_of(again.raw) == hash_of(whole.raw)]"#,
        path.display()
    );
    assert_eq!(
        one_line(&value(&code)),
        "[3, \"the callback ended it after step 3\", true, false, true, true, true, true, true]"
    );
    // another run's file is left alone
    let code = format!(
        r#"let kept = small + #{{ checkpoint: "{0}", checkpoint_every: 1 }};
        train::denoiser(net, params, data, kept + #{{ callback: |s| false }});
        train::denoiser(net, params, data, kept + #{{ lr: 0.1 }})"#,
        path.display()
    );
    assert!(value(&code).contains("is the checkpoint of another run"));
    assert!(path.exists());
}

#[test]
fn files_bring_the_denoiser_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.safetensors");
    let code = format!(
        r#"let run = train::denoiser(net, params, data, small + #{{ loss: "v", labels: which, out: "{0}" }});
        let back = train::load(net, "{0}");
        let x = noise([4, 2], #{{ seed: 1 }});
        let a = run.denoiser.denoise(x, 0.5, [0, 1, 1, 0]);
        let b = back.denoise(x, 0.5, [0, 1, 1, 0]);
        [back.hash == run.denoiser.hash, hash_of(a) == hash_of(b), back.noise.name, back.classes, back.shape, checkpoint::open("{0}").names[0]]"#,
        path.display()
    );
    assert_eq!(one_line(&value(&code)), "[true, true, \"vp_cosine\", 2, [2], \"mlp.layers.0.bias\"]");
    let code = format!("save(\"{0}\", #{{ a: ones([1]) }}); train::load(net, \"{0}\")", path.display());
    assert!(value(&code).contains("holds no denoiser that train::save wrote"));
}

#[test]
fn what_is_not_finite_ends_the_run_and_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.state");
    // a network that overflows in its fourth step
    let code = format!(
        r#"let calls = #{{ n: 0 }};
        let bad = |p, x, t, cond| {{
            calls.n += 1;
            if calls.n > 3 {{ net.call(p, x, t, cond) / 0.0 }} else {{ net.call(p, x, t, cond) }}
        }};
        let run = train::denoiser(bad, params, data, small + #{{ checkpoint: "{0}" }});
        [run.steps, run.stopped, file_exists("{0}"), tree::not_finite(run.params)]"#,
        path.display()
    );
    let text = one_line(&value(&code));
    assert!(text.starts_with("[3, \"the loss at noise levels") && text.contains("is not finite in step 3"), "{text}");
    assert!(text.ends_with("true, ()]"), "{text}");
}

#[test]
fn wrong_input_is_told() {
    for (code, words) in [
        ("train::denoiser(net, params, \"pictures\")", "the data must be a Tensor"),
        ("train::denoiser(net, params, randint(0, 9, [4, 2]))", "floating point, not i64"),
        ("data[5] = data[5] / 0.0; train::denoiser(net, params, data)", "sample 5 of the data"),
        ("params.mlp.name = \"x\"; train::denoiser(net, params, data)", "`mlp.name`"),
        (
            "params.mlp.layers[0].bias = params.mlp.layers[0].bias / 0.0; train::denoiser(net, params, data)",
            "mlp.layers[0].bias",
        ),
        ("train::denoiser(|p, x, t, c| x.sum(), params, data, small)", "must return a tensor of its input's shape"),
        ("train::denoiser(|p, x, t, c| x, params, data, small)", "does not depend on the parameters"),
        ("train::denoiser(net, params, data, #{ los: \"edm\" })", "did you mean `loss`?"),
        ("train::denoiser(net, params, data, #{ valid: 4096 })", "leave none to learn from"),
        ("train::denoiser(net, params, data, #{ labels: [1, 2] })", "labels of shape [2]"),
        ("train::denoiser(net, params, data, #{ classes: 2 })", "the samples have no labels"),
        ("train::denoiser(net, params, #{ size: 3 }, small)", "the data have no shape"),
        ("train::denoiser(net, params, data, small + #{ rule: #{ beta: 1 } })", "betas"),
        ("nn::unet_params(#{ shape: [1, 27, 28] })", "cannot be halved"),
        ("nn::dit_params(#{ patch: 5 })", "no whole patches"),
        ("nn::attention_params(7, 2)", "no 2 equal heads"),
    ] {
        let text = value(code);
        assert!(text.contains("error") && text.contains(words), "{code}: lacks `{words}`\n{text}");
    }
}

#[test]
fn samples_may_be_read_as_they_are_needed() {
    let code = r#"let lazy = #{ size: 2048, shape: [2], batch: |i| #{ x: data.index(0, i), labels: which.index(0, i) } };
        let a = train::denoiser(net, params, lazy, small + #{ classes: 2 });
        let b = train::denoiser(net, params, data, small + #{ labels: which });
        hash_of(a.params) == hash_of(b.params)"#;
    assert_eq!(value(code), "true");
}

#[test]
fn rates_rise_and_fall() {
    let code = r#"[train::constant(0, 0), train::cosine(0, 10, 4, 0.0), train::cosine(4, 10, 4, 0.0), train::cosine(10, 10, 4, 0.5), train::steps(5, 5, 0.1, 0), train::inverse_sqrt(9, 1, 0)]"#;
    assert_eq!(one_line(&value(code)), "[1.0, 0.25, 1.0, 0.5, 0.1, 0.333333]");
}
