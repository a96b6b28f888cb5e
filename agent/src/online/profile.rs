//! The profile, estimated again while it is used: how long launches take, as a multiple of what the plan says of them.
//!
//! Each launch that completes gives one ratio of the time that it took to the time that it should have taken among the launches that
//! ran beside it. A processor has a moving average of them with a variance, and so has each (variant, segment, processor) of its ratio
//! by its processor's: a processor that slows down moves at once all that it could run, and one segment that was measured wrongly
//! moves alone. Both are exponentially weighted (West, CACM 1979, for the variance) and grow old.
//! It refuses to tell the decision core, whose estimates follow its own drift: this is what emulators are seeded with.

use cosched_env::case::{Case, CaseError, ProcessorId, VariantId};
use cosched_env::event::{Completion, Launch};
use cosched_env::plan::Plan;
use cosched_env::time::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A launch as it was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// What ran.
    pub variant: VariantId,
    /// First segment.
    pub first: u16,
    /// Last segment, inclusive.
    pub last: u16,
    /// Where.
    pub processor: ProcessorId,
    /// Time that it took by the time that it should have taken.
    pub ratio: f64,
    /// When it ended.
    pub at: Time,
}

/// A launch that has not completed.
struct Going {
    launch: Launch,
    /// Nanoseconds of work at full speed by the plan, and how many of them would be done by `since`.
    total_ns: f64,
    done_ns: f64,
    pace: f64,
    since: Time,
    gbps: f64,
}

/// Follows the running launches, so that what others slow down is not taken for a slow processor.
pub struct Tracker {
    case: Arc<Case>,
    going: Vec<Going>,
}

impl Tracker {
    /// Nothing runs.
    pub fn new(case: Arc<Case>) -> Tracker {
        Tracker { case, going: Vec::new() }
    }

    /// A launch goes out.
    pub fn launched(&mut self, now: Time, launch: &Launch) {
        let table = self.case.variant(launch.variant);
        let (on, first, last) = (launch.processor, launch.first, launch.last);
        let bringing = self.case.transfer_ns(launch.variant, first, launch.inputs_on, on)
            + self.case.load_ns(on, launch.load_bytes);
        self.going.push(Going {
            launch: *launch,
            total_ns: bringing + table.latency_ns(on, first, last),
            done_ns: 0.0,
            pace: 1.0,
            since: now,
            gbps: table.demand_gbps(on, first, last),
        });
        self.re_pace(now);
    }

    /// A launch ended; `None` when it failed or took no time by the plan.
    pub fn completed(&mut self, completion: &Completion) -> Option<Sample> {
        let index = self.going.iter().position(|g| g.launch.id == completion.launch)?;
        self.re_pace(completion.finished);
        let Going { launch, total_ns, done_ns, .. } = self.going.swap_remove(index);
        self.re_pace(completion.finished);
        (completion.failure.is_none() && total_ns > 0.0).then(|| Sample {
            variant: launch.variant,
            first: launch.first,
            last: launch.last,
            processor: launch.processor,
            ratio: done_ns / total_ns,
            at: completion.finished,
        })
    }

    /// Brings all up to `now`; from there on they go at the pace that the present ones should leave each other.
    fn re_pace(&mut self, now: Time) {
        let all_gbps = self.going.iter().map(|g| g.gbps).sum();
        for index in 0..self.going.len() {
            let (on, own) = (self.going[index].launch.processor, self.going[index].gbps);
            let others = self.going.iter().map(|g| g.launch.processor);
            let pace = self.case.disturbance(on, own, others, all_gbps);
            let going = &mut self.going[index];
            going.done_ns += now.since(going.since).0 as f64 / going.pace;
            going.since = going.since.max(now);
            going.pace = pace;
        }
    }
}

/// An exponentially weighted mean of ratios, with its variance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Mean.
    pub mean: f64,
    /// Variance.
    pub variance: f64,
    /// Ratios seen so far.
    pub seen: u32,
    /// When the last one was.
    pub at: Time,
}

impl Default for Estimate {
    fn default() -> Estimate {
        Estimate { mean: 1.0, variance: 0.0, seen: 0, at: Time::ZERO }
    }
}

/// Seconds after which what was seen counts for `1 / e` of what it did.
const MEMORY_S: f64 = 30.0;
/// Weight of the newest launch, for a processor and for one of its segments.
const PROCESSOR_WEIGHT: f64 = 0.15;
const SEGMENT_WEIGHT: f64 = 0.05;
/// A segment's own ratio is believed half when it was seen so many times.
const HALF_BELIEVED: f64 = 10.0;
/// Ratios beyond these bounds count as these.
const BOUNDS: (f64, f64) = (0.05, 20.0);

impl Estimate {
    /// `d = x - mean; mean += w d; variance = (1 - w) (variance + w d^2)`.
    fn note(&mut self, ratio: f64, weight: f64, at: Time) {
        let off = ratio - self.mean;
        self.mean += weight * off;
        self.variance = (1.0 - weight) * (self.variance + weight * off * off);
        self.seen = self.seen.saturating_add(1);
        self.at = self.at.max(at);
    }

    /// The mean as it counts now: what was not seen for long comes back to 1.
    pub fn now(&self, now: Time) -> f64 {
        1.0 + (self.mean - 1.0) * (-now.since(self.at).seconds() / MEMORY_S).exp()
    }
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Per processor.
    pub processors: Vec<Estimate>,
    /// `[variant][segment * processors + processor]`, of the ratio by the processor's.
    pub segments: Vec<Vec<Estimate>>,
}

impl Profile {
    /// The plan as it is.
    pub fn new(plan: &Plan) -> Profile {
        let n = plan.processors.len();
        let segments = plan.variants.iter().map(|v| vec![Estimate::default(); v.segments.len() * n]);
        Profile { processors: vec![Estimate::default(); n], segments: segments.collect() }
    }

    /// Whether it has the shape of this plan.
    pub fn fits(&self, plan: &Plan) -> bool {
        let lengths = |p: &Profile| p.segments.iter().map(Vec::len).collect::<Vec<_>>();
        let other = Profile::new(plan);
        self.processors.len() == other.processors.len() && lengths(self) == lengths(&other)
    }

    /// A launch was measured.
    pub fn note(&mut self, sample: &Sample) {
        let (p, n) = (sample.processor.0 as usize, self.processors.len());
        let ratio = sample.ratio.clamp(BOUNDS.0, BOUNDS.1);
        self.processors[p].note(ratio, PROCESSOR_WEIGHT, sample.at);
        let own = ratio / self.processors[p].mean;
        for segment in sample.first..=sample.last {
            let cell = &mut self.segments[sample.variant.0 as usize][segment as usize * n + p];
            cell.note(own, SEGMENT_WEIGHT, sample.at);
        }
    }

    /// Times of the run so far count as before the start of the next one.
    pub fn rewind(&mut self) {
        let all = self.processors.iter_mut().chain(self.segments.iter_mut().flatten());
        all.for_each(|e| e.at = Time::ZERO);
    }

    /// Factor on the plan's latency of a segment.
    pub fn factor(&self, variant: usize, segment: usize, processor: usize, now: Time) -> f64 {
        let cell = &self.segments[variant][segment * self.processors.len() + processor];
        let seen = f64::from(cell.seen);
        let own = 1.0 + (cell.now(now) - 1.0) * seen / (seen + HALF_BELIEVED);
        self.processors[processor].now(now) * own
    }

    /// The plan as it is now; energy goes with time.
    pub fn plan(&self, plan: &Plan, now: Time) -> Plan {
        let mut plan = plan.clone();
        for (v, variant) in plan.variants.iter_mut().enumerate() {
            for (s, segment) in variant.segments.iter_mut().enumerate() {
                for (p, cost) in segment.costs.iter_mut().enumerate() {
                    let Some(cost) = cost else { continue };
                    let factor = self.factor(v, s, p, now);
                    cost.mean_us *= factor;
                    cost.p50_us *= factor;
                    cost.p95_us *= factor;
                    cost.energy_mj *= factor;
                }
            }
        }
        plan
    }

    /// The case as it is now, for a world; `scenario` is what arrives.
    ///
    /// # Errors
    /// When the case was not well-formed to begin with.
    pub fn case(
        &self,
        case: &Case,
        scenario: cosched_env::scenario::Scenario,
        now: Time,
    ) -> Result<Case, CaseError> {
        Case::on(self.plan(&case.plan, now), case.device.clone(), scenario)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::online::hand::two_processors;
    use cosched_env::event::{LaunchId, RequestId};
    use cosched_env::time::Span;

    fn at(ms: f64) -> Time {
        Time::ZERO + Span::from_ms(ms)
    }

    fn sample(processor: u16, ratio: f64, ms: f64) -> Sample {
        let processor = ProcessorId(processor);
        Sample { variant: VariantId(0), first: 0, last: 0, processor, ratio, at: at(ms) }
    }

    #[test]
    fn mean_and_variance_by_hand() {
        let mut e = Estimate::default();
        e.note(3.0, 0.25, at(1.0));
        e.note(1.0, 0.25, at(2.0));
        // d = 2: mean 1.5, variance 0.75 * 0.25 * 4 = 0.75; d = -0.5: mean 1.375, variance 0.75 * (0.75 + 0.0625).
        assert!((e.mean - 1.375).abs() < 1e-12 && (e.variance - 0.609375).abs() < 1e-12, "{e:?}");
        assert_eq!((e.seen, e.at), (2, at(2.0)));
        let later = e.now(at(2.0 + 30_000.0));
        assert!((later - (1.0 + 0.375 / std::f64::consts::E)).abs() < 1e-9, "{later}");
    }

    #[test]
    fn a_slow_processor_is_noticed_and_the_others_are_not_blamed() {
        let case = two_processors();
        let mut profile = Profile::new(&case.plan);
        for i in 0..40 {
            profile.note(&sample(1, 3.0, f64::from(i) * 10.0));
            profile.note(&sample(0, 1.0, f64::from(i) * 10.0));
        }
        let plan = profile.plan(&case.plan, at(400.0));
        let ratio = |v: usize, p: usize| {
            let mean_us = |plan: &Plan| plan.variants[v].segments[0].costs[p].expect("it runs there").mean_us;
            mean_us(&plan) / mean_us(&case.plan)
        };
        assert!((ratio(0, 1) - 3.0).abs() < 0.2, "{}", ratio(0, 1));
        assert!((ratio(0, 0) - 1.0).abs() < 1e-9, "{}", ratio(0, 0));
        // What never ran there meanwhile is expected to be as slow.
        assert!((ratio(1, 1) - 3.0).abs() < 0.2, "{}", ratio(1, 1));
    }

    #[test]
    fn what_others_slow_down_is_no_slow_processor() {
        let case = two_processors();
        let mut tracker = Tracker::new(case.clone());
        let launch = |id, on| Launch {
            id: LaunchId(id),
            request: RequestId(id),
            variant: VariantId(0),
            first: 0,
            last: 0,
            processor: ProcessorId(on),
            inputs_on: None,
            load_bytes: 0,
        };
        let done = |id, ms| Completion {
            launch: LaunchId(id),
            started: Time::ZERO,
            finished: at(ms),
            energy_mj: 0.0,
            failure: None,
        };
        // 10 ms on p0 and 5 ms on p1 alone; contention 1.5 both ways.
        tracker.launched(Time::ZERO, &launch(0, 0));
        tracker.launched(Time::ZERO, &launch(1, 1));
        let second = tracker.completed(&done(1, 7.5)).expect("it did not fail");
        assert!((second.ratio - 1.0).abs() < 1e-9, "{second:?}");
        // 5 of 10 ms are done after 7.5, the rest runs alone.
        let first = tracker.completed(&done(0, 12.5)).expect("it did not fail");
        assert!((first.ratio - 1.0).abs() < 1e-9, "{first:?}");
        // Twice as slow as it should be.
        tracker.launched(at(20.0), &launch(2, 1));
        let slow = tracker.completed(&done(2, 30.0)).expect("it did not fail");
        assert!((slow.ratio - 2.0).abs() < 1e-9, "{slow:?}");
        assert!(tracker.completed(&done(2, 31.0)).is_none());
    }
}
