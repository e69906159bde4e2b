//! Families of learned samplers: their plans are those of the public code, gradients included; every one of them resumes to the same bits and
//! survives being saved; what cannot be trained is refused by name.
use crate::process::{err, ld3sh, out};
use std::path::Path;

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn run(dir: &Path, script: &str) -> std::process::Output {
    std::fs::write(dir.join("main.rhai"), script).unwrap();
    ld3sh(dir, &dir.join("cache")).args(["--quiet", "--threads", "1", "main.rhai"]).output().unwrap()
}

#[track_caller]
fn prints(dir: &Path, script: &str) -> String {
    let o = run(dir, script);
    assert!(o.status.success(), "{script}\n{}", err(&o));
    out(&o)
}

/// Runs a script that prints `what error` in each line, and checks that each error is within its bound.
#[track_caller]
fn within(script: &str, lines: usize, bound: impl Fn(&str) -> f64) {
    let dir = tempfile::tempdir().unwrap();
    let head = format!(
        "import \"learn\" as learn;
        let f = |x| tensor(x, #{{ dtype: \"f64\" }});
        let g = json::load(\"{}\").gmm;
        let mixture = |n| denoiser::mixture(#{{ means: f.call(g.means), stds: f.call(g.stds), weights: g.weights, noise: n }});
        let rel = |a, b| (a - f.call(b)).abs().max().item() / (f.call(b).abs().max().item() + 1e-300);\n",
        fixture("solvers.json")
    );
    let text = prints(dir.path(), &format!("{head}{script}"));
    let mut wrong = Vec::new();
    for line in text.lines() {
        let (what, error) = line.rsplit_once(' ').unwrap();
        let error: f64 = error.parse().unwrap();
        if error.is_nan() || error > bound(what) {
            wrong.push(line.to_string());
        }
    }
    assert_eq!((text.lines().count(), wrong), (lines, vec![]), "{text}");
}

/// Samples to 1e-9, gradients to 1e-7.
fn usual(what: &str) -> f64 {
    if what.starts_with("grad") { 1e-7 } else { 1e-9 }
}

#[test]
fn gs_is_the_generalized_solver() {
    let script = format!(
        "import \"coefficients\" as coefficients; import \"gs\" as gs;
        for c in json::load(\"{}\").cases {{
            let n = if c.schedule == \"vp_linear\" {{ noise::vp_linear(#{{ t_min: c.t_eps }}) }} else {{ noise::vp_discrete(\"sd\") }};
            let columns = |of, letter| {{ let r = []; for k in 1..c.order + 1 {{ r.push(f.call(of[`${{letter}}${{k}}_diff`])); }} stack(r, 1) }};
            let p = #{{
                mu: variable(f.call(c.params.mu_logit)), couple: variable(f.call(c.params.t_couple)),
                c: variable(columns.call(c.params, \"c\")), a: variable(columns.call(c.params, \"a\")),
            }};
            let x = variable(f.call(c.x_T));
            let made = gs::solver(n, n, p, if c.theory {{ \"corrections\" }} else {{ \"s4s\" }});
            let y = solve(mixture.call(n), made, x);
            print(`t ${{rel.call(gs::times(n, p.mu), c.t)}}`);
            print(`told ${{rel.call(made.t_eval, c.t_seen)}}`);
            print(`x_0 ${{rel.call(y, c.x_0)}}`);
            let got = grad((y * f.call(c.cotangent)).sum(), [x, p.mu, p.couple, p.c, p.a]);
            let want = [c.grad_x_T, c.grad.mu_logit, c.grad.t_couple, columns.call(c.grad, \"c\").to_array(), columns.call(c.grad, \"a\").to_array()];
            for k in 0..5 {{ print(`grad ${{k}} ${{rel.call(got[k], want[k])}}`); }}
        }}
        // all corrections zero: DPM-Solver++(3M) at full order, on a VE network too
        let net = mixture.call(noise::edm());
        let family = gs::family(net, #{{ nfe: 5 }});
        let over = coefficients::vp_of(net.noise, 0.0001);
        let z = noise([2, 2, 3, 3], #{{ seed: 1 }}).to(\"f64\");
        let steps = schedule::list(net.noise, over.ve_sigma(gs::times(over, family.params.mu)).to_array());
        let theory = sample(net, solver::dpmpp(#{{ lower_order_final: false }}), steps, z);
        print(`theory ${{rel.call(sample(net, family.make.call(family.params), z), theory.to_array())}}`);
        // the same coefficients, as numbers of their own
        for order in [5, 3, 2, 1] {{
            let plan = |form| {{ let f = gs::family(net, #{{ nfe: 5, order: order, form: form }}); f.make.call(f.params) }};
            print(`form ${{rel.call(plan.call(\"coefficients\").matrix, plan.call(\"corrections\").matrix.to_array())}}`);
        }}",
        fixture("learned/gas.json")
    );
    within(&script, 10 * 8 + 1 + 4, usual);
}

#[test]
fn dyweight_is_the_public_sampler() {
    let script = format!(
        "import \"coefficients\" as coefficients; import \"dyweight\" as dyweight;
        for c in json::load(\"{}\").cases {{
            let net = mixture.call(noise::edm(#{{ sigma_min: c.sigma_min, sigma_max: c.sigma_max }}));
            let seen = zeros([c.steps, c.steps], #{{ dtype: \"f64\" }});
            for k in 0..min(c.steps, c.history ?? c.steps) {{ seen += coefficients::band(c.steps, k); }}
            let w = variable(f.call(c.weights)); let s = variable(f.call(c.t_scale)); let z = variable(f.call(c.noise));
            let sigmas = f.call(c.sigmas);
            let at = dyweight::levels(sigmas, w * seen);
            let told = dyweight::told_levels(at, s);
            let nfe = c.steps - if c.afs {{ 1 }} else {{ 0 }};
            let family = dyweight::family(net, #{{ nfe: nfe, history: c.history ?? c.steps, afs: c.afs }});
            print(`start ${{rel.call(family.params.w.start, c.initial_weights)}}`);
            let made = dyweight::solver(net.noise, sigmas, at, w * seen, told, c.afs);
            if made.nfe != nfe {{ throw \"evaluations\"; }}
            let y = sample(net, made, z);
            print(`told ${{rel.call(told, c.sigma_seen)}}`);
            print(`x_0 ${{rel.call(y, c.x_0)}}`);
            let got = grad((y * f.call(c.cotangent)).sum(), [z, w, s]);
            let want = [c.grad_noise, c.grad_weights, c.grad_t_scale];
            for k in 0..3 {{ print(`grad ${{k}} ${{rel.call(got[k], want[k])}}`); }}
        }}",
        fixture("learned/dyweight.json")
    );
    within(&script, 5 * 6, usual);
}

/// The solver with gradients, and its plug-in into iPNDM, of which the public code knows no exact ones.
#[test]
fn epd_is_the_public_solver_and_counts_every_evaluation() {
    let script = format!(
        "import \"epd\" as epd;
        for c in json::load(\"{}\").cases {{
            let net = mixture.call(noise::edm());
            let names = #{{ r: \"r_params\", w: \"weight_s\", c: \"scale_dir_params\", a: \"scale_time_params\" }};
            let p = #{{}};
            for k in names.keys() {{ p[k] = variable(f.call(c.params.get(names[k]) ?? zeros([c.steps, c.points]).to_array())); }}
            let z = variable(f.call(c.noise));
            let form = #{{ afs: c.afs, scale_dir: c.scale_dir, scale_time: c.scale_time, max_order: c.max_order ?? 1 }};
            let made = epd::solver(net.noise, f.call(c.sigmas), p, form);
            if made.nfe != c.sigma_seen.len() {{ throw \"evaluations\"; }}
            let y = sample(net, made, z);
            print(`told ${{rel.call(made.t_eval, c.sigma_seen)}}`);
            print(`x_0 ${{rel.call(y, c.x_0)}}`);
            if c.solver != \"epd\" {{ continue; }}
            let loss = (y * f.call(c.cotangent)).sum();
            print(`grad z ${{rel.call(grad(loss, [z])[0], c.grad_noise)}}`);
            for k in names.keys() {{
                if names[k] in c.grad {{ print(`grad ${{k}} ${{rel.call(grad(loss, [p[k]])[0], c.grad[names[k]])}}`); }}
            }}
        }}",
        fixture("learned/epd.json")
    );
    within(&script, 5 * 2 + 3 + 4 + 2 + 3, usual);
}

#[test]
fn bezier_curves_are_the_public_ones() {
    let script = format!(
        "import \"bezier\" as bezier;
        let first = true;
        for c in json::load(\"{}\").cases {{
            let a = variable(f.call(c.alpha_logits)); let b = variable(f.call(c.sigma_logits));
            let r = bezier::curve(a, b, f.call(c.s));
            for k in [\"alpha_points\", \"sigma_points\", \"alpha\", \"sigma\", \"lambda\"] {{ print(`${{k}} ${{rel.call(r[k], c[k])}}`); }}
            let got = grad((r.lambda * f.call(c.cotangent)).sum(), [a, b]);
            // in the first case α stands on its lower bound, where the gradient is either side's
            if !first {{ print(`grad alpha ${{rel.call(got[0], c.grad_alpha_logits)}}`); }}
            print(`grad sigma ${{rel.call(got[1], c.grad_sigma_logits)}}`);
            first = false;
        }}",
        fixture("learned/bezier.json")
    );
    within(&script, 4 * 7 - 1, usual);
}

/// All families, by name, for a network `net` and so few evaluations that they are quick.
const FAMILIES: &str = "
import \"bezier\" as bezier; import \"bns\" as bns; import \"dyweight\" as dyweight; import \"epd\" as epd; import \"free\" as free;
import \"ggdm\" as ggdm; import \"gs\" as gs; import \"ld3\" as ld3; import \"learn\" as learn; import \"s4s\" as s4s;
let net = denoiser::mixture(#{ means: [[-1.0], [1.0]], stds: 0.2 });
let pairs = ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 20), #{ train: 4, valid: 4 });
let families = #{
    bezier: bezier::family(net, solver::ipndm(), #{ nfe: 3, fit: 20 }),
    bns: bns::family(net, #{ nfe: 3 }),
    dyweight: dyweight::family(net, #{ nfe: 3 }),
    epd: epd::family(net, #{ steps: 2, points: 1, lr: 0.02 }),
    free: free::family(net, solver::ipndm(), #{ nfe: 3 }),
    free_afs: free::family(net, solver::unipc(#{ afs: true }), #{ nfe: 3 }),
    ggdm: ggdm::family(net, #{ nfe: 3, variances: false }),
    gs: gs::family(net, #{ nfe: 3 }),
    ld3: ld3::family(net, solver::ddim(), #{ nfe: 3, phase1: 1 }),
    s4s: s4s::family(net, #{ nfe: 3, learn: \"both\" }),
};
let rival = #{ params: [ones([1])], forward: |p, x| (x * p[0].to(x.dtype)).tanh().sum(1), lr: 0.01 };
let z = noise([5, 1], #{ seed: 9 });
let draw = |name, made| learn::draw(net, families[name], made, z, \"none\", \"auto\");
";

/// Stopped in the middle and run again, a training ends as if nothing had been; what it saved draws the same samples in another process.
#[test]
fn every_family_resumes_to_the_same_bits_and_survives_on_disk() {
    for extra in [
        "soft: true",
        "soft: false, rate: \"cosine\", ema: 0.5",
        "by: \"squares\", epochs: 5, tolerance: 0.0, step: 0.001",
        "ema: 0.5, discriminator: rival",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let train = |more: &str, name: &str| {
            let epochs = if extra.contains("epochs") { "" } else { "epochs: 3, " };
            format!("learn::train(net, families[{name}], pairs, #{{ {epochs}batch: 2, {extra}, {more} }})")
        };
        let whole = prints(
            dir.path(),
            &format!(
                "{FAMILIES}for name in families.keys() {{
                    let r = {};
                    print(`${{name}} ${{hash_of(#{{ p: r.params, h: r.history, l: r.loss, x: draw.call(name, r.made) }})}}`);
                }}",
                train("out: out(`${name}-whole.json`)", "name")
            ),
        );
        assert_eq!(whole.lines().count(), 10, "{whole}");
        let stopped = prints(
            dir.path(),
            &format!(
                "{FAMILIES}for name in families.keys() {{
                    try {{
                        {};
                    }} catch (e) {{ print(e.message); }}
                }}",
                train(
                    "checkpoint: out(`${name}.state`), callback: |s| { if s.iteration == 4 { throw \"stopped\"; } }",
                    "name"
                )
            ),
        );
        assert_eq!(stopped, "stopped\n".repeat(10));
        let resumed = prints(
            dir.path(),
            &format!(
                "{FAMILIES}for name in families.keys() {{
                    let asked = 0;
                    let r = {};
                    if asked != r.iterations - 3 {{ throw `${{name}} did not go on where it was stopped: ${{asked}} of ${{r.iterations}}`; }}
                    if file_exists(out(`${{name}}.state`)) {{ throw \"the checkpoint stays\"; }}
                    print(`${{name}} ${{hash_of(#{{ p: r.params, h: r.history, l: r.loss, x: draw.call(name, r.made) }})}}`);
                }}",
                train("checkpoint: out(`${name}.state`), out: out(`${name}.json`), callback: |s| { asked += 1; }", "name")
            ),
        );
        assert_eq!(resumed, whole);
        let loaded = prints(
            dir.path(),
            &format!(
                "{FAMILIES}for name in families.keys() {{
                    let a = draw.call(name, learn::load(out(`${{name}}.json`)));
                    let b = draw.call(name, learn::load(out(`${{name}}-whole.json`)));
                    let r = {};
                    print([(a - b).abs().max().item(), (a - draw.call(name, r.made)).abs().max().item()]);
                }}",
                train("seed: 0", "name")
            ),
        );
        assert_eq!(loaded, "[0.0, 0.0]\n".repeat(10));
    }
}

/// The small network and the sampler of the public code; its plug-in into DPM-Solver++ is not among what is here.
#[test]
fn amed_is_the_public_sampler() {
    let script = format!(
        "import \"amed\" as amed;
        for c in json::load(\"{}\").cases {{
            if c.solver == \"dpmpp\" {{ continue; }}
            let names = #{{ time: \"map_layer0\", first: \"enc_layer0\", second: \"enc_layer1\", r: \"fc_r\", dir: \"fc_scale_dir\", told: \"fc_scale_time\" }};
            let p = #{{}};
            for k in names.keys() {{ for part in [\"weight\", \"bias\"] {{
                let v = c.predictor.get(`${{names[k]}}.${{part}}`);
                if v != () {{ p[`${{k}}_${{part}}`] = f.call(v); }}
            }} }}
            let form = #{{ afs: c.afs, scale_dir: c.scale_dir, scale_time: c.scale_time, max_order: c.max_order ?? 1 }};
            let sigmas = f.call(c.sigmas);
            let worst = 0.0;
            let x = amed::draw(mixture.call(noise::edm()), sigmas, f.call(c.noise) * sigmas[0].item(), (), form, |i, x, sigma, next, m| {{
                let seen = f.call(c.bottleneck[i]) * if m == () {{ 0.0 }} else {{ 1.0 }};
                let r = amed::predict(p, seen, sigmas[i], sigmas[i + 1], form);
                let got = [r.r, r.dir, r.told];
                for k in 0..3 {{ worst = max(worst, (got[k] - f.call(c.predicted_r_dir_time[i][k])).abs().max().item()); }}
                r
            }});
            print(`predicted ${{worst}}`);
            print(`x_0 ${{rel.call(x, c.x_0)}}`);
        }}",
        fixture("learned/amed.json")
    );
    within(&script, 3 * 2, |_| 2e-6);
}

/// What the authors' files hold is found under its names or in its order, and makes the plan of these numbers; what is no such file is refused.
#[test]
fn published_checkpoints_are_plans() {
    let dir = tempfile::tempdir().unwrap();
    let text = prints(
        dir.path(),
        &format!(
            "import \"coefficients\" as coefficients; import \"dyweight\" as dyweight; import \"gs\" as gs; import \"learn\" as learn;
            let f = |x| tensor(x, #{{ dtype: \"f64\" }});
            let apart = |a, b| max((a.matrix - b.matrix).abs().max().item(), (a.t_eval - b.t_eval).abs().max().item());
            for c in json::load(\"{dy}\").cases {{
                let mask = zeros([c.steps, c.steps], #{{ dtype: \"f64\" }});
                for k in 0..min(c.steps, c.history ?? c.steps) {{ mask += coefficients::band(c.steps, k); }}
                save(\"a.safetensors\", #{{ \"predictor.hybrid_weights\": f.call(c.weights), \"predictor.mask\": mask, \"predictor.t_scale\": f.call(c.t_scale) }});
                let noise = noise::edm(#{{ sigma_min: c.sigma_min, sigma_max: c.sigma_max }});
                let steps = schedule::list(noise, f.call(c.sigmas).to_array());
                let made = dyweight::from_file(noise, \"a.safetensors\", #{{ steps: steps }});
                // told levels stay within the noise schedule
                let seen = f.call(c.sigma_seen).clamp(c.sigma_min, c.sigma_max);
                print((made.t_eval - seen).abs().max().item() / seen.max().item());
            }}
            let p = #{{ mu: f.call([1.0, 0.6]), couple: f.call([0.0, -0.01, -0.002]), c: f.call([[0.01, 0.0], [0.02, 0.03], [0.0, 0.01]]), a: f.call([[0.0, 0.0], [0.01, 0.0], [0.0, -0.02]]) }};
            let file = #{{}};
            let parts = [p.mu, p.couple];
            for k in 0..2 {{ parts.push(p.c.select(1, k)); parts.push(p.a.select(1, k)); }}
            for k in 0..parts.len {{ file[`ema.shadow_params.${{k}}`] = parts[k]; file[`model.${{k}}`] = parts[k] * 0.0; }}
            // a discriminator's
            file[\"ema.shadow_params.6\"] = zeros([4, 4]);
            save(\"b.safetensors\", file);
            let vp = noise::vp_linear(#{{ t_min: 0.001 }});
            print(apart.call(gs::from_file(vp, \"b.safetensors\", #{{}}), gs::solver(vp, vp, p)));
            // as their code says: it ends at σ = 0.0105, and begins at 80
            let made = gs::from_file(noise::edm(), \"b.safetensors\", #{{ ema: false }});
            print(abs(made.t_eval[0].item() / 80.0 - 1.0));
            print(abs(made.steps[3].t - 0.0105) < 0.00005);",
            dy = fixture("learned/dyweight.json")
        ),
    );
    let lines: Vec<&str> = text.lines().collect();
    let (last, numbers) = lines.split_last().unwrap();
    assert_eq!((numbers.len(), *last), (7, "true"), "{text}");
    assert!(numbers.iter().all(|n| n.parse::<f64>().unwrap() < 1e-9), "{text}");
    for (code, words) in [
        ("dyweight::from_file(noise::edm(), \"b.safetensors\", #{})", "has no hybrid_weights"),
        (
            "dyweight::from_file(noise::edm(), \"a.safetensors\", #{ steps: schedule::edm(noise::edm(), 2) })",
            "the weights are for",
        ),
        ("gs::from_file(noise::edm(), \"a.safetensors\", #{})", "is no checkpoint of GS"),
    ] {
        let text = err(&run(dir.path(), &format!("import \"dyweight\" as dyweight; import \"gs\" as gs;\n{code}")));
        assert!(text.contains(words), "{code}\n  lacks `{words}`:\n{text}");
    }
}

/// What is no single plan: a sampler that is a function, one set of parameters for several counts, a loss of whole batches. They resume too.
#[test]
fn functions_several_counts_and_whole_batches_are_learned_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let head = "
        import \"amed\" as amed; import \"bezier\" as bezier; import \"ggdm\" as ggdm; import \"ld3\" as ld3; import \"learn\" as learn;
        let net = denoiser::mixture(#{ means: [[-1.0, 0.0], [1.0, 0.5]], stds: 0.2 });
        let pairs = ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 20), #{ train: 8, valid: 8 });
        let data = randn([32, 2], #{ seed: 3 }) * 0.2 + tensor([1.0, 0.5]);
        let cases = #{
            amed: [amed::family(net, |x, s, m| m, #{ steps: 2, inputs: 2, hidden: 4 }), pairs, #{}],
            several: [bezier::family(net, solver::dpmpp(), #{ nfe: [3, 5], points: 6, fit: 50 }), pairs, #{ out: out(\"several-{nfe}.json\") }],
            squares: [bezier::family(net, solver::dpmpp(), #{ nfe: [3, 5], points: 6, fit: 50 }), pairs, #{ by: \"squares\", tolerance: 0.0 }],
            ggdm: [ggdm::family(net, #{ nfe: 3 }), ggdm::pairs(net, data), ggdm::published() + #{ batch: 8, valid_every: 1, loss: ggdm::kernel_distance(|x| x) }],
        };
        let told = |name, r| print(`${name} ${r.improved} ${r.iterations} ${hash_of(#{ p: r.params, h: r.history, l: r.loss })}`);
        let o = #{ epochs: 6, batch: 4 };
        ";
    let whole = prints(dir.path(), &format!("{head}for name in cases.keys() {{ let c = cases[name]; told.call(name, learn::train(net, c[0], c[1], o + c[2])); }}
        print([learn::load(out(\"several-3.json\")).nfe, learn::load(out(\"several-5.json\")).nfe]);"));
    assert!(whole.lines().count() == 5 && !whole.contains("false") && whole.ends_with("[3, 5]\n"), "{whole}");
    let stop = "checkpoint: out(`${name}.state`), callback: |s| { if s.iteration == 4 { throw \"stopped\"; } }";
    let stopped = prints(
        dir.path(),
        &format!(
            "{head}for name in cases.keys() {{ let c = cases[name]; try {{ learn::train(net, c[0], c[1], o + c[2] + #{{ {stop} }}); }} catch (e) {{ print(e.message); }} }}"
        ),
    );
    assert_eq!(stopped, "stopped\n".repeat(4));
    let resumed = prints(
        dir.path(),
        &format!(
            "{head}for name in cases.keys() {{ let c = cases[name];
                let asked = 0;
                let r = learn::train(net, c[0], c[1], o + c[2] + #{{ checkpoint: out(`${{name}}.state`), callback: |s| {{ asked += 1; }} }});
                if asked != r.iterations - 3 {{ throw `${{name}} did not go on where it was stopped`; }}
                told.call(name, r);
            }}"
        ),
    );
    assert_eq!(resumed, whole.lines().take(4).map(|l| format!("{l}\n")).collect::<String>());
    for (code, words) in [
        ("learn::save(learn::train(net, cases.amed[0], pairs, o), \"a.json\")", "a function cannot be saved"),
        ("learn::save(learn::train(net, cases.several[0], pairs, o), \"a.json\")", "put `{nfe}` into the path"),
        ("learn::train(net, cases.amed[0], pairs, o + #{ by: \"squares\" })", "the sampler is a function, not a plan"),
        ("learn::train(net, cases.ggdm[0], cases.ggdm[1], o + #{ whole: true })", "goes without soft forcing"),
        (
            "learn::train(net, cases.ggdm[0], cases.ggdm[1], o + #{ whole: true, soft: false })",
            "the loss must return a scalar",
        ),
        ("let f = cases.several[0]; f.nfe = [3, 4]; learn::train(net, f, pairs, o)", "takes 5 evaluations, not 4"),
        (
            "let f = cases.several[0]; f.nfe = [3]; learn::train(net, f, pairs, o)",
            "as many samplers as its nfe has numbers",
        ),
    ] {
        let text = err(&run(dir.path(), &format!("{head}{code}")));
        assert!(text.contains(words), "{code}\n  lacks `{words}`:\n{text}");
    }
}

/// A kernel distance falls to what chance leaves of it, and is unbiased; steps learned at one count are tried at another.
#[test]
fn samples_come_near_to_data_and_steps_are_handed_on() {
    let dir = tempfile::tempdir().unwrap();
    let text = prints(
        dir.path(),
        "import \"ggdm\" as ggdm; import \"ld3\" as ld3; import \"learn\" as learn;
        // by hand: a = 1, −1; b = 2, 0; kernel a·b + 1: 0 + 1 − 2·1
        let x = tensor([[1.0], [-1.0]]);
        print(ggdm::kernel_distance(|x| x, 1).call(x, x + 1.0).item());
        let means = tensor([[-1.0, 0.3], [1.0, 0.0], [0.2, 1.2]], #{ dtype: \"f64\" });
        let net = denoiser::mixture(#{ means: means, stds: 0.2 });
        let data = means.index(0, randint(0, 3, [512], #{ seed: 5 }).to_array()) + randn([512, 2], #{ seed: 6, dtype: \"f64\" }) * 0.2;
        let pairs = ggdm::pairs(net, data);
        let base = ggdm::family(net, #{ nfe: 4, variances: false, start: schedule::edm(net.noise, 4) });
        let ddim = solver::ddim().plan(schedule::edm(net.noise, 4)).predicting(\"data\", net.noise);
        print((base.make.call(base.params).matrix - ddim.matrix).abs().max().item());
        let f = ggdm::family(net, #{ nfe: 4, start: schedule::edm(net.noise, 4), lr: 0.01 });
        let run = learn::train(net, f, pairs, ggdm::published() + #{ epochs: 10, batch: 32, loss: ggdm::kernel_distance(|x| x * 2.0) });
        print([run.start_loss, run.loss]);

        let net = denoiser::mixture(#{ means: randn([6, 8], #{ seed: 2, dtype: \"f64\" }) * 0.6, stds: 0.4 });
        let pairs = ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 20), #{ train: 32, valid: 32 });
        let o = #{ by: \"squares\" };
        let five = ld3::train(net, solver::ipndm(), pairs, o + #{ nfe: 5 });
        let six = ld3::train(net, solver::ipndm(), pairs, o + #{ nfe: 6, starts: [five.schedule, schedule::edm(net.noise, 6)] });
        print(six.tried.keys());
        print(six.tried[\"given 0\"] < six.tried[\"edm\"] && six.tried[\"given 1\"] == six.tried[\"edm\"]);
        let same = ld3::train(net, solver::ipndm(), pairs, o + #{ nfe: 5, starts: [five.schedule] });
        print(abs(same.start_loss - five.loss) < 1e-9 * five.loss);",
    );
    println!("{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "-1.0");
    assert!(lines[1].parse::<f64>().unwrap() < 1e-14, "{text}");
    let kid: Vec<f64> = serde_json::from_str(lines[2]).unwrap();
    assert!(kid[0] > 1.0 && kid[1] < 0.2, "{text}");
    assert_eq!(lines[3..], [r#"["edm", "given 0", "given 1", "logsnr", "quadratic", "uniform"]"#, "true", "true"]);
}

/// The least squares of a result's row, which are linear, are met by one undamped step; of the rest, some steps find what many gradients do not.
#[test]
fn least_squares_finds_the_least_squares() {
    let dir = tempfile::tempdir().unwrap();
    let text = prints(
        dir.path(),
        "import \"free\" as free; import \"ld3\" as ld3; import \"learn\" as learn;
        let net = denoiser::mixture(#{ means: randn([6, 8], #{ seed: 2, dtype: \"f64\" }) * 0.6, stds: 0.4 });
        let pairs = ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 20), #{ train: 32, valid: 32 });
        pairs.train.z = pairs.train.z.to(\"f64\");
        let base = solver::ipndm().plan(schedule::edm(net.noise, 4)).predicting(\"data\", net.noise);
        let last = tensor([[0.0], [0.0], [0.0], [0.0], [1.0]], #{ dtype: \"f64\" });
        let make = |p| base.with_matrix(base.matrix + last * p.a.unsqueeze(0));
        let linear = #{ nfe: 4, params: #{ a: zeros([5], #{ dtype: \"f64\" }) }, make: make };
        let slope = |a| {
            let a = variable(a);
            let x = sample(net, make.call(#{ a: a }), pairs.train.z, #{ cond: \"none\" });
            grad(((x - pairs.train.target) ** 2).mean(), [a])[0].abs().max().item()
        };
        let counted = net.counted();
        let run = learn::train(counted, linear, pairs, #{ by: \"squares\", epochs: 1, damping: 1e-9 });
        print(slope.call(run.params.a) / slope.call(zeros([5], #{ dtype: \"f64\" })));
        // no evaluation but those of the training pairs before and after, and of four validations
        print(counted.work.evaluated == 4 * 32 * 6);

        let few = #{ nfe: 4, phase1: 1, phase2: 6 };
        let square = net.counted();
        let a = ld3::train(square, solver::ipndm(), pairs, few + #{ by: \"squares\" });
        let slow = net.counted();
        let b = ld3::train(slow, solver::ipndm(), pairs, few);
        let all = free::train(net, solver::ipndm(), pairs, #{ nfe: 4, start: a.schedule });
        print(a.loss / b.loss);
        print(1.0 * square.work.units / slow.work.units);
        print(all.loss / a.loss);",
    );
    println!("{text}");
    let lines: Vec<&str> = text.lines().collect();
    let number = |k: usize| lines[k].parse::<f64>().unwrap();
    assert!(number(0) < 1e-5 && lines[1] == "true", "{text}");
    assert!(number(2) < 1.1 && number(3) < 0.5 && number(4) < 0.7, "{text}");
}

#[test]
fn what_cannot_be_trained_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("learn::train(net, gs::family(net, #{ nfe: 3 }), pairs, #{ nfe: 4 })", "takes 3 evaluations, not 4"),
        (
            "let f = families.bns; f.nfe = 5; learn::train(net, f, pairs, #{ epochs: 1 })",
            "what bns makes takes 3 evaluations, not 5",
        ),
        (
            "let f = families.ld3; f.nfe = 5; learn::train(net, f, pairs, #{ epochs: 1 })",
            "what ld3 makes takes 3 evaluations, not 5",
        ),
        (
            "let other = denoiser::mixture(#{ means: [[-1.0, 0.0], [1.0, 0.0]], stds: 0.2 }); learn::train(other, families.gs, pairs)",
            "the pairs are of another network: their samples are [1], the network's [2]",
        ),
        (
            "pairs.train.target = pairs.train.target * (0.0 / 0.0); learn::train(net, families.gs, pairs)",
            "pairs.train.target is not finite",
        ),
        (
            "learn::train(net, #{ nfe: 1, params: #{ a: tensor([0.0 / 0.0]) }, make: |p| p }, pairs)",
            "parameter a does not start finite",
        ),
        (
            "learn::train(net, #{ nfe: 1, params: #{ a: ones([1]) }, make: |p| 3 }, pairs)",
            "must make a schedule, a plan or a function, not an integer",
        ),
        (
            "learn::train(net, #{ nfe: 3, params: #{ a: ones([4]) }, make: |p| tau(net.noise, p.a) }, pairs)",
            "makes schedules, but has no solver",
        ),
        ("learn::train(net, #{ params: #{}, make: |p| p }, pairs)", "nfe is missing"),
        (
            "learn::train(net, #{ nfe: 3, params: #{ a: ones([4]) }, groups: #{ x: #{ params: [\"b\"] } }, make: |p| p }, pairs)",
            "group x has a parameter b, the family has none",
        ),
        ("learn::train(net, families.gs, pairs, #{ epoch: 1 })", "did you mean `epochs`?"),
        ("learn::train(net, families.gs, pairs, #{ by: \"squares\", loss: \"l1\" })", "is for the loss \"l2\""),
        (
            "learn::train(net, families.gs, pairs, #{ by: \"squares\", soft: true })",
            "leaves the noises x'_T where they are",
        ),
        (
            "let s = solver::edm_stochastic(#{ s_churn: 5.0 }); let f = #{ nfe: 4, params: #{ a: ones([1]) }, make: |p| s.plan(schedule::edm(net.noise, 2)) }; learn::train(net, f, pairs, #{ by: \"squares\" })",
            "the plan draws noise",
        ),
        (
            "json::save(\"p.json\", #{ format: \"ld3sh.plan\", plan: families.bns.make.call(#{ a: families.bns.params.a.start, lambda: families.bns.params.lambda.start }).to_map(), hash: \"no\" }); learn::load(\"p.json\")",
            "was edited",
        ),
        ("plan::from_map(#{ states: 3 })", "a plan as data"),
        ("plan::from_steps([[1, 1], [0, 1]], [[0, 0], [0, 0]], [3.0, 2.0, 1.0])", "states[0, 1] is 1"),
        ("plan::from_steps([[1]], [[0]], [3.0, 2.0, 1.0])", "3 times need states [2, 2]"),
    ];
    let mut wrong = Vec::new();
    for (code, words) in cases {
        let text = err(&run(dir.path(), &format!("{FAMILIES}{code}")));
        if !text.contains("error: ") || !text.contains(words) {
            wrong.push(format!("{code}\n  lacks `{words}`:\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // another network of the same shape is a note: a student may learn from another teacher
    let notes = err(&run(
        dir.path(),
        &format!(
            "{FAMILIES}let other = denoiser::mixture(#{{ means: [[-1.5], [1.0]], stds: 0.2 }}); learn::train(other, families.bns, pairs, #{{ epochs: 1 }});"
        ),
    ));
    assert!(
        notes.contains("the pairs were made by another network than the student's") && !notes.contains("error"),
        "{notes}"
    );
}

/// A function calls its own module's function, whatever the caller's module calls so.
#[test]
fn modules_may_have_functions_of_one_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.rhai"), "fn family(x) { `a ${x}` }\nfn train(x) { family(x) }").unwrap();
    let b = "import \"a\" as a;\nfn family(x) { `b ${x}` }\nfn train(x) { [a::train(x), family(x), a::train(x)] }";
    std::fs::write(dir.path().join("b.rhai"), b).unwrap();
    let text = prints(dir.path(), "import \"b\" as b;\nfor i in 0..3 { print(b::train(i)); }");
    assert_eq!(text, (0..3).map(|i| format!("[\"a {i}\", \"b {i}\", \"a {i}\"]\n")).collect::<String>());
}

/// Closures have other names in every process, the cases of a `switch` and functions of one name another order; the keys of functions that
/// hold such, or call a module that does, are the same.
#[test]
fn keys_of_functions_are_the_same_in_every_process() {
    let dir = tempfile::tempdir().unwrap();
    let inner =
        "fn many(x) { let f = |y| y * x; let g = |y| y + x; let h = |y| y - x; [f.call(1), g.call(2), h.call(3)] }";
    let cases = "fn told(x) { switch x { 1 => \"a\", 2 => \"b\", 3 => \"c\", 4 => \"d\", _ => \"e\" } }";
    let twice = "fn twice(x) { twice(x, 1) }\nfn twice(x, y) { x + y }";
    std::fs::write(dir.path().join("inner.rhai"), format!("{inner}\n{cases}\n{twice}")).unwrap();
    let script = format!(
        "{FAMILIES}import \"inner\" as inner;
        let own = |x| {{ let f = |y| y * x; let g = |y| y + x; let h = |y| y - x; [f.call(1), g.call(2), h.call(3)] }};
        print([key_of(own), key_of(|x| inner::many(x))]);
        for name in families.keys() {{ print(`${{name}} ${{key_of(families[name])}}`); }}"
    );
    let first = prints(dir.path(), &script);
    assert!(first.lines().count() == 11 && !first.contains("()"), "{first}");
    for _ in 0..3 {
        assert_eq!(prints(dir.path(), &script), first);
    }
}
