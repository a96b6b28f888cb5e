//! The emulated world: a discrete-event model of the device that the plan describes.
//! Deterministic by seed. It refuses to know what a policy is: it only runs launches and tells what happened.

use crate::case::{Case, ProcessorId};
use crate::event::{Completion, Event, Launch};
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
    /// Processors that die and come back; one that ends before it begins is none.
    pub outages: Vec<Outage>,
}

impl Default for Config {
    fn default() -> Self {
        Self { spread: true, decision_us: 5.0, candidate_us: 0.2, failure_rate: 0.0, outages: Vec::new() }
    }
}

/// A processor is dead for a while; its running launches fail when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// Index of the processor.
    pub processor: u16,
    /// When it dies, in milliseconds.
    pub from_ms: f64,
    /// When it is back, in milliseconds.
    pub to_ms: f64,
}

/// A launch on its way.
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

/// The emulated world; see the module's text.
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
            .outages
            .iter()
            .filter(|o| (o.processor as usize) < case.processor_count() && o.from_ms < o.to_ms)
            .flat_map(|o| {
                let at = |ms: f64| Time::ZERO + Span::from_ms(ms);
                let id = ProcessorId(o.processor);
                [(at(o.from_ms), id, false), (at(o.to_ms), id, true)]
            })
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

    /// What the next wait would see first.
    fn step(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let completion = self.next_completion();
            let health = self.health.last().map(|h| h.0);
            let arrival = self.arrivals.peek();
            let soonest = [completion.map(|c| c.0), health, arrival, until].into_iter().flatten().min()?;
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
            // It may have died before the decider was done and it could start.
            started: r.started.min(self.now),
            finished: self.now,
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
        let table = self.case.variant(launch.variant);
        let (p, first, last) = (launch.processor, launch.first, launch.last);
        let spread = if self.config.spread {
            let sigma = table.log_sigma(p, first, last);
            let normal: f64 = StandardNormal.sample(&mut self.rng);
            // Mean 1: the mean of a log-normal is exp(mu + sigma^2 / 2).
            (sigma * normal - sigma * sigma / 2.0).exp()
        } else {
            1.0
        };
        let fails = self.config.failure_rate > 0.0 && self.rng.random::<f64>() < self.config.failure_rate;
        let transfer = self.case.transfer_ns(launch.variant, first, launch.inputs_on, p);
        let alone_ns = table.latency_ns(p, first, last) * spread;
        let running = Running {
            launch: *launch,
            started: self.now.max(self.decider_free),
            delay_ns: self.decider_free.since(self.now).0 as f64,
            work_ns: transfer + alone_ns,
            total_ns: transfer + alone_ns,
            alone_ns,
            energy_mj: table.energy_mj(p, first, last) * spread,
            fails,
        };
        self.running.push(running);
        self.retime();
        if self.dead(p) {
            let event = self.complete(self.running.len() - 1, Some("the emulated processor is dead"));
            self.ready.push_back((self.now, event));
        }
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
