//! Collects experience: many emulated episodes side by side, each with its own random streams, so that the result is the same
//! whatever the number of threads. It refuses to touch tch: acting is the plain forward pass.

use super::recipe::Recipe;
use crate::features::{CANDIDATE_FEATURES, CONTEXT_FEATURES, Encoder};
use crate::network::{Forward, Weights};
use crate::randomize::neighbour;
use cosched_env::case::{Case, CaseError};
use cosched_env::device::Device;
use cosched_env::emulator::Config;
use cosched_env::episode::{End, Episode};
use cosched_env::plan::Plan;
use cosched_env::scenario::Scenario;
use cosched_env::scheduler::{Options, ProtocolError};
use cosched_env::streams::rng;
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Policy};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::sync::Arc;

/// Where training cases come from.
#[derive(Clone)]
pub struct Source {
    /// Name for the checkpoint.
    pub name: String,
    /// Plan of the device.
    pub plan: Plan,
    /// The device beyond the plan.
    pub device: Device,
    /// Scenario.
    pub scenario: Scenario,
    /// How the emulated device departs from the plan.
    pub emulator: Config,
    /// Limits of the scheduler.
    pub options: Options,
}

/// Why experience could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// A training case is not well-formed.
    #[error("training case: {0}")]
    Case(#[from] CaseError),
    /// A bug in the emulator or the scheduler.
    #[error("emulator: {0}")]
    Protocol(#[from] ProtocolError),
}

/// Makes the teacher for a case.
pub type Teacher = dyn Fn(&Case) -> Box<dyn Policy> + Sync;

/// What one actor saw, decision by decision.
#[derive(Default)]
pub struct Experience {
    /// Candidate rows of all decisions, one after the other.
    pub rows: Vec<f32>,
    /// Where the rows of each decision begin; one more entry than decisions, in floats.
    pub starts: Vec<usize>,
    /// `[decisions, CONTEXT_FEATURES]`.
    pub context: Vec<f32>,
    /// Candidate chosen.
    pub action: Vec<usize>,
    /// Log-probability of the choice at the time.
    pub log_probability: Vec<f32>,
    /// Value of the state at the time.
    pub value: Vec<f32>,
    /// Reward until the next decision.
    pub reward: Vec<f32>,
    /// Discount over the time until the next decision.
    pub discount: Vec<f32>,
    /// Value of the next state; 0 when the episode finished, the cut-off future's value when it was truncated.
    pub next_value: Vec<f32>,
    /// Whether the next decision belongs to another episode.
    pub last: Vec<bool>,
    /// Utility per request of the episodes that ended, with their number of requests.
    pub episodes: Vec<(f64, usize)>,
}

impl Experience {
    /// Number of decisions.
    pub fn len(&self) -> usize {
        self.action.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.action.is_empty()
    }

    /// Rows and context of decision `i`.
    pub fn observation(&self, i: usize) -> (&[f32], &[f32]) {
        let context = &self.context[i * CONTEXT_FEATURES..(i + 1) * CONTEXT_FEATURES];
        (&self.rows[self.starts[i]..self.starts[i + 1]], context)
    }
}

/// One episode after another.
pub struct Actor {
    rng: Pcg64Mcg,
    seed: u64,
    index: u64,
    played: u64,
    episode: Episode,
    case: Arc<Case>,
    units: Units,
    teacher: Option<Box<dyn Policy>>,
    encoder: Encoder,
    forward: Forward,
    utility: f64,
    requests: usize,
}

impl Actor {
    /// Actor `index` of a training run.
    ///
    /// # Errors
    /// [`RolloutError::Case`] when a source is not well-formed.
    pub fn new(sources: &[Source], recipe: &Recipe, index: u64) -> Result<Actor, RolloutError> {
        let mut random = rng(recipe.seed, "actor", index);
        let (episode, case) = fresh(sources, recipe, &mut random, index << 32)?;
        Ok(Actor {
            rng: random,
            seed: recipe.seed,
            index,
            played: 0,
            episode,
            units: Units::of(&case, recipe),
            case,
            teacher: None,
            encoder: Encoder::new(),
            forward: Forward::default(),
            utility: 0.0,
            requests: 0,
        })
    }

    /// Collects `decisions` decisions. With a teacher, its choices are taken (and recorded), otherwise those of the network,
    /// sampled.
    ///
    /// # Errors
    /// [`RolloutError`].
    pub fn collect(
        &mut self,
        sources: &[Source],
        recipe: &Recipe,
        weights: &Weights,
        teacher: Option<&Teacher>,
        decisions: usize,
    ) -> Result<Experience, RolloutError> {
        let mut out = Experience { starts: vec![0], ..Experience::default() };
        self.teacher = teacher.map(|make| make(&self.case));
        self.episode.advance()?;
        while out.len() < decisions {
            let Some(observation) = self.episode.observation() else {
                self.restart(sources, recipe, teacher)?;
                continue;
            };
            self.encoder.encode(&observation);
            let n = observation.candidates.len();
            let value = self.forward.run(weights, &self.encoder);
            let (action, log_probability) = match &mut self.teacher {
                Some(policy) => (policy.decide(&observation).0, 0.0),
                None => sample(&self.forward.logits, &mut self.rng),
            };
            debug_assert_eq!(self.encoder.candidates.len(), n * CANDIDATE_FEATURES);
            out.rows.extend_from_slice(&self.encoder.candidates);
            out.starts.push(out.rows.len());
            out.context.extend_from_slice(&self.encoder.context);
            out.action.push(action);
            out.log_probability.push(log_probability);
            out.value.push(value);
            self.episode.decide(Decision(action), n)?;
            self.close_step(sources, recipe, weights, teacher, &mut out)?;
        }
        Ok(out)
    }

    /// Runs to the next decision and completes the last step of `out`.
    fn close_step(
        &mut self,
        sources: &[Source],
        recipe: &Recipe,
        weights: &Weights,
        teacher: Option<&Teacher>,
        out: &mut Experience,
    ) -> Result<(), RolloutError> {
        let step = self.episode.advance()?;
        for ended in self.episode.take_ended() {
            self.utility += ended.utility;
            self.requests += 1;
        }
        out.reward.push((step.reward * self.units.reward) as f32);
        out.discount.push((-step.elapsed.ms() / self.units.horizon_ms).exp() as f32);
        let finished = step.end == Some(End::Finished);
        out.last.push(step.end.is_some());
        let next_value = match self.episode.observation() {
            Some(observation) if !finished => {
                self.encoder.encode(&observation);
                self.forward.run(weights, &self.encoder)
            }
            _ => 0.0,
        };
        out.next_value.push(next_value);
        if step.end.is_some() {
            if self.requests > 0 {
                out.episodes.push((self.utility / self.requests as f64, self.requests));
            }
            self.restart(sources, recipe, teacher)?;
        }
        Ok(())
    }

    fn restart(
        &mut self,
        sources: &[Source],
        recipe: &Recipe,
        teacher: Option<&Teacher>,
    ) -> Result<(), RolloutError> {
        self.played += 1;
        let seed = self.seed ^ (self.index << 32) ^ self.played;
        (self.episode, self.case) = fresh(sources, recipe, &mut self.rng, seed)?;
        self.units = Units::of(&self.case, recipe);
        self.teacher = teacher.map(|make| make(&self.case));
        (self.utility, self.requests) = (0.0, 0);
        self.episode.advance()?;
        Ok(())
    }
}

/// What makes returns of unlike cases alike, so that one value head serves them all.
struct Units {
    /// Time constant of the discount `exp(-elapsed / horizon)`: time counts, not the number of decisions in it.
    horizon_ms: f64,
    /// Factor on rewards: one over the priority that arrives within the horizon, so that values stay near 1.
    reward: f64,
}

impl Units {
    fn of(case: &Case, recipe: &Recipe) -> Units {
        let n = case.streams.len() as f64;
        let horizon_ms = recipe.horizon * case.streams.iter().map(|s| s.deadline.ms()).sum::<f64>() / n;
        let arriving: f64 = case.streams.iter().map(|s| s.priority * horizon_ms / s.period.ms()).sum();
        Units { horizon_ms, reward: 1.0 / arriving.max(1.0) }
    }
}

fn fresh(
    sources: &[Source],
    recipe: &Recipe,
    rng: &mut Pcg64Mcg,
    seed: u64,
) -> Result<(Episode, Arc<Case>), RolloutError> {
    let source = &sources[rng.random_range(0..sources.len())];
    let case = Arc::new(neighbour(&source.plan, &source.device, &source.scenario, &recipe.ranges, rng)?);
    let limit = Time::ZERO + Span::from_ms(recipe.episode_ms);
    // Requests go on arriving past the limit: an episode is cut off, it does not end.
    let horizon = limit + Span::from_ms(recipe.episode_ms);
    let episode = Episode::new(case.clone(), source.options, source.emulator.clone(), seed, horizon, limit);
    Ok((episode, case))
}

/// Samples from the softmax of the logits; gives the index and its log-probability.
fn sample(logits: &[f32], rng: &mut Pcg64Mcg) -> (usize, f32) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|l| (l - max).exp()).sum();
    let mut left = rng.random::<f32>() * total;
    let mut chosen = logits.len() - 1;
    for (i, l) in logits.iter().enumerate() {
        left -= (l - max).exp();
        if left <= 0.0 {
            chosen = i;
            break;
        }
    }
    (chosen, logits[chosen] - max - total.ln())
}
