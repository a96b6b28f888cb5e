//! Sums in the registers of x86. They are only used by functions that are called where the processor has the instructions, and they read and
//! write no more than the arrays that they are given: that is what makes each block here safe. It refuses to ask what the processor has.

use super::{Lanes, PANEL};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Wide(__m512);

impl Lanes for Wide {
    #[inline(always)]
    fn all(value: f32) -> Wide {
        // SAFETY: as the module says.
        Wide(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(values: &[f32; PANEL]) -> Wide {
        // SAFETY: as the module says.
        Wide(unsafe { _mm512_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn plus(self, a: Wide, b: Wide) -> Wide {
        // SAFETY: as the module says.
        Wide(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }

    #[inline(always)]
    fn store(self) -> [f32; PANEL] {
        let mut out = [0.0; PANEL];
        // SAFETY: as the module says.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), self.0) };
        out
    }
}

#[derive(Clone, Copy)]
pub(super) struct Halves(__m256, __m256);

impl Lanes for Halves {
    #[inline(always)]
    fn all(value: f32) -> Halves {
        // SAFETY: as the module says.
        let all = unsafe { _mm256_set1_ps(value) };
        Halves(all, all)
    }

    #[inline(always)]
    fn load(values: &[f32; PANEL]) -> Halves {
        let (low, high) = values.split_at(PANEL / 2);
        // SAFETY: as the module says.
        unsafe { Halves(_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr())) }
    }

    #[inline(always)]
    fn plus(self, a: Halves, b: Halves) -> Halves {
        // SAFETY: as the module says.
        unsafe { Halves(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
    }

    #[inline(always)]
    fn store(self) -> [f32; PANEL] {
        let mut out = [0.0; PANEL];
        let (low, high) = out.split_at_mut(PANEL / 2);
        // SAFETY: as the module says.
        unsafe {
            _mm256_storeu_ps(low.as_mut_ptr(), self.0);
            _mm256_storeu_ps(high.as_mut_ptr(), self.1);
        }
        out
    }
}
