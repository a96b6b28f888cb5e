//! How a learner's own choices are drawn from the scores of the network. It refuses to be random by itself: the caller brings the
//! generator.

use crate::network::highest;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

/// A way to choose among scored candidates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exploration {
    /// From the softmax of the scores divided by this temperature (PPO: 1; DQN: Boltzmann exploration).
    Softmax(f32),
    /// Any candidate with this probability, else the best.
    Epsilon(f32),
}

impl Exploration {
    /// Chooses a candidate; gives its index and the logarithm of the probability with which it is chosen.
    pub fn choose(self, scores: &[f32], rng: &mut Pcg64Mcg) -> (usize, f32) {
        match self {
            Exploration::Softmax(temperature) => softmax(scores, temperature, rng),
            Exploration::Epsilon(epsilon) => {
                let best = highest(scores);
                let explores = rng.random::<f32>() < epsilon;
                let chosen = if explores { rng.random_range(0..scores.len()) } else { best };
                let greedy = if chosen == best { 1.0 - epsilon } else { 0.0 };
                (chosen, (epsilon / scores.len() as f32 + greedy).ln())
            }
        }
    }
}

fn softmax(scores: &[f32], temperature: f32, rng: &mut Pcg64Mcg) -> (usize, f32) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |score: f32| ((score - max) / temperature).exp();
    let total: f32 = scores.iter().map(|&s| weight(s)).sum();
    let mut left = rng.random::<f32>() * total;
    let mut chosen = scores.len() - 1;
    for (i, &score) in scores.iter().enumerate() {
        left -= weight(score);
        if left <= 0.0 {
            chosen = i;
            break;
        }
    }
    (chosen, (scores[chosen] - max) / temperature - total.ln())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// How often each of three candidates is chosen, and whether the stated probabilities are those.
    fn shares(exploration: Exploration, scores: &[f32; 3]) -> ([f64; 3], [f64; 3]) {
        let (mut counts, mut stated) = ([0.0; 3], [f64::NAN; 3]);
        let mut rng = Pcg64Mcg::seed_from_u64(5);
        for _ in 0..40_000 {
            let (i, log_probability) = exploration.choose(scores, &mut rng);
            counts[i] += 1.0 / 40_000.0;
            stated[i] = f64::from(log_probability.exp());
        }
        (counts, stated)
    }

    #[test]
    fn choices_are_as_probable_as_the_formulas_say() {
        let scores = [1.0_f32.ln(), 4.0_f32.ln(), 2.0_f32.ln()];
        // Temperature 2 takes square roots: 1 : 2 : sqrt 2.
        let root = 3.0 + 2.0_f64.sqrt();
        let expected = [
            (Exploration::Softmax(1.0), [1.0 / 7.0, 4.0 / 7.0, 2.0 / 7.0]),
            (Exploration::Softmax(2.0), [1.0 / root, 2.0 / root, 2.0_f64.sqrt() / root]),
            (Exploration::Epsilon(0.3), [0.1, 0.8, 0.1]),
        ];
        let near = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.01);
        for (exploration, expected) in expected {
            let (counts, stated) = shares(exploration, &scores);
            assert!(
                near(counts, expected) && near(stated, expected),
                "{exploration:?}: {counts:?} {stated:?}"
            );
        }
        // Saboteur: another temperature is noticed.
        assert!(!near(shares(Exploration::Softmax(1.3), &scores).0, expected[0].1));
    }
}
