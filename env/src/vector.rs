//! Many episodes side by side, stepped together: what a learner collects experience from. It refuses to share anything between them,
//! so that the experience of one does not depend on how many there are.

use crate::episode::{Episode, Step};
use crate::observation::Observation;
use crate::scheduler::ProtocolError;
use crate::time::Span;
use crate::world::Decision;

/// Episodes, each at a decision or at its end.
pub struct Vector {
    episodes: Vec<Episode>,
    steps: Vec<Step>,
}

impl Vector {
    /// Runs each episode to its first decision (or to its end, if it has none).
    ///
    /// # Errors
    /// [`ProtocolError`]: a bug in the emulator.
    pub fn new(episodes: Vec<Episode>) -> Result<Vector, ProtocolError> {
        let mut vector = Vector { episodes, steps: Vec::new() };
        for episode in &mut vector.episodes {
            let step = episode.advance()?;
            vector.steps.push(step);
        }
        Ok(vector)
    }

    /// Number of episodes.
    pub fn len(&self) -> usize {
        self.episodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.episodes.is_empty()
    }

    /// What passed in each episode since its last decision.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// One of the episodes.
    pub fn episode(&mut self, index: usize) -> &mut Episode {
        &mut self.episodes[index]
    }

    /// The observation that an episode waits for a decision on; see [`Episode::observation`].
    pub fn observation(&mut self, index: usize) -> Option<Observation<'_>> {
        self.episodes[index].observation()
    }

    /// Takes one decision in each episode and runs it to its next one. One that is over stays as it is, with a step of no reward and no
    /// time: [`Vector::replace`] puts a new one in its place.
    ///
    /// # Errors
    /// [`ProtocolError`] when a decision is no candidate; episodes before that one have moved on.
    pub fn step(&mut self, decisions: &[Decision]) -> Result<&[Step], ProtocolError> {
        assert_eq!(decisions.len(), self.episodes.len(), "one decision for each episode");
        for ((episode, step), &decision) in self.episodes.iter_mut().zip(&mut self.steps).zip(decisions) {
            if step.end.is_some() {
                *step = Step { reward: 0.0, elapsed: Span::ZERO, end: step.end };
                continue;
            }
            let candidates = episode.observation().map_or(0, |o| o.candidates.len());
            episode.decide(decision, candidates)?;
            *step = episode.advance()?;
        }
        Ok(&self.steps)
    }

    /// Puts a new episode in the place of one and runs it to its first decision.
    ///
    /// # Errors
    /// [`ProtocolError`]: a bug in the emulator.
    pub fn replace(&mut self, index: usize, mut episode: Episode) -> Result<(), ProtocolError> {
        self.steps[index] = episode.advance()?;
        self.episodes[index] = episode;
        Ok(())
    }
}
