//! The emulated world: a discrete-event model of the device that the plan describes.
//! Deterministic by seed. It refuses to know what a policy is: it only runs launches and tells what happened.

use crate::case::{Case, ProcessorId};
use crate::event::{Completion, Ended, Event, Launch};
use crate::scheduler::Scheduler;
use crate::streams::{Arrivals, rng};
use crate::time::{Span, Time};
use crate::world::{Decision, World};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// How the emulated device departs from its plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether latencies spread as the plan says (log-normal) or are always the mean.
    pub spread: bool,
    /// What one decision costs, in microseconds: charged to the clock.
    pub decision_us: f64,
    /// What each candidate of a decision costs on top, in microseconds.
    pub candidate_us: f64,
    /// Probability that a launch fails.
    pub failure_rate: f64,
    /// Processors that die or hang and come back; one that ends before it begins is none.
    pub faults: Vec<Fault>,
}

impl Default for Config {
    fn default() -> Self {
        Self { spread: true, decision_us: 5.0, candidate_us: 0.2, failure_rate: 0.0, faults: Vec::new() }
    }
}

/// A processor does not work for a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Name of the processor.
    pub processor: String,
    /// What happens to it.
    #[serde(default)]
    pub kind: FaultKind,
    /// When it begins, in milliseconds.
    pub from_ms: f64,
    /// When the processor is back, in milliseconds.
    pub to_ms: f64,
    /// A hang is noticed so many milliseconds after it began, which kills what runs; 0: never, everything goes on when it is over.
    #[serde(default)]
    pub noticed_ms: f64,
}

/// What happens to a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It dies: its running launches fail, and everybody knows.
    #[default]
    Die,
    /// It stands still: its running launches make no progress, and nobody is told.
    Hang,
}

/// A launch on its way.
#[derive(Clone)]
struct Running {
    launch: Launch,
    started: Time,
    /// Nanoseconds before it begins to make progress (what deciding cost).
    delay_ns: f64,
    /// Nanoseconds of work left at full speed.
    work_ns: f64,
    /// Nanoseconds of work at full speed in all: what brings the inputs, and the segments.
    total_ns: f64,
    /// Nanoseconds of the segments alone at full speed.
    alone_ns: f64,
    /// Energy of the whole launch at full speed.
    energy_mj: f64,
    fails: bool,
}

/// The emulated world; see the module's text. A clone goes on by itself.
#[derive(Clone)]
pub struct Emulator {
    case: Arc<Case>,
    config: Config,
    rng: Pcg64Mcg,
    now: Time,
    /// When the decider is done with what it has been asked so far; it hears and launches nothing before.
    decider_free: Time,
    arrivals: Arrivals,
    running: Vec<Running>,
    /// Slow-down of each running launch, kept in step with `running`.
    rates: Vec<f64>,
    /// (time, processor, up), soonest last.
    health: Vec<(Time, ProcessorId, bool)>,
    /// Per processor: outages that it is in.
    outages: Vec<u32>,
    ready: VecDeque<(Time, Event)>,
}

impl Emulator {
    /// A device at time zero; requests arrive before `horizon`.
    pub fn new(case: Arc<Case>, config: Config, seed: u64, horizon: Time) -> Emulator {
        let mut health: Vec<_> = config
            .faults
            .iter()
            .filter(|f| f.from_ms < f.to_ms)
            .filter_map(|f| {
                let at = |ms: f64| Time::ZERO + Span::from_ms(ms);
                let id = ProcessorId(case.plan.processors.iter().position(|p| p.name == f.processor)? as u16);
                Some([(at(f.from_ms), id, false), (at(f.to_ms), id, true)])
            })
            .flatten()
            .collect();
        health.sort();
        health.reverse();
        Emulator {
            rng: rng(seed, "latency", 0),
            arrivals: Arrivals::new(case.clone(), seed, horizon),
            outages: vec![0; case.processor_count()],
            case,
            config,
            now: Time::ZERO,
            decider_free: Time::ZERO,
            running: Vec::new(),
            rates: Vec::new(),
            health,
            ready: VecDeque::new(),
        }
    }

    fn dead(&self, processor: ProcessorId) -> bool {
        self.outages[processor.0 as usize] > 0
    }

    /// A device as somebody sees it who knows no more than the decision core: what runs ends when it is expected to, what is up
    /// stays up, and requests go on arriving as [`Arrivals::resume`] says. For searches that look ahead.
    pub fn resume(core: &Scheduler, config: Config, seed: u64, horizon: Time) -> Emulator {
        let case = core.case().clone();
        // Numbers that no request of the true world is near.
        let calm = Config { failure_rate: 0.0, faults: Vec::new(), ..config };
        let mut emulator = Emulator::new(case.clone(), calm, seed, horizon);
        let last = |stream| core.last_arrival(stream);
        emulator.arrivals = Arrivals::resume(case.clone(), seed, core.now(), horizon, 1 << 62, &last);
        emulator.now = core.now();
        emulator.decider_free = core.now();
        for (p, outages) in emulator.outages.iter_mut().enumerate() {
            *outages = u32::from(!core.is_up(ProcessorId(p as u16)));
        }
        for (launch, end) in core.running() {
            let mut running = emulator.begin(launch, 1.0);
            running.work_ns = end.since(core.now()).0 as f64;
            emulator.running.push(running);
        }
        emulator.retime();
        // What is expected counts the slow-down already.
        for (r, rate) in emulator.running.iter_mut().zip(&emulator.rates) {
            r.work_ns /= rate;
        }
        emulator
    }

    /// No more requests at `horizon` or later; see [`Arrivals::stop_at`].
    pub fn stop_arrivals(&mut self, horizon: Time) {
        self.arrivals.stop_at(horizon);
    }

    /// What the next wait would see first.
    fn step(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let soonest = self.soonest(until)?;
            let completion = self.next_completion();
            let health = self.health.last().map(|h| h.0);
            let arrival = self.arrivals.peek();
            self.advance(soonest);
            // Ties: completions, then health, then arrivals, then the alarm.
            if let Some((time, index)) = completion
                && time == soonest
            {
                let event = self.complete(index, None);
                return Some((time, event));
            }
            if health == Some(soonest) {
                self.change_health();
                continue;
            }
            if arrival == Some(soonest) {
                let request = self.arrivals.next()?;
                return Some((soonest, Event::Arrived(request)));
            }
            return Some((soonest, Event::Alarm));
        }
    }

    /// When something happens next, at the latest at `until`.
    fn soonest(&self, until: Option<Time>) -> Option<Time> {
        let completion = self.next_completion().map(|c| c.0);
        let health = self.health.last().map(|h| h.0);
        [completion, health, self.arrivals.peek(), until].into_iter().flatten().min()
    }

    /// A launch as it begins, `spread` times as long as the plan's mean.
    fn begin(&self, launch: &Launch, spread: f64) -> Running {
        let table = self.case.variant(launch.variant);
        let (p, first, last) = (launch.processor, launch.first, launch.last);
        let bringing = self.case.transfer_ns(launch.variant, first, launch.inputs_on, p)
            + self.case.load_ns(p, launch.load_bytes);
        let alone_ns = table.latency_ns(p, first, last) * spread;
        Running {
            launch: *launch,
            started: self.now.max(self.decider_free),
            delay_ns: self.decider_free.since(self.now).0 as f64,
            work_ns: bringing + alone_ns,
            total_ns: bringing + alone_ns,
            alone_ns,
            energy_mj: table.energy_mj(p, first, last) * spread,
            fails: false,
        }
    }

    /// (time, index) of the launch that completes next if nothing changes; ties: the oldest launch.
    fn next_completion(&self) -> Option<(Time, usize)> {
        let ends = self.running.iter().zip(&self.rates).enumerate().map(|(i, (r, rate))| {
            let left = r.delay_ns + r.work_ns * rate;
            (self.now + Span(left.ceil() as u64), r.launch.id, i)
        });
        ends.min().map(|(time, _, i)| (time, i))
    }

    /// Moves the clock; running launches make progress at their present rates.
    fn advance(&mut self, to: Time) {
        let elapsed = to.since(self.now).0 as f64;
        for (r, rate) in self.running.iter_mut().zip(&self.rates) {
            let delayed = elapsed.min(r.delay_ns);
            r.delay_ns -= delayed;
            r.work_ns = (r.work_ns - (elapsed - delayed) / rate).max(0.0);
        }
        self.now = self.now.max(to);
    }

    /// Re-times all launches: the set of running ones has changed.
    fn retime(&mut self) {
        self.rates.clear();
        for r in &self.running {
            let others = self.running.iter().map(|o| o.launch.processor);
            self.rates.push(self.case.slowdown(r.launch.processor, others));
        }
    }

    fn complete(&mut self, index: usize, death: Option<&str>) -> Event {
        let r = self.running.remove(index);
        self.retime();
        let failure = death.or(r.fails.then_some("the emulated launch failed")).map(str::to_owned);
        let elapsed = self.now.since(r.started).0 as f64;
        let spec = self.case.processor(r.launch.processor);
        // A launch that died half way took half of the energy.
        let done = if r.total_ns > 0.0 { 1.0 - r.work_ns / r.total_ns } else { 1.0 };
        // While it waited for its inputs or for memory it drew half the active power, since it was starved.
        let starved_ns = (elapsed - done * r.alone_ns).max(0.0);
        let energy_mj = done * r.energy_mj + 0.5 * spec.active_watts * starved_ns / 1e6;
        Event::Completed(Completion {
            launch: r.launch.id,
            started: r.started,
            // It may have died before the decider was done and it could start.
            finished: self.now.max(r.started),
            energy_mj,
            failure,
        })
    }

    fn change_health(&mut self) {
        let Some((time, processor, up)) = self.health.pop() else { return };
        let outages = &mut self.outages[processor.0 as usize];
        let before = *outages;
        *outages = if up { before - 1 } else { before + 1 };
        // Of overlapping outages only the first begin and the last end change anything.
        if (before == 0) == (*outages == 0) {
            return;
        }
        self.ready.push_back((time, Event::Health { processor, up }));
        while self.dead(processor) {
            let Some(index) = self.running.iter().position(|r| r.launch.processor == processor) else {
                break;
            };
            let event = self.complete(index, Some("the emulated processor died"));
            self.ready.push_back((time, event));
        }
    }
}

impl World for Emulator {
    fn launch(&mut self, launch: &Launch) {
        let (p, first, last) = (launch.processor, launch.first, launch.last);
        let spread = if self.config.spread {
            let sigma = self.case.variant(launch.variant).log_sigma(p, first, last);
            let normal: f64 = StandardNormal.sample(&mut self.rng);
            // Mean 1: the mean of a log-normal is exp(mu + sigma^2 / 2).
            (sigma * normal - sigma * sigma / 2.0).exp()
        } else {
            1.0
        };
        let fails = self.config.failure_rate > 0.0 && self.rng.random::<f64>() < self.config.failure_rate;
        let running = Running { fails, ..self.begin(launch, spread) };
        self.running.push(running);
        self.retime();
        if self.dead(p) {
            let event = self.complete(self.running.len() - 1, Some("the emulated processor is dead"));
            self.ready.push_back((self.now, event));
        }
    }

    fn ready(&mut self, now: Time) -> Option<Event> {
        let due = self.ready.front().map(|e| e.0).or_else(|| self.soonest(None))?;
        if due > now { None } else { self.step(None).map(|(_, event)| event) }
    }

    fn ended(&mut self, ended: &Ended) {
        self.arrivals.ended(ended);
    }

    fn wait(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        let (time, event) = self.step(until)?;
        // Deciding took time: what happened meanwhile is only heard of when it is over.
        Some((time.max(self.decider_free), event))
    }

    fn decided(&mut self, _: Decision, candidates: usize) {
        let cost_us = self.config.decision_us + self.config.candidate_us * candidates as f64;
        self.decider_free = self.decider_free.max(self.now) + Span::from_ns(1e3 * cost_us);
    }
}
