//! Words that mean something else where they stand: what Rhai's tokenizer is told.
use rhai::{Engine, Position, Token};
use std::cell::Cell;

thread_local! {
    /// Whether the token before was a dot.
    static AFTER_DOT: Cell<bool> = const { Cell::new(false) };
}

/// Lets an engine read `export` behind a dot as a method's name, and `_` as the variable that `value` names for its place, if it does.
pub fn register(engine: &mut Engine, value: impl Fn(Position) -> Option<&'static str> + 'static) {
    // deprecated only to say that the interface may change
    #[allow(deprecated)]
    engine.on_parse_token(move |token, at: Position, _| {
        let after_dot = AFTER_DOT.replace(matches!(token, Token::Period | Token::Elvis));
        match token {
            Token::Underscore => match value(at) {
                Some(name) => Token::Identifier(Box::new(name.into())),
                None => Token::Underscore,
            },
            Token::Export if after_dot => Token::Identifier(Box::new("export".into())),
            token => token,
        }
    });
}
