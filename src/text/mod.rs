//! Text: tokens, and what encoders make of them for denoisers.
mod charsmap;
mod encoder;
mod load;
mod sentence;
mod spiece;
mod tokenizer;
mod vocabulary;

pub use encoder::{Ask, CONTEXT, Joined, MASK, POOLED, Reader, Sentences, TextEncoder};
pub use load::{Says, load, load_all};
pub use sentence::{found as sentence_file, open as sentence};
pub use tokenizer::{Cut, Tokenizer, Tokens};
pub use vocabulary::Vocabulary;
