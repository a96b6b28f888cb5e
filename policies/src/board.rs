//! What the list-scheduling policies share: requests in some order are put, one after the other, where their answers are expected
//! first. It refuses to look behind the observation: all estimates come from the plan's tables and the processors' views.

use cosched_env::case::{ProcessorId, VariantId};
use cosched_env::observation::{Action, Candidate, Observation, RequestView};
use cosched_env::world::Decision;

/// A launch that ends before its processor's reach has to promise this much less time than one that goes on to the end: what
/// follows it is only a lower bound.
const MIX_FACTOR: f64 = 1.25;

/// Where and when a request would run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Processor.
    pub processor: ProcessorId,
    /// Variant.
    pub variant: VariantId,
    /// Last segment of the launch.
    pub last: u16,
    /// When that launch is expected to end, in nanoseconds since the start of the run.
    pub free_ns: f64,
    /// When the answer is expected, in nanoseconds since the start of the run.
    pub answer_ns: f64,
    /// Accuracy of the variant.
    pub accuracy: f64,
    /// Energy of the launch, in millijoules.
    pub energy_mj: f64,
    /// The candidate, when it can start now; `None`: the processor is busy, so it has to wait.
    pub candidate: Option<usize>,
}

/// Waiting (doing nothing until the next event).
pub fn wait(observation: &Observation<'_>) -> Decision {
    Decision(observation.candidates.len() - 1)
}

/// Giving up a request.
pub fn drop_of(observation: &Observation<'_>, index: usize) -> Decision {
    let wanted = |c: &Candidate| c.action == Action::Drop { request: index as u16 };
    // Drops stand at the end, so the search is short.
    match observation.candidates.iter().rposition(wanted) {
        Some(choice) => Decision(choice),
        None => wait(observation),
    }
}

/// The launch candidates of a request with their indices. Candidates are ordered by request.
pub fn launches<'a>(
    observation: &Observation<'a>,
    index: usize,
) -> impl Iterator<Item = (usize, &'a Candidate)> + use<'a> {
    let of = |c: &Candidate| match c.action {
        Action::Launch { request, .. } => request as usize,
        _ => usize::MAX,
    };
    let candidates = observation.candidates;
    let from = candidates.partition_point(|c| of(c) < index);
    candidates[from..].iter().take_while(move |c| of(c) == index).enumerate().map(move |(i, c)| (from + i, c))
}

/// Variants that may serve a request (from its next segment on), in plan order.
pub fn variants<'a>(
    observation: &Observation<'a>,
    request: &'a RequestView,
) -> impl Iterator<Item = VariantId> + use<'a> {
    let case = observation.case;
    case.tasks[request.task.0 as usize].variants.iter().copied().filter(move |&v| match request.variant {
        Some(started) => started == v,
        None => case.variant(v).accuracy >= request.min_accuracy,
    })
}

/// The launch of `variant` on `on` as far as it can go, were it to start at `start_ns`; `None` when `on` cannot run the next segment.
pub fn later(
    observation: &Observation<'_>,
    request: &RequestView,
    variant: VariantId,
    on: ProcessorId,
    start_ns: f64,
) -> Option<Place> {
    let case = observation.case;
    let table = case.variant(variant);
    let last = table.reach(on, request.next)?;
    let view = &observation.processors[on.0 as usize];
    let transfer = case.transfer_ns(variant, request.next, request.location, on);
    let alone = table.latency_ns(on, request.next, last);
    let free_ns = start_ns + (transfer + alone * view.slowdown) * view.drift;
    let rest = table.best_rest_ns(last + 1) + table.handover_ns(on, last + 1);
    Some(Place {
        processor: on,
        variant,
        last,
        free_ns,
        answer_ns: free_ns + rest,
        accuracy: table.accuracy,
        energy_mj: table.energy_mj(on, request.next, last),
        candidate: None,
    })
}

/// A launch candidate as a place.
pub fn at_once(observation: &Observation<'_>, choice: usize) -> Option<Place> {
    let candidate = &observation.candidates[choice];
    let Action::Launch { variant, last, processor, .. } = candidate.action else { return None };
    let now = observation.now.0 as f64;
    let rest = candidate.rest_ns + candidate.handover_ns;
    let factor = if candidate.farthest { 1.0 } else { MIX_FACTOR };
    Some(Place {
        processor,
        variant,
        last,
        free_ns: now + candidate.expected_ns,
        answer_ns: now + factor * (candidate.expected_ns + rest),
        accuracy: observation.case.variant(variant).accuracy,
        energy_mj: candidate.energy_mj,
        candidate: Some(choice),
    })
}

/// The better of two places of one request: the more accurate of those that are on time (the earlier when equally accurate), else the
/// earlier; the first when nothing tells them apart.
pub fn better(deadline_ns: f64, a: Option<Place>, b: Place) -> Place {
    let Some(a) = a else { return b };
    let (a_fits, b_fits) = (a.answer_ns <= deadline_ns, b.answer_ns <= deadline_ns);
    let b_wins = match (a_fits, b_fits) {
        (true, true) if a.accuracy != b.accuracy => b.accuracy > a.accuracy,
        (true, false) => false,
        (false, true) => true,
        _ => b.answer_ns < a.answer_ns,
    };
    if b_wins { b } else { a }
}

/// How a list scheduler treats the requests.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether a request waits for a busy processor on which its answer would be there earlier.
    pub wait: bool,
    /// Whether requests are dropped that cannot be on time any more, wherever they run; not while nothing else waits.
    pub drop: bool,
}

/// Reused working space of a list scheduler.
#[derive(Default)]
pub struct Board {
    /// Per processor: when it takes the next launch, counting what has been promised in this decision.
    free_ns: Vec<f64>,
    /// (key, index) of requests, least first.
    order: Vec<(f64, usize)>,
    /// (index, its best place) of requests that have not been placed yet, for [`Board::largest`].
    open: Vec<(usize, Option<Place>)>,
}

impl Board {
    /// One decision: requests are looked at with the least `key` first (ties: the oldest, then the first in the observation). Each is
    /// put on the place with the earliest answer; the first whose place is idle is launched, and places on busy processors are
    /// promised to those before, so that later requests see them as taken.
    pub fn decide(
        &mut self,
        observation: &Observation<'_>,
        rules: Rules,
        key: impl Fn(&RequestView) -> f64,
    ) -> Decision {
        let pick = |r: &RequestView, best, place| Some(better(r.deadline.0 as f64, best, place));
        self.decide_by(observation, rules, key, pick)
    }

    /// As [`Board::decide`], with another rule than [`better`]: `pick` gets the best place so far and one more, and gives the better
    /// one; `None`: neither will do.
    pub fn decide_by(
        &mut self,
        observation: &Observation<'_>,
        rules: Rules,
        key: impl Fn(&RequestView) -> f64,
        pick: impl Fn(&RequestView, Option<Place>, Place) -> Option<Place>,
    ) -> Decision {
        self.begin(observation, key);
        // A late answer is better than none if nobody else could use the time.
        let may_drop = rules.drop && others_wait(observation);
        for i in 0..self.order.len() {
            let index = self.order[i].1;
            if may_drop && hopeless(observation, index) {
                return drop_of(observation, index);
            }
            let request = &observation.requests[index];
            let mut best = None;
            self.places(observation, index, rules.wait, |place| best = pick(request, best, place));
            let Some(place) = best else { continue };
            match place.candidate {
                Some(choice) => return Decision(choice),
                None => self.promise(&place),
            }
        }
        wait(observation)
    }

    /// For policies whose order hangs on the places themselves: every request's best place by `pick` is looked for; the request whose
    /// place has the largest `value` comes first (ties: the oldest), and if that place is busy it is promised and the others look again.
    /// Gives the first that can start, as (index, place). [`Board::begin`] has been called.
    pub fn largest(
        &mut self,
        observation: &Observation<'_>,
        pick: impl Fn(&RequestView, Option<Place>, Place) -> Option<Place>,
        value: impl Fn(&RequestView, &Place) -> f64,
    ) -> Option<(usize, Place)> {
        let mut open = std::mem::take(&mut self.open);
        let best = |board: &Board, index: usize| {
            let mut best = None;
            let request = &observation.requests[index];
            board.places(observation, index, true, |place| best = pick(request, best, place));
            best
        };
        open.clear();
        open.extend(self.order.iter().map(|&(_, index)| (index, best(self, index))));
        let found = loop {
            let values = open.iter().enumerate().filter_map(|(i, &(index, place))| {
                Some((i, value(&observation.requests[index], place.as_ref()?)))
            });
            // `max_by` gives the last of equals, and the oldest comes first.
            let Some((first, _)) = values.rev().max_by(|a, b| a.1.total_cmp(&b.1)) else { break None };
            let (index, Some(place)) = open.remove(first) else { break None };
            if place.candidate.is_some() {
                break Some((index, place));
            }
            self.promise(&place);
            // Only what wanted the promised processor has to look again.
            for (index, old) in &mut open {
                if old.is_some_and(|p| p.processor == place.processor) {
                    *old = best(self, *index);
                }
            }
        };
        self.open = open;
        found
    }

    /// Begins a decision: nothing is promised, and requests are in order of `key`, least first.
    pub fn begin(&mut self, observation: &Observation<'_>, key: impl Fn(&RequestView) -> f64) {
        let requests = observation.requests;
        self.order.clear();
        self.order.extend(requests.iter().enumerate().map(|(i, r)| (key(r), i)));
        let age = |i: usize| (requests[i].arrival, i);
        self.order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(age(a.1).cmp(&age(b.1))));
        self.free_ns.clear();
        self.free_ns
            .extend(observation.processors.iter().map(|p| p.expected_free.max(observation.now).0 as f64));
    }

    /// Index of the request that comes `nth` in order; `None`: there are fewer.
    pub fn nth(&self, nth: usize) -> Option<usize> {
        self.order.get(nth).map(|&(_, index)| index)
    }

    /// The first request in order to be dropped because it is hopeless; `None` when there is none or nothing else waits.
    pub fn first_hopeless(&self, observation: &Observation<'_>) -> Option<Decision> {
        if !others_wait(observation) {
            return None;
        }
        let mut order = self.order.iter().map(|&(_, index)| index);
        order.find(|&index| hopeless(observation, index)).map(|index| drop_of(observation, index))
    }

    /// Those looked at later see the place as taken.
    pub fn promise(&mut self, place: &Place) {
        self.free_ns[place.processor.0 as usize] = place.free_ns;
    }

    /// When a processor takes the next launch, counting what has been promised, in nanoseconds since the start of the run.
    pub fn free_ns(&self, on: ProcessorId) -> f64 {
        self.free_ns[on.0 as usize]
    }

    /// All places of a request: launches that can start now and, if it may `wait`, those on busy processors.
    pub fn places(
        &self,
        observation: &Observation<'_>,
        index: usize,
        wait: bool,
        mut visit: impl FnMut(Place),
    ) {
        let request = &observation.requests[index];
        for (choice, _) in launches(observation, index) {
            if let Some(place) = at_once(observation, choice) {
                visit(place);
            }
        }
        if !wait {
            return;
        }
        for variant in variants(observation, request) {
            for (p, view) in observation.processors.iter().enumerate() {
                if !view.up || view.free > 0 {
                    continue;
                }
                if let Some(place) =
                    later(observation, request, variant, ProcessorId(p as u16), self.free_ns[p])
                {
                    visit(place);
                }
            }
        }
    }
}

/// Whether more than one request waits.
pub fn others_wait(observation: &Observation<'_>) -> bool {
    observation.streams.iter().map(|s| s.waiting).sum::<u32>() > 1
}

/// Whether a request cannot be on time any more: on no processor that is up, in no variant, even if it were next there.
/// A request that no processor can run at the moment is not hopeless.
pub fn hopeless(observation: &Observation<'_>, index: usize) -> bool {
    let request = &observation.requests[index];
    let deadline = request.deadline.0 as f64;
    let mut seen = false;
    for variant in variants(observation, request) {
        for (p, view) in observation.processors.iter().enumerate() {
            if !view.up {
                continue;
            }
            let start = view.expected_free.max(observation.now).0 as f64;
            match later(observation, request, variant, ProcessorId(p as u16), start) {
                Some(place) if place.answer_ns <= deadline => return false,
                Some(_) => seen = true,
                None => {}
            }
        }
    }
    // A mix of processors may be faster than any processor as far as it goes.
    seen && launches(observation, index).all(|(_, c)| observation.earliest_answer_ns(c) > deadline)
}
