//! The best run of a case that a search finds which knows all of it: simulated annealing over whole schedules in rounds, from the runs of the
//! best of some policies. It refuses to be an upper bound: it is "best found", and never below the best of those policies.
//!
//! A schedule is an order of frames for each processor, which waits for the next one of its order until that is there or can come no more.
//! So waiting and giving up frames, which win most here, are in it without a deed of their own.

use super::score::{Frame, score};
use super::stage::Rehearsal;
use super::{Job, Settings, StageMaker, XrError, broken, frames};
use cosched_env::case::StreamId;
use cosched_env::observation::{Action, Observation, RequestView};
use cosched_env::scheduler::ProtocolError;
use cosched_env::streams::rng;
use cosched_env::time::Time;
use cosched_env::world::{Decision, Policy};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::collections::BTreeSet;

/// Loss of overall score that is accepted with a probability of 1/e at the beginning of a round; it falls to nothing. More heat finds less.
const HEAT: f64 = 0.0003;
/// Changes of a round.
const ROUND: u64 = 500;
/// The search begins from so many policies, one after the other: whose run is best need not be nearest to the best run.
const STARTS: usize = 3;
/// A frame is put at most so many places away from where its time says.
const NEAR: usize = 4;

/// A frame: when its chain began, and its model.
type Key = (Time, StreamId);

fn key(request: &RequestView) -> Key {
    (request.origin, request.stream)
}

/// What each processor runs, in order.
type Schedule = Vec<Vec<Key>>;

/// Plays a schedule.
struct Follow<'a> {
    schedule: &'a Schedule,
    /// How far each processor is.
    at: Vec<usize>,
    /// Every frame that ever waited.
    seen: &'a mut BTreeSet<Key>,
}

impl<'a> Follow<'a> {
    fn new(schedule: &'a Schedule, seen: &'a mut BTreeSet<Key>) -> Follow<'a> {
        Follow { schedule, at: vec![0; schedule.len()], seen }
    }

    /// The frame that a processor waits for.
    fn head(&mut self, processor: usize, observation: &Observation<'_>) -> Option<Key> {
        loop {
            let next = *self.schedule[processor].get(self.at[processor])?;
            let due = next.0 + observation.case.stream(next.1).deadline;
            if due >= observation.now || observation.requests.iter().any(|r| key(r) == next) {
                return Some(next);
            }
            self.at[processor] += 1;
        }
    }
}

impl Policy for Follow<'_> {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        self.seen.extend(observation.requests.iter().map(key));
        let heads: Vec<Option<Key>> = (0..self.schedule.len()).map(|p| self.head(p, observation)).collect();
        for (i, candidate) in observation.candidates.iter().enumerate() {
            let Action::Launch { request, processor, .. } = candidate.action else { continue };
            let processor = processor.0 as usize;
            if heads[processor] == Some(key(&observation.requests[request as usize])) {
                self.at[processor] += 1;
                return Decision(i);
            }
        }
        Decision(observation.candidates.len() - 1)
    }
}

/// Notes where another policy runs what.
struct Noted<'a> {
    inner: Box<dyn Policy>,
    schedule: &'a mut Schedule,
}

impl Policy for Noted<'_> {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let decision = self.inner.decide(observation);
        if let Action::Launch { request, processor, .. } = observation.candidates[decision.0].action {
            self.schedule[processor.0 as usize].push(key(&observation.requests[request as usize]));
        }
        decision
    }
}

/// A search in one case.
struct Search<'a> {
    job: &'a Job,
    settings: &'a Settings<'a>,
    seen: BTreeSet<Key>,
    random: Pcg64Mcg,
}

impl Search<'_> {
    fn play(&mut self, schedule: &Schedule) -> Result<(f64, Vec<Frame>), ProtocolError> {
        let mut follow = Follow::new(schedule, &mut self.seen);
        let frames = frames(&self.job.workload, self.settings, &mut follow)?;
        Ok((score(&self.job.workload.case, &frames).0.overall, frames))
    }

    fn below(&mut self, n: usize) -> usize {
        self.random.random_range(0..n.max(1))
    }

    /// Puts a frame where its time says, or near there.
    fn insert(&mut self, list: &mut Vec<Key>, frame: Key) {
        let there = list.partition_point(|other| *other < frame);
        let off = self.below(2 * NEAR + 1);
        list.insert((there + off).saturating_sub(NEAR).min(list.len()), frame);
    }

    /// A frame that ever waited.
    fn any(&mut self) -> Option<Key> {
        let at = self.below(self.seen.len());
        self.seen.iter().nth(at).copied()
    }

    /// Changes a little: a frame goes elsewhere, is given up or taken in.
    fn change(&mut self, schedule: &mut Schedule) {
        let Some(frame) = self.any() else { return };
        let was_in = schedule.iter().any(|list| list.contains(&frame));
        schedule.iter_mut().for_each(|list| list.retain(|other| *other != frame));
        if !was_in || self.below(4) > 0 {
            let processor = self.below(schedule.len());
            self.insert(&mut schedule[processor], frame);
        }
    }

    /// Changes much: a model goes to other processors, perhaps in another one's place.
    fn upset(&mut self, schedule: &mut Schedule) {
        let (Some((_, model)), Some((_, gone))) = (self.any(), self.any()) else { return };
        let [first, second] = [0; 2].map(|_| self.below(schedule.len()));
        let gives_way = self.below(2) == 0;
        for (p, list) in schedule.iter_mut().enumerate() {
            let leaves = |other: &Key| other.1 == gone && gives_way && (p == first || p == second);
            list.retain(|other| other.1 != model && !leaves(other));
        }
        let frames: Vec<Key> = self.seen.iter().copied().filter(|other| other.1 == model).collect();
        for (i, frame) in frames.into_iter().enumerate() {
            let list = &mut schedule[if i % 2 == 0 { first } else { second }];
            list.insert(list.partition_point(|other| *other < frame), frame);
        }
    }

    /// The best schedule that so many small changes of this one lead to.
    fn anneal(&mut self, start: Schedule, evaluations: u64) -> Result<(Schedule, f64), ProtocolError> {
        let (mut now, mut worth) = (start.clone(), self.play(&start)?.0);
        let mut best = (start, worth);
        for i in 0..evaluations {
            let heat = HEAT * (1.0 - i as f64 / evaluations as f64);
            let mut other = now.clone();
            self.change(&mut other);
            let reached = self.play(&other)?.0;
            if reached > best.1 {
                best = (other.clone(), reached);
            }
            if reached >= worth || self.random.random::<f64>() < ((reached - worth) / heat).exp() {
                (now, worth) = (other, reached);
            }
        }
        Ok(best)
    }

    /// The best schedule that is found by so many changes of this one: rounds of small ones, three of four after a large one.
    fn best(&mut self, start: Schedule, evaluations: u64) -> Result<Schedule, ProtocolError> {
        let mut best = self.anneal(start, ROUND.min(evaluations))?;
        for round in 1..evaluations / ROUND {
            let mut other = best.0.clone();
            if round % 4 > 0 {
                self.upset(&mut other);
            }
            let found = self.anneal(other, ROUND)?;
            if found.1 > best.1 {
                best = found;
            }
        }
        Ok(best.0)
    }
}

/// What a policy does in a case.
struct Start {
    worth: f64,
    frames: Vec<Frame>,
    schedule: Schedule,
}

impl Start {
    fn of(job: &Job, settings: &Settings<'_>, inner: Box<dyn Policy>) -> Result<Start, ProtocolError> {
        let mut schedule = vec![Vec::new(); job.workload.case.plan.processors.len()];
        let frames = frames(&job.workload, settings, &mut Noted { inner, schedule: &mut schedule })?;
        Ok(Start { worth: score(&job.workload.case, &frames).0.overall, frames, schedule })
    }
}

/// The frames of the best run that is found by so many changes of what the best of these policies do; deterministic.
///
/// # Errors
/// [`XrError::Policy`] and [`XrError::Protocol`].
pub fn best_found(
    job: &Job,
    settings: &Settings<'_>,
    policies: &[String],
    evaluations: u64,
    make: StageMaker<'_>,
) -> Result<Vec<Frame>, XrError> {
    let broken = |error| broken(job, &error);
    let stage = Rehearsal::new(&job.workload, settings);
    let mut starts = Vec::new();
    for spec in policies {
        let policy = make(spec, &stage).map_err(XrError::Policy)?;
        starts.push(Start::of(job, settings, policy).map_err(broken)?);
    }
    starts.sort_by(|a, b| b.worth.total_cmp(&a.worth));
    starts.dedup_by(|a, b| a.schedule == b.schedule);
    starts.truncate(STARTS);
    let random = rng(settings.seed, "bound", 0);
    let mut search = Search { job, settings, seen: BTreeSet::new(), random };
    let mut best = starts.first().map_or((f64::NEG_INFINITY, Vec::new()), |s| (s.worth, s.frames.clone()));
    let each = evaluations / starts.len().max(1) as u64;
    for start in starts {
        let found =
            search.best(start.schedule, each).and_then(|found| search.play(&found)).map_err(broken)?;
        if found.0 > best.0 {
            best = found;
        }
    }
    Ok(best.1)
}
