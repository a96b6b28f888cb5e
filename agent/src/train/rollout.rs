//! Collects experience: many emulated episodes side by side, each with its own random streams, so that the result is the same
//! whatever the number of threads. It refuses to touch tch: acting is the plain forward pass.

use super::draw::Drawn;
pub use super::draw::Source;
use super::explore::Exploration;
pub use super::guidance::{Guidance, Lead, Teacher};
use super::recipe::Recipe;
use super::state::SeatState;
use crate::experience::{EndState, Experience, Units};
use crate::features::{CANDIDATE_FEATURES, CONTEXT_FEATURES, Encoder};
use crate::guide::{Guides, Scout, Squad, Vote};
use crate::network::{Forward, Weights};
use cosched_env::case::CaseError;
use cosched_env::episode::{End, Episode};
use cosched_env::observation::Observation;
use cosched_env::scheduler::ProtocolError;
use cosched_env::streams::rng;
use cosched_env::vector::Vector;
use cosched_env::world::{Decision, Policy};
use rand_pcg::Pcg64Mcg;

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

/// Episodes that are stepped together, so that the network scores all their observations at once. Each has random numbers of its own.
pub struct Crew {
    seats: Vec<Seat>,
    vector: Vector,
    batch: Batch,
    decisions: Vec<Decision>,
    exploration: Exploration,
}

/// What belongs to one episode of a crew, and to those that follow it in its place.
struct Seat {
    rng: Pcg64Mcg,
    /// The generator as it was before the case was drawn, and the choices in the running episode: it can be played again from them.
    born: Pcg64Mcg,
    history: Vec<u32>,
    /// Episodes on this case, the running one included, before another one is drawn.
    left: u32,
    seed: u64,
    index: u64,
    played: u64,
    units: Units,
    drawn: Drawn,
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
        let mut states = Vec::new();
        for index in first..first + count as u64 {
            let born = rng(recipe.seed, "actor", index);
            let mut rng = born.clone();
            // The generator moves on by what the case takes.
            Drawn::new(sources, recipe, &mut rng)?;
            states.push(SeatState { rng, born, left: recipe.repeats, played: 0, history: Vec::new() });
        }
        Crew::restore(sources, recipe, scout, first, &states)
    }

    /// The crew of the actors from `first` on, as it was when [`Crew::states`] was asked: their episodes are played again.
    ///
    /// # Errors
    /// [`RolloutError`], also when the states belong to other sources or another recipe.
    pub fn restore(
        sources: &[Source],
        recipe: &Recipe,
        scout: &Scout,
        first: u64,
        states: &[SeatState],
    ) -> Result<Crew, RolloutError> {
        let (mut seats, mut episodes) = (Vec::new(), Vec::new());
        for (index, state) in (first..).zip(states) {
            let seed = recipe.seed;
            let drawn = Drawn::new(sources, recipe, &mut state.born.clone())?;
            let mut episode = drawn.episode(recipe, episode_seed(seed, index, state.played));
            let squad = scout(&drawn.case);
            let mut seat = Seat {
                rng: state.rng.clone(),
                born: state.born.clone(),
                history: state.history.clone(),
                seed,
                index,
                played: state.played,
                left: state.left,
                units: Units::of(&drawn.case, recipe.horizon),
                guides: squad(&drawn.case),
                squad,
                drawn,
                teacher: None,
                utility: 0.0,
                requests: 0,
            };
            seat.play_again(&mut episode)?;
            episodes.push(episode);
            seats.push(seat);
        }
        let vector = Vector::new(episodes)?;
        let exploration = Exploration::Softmax(1.0);
        Ok(Crew { seats, vector, batch: Batch::default(), decisions: Vec::new(), exploration })
    }

    /// What [`Crew::restore`] needs, an actor each.
    pub fn states(&self) -> impl Iterator<Item = SeatState> {
        self.seats.iter().map(|seat| SeatState {
            rng: seat.rng.clone(),
            born: seat.born.clone(),
            left: seat.left,
            played: seat.played,
            history: seat.history.clone(),
        })
    }

    /// Sets how choices are drawn where no teacher makes them; a new crew takes the softmax of the logits.
    pub fn explore(&mut self, exploration: Exploration) {
        self.exploration = exploration;
    }

    /// Collects `recipe.steps` decisions of each episode, as `guidance` says they are taken.
    ///
    /// # Errors
    /// [`RolloutError`].
    pub fn collect(
        &mut self,
        sources: &[Source],
        recipe: &Recipe,
        weights: &Weights,
        guidance: Guidance<'_>,
    ) -> Result<Vec<Experience>, RolloutError> {
        let forward = &mut Forward::new(weights);
        let mut out: Vec<Experience> = self.seats.iter().map(|_| Experience::new()).collect();
        for seat in &mut self.seats {
            seat.teacher = guidance.teacher(&seat.drawn.case);
        }
        for _ in 0..recipe.steps {
            self.replace_ended(sources, recipe, guidance)?;
            self.choose(forward, matches!(guidance.lead, Lead::Guide), &mut out);
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
        guidance: Guidance<'_>,
    ) -> Result<(), RolloutError> {
        for (i, seat) in self.seats.iter_mut().enumerate() {
            while self.vector.steps()[i].end.is_some() {
                seat.played += 1;
                seat.left = seat.left.saturating_sub(1);
                if seat.left == 0 {
                    seat.born = seat.rng.clone();
                    seat.drawn = Drawn::new(sources, recipe, &mut seat.rng)?;
                    seat.squad = (guidance.scout)(&seat.drawn.case);
                    seat.units = Units::of(&seat.drawn.case, recipe.horizon);
                    seat.left = recipe.repeats;
                }
                seat.history.clear();
                let seed = episode_seed(seat.seed, seat.index, seat.played);
                self.vector.replace(i, seat.drawn.episode(recipe, seed))?;
                seat.guides = (seat.squad)(&seat.drawn.case);
                seat.teacher = guidance.teacher(&seat.drawn.case);
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
        let exploration = self.exploration;
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
                (None, None) => exploration.choose(&forward.logits[row..row + n], &mut seat.rng),
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
            seat.history.push(action as u32);
            row += n;
        }
    }

    /// Records what each decision led to. The value of a state that was cut off is found at once, other next states are the next
    /// decisions' own.
    fn close_steps(&mut self, forward: &mut Forward, out: &mut [Experience]) {
        self.batch.clear();
        let mut cut = Vec::new();
        for (i, (seat, out)) in self.seats.iter_mut().zip(out.iter_mut()).enumerate() {
            seat.hear(self.vector.episode(i));
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
        let mut rows = self.batch.rows.as_slice();
        for (place, (&i, &value)) in of.iter().zip(&forward.values).enumerate() {
            if let Some(next) = out[i].next_value.last_mut() {
                *next = value;
            }
            let (own, rest) = rows.split_at(self.batch.counts[place] * CANDIDATE_FEATURES);
            let context = &self.batch.contexts[place * CONTEXT_FEATURES..(place + 1) * CONTEXT_FEATURES];
            let after = out[i].len() - 1;
            out[i].ends.push(EndState { after, rows: own.to_vec(), context: context.to_vec() });
            rows = rest;
        }
    }
}

impl Seat {
    /// Adds up the requests that ended.
    fn hear(&mut self, episode: &mut Episode) {
        for ended in episode.take_ended() {
            self.utility += ended.utility;
            self.requests += 1;
        }
    }

    /// Brings a new episode to where the history ends.
    fn play_again(&mut self, episode: &mut Episode) -> Result<(), ProtocolError> {
        episode.advance()?;
        for i in 0..self.history.len() {
            let candidates = episode.observation().map_or(0, |observation| {
                // Guides may remember what they saw.
                self.guides.vote(&observation);
                observation.candidates.len()
            });
            episode.decide(Decision(self.history[i] as usize), candidates)?;
            episode.advance()?;
            self.hear(episode);
        }
        Ok(())
    }
}

/// The seed of the episode that an actor plays after `played` others.
fn episode_seed(seed: u64, index: u64, played: u64) -> u64 {
    seed ^ (index << 32) ^ played
}
