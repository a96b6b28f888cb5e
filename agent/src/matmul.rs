//! `y = x W^T + b` for a few dozen rows, the only arithmetic of a decision: weights packed once, nothing allocated, and as wide as the
//! processor goes. It refuses to be a library: `gemm` and `faer` are as fast per multiplication, but allocate in every call.

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::network::Linear;

/// Outputs that are computed together: one AVX-512 register, or two of AVX.
const PANEL: usize = 16;
/// Rows that are computed together.
const ROWS: usize = 6;
/// Products of a single output that are added side by side.
const LANES: usize = 8;

/// A layer whose weights lie as the loops below read them.
#[derive(Clone, Debug)]
pub struct Packed {
    /// `[panels][inputs][PANEL]`, outputs beyond the last are 0; empty where there is one output.
    weight: Vec<[f32; PANEL]>,
    /// `[panels][PANEL]`.
    bias: Vec<[f32; PANEL]>,
    /// `[inputs]` where there is one output, else empty.
    single: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

impl Packed {
    /// Packs a layer.
    pub fn new(layer: &Linear) -> Packed {
        let panels = layer.outputs.div_ceil(PANEL);
        let (mut weight, mut bias, mut single) = (Vec::new(), Vec::new(), Vec::new());
        for panel in 0..panels {
            let output = |j: usize| Some(panel * PANEL + j).filter(|&o| o < layer.outputs);
            let row = |i: usize| {
                std::array::from_fn(|j| output(j).map_or(0.0, |o| layer.weight[o * layer.inputs + i]))
            };
            match layer.outputs {
                1 => single.clone_from(&layer.weight),
                _ => weight.extend((0..layer.inputs).map(row)),
            }
            bias.push(std::array::from_fn(|j| {
                output(j).and_then(|o| layer.bias.get(o)).copied().unwrap_or(0.0)
            }));
        }
        Packed { weight, bias, single, inputs: layer.inputs, outputs: layer.outputs }
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `y = x W^T + b` for the rows of `x` (`[n, inputs]`); `y` becomes `[n, outputs]`.
    pub fn apply(&self, x: &[f32], y: &mut Vec<f32>) {
        y.resize(self.rows(x) * self.outputs, 0.0);
        self.into(x, &Then { add: &[], relu: false }, y);
    }

    /// `y = max(0, x W^T + b)`.
    pub fn apply_relu(&self, x: &[f32], y: &mut Vec<f32>) {
        y.resize(self.rows(x) * self.outputs, 0.0);
        self.into(x, &Then { add: &[], relu: true }, y);
    }

    /// `y = max(0, x W^T + b + a)` for the same `a` (`[outputs]`) in each row; `y` is `[n, outputs]`.
    pub fn add_relu(&self, x: &[f32], add: &[f32], y: &mut [f32]) {
        assert_eq!((add.len(), y.len()), (self.outputs, self.rows(x) * self.outputs));
        self.into(x, &Then { add, relu: true }, y);
    }

    /// How many rows these are.
    fn rows(&self, x: &[f32]) -> usize {
        assert_eq!(x.len() % self.inputs, 0, "rows of {} numbers were expected", self.inputs);
        x.len() / self.inputs
    }

    fn into(&self, x: &[f32], then: &Then<'_>, y: &mut [f32]) {
        if self.outputs == 1 {
            return self.dots(x, then, y);
        }
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has AVX-512F, as was just asked.
                return unsafe { self.apply_avx512(x, then, y) };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the processor has AVX2 and FMA, as was just asked.
                return unsafe { self.apply_avx2(x, then, y) };
            }
        }
        self.apply_rows::<Plain, 1>(x, then, y);
    }

    /// A single output: the product of each row with the weights.
    fn dots(&self, x: &[f32], then: &Then<'_>, y: &mut [f32]) {
        let start = self.bias[0][0] + then.add.first().copied().unwrap_or(0.0);
        let (weights, last_weights) = self.single.as_chunks::<LANES>();
        for (row, y) in x.chunks_exact(self.inputs).zip(y) {
            let (numbers, last_numbers) = row.as_chunks::<LANES>();
            // In lanes, so that one addition does not wait for another.
            let mut lanes = [0.0_f32; LANES];
            for (numbers, weights) in numbers.iter().zip(weights) {
                for j in 0..LANES {
                    lanes[j] += numbers[j] * weights[j];
                }
            }
            let last = last_numbers.iter().zip(last_weights).map(|(x, w)| x * w);
            *y = start + lanes.iter().sum::<f32>() + last.sum::<f32>();
            if then.relu {
                *y = y.max(0.0);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    fn apply_avx512(&self, x: &[f32], then: &Then<'_>, y: &mut [f32]) {
        // 18 of the 32 registers hold sums, so that a number of `x` is read once for three multiplications.
        self.apply_rows::<x86::Wide, 3>(x, then, y);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn apply_avx2(&self, x: &[f32], then: &Then<'_>, y: &mut [f32]) {
        self.apply_rows::<x86::Halves, 1>(x, then, y);
    }

    /// In blocks of [`ROWS`] rows and `P` panels.
    #[inline(always)]
    fn apply_rows<L: Lanes, const P: usize>(&self, x: &[f32], then: &Then<'_>, y: &mut [f32]) {
        let blocks = x.chunks(ROWS * self.inputs).zip(y.chunks_mut(ROWS * self.outputs));
        for (x, y) in blocks {
            match x.len() / self.inputs {
                ROWS => self.block::<L, ROWS, P>(x, then, y),
                5 => self.block::<L, 5, P>(x, then, y),
                4 => self.block::<L, 4, P>(x, then, y),
                3 => self.block::<L, 3, P>(x, then, y),
                2 => self.block::<L, 2, P>(x, then, y),
                _ => self.block::<L, 1, P>(x, then, y),
            }
        }
    }

    /// `R` rows: `P` panels at a time, and the rest one by one.
    #[inline(always)]
    fn block<L: Lanes, const R: usize, const P: usize>(&self, x: &[f32], then: &Then<'_>, y: &mut [f32]) {
        let panels = self.bias.len();
        let wide = panels / P * P;
        for panel in (0..wide).step_by(P) {
            self.panels::<L, R, P>(panel, x, then, y);
        }
        for panel in wide..panels {
            self.panels::<L, R, 1>(panel, x, then, y);
        }
    }

    /// `R` rows by the `P` panels from `panel` on.
    #[inline(always)]
    fn panels<L: Lanes, const R: usize, const P: usize>(
        &self,
        panel: usize,
        x: &[f32],
        then: &Then<'_>,
        y: &mut [f32],
    ) {
        let n = self.inputs;
        // All of one length, so that the compiler sees that no index is out of bounds.
        let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * n..][..n]);
        let weights: [&[[f32; PANEL]]; P] = std::array::from_fn(|p| &self.weight[(panel + p) * n..][..n]);
        let start = |p: usize| {
            let mut start = self.bias[panel + p];
            start.iter_mut().zip(then.add.iter().skip((panel + p) * PANEL)).for_each(|(s, a)| *s += a);
            L::load(&start)
        };
        let mut sums: [[L; P]; R] = [std::array::from_fn(start); R];
        for i in 0..n {
            let weight: [L; P] = std::array::from_fn(|p| L::load(&weights[p][i]));
            for r in 0..R {
                let factor = L::all(rows[r][i]);
                for p in 0..P {
                    sums[r][p] = sums[r][p].plus(factor, weight[p]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (p, sum) in sums.iter().enumerate() {
                let first = (panel + p) * PANEL;
                let width = PANEL.min(self.outputs - first);
                let mut sum = sum.store();
                if then.relu {
                    sum = sum.map(|s| s.max(0.0));
                }
                y[r * self.outputs + first..][..width].copy_from_slice(&sum[..width]);
            }
        }
    }
}

/// What happens to sums before they are stored.
#[derive(Clone, Copy)]
struct Then<'a> {
    /// Added to each row; empty: nothing.
    add: &'a [f32],
    relu: bool,
}

/// [`PANEL`] sums in registers. Arrays would do for the language, but the compiler writes them back to memory in every step, which takes
/// twice as long.
trait Lanes: Copy {
    fn all(value: f32) -> Self;
    fn load(values: &[f32; PANEL]) -> Self;
    /// `self + a * b`.
    fn plus(self, a: Self, b: Self) -> Self;
    fn store(self) -> [f32; PANEL];
}

/// Whatever the compiler makes of it.
#[derive(Clone, Copy)]
struct Plain([f32; PANEL]);

impl Lanes for Plain {
    #[inline(always)]
    fn all(value: f32) -> Plain {
        Plain([value; PANEL])
    }

    #[inline(always)]
    fn load(values: &[f32; PANEL]) -> Plain {
        Plain(*values)
    }

    #[inline(always)]
    fn plus(self, a: Plain, b: Plain) -> Plain {
        // A fused multiplication is a slow call where the processor has none; every AArch64 has it.
        let plus = |i: usize| match cfg!(target_arch = "aarch64") {
            true => a.0[i].mul_add(b.0[i], self.0[i]),
            false => self.0[i] + a.0[i] * b.0[i],
        };
        Plain(std::array::from_fn(plus))
    }

    #[inline(always)]
    fn store(self) -> [f32; PANEL] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    /// One row of `x` by the formula, with what comes then.
    fn row(layer: &Linear, x: &[f32], then: &Then<'_>) -> Vec<f64> {
        let output = |o: usize| {
            let weights = &layer.weight[o * layer.inputs..][..layer.inputs];
            let dot: f64 = x.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            let added = [layer.bias.get(o), then.add.get(o)].into_iter().flatten().map(|a| f64::from(*a));
            let sum = dot + added.sum::<f64>();
            if then.relu { sum.max(0.0) } else { sum }
        };
        (0..layer.outputs).map(output).collect()
    }

    fn differ(layer: &Linear, x: &[f32], then: &Then<'_>, y: &[f32]) -> bool {
        let wanted: Vec<f64> = x.chunks(layer.inputs).flat_map(|x| row(layer, x, then)).collect();
        wanted.len() != y.len() || wanted.iter().zip(y).any(|(w, y)| (w - f64::from(*y)).abs() >= 1e-5)
    }

    #[test]
    fn every_shape_equals_the_formula() {
        for seed in 0..60_u64 {
            let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
            let (inputs, n) = (rng.random_range(1..50), rng.random_range(0..20));
            let outputs = if seed % 5 == 0 { 1 } else { rng.random_range(2..70) };
            let mut random = |n: usize| (0..n).map(|_| rng.random_range(-1.0..1.0_f32)).collect::<Vec<_>>();
            let bias = if seed % 3 == 0 { Vec::new() } else { random(outputs) };
            let layer = Linear { weight: random(inputs * outputs), bias, inputs, outputs };
            let (x, add) = (random(n * inputs), random(outputs));
            let packed = Packed::new(&layer);
            let mut y = vec![7.0; 3];
            packed.apply(&x, &mut y);
            let then = Then { add: &[], relu: false };
            assert!(!differ(&layer, &x, &then, &y), "seed {seed}");
            packed.apply_relu(&x, &mut y);
            assert!(!differ(&layer, &x, &Then { relu: true, ..then }, &y), "seed {seed}");
            packed.add_relu(&x, &add, &mut y);
            assert!(!differ(&layer, &x, &Then { add: &add, relu: true }, &y), "seed {seed}");
            // The saboteur: what is added is forgotten.
            let forgotten = differ(&layer, &x, &Then { relu: true, ..then }, &y);
            assert!(forgotten || y.iter().all(|y| *y == 0.0), "seed {seed}");
            if outputs == 1 {
                // There are no panels for what other processors would do.
                assert!(packed.weight.is_empty());
                continue;
            }
            packed.apply_rows::<Plain, 1>(&x, &then, &mut y);
            assert!(!differ(&layer, &x, &then, &y), "seed {seed}");
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the processor has AVX2 and FMA, as was just asked.
                unsafe { packed.apply_avx2(&x, &then, &mut y) };
                assert!(!differ(&layer, &x, &then, &y), "seed {seed}");
            }
        }
    }
}
