//! Pickles and PyTorch files: what PyTorch and numpy wrote is read exactly; what is damaged or hostile is an error.
mod convert;
mod edm;
mod generated;
mod hostile;

use ld3sh::Result;
use ld3sh::files::checkpoint::{self, Checkpoint};
use ld3sh::files::pickle::Shared;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn open(name: &str) -> Checkpoint {
    checkpoint::open(fixture(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Checkpoint> {
    checkpoint::from_bytes(&Shared::new(bytes.into()), false)
}

/// Both have the same tensors, to the bit.
#[track_caller]
fn same_tensors<'a>(
    a: impl IntoIterator<Item = (&'a String, &'a ld3sh::files::torch::View)>,
    b: &Checkpoint,
    what: &str,
) {
    let a: std::collections::BTreeMap<_, _> = a.into_iter().collect();
    let (names, expected): (Vec<_>, Vec<_>) = (a.keys().copied().collect(), b.tensors().keys().collect());
    assert_eq!(names, expected, "{what}");
    for (name, view) in a {
        let other = &b.tensors()[name];
        assert_eq!((view.dtype(), view.shape()), (other.dtype(), other.shape()), "{what}: {name}");
        assert!(*view.bytes().unwrap() == *other.bytes().unwrap(), "{what}: the values of {name} differ");
    }
}
