//! The live world of a server with everything counted that passes it, and a policy that cannot bring the server down. It refuses to
//! change what passes.

use super::rolling::{Rolling, lock};
use super::stats::Stats;
use cosched_env::event::{Ended, Event, Launch, LaunchId, RequestId};
use cosched_env::observation::Observation;
use cosched_env::time::Time;
use cosched_env::world::{Decision, Policy, World};
use cosched_executors::inject::{How, Striker};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A world whose events are counted.
pub struct Watched<W> {
    world: W,
    stats: Arc<Stats>,
    /// Where each processor is counted.
    slots: Vec<usize>,
    /// Where the launches that run are counted, and for whom they run; nobody: who asked has gone.
    running: BTreeMap<LaunchId, (usize, Option<RequestId>)>,
    deciding: Option<Instant>,
}

impl<W: World> Watched<W> {
    /// Around a world.
    pub fn new(world: W, stats: Arc<Stats>, slots: Vec<usize>) -> Watched<W> {
        Watched { world, stats, slots, running: BTreeMap::new(), deciding: None }
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::Completed(c) => {
                let Some((on, wanted)) = self.running.remove(&c.launch) else { return };
                let ns = c.finished.since(c.started).0;
                let mut counted = self.stats.lock();
                let processor = &mut counted.processors[on];
                processor.busy_ns += ns;
                processor.energy_mj += c.energy_mj;
                processor.launches.add(ns);
                match (&c.failure, wanted) {
                    (None, _) => processor.good += 1,
                    (Some(_), Some(_)) => processor.failed += 1,
                    (Some(_), None) => processor.stopped += 1,
                }
            }
            Event::Health { processor, up } => {
                self.stats.lock().processors[self.slots[processor.0 as usize]].up = *up;
            }
            Event::Withdrawn { request } => {
                let of = |(_, wanted): &&mut (usize, Option<RequestId>)| *wanted == Some(*request);
                self.running.values_mut().filter(of).for_each(|(_, wanted)| *wanted = None);
            }
            Event::Arrived(_) | Event::Alarm => {}
        }
    }
}

impl<W: World> World for Watched<W> {
    fn launch(&mut self, launch: &Launch) {
        let on = self.slots[launch.processor.0 as usize];
        self.running.insert(launch.id, (on, Some(launch.request)));
        self.world.launch(launch);
    }

    fn wait(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        let (time, event) = self.world.wait(until)?;
        self.count(&event);
        Some((time, event))
    }

    fn ready(&mut self, now: Time) -> Option<Event> {
        let event = self.world.ready(now)?;
        self.count(&event);
        Some(event)
    }

    fn deciding(&mut self) {
        self.deciding = Some(Instant::now());
        self.world.deciding();
    }

    fn decided(&mut self, decision: Decision, candidates: usize) {
        if let Some(begun) = self.deciding.take() {
            self.stats.lock().decisions.add(begun.elapsed().as_nanos() as u64);
        }
        self.world.decided(decision, candidates);
    }

    fn ended(&mut self, ended: &Ended) {
        self.world.ended(ended);
    }
}

/// A policy that cannot bring the server down: where it panics, chooses what is no candidate, or takes too long, the fallback decides in
/// its place. Every decision is kept with its candidates. A decision that never ends cannot be broken off: it runs on this thread.
pub struct Guarded {
    policy: Box<dyn Policy>,
    fallback: Box<dyn Policy>,
    /// A choice that took longer is not taken.
    budget: Duration,
    /// After such a choice the policy is not asked until then.
    benched: Option<Instant>,
    stats: Arc<Stats>,
    rolling: Arc<Mutex<Rolling>>,
}

/// For how many times as long as it took a policy is not asked that took too long: it costs a tenth of the time at most.
const BENCH: u32 = 9;

impl Guarded {
    /// Around a policy.
    pub fn new(
        policy: Box<dyn Policy>,
        fallback: Box<dyn Policy>,
        budget: Duration,
        stats: Arc<Stats>,
        rolling: Arc<Mutex<Rolling>>,
    ) -> Guarded {
        Guarded { policy, fallback, budget, benched: None, stats, rolling }
    }

    /// The policy's own choice, or why it has none that can be taken.
    fn ask(&mut self, observation: &Observation<'_>) -> Result<Decision, &'static str> {
        let begun = Instant::now();
        if self.benched.is_some_and(|until| begun < until) {
            return Err("it was too slow before");
        }
        let chosen = catch_unwind(AssertUnwindSafe(|| self.policy.decide(observation)));
        let took = begun.elapsed();
        let problem = match chosen {
            Err(_) => "it panicked",
            Ok(decision) if decision.0 >= observation.candidates.len() => "its choice is no candidate",
            Ok(_) if took > self.budget => {
                self.benched = Some(Instant::now() + took * BENCH);
                "it was too slow"
            }
            Ok(decision) => return Ok(decision),
        };
        tracing::error!("the fallback decides in place of the policy: {problem} ({took:?})");
        Err(problem)
    }
}

impl Policy for Guarded {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let begun = Instant::now();
        let (decision, problem) = match self.ask(observation) {
            Ok(decision) => (decision, None),
            Err(problem) => {
                *self.stats.lock().fallbacks.entry(problem).or_default() += 1;
                (self.fallback.decide(observation), Some(problem))
            }
        };
        let took = begun.elapsed().as_nanos() as u64;
        let scores = if problem.is_none() { self.policy.scores() } else { &[] };
        lock(&self.rolling).decided(observation, decision, scores, took, problem);
        decision
    }
}

/// A policy that is troubled on purpose.
pub struct Troubled(pub Box<dyn Policy>, pub Striker);

impl Policy for Troubled {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        match self.1.strike() {
            Some(How::Panic) => panic!("injected"),
            Some(How::Slow(long)) => std::thread::sleep(long),
            _ => {}
        }
        self.0.decide(observation)
    }

    fn scores(&self) -> &[f32] {
        self.0.scores()
    }
}
