//! Earliest deadline first (Liu and Layland, JACM 1973): the request that is due first starts on the idle processor with the earliest
//! expected answer, in the most accurate variant that is still on time, else in the fastest. It refuses to leave a usable processor
//! idle and to give a request up.

use crate::board::{Board, Rules};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::Case;
use cosched_env::observation::Observation;
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "edf",
    about: "earliest deadline first, on the idle processor with the earliest answer",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, _: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    Ok(Box::new(Edf::default()))
}

#[derive(Default)]
struct Edf {
    board: Board,
}

impl Policy for Edf {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let rules = Rules { wait: false, drop: false };
        self.board.decide(observation, rules, |r| r.deadline.0 as f64)
    }
}
