//! A part of a file that many values refer to.
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Bytes that stay where they are: a clone or a part of them is another reference.
#[derive(Clone)]
pub struct Shared {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Shared {
    /// All bytes of `owner`, whose `as_ref` must give the same bytes each time.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Shared {
        let range = 0..owner.as_ref().len();
        Shared { owner: Arc::new(owner), range }
    }
    /// The part from `start` on, `len` bytes; `None` where that reaches beyond the end.
    pub fn part(&self, start: usize, len: usize) -> Option<Shared> {
        let begin = self.range.start.checked_add(start)?;
        let end = begin.checked_add(len)?;
        (end <= self.range.end).then(|| Shared { owner: self.owner.clone(), range: begin..end })
    }
    /// Where these bytes begin in the whole that they are a part of.
    pub fn start(&self) -> usize {
        self.range.start
    }
}

impl Deref for Shared {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at {}", self.range.len(), self.range.start)
    }
}
