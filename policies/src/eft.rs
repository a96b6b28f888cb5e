//! Earliest finish time, the minimum-completion-time heuristic (Maheswaran et al., HCW 1999): requests in order of arrival go where their
//! answer is expected first, in the most accurate variant that is on time there, else in the fastest; they wait for a busy processor
//! if it would still answer earlier. It refuses to give a request up.

use crate::board::{Board, Rules};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::Case;
use cosched_env::observation::Observation;
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "eft",
    about: "in order of arrival, on the processor with the earliest answer, waiting for a busy one if that is earlier",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, _: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    Ok(Box::new(Eft::default()))
}

#[derive(Default)]
struct Eft {
    board: Board,
}

impl Policy for Eft {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let rules = Rules { wait: true, drop: false };
        self.board.decide(observation, rules, |r| r.arrival.0 as f64)
    }
}
