//! The CUDA build on a pretend driver (`driver.cpp`), which runs kernels on the host: everything above the driver is real. It stops at
//! work that another stream has not finished with, fills new memory with NaN, fails what it is told to, and counts.
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// What the driver ends the process with when it finds a fault.
const BROKEN: i32 = 99;

/// The names under which the libraries are looked for.
const NAMES: [&str; 7] = [
    "libcuda.so",
    "libcublas.so",
    "libcurand.so",
    "libcudnn.so",
    "libcudnn_graph.so.9",
    "libcudnn_ops.so.9",
    "libcudnn_cnn.so.9",
];

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The folder with the libraries and the kernels, made once.
fn libraries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pretend");
        // anew each time, so that nothing of another build is left
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir_all(&to).unwrap();
        let compile = |source: &str, target: &str, flags: &[&str]| {
            let mut c = Command::new("c++");
            c.args([
                "-std=c++17",
                "-O3",
                "-march=native",
                "-Wall",
                "-Werror",
                "-Wno-unused-function",
                "-shared",
                "-fPIC",
            ])
            .args(flags);
            let done = c.arg("-x").arg("c++").arg(here(source)).arg("-o").arg(to.join(target)).output();
            let done = done.expect("this test needs a C++ compiler called c++, such as g++");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        compile("tests/cuda/pretend/driver.cpp", NAMES[0], &["-ldl"]);
        for name in &NAMES[1..] {
            std::os::unix::fs::symlink(NAMES[0], to.join(name)).unwrap();
        }
        for element in ["float", "half_t", "bfloat_t"] {
            let define = format!("-DELEMENT={element}");
            compile("src/nets/kernels/gpu/cu/kernels.cu", &format!("cuda_kernels_{element}.so"), &[&define]);
        }
        to
    })
}

/// A run of the binary, or of these tests, on the driver.
struct Run {
    dir: tempfile::TempDir,
    env: BTreeMap<&'static str, String>,
}

impl Run {
    fn new() -> Run {
        Run { dir: tempfile::tempdir().unwrap(), env: BTreeMap::new() }
    }
    fn with(mut self, name: &'static str, value: impl ToString) -> Run {
        self.env.insert(name, value.to_string());
        self
    }
    fn program(&self, program: &Path) -> Command {
        let mut c = Command::new(program);
        c.current_dir(self.dir.path()).env("LD_LIBRARY_PATH", libraries()).env("PRETEND_KERNELS", libraries());
        c.env("LD3SH_CACHE", self.dir.path().join("cache")).env("PRETEND_COUNTS", self.dir.path().join("counts.json"));
        c.envs(&self.env).stdin(std::process::Stdio::null());
        c
    }
    fn ld3sh(&self, args: &[&str]) -> Output {
        self.program(Path::new(env!("CARGO_BIN_EXE_ld3sh")))
            .args(["--device", "cuda", "--quiet"])
            .args(args)
            .output()
            .unwrap()
    }
    /// What a script prints; it must succeed.
    #[track_caller]
    fn prints(&self, code: &str) -> String {
        let o = self.ld3sh(&["-e", code]);
        assert!(o.status.success(), "{code}\n{}", told(&o));
        String::from_utf8(o.stdout).unwrap().trim().to_string()
    }
    /// Calls by name, of the last run.
    fn counts(&self) -> BTreeMap<String, u64> {
        let text = std::fs::read_to_string(self.dir.path().join("counts.json")).unwrap();
        let Value::Object(map) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        map.into_iter().map(|(k, v)| (k, v.as_u64().unwrap())).collect()
    }
}

fn told(o: &Output) -> String {
    format!("{:?}\n{}{}", o.status, String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr))
}

/// Asserts that a run ended with one report, which says all of this.
#[track_caller]
fn one_error(o: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&o.stderr);
    assert!(matches!(o.status.code(), Some(1 | 2)), "{}", told(o));
    assert_eq!(said.lines().filter(|l| l.starts_with("error:")).count(), 1, "{}", told(o));
    for word in words {
        assert!(said.contains(word), "`{word}` is not in\n{}", told(o));
    }
    assert!(!said.contains("panicked"), "{}", told(o));
}

#[test]
fn what_needs_a_gpu_passes() {
    let o = Run::new().program(&std::env::current_exe().unwrap()).args(["gpu::", "--ignored"]).output().unwrap();
    let said = String::from_utf8_lossy(&o.stdout).into_owned();
    assert!(o.status.success() && said.contains("test result: ok. ") && !said.contains(" 0 passed"), "{}", told(&o));
}

/// What takes seconds of it: the quickstart on the CPU, on the GPU, and again from the cache is in that.
#[test]
fn the_first_hour_makes_its_report() {
    let run = Run::new().with("FIRST_HOUR", "small").with("LD3SH", env!("CARGO_BIN_EXE_ld3sh"));
    let run = run.with("PRETEND_MEMORY", 2u64 << 30);
    let report = run.dir.path().join("first-hour.md");
    let o = run.program(&here("scripts/first_hour.sh")).arg(&report).output().unwrap();
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(o.status.success() && text.contains("\n0 steps failed\n"), "{}{text}", told(&o));
}

#[test]
fn every_example_runs() {
    for entry in std::fs::read_dir(here("examples")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let small = text.lines().find_map(|l| l.strip_prefix("// small: ")).unwrap_or_default();
        let o = Run::new()
            .ld3sh(&[&[path.to_str().unwrap()], small.split_whitespace().collect::<Vec<_>>().as_slice()].concat());
        assert!(o.status.success(), "{}\n{}", path.display(), told(&o));
    }
}

#[test]
fn cached_and_loaded_tensors_come_back_to_the_gpu() {
    let run = Run::new();
    let code = r#"import "cache" as cache;
        let a = cache::get("t", #{ a: 1 }, || randn([2, 2]));
        let b = cache::get("t", #{ a: 1 }, || throw "not cached");
        state::save("s.state", #{ x: a });
        save("x.npy", a);
        print([a, b, state::load("s.state").x, load("x.npy")].map(|t| t.device));
        print(((a - b).abs() + (a - load("x.npy")).abs()).sum().item());"#;
    assert_eq!(run.prints(code), "[\"cuda:0\", \"cuda:0\", \"cuda:0\", \"cuda:0\"]\n0.0");
}

#[test]
fn small_constants_meet_tensors_on_the_gpu() {
    let run = Run::new();
    let code = r#"let x = randn([3]); let c = tensor([1.0, 2.0, 3.0]).to("cpu");
        print((x + c).device); print((c * x).device);
        let v = variable(c); print(grad((x * v).sum(), v).device);
        try { zeros([100, 100]) + zeros([100, 100]).to("cpu") } catch (e) { print(e.kind) }"#;
    assert_eq!(run.prints(code), "cuda:0\ncuda:0\ncpu\ndevice");
}

/// No TF32 unless asked for, f32 sums of products in half precision: in networks and in what scripts convolve.
#[test]
fn precision_is_what_was_promised() {
    let code = r#"let net = denoiser::load("fashion28"); net.denoise(randn([1, 1, 28, 28]), 1.0);
        let x = randn([2, 3, 8, 8]); let w = variable(randn([4, 3, 3, 3]));
        let g = grad(conv2d(x, w).sqr().sum(), w);
        let h = conv2d(x.to("f16"), w.detach().to("f16"));
        let a = conv2d(x.to("cpu"), w.detach().to("cpu"));
        print((conv2d(x, w.detach()).to("cpu") - a).abs().max().item() < 1e-4);
        x.to("bf16").matmul(x.to("bf16"))"#;
    let run = Run::new();
    assert_eq!(run.prints(code).lines().next(), Some("true"));
    let counts = run.counts();
    for never in ["gemm_tf32", "gemm_reduced", "conv_not_fma"] {
        assert_eq!(counts.get(never), None, "{never}");
    }
    assert!(counts["conv"] > 0 && counts["gemm"] > 0);
    let o = run.ld3sh(&["--tf32", "-e", code]);
    assert!(o.status.success() && run.counts()["gemm_tf32"] > 0, "{}", told(&o));
}

/// The same values with cuDNN and without.
#[test]
fn cudnn_can_be_left_out() {
    let code = r#"let net = denoiser::load("fashion28"); print(net.denoise(ones([1, 1, 28, 28]), 1.0).sum().item())"#;
    let (with, without) = (Run::new(), Run::new().with("LD3SH_NO_CUDNN", 1));
    let values = [&with, &without].map(|run| run.prints(code).parse::<f64>().unwrap());
    assert!((values[0] - values[1]).abs() < 1e-3 * values[0].abs(), "{values:?}");
    assert!(with.counts()["conv"] > 0 && !without.counts().contains_key("conv"));
}

#[test]
fn a_state_saved_right_away_holds_what_was_computed() {
    // on more values than are handed over to another thread: the driver stops where that one does not wait
    let code = r#"let x = ones([1200, 1000]) * 3.0; state::save("s.state", #{ x: x });
        save("x.npy", x * 2.0); print(state::load("s.state").x.sum().item()); print(load("x.npy").sum().item())"#;
    assert_eq!(Run::new().prints(code), "3600000.0\n7200000.0");
}

#[test]
fn a_gpu_that_will_not_do_is_one_error() {
    for (name, value, words) in [
        ("PRETEND_DRIVER", "12080", ["driver is of CUDA 12.8", "13.0", "580 or newer"]),
        ("PRETEND_CAPABILITY", "75", ["7.5", "8.0", "Ampere"]),
        ("PRETEND_FAIL", "init", ["cannot use `cuda:0`", "", ""]),
        ("PRETEND_FAIL", "blas_create", ["cannot use `cuda:0`", "", ""]),
    ] {
        one_error(&Run::new().with(name, value).ld3sh(&["-e", "1 + 1"]), &words);
    }
    let o = Run::new()
        .program(Path::new(env!("CARGO_BIN_EXE_ld3sh")))
        .args(["--device", "cuda:3", "-e", "1"])
        .output()
        .unwrap();
    one_error(&o, &["`cuda:3`", "no such GPU", "there is one GPU, `cuda:0`"]);
}

#[test]
fn memory_that_runs_out_is_an_error_that_can_be_caught() {
    let run = Run::new().with("PRETEND_MEMORY", 1 << 20);
    one_error(&run.ld3sh(&["-e", "zeros([1000, 1000]) + 1"]), &["the GPU has no memory left", "smaller batches"]);
    let code = "try { zeros([1000, 1000]) + 1 } catch (e) { print(e.kind) } print((ones([10]) * 2).sum().item())";
    assert_eq!(run.prints(code), "memory\n20.0");
}

/// Whatever fails, there is one error with its place, and the session goes on.
#[test]
fn any_call_may_fail() {
    let code = r#"let net = denoiser::load("fashion28"); let x = randn([2, 1, 28, 28]);
        let y = net.denoise(x, 1.0); let v = variable(x); grad(net.denoise(v, 0.5).sqr().sum(), v).sum().item()"#;
    let run = Run::new();
    run.prints(code);
    let counts = run.counts();
    for what in ["alloc", "launch", "gemm", "conv", "copy", "load", "dnn_create", "dnn_choose"] {
        let n = counts.get(what).copied().unwrap_or_else(|| panic!("nothing was counted as {what}"));
        for at in [1, n / 3, n / 2, n].into_iter().filter(|at| *at > 0) {
            let o = Run::new().with("PRETEND_FAIL", format!("{what}:{at}")).ld3sh(&["-e", code]);
            assert!(o.status.code() != Some(BROKEN), "{what} {at}: {}", told(&o));
            one_error(&o, &[]);
            let caught = format!("try {{ {code} }} catch (e) {{ print(e.kind) }} print((ones([3]) + 1).sum().item())");
            let o = Run::new().with("PRETEND_FAIL", format!("{what}:{at}")).ld3sh(&["-e", &caught]);
            let said = String::from_utf8_lossy(&o.stdout).into_owned();
            assert!(o.status.success() && said.ends_with("6.0\n"), "{what} {at}: {}", told(&o));
        }
    }
}

/// After a fault cuDNN cannot be taken down: that is no reason to end with another.
#[test]
fn the_end_is_quiet() {
    let run = Run::new().with("PRETEND_DNN_STAYS", 1);
    run.prints(r#"denoiser::load("fashion28").denoise(randn([1, 1, 28, 28]), 1.0)"#);
}

/// What an evaluation, a pull-back and a training step ask of the driver: budgets that only a change for the better moves.
#[test]
fn calls_stay_within_their_budgets() {
    let net = r#"let net = denoiser::load("fashion28"); let x = randn([2, 1, 28, 28]); let v = variable(x);"#;
    let evaluation = "net.denoise(x, 1.0);";
    let gradient = "grad(net.denoise(v, 1.0).sum(), v);";
    let asked = |code: &str, times: usize| {
        let run = Run::new();
        run.prints(&format!("{net} {} ()", code.repeat(times)));
        let c = run.counts();
        let of = |names: &[&str]| names.iter().map(|n| c.get(*n).copied().unwrap_or(0)).sum::<u64>();
        [of(&["launch", "gemm", "conv", "memset"]), of(&["alloc"]), of(&["to_device"]), of(&["event"])]
    };
    for (what, code, budget) in
        BUDGETS.map(|(what, b)| (what, if what == "evaluation" { evaluation } else { gradient }, b))
    {
        let (two, three) = (asked(code, 2), asked(code, 3));
        let each: Vec<u64> = three.iter().zip(two).map(|(a, b)| a - b).collect();
        println!("{what}: launches, allocations, copies to the device, events: {each:?}");
        for (have, most) in each.iter().zip(budget) {
            assert!(*have <= most, "{what}: {each:?} is over {budget:?}");
        }
    }
}

/// Launches (with products, convolutions and memsets), allocations, copies to the device, events: of one evaluation of the built-in
/// network, and of one with its gradient in the state.
const BUDGETS: [(&str, [u64; 4]); 2] = [("evaluation", [300, 225, 2, 0]), ("gradient", [980, 915, 10, 0])];
