//! Text: tokens, and what encoders make of them for denoisers.
mod encoder;
mod load;
mod tokenizer;
mod vocabulary;

pub use encoder::{Ask, CONTEXT, POOLED, Reader, TextEncoder};
pub use load::{Says, load};
pub use tokenizer::{Cut, Tokenizer, Tokens};
pub use vocabulary::Vocabulary;
