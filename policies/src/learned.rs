//! The learned policy: the candidate with the highest score of a trained network, which hears what the best two heuristics of the case
//! would do (`tournament.rs`). The shipped checkpoint is part of the binary;
//! `learned:FILE` takes another one. It refuses to explore and to learn; it needs no libtorch.

use crate::memo::Memo;
use crate::stage::Stage;
use crate::tournament::{Budget, Standing, finalists, squad, trial};
use crate::{Make, PolicyError, Row};
use cosched_agent::checkpoint;
use cosched_agent::guide::{Guides, MARGINS, Squad, heed};
use cosched_agent::network::{Forward, Weights};
use cosched_agent::shortlist::Shortlist;
use cosched_env::case::Case;
use cosched_env::device::Device;
use cosched_env::observation::Observation;
use cosched_env::plan::Plan;
use cosched_env::scenario::Scenario;
use cosched_env::world::{Decision, Policy};
use std::path::Path;

/// The row of the table.
pub const ROW: Row = Row {
    name: "learned",
    about: "the trained network (the shipped one, or learned:CHECKPOINT); learned:@RUNS says how long it prepares for a case (default 800, at most 100000)",
    make: Make::On(make),
    searches: false,
};

/// Preparing takes time in proportion: seconds for the default, and some quarter of an hour for so many emulated runs.
const MOST_RUNS: usize = 100_000;

/// The shipped checkpoint; see `policies/trained/README.md`.
pub const SHIPPED: &[u8] = include_bytes!("../trained/shipped.safetensors");

fn make(parameter: Option<&str>, stage: &dyn Stage) -> Result<Box<dyn Policy>, PolicyError> {
    let (weights, budget) = prepare(ROW.name, parameter)?;
    Ok(Box::new(Learned::on(&weights, stage, &budget.unwrap_or_default())))
}

/// What a tournament hangs on: the case and its stage, and how long it was.
type Key = (Plan, Device, Scenario, String, Budget);

/// The guides of the last cases, and the margins of the last networks on them.
static FOUND: Memo<Key, Vec<Standing>> = Memo::new();
static MARGINS_FOUND: Memo<(Key, Weights), f32> = Memo::new();

/// The guides of a case and the margin, found by emulated runs or found before.
pub(crate) fn found(weights: &Weights, stage: &dyn Stage, budget: &Budget) -> (Vec<Standing>, f32) {
    let case = stage.case();
    let key = (case.plan.clone(), case.device.clone(), case.scenario.clone(), stage.name(), *budget);
    let best = FOUND.get(key.clone(), || finalists(stage, budget, &[]));
    let margin = MARGINS_FOUND
        .get((key, weights.clone()), || Learned::margin(weights, stage, &squad(best.clone()), budget));
    (best, margin)
}

/// The weights and the budget of a parameter `[CHECKPOINT][@RUNS]`: the shipped checkpoint where none is said; `policy` is for messages.
///
/// # Errors
/// [`PolicyError::Unusable`]: the checkpoint cannot be read or is of another network.
pub fn prepare(policy: &str, parameter: Option<&str>) -> Result<(Weights, Option<Budget>), PolicyError> {
    let unusable = |problem: String| PolicyError::Unusable { policy: policy.to_owned(), problem };
    let parameter = parameter.unwrap_or_default();
    // The name of a file may have an `@` too.
    let number = |runs: &str| !runs.is_empty() && runs.bytes().all(|b| b.is_ascii_digit());
    let (file, budget) = match parameter.rsplit_once('@') {
        Some((file, runs)) if number(runs) => match runs.parse() {
            Ok(runs @ 0..=MOST_RUNS) => (file, Some(Budget::of(runs))),
            _ => return Err(unusable(format!("expected at most {MOST_RUNS} emulated runs, got `{runs}`"))),
        },
        _ => (parameter, None),
    };
    let loaded = match file {
        "" => checkpoint::from_bytes("(shipped)", SHIPPED),
        path => checkpoint::load(Path::new(path)),
    };
    loaded.map(|(weights, _)| (weights, budget)).map_err(|e| unusable(e.to_string()))
}

/// Takes the best-scored candidate.
pub struct Learned {
    guides: Guides,
    shortlist: Shortlist,
    forward: Forward,
    margin: f32,
    /// What the network thinks of each candidate of the last decision; empty when it was not asked.
    scores: Vec<f32>,
}

impl Learned {
    /// Decides by these weights, with these guides. A choice other than the first guide's needs a logit that is higher by `margin`.
    pub fn new(weights: &Weights, guides: Guides, margin: f32) -> Learned {
        Learned {
            guides,
            shortlist: Shortlist::default(),
            forward: Forward::new(weights),
            margin,
            scores: Vec::new(),
        }
    }

    /// Decides by these weights: the guides of a case and the margin are found by runs of it, in some seconds, or were found before.
    pub fn on(weights: &Weights, stage: &dyn Stage, budget: &Budget) -> Learned {
        let (best, margin) = found(weights, stage, budget);
        Learned::new(weights, squad(best)(stage.case()), margin)
    }

    /// The same with guides that are given.
    pub fn with(weights: &Weights, case: &Case, squad: &Squad, budget: &Budget) -> Learned {
        Learned::new(weights, squad(case), Learned::margin(weights, case, squad, budget))
    }

    /// The margin that does best in short emulated runs of a case.
    pub(crate) fn margin(weights: &Weights, stage: &dyn Stage, squad: &Squad, budget: &Budget) -> f32 {
        let make = |way: usize| Learned::new(weights, squad(stage.case()), MARGINS[way]);
        MARGINS[trial(stage, budget, MARGINS.len(), |way| Box::new(make(way)))]
    }
}

impl Learned {
    /// Scores the candidates after the guides' votes; gives the choice. Those that were not looked at score as the last of the others.
    fn choose(&mut self, observation: &Observation<'_>) -> usize {
        self.shortlist.look(observation, self.guides.votes());
        self.forward.run(&self.shortlist.encoder);
        let (logits, kept) = (&self.forward.logits, &self.shortlist.kept);
        self.scores.clear();
        self.scores
            .resize(observation.candidates.len(), logits.iter().copied().fold(f32::INFINITY, f32::min));
        kept.iter().zip(logits).for_each(|(&i, &logit)| self.scores[i] = logit);
        kept[heed(logits, self.forward.best(), &self.shortlist.votes, self.margin)]
    }

    /// The choice, behind it the first guide's if it is another one, and then the candidates of the highest scores; `n` in all if there
    /// are so many.
    pub(crate) fn propose(&mut self, observation: &Observation<'_>, n: usize, into: &mut Vec<usize>) {
        self.guides.vote(observation);
        let choice = self.choose(observation);
        let logits = &self.scores;
        let guide = self.guides.votes().first().map(|vote| vote.choice);
        let rank = |c: usize| if c == choice { 0 } else { 1 + i32::from(guide != Some(c)) };
        into.clear();
        into.extend(0..logits.len());
        into.sort_by(|&a, &b| rank(a).cmp(&rank(b)).then(logits[b].total_cmp(&logits[a])));
        into.truncate(n);
    }
}

impl Policy for Learned {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let guide = self.guides.vote(observation).first().map(|vote| vote.choice);
        // What the network says would not be heard.
        if let Some(choice) = guide
            && self.margin == f32::INFINITY
        {
            self.scores.clear();
            return Decision(choice);
        }
        Decision(self.choose(observation))
    }

    fn scores(&self) -> &[f32] {
        &self.scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_a_checkpoint_and_a_number_of_runs() {
        let budget = |parameter: Option<&str>| prepare(ROW.name, parameter).unwrap().1;
        assert_eq!((budget(None), budget(Some("@200"))), (None, Some(Budget::of(200))));
        assert!(budget(Some("@100000")).is_some());
        for (parameter, words) in [
            ("@100001", "expected at most 100000 emulated runs, got `100001`"),
            ("@99999999999999999999999", "expected at most 100000 emulated runs"),
            ("gone.safetensors@7", "gone.safetensors: "),
            ("gone@home.safetensors", "gone@home.safetensors: "),
            ("gone@", "gone@: "),
        ] {
            let error = prepare(ROW.name, Some(parameter)).map(drop).unwrap_err().to_string();
            assert!(error.contains("learned") && error.contains(words), "{parameter}: {error}");
        }
    }
}
