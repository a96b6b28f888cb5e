//! The profile, estimated again while it is used: how long launches take, as a multiple of what the plan says of them.
//!
//! Each launch that completes gives one ratio of the time that it took to the time that it should have taken among the launches that
//! ran beside it. A processor has moving averages of them with a variance, and so has each (variant, segment, processor) of its ratio
//! by its processor's: a processor that slows down moves at once all that it could run, and one segment that was measured wrongly
//! moves alone. They are exponentially weighted (West, CACM 1979, for the variance) and grow old.
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
            let pace = self.case.slowdown(on, others) * self.case.bandwidth_slowdown(on, own, all_gbps);
            let going = &mut self.going[index];
            going.done_ns += now.since(going.since).0 as f64 / going.pace;
            going.since = going.since.max(now);
            going.pace = pace;
        }
    }
}

/// What ratios are on average, now. A quick moving average notices a change; a slow one is what counts, for a policy that was chosen by
/// a number which wavers is chosen anew again and again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Slow mean: of all ratios since the last change, then exponentially weighted.
    pub mean: f64,
    /// Quick mean, and the variance about it.
    pub quick: f64,
    /// See `quick`.
    pub variance: f64,
    /// Ratios since the last change that the slow mean counts; the plan counts as some.
    pub counted: f64,
    /// Ratios seen so far.
    pub seen: u32,
    /// When the last one was.
    pub at: Time,
}

impl Default for Estimate {
    fn default() -> Estimate {
        Estimate { mean: 1.0, quick: 1.0, variance: 0.0, counted: PLANNED, seen: 0, at: Time::ZERO }
    }
}

/// Weights of the newest launch in the means of a processor and of one of its segments.
#[derive(Clone, Copy)]
struct Weights {
    quick: f64,
    /// The least one in the slow mean.
    slow: f64,
}

const PROCESSOR: Weights = Weights { quick: 0.15, slow: 0.01 };
const SEGMENT: Weights = Weights { quick: 0.05, slow: 0.01 };
/// As many ratios of 1 does the plan count as.
const PLANNED: f64 = 10.0;
/// Standard errors of the quick mean by which it is off the slow one when there was a change.
const CHANGE: f64 = 3.5;
/// Seconds after which what was seen counts for `1 / e` of what it did.
const MEMORY_S: f64 = 30.0;
/// A segment's own ratio is believed half when it was seen so many times.
const HALF_BELIEVED: f64 = 10.0;
/// Ratios beyond these bounds count as these.
const BOUNDS: (f64, f64) = (0.05, 20.0);

impl Estimate {
    /// Quick: `d = x - quick; quick += w d; variance = (1 - w) (variance + w d^2)`; its standard error is
    /// `sqrt(variance w / (2 - w))`. Slow: `mean += d / n` for the n-th since the last change, then with the least weight.
    fn note(&mut self, ratio: f64, weights: Weights, at: Time) {
        let w = weights.quick;
        let off = ratio - self.quick;
        self.quick += w * off;
        self.variance = (1.0 - w) * (self.variance + w * off * off);
        self.counted += 1.0;
        self.mean += (1.0 / self.counted).max(weights.slow) * (ratio - self.mean);
        let error = (self.variance * w / (2.0 - w)).sqrt();
        if (self.quick - self.mean).abs() > CHANGE * error {
            self.mean = self.quick;
            // So many does a moving average of this weight look back on.
            self.counted = (2.0 - w) / w;
        }
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
        self.processors[p].note(ratio, PROCESSOR, sample.at);
        let own = ratio / self.processors[p].mean;
        for segment in sample.first..=sample.last {
            let cell = &mut self.segments[sample.variant.0 as usize][segment as usize * n + p];
            cell.note(own, SEGMENT, sample.at);
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
    fn means_and_variance_by_hand() {
        let mut e = Estimate::default();
        let weights = Weights { quick: 0.25, slow: 0.01 };
        e.note(3.0, weights, at(1.0));
        // d = 2: quick 1.5, variance 0.75 * 0.25 * 4 = 0.75, error sqrt(0.75 / 7) = 0.33; slow (10 * 1 + 3) / 11 is within 3.5 of that.
        assert!((e.quick - 1.5).abs() < 1e-12 && (e.variance - 0.75).abs() < 1e-12, "{e:?}");
        assert!((e.mean - 13.0 / 11.0).abs() < 1e-12, "{e:?}");
        e.note(1.0, weights, at(2.0));
        // d = -0.5: quick 1.375, variance 0.75 * (0.75 + 0.0625), error sqrt(0.609375 / 7) = 0.295; slow 14 / 12.
        assert!((e.quick - 1.375).abs() < 1e-12 && (e.variance - 0.609375).abs() < 1e-12, "{e:?}");
        assert!((e.mean - 14.0 / 12.0).abs() < 1e-12, "{e:?}");
        assert_eq!((e.counted, e.seen, e.at), (12.0, 2, at(2.0)));
        let later = e.now(at(2.0 + 30_000.0));
        assert!((later - (1.0 + 1.0 / 6.0 / std::f64::consts::E)).abs() < 1e-9, "{later}");
    }

    #[test]
    fn a_change_is_noticed_at_once_and_noise_moves_little() {
        let mut random = cosched_env::streams::rng(4, "noise", 0);
        let mut e = Estimate::default();
        let mut draw = |mean: f64| mean * (1.0 + 0.5 * (rand::RngExt::random::<f64>(&mut random) - 0.5));
        let (mut slow, mut quick) = (0.0_f64, 0.0_f64);
        for i in 0..600 {
            e.note(draw(1.0), PROCESSOR, at(f64::from(i)));
            if i >= 200 {
                slow = slow.max((e.mean - 1.0).abs());
                quick = quick.max((e.quick - 1.0).abs());
            }
        }
        // The saboteur is the quick mean: it wavers three times as much.
        assert!(slow < 0.04 && quick > 0.1, "slow {slow}, quick {quick}");
        (0..15).for_each(|i| e.note(draw(3.0), PROCESSOR, at(f64::from(600 + i))));
        assert!(e.mean > 2.5, "{e:?}");
        (0..85).for_each(|i| e.note(draw(3.0), PROCESSOR, at(f64::from(615 + i))));
        assert!((e.mean - 3.0).abs() < 0.2, "{e:?}");
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
