//! What a policy and a world are, and the one loop that drives a scheduler between them.
//! The loop reads no clock: time enters only through [`World::wait`].

use crate::event::{Ended, Event, Launch};
use crate::observation::Observation;
use crate::scheduler::{Next, ProtocolError, Scheduler};
use crate::time::Time;

/// An index into the candidates of the observation that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision(pub usize);

/// Something that decides. It gets plain data and returns one choice; it can reach nothing else.
pub trait Policy: Send {
    /// The choice for this observation: an index below `observation.candidates.len()`.
    fn decide(&mut self, observation: &Observation<'_>) -> Decision;

    /// What it thinks of each candidate of the last observation, higher is better; empty where it has no such numbers. For people.
    fn scores(&self) -> &[f32] {
        &[]
    }
}

/// Where launches go and events and time come from: emulated, live, recorded, replayed.
pub trait World {
    /// Starts a launch. Its end comes as one [`Event::Completed`], whatever happens.
    fn launch(&mut self, launch: &Launch);

    /// Waits for the next event, or for [`Event::Alarm`] at `until`. `None`: nothing will ever happen again.
    /// Times never go back.
    fn wait(&mut self, until: Option<Time>) -> Option<(Time, Event)>;

    /// The next event that has happened by `now`, without waiting: what happens at one moment is heard before anything is decided.
    fn ready(&mut self, now: Time) -> Option<Event> {
        let _ = now;
        None
    }

    /// A policy is about to decide (for measuring what a decision takes).
    fn deciding(&mut self) {}

    /// The policy chose `decision` among `candidates`; the world charges what deciding costs.
    fn decided(&mut self, decision: Decision, candidates: usize) {
        let _ = (decision, candidates);
    }

    /// A request ended: whatever is kept for it can go.
    fn ended(&mut self, ended: &Ended) {
        let _ = ended;
    }
}

/// Sees everything that happens in a run; for reports and learning.
pub trait Observer {
    /// The policy chose.
    fn decided(&mut self, observation: &Observation<'_>, decision: Decision) {
        let _ = (observation, decision);
    }
    /// A launch goes out at `now`.
    fn launched(&mut self, now: Time, launch: &Launch) {
        let _ = (now, launch);
    }
    /// An event came in.
    fn event(&mut self, now: Time, event: &Event) {
        let _ = (now, event);
    }
    /// A request ended.
    fn ended(&mut self, ended: &Ended) {
        let _ = ended;
    }
}

/// Sees nothing.
impl Observer for () {}

/// What the requests of a run earned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Earned {
    /// Sum of their utilities.
    pub utility: f64,
    /// Sum of their priorities.
    pub priority: f64,
    /// How many ended.
    pub requests: f64,
}

impl Earned {
    /// Utility by priority, so that runs of unlike cases compare; minus infinity when no request ended.
    pub fn by_priority(&self) -> f64 {
        if self.priority > 0.0 { self.utility / self.priority } else { f64::NEG_INFINITY }
    }
}

impl Observer for Earned {
    fn ended(&mut self, ended: &Ended) {
        self.utility += ended.utility;
        self.priority += ended.request.priority;
        self.requests += 1.0;
    }
}

/// Drives `scheduler` under `policy` in `world` until nothing will ever happen again. Returns the time of the last event.
///
/// # Errors
/// [`ProtocolError`] when the world or the policy broke the protocol; a bug in one of them.
pub fn drive(
    scheduler: &mut Scheduler,
    world: &mut dyn World,
    policy: &mut dyn Policy,
    observer: &mut dyn Observer,
) -> Result<Time, ProtocolError> {
    let mut now = Time::ZERO;
    loop {
        let decision = match scheduler.poll() {
            Next::Decide(observation) => {
                world.deciding();
                let decision = policy.decide(&observation);
                world.decided(decision, observation.candidates.len());
                observer.decided(&observation, decision);
                decision
            }
            Next::Launch(launch) => {
                world.launch(&launch);
                observer.launched(now, &launch);
                continue;
            }
            Next::Ended(ended) => {
                world.ended(&ended);
                observer.ended(&ended);
                continue;
            }
            Next::Wait(until) => match world.wait(until) {
                Some((time, event)) => {
                    now = time;
                    observer.event(now, &event);
                    scheduler.handle(now, event)?;
                    // Each end is told before the next event: an answer may be what the next request waits for.
                    hear_all(scheduler, world, observer, now)?;
                    continue;
                }
                None => return Ok(now),
            },
        };
        scheduler.decide(decision)?;
    }
}

/// Takes in what else has happened by `now`.
fn hear_all(
    scheduler: &mut Scheduler,
    world: &mut dyn World,
    observer: &mut dyn Observer,
    now: Time,
) -> Result<(), ProtocolError> {
    loop {
        while let Some(ended) = scheduler.take_ended() {
            world.ended(&ended);
            observer.ended(&ended);
        }
        let Some(event) = world.ready(now) else { return Ok(()) };
        observer.event(now, &event);
        scheduler.handle(now, event)?;
    }
}
