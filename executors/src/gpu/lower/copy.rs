//! Lowers a strided copy: by vectors where rows lie without gaps on both sides, element by element elsewhere.
//! It refuses more axes than the kernels walk.

use super::super::kernel::Spec;
use super::{Args, Lower, Operand, Target, merge};

impl Lower<'_> {
    /// `to[to_at + c * to_strides] = from[from_at + c * from_strides]` for all `c` below `shape`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn copy(
        &mut self,
        from: Operand,
        from_at: i64,
        to: Operand,
        to_at: i64,
        shape: &[usize],
        from_strides: &[i64],
        to_strides: &[i64],
    ) -> Result<(), String> {
        let (shape, mut strides) = merge(shape, &[from_strides, to_strides])?;
        let to_strides = strides.pop().expect("two lists");
        let from_strides = strides.pop().expect("two lists");
        let args = Args::new()
            .list("d", &shape)
            .at_plus("x_at", from, from_at)
            .list("x_s", &from_strides)
            .at_plus("out_at", to, to_at)
            .list("out_s", &to_strides);
        let rank = shape.len();
        let total = shape.iter().product::<i64>() as usize;
        let row = shape[rank - 1] as usize;
        let whole = from_strides[rank - 1] == 1 && to_strides[rank - 1] == 1;
        match rows(self.target, row).filter(|_| whole) {
            Some((width, chunks)) => {
                let tiles = row.div_ceil((width * chunks) as usize);
                let args = args.int("tiles", tiles).int("row", row);
                self.emit(Spec::CopyRows(from.buf(), rank, width, chunks), args, total / row * tiles);
            }
            None => self.emit(Spec::Copy(from.buf(), rank), args, total),
        }
        Ok(())
    }
}

/// Lanes and vectors for an invocation of a copy of rows, where they are long enough.
fn rows(target: &Target, row: usize) -> Option<(u32, u32)> {
    if !target.rows {
        return (row >= 4).then_some((1, 4));
    }
    let width = [16, 8, 4].into_iter().find(|v| row >= *v as usize && *v <= target.width)?;
    Some((width, if row >= 16 * width as usize { 4 } else { 1 }))
}
