//! What the two policies after NestDNN (Fang, Zeng and Zhang, MobiCom 2018) share: the cost of serving a stream in a variant with a share
//! of the compute, and the hand-out of compute that chooses the variants. It refuses to place requests by it.
//!
//! The paper: `C = (A_min - A) + alpha * max(0, L / u - L_max)`, with `u` the share of the one processor, handed out 1 % at a time. Here
//! there are several processors, and 1 % of each is handed out: `L / u` becomes `1 / sum over processors of (share / latency there)`.
//! `L_max` is the deadline, or the mean time between requests if that is less, since a queue that grows misses every deadline. `A` is
//! relative to the task's best variant, `alpha` is [`ALPHA`] per `L_max`, and the cost is weighted by the stream's priority. Latencies are
//! scaled by the processors' drift. Processors that run together slow each other down: only those are handed out that together do
//! most, each as slow as when all of them run (see [`useful`]). Where the next 1 % brings nothing because a better variant needs
//! more, several are looked at and handed out at once. Dropping the hopeless when others wait is ours.

use crate::board::{Board, Place, Rules, better};
use cosched_env::case::{Case, ProcessorId, StreamId, VariantId, VariantTable};
use cosched_env::observation::{Observation, RequestView};
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Policy};

/// Cost of taking one `L_max` longer than `L_max`, in units of relative accuracy.
const ALPHA: f64 = 4.0;
/// Stands for the infinite latency of a stream without a share, as a multiple of `L_max`.
const NO_SHARE: f64 = 1e9;
/// How many percent are looked ahead at: a more accurate variant may need many more before it costs less.
const STEPS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
/// A stream that has been silent for so many of its mean gaps is not active.
const SILENT_GAPS: f64 = 10.0;
/// Relative change of a processor's drift that makes the hand-out stale.
const DRIFT_CHANGE: f64 = 0.25;
/// Least time between two hand-outs because of drift alone.
const DRIFT_PAUSE: Span = Span(100_000_000);

/// Who gets the next percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The stream whose cost falls most by it.
    Total,
    /// The stream with the highest cost.
    Max,
}

/// A variant of a stream.
struct Choice {
    variant: VariantId,
    relative_accuracy: f64,
    /// Per processor: nanoseconds for the whole model when it starts there; infinite where it cannot.
    latency_ns: Vec<f64>,
    /// Answers per nanosecond with the shares so far.
    rate: f64,
}

struct StreamState {
    active: bool,
    /// Its choices: `from..to`.
    from: usize,
    to: usize,
    priority: f64,
    goal_accuracy: f64,
    longest_ns: f64,
    chosen: VariantId,
    cost: f64,
    saturated: bool,
}

/// Requests in order of deadline, in the variant that the hand-out chose, on the processor with the earliest answer; see the module.
pub struct NestDnn {
    goal: Goal,
    board: Board,
    choices: Vec<Choice>,
    streams: Vec<StreamState>,
    /// Drift per processor that the hand-out was made for; infinite: it was down.
    drift: Vec<f64>,
    /// Percents that are left of each processor.
    left: Vec<u32>,
    made: Option<Time>,
}

impl NestDnn {
    /// Nothing is handed out before the first decision.
    pub fn new(goal: Goal, case: &Case) -> NestDnn {
        let processors = case.processor_count();
        let mut choices = Vec::new();
        let mut streams = Vec::new();
        let slowdowns = useful(case);
        for stream in &case.streams {
            let task = &case.tasks[stream.task.0 as usize];
            let from = choices.len();
            for &variant in &task.variants {
                let table = case.variant(variant);
                if table.accuracy >= stream.min_accuracy {
                    choices.push(Choice {
                        variant,
                        relative_accuracy: table.relative_accuracy,
                        latency_ns: contended_ns(table, &slowdowns),
                        rate: 0.0,
                    });
                }
            }
            streams.push(StreamState {
                active: false,
                from,
                to: choices.len(),
                priority: stream.priority,
                goal_accuracy: stream.min_accuracy / task.best_accuracy,
                longest_ns: (stream.deadline.0.min(stream.period.0).max(1)) as f64,
                chosen: task.variants[0],
                cost: 0.0,
                saturated: false,
            });
        }
        let drift = vec![f64::INFINITY; processors];
        NestDnn {
            goal,
            board: Board::default(),
            choices,
            streams,
            drift,
            left: vec![0; processors],
            made: None,
        }
    }

    /// Notes which streams are active and how processors are; whether that asks for another hand-out.
    fn stale(&mut self, observation: &Observation<'_>) -> bool {
        let mut stale = self.made.is_none();
        for (s, state) in self.streams.iter_mut().enumerate() {
            let view = &observation.streams[s];
            let gap_ns = observation.case.stream(StreamId(s as u16)).period.0 as f64;
            let silent = |last: Time| observation.now.since(last).0 as f64 > SILENT_GAPS * gap_ns;
            let active = view.waiting + view.running > 0 || view.last_arrival.is_some_and(|at| !silent(at));
            stale |= active != state.active;
            state.active = active;
        }
        let paused = self.made.is_some_and(|at| observation.now.since(at) < DRIFT_PAUSE);
        for (old, view) in self.drift.iter().zip(observation.processors) {
            let ratio = view.drift / old;
            stale |= view.up != old.is_finite();
            stale |=
                view.up && !paused && !(1.0 / (1.0 + DRIFT_CHANGE)..=1.0 + DRIFT_CHANGE).contains(&ratio);
        }
        stale
    }

    fn hand_out(&mut self, observation: &Observation<'_>) {
        self.made = Some(observation.now);
        for ((old, left), view) in self.drift.iter_mut().zip(&mut self.left).zip(observation.processors) {
            *old = if view.up { view.drift } else { f64::INFINITY };
            *left = if view.up { 100 } else { 0 };
        }
        self.choices.iter_mut().for_each(|c| c.rate = 0.0);
        for s in 0..self.streams.len() {
            self.streams[s].saturated = false;
            self.settle(s);
        }
        while let Some((stream, processor, percent)) = self.next_percents() {
            self.left[processor] -= percent;
            let drift = self.drift[processor];
            let StreamState { from, to, .. } = self.streams[stream];
            for choice in &mut self.choices[from..to] {
                choice.rate += f64::from(percent) / 100.0 / (choice.latency_ns[processor] * drift);
            }
            self.settle(stream);
        }
    }

    /// Cost of a stream with so much `more` of a processor, in its cheapest variant then, and which that is.
    fn cost(&self, stream: usize, more: Option<(usize, u32)>) -> (f64, VariantId) {
        let state = &self.streams[stream];
        let mut best = (f64::INFINITY, state.chosen);
        for choice in &self.choices[state.from..state.to] {
            let more =
                more.map_or(0.0, |(p, n)| f64::from(n) / 100.0 / (choice.latency_ns[p] * self.drift[p]));
            let rate = choice.rate + more;
            let late = if rate > 0.0 { (1.0 / (rate * state.longest_ns) - 1.0).max(0.0) } else { NO_SHARE };
            let cost = state.priority * (state.goal_accuracy - choice.relative_accuracy + ALPHA * late);
            if cost < best.0 {
                best = (cost, choice.variant);
            }
        }
        best
    }

    fn settle(&mut self, stream: usize) {
        let (cost, chosen) = self.cost(stream, None);
        self.streams[stream].cost = cost;
        self.streams[stream].chosen = chosen;
    }

    /// The most by which a stream's cost falls per percent, on which processor, and with how many percents; the least of equals.
    fn gain(&self, stream: usize) -> Option<(f64, usize, u32)> {
        let mut best: Option<(f64, usize, u32)> = None;
        for (p, &left) in self.left.iter().enumerate() {
            // All that is left is one of the steps.
            for percent in STEPS.into_iter().take_while(|&n| n < left).chain((left > 0).then_some(left)) {
                let fall = self.streams[stream].cost - self.cost(stream, Some((p, percent))).0;
                let gain = fall / f64::from(percent);
                if gain > 1e-12 && best.is_none_or(|b| gain > b.0) {
                    best = Some((gain, p, percent));
                }
            }
        }
        best
    }

    /// (stream, processor, percents) to hand out next; `None`: nothing is left or nobody gains.
    fn next_percents(&mut self) -> Option<(usize, usize, u32)> {
        match self.goal {
            Goal::Total => {
                let active = (0..self.streams.len()).filter(|&s| self.streams[s].active);
                let gains = active.filter_map(|s| Some((self.gain(s)?, s)));
                // `max_by` gives the last of equals.
                let ((_, p, percent), s) = gains.rev().max_by(|(a, _), (b, _)| a.0.total_cmp(&b.0))?;
                Some((s, p, percent))
            }
            Goal::Max => loop {
                let open =
                    (0..self.streams.len()).filter(|&s| self.streams[s].active && !self.streams[s].saturated);
                let s = open.rev().max_by(|&a, &b| self.streams[a].cost.total_cmp(&self.streams[b].cost))?;
                match self.gain(s) {
                    Some((_, p, percent)) => return Some((s, p, percent)),
                    None => self.streams[s].saturated = true,
                }
            },
        }
    }
}

/// Most processors whose sets are all tried; with more of them all are useful.
const MOST_TRIED: usize = 10;

/// The set of processors that do most work when all of the set run: the slow-down of each then; infinite for those outside.
fn useful(case: &Case) -> Vec<f64> {
    let count = case.processor_count();
    let ids = || (0..count as u16).map(ProcessorId);
    // Speed relative to the fastest, mean over all variants.
    let speed = |p: ProcessorId| {
        let of = |table: &VariantTable| {
            let best = ids().map(|q| whole_ns(table, q)).fold(f64::INFINITY, f64::min);
            best / whole_ns(table, p)
        };
        case.variants.iter().map(of).sum::<f64>() / case.variants.len() as f64
    };
    let speeds: Vec<f64> = ids().map(speed).collect();
    let slowdowns = |set: u32| {
        let inside = move |p: &ProcessorId| count > MOST_TRIED || set & (1 << p.0) != 0;
        let of = move |p: ProcessorId| {
            if inside(&p) { case.slowdown(p, ids().filter(inside)) } else { f64::INFINITY }
        };
        ids().map(of)
    };
    let work = |set: u32| slowdowns(set).zip(&speeds).map(|(slow, speed)| speed / slow).sum::<f64>();
    let sets = 1..1 << count.min(MOST_TRIED);
    let best = sets.max_by(|&a, &b| work(a).total_cmp(&work(b)));
    slowdowns(best.unwrap_or(u32::MAX)).collect()
}

/// Nanoseconds of the whole model on each processor at these slow-downs; without them if it could not run at all otherwise.
fn contended_ns(table: &VariantTable, slowdowns: &[f64]) -> Vec<f64> {
    let alone = |p: usize| whole_ns(table, ProcessorId(p as u16));
    let contended: Vec<f64> = slowdowns.iter().enumerate().map(|(p, slow)| alone(p) * slow).collect();
    if contended.iter().any(|ns| ns.is_finite()) {
        contended
    } else {
        (0..slowdowns.len()).map(alone).collect()
    }
}

/// Nanoseconds of the whole model when it starts on `on`, what `on` cannot run at its fastest elsewhere; infinite when it cannot start.
fn whole_ns(table: &VariantTable, on: ProcessorId) -> f64 {
    let to_end = |last: u16| table.latency_ns(on, 0, last) + table.best_rest_ns(last + 1);
    table.reach(on, 0).map_or(f64::INFINITY, to_end)
}

impl Policy for NestDnn {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        if self.stale(observation) {
            self.hand_out(observation);
        }
        let streams = &self.streams;
        let pick = |r: &RequestView, best: Option<Place>, place: Place| {
            let chosen = streams[r.stream.0 as usize].chosen;
            if r.variant.is_none() && place.variant != chosen {
                return best;
            }
            Some(better(r.deadline.0 as f64, best, place))
        };
        self.board.decide_by(observation, Rules { wait: true, drop: true }, |r| r.deadline.0 as f64, pick)
    }
}
