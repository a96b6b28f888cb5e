//! What can be done wrong on purpose, on either side of the tap: by a scheduler (what it hears or says is altered before it is
//! written down) and by a world (what it tells is altered before). Each is a canary that a rule of the swarm has to find.

use cosched_env::event::{Ended, Event, Launch, Outcome};
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, World};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deed {
    Nothing,
    // A scheduler's.
    /// Charges each launch twice.
    ChargesTwice,
    /// Is not told that a processor is down.
    DeafToHealth,
    /// Believes that each processor has one slot more.
    MoreSlots,
    /// Thinks that requests wait a second longer.
    KeepsExpired,
    /// Never asks to be woken.
    NeverWakes,
    /// Never loads what it evicted.
    LoadsNothing,
    /// Does not tell of a late answer.
    LosesAnEnd,
    /// Tells each end twice.
    EndsTwice,
    /// Calls late answers on time.
    CallsLateOnTime,
    /// Calls a failure a success.
    CallsFailedAnswered,
    /// Decides before it has heard everything.
    HearsOneByOne,
    /// Leaves the fairness term out of what a miss is worth.
    Unfair,
    /// Keeps old frames beside newer ones.
    LetsOldWait,
    /// Believes that memory is without end.
    ForgetsMemory,
    // A world's.
    /// Completes launches twice.
    CompletesTwice,
    /// Forgets launches on a processor that dies.
    ForgetsTheDead,
    /// Lets launches on a dead processor end well.
    SurvivesDeath,
    /// Tells of completions with a time that is over.
    TimeGoesBack,
    /// Says that launches began before they were made.
    BeginsTooEarly,
    /// Lets a dependent request follow a dropped one.
    FollowsDropped,
    /// Lets two requests follow one answer.
    FollowsTwice,
    /// Lets no request follow.
    FollowsNever,
    /// Moves arrivals by what was decided.
    ArrivesByDecisions,
    /// Forgets every fourth arrival.
    LosesArrivals,
    /// Wakes the scheduler a little late.
    SleepsIn,
    /// Lets launches run on for ever so long.
    DragsOn,
    /// Depends on what ran before in this process.
    HasMoods,
}

/// Stands between a sound scheduler and the tap.
#[derive(Clone)]
pub struct BrokenCore<W> {
    pub world: W,
    deed: Deed,
    /// What was altered on the way to the scheduler, to be put back.
    expiries: BTreeMap<u64, Time>,
}

impl<W> BrokenCore<W> {
    pub fn new(world: W, deed: Deed) -> BrokenCore<W> {
        BrokenCore { world, deed, expiries: BTreeMap::new() }
    }

    fn hear(&mut self, mut event: Event) -> Event {
        match (self.deed, &mut event) {
            (Deed::ChargesTwice, Event::Completed(c)) => c.energy_mj *= 2.0,
            (Deed::DeafToHealth, Event::Health { .. }) => event = Event::Alarm,
            (Deed::KeepsExpired, Event::Arrived(r)) => {
                self.expiries.insert(r.id.0, r.expires);
                r.expires = r.expires + Span::from_ms(1000.0);
            }
            _ => {}
        }
        event
    }
}

impl<W: World> World for BrokenCore<W> {
    fn launch(&mut self, launch: &Launch) {
        let load_bytes = if self.deed == Deed::LoadsNothing { 0 } else { launch.load_bytes };
        self.world.launch(&Launch { load_bytes, ..*launch });
    }
    fn wait(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        let until = if self.deed == Deed::NeverWakes { None } else { until };
        let (now, event) = self.world.wait(until)?;
        Some((now, self.hear(event)))
    }
    fn ready(&mut self, now: Time) -> Option<Event> {
        if self.deed == Deed::HearsOneByOne {
            return None;
        }
        let event = self.world.ready(now)?;
        Some(self.hear(event))
    }
    fn decided(&mut self, decision: Decision, candidates: usize) {
        self.world.decided(decision, candidates);
    }
    fn ended(&mut self, ended: &Ended) {
        let mut ended = ended.clone();
        if let Some(expires) = self.expiries.remove(&ended.request.id.0) {
            ended.request.expires = expires;
        }
        match (self.deed, &ended.outcome) {
            (Deed::LosesAnEnd, Outcome::Late) => return,
            (Deed::EndsTwice, _) => self.world.ended(&ended),
            (Deed::CallsLateOnTime, Outcome::Late) | (Deed::CallsFailedAnswered, Outcome::Failed(_)) => {
                ended.outcome = Outcome::Answered;
            }
            (Deed::Unfair, Outcome::Dropped | Outcome::Expired) => {
                ended.utility = -0.2 * ended.request.priority
            }
            _ => {}
        }
        self.world.ended(&ended);
    }
}

static MOOD: AtomicU64 = AtomicU64::new(0);

/// Stands between the tap and a sound world.
#[derive(Clone)]
pub struct BrokenWorld<W> {
    world: W,
    deed: Deed,
    decisions: u64,
    arrivals: u64,
    again: VecDeque<(Time, Event)>,
}

impl<W> BrokenWorld<W> {
    pub fn new(world: W, deed: Deed) -> BrokenWorld<W> {
        BrokenWorld { world, deed, decisions: 0, arrivals: 0, again: VecDeque::new() }
    }

    fn tell(&mut self, mut now: Time, mut event: Event) -> (Time, Event) {
        match (self.deed, &mut event) {
            (Deed::CompletesTwice, Event::Completed(_)) => self.again.push_back((now, event.clone())),
            (Deed::ForgetsTheDead, Event::Completed(c)) if c.failure.is_some() => event = Event::Alarm,
            (Deed::SurvivesDeath, Event::Completed(c)) => c.failure = None,
            (Deed::TimeGoesBack, Event::Completed(_)) => now = Time(now.0.saturating_sub(1_000_000)),
            (Deed::BeginsTooEarly, Event::Completed(c)) => {
                c.started = Time(c.started.0.saturating_sub(200_000))
            }
            (Deed::ArrivesByDecisions, Event::Arrived(r)) => {
                r.arrival = Time(r.arrival.0.saturating_sub(self.decisions));
            }
            (Deed::LosesArrivals, Event::Arrived(_)) => {
                self.arrivals += 1;
                if self.arrivals.is_multiple_of(4) {
                    event = Event::Alarm;
                }
            }
            (Deed::SleepsIn, Event::Alarm) => now = now + Span::from_ms(0.5),
            (Deed::DragsOn, Event::Completed(c)) => {
                now = now + Span::from_ms(1e5);
                c.finished = c.finished + Span::from_ms(1e5);
            }
            (Deed::HasMoods, Event::Completed(c)) => {
                c.energy_mj += 1e-3 * MOOD.fetch_add(1, Ordering::Relaxed) as f64;
            }
            _ => {}
        }
        (now, event)
    }
}

impl<W: World> World for BrokenWorld<W> {
    fn launch(&mut self, launch: &Launch) {
        self.world.launch(launch);
    }
    fn wait(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        if let Some(again) = self.again.pop_front() {
            return Some(again);
        }
        let (now, event) = self.world.wait(until)?;
        Some(self.tell(now, event))
    }
    fn ready(&mut self, now: Time) -> Option<Event> {
        let event = self.world.ready(now)?;
        Some(self.tell(now, event).1)
    }
    fn decided(&mut self, decision: Decision, candidates: usize) {
        self.decisions += 1;
        self.world.decided(decision, candidates);
    }
    fn ended(&mut self, ended: &Ended) {
        let follows = matches!(ended.outcome, Outcome::Answered | Outcome::Late);
        match self.deed {
            Deed::FollowsTwice => self.world.ended(ended),
            Deed::FollowsNever if follows => return,
            Deed::FollowsDropped if !follows => {
                self.world.ended(&Ended { outcome: Outcome::Answered, ..ended.clone() });
            }
            _ => {}
        }
        self.world.ended(ended);
    }
}
