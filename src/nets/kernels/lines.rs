//! Walks over arrays of several dimensions in lines: how an array lies in memory, dimensions merged where all arrays allow it.

/// How many elements lie between neighbours along each dimension of a contiguous array.
pub(super) fn strides(dims: &[usize]) -> Vec<isize> {
    let mut all = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        all[i - 1] = all[i] * dims[i].max(1) as isize;
    }
    all
}

/// The strides of an array of shape `dims` that is broadcast to `to`: 0 where it is repeated.
pub(super) fn broadcast_strides(dims: &[usize], to: &[usize]) -> Vec<isize> {
    let (new, own) = (to.len() - dims.len(), strides(dims));
    let one = |i: usize| if i < new || (dims[i - new] == 1 && to[i] != 1) { 0 } else { own[i - new] };
    (0..to.len()).map(one).collect()
}

/// The shape to which two broadcast, if they do.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |d: &[usize], i: usize| if i + d.len() < rank { 1 } else { d[i + d.len() - rank] };
    let meet = |i: usize| match (size(a, i), size(b, i)) {
        (x, y) if x == y || y == 1 => Some(x),
        (1, y) => Some(y),
        _ => None,
    };
    (0..rank).map(meet).collect()
}

/// Several arrays seen as one shape, each with its strides, with as few dimensions as possible.
pub(super) struct Lines<const K: usize> {
    pub dims: Vec<usize>,
    pub strides: [Vec<isize>; K],
}

impl<const K: usize> Lines<K> {
    /// Of this shape, with these strides.
    pub fn new(dims: &[usize], strides: [Vec<isize>; K]) -> Self {
        let mut merged = Lines { dims: vec![], strides: [const { Vec::new() }; K] };
        for (i, n) in dims.iter().enumerate() {
            if *n == 1 {
                continue;
            }
            let follows = |k: usize| merged.strides[k].last().is_some_and(|s| *s == strides[k][i] * *n as isize);
            if (0..K).all(follows) {
                let at = merged.dims.len() - 1;
                merged.dims[at] *= n;
                (0..K).for_each(|k| merged.strides[k][at] = strides[k][i]);
            } else {
                merged.dims.push(*n);
                (0..K).for_each(|k| merged.strides[k].push(strides[k][i]));
            }
        }
        if merged.dims.is_empty() {
            merged.dims.push(1);
            (0..K).for_each(|k| merged.strides[k].push(0));
        }
        merged
    }

    /// Calls `f` with where each line begins in each array, for all indices of all dimensions but the last `inner`.
    #[inline(always)]
    pub fn each(&self, inner: usize, start: [isize; K], mut f: impl FnMut([usize; K])) {
        if self.dims.contains(&0) {
            return;
        }
        let outer = self.dims.len().saturating_sub(inner);
        let mut index = vec![0usize; outer];
        let mut at = start;
        loop {
            f(at.map(|a| a as usize));
            let mut d = outer;
            loop {
                let Some(back) = d.checked_sub(1) else { return };
                d = back;
                index[d] += 1;
                for (a, s) in at.iter_mut().zip(&self.strides) {
                    *a += s[d];
                }
                if index[d] < self.dims[d] {
                    break;
                }
                for (a, s) in at.iter_mut().zip(&self.strides) {
                    *a -= s[d] * self.dims[d] as isize;
                }
                index[d] = 0;
            }
        }
    }

    /// The length of a line.
    pub fn len(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// The strides along a line.
    pub fn along(&self) -> [isize; K] {
        std::array::from_fn(|k| self.strides[k].last().copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_long_as_they_can_be() {
        let dims = [2, 3, 4];
        let same = Lines::new(&dims, [strides(&dims), strides(&dims)]);
        assert_eq!((same.dims, same.strides), (vec![24], [vec![1], vec![1]]));
        let row = Lines::new(&dims, [strides(&dims), broadcast_strides(&[3, 4], &dims)]);
        assert_eq!((&row.dims[..], row.along()), (&[2, 12][..], [1, 1]));
        let mut starts = vec![];
        row.each(1, [0, 0], |at| starts.push(at));
        assert_eq!(starts, [[0, 0], [12, 0]]);
        assert_eq!(broadcast(&[2, 1, 4], &[3, 1]), Some(vec![2, 3, 4]));
        assert_eq!(broadcast(&[2], &[3]), None);
    }
}
