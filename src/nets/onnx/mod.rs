//! Networks that other frameworks exported (ONNX) as graphs: read with all their bounds checked, shapes followed, constants computed, run by
//! the frozen kernels.
mod data;
mod import;
mod lower;
mod num;
mod ops;
mod proto;
mod read;
mod values;

pub use import::{Asked, Condition, Imported, function, network};
pub use ops::names;
pub use read::OPSETS;

use std::path::Path;

/// Whether a file is called as ONNX's are.
pub fn is_called(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
}
