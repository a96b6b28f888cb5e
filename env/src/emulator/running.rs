//! A launch on its way: it waits for the decider, crosses its link, then works. It knows its present pace and power and refuses to
//! know why they are so; the emulator says.
//!
//! Power: a launch that works alone draws what the plan says of it. The share of time in which it is starved (inputs or weights on
//! their way, memory taken by others, the link, a hang) it draws half the active power of its processor.

use super::link::Crossing;
use crate::event::{Completion, Launch};
use crate::time::{Span, Time};

/// What decides how fast a launch is and what it draws, besides itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    /// Factor by which others slow it down.
    pub slowdown: f64,
    /// Speed of the processor: that of its frequency step, less what slows it down.
    pub speed: f64,
    /// Power of that step.
    pub power: f64,
    /// Whether its processor stands still.
    pub still: bool,
}

/// What a launch takes at full speed when it is alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Nanoseconds until the decider is done and it begins.
    pub delay_ns: f64,
    /// Nanoseconds that bring its inputs and weights.
    pub bringing_ns: f64,
    /// Nanoseconds of its segments.
    pub alone_ns: f64,
    /// Millijoules of its segments.
    pub energy_mj: f64,
    /// Watts while it is starved.
    pub starved_watts: f64,
}

#[derive(Clone, Debug)]
pub(super) struct Running {
    pub launch: Launch,
    pub started: Time,
    /// Bandwidth that it asks for, in GB/s.
    pub demand_gbps: f64,
    /// Why it will fail at its end.
    pub fails: Option<&'static str>,
    /// When it ends if nothing changes; [`Time::NEVER`] while it stands still.
    pub ends: Time,
    delay_ns: f64,
    link_ns: f64,
    /// Nanoseconds of work left at full speed.
    work_ns: f64,
    total_ns: f64,
    /// Watts while it works unhindered, and while it is starved, at full speed.
    full_watts: f64,
    starved_watts: f64,
    energy_mj: f64,
    // At present:
    /// Nanoseconds that one of work takes; infinite while it stands still.
    pace: f64,
    /// Work of a nanosecond: `1 / pace`.
    rate: f64,
    link_watts: f64,
    work_watts: f64,
}

/// Millijoules of so many nanoseconds at so many watts.
fn mj(watts: f64, ns: f64) -> f64 {
    watts * ns / 1e6
}

impl Running {
    pub(super) fn new(launch: &Launch, started: Time, demand_gbps: f64, work: Work) -> Running {
        let total_ns = work.bringing_ns + work.alone_ns;
        let per_ns = if total_ns > 0.0 { 1.0 / total_ns } else { 0.0 };
        let share = work.alone_ns * per_ns;
        Running {
            launch: *launch,
            started,
            demand_gbps,
            fails: None,
            ends: Time::NEVER,
            delay_ns: work.delay_ns,
            link_ns: 0.0,
            work_ns: total_ns,
            total_ns,
            full_watts: work.energy_mj * 1e6 * per_ns + work.starved_watts * (1.0 - share),
            starved_watts: work.starved_watts,
            energy_mj: 0.0,
            pace: 1.0,
            rate: 1.0,
            link_watts: 0.0,
            work_watts: 0.0,
        }
    }

    /// Sets what it meets on its link.
    pub(super) fn cross(&mut self, crossing: Crossing) {
        self.link_ns = crossing.ns;
        if crossing.lost {
            // It never gets there.
            self.work_ns = 0.0;
            self.fails = Some("the link lost it");
        }
    }

    /// It began before; so much time is left at the present pace. What it took until now is what the plan says of that part.
    pub(super) fn go_on(&mut self, left_ns: f64) {
        self.work_ns = left_ns / self.pace;
        let done = if self.total_ns > 0.0 { 1.0 - self.work_ns / self.total_ns } else { 0.0 };
        self.energy_mj = mj(self.full_watts, self.total_ns) * done.max(0.0);
    }

    /// Re-times it from `now` on.
    pub(super) fn meet(&mut self, conditions: Conditions, now: Time) {
        let Conditions { slowdown, speed, power, still } = conditions;
        let unhindered = if still { 0.0 } else { 1.0 / slowdown };
        self.link_watts = power * self.starved_watts;
        self.work_watts = power * (self.starved_watts + unhindered * (self.full_watts - self.starved_watts));
        self.pace = if still { f64::INFINITY } else { slowdown / speed };
        self.rate = 1.0 / self.pace;
        self.ends = if still {
            Time::NEVER
        } else {
            let left = self.delay_ns + self.link_ns + self.work_ns * self.pace;
            now + Span(left.ceil() as u64)
        };
    }

    /// So many nanoseconds pass. Returns how many of them it was there, the last ones, and the millijoules that it took.
    pub(super) fn pass(&mut self, ns: f64) -> (f64, f64) {
        let waited = ns.min(self.delay_ns);
        self.delay_ns -= waited;
        let there = ns - waited;
        let mut working = there;
        let mut taken = 0.0;
        if self.link_ns > 0.0 && self.pace.is_finite() {
            let crossing = there.min(self.link_ns);
            self.link_ns -= crossing;
            working -= crossing;
            taken += mj(self.link_watts, crossing);
        }
        self.work_ns = (self.work_ns - working * self.rate).max(0.0);
        taken += mj(self.work_watts, working);
        self.energy_mj += taken;
        (there, taken)
    }

    /// Whether the decider is done with it.
    pub(super) fn has_begun(&self) -> bool {
        self.delay_ns <= 0.0
    }

    /// Watts that it draws now.
    pub(super) fn watts(&self) -> f64 {
        if !self.has_begun() {
            0.0
        } else if self.link_ns > 0.0 {
            self.link_watts
        } else {
            self.work_watts
        }
    }

    /// Nanoseconds until it draws another power by itself; infinite: not before it ends.
    pub(super) fn steady_ns(&self) -> f64 {
        if !self.has_begun() {
            self.delay_ns
        } else if self.link_ns > 0.0 && self.pace.is_finite() {
            self.link_ns
        } else {
            f64::INFINITY
        }
    }

    /// Its completion at `now`, failed for `death` or for what was to happen to it.
    pub(super) fn complete(self, now: Time, death: Option<&str>) -> Completion {
        Completion {
            launch: self.launch.id,
            started: self.started,
            // It may have died before the decider was done and it could start.
            finished: now.max(self.started),
            energy_mj: self.energy_mj,
            failure: death.or(self.fails).map(str::to_owned),
        }
    }
}
