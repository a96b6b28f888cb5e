//! `y = x W^T + b` for a few dozen rows, the only arithmetic of a decision: weights packed once, nothing allocated, and as wide as the
//! processor goes. It refuses to be a library: `gemm` and `faer` are as fast per multiplication, but allocate in every call.

use crate::network::Linear;

/// Outputs that are computed together: one AVX-512 register, or two of AVX.
const PANEL: usize = 16;
/// Rows that are computed together.
const ROWS: usize = 6;

/// A layer whose weights lie as the loops below read them.
#[derive(Clone, Debug)]
pub struct Packed {
    /// `[panels][inputs][PANEL]`; outputs beyond the last are 0.
    weight: Vec<[f32; PANEL]>,
    /// `[panels][PANEL]`.
    bias: Vec<[f32; PANEL]>,
    inputs: usize,
    outputs: usize,
}

impl Packed {
    /// Packs a layer.
    pub fn new(layer: &Linear) -> Packed {
        let panels = layer.outputs.div_ceil(PANEL);
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for panel in 0..panels {
            let output = |j: usize| Some(panel * PANEL + j).filter(|&o| o < layer.outputs);
            for i in 0..layer.inputs {
                weight.push(std::array::from_fn(|j| {
                    output(j).map_or(0.0, |o| layer.weight[o * layer.inputs + i])
                }));
            }
            bias.push(std::array::from_fn(|j| {
                output(j).and_then(|o| layer.bias.get(o)).copied().unwrap_or(0.0)
            }));
        }
        Packed { weight, bias, inputs: layer.inputs, outputs: layer.outputs }
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `y = x W^T + b` for the rows of `x` (`[n, inputs]`); `y` becomes `[n, outputs]`.
    pub fn apply(&self, x: &[f32], y: &mut Vec<f32>) {
        assert_eq!(x.len() % self.inputs, 0, "rows of {} numbers were expected", self.inputs);
        let n = x.len() / self.inputs;
        y.clear();
        y.resize(n * self.outputs, 0.0);
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has AVX-512F, as was just asked.
                return unsafe { self.apply_avx512(x, y) };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the processor has AVX2 and FMA, as was just asked.
                return unsafe { self.apply_avx2(x, y) };
            }
        }
        // Everywhere else the compiler knows what there is; on AArch64 that includes fused multiplication.
        self.apply_rows::<1, { cfg!(target_arch = "aarch64") }>(x, y);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    fn apply_avx512(&self, x: &[f32], y: &mut [f32]) {
        // 18 of the 32 registers hold sums, so that a number of `x` is read once for three multiplications.
        self.apply_rows::<3, true>(x, y);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn apply_avx2(&self, x: &[f32], y: &mut [f32]) {
        self.apply_rows::<1, true>(x, y);
    }

    /// In blocks of [`ROWS`] rows and `P` panels. Without `FUSED` products are rounded before they are added: a fused multiplication is a
    /// slow call where the processor has none.
    #[inline(always)]
    fn apply_rows<const P: usize, const FUSED: bool>(&self, x: &[f32], y: &mut [f32]) {
        let blocks = x.chunks(ROWS * self.inputs).zip(y.chunks_mut(ROWS * self.outputs));
        for (x, y) in blocks {
            match x.len() / self.inputs {
                ROWS => self.block::<ROWS, P, FUSED>(x, y),
                5 => self.block::<5, P, FUSED>(x, y),
                4 => self.block::<4, P, FUSED>(x, y),
                3 => self.block::<3, P, FUSED>(x, y),
                2 => self.block::<2, P, FUSED>(x, y),
                _ => self.block::<1, P, FUSED>(x, y),
            }
        }
    }

    /// `R` rows: `P` panels at a time, and the rest one by one.
    #[inline(always)]
    fn block<const R: usize, const P: usize, const FUSED: bool>(&self, x: &[f32], y: &mut [f32]) {
        let panels = self.bias.len();
        let wide = panels / P * P;
        for panel in (0..wide).step_by(P) {
            self.panels::<R, P, FUSED>(panel, x, y);
        }
        for panel in wide..panels {
            self.panels::<R, 1, FUSED>(panel, x, y);
        }
    }

    /// `R` rows by the `P` panels from `panel` on.
    #[inline(always)]
    fn panels<const R: usize, const P: usize, const FUSED: bool>(
        &self,
        panel: usize,
        x: &[f32],
        y: &mut [f32],
    ) {
        let n = self.inputs;
        // All of one length, so that the compiler sees that no index is out of bounds.
        let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * n..][..n]);
        let weights: [&[[f32; PANEL]]; P] = std::array::from_fn(|p| &self.weight[(panel + p) * n..][..n]);
        let mut sums: [[[f32; PANEL]; P]; R] = [std::array::from_fn(|p| self.bias[panel + p]); R];
        for i in 0..n {
            let weight: [[f32; PANEL]; P] = std::array::from_fn(|p| weights[p][i]);
            for (sums, row) in sums.iter_mut().zip(&rows) {
                let factor = row[i];
                for (sum, weight) in sums.iter_mut().zip(&weight) {
                    for (s, w) in sum.iter_mut().zip(weight) {
                        *s = if FUSED { factor.mul_add(*w, *s) } else { *s + factor * w };
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (p, sum) in sums.iter().enumerate() {
                let first = (panel + p) * PANEL;
                let width = PANEL.min(self.outputs - first);
                y[r * self.outputs + first..][..width].copy_from_slice(&sum[..width]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn every_shape_equals_the_formula() {
        for seed in 0..60_u64 {
            let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
            let (inputs, outputs, n) =
                (rng.random_range(1..50), rng.random_range(1..70), rng.random_range(0..20));
            let mut random = |n: usize| (0..n).map(|_| rng.random_range(-1.0..1.0_f32)).collect::<Vec<_>>();
            let bias = if seed % 3 == 0 { Vec::new() } else { random(outputs) };
            let layer = Linear { weight: random(inputs * outputs), bias, inputs, outputs };
            let x = random(n * inputs);
            let (mut y, mut plain) = (vec![7.0; 3], vec![0.0; n * outputs]);
            let packed = Packed::new(&layer);
            packed.apply(&x, &mut y);
            packed.apply_rows::<1, false>(&x, &mut plain);
            assert_eq!(y.len(), n * outputs);
            for r in 0..n {
                for o in 0..outputs {
                    let dot: f64 = (0..inputs)
                        .map(|i| f64::from(layer.weight[o * inputs + i]) * f64::from(x[r * inputs + i]))
                        .sum();
                    let expected = dot + f64::from(layer.bias.get(o).copied().unwrap_or(0.0));
                    for got in [y[r * outputs + o], plain[r * outputs + o]] {
                        assert!(
                            (f64::from(got) - expected).abs() < 1e-5,
                            "seed {seed}: {got} is not {expected}"
                        );
                    }
                }
            }
        }
    }
}
