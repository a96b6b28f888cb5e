//! After MDInference and ModiPick (Ogden and Guo, 2020; arXiv 2002.06603 and 1909.02053): the earliest deadline first; on each place
//! (processor, idle or busy) a variant is eligible if it fits the budget there, mean + sigma < time left to the deadline when the place
//! is free, less the transfer (for a processor behind a link twice the upload, as the paper reckons, since nobody knows the way back);
//! of the eligible the most accurate one is taken, on the place with the earliest answer; when none is eligible, the least mean + sigma.
//! The papers duplicate a request on the phone in case the network fails; here a request runs in one place at a time, so the time for
//! a second try is not kept. Dropping the hopeless when others wait is ours. It refuses to weigh energy and priority.

use crate::board::{Board, Place, Rules};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::{Case, ProcessorId};
use cosched_env::observation::{Observation, RequestView};
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "mdinference",
    about: "earliest deadline first, in the most accurate variant whose mean + sigma fits the time left on the place",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, _: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    Ok(Box::new(MdInference::default()))
}

#[derive(Default)]
struct MdInference {
    board: Board,
}

impl Policy for MdInference {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let rules = Rules { wait: true, drop: true };
        let pick = |r: &RequestView, best: Option<Place>, b: Place| {
            let Some(a) = best else { return Some(b) };
            let margin = |place: &Place| place.answer_ns + reserve_ns(observation, r, place);
            let (a_ns, b_ns) = (margin(&a), margin(&b));
            let deadline = r.deadline.0 as f64;
            let b_wins = match (a_ns < deadline, b_ns < deadline) {
                (true, true) if a.accuracy != b.accuracy => b.accuracy > a.accuracy,
                (true, true) => b.answer_ns < a.answer_ns,
                (true, false) => false,
                (false, true) => true,
                (false, false) => b_ns < a_ns,
            };
            Some(if b_wins { b } else { a })
        };
        self.board.decide_by(observation, rules, |r| r.deadline.0 as f64, pick)
    }
}

/// What the budget keeps back beyond the expected answer: the standard deviation of the latency, and for a link what twice the upload
/// exceeds the transfer that the plan expects; nanoseconds.
fn reserve_ns(observation: &Observation<'_>, request: &RequestView, place: &Place) -> f64 {
    let case = observation.case;
    let table = case.variant(place.variant);
    let on = place.processor;
    let view = &observation.processors[on.0 as usize];
    let mean_ns = table.latency_ns(on, request.next, place.last) * view.slowdown * view.drift;
    let sigma = table.log_sigma(on, request.next, place.last);
    // The standard deviation of a log-normal is mean * sqrt(exp(sigma^2) - 1).
    mean_ns * (sigma * sigma).exp_m1().sqrt() + view.drift * link_reserve_ns(case, on, request, place)
}

fn link_reserve_ns(case: &Case, on: ProcessorId, request: &RequestView, place: &Place) -> f64 {
    let Some(link) = &case.processors[on.0 as usize].model.link else { return 0.0 };
    let upload = 2 * case.variant(place.variant).input_bytes[request.next as usize];
    let expected_ns = case.transfer_ns(place.variant, request.next, request.location, on);
    (link.phases[0].transfer_ns(upload) - expected_ns).max(0.0)
}
