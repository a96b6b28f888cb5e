//! How much slower or faster than planned each processor's launches have been lately. It refuses to know why.

use crate::case::ProcessorId;
use crate::time::Time;

/// Weight of the newest launch in a processor's drift.
const DRIFT_WEIGHT: f64 = 0.1;
/// Time constant with which an old drift is forgotten, in seconds.
const DRIFT_MEMORY_S: f64 = 0.5;
/// What the averages start from, in nanoseconds: a launch of ordinary length that took what was expected.
const DRIFT_PRIOR_NS: f64 = 1e6;

/// The drifts of all processors.
#[derive(Clone, Debug)]
pub(super) struct Drifts {
    /// Per processor.
    drifts: Vec<Drift>,
    /// As of when they count.
    as_of: Time,
}

#[derive(Clone, Copy, Debug)]
struct Drift {
    /// Moving average of what its launches were expected to take, in nanoseconds. It goes with an average of what they took, and not
    /// with one of the ratios: a short launch, most of which is wake-up time, must not speak for the long ones.
    expected_ns: f64,
    /// Actual by expected latency less 1.
    excess: f64,
}

impl Drifts {
    pub(super) fn new(processors: usize) -> Drifts {
        Drifts {
            drifts: vec![Drift { expected_ns: DRIFT_PRIOR_NS, excess: 0.0 }; processors],
            as_of: Time::ZERO,
        }
    }

    /// What is left at `now` of an excess as it counted before. What is known of a processor grows old: one that was slow once and
    /// was avoided since would never be tried again if it did not come back to 1 by itself.
    fn left(&self, now: Time) -> f64 {
        (-now.since(self.as_of).seconds() / DRIFT_MEMORY_S).exp()
    }

    /// Lets all of them grow old: one exponential for all processors and all that is decided at this moment.
    pub(super) fn age(&mut self, now: Time) {
        if now > self.as_of {
            let left = self.left(now);
            self.drifts.iter_mut().for_each(|d| d.excess *= left);
            self.as_of = now;
        }
    }

    /// Actual by expected latency of each processor's launches, as it counted when they were aged last.
    pub(super) fn aged(&self) -> impl Iterator<Item = f64> {
        self.drifts.iter().map(|drift| 1.0 + drift.excess)
    }

    /// ... of one processor, as it counts now.
    pub(super) fn at(&self, on: ProcessorId, now: Time) -> f64 {
        1.0 + self.drifts[on.0 as usize].excess * self.left(now)
    }

    /// A launch took so long and was expected to take so long without any drift.
    pub(super) fn measure(&mut self, on: ProcessorId, expected_ns: f64, actual_ns: f64, now: Time) {
        self.age(now);
        let drift = &mut self.drifts[on.0 as usize];
        // What was forgotten meanwhile stays forgotten.
        let mut average_ns = (1.0 + drift.excess) * drift.expected_ns;
        drift.expected_ns += DRIFT_WEIGHT * (expected_ns - drift.expected_ns);
        average_ns += DRIFT_WEIGHT * (actual_ns - average_ns);
        drift.excess = (average_ns / drift.expected_ns).clamp(0.1, 10.0) - 1.0;
    }
}
