//! Features of targets that were seen before, by the content of the image: LD3 compares with the same teacher samples in every
//! epoch, but cuts them out of their set anew each time, so that a tensor's identity would say nothing.
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// The most that is kept (256 MiB: the VGG16 features of 134 images of 64×64).
const LIMIT: usize = 256 << 20;

/// What an image is known by.
pub(super) type Key = [u8; 32];

/// The key of one image of these values and this shape.
pub(super) fn key<T: Copy, const N: usize>(image: &[T], dims: &[usize], bytes: impl Fn(T) -> [u8; N]) -> Key {
    let mut h = Sha256::new();
    h.update(format!("{dims:?}\n"));
    h.update(image.iter().flat_map(|v| bytes(*v)).collect::<Vec<u8>>());
    h.finalize().into()
}

/// A bounded store: what was not asked for the longest goes first.
pub(super) struct Kept<T> {
    entries: HashMap<Key, Entry<T>>,
    bytes: usize,
    clock: u64,
}

struct Entry<T> {
    value: T,
    bytes: usize,
    used: u64,
}

impl<T: Clone> Kept<T> {
    pub(super) fn new() -> Self {
        Kept { entries: HashMap::new(), bytes: 0, clock: 0 }
    }
    pub(super) fn get(&mut self, key: &Key) -> Option<T> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(entry.value.clone())
    }
    pub(super) fn put(&mut self, key: Key, value: T, bytes: usize) {
        if bytes > LIMIT || self.entries.contains_key(&key) {
            return;
        }
        while self.bytes + bytes > LIMIT {
            let Some(oldest) = self.entries.iter().min_by_key(|(_, e)| e.used).map(|(k, _)| *k) else { return };
            if let Some(e) = self.entries.remove(&oldest) {
                self.bytes -= e.bytes;
            }
        }
        self.clock += 1;
        self.bytes += bytes;
        self.entries.insert(key, Entry { value, bytes, used: self.clock });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_makes_room() {
        let mut kept = Kept::new();
        let k = |i: u32| key(&[i], &[1], u32::to_le_bytes);
        for i in 0..4 {
            kept.put(k(i), i, LIMIT / 4);
        }
        assert_eq!(kept.get(&k(0)), Some(0));
        kept.put(k(9), 9, LIMIT / 4);
        assert_eq!([0, 1, 2, 9].map(|i| kept.get(&k(i))), [Some(0), None, Some(2), Some(9)]);
        kept.put(k(5), 5, LIMIT + 1);
        assert_eq!((kept.get(&k(5)), kept.bytes), (None, LIMIT));
        assert_ne!(key(&[1u32, 2], &[2], u32::to_le_bytes), key(&[1u32, 2], &[1, 2], u32::to_le_bytes));
    }
}
