//! Networks and their layers, against reference values.
mod adm;
#[path = "../common/cases.rs"]
mod cases;
mod clip;
#[path = "../common/code.rs"]
mod code;
mod diffusers;
mod docking;
mod edm;
mod edm2;
mod garments;
mod graphs;
mod half;
mod helpers;
mod latent;
mod layers;
mod nets;
mod onnx;
mod points;
mod poses;
#[path = "../common/process.rs"]
mod process;
mod t5;
mod tokenizer;
mod toy;
mod traced;
mod transformers;
