//! Turns an observation into numbers: one row per candidate and one row for the whole. All are relative (to the request's
//! deadline, to the best processor, to the mean priority), so that one network serves devices and scenarios it never saw.
//! It refuses to look at anything but the observation.

mod bests;
mod outlook;
mod rows;
#[cfg(test)]
mod tests;

use crate::guide::{GUIDES, Vote};
use bests::Bests;
use cosched_env::objective;
use cosched_env::observation::{Action, Candidate, Observation};
use cosched_env::scenario::ArrivalKind;
use cosched_env::time::Time;
use outlook::{Flow, Need, OnProcessor, best_accuracy, earliest_finish, fastest, least_work};
use rows::{Row, Rows, Scale, mark_votes, squash_columns};

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
    flows: Vec<Flow>,
    processors: Vec<OnProcessor>,
    /// Per request: the columns that its candidates have in common.
    of_requests: Vec<Row>,
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
        let utilities = observation.candidates.iter().map(|c| expected_utility(observation, c));
        self.encode_known(observation, votes, utilities);
    }

    /// The same where the expected utilities of the candidates are known already.
    pub(crate) fn encode_known(
        &mut self,
        observation: &Observation<'_>,
        votes: &[Vote],
        utilities: impl Iterator<Item = f64>,
    ) {
        self.utilities.clear();
        self.utilities.extend(utilities);
        self.find_flows(observation);
        self.find_needs(observation);
        self.bests.find(observation, &self.needs, &self.utilities);
        let scale = Scale {
            mean_priority: mean(observation.requests.iter().map(|r| r.priority)).max(1e-9),
            mean_unit: mean(self.needs.iter().map(|n| n.unit)).max(1.0),
            idle: idle_share(observation),
        };
        let rows = Rows {
            observation,
            scale,
            needs: &self.needs,
            flows: &self.flows,
            processors: &self.processors,
            utilities: &self.utilities,
            bests: &self.bests,
        };
        self.of_requests.clear();
        self.of_requests.extend((0..observation.requests.len()).map(|r| rows.of_request(r)));
        self.candidates.resize(observation.candidates.len() * CANDIDATE_FEATURES, 0.0);
        for (i, row) in self.candidates.as_chunks_mut().0.iter_mut().enumerate() {
            rows.fill(i, &self.of_requests, row);
        }
        let scale = rows.scale;
        squash_columns(&mut self.candidates);
        mark_votes(observation, votes, &mut self.candidates);
        self.fill_context(observation, &scale, votes);
    }

    fn find_flows(&mut self, observation: &Observation<'_>) {
        self.flows.clear();
        self.processors.clear();
        self.processors.extend(observation.processors.iter().map(OnProcessor::of));
        for (stream, view) in observation.case.streams.iter().zip(observation.streams) {
            let (work, home) = fastest(observation, stream);
            let load = work / stream.period.0 as f64;
            self.processors[home.0 as usize].load += load;
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
            let (per_unit, priority) = (1.0 / unit, stream.priority);
            self.flows.push(Flow { home, work, load, next, unit, per_unit, priority });
        }
    }

    fn find_needs(&mut self, observation: &Observation<'_>) {
        self.needs.clear();
        for request in observation.requests {
            let (earliest, wants) = earliest_finish(observation, request);
            let rank = observation.requests.iter().filter(|o| o.deadline < request.deadline).count();
            self.processors[wants.0 as usize].wanted += 1;
            let flow = &self.flows[request.stream.0 as usize];
            self.needs.push(Need {
                unit: flow.unit,
                per_unit: flow.per_unit,
                left: request.deadline.ms_after(observation.now) * 1e6,
                work: least_work(observation.case, request),
                earliest,
                wants,
                rank: rank as f64,
                best_accuracy: best_accuracy(observation.case, request),
                accuracy_unit: observation.case.tasks[request.task.0 as usize].best_accuracy,
            });
        }
    }

    fn fill_context(&mut self, observation: &Observation<'_>, scale: &Scale, votes: &[Vote]) {
        let margins = || self.needs.iter().map(|n| (n.left - n.earliest) * n.per_unit);
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
            scale.idle,
            squash(2.0 * margins().fold(4.0, f64::min)),
            squash(2.0 * mean(margins())),
            objective.late_value as f32,
            squash(objective.drop_penalty),
            objective.accuracy_weight as f32,
            squash(4.0 * objective.energy_weight * joules / scale.mean_priority),
            squash(objective.late_ms * 1e6 / scale.mean_unit),
            squash(self.flows.iter().map(|f| f.load).sum::<f64>() / up.max(1) as f64),
            squash(self.processors.iter().map(|p| p.load).fold(0.0, f64::max)),
            squash(objective.fairness_weight),
            mean(observation.streams.iter().map(|s| s.on_time_share)) as f32,
            squash(objective.fail_penalty),
            squash(mean(self.flows.iter().map(|f| f.next * f.per_unit))),
            votes.len() as f32 / GUIDES as f32,
            votes.first().map_or(0.0, |v| v.score),
            votes.get(1).map_or(0.0, |v| squash(20.0 * f64::from(votes[0].score - v.score))),
            f32::from(votes.windows(2).all(|v| v[0].choice == v[1].choice)),
            objective.continuity_weight as f32,
        ]);
        debug_assert_eq!(self.context.len(), CONTEXT_FEATURES);
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0), |(s, n), v| (s + v, n + 1));
    if n == 0 { 0.0 } else { sum / f64::from(n) }
}

fn idle_share(observation: &Observation<'_>) -> f32 {
    let idle = observation.processors.iter().filter(|p| p.up && p.free > 0).count();
    idle as f32 / observation.processors.len() as f32
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
