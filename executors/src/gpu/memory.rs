//! Memory planned once per prepared segment: every tensor gets an offset in one arena by its lifetime.
//! It refuses to allocate anything: devices do, once, in `spawn`.

/// Offsets are multiples of this many floats (64 bytes): the alignment of the widest vector.
pub const ALIGN: usize = 16;

/// A tensor to place: its size in floats and the first and last step that touch it.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// Size in floats.
    pub floats: usize,
    /// First step that touches it.
    pub first: usize,
    /// Last step that touches it.
    pub last: usize,
}

/// First-fit, the largest tensors first. Returns one offset per tensor and the size of the arena, in floats.
pub fn place(tensors: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&t| (std::cmp::Reverse(tensors[t].floats), t));
    let mut offsets = vec![0; tensors.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut total = ALIGN;
    for t in order {
        let own = tensors[t];
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&p| tensors[p].first <= own.last && own.first <= tensors[p].last)
            .map(|&p| (offsets[p], offsets[p] + padded(tensors[p].floats)))
            .collect();
        taken.sort_unstable();
        let mut at = 0;
        for (start, end) in taken {
            if start >= at + padded(own.floats) {
                break;
            }
            at = at.max(end);
        }
        offsets[t] = at;
        total = total.max(at + padded(own.floats));
        placed.push(t);
    }
    (offsets, total)
}

/// `floats` rounded up to the alignment, at least one unit.
pub fn padded(floats: usize) -> usize {
    floats.max(1).div_ceil(ALIGN) * ALIGN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlap(tensors: &[Lifetime], offsets: &[usize]) -> bool {
        (0..tensors.len()).any(|a| {
            (0..a).any(|b| {
                let (x, y) = (tensors[a], tensors[b]);
                let time = x.first <= y.last && y.first <= x.last;
                time && offsets[a] < offsets[b] + y.floats && offsets[b] < offsets[a] + x.floats
            })
        })
    }

    #[test]
    fn no_two_live_tensors_overlap_and_dead_ones_are_reused() {
        let mut state = 7u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % n) as usize
        };
        for case in 0..200 {
            let tensors: Vec<Lifetime> = (0..30)
                .map(|step| {
                    let first = step;
                    Lifetime { floats: 1 + next(1000), first, last: first + 1 + next(5) }
                })
                .collect();
            let (offsets, total) = place(&tensors);
            assert!(!overlap(&tensors, &offsets), "case {case}");
            assert!(
                total < tensors.iter().map(|t| padded(t.floats)).sum(),
                "case {case}: nothing was reused"
            );
            // The saboteur: everything at offset 0 must be seen as an overlap.
            assert!(overlap(&tensors, &vec![0; tensors.len()]));
        }
    }
}
