//! Lowers a strided copy: by vectors where rows lie without gaps on both sides, some elements of the longest axis at once elsewhere.
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
        let (mut shape, mut strides) = merge(shape, &[from_strides, to_strides])?;
        let rank = shape.len();
        let whole = strides.iter().all(|s| s[rank - 1] == 1);
        if !whole {
            // Any order of the axes will do: the longest one is walked by each invocation.
            let longest = (0..rank).max_by_key(|&axis| (shape[axis], axis)).unwrap_or(rank - 1);
            shape[longest..].rotate_left(1);
            strides.iter_mut().for_each(|s| s[longest..].rotate_left(1));
        }
        let args = Args::new()
            .list("d", &shape)
            .at_plus("x_at", from, from_at)
            .list("x_s", &strides[0])
            .at_plus("out_at", to, to_at)
            .list("out_s", &strides[1]);
        let total = shape.iter().product::<i64>() as usize;
        let row = shape[rank - 1] as usize;
        let lines = |per: usize| row.div_ceil(per);
        let in_lines = |args: Args, per: usize| args.int("tiles", lines(per)).int("row", row);
        match (whole, rows(self.target, row)) {
            (true, Some((width, chunks))) => {
                let per = (width * chunks) as usize;
                let spec = Spec::CopyRows(from.buf(), rank, width, chunks);
                self.emit(spec, in_lines(args, per), total / row * lines(per));
            }
            (false, Some(_)) => {
                let per = if self.target.rows && row >= 16 { 16 } else { 4 };
                let spec = Spec::CopyLines(from.buf(), rank, per as u32, !self.target.rows);
                self.emit(spec, in_lines(args, per), total / row * lines(per));
            }
            (_, None) => self.emit(Spec::Copy(from.buf(), rank), args, total),
        }
        Ok(())
    }
}

/// Lanes and vectors for an invocation that walks along rows, where they are long enough.
pub(super) fn rows(target: &Target, row: usize) -> Option<(u32, u32)> {
    if !target.rows {
        return (row >= 4).then_some((1, 4));
    }
    let width = [16, 8, 4].into_iter().find(|v| row >= *v as usize && *v <= target.width)?;
    Some((width, if row >= 16 * width as usize { 4 } else { 1 }))
}
