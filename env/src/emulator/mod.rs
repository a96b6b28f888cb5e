//! The emulated world: a discrete-event model of the device that the plan and the device file describe.
//! Deterministic by seed. It refuses to know what a policy is: it only runs launches and tells what happened.
//!
//! Between two events every launch has one pace and every processor one power, so progress, energy and temperature are exact
//! however long that is. A launch counts among the running ones from the moment it is handed over to its end, on the link too.

mod config;
mod faults;
mod link;
mod power;
mod resume;
mod running;
mod thermal;

pub use config::{Config, Fault, FaultKind};
pub use power::Meter;

use crate::case::{Case, ProcessorId};
use crate::device::{Link, LinkPhase};
use crate::event::{Ended, Event, Launch};
use crate::streams::{Arrivals, rng};
use crate::time::{Span, Time};
use crate::world::{Decision, World};
use faults::{Change, Faults};
use power::Meters;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use running::{Conditions, Running, Work};
use std::collections::VecDeque;
use std::sync::Arc;
use thermal::Heat;

/// The emulated world; see the module's text. A clone goes on by itself.
#[derive(Clone)]
pub struct Emulator {
    case: Arc<Case>,
    config: Config,
    /// Whether it behaves as the core expects and not as the device does: links as in their first phase.
    as_expected: bool,
    rng: Pcg64Mcg,
    link_rng: Pcg64Mcg,
    now: Time,
    /// Up to when launches, meters and temperature have been brought.
    brought: Time,
    /// When the decider is done with what it has been asked so far; it hears and launches nothing before.
    decider_free: Time,
    arrivals: Arrivals,
    /// Oldest first.
    running: Vec<Running>,
    /// (time, index) of the launch that completes next if nothing changes; ties: the oldest launch.
    first: Option<(Time, usize)>,
    faults: Faults,
    heat: Option<Heat>,
    /// Per processor: index of its frequency step.
    steps: Vec<usize>,
    /// Per processor: actual by planned latency; empty: as planned.
    drifts: Vec<f64>,
    meters: Meters,
    ready: VecDeque<(Time, Event)>,
}

/// What happens next. The order breaks ties.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Completion,
    Fault,
    /// The governor looks at the temperature.
    Look,
    Arrival,
}

impl Emulator {
    /// A device at time zero; requests arrive before `horizon`.
    pub fn new(case: Arc<Case>, config: Config, seed: u64, horizon: Time) -> Emulator {
        let processors = case.processor_count();
        Emulator {
            as_expected: false,
            rng: rng(seed, "latency", 0),
            link_rng: rng(seed, "link", 0),
            arrivals: Arrivals::new(case.clone(), seed, horizon),
            now: Time::ZERO,
            brought: Time::ZERO,
            decider_free: Time::ZERO,
            running: Vec::new(),
            first: None,
            faults: Faults::new(&case, &config),
            heat: case.device.thermal.map(Heat::new),
            steps: vec![0; processors],
            meters: Meters::new(processors),
            drifts: Vec::new(),
            ready: VecDeque::new(),
            case,
            config,
        }
    }

    /// No more requests at `horizon` or later; see [`Arrivals::stop_at`].
    pub fn stop_arrivals(&mut self, horizon: Time) {
        self.arrivals.stop_at(horizon);
    }

    /// What each processor did and drew until the last event, in plan order.
    pub fn meters(&mut self) -> Vec<Meter> {
        self.bring();
        self.meters.read(&self.case, self.now)
    }

    /// Temperature of the device at the last event, in degrees Celsius; `None` where none is modelled.
    pub fn celsius(&mut self) -> Option<f64> {
        self.bring();
        self.heat.as_ref().map(|heat| heat.celsius)
    }

    /// The frequency step that a processor is in: an index into [`crate::device::ProcessorModel::frequencies`].
    pub fn step_of(&self, processor: ProcessorId) -> usize {
        self.steps[processor.0 as usize]
    }

    /// Lets everything happen that is due by `limit` (`None`: without end) up to the first event that is told.
    fn happen(&mut self, limit: Option<Time>) -> Option<(Time, Event)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let (time, due) = self.due(limit)?;
            self.now = self.now.max(time);
            match (due, self.first) {
                (Due::Completion, Some((_, index))) => {
                    let event = self.complete(index, None);
                    return Some((self.now, event));
                }
                (Due::Arrival, _) => {
                    let request = self.arrivals.next()?;
                    return Some((self.now, Event::Arrived(request)));
                }
                (Due::Look, _) => self.look(limit),
                _ => self.change_health(),
            }
        }
    }

    /// What is due next by `limit`. The governor alone keeps no world alive.
    fn due(&self, limit: Option<Time>) -> Option<(Time, Due)> {
        let event = self.next_event();
        let look = self.heat.as_ref().map(|heat| (heat.next_look, Due::Look));
        let look = look.filter(|_| event.is_some() || limit.is_some());
        let due = [event, look].into_iter().flatten().min()?;
        limit.is_none_or(|limit| due.0 <= limit).then_some(due)
    }

    /// The next of what happens by itself; the governor's looks do not count.
    fn next_event(&self) -> Option<(Time, Due)> {
        let completion = self.first.map_or(Time::NEVER, |first| first.0);
        let fault = self.faults.next().unwrap_or(Time::NEVER);
        let arrival = self.arrivals.peek().unwrap_or(Time::NEVER);
        // The order breaks ties.
        let next = if completion <= fault.min(arrival) {
            (completion, Due::Completion)
        } else if fault <= arrival {
            (fault, Due::Fault)
        } else {
            (arrival, Due::Arrival)
        };
        (next.0 != Time::NEVER).then_some(next)
    }

    /// A launch as it begins, `spread` times as long as the plan's mean. It does not cross its link yet.
    fn begin(&self, launch: &Launch, spread: f64) -> Running {
        let table = self.case.variant(launch.variant);
        let (p, first, last) = (launch.processor, launch.first, launch.last);
        let remote = self.link_of(p).is_some();
        let transfer_ns =
            if remote { 0.0 } else { self.case.transfer_ns(launch.variant, first, launch.inputs_on, p) };
        let work = Work {
            delay_ns: self.decider_free.since(self.now).0 as f64,
            bringing_ns: (transfer_ns + self.case.load_ns(p, launch.load_bytes)) * self.drift(p),
            alone_ns: table.latency_ns(p, first, last) * spread * self.drift(p),
            energy_mj: table.energy_mj(p, first, last) * spread,
            starved_watts: 0.5 * self.case.processor(p).active_watts,
        };
        let started = self.now.max(self.decider_free);
        Running::new(launch, started, table.demand_gbps(p, first, last), work)
    }

    /// Actual by planned latency of a processor, as it was last known.
    fn drift(&self, processor: ProcessorId) -> f64 {
        self.drifts.get(processor.0 as usize).copied().unwrap_or(1.0)
    }

    fn link_of(&self, processor: ProcessorId) -> Option<&Link> {
        self.case.processors[processor.0 as usize].model.link.as_ref()
    }

    /// Brings launches, meters and temperature up to now.
    fn bring(&mut self) {
        let left = self.now.since(self.brought).0 as f64;
        self.brought = self.now;
        match self.heat {
            _ if left <= 0.0 => {}
            None => self.pass(left),
            Some(_) => self.pass_in_heat(left),
        }
    }

    /// So many nanoseconds pass, in pieces in which power is constant.
    // Never inlined: the compiler would work out the temperature ahead of the question whether there is one, and with the
    // bytes of no temperature that costs as much as the rest.
    #[inline(never)]
    fn pass_in_heat(&mut self, mut left: f64) {
        while left > 0.0 {
            let piece = self.running.iter().map(Running::steady_ns).fold(left, f64::min);
            let watts = self.watts();
            self.heat.iter_mut().for_each(|heat| heat.pass(piece, watts));
            self.pass(piece);
            left -= piece;
        }
    }

    /// So many nanoseconds pass for launches and meters.
    fn pass(&mut self, ns: f64) {
        self.meters.turn_over();
        for running in &mut self.running {
            let (there, taken) = running.pass(ns);
            self.meters.note(running.launch.processor, there, taken);
        }
    }

    /// Watts that all processors draw now.
    fn watts(&self) -> f64 {
        let active: f64 = self.running.iter().map(Running::watts).sum();
        let busy =
            |p: usize| self.running.iter().any(|r| r.launch.processor.0 as usize == p && r.has_begun());
        let idle = self.case.plan.processors.iter().enumerate().filter(|&(p, _)| !busy(p));
        active + idle.map(|(_, spec)| spec.idle_watts).sum::<f64>()
    }

    /// Re-times all launches: which ones run, or how fast their processors are, has changed.
    fn retime(&mut self) {
        let all_gbps = self.running.iter().map(|r| r.demand_gbps).sum();
        for index in 0..self.running.len() {
            let conditions = self.conditions(&self.running[index], all_gbps);
            self.running[index].meet(conditions, self.now);
        }
        self.find_first();
    }

    /// What a launch meets while all running launches ask for `all_gbps`.
    fn conditions(&self, running: &Running, all_gbps: f64) -> Conditions {
        let p = running.launch.processor;
        let slowdown = if self.case.disturbing {
            let others = self.running.iter().map(|o| o.launch.processor);
            self.case.disturbance(p, running.demand_gbps, others, all_gbps)
        } else {
            1.0
        };
        let frequencies = &self.case.processors[p.0 as usize].model.frequencies;
        let step = frequencies.get(self.steps[p.0 as usize]);
        let (speed, power) = step.map_or((1.0, 1.0), |f| (f.speed, f.power));
        let speed = speed * self.faults.speed(p);
        Conditions { slowdown, speed, power, still: self.faults.is_still(p) }
    }

    fn find_first(&mut self) {
        let ends = self.running.iter().enumerate().map(|(i, r)| (r.ends, i));
        self.first = ends.filter(|&(time, _)| time != Time::NEVER).min();
    }

    /// Ends a launch now. The others go on in its absence.
    fn complete(&mut self, index: usize, death: Option<&str>) -> Event {
        self.bring();
        let running = self.running.remove(index);
        if self.case.disturbing {
            self.retime();
        } else {
            self.find_first();
        }
        Event::Completed(running.complete(self.now, death))
    }

    fn change_health(&mut self) {
        self.bring();
        match self.faults.turn() {
            None => {}
            Some(Change::Pace) => self.retime(),
            Some(Change::Up(processor)) => {
                self.ready.push_back((self.now, Event::Health { processor, up: true }));
            }
            Some(Change::Down(processor, why)) => {
                self.ready.push_back((self.now, Event::Health { processor, up: false }));
                while let Some(index) = self.running.iter().position(|r| r.launch.processor == processor) {
                    let event = self.complete(index, Some(why));
                    self.ready.push_back((self.now, event));
                }
            }
        }
    }

    /// The governor looks, and moves every processor that has frequency steps. Nothing else is due before `limit` and the next event.
    fn look(&mut self, limit: Option<Time>) {
        self.bring();
        let Some(heat) = &mut self.heat else { return };
        let wanted = heat.look();
        let (mut moved, mut fastest, mut slowest) = (false, true, true);
        for (step, processor) in self.steps.iter_mut().zip(&self.case.processors) {
            let last = processor.model.frequencies.len().saturating_sub(1);
            let before = *step;
            match wanted {
                std::cmp::Ordering::Greater => *step = (*step + 1).min(last),
                std::cmp::Ordering::Less => *step = step.saturating_sub(1),
                std::cmp::Ordering::Equal => {}
            }
            moved |= *step != before;
            fastest &= *step == 0;
            slowest &= *step == last;
        }
        if moved {
            self.retime();
        }
        let event = self.next_event().map(|e| e.0);
        let until = [event, limit].into_iter().flatten().min();
        if let Some(until) = until
            && self.running.iter().all(|r| r.steady_ns().is_infinite())
        {
            let watts = self.watts();
            self.heat.iter_mut().for_each(|heat| heat.skip_looks(until, watts, fastest, slowest));
        }
    }

    /// Draws what a launch meets on its link, if its processor is behind one.
    fn cross_link(&mut self, running: &mut Running) {
        let launch = &running.launch;
        let Some(link) = &self.case.processors[launch.processor.0 as usize].model.link else { return };
        let table = self.case.variant(launch.variant);
        let bytes = table.input_bytes[launch.first as usize] + table.output_bytes[launch.last as usize];
        let phase = if self.as_expected {
            LinkPhase { loss: 0.0, ..link.phases[0] }
        } else {
            *link::phase_at(link, running.started)
        };
        running.cross(link::cross(link, &phase, bytes, self.config.spread, &mut self.link_rng));
    }
}

impl World for Emulator {
    fn launch(&mut self, launch: &Launch) {
        self.bring();
        let p = launch.processor;
        let spread = if self.config.spread {
            let sigma = self.case.variant(launch.variant).log_sigma(p, launch.first, launch.last);
            link::log_normal(sigma, &mut self.rng)
        } else {
            1.0
        };
        let fails = self.config.failure_rate > 0.0 && self.rng.random::<f64>() < self.config.failure_rate;
        let mut running = self.begin(launch, spread);
        running.fails = fails.then_some("the emulated launch failed");
        self.cross_link(&mut running);
        if self.case.disturbing {
            self.running.push(running);
            self.retime();
        } else {
            // It disturbs nobody: the others keep their times.
            running.meet(self.conditions(&running, 0.0), self.now);
            self.running.push(running);
            self.find_first();
        }
        if self.faults.is_down(p) {
            let event = self.complete(self.running.len() - 1, Some("the emulated processor is down"));
            self.ready.push_back((self.now, event));
        }
    }

    fn ready(&mut self, now: Time) -> Option<Event> {
        self.happen(Some(now)).map(|(_, event)| event)
    }

    fn ended(&mut self, ended: &Ended) {
        self.arrivals.ended(ended);
    }

    fn wait(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        let (time, event) = match self.happen(until) {
            Some(told) => told,
            None => {
                self.now = self.now.max(until?);
                (self.now, Event::Alarm)
            }
        };
        // Deciding took time: what happened meanwhile is only heard of when it is over.
        Some((time.max(self.decider_free), event))
    }

    fn decided(&mut self, _: Decision, candidates: usize) {
        let cost_us = self.config.decision_us + self.config.candidate_us * candidates as f64;
        self.decider_free = self.decider_free.max(self.now) + Span::from_ns(1e3 * cost_us);
    }
}
