//! Plays a part of a run from a stored state under a guide: a policy, or a list of deeds found before. It refuses to search.

use cosched_env::case::{Case, ProcessorId, StreamId, VariantId};
use cosched_env::episode::Episode;
use cosched_env::observation::{Action, Candidate, Observation};
use cosched_env::scheduler::ProtocolError;
use cosched_env::time::Time;
use cosched_env::world::{Decision, Policy};
use std::collections::BTreeSet;

/// A request by what does not hang on how others were served: its stream, and when its chain began.
pub(super) type Who = (StreamId, Time);

/// What a decision did, in words that still make sense when something before it has changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Deed {
    Wait,
    Drop(Who),
    Launch { who: Who, variant: VariantId, first: u16, last: u16, processor: ProcessorId },
}

impl Deed {
    fn of(observation: &Observation<'_>, choice: usize) -> Deed {
        let who = |request: u16| {
            let r = &observation.requests[request as usize];
            (r.stream, r.origin)
        };
        match observation.candidates.get(choice).map(|c| c.action) {
            Some(Action::Launch { request, variant, first, last, processor }) => {
                Deed::Launch { who: who(request), variant, first, last, processor }
            }
            Some(Action::Drop { request }) => Deed::Drop(who(request)),
            _ => Deed::Wait,
        }
    }

    pub(super) fn who(&self) -> Option<Who> {
        match self {
            Deed::Wait => None,
            Deed::Drop(who) | Deed::Launch { who, .. } => Some(*who),
        }
    }
}

/// A decision of a run that was played, with the state before it.
#[derive(Clone)]
pub(super) struct Moment {
    pub episode: Episode,
    pub at: Time,
    pub candidates: usize,
    pub choice: usize,
    pub deed: Deed,
    /// Score of what had ended before.
    pub score: f64,
}

/// Launches that a policy is not shown, by stream, variant and processor: it becomes another policy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bans {
    banned: Vec<bool>,
    variants: usize,
    processors: usize,
}

impl Bans {
    /// None.
    pub(super) fn new(case: &Case) -> Bans {
        let (variants, processors) = (case.variants.len(), case.processor_count());
        Bans { banned: vec![false; case.streams.len() * variants * processors], variants, processors }
    }

    fn at(&self, stream: StreamId, variant: VariantId, processor: ProcessorId) -> usize {
        let row = stream.0 as usize * self.variants + variant.0 as usize;
        row * self.processors + processor.0 as usize
    }

    pub(super) fn is_banned(&self, stream: StreamId, variant: VariantId, processor: ProcessorId) -> bool {
        self.banned[self.at(stream, variant, processor)]
    }

    pub(super) fn set(&mut self, stream: StreamId, variant: VariantId, processor: ProcessorId, banned: bool) {
        let at = self.at(stream, variant, processor);
        self.banned[at] = banned;
    }
}

/// Who decides in a run.
#[derive(Clone, Copy)]
pub(super) enum Guide<'a> {
    /// This policy of the portfolio under these bans.
    Policy(usize, &'a Bans),
    /// These deeds in this order, each as soon as it can be done; what they leave over falls to a policy of the portfolio.
    Deeds(&'a [Deed], usize, &'a Bans),
}

/// A policy that is shown only what is not banned.
struct Restricted<'a> {
    policy: &'a mut dyn Policy,
    bans: &'a Bans,
    shown: &'a mut Vec<Candidate>,
    places: &'a mut Vec<usize>,
}

impl Restricted<'_> {
    fn decide(&mut self, observation: &Observation<'_>) -> usize {
        self.shown.clear();
        self.places.clear();
        for (place, candidate) in observation.candidates.iter().enumerate() {
            let banned = match candidate.action {
                Action::Launch { request, variant, processor, .. } => {
                    let stream = observation.requests[request as usize].stream;
                    self.bans.is_banned(stream, variant, processor)
                }
                _ => false,
            };
            if !banned {
                self.shown.push(*candidate);
                self.places.push(place);
            }
        }
        let mut seen = *observation;
        seen.candidates = self.shown;
        let choice = self.policy.decide(&seen).0;
        self.places.get(choice).copied().unwrap_or(observation.candidates.len() - 1)
    }
}

/// Share of its priority above which a request's utility is as good as it gets.
const WHOLE: f64 = 0.95;

/// Plays runs.
pub(super) struct Player {
    pub policies: Vec<Box<dyn Policy>>,
    /// What is taken off the utility of every request, so that it does not pay to have more or fewer of them (streams may depend on
    /// answers): the mean that is to be beaten.
    pub par: f64,
    gone: BTreeSet<Who>,
    /// Requests of the last run that was stepped or recorded that ended with less than all that they could be worth.
    pub lost: BTreeSet<Who>,
    shown: Vec<Candidate>,
    places: Vec<usize>,
}

impl Player {
    pub(super) fn new(policies: Vec<Box<dyn Policy>>) -> Player {
        Player {
            policies,
            par: 0.0,
            gone: BTreeSet::new(),
            lost: BTreeSet::new(),
            shown: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Takes a decision and runs on to the next one. Returns what the requests that ended meanwhile score, and how many they are.
    pub(super) fn step(
        &mut self,
        episode: &mut Episode,
        choice: usize,
        candidates: usize,
    ) -> Result<(f64, u64), ProtocolError> {
        episode.decide(Decision(choice), candidates)?;
        episode.advance()?;
        let (mut score, mut count) = (0.0, 0);
        for ended in episode.take_ended() {
            score += ended.utility - self.par;
            count += 1;
            let who = (ended.request.stream, ended.request.origin);
            self.gone.insert(who);
            if ended.utility < WHOLE * ended.request.priority {
                self.lost.insert(who);
            }
        }
        Ok((score, count))
    }

    /// Plays `episode` to its end; the first choice is `first` if there is one. Returns the score. With `record` all moments are kept.
    pub(super) fn play(
        &mut self,
        mut episode: Episode,
        mut score: f64,
        mut first: Option<usize>,
        guide: Guide<'_>,
        mut record: Option<&mut Vec<Moment>>,
    ) -> Result<f64, ProtocolError> {
        self.gone.clear();
        let (lost, keep) = (std::mem::take(&mut self.lost), record.is_none());
        let mut cursor = 0;
        while let Some(observation) = episode.observation() {
            let (Guide::Policy(index, bans) | Guide::Deeds(_, index, bans)) = guide;
            let (policy, shown, places) = (self.policies[index].as_mut(), &mut self.shown, &mut self.places);
            let mut base = Restricted { policy, bans, shown, places };
            let choice = match (first.take(), guide) {
                (Some(choice), _) => choice,
                (None, Guide::Policy(..)) => base.decide(&observation),
                (None, Guide::Deeds(deeds, ..)) => {
                    follow(&observation, deeds, &mut cursor, &self.gone, &mut base)
                }
            };
            let (at, candidates) = (observation.now, observation.candidates.len());
            if let Some(moments) = &mut record {
                let deed = Deed::of(&observation, choice);
                moments.push(Moment { episode: episode.clone(), at, candidates, choice, deed, score });
            }
            score += self.step(&mut episode, choice, candidates)?.0;
        }
        if keep {
            self.lost = lost;
        }
        Ok(score)
    }
}

/// The next deed if it can be done now; else what `base` says of requests that no deed is about; else waiting.
fn follow(
    observation: &Observation<'_>,
    deeds: &[Deed],
    cursor: &mut usize,
    gone: &BTreeSet<Who>,
    base: &mut Restricted<'_>,
) -> usize {
    while let Some(deed) = deeds.get(*cursor) {
        let Some(who) = deed.who().filter(|who| !gone.contains(who)) else {
            *cursor += 1;
            continue;
        };
        // One that is not seen has not arrived, or runs.
        let Some(view) = observation.requests.iter().find(|r| (r.stream, r.origin) == who) else { break };
        let choice = (0..observation.candidates.len()).find(|&c| Deed::of(observation, c) == *deed);
        if let Some(choice) = choice {
            *cursor += 1;
            return choice;
        }
        match deed {
            // Its processor is busy.
            Deed::Launch { variant, first, .. }
                if view.next == *first && view.variant.is_none_or(|v| v == *variant) =>
            {
                break;
            }
            _ => *cursor += 1,
        }
    }
    let left = &deeds[(*cursor).min(deeds.len())..];
    let wait = observation.candidates.len() - 1;
    let planned = |who: Who| left.iter().any(|deed| deed.who() == Some(who));
    if observation.requests.iter().all(|r| planned((r.stream, r.origin))) {
        return wait;
    }
    let choice = base.decide(observation);
    if Deed::of(observation, choice).who().is_some_and(planned) { wait } else { choice }
}
