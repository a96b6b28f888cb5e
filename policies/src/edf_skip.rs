//! Earliest deadline first that gives up what can no longer be on time, as overload handling for firm deadlines does (Haritsa, Carey
//! and Livny, RTSS 1991): without it one late request makes all after it late. It gives nothing up while nothing else waits, since late is
//! better than never. It refuses to leave a usable processor idle.

use crate::board::{Board, Rules};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::Case;
use cosched_env::observation::Observation;
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "edf-skip",
    about: "as edf, but drops a request that can no longer be on time",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, _: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    Ok(Box::new(EdfSkip::default()))
}

#[derive(Default)]
struct EdfSkip {
    board: Board,
}

impl Policy for EdfSkip {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let rules = Rules { wait: false, drop: true };
        self.board.decide(observation, rules, |r| r.deadline.0 as f64)
    }
}
