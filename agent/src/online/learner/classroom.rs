//! Learning within an emulated run: between its events, every so often on the emulated clock. It refuses to start a thread, so that the
//! same seed gives the same run.

use super::Learner;
use crate::online::link::Ear;
use cosched_env::event::{Ended, Event, Launch};
use cosched_env::observation::Observation;
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Observer};

/// An emulated run's ear and learner: it learns between events, every so often, on the emulated clock.
pub struct Classroom<'a> {
    /// Hears for the learner.
    pub ear: Ear,
    /// Learns.
    pub learner: Learner,
    /// Time between two lessons.
    pub every: Span,
    /// When the next one is.
    pub next: Time,
    /// Hears everything, too.
    pub log: &'a mut dyn Observer,
}

impl Observer for Classroom<'_> {
    fn decided(&mut self, observation: &Observation<'_>, decision: Decision) {
        self.log.decided(observation, decision);
    }

    fn launched(&mut self, now: Time, launch: &Launch) {
        self.ear.launched(now, launch);
        self.log.launched(now, launch);
    }

    fn event(&mut self, now: Time, event: &Event) {
        self.ear.event(now, event);
        self.log.event(now, event);
        if now >= self.next {
            self.next = now + self.every;
            self.learner.step();
        }
    }

    fn ended(&mut self, ended: &Ended) {
        self.ear.ended(ended);
        self.log.ended(ended);
    }
}
