//! Least slack first (Mok, 1983; Dertouzos and Mok, TSE 1989; one of the schedulers of Band, MobiSys 2022): the request whose time to
//! the deadline exceeds its remaining work by least goes first, to the processor with the earliest answer, busy ones included. What can
//! no longer be on time is dropped if something else waits. It refuses to weigh priorities.

use crate::board::{Board, Rules, variants};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::Case;
use cosched_env::observation::Observation;
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "least-slack",
    about: "least slack first, on the processor with the earliest answer; drops what can no longer be on time",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, _: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    Ok(Box::new(LeastSlack::default()))
}

#[derive(Default)]
struct LeastSlack {
    board: Board,
}

impl Policy for LeastSlack {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let rules = Rules { wait: true, drop: true };
        self.board.decide(observation, rules, |r| {
            // All slacks are compared at one moment, so `now` cancels out.
            let rest = variants(observation, r).map(|v| observation.case.variant(v).best_rest_ns(r.next));
            r.deadline.0 as f64 - rest.fold(f64::INFINITY, f64::min)
        })
    }
}
