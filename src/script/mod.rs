//! The Rhai engine: one binding file per area, errors, options, closures, parameters, modules.
pub mod bulk;
pub mod caught;
pub mod closures;
pub mod context;
pub mod data;
pub mod denoise;
pub mod discretize;
pub mod engine;
pub mod error;
pub mod export;
pub mod files;
pub mod front;
pub mod host;
pub mod identity;
pub mod loss;
pub mod maps;
pub mod method;
pub mod metric;
pub mod model;
pub mod modules;
pub mod noise;
pub mod numbers;
pub mod optim;
pub mod options;
pub mod panics;
pub mod params;
pub mod plan;
pub mod profile;
pub mod record;
pub mod schema;
pub mod search;
pub mod sizes;
pub mod tensor;
pub mod text;
pub mod tokens;
pub mod trace;
pub mod tree;
mod waiting;
mod world;
pub mod zoo;

/// The options of all functions of the areas.
pub fn schemas() -> impl Iterator<Item = crate::schema::Schema> {
    let areas: &[&[&[crate::schema::Schema]]] = &[
        denoise::SCHEMAS,
        discretize::SCHEMAS,
        files::SCHEMAS,
        loss::SCHEMAS,
        metric::SCHEMAS,
        plan::SCHEMAS,
        tensor::SCHEMAS,
        &[bulk::SCHEMAS, data::SCHEMAS, export::SCHEMAS, model::SCHEMAS, noise::SCHEMAS],
        &[optim::SCHEMAS, search::SCHEMAS, text::SCHEMAS, trace::SCHEMAS],
    ];
    areas.iter().copied().flatten().copied().flatten().copied()
}
