//! HEFT with reservation (Band, MobiSys 2022): the highest rank first, as in `heft`, each request on the processor with the earliest
//! answer. One that prefers a busy processor takes it in advance: those after it see it as taken. One that starts but has to go on
//! elsewhere reserves that other processor from the end of its launch on, over later decisions too, until it is there: meanwhile a place
//! that overlaps the reservation counts only from its end on. Unlike Band's, a reservation does not bind requests of a higher rank:
//! binding them as well took a quarter of the utility on the demo. Dropping the hopeless when others wait is ours.
//! It refuses to keep a processor idle by force: what is answered first behind a reservation may still start before it.

use crate::board::{Board, Place, better, drop_of, hopeless, later, others_wait, wait};
use crate::heft::{rank_ns, urgency, work_ns};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::{Case, ProcessorId};
use cosched_env::event::RequestId;
use cosched_env::observation::{Observation, RequestView};
use cosched_env::time::Time;
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "heft-reserve",
    about: "as heft, and a request reserves the processor that it will go on with; those of lower rank see it as taken",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    Ok(Box::new(HeftReserve { board: Board::default(), rank_ns: rank_ns(case), reserved: Vec::new() }))
}

#[derive(Clone, Copy)]
struct Reservation {
    owner: RequestId,
    /// What the owner's rank follows from: weighted work that is left, and when it is due.
    work_ns: f64,
    deadline: Time,
    processor: ProcessorId,
    /// When it should begin, in nanoseconds since the start of the run.
    from_ns: f64,
    /// When it should be over; a stale one is forgotten then.
    until_ns: f64,
}

struct HeftReserve {
    board: Board,
    /// See [`rank_ns`].
    rank_ns: Vec<Vec<f64>>,
    reserved: Vec<Reservation>,
}

impl Policy for HeftReserve {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let now = observation.now.0 as f64;
        // Who is here again has got where it was going, or has failed.
        let here = |owner: RequestId| observation.requests.iter().any(|r| r.id == owner);
        self.reserved.retain(|r| r.until_ns > now && !here(r.owner));
        let ranks = &self.rank_ns;
        let key =
            |r: &RequestView| urgency(work_ns(ranks, observation, r), r.deadline.ms_after(observation.now));
        self.board.begin(observation, key);
        let may_drop = others_wait(observation);
        for nth in 0.. {
            let Some(index) = self.board.nth(nth) else { break };
            if may_drop && hopeless(observation, index) {
                return drop_of(observation, index);
            }
            let Some(place) = self.best(observation, index) else { continue };
            match place.candidate {
                Some(choice) => {
                    self.reserve_next(observation, &observation.requests[index], &place);
                    return Decision(choice);
                }
                None => self.board.promise(&place),
            }
        }
        wait(observation)
    }
}

impl HeftReserve {
    /// The best place of a request when reservations of higher rank come first.
    fn best(&self, observation: &Observation<'_>, index: usize) -> Option<Place> {
        let request = &observation.requests[index];
        let deadline = request.deadline.0 as f64;
        let now = observation.now.0 as f64;
        let mut best = None;
        self.board.places(observation, index, true, |place| {
            let start_ns = if place.candidate.is_some() { now } else { self.board.free_ns(place.processor) };
            let delay_ns = self.delay_ns(observation, request, &place, start_ns);
            let place =
                Place { free_ns: place.free_ns + delay_ns, answer_ns: place.answer_ns + delay_ns, ..place };
            best = Some(better(deadline, best, place));
        });
        best
    }

    /// How much later than `start_ns` a launch fits between the reservations that bind its request.
    fn delay_ns(
        &self,
        observation: &Observation<'_>,
        request: &RequestView,
        place: &Place,
        start_ns: f64,
    ) -> f64 {
        if self.reserved.is_empty() {
            return 0.0;
        }
        let urgency_of = |work_ns: f64, deadline: Time| urgency(work_ns, deadline.ms_after(observation.now));
        let own = urgency_of(work_ns(&self.rank_ns, observation, request), request.deadline);
        let length_ns = place.free_ns - start_ns;
        let mut at_ns = start_ns;
        // Each time round it moves behind one more of them.
        for _ in 0..self.reserved.len() {
            let overlaps = |r: &&Reservation| {
                r.processor == place.processor
                    && r.from_ns < at_ns + length_ns
                    && at_ns < r.until_ns
                    && urgency_of(r.work_ns, r.deadline) < own
            };
            match self.reserved.iter().find(overlaps) {
                Some(r) => at_ns = r.until_ns,
                None => break,
            }
        }
        at_ns - start_ns
    }

    /// A launch that ends before the answer: its request will go on where that is answered first, which it reserves if it is elsewhere.
    fn reserve_next(&mut self, observation: &Observation<'_>, request: &RequestView, place: &Place) {
        let next = place.last + 1;
        if next >= observation.case.variant(place.variant).segments {
            return;
        }
        let after =
            RequestView { variant: Some(place.variant), next, location: Some(place.processor), ..*request };
        let mut best: Option<(Place, f64)> = None;
        for (p, view) in observation.processors.iter().enumerate().filter(|(_, v)| v.up) {
            let on = ProcessorId(p as u16);
            let free_ns = if view.free > 0 { 0.0 } else { self.board.free_ns(on) };
            let from_ns = if on == place.processor { place.free_ns } else { place.free_ns.max(free_ns) };
            let Some(there) = later(observation, &after, place.variant, on, from_ns) else { continue };
            if best.is_none_or(|(b, _)| there.answer_ns < b.answer_ns) {
                best = Some((there, from_ns));
            }
        }
        if let Some((there, from_ns)) = best.filter(|(there, _)| there.processor != place.processor) {
            self.reserved.push(Reservation {
                owner: request.id,
                work_ns: work_ns(&self.rank_ns, observation, &after),
                deadline: request.deadline,
                processor: there.processor,
                from_ns,
                until_ns: there.free_ns,
            });
        }
    }
}
