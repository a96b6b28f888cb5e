//! The learner: takes what the actor left, keeps the profile and the arrivals up to date, looks for the best baselines as the device is
//! now, learns, asks the guard, and publishes. It reads no clock: time is that of the events. It refuses to be waited for; where it
//! runs (a thread beside a live run, or between the events of an emulated one) is its caller's business.

mod classroom;
mod judge;
mod settings;
mod shadow;

pub use classroom::Classroom;
pub use settings::{Report, Settings, Subject};

use super::guard::{Acting, Guard, Order, Shadow};
use super::lens::Lens;
use super::link::{Actor, Brain, Ear, Links, News, Transition, connect};
use super::off_policy::OffPolicy;
use super::profile::Profile;
use super::state::{State, StateError, save};
use super::traffic::Traffic;
use super::{Arena, Rival, Trainer};
use crate::experience::{Experience, Units};
use crate::guide::{GUIDES, Guides};
use crate::network::{Forward, Weights};
use cosched_env::case::Case;
use cosched_env::time::{Span, Time};
use shadow::{has_moved, seeded, slowness};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// See the module's text.
pub struct Learner {
    subject: Subject,
    settings: Settings,
    links: Links,
    trainer: Box<dyn Trainer>,
    arena: Arena,
    units: Units,
    guard: Guard,
    profile: Profile,
    traffic: Traffic,
    /// The last good weights, and those on trial.
    good: Weights,
    latest: Weights,
    rivals: Vec<Rival>,
    /// Slowness of the processors at the last tournament.
    scouted: Vec<f64>,
    /// The case as decisions see it; `None`: as the core knows it, for it is much as its plan says.
    seen: Option<Arc<Case>>,
    /// See [`Brain::margin`], of the learned policy.
    margin: f32,
    lesson: Experience,
    /// Of each decision of the lesson, and the priority of all requests that ended meanwhile; see [`super::off_policy`].
    contrast: Vec<f32>,
    ended_priority: f64,
    off_policy: OffPolicy,
    pending: Option<Transition>,
    shadow: Shadow,
    now: Time,
    next_check: Time,
    next_scout: Time,
    next_save: Time,
    next_seed: u64,
    decisions: u64,
    lessons: u64,
    story: Vec<String>,
}

/// Weight of the newest decision in the agreement.
const AGREEMENT_WEIGHT: f64 = 0.005;
/// Seeds of shadow runs: far from those of anything else.
const FIRST_SEED: u64 = 1 << 52;
/// Lines of a story that are kept.
const STORY: usize = 200;

/// An actor and its ear for a run of the subject, and their learner, which begins from `weights` or goes on from `state`.
pub fn start(
    subject: Subject,
    weights: &Weights,
    state: Option<State>,
    settings: Settings,
    mut trainer: Box<dyn Trainer>,
    arena: Arena,
) -> (Actor, Ear, Learner) {
    let case = subject.case.clone();
    let (mut profile, mut traffic) = (Profile::new(&case.plan), Traffic::new(&case));
    let mut guard = Guard::new(settings.rules);
    let mut good = weights.clone();
    if let Some(state) = state {
        (good, profile, traffic) = (state.good, state.profile, state.traffic);
        guard = Guard::resume(settings.rules, &state.guard);
        profile.rewind();
        traffic.rewind();
    }
    trainer.set(&good);
    let scouted = slowness(&profile, Time::ZERO);
    let real = Arc::new(seeded(&subject, &profile, &traffic, Time::ZERO));
    let seen = has_moved(&scouted, None, settings.moved).then(|| real.clone());
    let known = seen.clone().unwrap_or_else(|| case.clone());
    let rivals = arena(&real);
    let (forward, guides) = (Forward::new(&good), guides(&rivals, &known));
    let brain = Brain { forward, guides, margin: 0.0, lens: seen.clone().map(Lens::new) };
    let (actor, ear, links) = connect(case.clone(), brain, settings.exploration, settings.bounds);
    let after = |seconds: f64| Time::ZERO + Span::from_ms(1e3 * seconds);
    let mut learner = Learner {
        units: Units::of(&case, settings.horizon),
        scouted,
        seen,
        margin: 0.0,
        next_check: after(settings.check_s),
        next_scout: after(settings.scout_s),
        next_save: settings.keep.as_ref().map_or(Time::NEVER, |(_, minutes)| after(60.0 * minutes)),
        latest: good.clone(),
        shadow: Shadow::default(),
        lesson: Experience::new(),
        contrast: Vec::new(),
        ended_priority: 0.0,
        off_policy: OffPolicy::default(),
        pending: None,
        now: Time::ZERO,
        next_seed: FIRST_SEED,
        decisions: 0,
        lessons: 0,
        story: Vec::new(),
        subject,
        settings,
        links,
        trainer,
        arena,
        guard,
        profile,
        traffic,
        good,
        rivals,
    };
    // It is in the mailbox before the first decision.
    learner.find_margin();
    learner.send();
    (actor, ear, learner)
}

fn guides(rivals: &[Rival], case: &Case) -> Guides {
    Guides::new(rivals.iter().take(GUIDES).map(|r| ((r.make)(case), r.score as f32)).collect())
}

impl Learner {
    /// Takes in everything that was left since the last call, and does what is due.
    pub fn step(&mut self) {
        while let Ok(old) = self.links.retired.try_recv() {
            drop(old);
        }
        self.read_news();
        self.read_transitions();
        if self.now >= self.next_check {
            self.next_check = self.now + Span::from_ms(1e3 * self.settings.check_s);
            let speeds = slowness(&self.profile, self.now);
            let moved = has_moved(&speeds, Some(&self.scouted), self.settings.moved);
            if self.now >= self.next_scout || moved {
                self.scout();
            }
            self.check();
        }
        if self.lesson.len() >= self.settings.batch {
            self.learn();
        }
        if self.now >= self.next_save {
            let minutes = self.settings.keep.as_ref().map_or(f64::INFINITY, |k| k.1);
            self.next_save = self.now + Span::from_ms(6e4 * minutes);
            if let Err(error) = self.save() {
                self.tell(&error.to_string());
            }
        }
    }

    /// Steps until `over`, beside a live run; `stepped` may look on after each step.
    pub fn spawn(
        mut self,
        over: Arc<AtomicBool>,
        mut stepped: impl FnMut(&Learner) + Send + 'static,
    ) -> JoinHandle<Learner> {
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                self.step();
                stepped(&self);
                std::thread::sleep(Duration::from_millis(20));
            }
            self.step();
            self
        })
    }

    /// Writes the state, when it is to be kept.
    ///
    /// # Errors
    /// [`StateError`] names the file.
    pub fn save(&self) -> Result<(), StateError> {
        let Some((path, _)) = &self.settings.keep else { return Ok(()) };
        save(path, &self.state(), &self.subject.case)
    }

    /// Everything that goes on in the next run.
    pub fn state(&self) -> State {
        State {
            good: self.good.clone(),
            latest: self.latest.clone(),
            guard: self.guard.memory(),
            profile: self.profile.clone(),
            traffic: self.traffic.clone(),
        }
    }

    /// What came of it.
    pub fn report(&self) -> Report {
        let names = self.subject.case.plan.processors.iter().map(|p| p.name.clone());
        Report {
            decisions: self.decisions,
            lessons: self.lessons,
            dropped: self.links.dropped.load(Ordering::Relaxed),
            counts: self.guard.counts(),
            acting: self.guard.acting(),
            live: self.guard.live(),
            shadow: self.shadow,
            baseline: self.baseline().to_owned(),
            slowness: names.zip(slowness(&self.profile, self.now)).collect(),
            story: self.story.clone(),
        }
    }

    fn baseline(&self) -> &str {
        self.rivals.first().map_or("none", |r| r.name.as_str())
    }

    fn tell(&mut self, what: &str) {
        let line = format!("{:.1} s: {what}", self.now.ms_after(Time::ZERO) / 1e3);
        tracing::info!("online: {line}");
        if self.story.len() < STORY {
            self.story.push(line);
        }
    }

    fn read_news(&mut self) {
        while let Ok(news) = self.links.news.try_recv() {
            match news {
                News::Arrived(stream, at) => self.traffic.note(stream, at),
                News::Ran(sample) => self.profile.note(&sample),
                News::Ended { utility, priority, at } => {
                    self.now = self.now.max(at);
                    self.ended_priority += priority;
                    let order = self.guard.ended(utility, priority, at);
                    self.obey(order);
                }
            }
        }
    }

    fn read_transitions(&mut self) {
        while let Ok(transition) = self.links.transitions.try_recv() {
            self.decisions += 1;
            let agrees = f64::from(u8::from(transition.agrees));
            self.shadow.agreement += AGREEMENT_WEIGHT * (agrees - self.shadow.agreement);
            if !transition.follows {
                // What the last one led to is not known.
                if let Some(lost) = self.pending.take() {
                    drop(self.links.pool.try_send(lost));
                }
                self.lesson.cut();
            }
            if let Some(before) = self.pending.replace(transition) {
                let next_value = self.pending.as_ref().map_or(0.0, |next| next.value);
                if self.lesson.len() < 2 * self.settings.batch {
                    before.append_to(&mut self.lesson, next_value, &self.units);
                    self.contrast.push(before.contrast);
                }
                drop(self.links.pool.try_send(before));
            }
        }
    }

    /// Lets the baselines play on the device as it is now; the best guide the network from now on.
    fn scout(&mut self) {
        self.next_scout = self.now + Span::from_ms(1e3 * self.settings.scout_s);
        self.scouted = slowness(&self.profile, self.now);
        let before = self.baseline().to_owned();
        let real = Arc::new(seeded(&self.subject, &self.profile, &self.traffic, self.now));
        self.seen = has_moved(&self.scouted, None, self.settings.moved).then(|| real.clone());
        self.rivals = (self.arena)(&real);
        self.find_margin();
        if self.baseline() != before {
            self.off_policy = OffPolicy::default();
        }
        let speeds: Vec<_> = self.scouted.iter().map(|s| format!("{s:.2}")).collect();
        let (after, speeds) = (self.baseline().to_owned(), speeds.join(", "));
        self.tell(&format!("tournament: {after} is the best baseline, before it was {before}; latencies by the plan's: {speeds}"));
        self.send();
    }

    /// The case as decisions see it.
    fn known(&self) -> Arc<Case> {
        self.seen.clone().unwrap_or_else(|| self.subject.case.clone())
    }

    /// Publishes what acts, with the guides of the last tournament.
    fn send(&self) {
        let acting = self.guard.acting();
        let weights = if acting == Acting::Trial { &self.latest } else { &self.good };
        let brain = self.brain(weights, if acting == Acting::Baseline { f32::INFINITY } else { self.margin });
        drop(self.links.mailbox.swap(Some(Box::new(brain))));
    }

    fn brain(&self, weights: &Weights, margin: f32) -> Brain {
        let mut forward = Forward::new(weights);
        if let Some(seen) = &self.pending {
            // Its buffers grow here and not at the first decision.
            forward.run_on(&seen.rows, &seen.context);
        }
        let guides = guides(&self.rivals, &self.known());
        let lens = self.seen.clone().map(Lens::new);
        Brain { forward, guides, margin, lens }
    }

    fn obey(&mut self, order: Order) {
        let told = match order {
            Order::Stay => return,
            Order::Proven => {
                self.good = self.latest.clone();
                tracing::debug!("online: the weights on trial are the last good ones from now on");
                return;
            }
            Order::RollBack(why) => {
                self.latest = self.good.clone();
                format!("rolled back to the last good weights: {why}")
            }
            Order::HandOver(why) => format!("{} decides: {why}", self.baseline()),
            Order::TryAgain(why) => format!("the learned policy gets another chance: {why}"),
        };
        // What was seen under other weights is not learned from.
        self.begin_anew();
        self.send();
        self.tell(&told);
    }
}
