//! What windows side by side see of a row: which places lie inside it, and their values, as vectors or floats by themselves.
//! It refuses dilation, and strides other than 1 and 2 for vectors.

use super::builder::Builder;
use super::ir::{Buf, Expr, Ty, f, i, lanes, load, load_row, select, splat};

/// Windows side by side along a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    /// Lanes of a vector of neighbouring windows; 1: each window is a float by itself.
    pub width: u32,
    /// Vectors (or floats) side by side.
    pub across: u32,
    /// Width of the window.
    pub kernel: u32,
    /// From one window to the next.
    pub stride: u32,
}

impl Columns {
    /// Windows side by side.
    pub(super) fn span(&self) -> u32 {
        self.width * self.across
    }

    /// How many places are read: those that floats have in common once, a vector for each of the window's columns otherwise.
    fn places(&self) -> u32 {
        match self.width {
            1 => (self.across - 1) * self.stride + self.kernel,
            _ => self.across * self.kernel,
        }
    }

    /// The number of the place that column `s` of the windows in vector `v` is.
    pub(super) fn place(&self, v: u32, s: u32) -> usize {
        match self.width {
            1 => (v * self.stride + s) as usize,
            _ => (v * self.kernel + s) as usize,
        }
    }

    /// How far place `p` is from the first column.
    fn offset(&self, p: u32) -> i32 {
        match self.width {
            1 => p as i32,
            _ => (p / self.kernel * self.width * self.stride + p % self.kernel) as i32,
        }
    }

    /// How far the windows of a vector are from its first one.
    pub(super) fn steps(&self, b: &mut Builder) -> Expr {
        b.let_("steps", lanes((0..self.width).map(|l| f((l * self.stride) as f32)).collect()))
    }

    /// The columns that a vector of windows sees which begins at `first`: floats, which hold small whole numbers exactly.
    pub(super) fn numbers(&self, b: &mut Builder, steps: &Expr, first: Expr) -> Expr {
        b.let_("x", steps + splat(first.to_float(), self.width))
    }

    /// Which places lie inside a row of `iw` columns, the first place being column `left`.
    pub(super) fn masks(&self, b: &mut Builder, left: &Expr, iw: &Expr) -> Vec<Expr> {
        let mut all = Vec::new();
        if self.width == 1 {
            for p in 0..self.places() {
                let x = b.let_("x", left + p as i32);
                all.push(b.let_("column", x.ge(0).and(x.lt(iw))));
            }
            return all;
        }
        let end = b.let_("end", splat(iw.to_float(), self.width));
        let steps = self.steps(b);
        for p in 0..self.places() {
            let x = self.numbers(b, &steps, left + self.offset(p));
            let inside = x.ge(splat(f(0.0), self.width)).and(x.lt(&end));
            assert_eq!(inside.ty, Ty::Mask(self.width));
            all.push(b.let_("columns", inside));
        }
        all
    }

    /// The values of all places, the first one being element `at`: `outside` where a mask says so. Without masks all lie inside.
    pub(super) fn loads(
        &self,
        b: &mut Builder,
        at: &Expr,
        masks: Option<&[Expr]>,
        outside: &Expr,
    ) -> Vec<Expr> {
        let value = |p: u32| {
            let index = at + self.offset(p);
            let mask = masks.map(|masks| masks[p as usize].clone());
            match (mask, self.width) {
                (None, 1) => load(Buf::Arena, index),
                (Some(mask), 1) => {
                    select(mask.clone(), load(Buf::Arena, select(mask, index, i(0))), outside.clone())
                }
                (None, width) => load_row(Buf::Arena, width, index, self.stride),
                (Some(mask), width) => {
                    let row = load_row(Buf::Arena, width, index, self.stride);
                    select(mask, row, splat(outside.clone(), width))
                }
            }
        };
        (0..self.places()).map(|p| b.let_("x", value(p))).collect()
    }
}
