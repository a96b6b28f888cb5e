//! Draws training cases: one of the sources, moved and perhaps with faults, and the episodes on it. It refuses to be random by itself.

use super::recipe::Recipe;
use crate::randomize::{faults, neighbour};
use cosched_env::case::{Case, CaseError};
use cosched_env::device::Device;
use cosched_env::emulator::Config;
use cosched_env::episode::Episode;
use cosched_env::plan::Plan;
use cosched_env::scenario::Scenario;
use cosched_env::scheduler::Options;
use cosched_env::time::{Span, Time};
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

/// A training case that was drawn, and how its device departs from it.
pub(super) struct Drawn {
    pub case: Arc<Case>,
    options: Options,
    emulator: Config,
}

impl Drawn {
    pub(super) fn new(sources: &[Source], recipe: &Recipe, rng: &mut Pcg64Mcg) -> Result<Drawn, CaseError> {
        let source = &sources[rng.random_range(0..sources.len())];
        let ranges = &recipe.ranges;
        let case = neighbour(&source.plan, &source.device, &source.scenario, ranges, rng)?;
        let emulator = faults(&case, &source.emulator, ranges, recipe.episode_ms, rng);
        Ok(Drawn { case: Arc::new(case), options: source.options, emulator })
    }

    pub(super) fn episode(&self, recipe: &Recipe, seed: u64) -> Episode {
        let limit = Time::ZERO + Span::from_ms(recipe.episode_ms);
        // Requests go on arriving past the limit: an episode is cut off, it does not end.
        let horizon = limit + Span::from_ms(recipe.episode_ms);
        Episode::new(self.case.clone(), self.options, self.emulator.clone(), seed, horizon, limit)
    }
}
