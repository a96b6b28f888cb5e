//! A case of XRBench as a stage: what rehearses for it does so in the world in which it will be scored, by that score.
//! It refuses to show the run that is scored, where the scenario is random: it draws other frames.

use super::score::score;
use super::workload::Workload;
use super::{Settings, frames};
use cosched_env::case::Case;
use cosched_env::world::Policy;
use cosched_policies::stage::{Run, Stage};

/// See the module's text.
pub struct Rehearsal<'a> {
    workload: &'a Workload,
    settings: Settings<'a>,
}

impl<'a> Rehearsal<'a> {
    /// For a case that will be run with these settings.
    pub fn new(workload: &'a Workload, settings: &Settings<'a>) -> Rehearsal<'a> {
        Rehearsal { workload, settings: *settings }
    }

    fn runs_from(&self, first_seed: u64, count: usize) -> Vec<Box<dyn Run + '_>> {
        let count = if self.is_certain() { count.min(1) } else { count };
        let run = |i: usize| One { stage: self, seed: first_seed + i as u64 };
        (0..count).map(|i| Box::new(run(i)) as Box<dyn Run + '_>).collect()
    }
}

struct One<'a> {
    stage: &'a Rehearsal<'a>,
    seed: u64,
}

impl Run for One<'_> {
    fn case(&self) -> &Case {
        self.stage.case()
    }

    fn worth(&self, mut policy: Box<dyn Policy>) -> f64 {
        let settings = Settings { seed: self.seed, ..self.stage.settings };
        let run = frames(self.stage.workload, &settings, policy.as_mut());
        run.map_or(f64::NEG_INFINITY, |frames| score(self.case(), &frames).0.overall)
    }
}

/// Where rehearsals begin: no run that is scored has such a seed.
const FIRST_SEED: u64 = 1 << 41;

impl Stage for Rehearsal<'_> {
    fn case(&self) -> &Case {
        &self.workload.case
    }

    fn name(&self) -> String {
        format!("XRBench, {:?}, {:?}", self.settings.mode, self.settings.rules)
    }

    fn is_certain(&self) -> bool {
        self.workload.case.streams.iter().all(|s| s.probability >= 1.0)
    }

    fn pieces(&self, count: usize, _: f64) -> Vec<Box<dyn Run + '_>> {
        self.runs_from(FIRST_SEED, count)
    }

    fn steady(&self, count: usize, _: f64) -> Vec<Box<dyn Run + '_>> {
        self.runs_from(FIRST_SEED, count)
    }

    fn runs(&self, _: &str, first_seed: u64, count: u64, _: f64) -> Vec<Box<dyn Run + '_>> {
        self.runs_from(FIRST_SEED + first_seed, count as usize)
    }
}
