//! How many random cases a property is tried on: the same ones in every run, so that a tree passes or fails as a whole; with
//! `LD3SH_CASES=50`, fifty times as many, other ones each time.
use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// The configuration of a property that is tried on `count` cases.
pub fn cases(count: u32) -> ProptestConfig {
    let more = std::env::var("LD3SH_CASES").ok().map(|v| v.parse::<u32>().expect("LD3SH_CASES is a whole number"));
    ProptestConfig {
        cases: count * more.unwrap_or(1),
        rng_seed: if more.is_some() { RngSeed::Random } else { RngSeed::Fixed(7) },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
