//! Arithmetic of shapes and strides. It refuses more than six axes that do not merge.

use crate::graph::Value;

/// Number of elements of a value.
pub(super) fn elements(value: &Value) -> usize {
    value.shape.iter().product()
}

/// Strides of a dense row-major tensor.
pub(super) fn dense(shape: &[usize]) -> Vec<i64> {
    let mut strides = vec![1i64; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1] as i64;
    }
    strides
}

/// `axis` counted from the front.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize, String> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    if (0..rank as i64).contains(&from_front) {
        Ok(from_front as usize)
    } else {
        Err(format!("axis {axis} of a tensor with {rank} axes"))
    }
}

/// Merges neighbouring axes that all stride lists walk evenly, then fills up with axes of 1 in front to 1, 4 or 6 axes.
pub(super) fn merge(shape: &[usize], lists: &[&[i64]]) -> Result<(Vec<i64>, Vec<Vec<i64>>), String> {
    let mut dims: Vec<i64> = Vec::new();
    let mut merged: Vec<Vec<i64>> = vec![Vec::new(); lists.len()];
    for axis in (0..shape.len()).filter(|&axis| shape[axis] != 1) {
        let extent = shape[axis] as i64;
        let even = !dims.is_empty()
            && lists.iter().zip(&merged).all(|(l, m)| *m.last().unwrap_or(&0) == l[axis] * extent);
        if even {
            *dims.last_mut().expect("not empty") *= extent;
            for (l, m) in lists.iter().zip(&mut merged) {
                *m.last_mut().expect("not empty") = l[axis];
            }
        } else {
            dims.push(extent);
            for (l, m) in lists.iter().zip(&mut merged) {
                m.push(l[axis]);
            }
        }
    }
    let rank = match dims.len() {
        0 | 1 => 1,
        2..=4 => 4,
        5 | 6 => 6,
        n => return Err(format!("{n} separate axes; the kernels walk at most 6")),
    };
    while dims.len() < rank {
        dims.insert(0, 1);
        for m in &mut merged {
            m.insert(0, 0);
        }
    }
    Ok((dims, merged))
}
