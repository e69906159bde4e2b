//! Networks and their layers, against reference values.
mod clip;
#[path = "../common/code.rs"]
mod code;
mod diffusers;
mod edm;
mod garments;
mod graphs;
mod half;
mod helpers;
mod latent;
mod nets;
mod points;
#[path = "../common/process.rs"]
mod process;
mod tokenizer;
mod toy;
mod traced;
mod transformers;
