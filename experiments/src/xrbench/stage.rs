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

    /// `count` runs, each of several of the case's own where that is short for so many requests.
    fn runs_from(&self, first_seed: u64, count: usize, requests: f64) -> Vec<Box<dyn Run + '_>> {
        let frames: u32 = self.workload.frames.iter().sum();
        let each = (requests / f64::from(frames.max(1))).ceil().clamp(1.0, MOST_PLAYED) as u64;
        let (count, each) = if self.is_certain() { (count.min(1), 1) } else { (count, each) };
        let several = |i: usize| Several { stage: self, first_seed: first_seed + i as u64 * each, each };
        (0..count).map(|i| Box::new(several(i)) as Box<dyn Run + '_>).collect()
    }
}

/// Runs of a case that count as one, at most.
const MOST_PLAYED: f64 = 16.0;

struct Several<'a> {
    stage: &'a Rehearsal<'a>,
    first_seed: u64,
    each: u64,
}

impl Run for Several<'_> {
    fn worth(&self, make: &dyn Fn(&Case) -> Box<dyn Policy>) -> f64 {
        let case = &self.stage.workload.case;
        let score = |seed: u64| {
            let settings = Settings { seed, ..self.stage.settings };
            let run = frames(self.stage.workload, &settings, make(case).as_mut());
            run.map_or(f64::NEG_INFINITY, |frames| score(case, &frames).0.overall)
        };
        (0..self.each).map(|i| score(self.first_seed + i)).sum::<f64>() / self.each as f64
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

    fn pieces(&self, count: usize, requests: f64) -> Vec<Box<dyn Run + '_>> {
        self.runs_from(FIRST_SEED, count, requests)
    }

    fn steady(&self, count: usize, requests: f64) -> Vec<Box<dyn Run + '_>> {
        self.runs_from(FIRST_SEED, count, requests)
    }

    fn runs(&self, _: &str, first_seed: u64, count: u64, requests: f64) -> Vec<Box<dyn Run + '_>> {
        self.runs_from(FIRST_SEED + MOST_PLAYED as u64 * first_seed, count as usize, requests)
    }
}
