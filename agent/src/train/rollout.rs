//! Collects experience: many emulated episodes side by side, each with its own random streams, so that the result is the same
//! whatever the number of threads. It refuses to touch tch: acting is the plain forward pass.

use super::recipe::Recipe;
use crate::features::{CANDIDATE_FEATURES, CONTEXT_FEATURES, Encoder};
use crate::guide::{Guides, Scout, Squad, Vote};
use crate::network::{Forward, Weights};
use crate::randomize::{faults, neighbour};
use cosched_env::case::{Case, CaseError};
use cosched_env::device::Device;
use cosched_env::emulator::Config;
use cosched_env::episode::{End, Episode};
use cosched_env::observation::Observation;
use cosched_env::plan::Plan;
use cosched_env::scenario::Scenario;
use cosched_env::scheduler::{Options, ProtocolError};
use cosched_env::streams::rng;
use cosched_env::time::{Span, Time};
use cosched_env::vector::Vector;
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

/// Who chooses while experience is collected.
#[derive(Clone, Copy)]
pub enum Lead<'a> {
    /// The network; choices are drawn from its softmax.
    Network,
    /// The first guide of each case (the network where there is none).
    Guide,
    /// A policy.
    Teacher(&'a Teacher),
}

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

/// Episodes that are stepped together, so that the network scores all their observations at once. Each has random numbers of its own.
pub struct Crew {
    seats: Vec<Seat>,
    vector: Vector,
    batch: Batch,
    decisions: Vec<Decision>,
}

/// What belongs to one episode of a crew, and to those that follow it in its place.
struct Seat {
    rng: Pcg64Mcg,
    seed: u64,
    index: u64,
    played: u64,
    units: Units,
    drawn: Drawn,
    /// Episodes on this case, this one included, before another one is drawn.
    left: u32,
    squad: Squad,
    guides: Guides,
    teacher: Option<Box<dyn Policy>>,
    utility: f64,
    requests: usize,
}

/// Encoded observations, one after the other.
#[derive(Default)]
struct Batch {
    encoder: Encoder,
    rows: Vec<f32>,
    counts: Vec<usize>,
    contexts: Vec<f32>,
}

impl Batch {
    fn clear(&mut self) {
        self.rows.clear();
        self.counts.clear();
        self.contexts.clear();
    }

    fn push(&mut self, observation: &Observation<'_>, votes: &[Vote]) {
        self.encoder.encode(observation, votes);
        self.rows.extend_from_slice(&self.encoder.candidates);
        self.counts.push(observation.candidates.len());
        self.contexts.extend_from_slice(&self.encoder.context);
    }

    /// Values of all of them; the logits stay in `forward`.
    fn run(&self, forward: &mut Forward) {
        forward.run_batch(&self.rows, &self.counts, &self.contexts);
    }
}

impl Crew {
    /// The crew of the actors `first..first + count` of a training run.
    ///
    /// # Errors
    /// [`RolloutError::Case`] when a source is not well-formed.
    pub fn new(
        sources: &[Source],
        recipe: &Recipe,
        scout: &Scout,
        first: u64,
        count: usize,
    ) -> Result<Crew, RolloutError> {
        let (mut seats, mut episodes) = (Vec::new(), Vec::new());
        for index in first..first + count as u64 {
            let mut random = rng(recipe.seed, "actor", index);
            let drawn = Drawn::new(sources, recipe, &mut random)?;
            episodes.push(drawn.episode(recipe, recipe.seed ^ (index << 32)));
            let squad = scout(&drawn.case);
            seats.push(Seat {
                rng: random,
                seed: recipe.seed,
                index,
                played: 0,
                units: Units::of(&drawn.case, recipe),
                left: recipe.repeats,
                guides: squad(&drawn.case),
                squad,
                drawn,
                teacher: None,
                utility: 0.0,
                requests: 0,
            });
        }
        Ok(Crew { seats, vector: Vector::new(episodes)?, batch: Batch::default(), decisions: Vec::new() })
    }

    /// Collects `recipe.steps` decisions of each episode, as `lead` takes them.
    ///
    /// # Errors
    /// [`RolloutError`].
    pub fn collect(
        &mut self,
        sources: &[Source],
        recipe: &Recipe,
        weights: &Weights,
        scout: &Scout,
        lead: Lead<'_>,
    ) -> Result<Vec<Experience>, RolloutError> {
        let forward = &mut Forward::new(weights);
        let empty = || Experience { starts: vec![0], ..Experience::default() };
        let mut out: Vec<Experience> = self.seats.iter().map(|_| empty()).collect();
        for seat in &mut self.seats {
            seat.teacher = lead.teacher(&seat.drawn.case);
        }
        for _ in 0..recipe.steps {
            self.replace_ended(sources, recipe, scout, lead)?;
            self.choose(forward, matches!(lead, Lead::Guide), &mut out);
            self.vector.step(&self.decisions)?;
            self.close_steps(forward, &mut out);
        }
        self.value_last(forward, &mut out);
        Ok(out)
    }

    /// Puts a new episode in the place of each that is over or has nothing to decide.
    fn replace_ended(
        &mut self,
        sources: &[Source],
        recipe: &Recipe,
        scout: &Scout,
        lead: Lead<'_>,
    ) -> Result<(), RolloutError> {
        for (i, seat) in self.seats.iter_mut().enumerate() {
            while self.vector.steps()[i].end.is_some() {
                seat.played += 1;
                seat.left = seat.left.saturating_sub(1);
                if seat.left == 0 {
                    seat.drawn = Drawn::new(sources, recipe, &mut seat.rng)?;
                    seat.squad = scout(&seat.drawn.case);
                    seat.units = Units::of(&seat.drawn.case, recipe);
                    seat.left = recipe.repeats;
                }
                let seed = seat.seed ^ (seat.index << 32) ^ seat.played;
                self.vector.replace(i, seat.drawn.episode(recipe, seed))?;
                seat.guides = (seat.squad)(&seat.drawn.case);
                seat.teacher = lead.teacher(&seat.drawn.case);
                (seat.utility, seat.requests) = (0.0, 0);
            }
        }
        Ok(())
    }

    /// Scores all observations and chooses in each.
    fn choose(&mut self, forward: &mut Forward, guided: bool, out: &mut [Experience]) {
        self.batch.clear();
        for (i, seat) in self.seats.iter_mut().enumerate() {
            let observation = self.vector.observation(i).expect("episodes that are over were replaced");
            self.batch.push(&observation, seat.guides.vote(&observation));
        }
        self.batch.run(forward);
        self.decisions.clear();
        let mut row = 0;
        for (i, (seat, out)) in self.seats.iter_mut().zip(out).enumerate() {
            let n = self.batch.counts[i];
            let vote = seat.guides.votes().first().filter(|_| guided);
            let (action, log_probability) = match (&mut seat.teacher, vote) {
                (Some(policy), _) => {
                    let observation = self.vector.observation(i).expect("it was there a moment ago");
                    (policy.decide(&observation).0, 0.0)
                }
                (None, Some(vote)) => (vote.choice, 0.0),
                (None, None) => sample(&forward.logits[row..row + n], &mut seat.rng),
            };
            let value = forward.values[i];
            // What was the next state is this one.
            if let (Some(next), Some(false)) = (out.next_value.last_mut(), out.last.last()) {
                *next = value;
            }
            out.rows.extend_from_slice(
                &self.batch.rows[row * CANDIDATE_FEATURES..(row + n) * CANDIDATE_FEATURES],
            );
            out.starts.push(out.rows.len());
            out.context
                .extend_from_slice(&self.batch.contexts[i * CONTEXT_FEATURES..(i + 1) * CONTEXT_FEATURES]);
            out.action.push(action);
            out.log_probability.push(log_probability);
            out.value.push(value);
            self.decisions.push(Decision(action));
            row += n;
        }
    }

    /// Records what each decision led to. The value of a state that was cut off is found at once, other next states are the next
    /// decisions' own.
    fn close_steps(&mut self, forward: &mut Forward, out: &mut [Experience]) {
        self.batch.clear();
        let mut cut = Vec::new();
        for (i, (seat, out)) in self.seats.iter_mut().zip(out.iter_mut()).enumerate() {
            for ended in self.vector.episode(i).take_ended() {
                seat.utility += ended.utility;
                seat.requests += 1;
            }
            let step = self.vector.steps()[i];
            out.reward.push((step.reward * seat.units.reward) as f32);
            out.discount.push((-step.elapsed.ms() / seat.units.horizon_ms).exp() as f32);
            out.last.push(step.end.is_some());
            out.next_value.push(0.0);
            if step.end.is_some() && seat.requests > 0 {
                out.episodes.push((seat.utility / seat.requests as f64, seat.requests));
            }
            if step.end == Some(End::Truncated)
                && let Some(observation) = self.vector.observation(i)
            {
                self.batch.push(&observation, seat.guides.vote(&observation));
                cut.push(i);
            }
        }
        self.set_next_values(forward, &cut, out);
    }

    /// The values of the states in which the collection stops.
    fn value_last(&mut self, forward: &mut Forward, out: &mut [Experience]) {
        self.batch.clear();
        let mut open = Vec::new();
        for (i, (seat, out)) in self.seats.iter_mut().zip(out.iter()).enumerate() {
            if out.last.last() == Some(&false)
                && let Some(observation) = self.vector.observation(i)
            {
                self.batch.push(&observation, seat.guides.vote(&observation));
                open.push(i);
            }
        }
        self.set_next_values(forward, &open, out);
    }

    /// Scores the batch, whose observations are the last states of the episodes `of`.
    fn set_next_values(&mut self, forward: &mut Forward, of: &[usize], out: &mut [Experience]) {
        if of.is_empty() {
            return;
        }
        self.batch.run(forward);
        for (&i, &value) in of.iter().zip(&forward.values) {
            if let Some(next) = out[i].next_value.last_mut() {
                *next = value;
            }
        }
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

/// A training case that was drawn, and how its device departs from it.
struct Drawn {
    case: Arc<Case>,
    options: Options,
    emulator: Config,
}

impl Drawn {
    fn new(sources: &[Source], recipe: &Recipe, rng: &mut Pcg64Mcg) -> Result<Drawn, RolloutError> {
        let source = &sources[rng.random_range(0..sources.len())];
        let ranges = &recipe.ranges;
        let case = neighbour(&source.plan, &source.device, &source.scenario, ranges, rng)?;
        let emulator = faults(&case, &source.emulator, ranges, recipe.episode_ms, rng);
        Ok(Drawn { case: Arc::new(case), options: source.options, emulator })
    }

    fn episode(&self, recipe: &Recipe, seed: u64) -> Episode {
        let limit = Time::ZERO + Span::from_ms(recipe.episode_ms);
        // Requests go on arriving past the limit: an episode is cut off, it does not end.
        let horizon = limit + Span::from_ms(recipe.episode_ms);
        Episode::new(self.case.clone(), self.options, self.emulator.clone(), seed, horizon, limit)
    }
}

impl Lead<'_> {
    fn teacher(&self, case: &Case) -> Option<Box<dyn Policy>> {
        match self {
            Lead::Teacher(make) => Some(make(case)),
            Lead::Network | Lead::Guide => None,
        }
    }
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
