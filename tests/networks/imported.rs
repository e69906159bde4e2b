//! ONNX files against onnxruntime (`tests/fixtures/onnx/make.py`): values, gradients against differences, identity, errors.
use super::traced::{numbers, value};

/// Values of a file's network beside onnxruntime's, and its gradients with respect to x and σ against differences.
const COMPARE: &str = r#"
    fn apart(a, b) { (a - b).abs().max().item() / b.abs().max().item() }
    fn check(name) {
        let net = denoiser::onnx(`tests/fixtures/onnx/${name}.onnx`, #{ noise: noise::edm(), predicts: "data" });
        let want = load(`tests/fixtures/onnx/${name}.safetensors`);
        let values = apart(net.denoise(want.x, want.t), want.y);
        let f = |x, t| (net.denoise(x, t) * want.y).sum();
        let x = variable(want.x);
        let t = variable(want.t);
        let g = grad(f.call(x, t), [x, t]);
        let d = randn(want.x.shape, #{ seed: 1 });
        let h = 0.003;
        let along = (f.call(want.x + h * d, want.t) - f.call(want.x - h * d, want.t)).item() / (2.0 * h);
        let in_t = (f.call(want.x, want.t + h) - f.call(want.x, want.t - h)).item() / (2.0 * h);
        let near = |a, b| (a - b).abs() / (b.abs() + 0.01 * want.y.square().sum().item());
        [values, near.call((g[0] * d).sum().item(), along), near.call(g[1].sum().item(), in_t)]
    }
"#;

#[test]
fn files_agree_with_onnxruntime_and_have_gradients() {
    for name in ["half", "mixer", "dit", "unet"] {
        let apart = numbers(&value(&format!("{COMPARE}check(\"{name}\")")));
        assert!(apart[0] < 2e-5 && apart[1] < 1e-2 && apart[2] < 1e-2, "{name}: {apart:?}");
    }
}

#[test]
fn a_file_is_a_denoiser_like_others() {
    let code = "let net = denoiser::onnx(\"tests/fixtures/onnx/mixer.onnx\", #{ noise: noise::edm(), predicts: \"edm\", time: \"sigma\", inputs: #{ x: \"x\", time: \"t\" } });
        let y = sample(net, solver::unipc(), schedule::edm(net.noise, 5), 3, #{ seed: 1 });
        [net.shape, net.hash.len(), y.shape, y.isfinite().all()]";
    assert_eq!(value(code), "[[1, 8, 8], 64, [3, 1, 8, 8], true]");
}

#[test]
fn what_cannot_be_imported_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    };
    let load = |path: &str, more: &str| {
        value(&format!("denoiser::onnx(\"{path}\", #{{ noise: noise::edm(), predicts: \"data\"{more} }})"))
    };
    let bytes = std::fs::read("tests/fixtures/onnx/half.onnx").unwrap();
    // an operation of another name of the same length
    let at = bytes.windows(7).position(|w| w == b"Sigmoid").unwrap();
    let mut other = bytes.clone();
    other[at..at + 7].copy_from_slice(b"Signoid");
    let told = load(&made("other.onnx", &other), "");
    assert!(told.contains("`Signoid` (node ``)") && told.contains("not known"), "{told}");
    // the weights' file is missing, then too short, then said to be elsewhere
    let told = load(&made("alone.onnx", &bytes), "");
    assert!(told.contains("half.bin"), "{told}");
    made("half.bin", &[0; 10]);
    let told = load(&made("alone.onnx", &bytes), "");
    assert!(told.contains("`w`") && told.contains("values"), "{told}");
    let at = bytes.windows(8).position(|w| w == b"half.bin").unwrap();
    let mut outside = bytes.clone();
    outside[at..at + 8].copy_from_slice(b"../a.bin");
    let told = load(&made("outside.onnx", &outside), "");
    assert!(told.contains("no file beside it"), "{told}");
    for junk in [&b"not a model at all"[..], &bytes[..bytes.len() / 2], b""] {
        let told = load(&made("junk.onnx", junk), "");
        assert!(told.contains("not an ONNX file"), "{told}");
    }
    let file = "tests/fixtures/onnx/mixer.onnx";
    let told = load(file, ", inputs: #{ x: \"X\" }");
    assert!(told.contains("input of the file") && told.contains("`X`"), "{told}");
    let told = load(file, ", output: \"z\"");
    assert!(told.contains("output of the file"), "{told}");
    let told = load(file, ", shape: [1, 9, 9]");
    assert!(told.starts_with("error:"), "{told}");
}
