//! A machine to protect, and all that scripts can read and write by.
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A home, a working folder in it, a cache, and another user's place beside them.
pub struct World {
    pub dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["home/.ssh", "home/.config/ld3sh", "work/sub", "cache", "elsewhere"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let world = World { dir };
        world.put("home/.ssh/id", "a secret key\n");
        world.put("elsewhere/victim.json", "{\"kept\": true}");
        world.put("work/mine.json", "{\"old\": true}\n");
        world
    }
    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }
    pub fn put(&self, path: &str, text: &str) {
        std::fs::write(self.at(path), text).unwrap();
    }
    pub fn run(&self, args: &[&str]) -> Output {
        let mut c = Command::new(env!("CARGO_BIN_EXE_ld3sh"));
        c.current_dir(self.at("work")).args(["--threads", "1", "--quiet"]).args(args).stdin(Stdio::null());
        c.env_remove("LD3SH_PATH").env("LD3SH_CACHE", self.at("cache")).env("HOME", self.at("home"));
        c.env("XDG_CONFIG_HOME", self.at("home/.config")).env_remove("XDG_STATE_HOME").env_remove("LD3SH_MIRROR");
        c.output().unwrap()
    }
    /// Runs `code` as a script; returns the exit code and both outputs.
    pub fn script(&self, code: &str, args: &[&str]) -> (Option<i32>, String) {
        self.put("work/s.rhai", code);
        let o = self.run(&[&["s.rhai"], args].concat());
        (o.status.code(), format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr)))
    }
    /// All files but those of the work and the cache, with what is in them.
    pub fn outside(&self) -> Vec<(PathBuf, String)> {
        let mut all = vec![];
        let mut folders = vec![self.at("home"), self.at("elsewhere")];
        while let Some(f) = folders.pop() {
            for e in std::fs::read_dir(f).unwrap() {
                let path = e.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => all.push((path.clone(), std::fs::read_to_string(&path).unwrap_or_default())),
                }
            }
        }
        all.sort();
        all
    }
}

/// Code that writes to `PATH`, by every function that does; before the space stands the name in the catalogue.
pub const WRITERS: &[(&str, &str)] = &[
    ("save", "save(\"PATH.npy\", ones([1]))"),
    ("save npz", "save(\"PATH.npz\", #{ x: ones([1]) })"),
    ("save safetensors", "save(\"PATH.safetensors\", #{ x: ones([1]) })"),
    ("save tree", "save(\"PATH.safetensors\", [ones([1])])"),
    ("save metadata", "save(\"PATH.safetensors\", #{ x: ones([1]) }, #{ a: \"b\" })"),
    (
        "train::save",
        "import \"train\" as train; train::save(#{ params: #{ x: ones([1]) }, meaning: #{} }, \"PATH.safetensors\")",
    ),
    ("json::save", "json::save(\"PATH.json\", 1)"),
    ("csv::save", "csv::save(\"PATH\", [[1]])"),
    ("csv::save header", "csv::save(\"PATH\", [[1]], #{ header: [\"a\"] })"),
    ("state::save", "state::save(\"PATH\", #{ a: 1 })"),
    ("Table.save", "table([[1]]).save(\"PATH\")"),
    ("cloud::save ply", "cloud::save(\"PATH.ply\", ones([2, 3]))"),
    ("cloud::save xyz", "cloud::save(\"PATH.xyz\", ones([2, 3]))"),
    ("Image.save", "image::grid(zeros([1, 3, 4, 4])).save(\"PATH.png\")"),
    ("Image.save jpeg", "image::grid(zeros([1, 3, 4, 4])).save(\"PATH.jpg\", #{ quality: 50 })"),
    ("image::animation", "image::animation(zeros([2, 3, 4, 4]), \"PATH.gif\")"),
    ("Plot.save svg", "plot::schedules([schedule::edm(noise::edm(), 3)]).save(\"PATH.svg\")"),
    ("Plot.save png", "plot::schedules([schedule::edm(noise::edm(), 3)]).save(\"PATH.png\")"),
    ("Schedule.save", "schedule::edm(noise::edm(), 3).save(\"PATH.json\")"),
    (
        "generate",
        "generate(denoiser::gaussian(#{ mean: [[[0.0]]], std: 1.0 }), solver::euler(), schedule::edm(noise::edm(), 1), 1, #{ out: \"PATHd\" })",
    ),
    (
        "generate npz",
        "generate(denoiser::gaussian(#{ mean: [[[0.0]]], std: 1.0 }), solver::euler(), schedule::edm(noise::edm(), 1), 1, #{ out: \"PATHn.npz\" })",
    ),
    ("save_schedule", "save_schedule(\"PATH.json\", schedule::edm(noise::edm(), 3))"),
    (
        "learn::save",
        "import \"learn\" as learn; learn::save(#{ made: schedule::edm(noise::edm(), 3), record: #{} }, \"PATH.json\")",
    ),
    (
        "learn::save plan",
        "import \"learn\" as learn; learn::save(#{ made: solver::ddim().plan(schedule::edm(noise::edm(), 3)), record: #{} }, \"PATHp.json\")",
    ),
    ("Statistics.save", "metric::stats(ones([3, 2])).save(\"PATH.npz\")"),
    ("state::remove", "state::remove(\"PATHs\", #{ owner: \"me\" })"),
    ("remove_file", "remove_file(\"PATH\")"),
];

/// Code that reads `PATH`, likewise.
pub const READERS: &[(&str, &str)] = &[
    ("load npy", "load(\"PATH.npy\")"),
    ("load npz", "load(\"PATH.npz\")"),
    ("load safetensors", "load(\"PATH.safetensors\")"),
    ("json::load", "json::load(\"PATH\")"),
    ("state::load", "state::load(\"PATH\")"),
    ("checkpoint::open", "checkpoint::open(\"PATH\")"),
    ("denoiser::load", "denoiser::load(\"PATH\")"),
    ("denoiser::onnx", "denoiser::onnx(\"PATH\", #{ noise: noise::edm(), predicts: \"noise\" })"),
    ("graph::onnx", "graph::onnx(\"PATH\")"),
    ("model::load", "model::load(\"PATH\")"),
    ("train::load", "import \"train\" as train; train::load(|p, x, t, c| x, \"PATH\")"),
    ("learn::resumed", "import \"learn\" as learn; learn::resumed(\"PATH\", \"mine\", \"1\")"),
    ("learn::load", "import \"learn\" as learn; learn::load(\"PATH\")"),
    ("discriminator::from_file", "import \"discriminator\" as discriminator; discriminator::from_file(\"PATH\", #{})"),
    ("dyweight::from_file", "import \"dyweight\" as dyweight; dyweight::from_file(noise::edm(), \"PATH\", #{})"),
    ("gs::from_file", "import \"gs\" as gs; gs::from_file(noise::edm(), \"PATH\", #{})"),
    ("text::load", "text::load(\"PATH\")"),
    ("text::load tokenizer", "text::load(\"x\", #{ tokenizer: \"PATH\" })"),
    ("csv::load", "csv::load(\"PATH\")"),
    ("read_text", "read_text(\"PATH\")"),
    ("glob", "glob(\"PATH\")"),
    ("glob pattern", "glob(\"PATH*\")"),
    ("data::open", "data::open(\"PATH\")"),
    ("cloud::load ply", "cloud::load(\"PATH.ply\")"),
    ("cloud::load xyz", "cloud::load(\"PATH.xyz\")"),
    ("image::load", "image::load(\"PATH\")"),
    ("schedule::load", "schedule::load(\"PATH\")"),
    ("schedule::info", "schedule::info(\"PATH\")"),
    ("load_schedule", "load_schedule(\"PATH\")"),
    ("schedule_info", "schedule_info(\"PATH\")"),
    ("file_exists", "file_exists(\"PATH\")"),
    ("sha256", "sha256(\"PATH\")"),
    ("metric::load_stats", "metric::load_stats(\"PATH.npz\")"),
    ("metric::network", "metric::network(\"inception\", #{ file: \"PATH\" })"),
    ("FeatureNetwork.stats_of", "metric::network(\"fashion28\").stats_of(\"PATH\")"),
    ("loss::lpips trunk", "loss::lpips(\"squeeze\", #{ trunk: \"PATH\" })"),
    ("loss::lpips heads", "loss::lpips(\"squeeze\", #{ heads: \"PATH\" })"),
    ("loss::dists trunk", "loss::dists(#{ trunk: \"PATH\" })"),
    ("loss::dists weights", "loss::dists(#{ weights: \"PATH\" })"),
    ("metric::network dinov2", "metric::network(\"dinov2\", #{ file: \"PATH\" })"),
    ("loss::features trunk", "loss::features(\"squeeze\", #{ trunk: \"PATH\" })"),
];

/// What takes a path, or an option that is one, and is no function of the tables: it goes through those, or opens nothing.
pub const OTHERS: &[&str] = &[
    "out",
    "cache_path",
    "ld3::train",
    "learn::train",
    "train::denoiser",
    // words that are no paths: what starts the last map, and beginnings of names of parameters
    "nn::attention_params",
    "optim::muon",
    "free::train",
    "experiment::run",
    "experiment::learned",
    "experiment::prepare",
    "experiment::prompted",
    "Checkpoint.value",
    "Dataset.path",
    // as if images had been in files
    "FeatureNetwork.features",
    "FeatureNetwork.logits",
    "measure::frechet",
    "cache::cells",
    // paths of another kind: over a grid
    "search::path",
    "oss::search",
];

/// A script that tries `call` and prints the error's kind, or `done`.
pub fn trying(call: &str) -> String {
    format!(
        "try {{ {call}; print(\"done\"); }} catch (e) {{ print(`${{e.kind}}: ${{e.message}} ${{e.hint ?? \"\"}}`); }}\n"
    )
}
