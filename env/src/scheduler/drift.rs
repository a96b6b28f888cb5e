//! How much slower or faster than planned a processor's launches have been lately. It refuses to know why.

use crate::time::Time;

/// Weight of the newest launch in a processor's drift.
const DRIFT_WEIGHT: f64 = 0.1;
/// Time constant with which an old drift is forgotten, in seconds.
const DRIFT_MEMORY_S: f64 = 0.5;
/// What the averages start from, in nanoseconds: a launch of ordinary length that took what was expected.
const DRIFT_PRIOR_NS: f64 = 1e6;

#[derive(Clone, Copy, Debug)]
pub(super) struct Drift {
    /// Moving averages of expected and of actual nanoseconds of its launches, as of `measured`. Averages of both and not of their
    /// ratio: a short launch, most of which is wake-up time, must not speak for the long ones.
    expected_ns: f64,
    actual_ns: f64,
    measured: Time,
    /// A time and the drift as it counted then: many decisions are taken at one moment.
    known: (Time, f64),
}

impl Default for Drift {
    fn default() -> Drift {
        Drift {
            expected_ns: DRIFT_PRIOR_NS,
            actual_ns: DRIFT_PRIOR_NS,
            measured: Time::ZERO,
            known: (Time::ZERO, 1.0),
        }
    }
}

impl Drift {
    /// Actual by expected latency as it counts now. What is known of a processor grows old: one that was slow once and was avoided
    /// since would never be tried again if it did not come back to 1 by itself.
    pub(super) fn at(&self, now: Time) -> f64 {
        if now == self.known.0 {
            return self.known.1;
        }
        let age = now.since(self.measured).seconds();
        let ratio = (self.actual_ns / self.expected_ns).clamp(0.1, 10.0);
        1.0 + (ratio - 1.0) * (-age / DRIFT_MEMORY_S).exp()
    }

    /// As [`Drift::at`], remembered.
    pub(super) fn note(&mut self, now: Time) -> f64 {
        self.known = (now, self.at(now));
        self.known.1
    }

    pub(super) fn measure(&mut self, expected_ns: f64, actual_ns: f64, now: Time) {
        // What was forgotten meanwhile stays forgotten.
        self.actual_ns = self.at(now) * self.expected_ns;
        self.expected_ns += DRIFT_WEIGHT * (expected_ns - self.expected_ns);
        self.actual_ns += DRIFT_WEIGHT * (actual_ns - self.actual_ns);
        self.measured = now;
        self.known.0 = Time::NEVER;
    }
}
