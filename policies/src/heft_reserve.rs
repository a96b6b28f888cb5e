//! HEFT with reservation (Band, MobiSys 2022): the highest rank first, as in `heft`, each request on the processor with the earliest
//! answer. A request that prefers a busy processor reserves it, and one that starts but has to go on elsewhere reserves the processor
//! on which it will go on; until they run there, all others, of higher rank too, see that processor as taken for so long.
//! A reservation moves when its owner finds a better place. Dropping the hopeless when others wait is ours.
//! It refuses to keep a processor idle by force: one that finishes earlier behind a reservation may still start.

use crate::board::{Board, Place, better, drop_of, hopeless, later, others_wait, wait};
use crate::heft::{rank, rank_ns};
use crate::{PolicyError, Row, no_parameter};
use cosched_env::case::{Case, ProcessorId};
use cosched_env::event::RequestId;
use cosched_env::observation::{Observation, RequestView};
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "heft-reserve",
    about: "as heft, and a request reserves the busy processor that it waits for or will go on with; others see it as taken",
    make,
};

fn make(parameter: Option<&str>, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    Ok(Box::new(HeftReserve { board: Board::default(), rank_ns: rank_ns(case), reserved: Vec::new() }))
}

#[derive(Clone, Copy)]
struct Reservation {
    owner: RequestId,
    processor: ProcessorId,
    /// When it should begin, in nanoseconds since the start of the run.
    from_ns: f64,
    /// When it should be over; a stale one is forgotten then.
    until_ns: f64,
    /// Whether it is among this decision's promises already.
    promised: bool,
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
        self.reserved.retain(|r| r.until_ns > now);
        self.reserved.iter_mut().for_each(|r| r.promised = false);
        let ranks = &self.rank_ns;
        self.board.begin(observation, |r| rank(ranks, observation, r));
        let may_drop = others_wait(observation);
        for nth in 0.. {
            let Some(index) = self.board.nth(nth) else { break };
            let request = &observation.requests[index];
            if may_drop && hopeless(observation, index) {
                self.release(request.id);
                return drop_of(observation, index);
            }
            let best = self.best(observation, index);
            self.release(request.id);
            let Some(place) = best else { continue };
            match place.candidate {
                Some(choice) => {
                    self.reserve_next(observation, request, &place);
                    return Decision(choice);
                }
                None => {
                    let start_ns = self.board.free_ns(place.processor);
                    self.board.promise(&place);
                    self.reserve(request.id, &place, start_ns, true);
                }
            }
        }
        wait(observation)
    }
}

impl HeftReserve {
    /// The best place of a request when reservations of others come first.
    fn best(&self, observation: &Observation<'_>, index: usize) -> Option<Place> {
        let request = &observation.requests[index];
        let deadline = request.deadline.0 as f64;
        let mut best = None;
        let now = observation.now.0 as f64;
        self.board.places(observation, index, true, |place| {
            let start_ns = if place.candidate.is_some() { now } else { self.board.free_ns(place.processor) };
            let delay_ns = self.delay_ns(request.id, &place, start_ns);
            let place =
                Place { free_ns: place.free_ns + delay_ns, answer_ns: place.answer_ns + delay_ns, ..place };
            best = Some(better(deadline, best, place));
        });
        best
    }

    /// How much later than `start_ns` a launch fits between the reservations of others that are not among the promises.
    fn delay_ns(&self, own: RequestId, place: &Place, start_ns: f64) -> f64 {
        let length_ns = place.free_ns - start_ns;
        let mut at_ns = start_ns;
        // Each time round it moves behind one more of them.
        for _ in 0..self.reserved.len() {
            let overlaps = |r: &&Reservation| {
                let of_another = r.processor == place.processor && r.owner != own && !r.promised;
                of_another && r.from_ns < at_ns + length_ns && at_ns < r.until_ns
            };
            match self.reserved.iter().find(overlaps) {
                Some(r) => at_ns = r.until_ns,
                None => break,
            }
        }
        at_ns - start_ns
    }

    fn release(&mut self, owner: RequestId) {
        self.reserved.retain(|r| r.owner != owner);
    }

    fn reserve(&mut self, owner: RequestId, place: &Place, from_ns: f64, promised: bool) {
        let (processor, until_ns) = (place.processor, place.free_ns);
        self.reserved.push(Reservation { owner, processor, from_ns, until_ns, promised });
    }

    /// A launch that ends before the answer: its request will go on where that is answered first.
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
            let start_ns = if on == place.processor { place.free_ns } else { place.free_ns.max(free_ns) };
            let Some(there) = later(observation, &after, place.variant, on, start_ns) else { continue };
            if best.is_none_or(|(b, _)| there.answer_ns < b.answer_ns) {
                best = Some((there, start_ns));
            }
        }
        if let Some((there, from_ns)) = best {
            self.reserve(request.id, &there, from_ns, false);
        }
    }
}
