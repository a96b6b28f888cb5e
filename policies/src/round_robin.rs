//! Processors in turn (the round robin of Band, MobiSys 2022): the oldest request that the next idle processor can run starts there, as
//! far as it goes, in the most accurate variant that is on time there, else in the fastest. It refuses to compare processors.

use crate::board::{at_once, better, launches, wait};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::{Case, ProcessorId};
use cosched_env::observation::{Action, Observation};
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "round-robin",
    about: "processors in turn, the oldest request first",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, _: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    Ok(Box::new(RoundRobin { turn: 0 }))
}

struct RoundRobin {
    /// Index of the processor whose turn it is.
    turn: usize,
}

impl Policy for RoundRobin {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let count = observation.processors.len();
        for step in 0..count {
            let p = (self.turn + step) % count;
            if let Some(choice) = oldest_on(observation, ProcessorId(p as u16)) {
                self.turn = (p + 1) % count;
                return Decision(choice);
            }
        }
        wait(observation)
    }
}

/// The launch of the oldest request that `on` can run now.
fn oldest_on(observation: &Observation<'_>, on: ProcessorId) -> Option<usize> {
    let able = (0..observation.requests.len()).filter_map(|i| Some((i, best_on(observation, i, on)?)));
    able.min_by_key(|&(i, _)| (observation.requests[i].arrival, i)).map(|(_, choice)| choice)
}

fn best_on(observation: &Observation<'_>, index: usize, on: ProcessorId) -> Option<usize> {
    let request = &observation.requests[index];
    let mut best = None;
    for (choice, candidate) in launches(observation, index) {
        let Action::Launch { processor, .. } = candidate.action else { continue };
        if processor != on || !candidate.farthest {
            continue;
        }
        if let Some(place) = at_once(observation, choice) {
            best = Some(better(request.deadline.0 as f64, best, place));
        }
    }
    best.and_then(|place| place.candidate)
}
