//! Streams of requests: the same case, seed and horizon always give the same arrivals, live or emulated.
//! It refuses to know about worlds; both kinds take their arrivals from here.

use crate::case::{Case, StreamId, StreamTable};
use crate::event::{Ended, Outcome, Request, RequestId};
use crate::fnv::{START, fnv1a};
use crate::scenario::ArrivalKind;
use crate::time::{Span, Time};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1};
use rand_pcg::Pcg64Mcg;
use std::collections::VecDeque;
use std::sync::Arc;

/// A named random stream: the same seed, name and index always give the same numbers, and different ones unrelated numbers.
pub fn rng(seed: u64, name: &str, index: u64) -> Pcg64Mcg {
    // Mixing quality is the generator's business, distinctness is ours.
    let hash = fnv1a(START, name.bytes().chain(index.to_le_bytes()));
    Pcg64Mcg::seed_from_u64(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Whether a request of a dependent `stream` follows in the chain that began at `origin`, if its parent is answered. It is drawn from
/// the seed and these alone, so that every world of a seed agrees on it.
pub fn follows(seed: u64, stream: StreamId, origin: Time, probability: f64) -> bool {
    let draw: f64 = rng(seed, "follows", origin.0 ^ (u64::from(stream.0) << 48)).random();
    draw < probability
}

/// All arrivals of a case in order of time (ties: in order of streams), numbered from 0.
#[derive(Clone)]
pub struct Arrivals {
    case: Arc<Case>,
    seed: u64,
    sources: Vec<Source>,
    /// The source whose request comes next.
    head: Option<usize>,
    horizon: Time,
    next_id: u64,
}

#[derive(Clone)]
struct Source {
    rng: Pcg64Mcg,
    /// Time of the next arrival, jitter included; at or past the horizon: no more.
    next: Time,
    /// Periodic streams: the grid point that the next arrival belongs to.
    grid: Time,
    /// Traces: index of the next arrival.
    index: usize,
    /// Dependent streams: (arrival, origin) of requests to come, soonest first.
    pending: VecDeque<(Time, Time)>,
    /// Bursty streams: whether in a burst, and until when.
    burst: bool,
    dwell_until: f64,
}

impl Arrivals {
    /// Arrivals before `horizon`; requests that depend on those come after it as well.
    pub fn new(case: Arc<Case>, seed: u64, horizon: Time) -> Arrivals {
        let source = |i: usize| Source::new(&case.streams[i], rng(seed, "arrivals", i as u64), None);
        let sources = (0..case.streams.len()).map(source).collect();
        Arrivals::of(case, seed, horizon, 0, sources)
    }

    /// Arrivals as they may go on from `now`, for those who know no more than the last one of each stream: periodic streams keep
    /// their period, the others are drawn anew from `seed`; a bursty one is in a burst as likely as its last arrival makes it.
    /// Requests are numbered from `next_id`.
    pub fn resume(
        case: Arc<Case>,
        seed: u64,
        now: Time,
        horizon: Time,
        next_id: u64,
        last: &dyn Fn(StreamId) -> Option<Time>,
    ) -> Arrivals {
        let source = |i: usize| {
            let mut rng = rng(seed, "arrivals", i as u64);
            let (stream, last) = (&case.streams[i], last(StreamId(i as u16)));
            match stream.kind {
                // Their gaps have no memory: the next arrival is as far from now as from the last one.
                ArrivalKind::Poisson | ArrivalKind::Bursty => {
                    let burst = stream.kind == ArrivalKind::Bursty
                        && rng.random_bool(burst_probability(stream, last, now));
                    Source::from(stream, rng, Some(now.max(Time::ZERO + stream.offset)), burst)
                }
                _ => Source::new(stream, rng, last),
            }
        };
        let sources = (0..case.streams.len()).map(source).collect();
        Arrivals::of(case, seed, horizon, next_id, sources)
    }

    fn of(case: Arc<Case>, seed: u64, horizon: Time, next_id: u64, sources: Vec<Source>) -> Arrivals {
        let mut arrivals = Arrivals { case, seed, sources, head: None, horizon, next_id };
        arrivals.head = arrivals.soonest();
        arrivals
    }

    /// No more requests at `horizon` or later, but for those that depend on earlier ones.
    pub fn stop_at(&mut self, horizon: Time) {
        self.horizon = self.horizon.min(horizon);
        self.head = self.soonest();
    }

    /// Time of the next arrival without taking it.
    pub fn peek(&self) -> Option<Time> {
        self.head.map(|i| self.sources[i].next)
    }

    /// A request ended: those that depend on its answer are on their way. Whether one follows hangs on the seed and on when the
    /// chain began, not on how it was served.
    pub fn ended(&mut self, ended: &Ended) {
        if !matches!(ended.outcome, Outcome::Answered | Outcome::Late) {
            return;
        }
        let origin = ended.request.origin;
        for i in 0..self.sources.len() {
            let stream = &self.case.streams[i];
            if stream.after != Some(ended.request.stream) {
                continue;
            }
            if follows(self.seed, StreamId(i as u16), origin, stream.probability) && stream.is_open(ended.at)
            {
                let source = &mut self.sources[i];
                source.pending.push_back((ended.at, origin));
                source.next = source.pending[0].0;
                self.head = self.soonest();
            }
        }
    }

    fn soonest(&self) -> Option<usize> {
        // One that is past the horizon must not hide what follows an answer later.
        let comes = |s: &Source| s.next < self.horizon || !s.pending.is_empty();
        let coming = self.sources.iter().enumerate().filter(|(_, s)| comes(s));
        coming.min_by_key(|(i, s)| (s.next, *i)).map(|(index, _)| index)
    }
}

impl Iterator for Arrivals {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let index = self.head?;
        let stream = &self.case.streams[index];
        let source = &mut self.sources[index];
        let (arrival, origin) = source.pending.pop_front().unwrap_or((source.next, source.next));
        source.next = source.after(arrival, stream);
        let request = stream.request(RequestId(self.next_id), StreamId(index as u16), arrival, origin);
        self.next_id += 1;
        self.head = self.soonest();
        Some(request)
    }
}

/// How likely a bursty stream is in a burst when its last request arrived at `last` and none has since: both states are as likely
/// beforehand, and each is weighed by how likely it makes that gap (as if it had not changed meanwhile).
fn burst_probability(stream: &StreamTable, last: Option<Time>, now: Time) -> f64 {
    let gap = now.since(last.unwrap_or(Time::ZERO + stream.offset)).0 as f64;
    let weight = |rate: f64| {
        let per_ns = rate / stream.period.0.max(1) as f64;
        let arrived = if last.is_some() { per_ns } else { 1.0 };
        arrived * (-per_ns * gap).exp()
    };
    let (burst, calm) = (weight(stream.burst), weight(2.0 - stream.burst));
    if burst + calm > 0.0 { burst / (burst + calm) } else { 0.0 }
}

impl Source {
    fn new(stream: &StreamTable, rng: Pcg64Mcg, last: Option<Time>) -> Source {
        Source::from(stream, rng, last, false)
    }

    fn from(stream: &StreamTable, rng: Pcg64Mcg, last: Option<Time>, burst: bool) -> Source {
        let mut source = Source {
            rng,
            next: Time::ZERO,
            grid: last.map_or(Time::ZERO + stream.offset, |last| last + stream.period),
            index: last.map_or(0, |last| stream.times.partition_point(|&t| t <= last)),
            pending: VecDeque::new(),
            burst,
            dwell_until: 0.0,
        };
        let start = last.unwrap_or(Time::ZERO + stream.offset);
        source.next = match stream.kind {
            ArrivalKind::Periodic => source.jittered(stream).max(last.unwrap_or(Time::ZERO)),
            ArrivalKind::Trace => source.traced(stream),
            ArrivalKind::Poisson | ArrivalKind::Bursty => source.after_any(start, stream),
            ArrivalKind::Dependent => Time::NEVER,
        };
        source.skip_closed(stream);
        source
    }

    /// The arrival after `last` at which the stream is open.
    fn after(&mut self, last: Time, stream: &StreamTable) -> Time {
        self.next = self.after_any(last, stream);
        self.skip_closed(stream);
        self.next
    }

    fn skip_closed(&mut self, stream: &StreamTable) {
        while self.next != Time::NEVER && !stream.is_open(self.next) {
            if stream.open.last().is_some_and(|w| self.next >= w.1) {
                self.next = Time::NEVER;
                return;
            }
            self.next = self.after_any(self.next, stream);
        }
    }

    fn jittered(&mut self, stream: &StreamTable) -> Time {
        let jitter = stream.jitter.0;
        if jitter == 0 {
            return self.grid;
        }
        let shift = self.rng.random_range(0..=2 * jitter);
        Time((self.grid.0 + shift).saturating_sub(jitter))
    }

    fn traced(&mut self, stream: &StreamTable) -> Time {
        self.index += 1;
        stream.times.get(self.index - 1).copied().unwrap_or(Time::NEVER)
    }

    fn gap(&mut self, mean_ns: f64) -> f64 {
        let unit: f64 = Exp1.sample(&mut self.rng);
        unit * mean_ns
    }

    fn after_any(&mut self, last: Time, stream: &StreamTable) -> Time {
        let period = stream.period.0 as f64;
        match stream.kind {
            ArrivalKind::Periodic => {
                self.grid = self.grid + stream.period;
                // Large jitter must not bring arrivals of one stream out of order.
                self.jittered(stream).max(last)
            }
            ArrivalKind::Trace => self.traced(stream),
            ArrivalKind::Dependent => self.pending.front().map_or(Time::NEVER, |p| p.0),
            ArrivalKind::Poisson => last + Span::from_ns(self.gap(period)),
            ArrivalKind::Bursty => Time(self.bursty(last.0 as f64, period, stream) as u64),
        }
    }

    /// Next arrival of a two-state Markov-modulated Poisson process: by the memoryless property the gap is drawn anew
    /// whenever the state changes before it is over.
    fn bursty(&mut self, mut now: f64, period: f64, stream: &StreamTable) -> f64 {
        let dwell = stream.dwell.0 as f64;
        if self.dwell_until == 0.0 {
            self.dwell_until = now + self.gap(dwell).max(1.0);
        }
        loop {
            let rate = if self.burst { stream.burst } else { 2.0 - stream.burst };
            let gap = if rate > 0.0 { self.gap(period / rate) } else { f64::INFINITY };
            if now + gap <= self.dwell_until {
                return now + gap;
            }
            now = self.dwell_until;
            self.burst = !self.burst;
            self.dwell_until += self.gap(dwell).max(1.0);
        }
    }
}
