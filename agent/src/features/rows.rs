//! The rows of candidates, as raw numbers: [`squash_columns`] brings those without bounds into (-1, 1), many at once. What all
//! candidates of a request or of a processor have in common is worked out once. It refuses to look at the observation as a whole.

use super::bests::{Bests, nearness};
use super::outlook::{Flow, Need, OnProcessor};
use super::{CANDIDATE_FEATURES, FIRST_VOTE};
use crate::guide::Vote;
use cosched_env::case::ProcessorId;
use cosched_env::observation::{Action, Candidate, Observation};

/// The numbers of one candidate.
pub(super) type Row = [f32; CANDIDATE_FEATURES];

/// 1 for each column without bounds, 0 for the others.
const SQUASHED: Row = {
    let columns = [3, 4, 5, 6, 7, 11, 17, 18, 20, 21, 22, 25, 26, 27, 28, 29, 30, 36, 37, 38, 41, 43, 50];
    let mut row = [0.0; CANDIDATE_FEATURES];
    let mut i = 0;
    while i < columns.len() {
        row[columns[i]] = 1.0;
        i += 1;
    }
    row
};

/// A number without bounds that is as good as infinite: it becomes 1.
const ENDLESS: f32 = 1e30;

/// Squashes the columns without bounds, as [`super::squash`] does.
pub(super) fn squash_columns(rows: &mut [f32]) {
    for row in rows.as_chunks_mut::<CANDIDATE_FEATURES>().0 {
        for (x, squashed) in row.iter_mut().zip(&SQUASHED) {
            *x /= 1.0 + squashed * x.abs();
        }
    }
}

/// Units shared by all rows of one observation, and what is the same in all.
pub(super) struct Scale {
    pub mean_priority: f64,
    /// Mean of deadline minus arrival, nanoseconds.
    pub mean_unit: f64,
    /// Share of the processors that could take a launch.
    pub idle: f32,
}

/// What rows are made of.
pub(super) struct Rows<'a, 'b> {
    pub observation: &'a Observation<'b>,
    pub scale: Scale,
    pub needs: &'a [Need],
    pub flows: &'a [Flow],
    pub processors: &'a [OnProcessor],
    pub utilities: &'a [f64],
    pub bests: &'a Bests,
}

impl Rows<'_, '_> {
    /// The row of candidate `index`; `requests` holds the columns of each request.
    pub(super) fn fill(&self, index: usize, requests: &[Row], row: &mut Row) {
        let candidate = &self.observation.candidates[index];
        match candidate.action {
            Action::Launch { request, .. } => {
                *row = requests[request as usize];
                self.launch(candidate, self.utilities[index], row);
            }
            Action::Drop { request } => {
                *row = requests[request as usize];
                self.drop(request as usize, row);
            }
            Action::Wait => self.wait(row),
        }
    }

    fn launch(&self, candidate: &Candidate, utility: f64, row: &mut Row) {
        let Action::Launch { request, variant, first, last, processor } = candidate.action else { return };
        let observation = self.observation;
        let view = &observation.requests[request as usize];
        let need = &self.needs[request as usize];
        let table = observation.case.variant(variant);
        let on = &self.processors[processor.0 as usize];
        let objective = observation.case.objective();
        let expected = candidate.expected_ns;
        let finish = expected + candidate.rest_ns;
        row[0] = 1.0;
        row[5] = (expected * need.per_unit) as f32;
        row[6] = (finish * need.per_unit) as f32;
        row[7] = (2.0 * (need.left - finish) * need.per_unit) as f32;
        row[8] = f32::from(need.left >= finish);
        row[9] = (need.earliest / finish.max(1.0)).min(1.0) as f32;
        let best = table.best_rest_ns(first) - table.best_rest_ns(last + 1);
        row[10] = (best / expected.max(1.0)).min(1.0) as f32;
        row[12] = f32::from(last + 1 == table.segments);
        row[13] = f32::from(first) / f32::from(table.segments);
        row[14] = f32::from(last + 1 - first) / f32::from(table.segments);
        row[15] = table.relative_accuracy as f32;
        row[16] = (objective.accuracy_weight * (1.0 - table.relative_accuracy)) as f32;
        row[18] = (4e-3 * objective.energy_weight * candidate.energy_mj / view.priority) as f32;
        row[19] = utility as f32;
        row[20] = (utility * need.unit / finish.max(1.0) / 4.0) as f32;
        row[24] = on.log_drift;
        row[25] = on.slowdown;
        let mine = u32::from(need.wants == processor);
        row[26] = (on.wanted - mine) as f32 / 2.0;
        row[28] = (expected / self.scale.mean_unit) as f32;
        (row[29], row[30]) = self.harm(request as usize, processor, expected);
        row[32] = f32::from(view.location == Some(processor));
        row[33] = mine as f32;
        row[34] = ((expected / 1e6).max(1e-3) as f32).log10() / 4.0;
        (row[36], row[37]) = self.future_harm(processor, expected);
        row[38] = on.load as f32;
        row[39] = f32::from(self.flows[view.stream.0 as usize].home == processor);
        row[40] = ((need.best_accuracy - table.accuracy).max(0.0) / need.accuracy_unit) as f32;
        self.best_columns(request as usize, candidate, utility, row);
    }

    /// How a launch compares with the best by several measures.
    fn best_columns(&self, request: usize, candidate: &Candidate, utility: f64, row: &mut Row) {
        let (best, need) = (&self.bests.of_request[request], &self.needs[request]);
        let finish = candidate.expected_ns + candidate.rest_ns;
        row[48] = nearness(best.finish, finish);
        row[49] = nearness(best.energy, candidate.energy_mj);
        row[50] = (4.0 * (utility - best.utility)) as f32;
        row[51] = f32::from(need.left - need.earliest <= self.bests.margin);
        row[52] = f32::from(utility / finish.max(1.0) >= self.bests.rate);
        row[53] = f32::from(candidate.expected_ns <= self.bests.shortest);
        row[54] = f32::from(finish <= need.left && need.left <= self.bests.kept);
    }

    /// What a launch would do to the others that want the same processor: the least margin among them if they have to wait
    /// for it, and the (relative) priority of those that would then be late and now are not.
    fn harm(&self, me: usize, on: ProcessorId, for_ns: f64) -> (f32, f32) {
        let (mut least, mut lost) = (4.0_f64, 0.0);
        for (i, (need, view)) in self.needs.iter().zip(self.observation.requests).enumerate() {
            if i == me || need.wants != on {
                continue;
            }
            let now = need.left - need.earliest;
            least = least.min((now - for_ns) * need.per_unit);
            if now >= 0.0 && now < for_ns {
                lost += view.priority / self.scale.mean_priority;
            }
        }
        ((2.0 * least) as f32, lost as f32)
    }

    /// What a launch would do to requests that have not come yet and will run fastest on the same processor: the least margin among
    /// the next ones of each stream, and the (relative) priority of those that would be late because of it.
    fn future_harm(&self, on: ProcessorId, for_ns: f64) -> (f32, f32) {
        let (mut least, mut lost) = (4.0_f64, 0.0);
        for flow in self.flows.iter().filter(|f| f.home == on) {
            let margin = flow.next + flow.unit - flow.work - for_ns;
            least = least.min(margin * flow.per_unit);
            if margin < 0.0 && flow.next < for_ns {
                lost += flow.priority / self.scale.mean_priority;
            }
        }
        ((2.0 * least) as f32, lost as f32)
    }

    fn drop(&self, request: usize, row: &mut Row) {
        let need = &self.needs[request];
        row[1] = 1.0;
        row[7] = (2.0 * (need.left - need.earliest) * need.per_unit) as f32;
        row[8] = f32::from(need.left >= need.earliest);
        row[19] = -self.observation.case.objective().drop_penalty as f32;
    }

    fn wait(&self, row: &mut Row) {
        let observation = self.observation;
        let busy = observation.processors.iter().filter(|p| p.up && p.free == 0);
        let next_free = busy.map(|p| p.expected_free.since(observation.now).0).min();
        let least = self.needs.iter().map(|n| (n.left - n.earliest) * n.per_unit).fold(4.0, f64::min);
        let soonest = self.flows.iter().map(|f| f.next).fold(f64::INFINITY, f64::min);
        *row = [0.0; CANDIDATE_FEATURES];
        row[2] = 1.0;
        row[5] = next_free.map_or(ENDLESS, |ns| (ns as f64 / self.scale.mean_unit) as f32);
        row[7] = (2.0 * least) as f32;
        row[8] = f32::from(least >= 0.0);
        row[12] = f32::from(next_free.is_some());
        row[21] = observation.requests.len() as f32 / 4.0;
        row[31] = self.scale.idle;
        row[36] = (soonest / self.scale.mean_unit) as f32;
    }

    /// Columns that launch and drop candidates of one request have in common.
    pub(super) fn of_request(&self, request: usize) -> Row {
        let observation = self.observation;
        let view = &observation.requests[request];
        let (need, stream) = (&self.needs[request], observation.case.stream(view.stream));
        let (flow, seen) =
            (&self.flows[view.stream.0 as usize], &observation.streams[view.stream.0 as usize]);
        let mut row = [0.0; CANDIDATE_FEATURES];
        row[3] = (2.0 * need.left * need.per_unit) as f32;
        row[4] = (need.work * need.per_unit) as f32;
        row[11] = (view.expires.ms_after(observation.now) * 1e6 * need.per_unit) as f32;
        row[17] = (view.priority / self.scale.mean_priority) as f32;
        row[21] = seen.waiting as f32 / 4.0;
        row[22] = (need.work / stream.period.0 as f64) as f32;
        row[23] = view.failures as f32 / 3.0;
        row[27] = (stream.period.0 as f64 / self.scale.mean_unit) as f32;
        row[31] = self.scale.idle;
        row[35] = (need.rank / observation.requests.len() as f64) as f32;
        row[41] = flow.load as f32;
        row[42] = seen.on_time_share as f32;
        row[43] = (flow.next * need.per_unit) as f32;
        row
    }
}

/// Marks what the guides would do: their choices, and what belongs to the request or the processor of the first one's.
pub(super) fn mark_votes(observation: &Observation<'_>, votes: &[Vote], rows: &mut [f32]) {
    for (vote, column) in votes.iter().zip(FIRST_VOTE..) {
        rows[vote.choice * CANDIDATE_FEATURES + column] = 1.0;
    }
    let Some(first) = votes.first().map(|v| observation.candidates[v.choice].action) else { return };
    let (request, processor) = (request_of(first), processor_of(first));
    for (candidate, row) in observation.candidates.iter().zip(rows.chunks_exact_mut(CANDIDATE_FEATURES)) {
        row[46] = f32::from(request.is_some() && request == request_of(candidate.action));
        row[47] = f32::from(processor.is_some() && processor == processor_of(candidate.action));
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
