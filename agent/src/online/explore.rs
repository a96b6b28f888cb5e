//! How a live run explores: seldom, and where it costs least. It knows how probable each choice was, so that what came of it can be weighed.
//! It refuses to learn from it.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

/// How the actor explores.
#[derive(Clone, Copy, Debug)]
pub struct Exploration {
    /// Where the network would not do what its first guide would do: how often the guide is followed all the same, to compare them.
    pub comparison: f64,
    /// Share of the other decisions that are drawn from the network's softmax; else the best candidate is taken.
    pub share: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Exploration {
    /// None at all.
    pub(super) const NONE: Exploration = Exploration { comparison: 0.0, share: 0.0, seed: 0 };

    /// What is done where `own` would be done without exploring, and what its advantage counts (see [`super::off_policy`]).
    pub(super) fn choose(
        &self,
        logits: &[f32],
        own: usize,
        guided: Option<usize>,
        random: &mut Pcg64Mcg,
    ) -> (usize, f32) {
        let other = guided.filter(|&g| g != own);
        let comparison = if other.is_some() { self.comparison } else { 0.0 };
        let row = match other {
            Some(other) if comparison > 0.0 && random.random::<f64>() < comparison => other,
            _ if self.share > 0.0 && random.random::<f64>() < self.share => draw(logits, random),
            _ => own,
        };
        let Some(other) = other.filter(|_| comparison > 0.0) else { return (row, 0.0) };
        let drawn = |c: usize| self.share * f64::from(log_probability(logits, c).exp());
        let probability = |c: usize| match c == own {
            true => (1.0 - comparison) * (1.0 - self.share + drawn(c)),
            false => comparison + (1.0 - comparison) * drawn(c),
        };
        let contrast = match row {
            r if r == other => 1.0 / probability(other),
            r if r == own => -1.0 / probability(own),
            _ => 0.0,
        };
        (row, contrast as f32)
    }
}

/// Draws from the softmax of the logits.
fn draw(logits: &[f32], random: &mut Pcg64Mcg) -> usize {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|l| (l - max).exp()).sum();
    let mut left = random.random::<f32>() * total;
    for (i, l) in logits.iter().enumerate() {
        left -= (l - max).exp();
        if left <= 0.0 {
            return i;
        }
    }
    logits.len() - 1
}

/// Logarithm of the softmax of one logit.
pub(super) fn log_probability(logits: &[f32], choice: usize) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|l| (l - max).exp()).sum();
    logits[choice] - max - total.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cosched_env::streams::rng;

    #[test]
    fn probabilities_by_hand() {
        // softmax of ln 1, ln 2, ln 5 is 1/8, 2/8, 5/8.
        let logits = [0.0, 2.0_f32.ln(), 5.0_f32.ln()];
        for (i, p) in [0.125_f32, 0.25, 0.625].into_iter().enumerate() {
            assert!((log_probability(&logits, i) - p.ln()).abs() < 1e-6);
        }
        let random = &mut rng(3, "test", 0);
        let mut counts = [0_f64; 3];
        (0..8000).for_each(|_| counts[draw(&logits, random)] += 1.0);
        for (count, expected) in counts.into_iter().zip([1000.0, 2000.0, 5000.0]) {
            assert!((count - expected).abs() < 200.0, "{counts:?}");
        }
    }

    #[test]
    fn what_a_choice_counts_is_one_over_how_often_it_is_made() {
        let logits = [0.0, 2.0_f32.ln(), 5.0_f32.ln()];
        let exploration = Exploration { comparison: 0.2, share: 0.5, seed: 0 };
        let random = &mut rng(4, "test", 0);
        let (mut counts, mut contrasts) = ([0_f64; 3], [0_f32; 3]);
        for _ in 0..8000 {
            let (row, contrast) = exploration.choose(&logits, 2, Some(1), random);
            counts[row] += 1.0 / 8000.0;
            contrasts[row] = contrast;
        }
        // By hand: 0.2 + 0.8 x 0.5 x 2/8 and 0.8 x (0.5 + 0.5 x 5/8).
        for (got, want) in contrasts.into_iter().zip([0.0, 1.0 / 0.3, -1.0 / 0.65]) {
            assert!((got - want).abs() < 1e-5, "{contrasts:?}");
        }
        assert!((counts[1] - 0.3).abs() < 0.02 && (counts[2] - 0.65).abs() < 0.02, "{counts:?}");
        // Who agrees, or is never compared, says nothing.
        assert_eq!(exploration.choose(&logits, 2, Some(2), random).1, 0.0);
        assert_eq!(Exploration { comparison: 0.0, ..exploration }.choose(&logits, 2, Some(1), random).1, 0.0);
    }
}
