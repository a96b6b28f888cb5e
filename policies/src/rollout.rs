//! Rollout (Bertsekas, Tsitsiklis and Wu, J. Heuristics 1997), with several base policies at once (parallel rollout: Chang, Givan and
//! Chong, DEDS 2004): each candidate is taken in a copy of the decision core, a base policy goes on from there in an emulated device, and
//! the candidate with the greatest sum of utilities is chosen. One such step improves on every base policy as far as the emulated device
//! is right. It refuses to know the future: it predicts arrivals, and launches take what the plan says. It takes milliseconds: a teacher
//! and a yardstick, not for live use.

use crate::board::launches;
use crate::{Make, PolicyError, Row, TABLE, nearest};
use cosched_env::case::{Case, ProcessorId};
use cosched_env::emulator::{Config, Emulator};
use cosched_env::observation::{Action, Candidate, Observation};
use cosched_env::scenario::ArrivalKind;
use cosched_env::scheduler::Scheduler;
use cosched_env::time::Span;
use cosched_env::world::{Decision, Earned, Policy, World, drive};

pub(crate) const ROW: Row = Row {
    name: "rollout",
    about: "tries every candidate in an emulated copy and takes the best; goes on as rollout:POLICY, by default as several",
    make: Make::For(make),
    searches: true,
};

/// The base policies when none is named: what is best at one moment is not at another.
const BASES: &[&str] = &["least-slack", "heft", "edf-skip", "eft"];
/// Arrivals are looked ahead for so many of the longest deadlines of the case (and then all that is open is served: nothing
/// is left over whose value would have to be guessed).
const DEADLINES_AHEAD: f64 = 1.0;
/// ... but for no more requests than this (in expectation), which bounds the cost of a decision.
const MOST_ARRIVALS: f64 = 64.0;
/// Futures that are drawn at each decision of a case in which anything is random: with one alone, what is lucky in it would look good.
/// Every candidate is tried in the first of them, and the best in all.
const FUTURES: usize = 4;
/// Candidates that are tried in all futures.
const FINALISTS: usize = 4;
/// Candidates that are tried at most; see [`Rollout::choose_tried`] for which.
const MOST_TRIED: usize = 24;
/// Another choice than the base policy's has to be better by so many standard errors of the difference.
const SURE: f64 = 1.0;
/// Differences of value below this are rounding.
const EPSILON: f64 = 1e-9;

fn make(parameter: Option<&str>, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(Rollout::new(parameter, case)?))
}

fn base(spec: &str, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    let name = spec.split_once(':').map_or(spec, |(name, _)| name);
    let usable = || TABLE.iter().filter(|row| !row.searches).map(|row| row.name);
    if usable().all(|n| n != name) {
        return Err(PolicyError::Parameter {
            policy: ROW.name.to_owned(),
            what: "base policy",
            parameter: spec.to_owned(),
            nearest: nearest(name, usable()),
            known: usable().map(str::to_owned).collect(),
        });
    }
    crate::make(spec, case)
}

/// The futures of a moment: the same for all candidates, others at another moment.
pub(crate) struct Futures {
    look_ahead: Span,
    count: usize,
    worlds: Vec<Emulator>,
}

impl Futures {
    /// Where anything is random so many futures as said, otherwise one. Each has (in expectation) no more requests to come than
    /// `most_arrivals` says for that number of futures.
    pub(crate) fn new(case: &Case, count: usize, most_arrivals: impl Fn(usize) -> f64) -> Futures {
        let count = if is_random(case) { count } else { 1 };
        let most_arrivals = most_arrivals(count);
        let longest_ms = case.streams.iter().map(|s| s.deadline.ms()).fold(0.0, f64::max);
        let per_ms: f64 = case.streams.iter().filter(|s| s.period.0 > 0).map(|s| 1.0 / s.period.ms()).sum();
        let most_ms = if per_ms > 0.0 { most_arrivals / per_ms } else { f64::INFINITY };
        let look_ahead = Span::from_ms((DEADLINES_AHEAD * longest_ms).min(most_ms));
        Futures { look_ahead, count, worlds: Vec::new() }
    }

    /// Draws them. Deciding costs what it does by default.
    fn draw(&mut self, core: &Scheduler) {
        let horizon = core.now() + self.look_ahead;
        self.worlds.clear();
        for future in 0..self.count as u64 {
            let config = Config { spread: self.count > 1, ..Config::default() };
            let seed = (core.now().0 ^ (future << 56)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.worlds.push(Emulator::resume(core, config, seed, horizon));
        }
    }
}

/// Tries given candidates in the same futures.
pub(crate) struct Judge {
    futures: Futures,
    /// Values by future of the first candidate and of another one.
    first: Vec<f64>,
    other: Vec<f64>,
}

impl Judge {
    pub(crate) fn new(futures: Futures) -> Judge {
        Judge { futures, first: Vec::new(), other: Vec::new() }
    }

    /// Of `choices` the one that is worth most when `base` goes on; the first, unless another is better beyond doubt.
    pub(crate) fn best(
        &mut self,
        observation: &Observation<'_>,
        choices: &[usize],
        base: &mut dyn Policy,
    ) -> usize {
        let n = observation.candidates.len();
        let core = observation.fork();
        self.futures.draw(&core);
        let values = |choice: usize, base: &mut dyn Policy, into: &mut Vec<f64>| {
            into.clear();
            into.extend(self.futures.worlds.iter().map(|world| value(&core, world, choice, n, base)));
        };
        values(choices[0], base, &mut self.first);
        let mut best = (choices[0], 0.0);
        for &choice in &choices[1..] {
            values(choice, base, &mut self.other);
            let mean = mean_gain(&self.other, &self.first);
            let sure = mean - SURE * standard_error(&self.other, &self.first, mean);
            if sure > best.1 + EPSILON {
                best = (choice, sure);
            }
        }
        best.0
    }
}

/// Whether two futures can differ: in arrivals, in what launches take, or in what links do.
fn is_random(case: &Case) -> bool {
    let arrivals = case.streams.iter().any(|s| match s.kind {
        ArrivalKind::Periodic => s.jitter.0 > 0,
        ArrivalKind::Trace => false,
        ArrivalKind::Dependent => s.probability < 1.0,
        ArrivalKind::Poisson | ArrivalKind::Bursty => true,
    });
    let spread = |p: usize| {
        case.variants.iter().any(|table| table.log_sigma(ProcessorId(p as u16), 0, table.segments - 1) > 0.0)
    };
    arrivals
        || (0..case.processor_count()).any(spread)
        || case.processors.iter().any(|p| p.model.link.is_some())
}

/// What a candidate gains over the base policy's choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// Index of the candidate.
    pub choice: usize,
    /// Utility gained on average over the futures in which it was tried, summed over all requests.
    pub mean: f64,
    /// What of it can be counted on: the mean less some standard errors. Minus infinity where it was not tried in all futures.
    pub sure: f64,
}

/// See the module's text.
pub struct Rollout {
    bases: Vec<Box<dyn Policy>>,
    futures: Futures,
    /// Buffers: (rank, candidate) that are tried, values by future of the base policy and of a candidate.
    ranked: Vec<(u8, usize)>,
    base_values: Vec<f64>,
    values: Vec<f64>,
    gains: Vec<Gain>,
}

/// Sum of the utilities of all requests until the last has ended, if `choice` is taken at the decision at which `core` and `world` stand
/// and `base` goes on.
fn value(core: &Scheduler, world: &Emulator, choice: usize, candidates: usize, base: &mut dyn Policy) -> f64 {
    let (mut core, mut world, mut earned) = (core.clone(), world.clone(), Earned::default());
    world.decided(Decision(choice), candidates);
    let ran = core.decide(Decision(choice)).and_then(|()| drive(&mut core, &mut world, base, &mut earned));
    // A base policy that chooses what is not there is worth nothing.
    ran.map_or(f64::NEG_INFINITY, |_| earned.utility)
}

impl Rollout {
    /// On top of one base policy, or of several when none is named.
    ///
    /// # Errors
    /// [`PolicyError::Parameter`] for a base policy that is not there or searches itself, and what making it says.
    pub fn new(parameter: Option<&str>, case: &Case) -> Result<Rollout, PolicyError> {
        let bases = match parameter {
            Some(spec) => vec![base(spec, case)?],
            None => BASES.iter().map(|spec| base(spec, case)).collect::<Result<_, _>>()?,
        };
        Ok(Rollout {
            bases,
            futures: Futures::new(case, FUTURES, |_| MOST_ARRIVALS),
            ranked: Vec::new(),
            base_values: Vec::new(),
            values: Vec::new(),
            gains: Vec::new(),
        })
    }

    /// The base policy that is worth most from here, its choice and its values.
    fn lead(&mut self, observation: &Observation<'_>, core: &Scheduler) -> (usize, usize) {
        let mut best = (0, 0, f64::NEG_INFINITY);
        for (b, base) in self.bases.iter_mut().enumerate() {
            let choice = base.decide(observation).0;
            self.values.clear();
            for world in &self.futures.worlds {
                let candidates = observation.candidates.len();
                self.values.push(value(core, world, choice, candidates, base.as_mut()));
            }
            let sum: f64 = self.values.iter().sum();
            if sum > best.2 + EPSILON || b == 0 {
                best = (b, choice, sum);
                std::mem::swap(&mut self.values, &mut self.base_values);
            }
        }
        (best.0, best.1)
    }

    /// Which candidates are tried: waiting, whole launches, then drops, then launches that stop half way. Of whole launches of a request
    /// on one processor those are left out that another variant beats in time, energy and accuracy.
    fn choose_tried(&mut self, observation: &Observation<'_>, but: usize) {
        self.ranked.clear();
        for (choice, candidate) in observation.candidates.iter().enumerate() {
            let rank = match candidate.action {
                _ if choice == but => continue,
                Action::Wait => 0,
                Action::Drop { .. } => 2,
                Action::Launch { .. } if !candidate.farthest => 3,
                Action::Launch { .. } if beaten(observation, candidate) => continue,
                Action::Launch { .. } => 1,
            };
            self.ranked.push((rank, choice));
        }
        self.ranked.sort_unstable();
        self.ranked.truncate(MOST_TRIED);
    }
}

/// Whether another variant does the same on the same processor at least as well in every respect and better in one.
fn beaten(observation: &Observation<'_>, candidate: &Candidate) -> bool {
    let Action::Launch { request, variant, processor, .. } = candidate.action else { return false };
    let measures = |c: &Candidate, v| {
        [c.expected_ns, c.expected_ns + c.rest_ns, c.energy_mj, -observation.case.variant(v).accuracy]
    };
    let mine = measures(candidate, variant);
    launches(observation, request as usize).any(|(_, other)| match other.action {
        Action::Launch { variant: v, processor: p, .. } if p == processor && v != variant => {
            let theirs = measures(other, v);
            let pairs = || theirs.iter().zip(&mine);
            other.farthest && pairs().all(|(a, b)| a <= b) && pairs().any(|(a, b)| a < b)
        }
        _ => false,
    })
}

impl Rollout {
    /// Tries the candidates. The first entry is the choice of the base policy that is worth most from here (it gains nothing over itself),
    /// then come the others that were tried, best first. A teacher learns more from these than from the choice alone.
    pub fn gains(&mut self, observation: &Observation<'_>) -> &[Gain] {
        let n = observation.candidates.len();
        let core = observation.fork();
        self.futures.draw(&core);
        let (leader, choice) = self.lead(observation, &core);
        self.choose_tried(observation, choice);
        let Self { futures: Futures { worlds, .. }, bases, base_values, values, gains, .. } = self;
        let base = bases[leader].as_mut();
        gains.clear();
        gains.push(Gain { choice, mean: 0.0, sure: 0.0 });
        for &(_, choice) in &self.ranked {
            let mean = value(&core, &worlds[0], choice, n, base) - base_values[0];
            gains.push(Gain { choice, mean, sure: f64::NEG_INFINITY });
        }
        let best_first = |gains: &mut [Gain]| {
            gains.sort_by(|a, b| b.mean.total_cmp(&a.mean).then(a.choice.cmp(&b.choice)));
        };
        best_first(&mut gains[1..]);
        for gain in gains[1..].iter_mut().take(FINALISTS) {
            values.clear();
            values.push(base_values[0] + gain.mean);
            values.extend(worlds[1..].iter().map(|world| value(&core, world, gain.choice, n, base)));
            gain.mean = mean_gain(values, base_values);
            gain.sure = gain.mean - SURE * standard_error(values, base_values, gain.mean);
        }
        best_first(&mut gains[1..]);
        gains
    }
}

/// Mean difference to the base policy, future by future.
fn mean_gain(values: &[f64], base: &[f64]) -> f64 {
    values.iter().zip(base).map(|(v, b)| v - b).sum::<f64>() / values.len() as f64
}

/// Standard error of that mean; 0 of one future.
fn standard_error(values: &[f64], base: &[f64], mean: f64) -> f64 {
    let n = values.len() as f64;
    let squares: f64 = values.iter().zip(base).map(|(v, b)| (v - b - mean).powi(2)).sum();
    (squares / (n * (n - 1.0).max(1.0))).sqrt()
}

impl Policy for Rollout {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let gains = self.gains(observation);
        let mut best = gains[0];
        for gain in &gains[1..] {
            if gain.sure > best.sure + EPSILON {
                best = *gain;
            }
        }
        Decision(best.choice)
    }
}
