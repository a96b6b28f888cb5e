//! What a policy earns in one short emulated run of a case: how `static` judges its placements and a tournament its contestants.
//! It refuses to compare.

use cosched_env::case::Case;
use cosched_env::emulator::{Config, Emulator};
use cosched_env::event::Ended;
use cosched_env::scheduler::{Options, Scheduler};
use cosched_env::time::Time;
use cosched_env::world::{Observer, Policy, drive};
use std::sync::Arc;

/// Requests of the slowest stream that a run should have.
const LEAST_REQUESTS: f64 = 5.0;

/// For how long requests arrive in a run that should have so many of them; a slow stream may make it longer, up to four times.
pub(crate) fn horizon(case: &Case, requests: f64) -> Time {
    let rate: f64 = case.streams.iter().map(|s| 1.0 / s.period.0 as f64).sum();
    let slowest = case.streams.iter().map(|s| s.period.0).max().unwrap_or(1) as f64;
    Time((LEAST_REQUESTS * slowest).max(requests / rate).min(4.0 * requests / rate) as u64)
}

/// Sums over the requests of a run.
#[derive(Default)]
pub(crate) struct Sums {
    pub utility: f64,
    pub requests: f64,
    pub priority: f64,
}

impl Observer for Sums {
    fn ended(&mut self, ended: &Ended) {
        self.utility += ended.utility;
        self.requests += 1.0;
        self.priority += ended.request.priority;
    }
}

/// Runs a case until the last request has ended; `None`: the policy broke the rules, or there was no request.
pub(crate) fn short_run(case: &Arc<Case>, policy: &mut dyn Policy, seed: u64, horizon: Time) -> Option<Sums> {
    let mut emulator = Emulator::new(case.clone(), Config::default(), seed, horizon);
    let mut scheduler = Scheduler::new(case.clone(), Options::default());
    let mut sums = Sums::default();
    drive(&mut scheduler, &mut emulator, policy, &mut sums).ok()?;
    (sums.requests > 0.0).then_some(sums)
}
