//! The live world of a server with everything counted that passes it, and a policy that cannot bring the server down. It refuses to
//! change what passes.

use super::stats::Stats;
use cosched_env::event::{Ended, Event, Launch, LaunchId};
use cosched_env::observation::Observation;
use cosched_env::time::Time;
use cosched_env::world::{Decision, Policy, World};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// A world whose events are counted.
pub struct Watched<W> {
    world: W,
    stats: Arc<Stats>,
    /// Processors of the launches that run.
    running: BTreeMap<LaunchId, usize>,
    deciding: Option<Instant>,
}

impl<W: World> Watched<W> {
    /// Around a world.
    pub fn new(world: W, stats: Arc<Stats>) -> Watched<W> {
        Watched { world, stats, running: BTreeMap::new(), deciding: None }
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::Completed(c) => {
                let Some(on) = self.running.remove(&c.launch) else { return };
                let ns = c.finished.since(c.started).0;
                let mut counted = self.stats.lock();
                let processor = &mut counted.processors[on];
                processor.busy_ns += ns;
                processor.energy_mj += c.energy_mj;
                processor.launches.add(ns);
                if c.failure.is_none() {
                    processor.good += 1;
                } else {
                    processor.failed += 1;
                }
            }
            Event::Health { processor, up } => self.stats.lock().processors[processor.0 as usize].up = *up,
            Event::Arrived(_) | Event::Withdrawn { .. } | Event::Alarm => {}
        }
    }
}

impl<W: World> World for Watched<W> {
    fn launch(&mut self, launch: &Launch) {
        self.running.insert(launch.id, launch.processor.0 as usize);
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

/// A policy whose panics are caught: the fallback decides in its place then. A choice that is no candidate counts as a panic.
pub struct Guarded {
    policy: Box<dyn Policy>,
    fallback: Box<dyn Policy>,
    stats: Arc<Stats>,
}

impl Guarded {
    /// Around a policy.
    pub fn new(policy: Box<dyn Policy>, fallback: Box<dyn Policy>, stats: Arc<Stats>) -> Guarded {
        Guarded { policy, fallback, stats }
    }
}

impl Policy for Guarded {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let chosen = catch_unwind(AssertUnwindSafe(|| self.policy.decide(observation)));
        match chosen {
            Ok(decision) if decision.0 < observation.candidates.len() => decision,
            _ => {
                self.stats.lock().fallback += 1;
                tracing::error!("the policy failed to decide; the fallback decides in its place");
                self.fallback.decide(observation)
            }
        }
    }
}
