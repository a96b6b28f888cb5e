//! One emulated run taken step by step, for whoever wants to decide from outside: learners, searches, tests.
//! It refuses to learn: it gives observations, takes decisions, and adds up the reward.

use crate::case::Case;
use crate::emulator::{Config, Emulator};
use crate::event::Ended;
use crate::observation::Observation;
use crate::scheduler::{Next, Options, ProtocolError, Scheduler};
use crate::time::{Span, Time};
use crate::world::{Decision, World};
use std::sync::Arc;

/// How an episode stopped. They are different ends to a learner: a truncated one had a future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every request ended and none will come.
    Finished,
    /// The time limit cut it off.
    Truncated,
}

/// What passed since the last decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Utility of the requests that ended, summed.
    pub reward: f64,
    /// Time that passed.
    pub elapsed: Span,
    /// Whether the episode is over, and how.
    pub end: Option<End>,
}

/// A scheduler in an emulated world. A clone goes on by itself: searches branch from one.
#[derive(Clone)]
pub struct Episode {
    scheduler: Scheduler,
    emulator: Emulator,
    limit: Time,
    now: Time,
    last: Time,
    reward: f64,
    end: Option<End>,
    ended: Vec<Ended>,
}

impl Episode {
    /// A run of `case`: requests arrive before `horizon`; it is truncated at the first decision due at `limit` or later
    /// (give [`Time::NEVER`] to see every request end).
    pub fn new(
        case: Arc<Case>,
        options: Options,
        config: Config,
        seed: u64,
        horizon: Time,
        limit: Time,
    ) -> Episode {
        Episode {
            scheduler: Scheduler::new(case.clone(), options),
            emulator: Emulator::new(case, config, seed, horizon),
            limit,
            now: Time::ZERO,
            last: Time::ZERO,
            reward: 0.0,
            end: None,
            ended: Vec::new(),
        }
    }

    /// Runs to the next decision or the end. Idempotent until [`Episode::decide`].
    ///
    /// # Errors
    /// [`ProtocolError`]: a bug in the emulator.
    pub fn advance(&mut self) -> Result<Step, ProtocolError> {
        while self.end.is_none() {
            match self.scheduler.poll() {
                Next::Decide(_) => {
                    if self.now >= self.limit {
                        self.end = Some(End::Truncated);
                    }
                    break;
                }
                Next::Launch(launch) => self.emulator.launch(&launch),
                Next::Ended(ended) => self.note(ended),
                Next::Wait(until) => match self.emulator.wait(until) {
                    None => self.end = Some(End::Finished),
                    Some((time, event)) => {
                        self.now = time;
                        self.scheduler.handle(time, event)?;
                        self.hear_all()?;
                    }
                },
            }
        }
        let step = Step { reward: self.reward, elapsed: self.now.since(self.last), end: self.end };
        self.reward = 0.0;
        self.last = self.now;
        Ok(step)
    }

    /// Takes in what else has happened by now, as [`crate::world::drive`] does.
    fn hear_all(&mut self) -> Result<(), ProtocolError> {
        loop {
            while let Some(ended) = self.scheduler.take_ended() {
                self.note(ended);
            }
            let Some(event) = self.emulator.ready(self.now) else { return Ok(()) };
            self.scheduler.handle(self.now, event)?;
        }
    }

    fn note(&mut self, ended: Ended) {
        self.emulator.ended(&ended);
        self.reward += ended.utility;
        self.ended.push(ended);
    }

    /// The observation to decide on; `None` once the episode is finished. A truncated one still has its last observation,
    /// so that a learner can value the future that was cut off.
    pub fn observation(&mut self) -> Option<Observation<'_>> {
        match self.scheduler.poll() {
            Next::Decide(observation) => Some(observation),
            _ => None,
        }
    }

    /// Takes a decision on the last observation.
    ///
    /// # Errors
    /// [`ProtocolError::NoSuchCandidate`].
    pub fn decide(&mut self, decision: Decision, candidates: usize) -> Result<(), ProtocolError> {
        self.emulator.decided(decision, candidates);
        self.scheduler.decide(decision)
    }

    /// The time of the last event.
    pub fn now(&self) -> Time {
        self.now
    }

    /// No more requests at `horizon` or later, but for those that depend on earlier ones: a search looks at a part of the run.
    pub fn stop_arrivals(&mut self, horizon: Time) {
        self.emulator.stop_arrivals(horizon);
    }

    /// The requests that ended so far and were not taken yet.
    pub fn take_ended(&mut self) -> impl Iterator<Item = Ended> {
        self.ended.drain(..)
    }
}
