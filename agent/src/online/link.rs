//! Between deciding and learning: the actor decides and leaves what it saw on bounded channels, the learner takes it from there and
//! leaves new brains in a mailbox, an atomic pointer. It refuses to wait: what does not fit into a channel is dropped and counted.

use super::explore::{Exploration, log_probability};
use super::lens::Lens;
use super::profile::{Sample, Tracker};
use crate::experience::{Experience, Units};
use crate::features::{CONTEXT_FEATURES, Encoder};
use crate::guide::{Guides, heed};
use crate::network::Forward;
use crate::shortlist::Shortlist;
use cosched_env::case::{Case, StreamId};
use cosched_env::event::{Ended, Event, Launch};
use cosched_env::observation::Observation;
use cosched_env::streams::rng;
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Observer, Policy};
use crossbeam::atomic::AtomicCell;
use crossbeam::channel::{Receiver, Sender, bounded};
use rand_pcg::Pcg64Mcg;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What decides: a network with guides.
pub struct Brain {
    /// The network.
    pub forward: Forward,
    /// Its guides.
    pub guides: Guides,
    /// By how much a candidate's logit has to exceed that of the first guide's choice; infinity: the guide decides.
    pub margin: f32,
    /// Through what it sees the device; `None`: as its plan says.
    pub lens: Option<Lens>,
}

/// One decision and what it led to. Its buffers go back and forth between actor and learner.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transition {
    /// `[candidates, CANDIDATE_FEATURES]`.
    pub rows: Vec<f32>,
    /// `[CONTEXT_FEATURES]`.
    pub context: Vec<f32>,
    /// Candidate chosen.
    pub action: usize,
    /// Log-probability that the network gave it.
    pub log_probability: f32,
    /// Value of the state by the network.
    pub value: f32,
    /// Utility of the requests that ended until the next decision, summed.
    pub reward: f64,
    /// Time until the next decision.
    pub elapsed: Span,
    /// Whether it follows directly the one sent before it; otherwise some were dropped between.
    pub follows: bool,
    /// Whether the network's best candidate is what its first guide would do.
    pub agrees: bool,
    /// What its advantage counts for the first guide over the network; see [`super::off_policy`].
    pub contrast: f32,
}

impl Transition {
    /// Adds it to what a learner learns from; its next state has this value.
    pub fn append_to(&self, experience: &mut Experience, next_value: f32, units: &Units) {
        debug_assert_eq!(self.context.len(), CONTEXT_FEATURES);
        experience.rows.extend_from_slice(&self.rows);
        experience.starts.push(experience.rows.len());
        experience.context.extend_from_slice(&self.context);
        experience.action.push(self.action);
        experience.log_probability.push(self.log_probability);
        experience.value.push(self.value);
        experience.reward.push((self.reward * units.reward) as f32);
        experience.discount.push((-self.elapsed.ms() / units.horizon_ms).exp() as f32);
        experience.next_value.push(next_value);
        experience.last.push(false);
    }
}

/// What a learner hears besides decisions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum News {
    /// A request arrived.
    Arrived(StreamId, Time),
    /// A launch was measured.
    Ran(Sample),
    /// A request ended.
    Ended {
        /// Its utility.
        utility: f64,
        /// Its priority.
        priority: f64,
        /// When.
        at: Time,
    },
}

/// The learner's ends.
pub struct Links {
    /// Decisions, in order.
    pub transitions: Receiver<Transition>,
    /// Everything else, in order.
    pub news: Receiver<News>,
    /// Where buffers of transitions go back to.
    pub pool: Sender<Transition>,
    /// Brains that were replaced: they are taken apart here and not where decisions are made.
    pub retired: Receiver<Box<Brain>>,
    /// Where new brains go.
    pub mailbox: Arc<Mailbox>,
    /// What was dropped because a channel was full.
    pub dropped: Arc<AtomicU64>,
}

/// Holds the newest brain until the actor takes it.
pub type Mailbox = AtomicCell<Option<Box<Brain>>>;

/// Bounds of the channels.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Transitions under way.
    pub transitions: usize,
    /// Candidates that a transition's buffer has room for before it grows.
    pub candidates: usize,
    /// News under way.
    pub news: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { transitions: 2048, candidates: 32, news: 8192 }
    }
}

/// Decides by the newest brain. See the module's text.
pub struct Actor {
    brain: Box<Brain>,
    shortlist: Shortlist,
    exploration: Exploration,
    random: Pcg64Mcg,
    line: Option<Line>,
}

/// The actor's ends.
struct Line {
    transitions: Sender<Transition>,
    pool: Receiver<Transition>,
    retired: Sender<Box<Brain>>,
    mailbox: Arc<Mailbox>,
    dropped: Arc<AtomicU64>,
    earned: Arc<AtomicU64>,
    /// The last decision and when it was; what it led to is not known yet.
    open: Option<(Transition, Time)>,
    /// Whether the last transition went out.
    whole: bool,
}

/// Hears what happens in a run, for the learner.
pub struct Ear {
    news: Sender<News>,
    tracker: Tracker,
    dropped: Arc<AtomicU64>,
    /// Utility since the last decision: the bits of a float. Actor and ear live on one thread.
    earned: Arc<AtomicU64>,
}

/// An actor that begins with `brain`, its ear, and the ends of their learner.
pub fn connect(
    case: Arc<Case>,
    brain: Brain,
    exploration: Exploration,
    bounds: Bounds,
) -> (Actor, Ear, Links) {
    let (send_transition, transitions) = bounded(bounds.transitions);
    let (pool, buffers) = bounded(bounds.transitions + 1);
    for _ in 0..=bounds.transitions {
        let rows = Vec::with_capacity(bounds.candidates * crate::features::CANDIDATE_FEATURES);
        let context = Vec::with_capacity(CONTEXT_FEATURES);
        // The pool has room for all of them.
        let _ = pool.try_send(Transition { rows, context, ..Transition::default() });
    }
    let (news_sender, news) = bounded(bounds.news);
    // A brain is published far more seldom than a decision is made.
    let (retire, retired) = bounded(8);
    let mailbox = Arc::new(Mailbox::new(None));
    let (dropped, earned) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let line = Line {
        transitions: send_transition,
        pool: buffers,
        retired: retire,
        mailbox: mailbox.clone(),
        dropped: dropped.clone(),
        earned: earned.clone(),
        open: None,
        whole: false,
    };
    let actor = Actor { line: Some(line), ..Actor::still(brain) };
    let actor = Actor { random: rng(exploration.seed, "explore", 0), exploration, ..actor };
    let ear = Ear { news: news_sender, tracker: Tracker::new(case), dropped: dropped.clone(), earned };
    (actor, ear, Links { transitions, news, pool, retired, mailbox, dropped })
}

impl Actor {
    /// One that neither explores nor is learned from.
    pub fn still(brain: Brain) -> Actor {
        Actor {
            brain: Box::new(brain),
            shortlist: Shortlist::default(),
            exploration: Exploration::NONE,
            random: rng(0, "explore", 0),
            line: None,
        }
    }
}

impl Policy for Actor {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        if let Some(line) = &mut self.line {
            line.renew(&mut self.brain);
        }
        let Brain { forward, guides, margin, lens } = &mut *self.brain;
        let seen;
        let observation = match lens {
            Some(lens) => {
                seen = lens.look(observation);
                &seen
            }
            None => observation,
        };
        self.shortlist.look(observation, guides.vote(observation));
        let value = forward.run(&self.shortlist.encoder);
        let best = forward.best();
        let guided = self.shortlist.votes.first().map(|v| v.choice);
        let own = heed(&forward.logits, best, &self.shortlist.votes, *margin);
        // Where the guide alone decides there is nothing to find out.
        let exploration = if *margin < f32::INFINITY { self.exploration } else { Exploration::NONE };
        let (row, contrast) = exploration.choose(&forward.logits, own, guided, &mut self.random);
        if let Some(line) = &mut self.line {
            line.close(observation.now);
            line.open(&self.shortlist.encoder, observation.now, |transition| {
                transition.action = row;
                transition.log_probability = log_probability(&forward.logits, row);
                transition.value = value;
                transition.agrees = guided == Some(best);
                transition.contrast = contrast;
            });
        }
        Decision(self.shortlist.kept[row])
    }
}

impl Line {
    /// Takes the newest brain; the one before is left to the learner.
    fn renew(&mut self, brain: &mut Box<Brain>) {
        if let Some(newest) = self.mailbox.take() {
            let old = std::mem::replace(brain, newest);
            // A learner that does not take them back has them taken apart here.
            drop(self.retired.try_send(old));
        }
    }

    /// Sends the last decision with what it led to.
    fn close(&mut self, now: Time) {
        let earned = f64::from_bits(self.earned.swap(0, Ordering::Relaxed));
        let Some((mut transition, since)) = self.open.take() else { return };
        transition.reward = earned;
        transition.elapsed = now.since(since);
        transition.follows = self.whole;
        self.whole = match self.transitions.try_send(transition) {
            Ok(()) => true,
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                false
            }
        };
    }

    /// Begins a transition: what was seen, and what `fill` says of the choice.
    fn open(&mut self, encoder: &Encoder, now: Time, fill: impl FnOnce(&mut Transition)) {
        let Ok(mut transition) = self.pool.try_recv() else {
            // All buffers are under way.
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.whole = false;
            return;
        };
        transition.rows.clear();
        transition.rows.extend_from_slice(&encoder.candidates);
        transition.context.clear();
        transition.context.extend_from_slice(&encoder.context);
        fill(&mut transition);
        self.open = Some((transition, now));
    }
}

impl Ear {
    fn tell(&self, news: News) {
        if self.news.try_send(news).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Observer for Ear {
    fn launched(&mut self, now: Time, launch: &Launch) {
        self.tracker.launched(now, launch);
    }

    fn event(&mut self, _: Time, event: &Event) {
        match event {
            Event::Arrived(request) => self.tell(News::Arrived(request.stream, request.arrival)),
            Event::Completed(completion) => {
                if let Some(sample) = self.tracker.completed(completion) {
                    self.tell(News::Ran(sample));
                }
            }
            Event::Health { .. } | Event::Withdrawn { .. } | Event::Alarm => {}
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let before = f64::from_bits(self.earned.load(Ordering::Relaxed));
        self.earned.store((before + ended.utility).to_bits(), Ordering::Relaxed);
        let (utility, priority) = (ended.utility, ended.request.priority);
        self.tell(News::Ended { utility, priority, at: ended.at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mailbox_is_a_pointer_that_is_swapped() {
        assert!(Mailbox::is_lock_free());
    }
}
