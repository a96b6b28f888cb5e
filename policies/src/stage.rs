//! Where a policy rehearses before it decides. Any case is a stage: that of the ordinary emulator; who has a world and a score
//! of his own makes a stage of them. It refuses to know what is rehearsed, and to show a run that will be played in earnest: its seeds
//! begin at 2^40.

use crate::short_run::{Excerpt, Steady};
use cosched_env::case::Case;
use cosched_env::streams::rng;
use cosched_env::world::Policy;
use rand::RngExt;

/// One run of a case, with its own arrivals.
pub trait Run: Sync {
    /// What a policy earns in it, as a share of what could be earned; minus infinity: it broke the rules, or nothing came. `make` makes
    /// it fresh for what is played: the case, perhaps at another moment of its timetable.
    fn worth(&self, make: &dyn Fn(&Case) -> Box<dyn Policy>) -> f64;
}

/// Runs of a case.
pub trait Stage: Sync {
    /// What is rehearsed.
    fn case(&self) -> &Case;
    /// Tells this stage from others of the same case.
    fn name(&self) -> String;
    /// Whether all runs are alike: nothing in the case is random.
    fn is_certain(&self) -> bool;
    /// Short runs for searches, with about so many requests; the same seeds have the same arrivals.
    fn pieces(&self, count: usize, requests: f64) -> Vec<Box<dyn Run + '_>>;
    /// The same of the case as it mostly is: without its timetable.
    fn steady(&self, count: usize, requests: f64) -> Vec<Box<dyn Run + '_>>;
    /// `count` runs with other arrivals for each `purpose`, from `first_seed` on; `requests` as in [`crate::tournament::Budget`].
    fn runs(&self, purpose: &str, first_seed: u64, count: u64, requests: f64) -> Vec<Box<dyn Run + '_>>;
}

/// The emulator of the case.
impl Stage for Case {
    fn case(&self) -> &Case {
        self
    }

    fn name(&self) -> String {
        "emulated".to_owned()
    }

    fn is_certain(&self) -> bool {
        false
    }

    fn pieces(&self, count: usize, requests: f64) -> Vec<Box<dyn Run + '_>> {
        // Spread evenly over the timetable, however many of them are used (the golden section).
        let share = |seed: usize| (0.618_034 * seed as f64).fract();
        let piece = |seed: usize| Excerpt::new(self, share(seed), requests, seed as u64);
        (0..count).map(|seed| Box::new(piece(seed)) as Box<dyn Run + '_>).collect()
    }

    fn steady(&self, count: usize, requests: f64) -> Vec<Box<dyn Run + '_>> {
        Steady::runs(self, count, requests).map(|s| Box::new(s) as Box<dyn Run + '_>).collect()
    }

    fn runs(&self, purpose: &str, first_seed: u64, count: u64, requests: f64) -> Vec<Box<dyn Run + '_>> {
        let random = &mut rng(1, purpose, 0);
        // Each begins in its own part of the timetable: six moments drawn from all of it may well leave a phase out.
        let mut share = |i: u64| (i as f64 + random.random::<f64>()) / count as f64;
        let run = |i| match requests {
            f64::INFINITY => Excerpt::whole(self, share(i), first_seed + i),
            requests => Excerpt::new(self, share(i), requests, first_seed + i),
        };
        (0..count).map(run).map(|e| Box::new(e) as Box<dyn Run + '_>).collect()
    }
}
