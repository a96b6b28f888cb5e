//! A whole setup as a draft of small whole numbers: what proptest draws and shrinks. Indices are taken modulo what there is, so that
//! every draft builds, whatever was shrunk away. It refuses to draw anything itself.

use cosched_env::case::Case;
use cosched_env::device::{Bandwidth, Device, Frequency, Link, LinkPhase, ProcessorModel, Thermal};
use cosched_env::emulator::{Config, Fault, FaultKind};
use cosched_env::objective::Objective;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{ArrivalKind, Queue, Scenario, Stream};
use cosched_env::scheduler::Options;
use cosched_env::time::{Span, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most processors of a draft.
pub const PROCESSORS: usize = 3;

/// Times without a unit are in tenths of a millisecond: a coarse grid, on which things happen at one moment.
#[derive(Clone, PartialEq)]
pub struct Draft {
    pub processors: Vec<Proc>,
    /// Tenths above 1, taken in turn by the pairs of processors.
    pub contention: Vec<u8>,
    /// The curve's knee in GB/s.
    pub bandwidth: Option<u8>,
    pub heat: Option<Heat>,
    pub variants: Vec<Var>,
    pub streams: Vec<Source>,
    pub faults: Vec<Outage>,
    /// 95th percentile by median in tenths above 1; 0: no spread.
    pub spread: u8,
    pub decision_us: u8,
    pub candidate_us: u8,
    pub failure_percent: u8,
    pub window: u8,
    pub max_failures: u8,
    /// Fairness weight in tenths.
    pub fairness: u8,
    pub seed: u16,
    pub horizon: u16,
    pub chooser: Chooser,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Proc {
    pub slots: u8,
    /// Fixed cost of a copy in 10 us, and rate in GB/s.
    pub copy: (u8, u8),
    pub memory: Option<Mem>,
    /// Speeds of the steps after the first, in tenths.
    pub steps: Vec<u8>,
    pub peak_gbps: u8,
    pub net: Option<Net>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Mem {
    pub mb: u8,
    pub load_gbps: u8,
    pub load_us: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Net {
    pub round_trip: u8,
    pub mbps: u8,
    pub loss_percent: u8,
    pub sigma_tenths: u8,
    pub resend: u8,
    pub tries: u8,
    /// From when on it is twice as slow.
    pub slow_from: Option<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Heat {
    pub trip_k: u8,
    pub kelvin_per_watt: u8,
    pub time_constant_ms: u8,
    pub hysteresis_k: u8,
    pub poll_ms: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Var {
    pub task: u8,
    /// Accuracy in hundredths.
    pub accuracy: u8,
    pub memory_mb: u8,
    pub weights: Option<u8>,
    pub segments: Vec<Seg>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Seg {
    pub costs: [Option<u8>; PROCESSORS],
    /// The processor that surely runs it.
    pub home: u8,
    pub kb: u8,
    pub traffic_mb: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub task: u8,
    pub kind: Kind,
    pub offset: u8,
    pub deadline: u16,
    /// What expiry is later than the deadline; `None`: the default.
    pub patience: Option<u8>,
    pub halves_of_priority: u8,
    pub best_only: bool,
    pub latest: bool,
    /// (closed before, open for) one after another; empty: always open.
    pub open: Vec<(u8, u8)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Periodic { period: u8, jitter: u8 },
    Poisson { period: u8 },
    Bursty { period: u8, burst_tenths: u8, dwell: u8 },
    Trace(Vec<u16>),
    After { stream: u8, percent: u8 },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Outage {
    pub processor: u8,
    pub hangs: bool,
    pub from: u16,
    pub length: i16,
    pub noticed: u8,
}

/// How the run decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Chooser {
    /// The first candidate.
    First,
    /// These in turn, as 256ths of the candidates.
    Turns(Vec<u8>),
    /// By this seed.
    Random(u16),
}

/// A draft turned into what the crate takes.
#[derive(Clone)]
pub struct Setup {
    pub case: Arc<Case>,
    pub options: Options,
    pub config: Config,
    pub seed: u64,
    pub horizon: Time,
    pub chooser: Chooser,
}

fn ms(tenths: impl Into<f64>) -> f64 {
    tenths.into() / 10.0
}

impl Draft {
    pub fn build(&self) -> Setup {
        let plan = self.plan();
        let device = self.device();
        let scenario = self.scenario(&plan);
        let case = Case::on(plan, device, scenario).unwrap_or_else(|e| panic!("drafts are legal: {e}"));
        let faults = self.faults.iter().map(|f| self.fault(f)).collect();
        Setup {
            case: Arc::new(case),
            options: Options { window: self.window.into(), max_failures: self.max_failures.into() },
            config: Config {
                spread: self.spread > 0,
                decision_us: self.decision_us.into(),
                candidate_us: self.candidate_us.into(),
                failure_rate: f64::from(self.failure_percent) / 100.0,
                faults,
            },
            seed: self.seed.into(),
            horizon: Time::ZERO + Span::from_ms(ms(self.horizon)),
            chooser: self.chooser.clone(),
        }
    }

    fn plan(&self) -> Plan {
        let n = self.processors.len();
        let processors = self.processors.iter().enumerate().map(|(p, draft)| ProcessorSpec {
            name: format!("p{p}"),
            device: "drafted".to_owned(),
            slots: draft.slots.into(),
            active_watts: 2.0,
            idle_watts: 0.5,
            copy_us: 10.0 * f64::from(draft.copy.0),
            copy_gbps: draft.copy.1.into(),
            launch_us: 0.0,
            crowd: None,
        });
        let factor = |i: usize| 1.0 + f64::from(self.contention[i % self.contention.len()]) / 10.0;
        let contention = (0..n).map(|i| (0..n).map(|j| factor(i * n + j)).collect()).collect();
        let variants = self.variants.iter().enumerate().map(|(v, draft)| Variant {
            name: format!("v{v}"),
            task: format!("t{}", draft.task),
            accuracy: f64::from(draft.accuracy) / 100.0,
            memory_bytes: u64::from(draft.memory_mb) * 1_000_000,
            weights: draft.weights.map(|w| format!("w{w}")),
            segments: draft.segments.iter().map(|s| self.segment(s, n)).collect(),
            ..Variant::default()
        });
        let (processors, variants) = (processors.collect(), variants.collect());
        Plan { format: PLAN_FORMAT, provenance: BTreeMap::new(), processors, contention, variants }
    }

    fn segment(&self, draft: &Seg, processors: usize) -> SegmentSpec {
        let home = draft.home as usize % processors;
        let cost = |p: usize| {
            let tenths = draft.costs[p].or((p == home).then_some(10))?;
            let mean_us = 100.0 * f64::from(tenths);
            let p95_us = mean_us * (1.0 + f64::from(self.spread) / 10.0);
            Some(Cost { mean_us, p50_us: mean_us, p95_us, energy_mj: mean_us * 2e-3 })
        };
        SegmentSpec {
            name: String::new(),
            input_bytes: u64::from(draft.kb) * 1000,
            output_bytes: u64::from(draft.kb) * 1000,
            traffic_bytes: u64::from(draft.traffic_mb) * 1_000_000,
            costs: (0..processors).map(cost).collect(),
        }
    }

    fn device(&self) -> Device {
        let models = self.processors.iter().enumerate().map(|(p, draft)| {
            // What surely runs a segment has room for its variant.
            let n = self.processors.len();
            let at_home = |v: &&Var| v.segments.iter().any(|s| s.home as usize % n == p);
            let needed = self.variants.iter().filter(at_home).map(|v| v.memory_mb).max().unwrap_or(0);
            let step =
                |tenths: f64| Frequency { mhz: 1000.0 * tenths, speed: tenths / 10.0, power: tenths / 10.0 };
            let mut steps = draft.steps.clone();
            steps.sort_by_key(|&tenths| std::cmp::Reverse(tenths));
            steps.insert(0, 10);
            let model = ProcessorModel {
                frequencies: steps.iter().map(|&tenths| step(tenths.into())).collect(),
                peak_gbps: draft.peak_gbps.into(),
                memory_mb: draft.memory.as_ref().map_or(0.0, |m| m.mb.max(needed).into()),
                load_gbps: draft.memory.as_ref().map_or(0.0, |m| m.load_gbps.into()),
                load_us: draft.memory.as_ref().map_or(0.0, |m| m.load_us.into()),
                link: draft.net.as_ref().map(link),
            };
            (format!("p{p}"), model)
        });
        let thermal = self.heat.as_ref().map(|h| Thermal {
            ambient_c: 25.0,
            kelvin_per_watt: h.kelvin_per_watt.into(),
            time_constant_s: f64::from(h.time_constant_ms) / 1e3,
            start_c: None,
            trip_c: 25.0 + f64::from(h.trip_k),
            hysteresis_c: h.hysteresis_k.into(),
            poll_ms: h.poll_ms.into(),
            base_watts: 0.0,
        });
        let curve = |knee: f64| vec![[knee, knee], [2.0 * knee, 1.4 * knee], [4.0 * knee, 1.6 * knee]];
        let bandwidth = self.bandwidth.map(|knee| Bandwidth { curve: curve(knee.into()) });
        Device { bandwidth, thermal, processors: models.collect() }
    }

    fn scenario(&self, plan: &Plan) -> Scenario {
        let streams = (0..self.streams.len()).map(|i| self.stream(i, plan)).collect();
        let fairness_weight = f64::from(self.fairness) / 10.0;
        let continuity_weight = fairness_weight.min(1.0);
        let objective = Objective { fairness_weight, continuity_weight, ..Objective::default() };
        Scenario { name: "drafted".to_owned(), streams, objective }
    }

    fn stream(&self, i: usize, plan: &Plan) -> Stream {
        let draft = &self.streams[i];
        let task = plan.variants[draft.task as usize % plan.variants.len()].task.clone();
        let best = plan.variants.iter().filter(|v| v.task == task).map(|v| v.accuracy).fold(0.0, f64::max);
        let deadline_ms = ms(draft.deadline);
        let mut from = 0.0;
        let open = draft.open.iter().map(|&(closed, open)| {
            let window = [from + ms(closed), from + ms(closed) + ms(open)];
            from = window[1];
            window
        });
        let mut stream = Stream {
            name: format!("s{i}"),
            task,
            offset_ms: ms(draft.offset),
            deadline_ms,
            expire_ms: draft.patience.map_or(0.0, |p| deadline_ms + ms(p)),
            priority: f64::from(draft.halves_of_priority) / 2.0,
            min_accuracy: if draft.best_only { best } else { 0.0 },
            queue: if draft.latest { Queue::Latest } else { Queue::Fifo },
            open_ms: open.collect(),
            ..Stream::default()
        };
        let mut comes = |kind, period: u8| (stream.kind, stream.period_ms) = (kind, ms(period));
        match &draft.kind {
            Kind::Periodic { period, jitter } => {
                comes(ArrivalKind::Periodic, *period);
                stream.jitter_ms = ms(*jitter);
            }
            Kind::Poisson { period } => comes(ArrivalKind::Poisson, *period),
            Kind::Bursty { period, burst_tenths, dwell } => {
                comes(ArrivalKind::Bursty, *period);
                stream.burst = 1.0 + f64::from(*burst_tenths) / 10.0;
                stream.dwell_ms = ms(*dwell);
            }
            Kind::Trace(times) => {
                let mut times = times.clone();
                times.sort_unstable();
                stream.kind = ArrivalKind::Trace;
                stream.times_ms = times.into_iter().map(ms).collect();
            }
            // The first stream has nothing to follow.
            Kind::After { .. } if i == 0 => comes(ArrivalKind::Periodic, 100),
            Kind::After { stream: parent, percent } => {
                stream.kind = ArrivalKind::Dependent;
                stream.after = format!("s{}", *parent as usize % i);
                stream.probability = f64::from(*percent) / 100.0;
            }
        }
        stream
    }

    fn fault(&self, draft: &Outage) -> Fault {
        Fault {
            processor: format!("p{}", draft.processor as usize % self.processors.len()),
            kind: if draft.hangs { FaultKind::Hang } else { FaultKind::Die },
            from_ms: ms(draft.from),
            to_ms: ms(f64::from(draft.from) + f64::from(draft.length)).max(0.0),
            noticed_ms: ms(draft.noticed),
            ..Fault::default()
        }
    }
}

fn link(net: &Net) -> Link {
    let phase = |from: u8, slower: f64| LinkPhase {
        from_ms: ms(from),
        round_trip_ms: slower * ms(net.round_trip),
        mbps: f64::from(net.mbps) / slower,
        loss: f64::from(net.loss_percent) / 100.0,
    };
    let mut phases = vec![phase(0, 1.0)];
    phases.extend(net.slow_from.map(|from| phase(from, 2.0)));
    let sigma = f64::from(net.sigma_tenths) / 10.0;
    Link { phases, sigma, resend_ms: ms(net.resend), tries: net.tries.into() }
}
