//! The best static placement, as OmniBoost (Karatzas and Anagnostopoulos, DAC 2023) and Puzzle (2025) look for it ahead of time: each
//! stream has one variant, cut into at most three spans that have their processors, a rank among the streams, and whether it gives up
//! what cannot be on time or everything. `placement_search.rs` finds them by simulated annealing on the emulator when the policy is made;
//! then they are followed: requests in order of rank, then deadline, wait for their processors. While a processor is down, and where no
//! three spans can serve a task, the place with the earliest answer is taken. It refuses to adapt to anything else.

use crate::board::{Board, better, drop_of, launches, others_wait, wait};
use crate::placement_search::search;
use crate::stage::Stage;
use crate::{Make, PolicyError, Row};
use cosched_env::case::{ProcessorId, VariantId, VariantTable};
use cosched_env::observation::{Action, Observation, RequestView};
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "static",
    about: "a fixed variant, cut and rank for each stream, found by a search on the emulator; static:RUNS says how long (default 800)",
    make: Make::On(make),
    searches: false,
};

/// Emulated runs of a search, where nothing else is said.
pub(crate) const RUNS: usize = 800;
/// Most of them that may be asked for.
const MOST_RUNS: usize = 1_000_000;

fn make(parameter: Option<&str>, stage: &dyn Stage) -> Result<Box<dyn Policy>, PolicyError> {
    let runs = match parameter {
        None => RUNS,
        Some(text) => match text.parse() {
            Ok(runs @ 1..=MOST_RUNS) => runs,
            _ => {
                return Err(PolicyError::Unusable {
                    policy: ROW.name.to_owned(),
                    problem: format!(
                        "expected a number of emulated runs from 1 to {MOST_RUNS}, got `{text}`"
                    ),
                });
            }
        },
    };
    Ok(Box::new(Follower::new(search(stage, runs))))
}

/// Most spans of a route.
pub(crate) const MOST_SPANS: usize = 3;

/// Consecutive segments on one processor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    /// Last segment; the first is the one after the span before.
    pub last: u16,
    pub processor: ProcessorId,
}

/// How a stream is served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Route {
    pub variant: VariantId,
    /// Up to the one that holds the last segment; `None`: there are none that will do, and places are chosen one by one.
    pub spans: Option<[Span; MOST_SPANS]>,
    /// Streams of a lower rank come first.
    pub rank: u8,
    /// What cannot be on time is dropped when others wait.
    pub firm: bool,
    /// Otherwise all its requests are dropped.
    pub served: bool,
}

impl Route {
    /// The span that holds a segment.
    fn span(&self, segment: u16) -> Option<Span> {
        self.spans?.into_iter().find(|span| span.last >= segment)
    }
}

/// Whether each span's processor can run all of it, and they end with the model.
pub(crate) fn fits(table: &VariantTable, spans: &[Span; MOST_SPANS]) -> bool {
    let mut first = 0;
    for span in spans {
        if first == table.segments {
            return true;
        }
        if span.last < first || table.reach(span.processor, first).is_none_or(|reach| reach < span.last) {
            return false;
        }
        first = span.last + 1;
    }
    first == table.segments
}

/// Follows routes.
pub(crate) struct Follower {
    board: Board,
    /// Per stream.
    routes: Vec<Route>,
}

/// Nanoseconds that no run lasts: a rank counts more than any deadline. Sums stay exact to 16 ns for some twenty ranks.
const RANK_NS: f64 = 1e17;

impl Follower {
    pub(crate) fn new(routes: Vec<Route>) -> Follower {
        Follower { board: Board::default(), routes }
    }

    /// When a request is answered by its route if nobody comes first, in nanoseconds since the start of the run.
    fn answer_ns(&self, observation: &Observation<'_>, request: &RequestView, route: &Route) -> f64 {
        let case = observation.case;
        let table = case.variant(route.variant);
        let (mut at_ns, mut next, mut location) = (observation.now.0 as f64, request.next, request.location);
        while next < table.segments {
            let Some(span) = route.span(next) else { break };
            let view = &observation.processors[span.processor.0 as usize];
            let bringing = case.transfer_ns(route.variant, next, location, span.processor);
            let alone = table.latency_ns(span.processor, next, span.last);
            at_ns = at_ns.max(self.board.free_ns(span.processor))
                + (bringing + alone * view.slowdown) * view.drift;
            (next, location) = (span.last + 1, Some(span.processor));
        }
        at_ns
    }

    /// The launch of a request on its route that goes furthest, if its processor is free.
    fn launch(
        &self,
        observation: &Observation<'_>,
        index: usize,
        span: Span,
        wanted: VariantId,
    ) -> Option<usize> {
        let mut best: Option<(u16, usize)> = None;
        for (choice, candidate) in launches(observation, index) {
            if let Action::Launch { variant, last, processor, .. } = candidate.action
                && variant == wanted
                && processor == span.processor
                && last <= span.last
                && best.is_none_or(|b| last > b.0)
            {
                best = Some((last, choice));
            }
        }
        best.map(|(_, choice)| choice)
    }

    /// The launch with the earliest answer, for a request whose route cannot be followed.
    fn elsewhere(&mut self, observation: &Observation<'_>, index: usize) -> Option<usize> {
        let deadline = observation.requests[index].deadline.0 as f64;
        let mut best = None;
        self.board.places(observation, index, true, |place| best = Some(better(deadline, best, place)));
        let place = best?;
        if place.candidate.is_none() {
            self.board.promise(&place);
        }
        place.candidate
    }
}

impl Policy for Follower {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let routes = &self.routes;
        let rank = |r: &RequestView| f64::from(routes[r.stream.0 as usize].rank);
        self.board.begin(observation, |r| rank(r) * RANK_NS + r.deadline.0 as f64);
        let may_drop = others_wait(observation);
        for nth in 0.. {
            let Some(index) = self.board.nth(nth) else { break };
            let request = &observation.requests[index];
            let route = self.routes[request.stream.0 as usize];
            if !route.served && request.variant.is_none() {
                return drop_of(observation, index);
            }
            let on_route = request.variant.is_none_or(|v| v == route.variant);
            let span = route.span(request.next).filter(|_| on_route);
            let up = |span: &Span| observation.processors[span.processor.0 as usize].up;
            let launch = match span.filter(up) {
                None => self.elsewhere(observation, index),
                Some(span) => {
                    let late = || self.answer_ns(observation, request, &route) > request.deadline.0 as f64;
                    if route.firm && may_drop && late() {
                        return drop_of(observation, index);
                    }
                    self.launch(observation, index, span, route.variant)
                }
            };
            if let Some(choice) = launch {
                return Decision(choice);
            }
        }
        wait(observation)
    }
}
