//! Turns an observation into numbers: one row per candidate and one row for the whole. All are relative (to the request's
//! deadline, to the best processor, to the mean priority), so that one network serves devices and scenarios it never saw.
//! It refuses to look at anything but the observation.

mod bests;
mod outlook;

use crate::guide::{GUIDES, Vote};
use bests::{Bests, nearness};
use cosched_env::case::ProcessorId;
use cosched_env::objective;
use cosched_env::observation::{Action, Candidate, Observation};
use cosched_env::scenario::ArrivalKind;
use cosched_env::time::Time;
use outlook::{Flow, Need, accuracy_left, earliest_finish, fastest, least_work};

/// Version of the encoding: any change of meaning, order or number raises it, and old checkpoints are refused.
pub const FEATURE_VERSION: u32 = 3;
/// Numbers per candidate.
pub const CANDIDATE_FEATURES: usize = 55;
/// Numbers per observation.
pub const CONTEXT_FEATURES: usize = 23;
/// Column of the first guide's vote; those of the others follow.
pub const FIRST_VOTE: usize = 44;

/// Encodes observations into reused buffers.
#[derive(Default)]
pub struct Encoder {
    /// `[candidates, CANDIDATE_FEATURES]`, row-major.
    pub candidates: Vec<f32>,
    /// `[CONTEXT_FEATURES]`.
    pub context: Vec<f32>,
    needs: Vec<Need>,
    wanted: Vec<u32>,
    flows: Vec<Flow>,
    /// Per processor: load of the streams that run fastest there.
    loads: Vec<f64>,
    /// Per candidate: expected utility by priority.
    utilities: Vec<f64>,
    bests: Bests,
}

/// Squashes any number into (-1, 1), steepest around 0.
fn squash(x: f64) -> f32 {
    (x / (1.0 + x.abs())) as f32
}

impl Encoder {
    /// An encoder with empty buffers.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// Fills [`Encoder::candidates`] and [`Encoder::context`]; `votes` are what the guides would do, best guide first.
    pub fn encode(&mut self, observation: &Observation<'_>, votes: &[Vote]) {
        self.find_flows(observation);
        self.find_needs(observation);
        self.utilities.clear();
        self.utilities.extend(observation.candidates.iter().map(|c| expected_utility(observation, c)));
        self.bests.find(observation, &self.needs, &self.utilities);
        let mean_priority = mean(observation.requests.iter().map(|r| r.priority)).max(1e-9);
        let mean_unit = mean(self.needs.iter().map(|n| n.unit)).max(1.0);
        let scale = Scale { mean_priority, mean_unit };
        self.candidates.clear();
        self.candidates.resize(observation.candidates.len() * CANDIDATE_FEATURES, 0.0);
        let mut rows = std::mem::take(&mut self.candidates);
        for (i, row) in rows.chunks_exact_mut(CANDIDATE_FEATURES).enumerate() {
            match observation.candidates[i].action {
                Action::Launch { .. } => self.launch_row(observation, i, &scale, row),
                Action::Drop { request } => self.drop_row(observation, request as usize, &scale, row),
                Action::Wait => self.wait_row(observation, &scale, row),
            }
        }
        mark_votes(observation, votes, &mut rows);
        self.candidates = rows;
        self.fill_context(observation, &scale, votes);
    }

    fn find_flows(&mut self, observation: &Observation<'_>) {
        self.flows.clear();
        self.loads.clear();
        self.loads.resize(observation.processors.len(), 0.0);
        for (stream, view) in observation.case.streams.iter().zip(observation.streams) {
            let (work, home) = fastest(observation, stream);
            let load = work / stream.period.0 as f64;
            self.loads[home.0 as usize] += load;
            let next = match (stream.kind, view.last_arrival) {
                // Its requests follow another stream's answers.
                (ArrivalKind::Dependent, _) => f64::from(u32::MAX),
                (ArrivalKind::Periodic, Some(last)) => {
                    (last + stream.period).ms_after(observation.now).max(0.0) * 1e6
                }
                (ArrivalKind::Periodic, None) => {
                    (Time::ZERO + stream.offset).ms_after(observation.now).max(0.0) * 1e6
                }
                _ => stream.period.0 as f64,
            };
            let unit = (stream.deadline.0 as f64).max(1e4);
            self.flows.push(Flow { home, work, load, next, unit, priority: stream.priority });
        }
    }

    fn find_needs(&mut self, observation: &Observation<'_>) {
        self.needs.clear();
        self.wanted.clear();
        self.wanted.resize(observation.processors.len(), 0);
        for request in observation.requests {
            let (earliest, wants) = earliest_finish(observation, request);
            let rank = observation.requests.iter().filter(|o| o.deadline < request.deadline).count();
            self.wanted[wants.0 as usize] += 1;
            self.needs.push(Need {
                unit: self.flows[request.stream.0 as usize].unit,
                left: request.deadline.ms_after(observation.now) * 1e6,
                work: least_work(observation.case, request),
                earliest,
                wants,
                rank: rank as f64,
            });
        }
    }

    fn launch_row(&self, observation: &Observation<'_>, index: usize, scale: &Scale, row: &mut [f32]) {
        let candidate = &observation.candidates[index];
        let Action::Launch { request, variant, first, last, processor } = candidate.action else { return };
        let request = request as usize;
        let view = &observation.requests[request];
        let need = &self.needs[request];
        let table = observation.case.variant(variant);
        let on = &observation.processors[processor.0 as usize];
        let unit = need.unit;
        let finish = candidate.expected_ns + candidate.rest_ns;
        let utility = self.utilities[index];
        row[0] = 1.0;
        self.request_columns(observation, request, scale, row);
        row[5] = squash(candidate.expected_ns / unit);
        row[6] = squash(finish / unit);
        row[7] = squash(2.0 * (need.left - finish) / unit);
        row[8] = f32::from(need.left >= finish);
        row[9] = (need.earliest / finish.max(1.0)).min(1.0) as f32;
        let best = table.best_rest_ns(first) - table.best_rest_ns(last + 1);
        row[10] = (best / candidate.expected_ns.max(1.0)).min(1.0) as f32;
        row[12] = f32::from(last + 1 == table.segments);
        row[13] = f32::from(first) / f32::from(table.segments);
        row[14] = f32::from(last + 1 - first) / f32::from(table.segments);
        row[15] = table.relative_accuracy as f32;
        row[16] = (observation.case.objective().accuracy_weight * (1.0 - table.relative_accuracy)) as f32;
        let energy = observation.case.objective().energy_weight * candidate.energy_mj / 1e3;
        row[18] = squash(4.0 * energy / view.priority);
        row[19] = utility as f32;
        row[20] = squash(utility * unit / finish.max(1.0) / 4.0);
        row[24] = on.drift.ln() as f32;
        row[25] = squash(on.slowdown - 1.0);
        let mine = u32::from(need.wants == processor);
        row[26] = squash(f64::from(self.wanted[processor.0 as usize] - mine) / 2.0);
        row[28] = squash(candidate.expected_ns / scale.mean_unit);
        let (harm, lost) = self.harm(observation, request, processor, candidate.expected_ns, scale);
        row[29] = harm;
        row[30] = lost;
        row[32] = f32::from(view.location == Some(processor));
        row[33] = mine as f32;
        let (future, blocked) = self.future_harm(processor, candidate.expected_ns, scale);
        row[36] = future;
        row[37] = blocked;
        row[38] = squash(self.loads[processor.0 as usize]);
        row[39] = f32::from(self.flows[view.stream.0 as usize].home == processor);
        row[40] = accuracy_left(observation.case, view, table.accuracy);
        row[34] = ((candidate.expected_ns / 1e6).max(1e-3).log10() / 4.0) as f32;
        self.best_columns(request, candidate, utility, row);
    }

    /// How a launch compares with the best by several measures.
    fn best_columns(&self, request: usize, candidate: &Candidate, utility: f64, row: &mut [f32]) {
        let (best, need) = (&self.bests.of_request[request], &self.needs[request]);
        let finish = candidate.expected_ns + candidate.rest_ns;
        row[48] = nearness(best.finish, finish);
        row[49] = nearness(best.energy, candidate.energy_mj);
        row[50] = squash(4.0 * (utility - best.utility));
        row[51] = f32::from(need.left - need.earliest <= self.bests.margin);
        row[52] = f32::from(utility / finish.max(1.0) >= self.bests.rate);
        row[53] = f32::from(candidate.expected_ns <= self.bests.shortest);
        row[54] = f32::from(finish <= need.left && need.left <= self.bests.kept);
    }

    /// What the launch would do to the others that want the same processor: the least margin among them if they have to wait
    /// for it, and the (relative) priority of those that would then be late and now are not.
    fn harm(
        &self,
        observation: &Observation<'_>,
        me: usize,
        on: ProcessorId,
        for_ns: f64,
        scale: &Scale,
    ) -> (f32, f32) {
        let (mut least, mut lost) = (4.0_f64, 0.0);
        for (i, (need, view)) in self.needs.iter().zip(observation.requests).enumerate() {
            if i == me || need.wants != on {
                continue;
            }
            let now = need.left - need.earliest;
            least = least.min((now - for_ns) / need.unit);
            if now >= 0.0 && now < for_ns {
                lost += view.priority / scale.mean_priority;
            }
        }
        (squash(2.0 * least), squash(lost))
    }

    /// What the launch would do to requests that have not come yet and will run fastest on the same processor: the least margin among
    /// the next ones of each stream, and the (relative) priority of those that would be late because of it.
    fn future_harm(&self, on: ProcessorId, for_ns: f64, scale: &Scale) -> (f32, f32) {
        let (mut least, mut lost) = (4.0_f64, 0.0);
        for flow in self.flows.iter().filter(|f| f.home == on) {
            let margin = flow.next + flow.unit - flow.work - for_ns;
            least = least.min(margin / flow.unit);
            if margin < 0.0 && flow.next < for_ns {
                lost += flow.priority / scale.mean_priority;
            }
        }
        (squash(2.0 * least), squash(lost))
    }

    fn drop_row(&self, observation: &Observation<'_>, request: usize, scale: &Scale, row: &mut [f32]) {
        let need = &self.needs[request];
        row[1] = 1.0;
        self.request_columns(observation, request, scale, row);
        row[7] = squash(2.0 * (need.left - need.earliest) / need.unit);
        row[8] = f32::from(need.left >= need.earliest);
        row[19] = -observation.case.objective().drop_penalty as f32;
    }

    fn wait_row(&self, observation: &Observation<'_>, scale: &Scale, row: &mut [f32]) {
        let busy = observation.processors.iter().filter(|p| p.up && p.free == 0);
        let next_free = busy.map(|p| p.expected_free.since(observation.now).0).min();
        let least = self.needs.iter().map(|n| (n.left - n.earliest) / n.unit).fold(4.0, f64::min);
        let soonest = self.flows.iter().map(|f| f.next).fold(f64::INFINITY, f64::min);
        row[2] = 1.0;
        row[36] = squash(soonest / scale.mean_unit);
        row[5] = next_free.map_or(1.0, |ns| squash(ns as f64 / scale.mean_unit));
        row[7] = squash(2.0 * least);
        row[8] = f32::from(least >= 0.0);
        row[12] = f32::from(next_free.is_some());
        row[21] = squash(observation.requests.len() as f64 / 4.0);
        row[31] = idle_share(observation);
    }

    /// Columns that launch and drop candidates of one request have in common.
    fn request_columns(&self, observation: &Observation<'_>, request: usize, scale: &Scale, row: &mut [f32]) {
        let view = &observation.requests[request];
        let need = &self.needs[request];
        let stream = observation.case.stream(view.stream);
        row[3] = squash(2.0 * need.left / need.unit);
        row[4] = squash(need.work / need.unit);
        row[11] = squash(view.expires.ms_after(observation.now) * 1e6 / need.unit);
        row[17] = squash(view.priority / scale.mean_priority);
        row[21] = squash(f64::from(observation.streams[view.stream.0 as usize].waiting) / 4.0);
        row[22] = squash(need.work / stream.period.0 as f64);
        row[23] = view.failures as f32 / 3.0;
        row[27] = squash(stream.period.0 as f64 / scale.mean_unit);
        row[31] = idle_share(observation);
        row[35] = (need.rank / observation.requests.len() as f64) as f32;
        let flow = &self.flows[view.stream.0 as usize];
        row[41] = squash(flow.load);
        row[42] = observation.streams[view.stream.0 as usize].on_time_share as f32;
        row[43] = squash(flow.next / need.unit);
    }

    fn fill_context(&mut self, observation: &Observation<'_>, scale: &Scale, votes: &[Vote]) {
        let margins = || self.needs.iter().map(|n| (n.left - n.earliest) / n.unit);
        let objective = observation.case.objective();
        let waiting: u32 = observation.streams.iter().map(|s| s.waiting).sum();
        let running: u32 = observation.streams.iter().map(|s| s.running).sum();
        let up = observation.processors.iter().filter(|p| p.up).count();
        let joules = mean(observation.candidates.iter().map(|c| c.energy_mj)) / 1e3;
        self.context.clear();
        self.context.extend([
            squash(observation.requests.len() as f64 / 4.0),
            squash(f64::from(waiting) / 8.0),
            squash(f64::from(running) / 4.0),
            squash(up as f64 / 4.0),
            idle_share(observation),
            squash(2.0 * margins().fold(4.0, f64::min)),
            squash(2.0 * mean(margins())),
            objective.late_value as f32,
            squash(objective.drop_penalty),
            objective.accuracy_weight as f32,
            squash(4.0 * objective.energy_weight * joules / scale.mean_priority),
            squash(objective.late_ms * 1e6 / scale.mean_unit),
            squash(self.flows.iter().map(|f| f.load).sum::<f64>() / up.max(1) as f64),
            squash(self.loads.iter().copied().fold(0.0, f64::max)),
            squash(objective.fairness_weight),
            mean(observation.streams.iter().map(|s| s.on_time_share)) as f32,
            squash(objective.fail_penalty),
            squash(mean(self.flows.iter().map(|f| f.next / f.unit))),
            votes.len() as f32 / GUIDES as f32,
            votes.first().map_or(0.0, |v| v.score),
            votes.get(1).map_or(0.0, |v| squash(20.0 * f64::from(votes[0].score - v.score))),
            f32::from(votes.windows(2).all(|v| v[0].choice == v[1].choice)),
            objective.continuity_weight as f32,
        ]);
        debug_assert_eq!(self.context.len(), CONTEXT_FEATURES);
    }
}

/// Units shared by all rows of one observation.
struct Scale {
    mean_priority: f64,
    /// Mean of deadline minus arrival, nanoseconds.
    mean_unit: f64,
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0), |(s, n), v| (s + v, n + 1));
    if n == 0 { 0.0 } else { sum / f64::from(n) }
}

fn idle_share(observation: &Observation<'_>) -> f32 {
    let idle = observation.processors.iter().filter(|p| p.up && p.free > 0).count();
    idle as f32 / observation.processors.len() as f32
}

/// Marks what the guides would do: their choices, and what belongs to the request or the processor of the first one's.
fn mark_votes(observation: &Observation<'_>, votes: &[Vote], rows: &mut [f32]) {
    for (vote, column) in votes.iter().zip(FIRST_VOTE..) {
        rows[vote.choice * CANDIDATE_FEATURES + column] = 1.0;
    }
    let Some(first) = votes.first().map(|v| observation.candidates[v.choice].action) else { return };
    for (candidate, row) in observation.candidates.iter().zip(rows.chunks_exact_mut(CANDIDATE_FEATURES)) {
        row[46] = f32::from(request_of(first).is_some() && request_of(first) == request_of(candidate.action));
        row[47] =
            f32::from(processor_of(first).is_some() && processor_of(first) == processor_of(candidate.action));
    }
}

fn request_of(action: Action) -> Option<u16> {
    match action {
        Action::Launch { request, .. } | Action::Drop { request } => Some(request),
        Action::Wait => None,
    }
}

fn processor_of(action: Action) -> Option<ProcessorId> {
    match action {
        Action::Launch { processor, .. } => Some(processor),
        Action::Drop { .. } | Action::Wait => None,
    }
}

/// Utility per priority if the request of a launch is answered as early as this launch allows; 0 for other candidates.
pub(crate) fn expected_utility(o: &Observation<'_>, candidate: &Candidate) -> f64 {
    let Action::Launch { request, variant, .. } = candidate.action else { return 0.0 };
    let request = &o.requests[request as usize];
    let lateness_ms = (o.earliest_answer_ns(candidate) - request.deadline.0 as f64) / 1e6;
    let relative_accuracy = o.case.variant(variant).relative_accuracy;
    let result = objective::Result::Answer { lateness_ms, relative_accuracy };
    let share = o.streams[request.stream.0 as usize].on_time_share;
    let service = objective::Service { share, gap: 0.0 };
    o.case.objective().utility(result, request.priority, candidate.energy_mj, service) / request.priority
}
