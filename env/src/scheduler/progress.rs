//! How far running launches are, as far as somebody can tell who knows the plan: each goes on at the pace that contention leaves it,
//! and its pace changes whenever another one starts or ends. For searches that look ahead; it refuses to touch the estimates that
//! policies see, which are those of the moment of the launch.

use super::{Running, Scheduler};
use crate::case::Case;
use crate::event::Launch;
use crate::time::{Span, Time};

/// Work of a running launch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Nanoseconds of work at full speed in all: loading, inputs, segments.
    total_ns: f64,
    /// ... of which are left as of `since`; negative when it takes longer than planned.
    left_ns: f64,
    /// Nanoseconds that one of work takes since then.
    pace: f64,
    since: Time,
}

/// An overdue launch is believed to need at least this share of its work, or of its delay, from now on.
const OVERDUE: (f64, f64) = (0.05, 0.5);

impl Progress {
    /// Of a launch that starts.
    pub(super) fn new(case: &Case, launch: &Launch, now: Time) -> Progress {
        let (on, first) = (launch.processor, launch.first);
        let bringing = case.transfer_ns(launch.variant, first, launch.inputs_on, on)
            + case.load_ns(on, launch.load_bytes);
        let total_ns = bringing + case.variant(launch.variant).latency_ns(on, first, launch.last);
        Progress { total_ns, left_ns: total_ns, pace: 1.0, since: now }
    }

    fn left_at(&self, now: Time) -> f64 {
        self.left_ns - now.since(self.since).0 as f64 / self.pace
    }

    fn end(&self, now: Time) -> Time {
        let left = self.left_at(now);
        let least = (OVERDUE.0 * self.total_ns).max(-OVERDUE.1 * left);
        now + Span::from_ns(left.max(least) * self.pace)
    }
}

/// Brings all up to `now`; from there on they go at the pace that the present ones leave each other.
pub(super) fn re_pace(case: &Case, running: &mut [Running], now: Time) {
    if !case.disturbing {
        return;
    }
    let all_gbps = running.iter().map(|r| r.demand_gbps).sum();
    for index in 0..running.len() {
        let (on, own_gbps) = (running[index].launch.processor, running[index].demand_gbps);
        let others = running.iter().map(|r| r.launch.processor);
        let pace = case.disturbance(on, own_gbps, others, all_gbps);
        let progress = &mut running[index].progress;
        progress.left_ns = progress.left_at(now);
        progress.since = progress.since.max(now);
        progress.pace = pace;
    }
}

impl Scheduler {
    /// Launches that have not completed, each with the time at which it will by the plan if nothing starts or ends before.
    pub fn running(&self) -> impl Iterator<Item = (&Launch, Time)> {
        self.running.iter().map(|r| (&r.launch, r.progress.end(self.now)))
    }
}
