//! The learned policy with a look ahead: the network proposes a few candidates, each is tried in an emulated copy in which the case's best
//! heuristic goes on, and the network's first choice gives way only to one that is better beyond doubt. A search guided by a learned
//! prior, as in AlphaZero (Silver et al., Science 2018), of depth one. How many are tried, and so how far ahead, is chosen for each case by
//! short emulated runs; where looking does harm (what counts lies beyond the horizon) it does not look.
//! It refuses to know the future, as `rollout` does, and to take long: its budget is a number of emulated requests, about a
//! millisecond, so that the same seed gives the same run.

use crate::learned::{Learned, found, prepare};
use crate::rollout::{Futures, Judge};
use crate::stage::Stage;
use crate::tournament::{Budget, squad, trial};
use crate::{Make, PolicyError, Row};
use cosched_agent::guide::Squad;
use cosched_agent::network::Weights;
use cosched_env::case::Case;
use cosched_env::observation::Observation;
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "lookahead",
    about: "the trained network proposes, a short emulation chooses; takes what learned takes",
    make: Make::On(make),
    searches: true,
};

/// Candidates that may be tried, the network's first choice included; fewer are tried farther ahead, one is not tried at all.
const TRIED: [usize; 3] = [1, 4, 2];
/// Futures that are drawn where anything is random.
const FUTURES: usize = 3;
/// Requests that are emulated at a decision, in all tries together.
const REQUESTS: f64 = 240.0;
/// Requests of each run that says how many candidates to try.
const REHEARSED: f64 = 1000.0;

fn make(parameter: Option<&str>, stage: &dyn Stage) -> Result<Box<dyn Policy>, PolicyError> {
    let (weights, budget) = prepare(ROW.name, parameter)?;
    let budget = budget.unwrap_or_default();
    let (best, margin) = found(&weights, stage, &budget);
    let squad = squad(best);
    let make = |way: usize| Lookahead::new(&weights, stage.case(), &squad, margin, TRIED[way]);
    // A millisecond a decision: whole runs would take minutes.
    let pieces = Budget { requests: budget.requests.min(REHEARSED), ..budget };
    let way = trial(stage, &pieces, TRIED.len(), |way| Box::new(make(way)));
    Ok(Box::new(make(way)))
}

struct Lookahead {
    learned: Learned,
    judge: Judge,
    /// Goes on in the tries.
    base: Box<dyn Policy>,
    /// How many are tried.
    tried: usize,
    proposed: Vec<usize>,
}

impl Lookahead {
    fn new(weights: &Weights, case: &Case, squad: &Squad, margin: f32, tried: usize) -> Lookahead {
        let futures = Futures::new(case, FUTURES, |count| REQUESTS / (tried * count) as f64);
        Lookahead {
            learned: Learned::new(weights, squad(case), margin),
            judge: Judge::new(futures),
            base: squad(case).into_first().expect("a tournament has a winner"),
            tried,
            proposed: Vec::new(),
        }
    }
}

impl Policy for Lookahead {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        if self.tried == 1 {
            return self.learned.decide(observation);
        }
        self.learned.propose(observation, self.tried, &mut self.proposed);
        Decision(self.judge.best(observation, &self.proposed, self.base.as_mut()))
    }
}
