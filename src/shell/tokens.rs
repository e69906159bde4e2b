//! Words that mean something else where they stand: what Rhai's tokenizer is told.
use super::last;
use rhai::{Engine, Position, Token};
use std::cell::Cell;

thread_local! {
    /// Whether the token before was a dot.
    static AFTER_DOT: Cell<bool> = const { Cell::new(false) };
}

/// Lets an engine read `_` as a variable where [`last`] says so, and `export` behind a dot as a method's name.
pub fn register(engine: &mut Engine) {
    // deprecated only to say that the interface may change
    #[allow(deprecated)]
    engine.on_parse_token(|token, at: Position, _| {
        let after_dot = AFTER_DOT.replace(matches!(token, Token::Period | Token::Elvis));
        match token {
            Token::Underscore if last::is_value(at) => Token::Identifier(Box::new(last::NAME.into())),
            Token::Export if after_dot => Token::Identifier(Box::new("export".into())),
            token => token,
        }
    });
}
