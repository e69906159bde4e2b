//! Text: tokens, and what encoders make of them for denoisers.
mod tokenizer;
mod vocabulary;

pub use tokenizer::{Cut, Tokenizer, Tokens};
pub use vocabulary::Vocabulary;
