//! The candidate-scoring network and its forward pass in plain Rust: no libtorch, no allocation once the buffers have grown.
//! It does not know how many processors, requests or variants there are. It refuses to learn; see `train`.
//!
//! For candidates `x_i` and context `g`, with hidden width `H`:
//! ```text
//! h_i = relu(W1 x_i + b1)                                  [H]
//! c   = relu(Wc [mean_i h_i, max_i h_i, g] + bc)           [H]
//! z_i = relu(W2 h_i + b2 + Wm c)                           [H]
//! logit_i = w3 z_i + b3          value = w5 relu(W4 c + b4) + b5
//! ```
//! Pooling over the set of candidates is that of Deep Sets (Zaheer et al., NeurIPS 2017).

use crate::features::{CANDIDATE_FEATURES, CONTEXT_FEATURES, Encoder};
use crate::matmul::Packed;

/// A fully connected layer: `y = W x + b`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[outputs, inputs]`, row-major.
    pub weight: Vec<f32>,
    /// `[outputs]`; empty for a layer without bias.
    pub bias: Vec<f32>,
    /// Width of the input.
    pub inputs: usize,
    /// Width of the output.
    pub outputs: usize,
}

/// All weights. Field names are the tensor names in a checkpoint (with `.weight` and `.bias` behind them).
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Weights {
    pub candidate1: Linear,
    pub context1: Linear,
    pub candidate2: Linear,
    pub mix: Linear,
    pub logit: Linear,
    pub value1: Linear,
    pub value2: Linear,
}

/// Name, inputs, outputs and whether there is a bias, for each layer of a network of hidden width `h`.
pub fn layers(h: usize) -> [(&'static str, usize, usize, bool); 7] {
    [
        ("candidate1", CANDIDATE_FEATURES, h, true),
        ("context1", 2 * h + CONTEXT_FEATURES, h, true),
        ("candidate2", h, h, true),
        ("mix", h, h, false),
        ("logit", h, 1, true),
        ("value1", h, h, true),
        ("value2", h, 1, true),
    ]
}

impl Weights {
    /// Builds the weights from a function that gives each layer by name.
    ///
    /// # Errors
    /// Whatever `layer` says.
    pub fn build<E>(
        hidden: usize,
        mut layer: impl FnMut(&str, usize, usize, bool) -> Result<Linear, E>,
    ) -> Result<Weights, E> {
        let mut made = layers(hidden).into_iter().map(|(name, i, o, bias)| layer(name, i, o, bias));
        let mut next = || made.next().expect("seven layers are listed");
        Ok(Weights {
            candidate1: next()?,
            context1: next()?,
            candidate2: next()?,
            mix: next()?,
            logit: next()?,
            value1: next()?,
            value2: next()?,
        })
    }

    /// The layers in the order of [`layers`].
    pub fn each(&self) -> [&Linear; 7] {
        [
            &self.candidate1,
            &self.context1,
            &self.candidate2,
            &self.mix,
            &self.logit,
            &self.value1,
            &self.value2,
        ]
    }

    /// Hidden width.
    pub fn hidden(&self) -> usize {
        self.candidate1.outputs
    }
}

/// The forward pass of one network, with its working memory.
pub struct Forward {
    layers: Layers,
    /// `[m, H]`: first hidden layer, then the second one.
    h1: Vec<f32>,
    h2: Vec<f32>,
    /// `[b, 2 H + CONTEXT_FEATURES]`.
    pooled: Vec<f32>,
    /// `[b, H]` each.
    context: Vec<f32>,
    mixed: Vec<f32>,
    value1: Vec<f32>,
    /// `[m]`: one logit per candidate, after a run.
    pub logits: Vec<f32>,
    /// `[b]`: the value of each state, after a run.
    pub values: Vec<f32>,
}

/// The layers as [`Packed::apply`] wants them.
struct Layers {
    candidate1: Packed,
    context1: Packed,
    candidate2: Packed,
    mix: Packed,
    logit: Packed,
    value1: Packed,
    value2: Packed,
}

impl Forward {
    /// A forward pass through these weights.
    pub fn new(w: &Weights) -> Forward {
        let layers = Layers {
            candidate1: Packed::new(&w.candidate1),
            context1: Packed::new(&w.context1),
            candidate2: Packed::new(&w.candidate2),
            mix: Packed::new(&w.mix),
            logit: Packed::new(&w.logit),
            value1: Packed::new(&w.value1),
            value2: Packed::new(&w.value2),
        };
        let empty = Vec::new;
        Forward {
            layers,
            h1: empty(),
            h2: empty(),
            pooled: empty(),
            context: empty(),
            mixed: empty(),
            value1: empty(),
            logits: empty(),
            values: empty(),
        }
    }

    /// Scores what `encoder` holds; returns the value of the state. The logits stay in [`Forward::logits`].
    pub fn run(&mut self, encoder: &Encoder) -> f32 {
        self.run_on(&encoder.candidates, &encoder.context)
    }

    /// Scores `candidates` (`[n, CANDIDATE_FEATURES]`, n > 0) in `context` (`[CONTEXT_FEATURES]`).
    pub fn run_on(&mut self, candidates: &[f32], context: &[f32]) -> f32 {
        self.run_batch(candidates, &[candidates.len() / CANDIDATE_FEATURES], context);
        self.values[0]
    }

    /// Scores `b` observations at once: `counts[i]` (> 0) candidates belong to observation `i`, their rows lie one after the other in
    /// `candidates` (`[m, CANDIDATE_FEATURES]`), the contexts in `contexts` (`[b, CONTEXT_FEATURES]`).
    pub fn run_batch(&mut self, candidates: &[f32], counts: &[usize], contexts: &[f32]) {
        let (layers, h) = (&self.layers, self.layers.candidate1.outputs());
        layers.candidate1.apply_relu(candidates, &mut self.h1);
        pool(&self.h1, h, counts, contexts, &mut self.pooled);
        layers.context1.apply_relu(&self.pooled, &mut self.context);
        layers.mix.apply(&self.context, &mut self.mixed);
        self.h2.resize(self.h1.len(), 0.0);
        let mut from = 0;
        for (&n, mixed) in counts.iter().zip(self.mixed.chunks_exact(h)) {
            let rows = from * h..(from + n) * h;
            layers.candidate2.add_relu(&self.h1[rows.clone()], mixed, &mut self.h2[rows]);
            from += n;
        }
        layers.logit.apply(&self.h2, &mut self.logits);
        layers.value1.apply_relu(&self.context, &mut self.value1);
        layers.value2.apply(&self.value1, &mut self.values);
    }

    /// Index of the highest logit; ties: the first.
    pub fn best(&self) -> usize {
        highest(&self.logits)
    }
}

/// Index of the highest value; ties: the first. 0 when there is none.
pub fn highest<T: PartialOrd>(values: &[T]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// Columns that are pooled together: their sums and maxima stay in registers.
const COLUMNS: usize = 16;

/// Per observation: mean and maximum of the first hidden layer (`h` wide, not negative) over its candidates, and its context.
fn pool(h1: &[f32], h: usize, counts: &[usize], contexts: &[f32], pooled: &mut Vec<f32>) {
    pooled.clear();
    let mut from = 0;
    for (&n, context) in counts.iter().zip(contexts.chunks_exact(CONTEXT_FEATURES)) {
        let rows = &h1[from * h..(from + n) * h];
        from += n;
        let start = pooled.len();
        pooled.resize(start + 2 * h, 0.0);
        let (means, maxima) = pooled[start..].split_at_mut(h);
        let places = means.chunks_mut(COLUMNS).zip(maxima.chunks_mut(COLUMNS)).enumerate();
        for (i, (means, maxima)) in places {
            let (mut sum, mut max) = ([0.0_f32; COLUMNS], [0.0_f32; COLUMNS]);
            for row in rows.chunks_exact(h) {
                let row = &row[i * COLUMNS..][..means.len()];
                for ((x, s), m) in row.iter().zip(&mut sum).zip(&mut max) {
                    *s += x;
                    *m = m.max(*x);
                }
            }
            means.iter_mut().zip(sum).for_each(|(mean, s)| *mean = s / n as f32);
            maxima.copy_from_slice(&max[..maxima.len()]);
        }
        pooled.extend_from_slice(context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formulas of the module's text, written as slowly and obviously as possible.
    fn by_hand(w: &Weights, x: &[f32], g: &[f32]) -> (Vec<f64>, f64) {
        let apply = |l: &Linear, v: &[f64]| -> Vec<f64> {
            (0..l.outputs)
                .map(|o| {
                    let bias = l.bias.get(o).copied().unwrap_or(0.0);
                    let dot: f64 = (0..l.inputs).map(|i| f64::from(l.weight[o * l.inputs + i]) * v[i]).sum();
                    f64::from(bias) + dot
                })
                .collect()
        };
        let relu = |v: Vec<f64>| v.into_iter().map(|x| x.max(0.0)).collect::<Vec<_>>();
        let rows: Vec<Vec<f64>> =
            x.chunks(CANDIDATE_FEATURES).map(|r| r.iter().map(|&v| f64::from(v)).collect()).collect();
        let h: Vec<_> = rows.iter().map(|r| relu(apply(&w.candidate1, r))).collect();
        let mut pooled: Vec<f64> =
            (0..w.hidden()).map(|j| h.iter().map(|r| r[j]).sum::<f64>() / h.len() as f64).collect();
        pooled.extend((0..w.hidden()).map(|j| h.iter().map(|r| r[j]).fold(0.0, f64::max)));
        pooled.extend(g.iter().map(|&v| f64::from(v)));
        let c = relu(apply(&w.context1, &pooled));
        let mixed = apply(&w.mix, &c);
        let logits = h
            .iter()
            .map(|r| {
                let z: Vec<f64> =
                    apply(&w.candidate2, r).iter().zip(&mixed).map(|(a, b)| (a + b).max(0.0)).collect();
                apply(&w.logit, &z)[0]
            })
            .collect();
        (logits, apply(&w.value2, &relu(apply(&w.value1, &c)))[0])
    }

    #[test]
    fn forward_equals_the_formulas() {
        use rand::{RngExt, SeedableRng};
        for seed in 0..20 {
            let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
            let mut random = |n: usize| (0..n).map(|_| rng.random_range(-0.5..0.5_f32)).collect::<Vec<_>>();
            let w = Weights::build(16, |_, inputs, outputs, bias| {
                let bias = if bias { random(outputs) } else { Vec::new() };
                Ok::<_, ()>(Linear { weight: random(inputs * outputs), bias, inputs, outputs })
            })
            .unwrap();
            let n = 1 + seed as usize * 3;
            let (x, g) = (random(n * CANDIDATE_FEATURES), random(CONTEXT_FEATURES));
            let mut forward = Forward::new(&w);
            let value = forward.run_on(&x, &g);
            let (logits, expected) = by_hand(&w, &x, &g);
            assert!(
                (f64::from(value) - expected).abs() < 1e-5,
                "seed {seed}: value {value}, expected {expected}"
            );
            for (a, b) in forward.logits.iter().zip(&logits) {
                assert!((f64::from(*a) - b).abs() < 1e-5, "seed {seed}: logit {a}, expected {b}");
            }
            // Beside another observation it is scored the same.
            let (x2, g2) = (random(2 * CANDIDATE_FEATURES), random(CONTEXT_FEATURES));
            forward.run_batch(&[x2, x.clone()].concat(), &[2, n], &[g2, g.clone()].concat());
            assert!((f64::from(forward.values[1]) - expected).abs() < 1e-5, "seed {seed}: in a batch");
            for (a, b) in forward.logits[2..].iter().zip(&logits) {
                assert!((f64::from(*a) - b).abs() < 1e-5, "seed {seed}: logit {a} in a batch, expected {b}");
            }
            // Saboteur: one changed weight must be seen.
            let mut broken = w.clone();
            broken.mix.weight[0] += 1.0;
            broken.context1.bias[0] += 10.0;
            let mut forward = Forward::new(&broken);
            forward.run_on(&x, &g);
            let same = forward.logits.iter().zip(&logits).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5);
            assert!(!same, "seed {seed}: a changed weight went unnoticed");
        }
    }
}
