//! What the best baseline would earn in place of the network, estimated from the live run itself: no emulator is asked, and none can be
//! wrong. It refuses to judge; the guard does.
//!
//! Where the two would do something else, the baseline's choice is taken now and then, and it is known how often. By the performance
//! difference of two policies (Kakade and Langford, ICML 2002), to first order, the baseline gains over the network
//! ```text
//! sum_t w_t A_t / sum of the priorities that ended,
//! w_t = [a_t = baseline's] / P(baseline's) - [a_t = network's] / P(network's)
//! ```
//! with `A_t` the advantage of what was done (generalised advantage estimation) and `P` how probable each choice was when it was made. `w_t`
//! is 0 where the two agree, and 0 in expectation everywhere, so that a wrong value head makes the estimate wider and not wrong. "To first
//! order": the states are those that the network leads to.

use crate::experience::Experience;
use serde::{Deserialize, Serialize};

/// Lessons fade by this factor with each new one, so that about ten count.
const FADE: f64 = 0.9;
/// Of the generalised advantage estimation, as in the training.
const LAMBDA: f32 = 0.95;

/// By how much the best baseline would be better than the network, in score (utility by priority).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// Best estimate.
    pub mean: f64,
    /// Its standard error.
    pub error: f64,
}

/// Faded sums over lessons.
#[derive(Clone, Debug, Default)]
pub struct OffPolicy {
    weighted: f64,
    squares: f64,
    priority: f64,
}

impl OffPolicy {
    /// Takes a lesson in: `contrast[t]` is `w_t`, `priority` that of all requests that ended meanwhile, and `reward_unit` the factor that
    /// rewards were multiplied by.
    pub fn note(&mut self, lesson: &Experience, contrast: &[f32], priority: f64, reward_unit: f64) {
        let (advantages, _) = lesson.advantages(LAMBDA);
        let parts = advantages.iter().zip(contrast).map(|(a, w)| f64::from(a * w) / reward_unit);
        let (sum, squares) = parts.fold((0.0, 0.0), |(s, q), part| (s + part, q + part * part));
        self.weighted = FADE * self.weighted + sum;
        self.squares = FADE * FADE * self.squares + squares;
        self.priority = FADE * self.priority + priority;
    }

    /// The estimate; `None` before there is anything to estimate from.
    pub fn gain(&self) -> Option<Gain> {
        let known = self.priority > 0.0 && self.squares > 0.0;
        known
            .then(|| Gain { mean: self.weighted / self.priority, error: self.squares.sqrt() / self.priority })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cosched_env::streams::rng;
    use rand::RngExt;

    /// One decision after which nothing follows.
    fn add(lesson: &mut Experience, reward: f32, value: f32) {
        lesson.action.push(0);
        lesson.reward.push(reward);
        lesson.value.push(value);
        lesson.discount.push(0.5);
        lesson.next_value.push(0.0);
        lesson.last.push(true);
    }

    #[test]
    fn by_hand() {
        let mut lesson = Experience::new();
        // The baseline's choice, drawn one time in four: A = 3 - 1. The network's, in the other three: A = 0.25 - 1. They agree.
        add(&mut lesson, 3.0, 1.0);
        add(&mut lesson, 0.25, 1.0);
        add(&mut lesson, 9.0, 1.0);
        let mut tally = OffPolicy::default();
        assert_eq!(tally.gain(), None);
        tally.note(&lesson, &[4.0, -4.0 / 3.0, 0.0], 10.0, 0.5);
        // (4 x 2 + 4/3 x 0.75) / 0.5 / 10, and the root of (8² + 1²) / 0.5² over 10.
        let gain = tally.gain().expect("something was seen");
        assert!((gain.mean - 1.8).abs() < 1e-6, "{gain:?}");
        assert!((gain.error - 65.0_f64.sqrt() / 5.0).abs() < 1e-6, "{gain:?}");
        // Another lesson that says nothing: the first fades.
        tally.note(&Experience::new(), &[], 10.0, 0.5);
        let faded = tally.gain().expect("it is remembered");
        assert!((faded.mean - 0.9 * 18.0 / 19.0).abs() < 1e-6, "{faded:?}");
    }

    /// A bandit in which the network's choice earns 1 and the baseline's 1.3, with noise, and a value head that is off by `bias`.
    fn bandit(bias: f32, honest: bool, seed: u64) -> Gain {
        let random = &mut rng(seed, "bandit", 0);
        let (mut lesson, mut contrast) = (Experience::new(), Vec::new());
        for _ in 0..4000 {
            let follows = random.random::<f32>() < 0.1;
            let noise = random.random_range(-1.0..1.0_f32);
            add(&mut lesson, if follows { 1.3 } else { 1.0 } + noise, 1.0 + bias);
            let weight: f32 = if follows { 1.0 / 0.1 } else { -1.0 / 0.9 };
            contrast.push(if honest { weight } else { weight.signum() });
        }
        let mut tally = OffPolicy::default();
        tally.note(&lesson, &contrast, 4000.0, 1.0);
        tally.gain().expect("4000 decisions")
    }

    #[test]
    fn the_truth_is_within_the_error_whatever_the_value_head_says() {
        let off = |gain: Gain| (gain.mean - 0.3) / gain.error;
        for seed in 0..20 {
            let (right, wrong) = (bandit(0.0, true, seed), bandit(-1.0, true, seed));
            assert!(right.error < 0.06 && off(right).abs() < 4.0, "seed {seed}: {right:?}");
            assert!(wrong.error < 0.15 && off(wrong).abs() < 4.0, "seed {seed}: {wrong:?}");
            // Saboteur: weights that forget how probable each choice was.
            let bad = bandit(-1.0, false, seed);
            assert!(off(bad).abs() > 10.0, "seed {seed}: {bad:?}");
        }
    }
}
