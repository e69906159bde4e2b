//! Discriminators beside a sampler: R3GAN's network and GAS's rules are those of the public code, penalties included; runs with one resume to the
//! same bits (families.rs), keep their last parameters, and refuse what does not go with them.
use crate::process::{err, ld3sh, out};

fn run(script: &str) -> std::process::Output {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("main.rhai"), script).unwrap();
    ld3sh(dir.path(), &dir.path().join("cache")).args(["--quiet", "--threads", "1", "main.rhai"]).output().unwrap()
}

/// Logits, losses and every gradient, R1 and R2 among them, which the public code differentiates twice. Weights are read in f32.
#[test]
fn r3gan_learns_as_in_the_public_code() {
    let o = run(&format!(
        "import \"discriminator\" as discriminator;
        let f = |x| tensor(x, #{{ dtype: \"f64\" }});
        let rel = |a, b| (a.flatten(0) - f.call(b)).abs().max().item() / f.call(b).abs().max().item();
        for c in json::load(\"{}/tests/fixtures/learned/gas_discriminator.json\").cases {{
            let file = #{{}};
            let slopes = #{{}};
            for n in c.state.keys() {{
                file[n] = f.call(c.state[n].values).reshape(c.state[n].shape);
                slopes[n] = f.call(c.grads[n]).reshape(c.state[n].shape);
            }}
            save(\"d.safetensors\", file);
            save(\"g.safetensors\", slopes);
            let d = discriminator::from_file(\"d.safetensors\", #{{}});
            d.params = tree::map(d.params, |x| x.to(\"f64\"));
            let want = tree::flat(tree::map(discriminator::from_file(\"g.safetensors\", #{{}}).params, |x| x.to(\"f64\")));
            let real = f.call(c.real).reshape(c.shape);
            let fake = f.call(c.fake).reshape(c.shape);
            let apart = [rel.call(discriminator::logits(d.params, real) - discriminator::logits(d.params, fake), c.relativistic)];
            let x = variable(fake);
            let term = discriminator::term(d, d.params, x, real);
            apart.push(rel.call(term, c.generator));
            apart.push(rel.call(grad(term.mean(), [x])[0], c.grad_fake));
            let after = discriminator::step(d, optim::sgd(#{{ lr: 1.0 }}), d.params, real, fake);
            apart.push(abs(after.loss / c.loss - 1.0));
            apart.push(abs(after.penalty / (0.1 * (f.call(c.r1) + f.call(c.r2)).mean().item()) - 1.0));
            let moved = tree::flat(tree::add(d.params, tree::scale(after.params, -1.0)));
            if moved.keys() != want.keys() {{ throw \"parameters\"; }}
            for k in moved.keys() {{ apart.push((moved[k] - want[k]).abs().max().item() / want[k].abs().max().item()); }}
            print(apart);
        }}",
        env!("CARGO_MANIFEST_DIR")
    ));
    assert!(o.status.success(), "{}", err(&o));
    let text = out(&o);
    let cases: Vec<Vec<f64>> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cases.len(), 2, "{text}");
    for case in cases {
        assert_eq!(case.len(), 5 + 19, "{text}");
        assert!(case.iter().all(|apart| *apart < 3e-6), "{case:?}");
    }
}

/// A network that does not know its slope gets the same penalties by differences, where it has no kinks.
#[test]
fn slopes_by_differences_are_slopes() {
    let o = run(
        "import \"discriminator\" as discriminator;
        let w = randn([4, 5], #{ seed: 1, dtype: \"f64\" });
        let v = randn([4], #{ seed: 2, dtype: \"f64\" });
        let d = #{
            params: #{ w: w, v: v }, forward: |p, x| (x.matmul(p.w.permute([1, 0])).tanh() * p.v).sum(1),
            slope: |p, x, u| {
                let y = x.matmul(p.w.permute([1, 0])).tanh();
                ((1.0 - y * y) * u.matmul(p.w.permute([1, 0])) * p.v).sum(1)
            },
        };
        let told = discriminator::completed(d);
        d.remove(\"slope\");
        let own = discriminator::completed(d);
        let x = randn([3, 5], #{ seed: 3, dtype: \"f64\" });
        let y = randn([3, 5], #{ seed: 4, dtype: \"f64\" });
        let a = discriminator::step(told, optim::sgd(#{ lr: 1.0 }), d.params, x, y);
        let b = discriminator::step(own, optim::sgd(#{ lr: 1.0 }), d.params, x, y);
        print([a.loss - b.loss, a.penalty - b.penalty, (a.params.w - b.params.w).abs().max().item() / (a.params.w - w).abs().max().item()]);",
    );
    assert!(o.status.success(), "{}", err(&o));
    let apart: Vec<f64> = serde_json::from_str(out(&o).trim()).unwrap();
    assert!(apart[0] == 0.0 && apart[1] == 0.0 && apart[2] < 1e-4 && apart[2] > 0.0, "{apart:?}");
}

const HEAD: &str = "
import \"bezier\" as bezier; import \"discriminator\" as discriminator; import \"gs\" as gs; import \"ld3\" as ld3; import \"learn\" as learn;
let net = denoiser::mixture(#{ means: [[-1.0, 0.0], [1.0, 0.5]], stds: 0.2 });
let pairs = ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 20), #{ train: 8, valid: 8 });
let d = #{ params: #{ w: ones([2]) }, forward: |p, x| (x * p.w.to(x.dtype)).tanh().sum(1), lr: 0.01, name: \"mine\" };
let family = gs::family(net, #{ nfe: 3, lr: 0.01 });
let o = #{ epochs: 6, batch: 4, discriminator: d };
";

/// Its term moves the result, what is returned is what the last iteration left, and the record says by whom it was judged. Of weight 0, it does nothing.
#[test]
fn a_run_beside_a_discriminator_keeps_its_end() {
    let o = run(&format!(
        "{HEAD}let last = ();
        let run = learn::train(net, family, pairs, o + #{{ callback: |s| {{ last = s; }} }});
        let same = |a, b| hash_of(a) == hash_of(b);
        print(same.call(run.params, last.params) && !same.call(#{{ w: last.rival.params.w }}, d.params));
        let told = run.record.notes.options;
        print([told.choose, told.soft, told.discriminator.name, told.discriminator.params]);
        let none = learn::train(net, family, pairs, #{{ epochs: 6, batch: 4, soft: false, choose: \"last\" }});
        o.discriminator.weight = 0.0;
        print(same.call(none.params, learn::train(net, family, pairs, o).params) && !same.call(none.params, run.params));
        let image = denoiser::mixture(#{{ means: randn([3, 1, 8, 8], #{{ seed: 1 }}), stds: 0.3 }});
        let few = ld3::pairs(image, solver::unipc(), schedule::logsnr(image.noise, 20), #{{ train: 4, valid: 4 }});
        let rival = discriminator::r3gan(image.shape, #{{ widths: [8, 8], blocks: 1, group: 4 }});
        let f32 = |set| #{{ name: set.name, z: set.z.to(\"f32\"), target: set.target.to(\"f32\"), cond: set.cond }};
        let few = #{{ train: f32.call(few.train), valid: f32.call(few.valid) }};
        print(learn::train(image, gs::family(image, #{{ nfe: 3 }}), few, gs::published() + #{{ epochs: 3, batch: 2, discriminator: rival }}).iterations);"
    ));
    assert!(o.status.success(), "{}", err(&o));
    assert_eq!(out(&o), "true\n[\"last\", false, \"mine\", 2]\ntrue\n6\n", "{}", err(&o));
}

#[test]
fn what_does_not_go_with_one_is_refused() {
    for (code, words) in [
        ("o += #{ soft: true }", "soft: true does not go with a discriminator"),
        ("o += #{ by: \"squares\" }", "by: \"squares\" does not go with a discriminator"),
        ("o += #{ whole: true }", "whole: true does not go with a discriminator"),
        ("o += #{ pairwise: true }", "pairwise: true does not go with a discriminator"),
        ("o += #{ compat: \"reference\" }", "compat: \"reference\" does not go with a discriminator"),
        (
            "family = bezier::family(net, solver::dpmpp(), #{ nfe: [3, 5], fit: 20 })",
            "a family of several counts does not go",
        ),
        ("o.discriminator.remove(\"forward\")", "discriminator: forward is missing"),
        ("o.discriminator.rate = 1.0", "unknown option of discriminator::completed `rate`"),
        ("o.discriminator.forward = |p, x| x * p.w", "one logit for each sample, [8], not a tensor of shape [8, 2]"),
        (
            "o.discriminator.params.w = ones([2]) / 0.0; o.discriminator.forward = |p, x| (x * p.w).sum(1)",
            "a logit is not finite",
        ),
        ("discriminator::r3gan([3, 8, 6])", "samples must be [C, H, H]"),
        ("discriminator::r3gan([3, 10, 10], #{ widths: [16, 16, 16] })", "cannot be halved 2 times"),
        ("discriminator::r3gan([3, 8, 8], #{ widths: [12, 16] })", "no multiple of its groups"),
        (
            "save(\"a.safetensors\", #{ a: ones([1]) }); discriminator::from_file(\"a.safetensors\", #{})",
            "is no discriminator of R3GAN",
        ),
        (
            "save(\"a.safetensors\", #{ \"ExtractionLayer.Layer.weight\": ones([2, 1, 1, 1]), \"MainLayers.0.Layers.0.LinearLayer1.Layer.weight\": ones([2, 2, 1, 1]) }); discriminator::from_file(\"a.safetensors\", #{})",
            "has no MainLayers.0.Layers.0.NonLinearity1.Bias",
        ),
    ] {
        let text = err(&run(&format!("{HEAD}{code};\nlearn::train(net, family, pairs, o);")));
        assert!(text.contains("error: ") && text.contains(words), "{code}\n  lacks `{words}`:\n{text}");
    }
}
