//! The learned policy with a look ahead: the network proposes a few candidates, each is tried in an emulated copy in which the case's best
//! heuristic goes on, and the network's first choice gives way only to one that is better beyond doubt. A search guided by a learned
//! prior, as in AlphaZero (Silver et al., Science 2018), of depth one. It refuses to know the future, as `rollout` does, and to take long:
//! its budget is a number of emulated requests, about a millisecond, so that the same seed gives the same run.

use crate::learned::{Learned, prepare};
use crate::rollout::{Futures, Judge};
use crate::tournament::scout;
use crate::{PolicyError, Row};
use cosched_env::case::Case;
use cosched_env::observation::Observation;
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "lookahead",
    about: "the trained network proposes, a short emulation chooses; takes what learned takes",
    make,
    searches: true,
};

/// Candidates that are tried, the network's first choice included.
const TRIED: usize = 4;
/// Futures that are drawn where anything is random.
const FUTURES: usize = 3;
/// Requests that are emulated at a decision, in all tries together.
const REQUESTS: f64 = 240.0;

fn make(parameter: Option<&str>, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    let (weights, budget) = prepare(ROW.name, parameter)?;
    let budget = budget.unwrap_or_default();
    let squad = scout(case, &budget);
    let base = squad(case).into_first().expect("a tournament has a winner");
    let futures = Futures::new(case, FUTURES, |count| REQUESTS / (TRIED * count) as f64);
    Ok(Box::new(Lookahead {
        learned: Learned::with(&weights, case, &squad, &budget),
        judge: Judge::new(futures),
        base,
        proposed: Vec::new(),
    }))
}

struct Lookahead {
    learned: Learned,
    judge: Judge,
    /// Goes on in the tries.
    base: Box<dyn Policy>,
    proposed: Vec<usize>,
}

impl Policy for Lookahead {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        self.learned.propose(observation, TRIED, &mut self.proposed);
        // What the base policy would do is the one choice that its futures are right about.
        let own = self.base.decide(observation).0;
        if !self.proposed.contains(&own) {
            self.proposed.truncate(TRIED - 1);
            self.proposed.push(own);
        }
        Decision(self.judge.best(observation, &self.proposed, self.base.as_mut()))
    }
}
