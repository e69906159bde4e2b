//! How wide text may be.
use std::cell::Cell;

/// The width where nothing tells it.
const WIDTH: usize = 80;

thread_local! {
    static COLUMNS: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Tells this thread the terminal's width; `None` if the output is no terminal.
pub fn set_width(columns: Option<usize>) {
    COLUMNS.set(columns);
}

/// The terminal's width in columns, if there is a terminal and it was told.
pub fn terminal() -> Option<usize> {
    COLUMNS.get()
}

/// The terminal's width in columns: as told, or as `COLUMNS` says, or 80. At least 20.
pub fn width() -> usize {
    let said = || std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    COLUMNS.get().or_else(said).unwrap_or(WIDTH).max(20)
}
