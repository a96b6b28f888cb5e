//! A clock for patience: it stops while nobody looks at it. A machine that sleeps, is paused by its host or is starved does so as a whole, and
//! what seems to hang after that only stood still like whoever waits for it. It refuses to tell the time of day.

use std::time::{Duration, Instant};

/// See the module's text.
pub(crate) struct Awake {
    /// What counts of the time between two looks.
    most: Duration,
    looked: Instant,
    passed: Duration,
}

impl Awake {
    /// Begins at `from`. It is meant to be looked at more often than every `most`.
    pub fn new(from: Instant, most: Duration) -> Awake {
        Awake { most, looked: from, passed: Duration::ZERO }
    }

    /// The time since it began.
    pub fn look(&mut self, now: Instant) -> Duration {
        self.passed += now.saturating_duration_since(self.looked).min(self.most);
        self.looked = now;
        self.passed
    }
}
