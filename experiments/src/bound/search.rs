//! The search itself: goes through the run of one seed window by window, and in each looks for bans and for single decisions that make
//! it better; see the module above. It refuses to know of comparisons.

use super::Found;
use super::player::{Bans, Deed, Guide, Moment, Player};
use cosched_env::case::{Case, ProcessorId, StreamId};
use cosched_env::episode::Episode;
use cosched_env::scheduler::ProtocolError;
use cosched_env::streams::rng;
use cosched_env::time::{Span, Time};
use cosched_env::world::Policy;
use rand::RngExt;
use std::sync::Arc;

/// Windows that are looked ahead beyond the one whose decisions are kept.
const TAIL: u64 = 3;
/// Loss that is accepted with a probability of 1/e at the beginning of the search in a window, in utility; it falls to nothing.
const HEAT: f64 = 0.1;
/// Expected requests of a window at most and at least, however long the deadlines are.
const REQUESTS: (f64, f64) = (8.0, 24.0);

fn window(case: &Case) -> Span {
    let longest_ms = case.streams.iter().map(|s| s.deadline.ms()).fold(0.0, f64::max);
    let per_ms: f64 = case.streams.iter().filter(|s| s.period.0 > 0).map(|s| 1.0 / s.period.ms()).sum();
    let ms = if per_ms > 0.0 {
        longest_ms.clamp(REQUESTS.0 / per_ms, REQUESTS.1 / per_ms)
    } else {
        longest_ms.max(1.0)
    };
    Span::from_ms(ms)
}

pub(super) struct Search {
    player: Player,
    case: Arc<Case>,
    seed: u64,
    window: Span,
    /// Those of the last window.
    bans: Bans,
}

impl Search {
    /// A search that begins from these policies; at least one.
    pub(super) fn new(policies: Vec<Box<dyn Policy>>, case: &Arc<Case>, seed: u64) -> Search {
        Search {
            player: Player::new(policies),
            case: case.clone(),
            seed,
            window: window(case),
            bans: Bans::new(case),
        }
    }

    /// Plays the part of the run that one evaluation plays, under each policy once. Returns how many plays that are.
    pub(super) fn rehearse(&mut self, mut start: Episode) -> Result<usize, ProtocolError> {
        start.advance()?;
        start.stop_arrivals(Time::ZERO + Span(self.window.0 * (TAIL + 1)));
        let bans = Bans::new(&self.case);
        for index in 0..self.player.policies.len() {
            self.player.play(start.clone(), 0.0, None, Guide::Policy(index, &bans), None)?;
        }
        Ok(self.player.policies.len())
    }

    /// How many plays it takes to try so many changes in a run of this length: each window begins with all policies, twice.
    pub(super) fn plays(&self, evaluations: u64, run: Span) -> f64 {
        let windows = (run.ms() / self.window.ms()).ceil();
        evaluations as f64 + windows * 2.0 * (self.player.policies.len() + 1) as f64
    }

    /// The best run.
    pub(super) fn best(&mut self, mut start: Episode, evaluations: u64) -> Result<Found, ProtocolError> {
        start.advance()?;
        // What every policy of the portfolio reaches, and where the best one loses requests: there is something to gain.
        let mut best = Found { utility: f64::NEG_INFINITY, choices: Vec::new() };
        let mut losses = Vec::new();
        for index in 0..self.player.policies.len() {
            let (mut sums, mut choices) = ((0.0, 0), Vec::new());
            self.player.lost.clear();
            let mut episode = start.clone();
            while let Some(observation) = episode.observation() {
                let choice = self.player.policies[index].decide(&observation).0;
                let candidates = observation.candidates.len();
                let (score, count) = self.player.step(&mut episode, choice, candidates)?;
                sums = (sums.0 + score, sums.1 + count);
                choices.push(choice);
            }
            let utility = sums.0 / sums.1.max(1) as f64;
            if utility > best.utility {
                best = Found { utility, choices };
                losses = self.player.lost.iter().map(|who| who.1).collect();
            }
        }
        self.player.par = best.utility;
        let found = self.through(start, &losses, evaluations)?;
        self.player.par = 0.0;
        Ok(if found.utility > best.utility { found } else { best })
    }

    /// Goes through the run, window by window; `losses` are the times of requests that the best policy lost.
    fn through(
        &mut self,
        mut truth: Episode,
        losses: &[Time],
        evaluations: u64,
    ) -> Result<Found, ProtocolError> {
        let (mut score, mut count, mut choices) = (0.0, 0, Vec::new());
        let mut deeds: Vec<Deed> = Vec::new();
        while let Some(now) = truth.observation().map(|o| o.now) {
            let commit = now + self.window;
            let sure = commit + Span(self.window.0 * (TAIL - 1));
            let mut part = truth.clone();
            part.stop_arrivals(sure + self.window);
            let here = losses.iter().filter(|&&at| now <= at + self.window && at < commit).count() as u64;
            let share = evaluations * here / (2 * losses.len() as u64).max(1);
            let moments = self.improve(part, &deeds, commit, share)?;
            let kept = moments.iter().take_while(|m| m.at < commit);
            // At least one decision, or nothing would ever happen.
            let kept = kept.count().max(1).min(moments.len());
            for moment in &moments[..kept] {
                let (more, ended) = self.player.step(&mut truth, moment.choice, moment.candidates)?;
                (score, count) = (score + more, count + ended);
                choices.push(moment.choice);
            }
            // Near the end of the part it is served as if nobody came after.
            deeds = moments[kept..].iter().filter(|m| m.at < sure).map(|m| m.deed).collect();
        }
        Ok(Found { utility: score / count.max(1) as f64 + self.player.par, choices })
    }

    /// The best run of a part of the true one that is found: `deeds` are what was found for its first half.
    fn improve(
        &mut self,
        part: Episode,
        deeds: &[Deed],
        commit: Time,
        evaluations: u64,
    ) -> Result<Vec<Moment>, ProtocolError> {
        let (bans, base, reached) = self.restrict(&part, evaluations / 2)?;
        let old = Guide::Deeds(deeds, base, &bans);
        let of_old = self.player.play(part.clone(), 0.0, None, old, None)?;
        let guide = if of_old >= reached { old } else { Guide::Policy(base, &bans) };
        let mut moments = Vec::new();
        let score = self.player.play(part, 0.0, None, guide, Some(&mut moments))?;
        self.anneal(moments, score, (base, &bans), commit, evaluations / 2)
    }

    /// The policy of the portfolio, and what it had better not do, that serve a part of the run best: bans are set and lifted at random,
    /// and those that do no harm are kept. They are kept for the next window too. Returns them with the policy and its score.
    fn restrict(&mut self, part: &Episode, evaluations: u64) -> Result<(Bans, usize, f64), ProtocolError> {
        let none = Bans::new(&self.case);
        let mut best = (none.clone(), 0, f64::NEG_INFINITY);
        for bans in [none, self.bans.clone()] {
            for index in 0..self.player.policies.len() {
                let guide = Guide::Policy(index, &bans);
                let score = self.player.play(part.clone(), 0.0, None, guide, None)?;
                if score > best.2 {
                    best = (bans.clone(), index, score);
                }
            }
        }
        let mut rng = rng(self.seed, "bans", part.now().0);
        for _ in 0..evaluations {
            let mut bans = best.0.clone();
            self.change(&mut bans, &mut rng);
            let index =
                if rng.random_bool(0.3) { rng.random_range(0..self.player.policies.len()) } else { best.1 };
            let guide = Guide::Policy(index, &bans);
            let score = self.player.play(part.clone(), 0.0, None, guide, None)?;
            if score >= best.2 {
                best = (bans, index, score);
            }
        }
        self.bans = best.0.clone();
        Ok(best)
    }

    /// Sets or lifts the ban of a stream from a processor, or from a variant, or from both together.
    fn change(&self, bans: &mut Bans, rng: &mut impl RngExt) {
        let stream = StreamId(rng.random_range(0..self.case.streams.len()) as u16);
        let variants = &self.case.tasks[self.case.stream(stream).task.0 as usize].variants;
        let variant = variants[rng.random_range(0..variants.len())];
        let processor = ProcessorId(rng.random_range(0..self.case.processor_count()) as u16);
        let what = rng.random_range(0..3);
        let banned = !bans.is_banned(stream, variant, processor);
        for &v in variants {
            for p in (0..self.case.processor_count() as u16).map(ProcessorId) {
                let meant = match what {
                    0 => p == processor,
                    1 => v == variant,
                    _ => p == processor && v == variant,
                };
                if meant {
                    bans.set(stream, v, p, banned);
                }
            }
        }
    }

    /// Changes single decisions of a run, by simulated annealing.
    fn anneal(
        &mut self,
        mut moments: Vec<Moment>,
        mut score: f64,
        base: (usize, &Bans),
        commit: Time,
        evaluations: u64,
    ) -> Result<Vec<Moment>, ProtocolError> {
        let at = moments.first().map_or(0, |m| m.at.0);
        let mut rng = rng(self.seed, "bound", at);
        let mut rest: Vec<Deed> = Vec::new();
        let mut best = (score, moments.clone());
        for done in 0..evaluations {
            let early = moments.iter().take_while(|m| m.at < commit).count();
            let among = if early > 0 && rng.random_bool(0.8) { early } else { moments.len() };
            if among == 0 {
                break;
            }
            let index = rng.random_range(0..among);
            let moment = &moments[index];
            let (mut episode, before) = (moment.episode.clone(), moment.score);
            let first = self.propose(&mut episode, &mut rng);
            if first == moment.choice {
                continue;
            }
            rest.clear();
            rest.extend(moments[index..].iter().map(|m| m.deed).filter(|d| d.who().is_some()));
            // Who waits wants something else to come first.
            if first + 1 == moment.candidates && rest.len() > 1 {
                let later = rng.random_range(1..rest.len().min(4));
                rest[..=later].rotate_left(1);
            }
            let guide = if rng.random_bool(0.5) {
                Guide::Policy(base.0, base.1)
            } else {
                Guide::Deeds(&rest, base.0, base.1)
            };
            let new = self.player.play(episode.clone(), before, Some(first), guide, None)?;
            let heat = HEAT * (1.0 - done as f64 / evaluations as f64);
            if new >= score || rng.random::<f64>() < ((new - score) / heat).exp() {
                score = new;
                moments.truncate(index);
                self.player.play(episode, before, Some(first), guide, Some(&mut moments))?;
                if score > best.0 {
                    best = (score, moments.clone());
                }
            }
        }
        Ok(best.1)
    }

    /// A candidate at random; half the time one for a request that was lost in the best run so far, if there is one.
    fn propose(&self, episode: &mut Episode, rng: &mut impl RngExt) -> usize {
        let Some(observation) = episode.observation() else { return 0 };
        let n = observation.candidates.len();
        let lost = |c: &usize| {
            let of = observation.request_of(&observation.candidates[*c]);
            of.is_some_and(|r| self.player.lost.contains(&(r.stream, r.origin)))
        };
        let count = (0..n).filter(lost).count();
        if count > 0 && rng.random_bool(0.5) {
            let place = rng.random_range(0..count);
            return (0..n).filter(lost).nth(place).unwrap_or(0);
        }
        rng.random_range(0..n)
    }
}
