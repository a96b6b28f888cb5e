//! Constant factors that are larger than one binding are used in slices of their output columns, a step each. It refuses to slice within
//! a column: one tile of columns must fit.

use super::super::memory::ALIGN;
use std::ops::Range;

/// The columns of each slice. A tile of `lanes` columns takes `tile` floats of weights and a row of biases; `limit` is the largest
/// binding in bytes. Where `whole` is true every slice has at least `lanes` columns, if there are as many: the last begins earlier then,
/// and computes some columns again.
pub(super) fn slices(
    columns: usize,
    lanes: usize,
    tile: usize,
    whole: bool,
    limit: usize,
) -> impl Iterator<Item = Range<usize>> {
    let tiles = columns.div_ceil(lanes);
    // Weights and biases begin at aligned places each.
    let most = ((limit / 4).saturating_sub(2 * ALIGN) / (tile + lanes)).max(1);
    let each = tiles.div_ceil(tiles.div_ceil(most)) * lanes;
    (0..columns).step_by(each).map(move |first| {
        let end = (first + each).min(columns);
        if whole && end - first < lanes { end.saturating_sub(lanes)..end } else { first..end }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_all_columns_and_fit() {
        let all = |columns, lanes, tile, whole, limit| {
            slices(columns, lanes, tile, whole, limit).collect::<Vec<_>>()
        };
        assert_eq!(
            all(100, 8, 80, true, 1 << 20),
            std::slice::from_ref(&(0..100)),
            "one slice where all fits"
        );
        // Three tiles of 8 + 80 floats in (4 * 300 - 128) bytes: five slices of at most 24 columns.
        assert_eq!(all(100, 8, 80, false, 1200), [0..24, 24..48, 48..72, 72..96, 96..100]);
        assert_eq!(all(100, 8, 80, true, 1200), [0..24, 24..48, 48..72, 72..96, 92..100]);
        // What does not fit at all is left to the check of the plan.
        assert_eq!(all(16, 8, 80, true, 4), [0..8, 8..16]);
        assert_eq!(all(3, 8, 80, true, 1 << 20), std::slice::from_ref(&(0..3)));
    }
}
