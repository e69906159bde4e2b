//! Reference numbers in JSON.
#![allow(dead_code)]
use candle_core::{Device, Tensor};
use serde_json::Value;

/// A file below tests/fixtures.
pub fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
/// All numbers, in order.
pub fn numbers(v: &Value) -> Vec<f64> {
    match v {
        Value::Array(a) => a.iter().flat_map(numbers).collect(),
        x => vec![x.as_f64().unwrap()],
    }
}
fn shape(v: &Value) -> Vec<usize> {
    match v {
        Value::Array(a) => std::iter::once(a.len()).chain(shape(&a[0])).collect(),
        _ => vec![],
    }
}
/// The tensor that nested lists are, in f64.
pub fn tensor(v: &Value) -> Tensor {
    Tensor::from_vec(numbers(v), shape(v), &Device::Cpu).unwrap()
}
