//! The scheduler behind the published scores of XRBench (Kwon et al., MLSys 2023): streams in turn, alphabetical by model, each with
//! its head request only and as far as a processor goes, on the idle processor with the least latency (ties: the first).
//! It refuses to look at deadlines and energy, to wait and to give up: it is an opponent to reproduce, not to recommend.

use crate::board::{at_once, better, launches, variants, wait};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::Case;
use cosched_env::observation::{Action, Candidate, Observation};
use cosched_env::time::Time;
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "greedy",
    about: "streams in turn, alphabetical by task, on the idle processor with the least latency (XRBench's published scheduler)",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    let mut order: Vec<u16> = (0..case.streams.len() as u16).collect();
    order.sort_by_key(|&s| &case.tasks[case.streams[s as usize].task.0 as usize].name);
    Ok(Box::new(Greedy { order, turn: 0, now: None }))
}

struct Greedy {
    /// Streams in the order of their tasks' names.
    order: Vec<u16>,
    /// Place in `order` of the stream that is asked next.
    turn: usize,
    /// The moment of the last decision: at a new one the first stream is asked first again.
    now: Option<Time>,
}

impl Policy for Greedy {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        if self.now != Some(observation.now) {
            self.now = Some(observation.now);
            self.turn = 0;
        }
        let count = self.order.len();
        for step in 0..count {
            let place = (self.turn + step) % count;
            if let Some(choice) = head_of(observation, self.order[place]) {
                self.turn = (place + 1) % count;
                return Decision(choice);
            }
        }
        wait(observation)
    }
}

/// The launch of a stream's oldest waiting request: where a variant takes least time alone, in the most accurate variant that is on time
/// there, else in the fastest. The plan's times count and not what is expected now, since the published scheduler goes by its table.
fn head_of(observation: &Observation<'_>, stream: u16) -> Option<usize> {
    let head = observation.requests.iter().position(|r| r.stream.0 == stream)?;
    let request = &observation.requests[head];
    let mut best = None;
    for wanted in variants(observation, request) {
        let table = observation.case.variant(wanted);
        let alone = |(choice, c): (usize, &Candidate)| match c.action {
            Action::Launch { variant, first, last, processor, .. } if variant == wanted && c.farthest => {
                Some((table.latency_ns(processor, first, last) + c.rest_ns, choice))
            }
            _ => None,
        };
        // Of equal ones `min_by` takes the first.
        let least = launches(observation, head).filter_map(alone).min_by(|a, b| a.0.total_cmp(&b.0));
        if let Some(place) = least.and_then(|(_, choice)| at_once(observation, choice)) {
            best = Some(better(request.deadline.0 as f64, best, place));
        }
    }
    best.and_then(|place| place.candidate)
}
