//! Shortest expected latency (Band, MobiSys 2022): each request's shortest expected latency is taken over all processors, what they are
//! busy with and what has been promised included; the request whose shortest latency is the largest is placed first, since it has most
//! to lose, and the others are looked at again after it. As in Band, neither age nor deadline counts in that order. Band queues requests
//! at busy processors; here they wait and are placed anew at the next event. Which variant, and that the hopeless are dropped when others
//! wait, is ours, as in the other list policies. It refuses to weigh priorities.

use crate::board::{Board, better, wait};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::Case;
use cosched_env::observation::{Observation, RequestView};
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "shortest-latency",
    about: "of all requests' shortest expected latencies the largest first, busy processors included; drops the hopeless",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, _: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    Ok(Box::new(ShortestLatency::default()))
}

#[derive(Default)]
struct ShortestLatency {
    board: Board,
}

impl Policy for ShortestLatency {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        self.board.begin(observation, |r| r.arrival.0 as f64);
        if let Some(drop) = self.board.first_hopeless(observation) {
            return drop;
        }
        let pick = |r: &RequestView, best, place| Some(better(r.deadline.0 as f64, best, place));
        let first = self.board.largest(observation, pick, |_, place| place.answer_ns);
        first.and_then(|(_, place)| place.candidate).map_or_else(|| wait(observation), Decision)
    }
}
