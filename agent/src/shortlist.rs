//! What the network looks at. Its time grows with the candidates, and where there are many most of them are such as nobody would take:
//! kept are what the guides would do, waiting, for each request the launches of the highest expected utility and of the highest per
//! nanosecond, and giving up what can no longer be on time. It refuses to rank what it keeps; that is the network's work.

use crate::features::{Encoder, expected_utility};
use crate::guide::Vote;
use cosched_env::observation::{Action, Candidate, Observation};

/// Up to so many candidates are all looked at.
pub const SHORTLIST: usize = 12;

/// The candidates of an observation that are looked at, as numbers. Reused from decision to decision.
#[derive(Default)]
pub struct Shortlist {
    /// The numbers: one row per candidate that is looked at.
    pub encoder: Encoder,
    /// What the guides would do, as rows.
    pub votes: Vec<Vote>,
    /// Per row: index of its candidate in the observation.
    pub kept: Vec<usize>,
    candidates: Vec<Candidate>,
    /// Per candidate of the observation: expected utility by priority.
    utilities: Vec<f64>,
    open: Vec<Launch>,
}

/// A launch of the request that is gone through.
struct Launch {
    index: usize,
    utility: f64,
    utility_per_ns: f64,
}

impl Shortlist {
    /// Chooses what to look at and encodes it; `votes` are what the guides would do, best guide first.
    pub fn look(&mut self, observation: &Observation<'_>, votes: &[Vote]) {
        self.kept.clear();
        self.votes.clear();
        if observation.candidates.len() <= SHORTLIST {
            self.kept.extend(0..observation.candidates.len());
            self.votes.extend_from_slice(votes);
            return self.encoder.encode(observation, votes);
        }
        self.choose(observation, votes);
        self.candidates.clear();
        self.candidates.extend(self.kept.iter().map(|&i| observation.candidates[i]));
        let row = |choice| self.kept.binary_search(&choice).expect("votes are kept");
        self.votes.extend(votes.iter().map(|v| Vote { choice: row(v.choice), ..*v }));
        let narrowed = observation.narrowed(observation.case, observation.requests, &self.candidates);
        let utilities = self.kept.iter().map(|&i| self.utilities[i]);
        self.encoder.encode_known(&narrowed, &self.votes, utilities);
    }

    fn choose(&mut self, observation: &Observation<'_>, votes: &[Vote]) {
        self.utilities.clear();
        self.utilities.extend(observation.candidates.iter().map(|c| expected_utility(observation, c)));
        let requests = observation.requests.len().max(1);
        let quota = (SHORTLIST / requests).max(1);
        // Launches stand in order of requests, then drops, then waiting.
        let mut candidates = observation.candidates.iter().enumerate().peekable();
        self.kept.extend(votes.iter().map(|v| v.choice));
        for (request, view) in observation.requests.iter().enumerate() {
            let is_its = |c: &Candidate| matches!(c.action, Action::Launch { request: r, .. } if usize::from(r) == request);
            let mut in_time = false;
            self.open.clear();
            while let Some((index, candidate)) = candidates.next_if(|(_, c)| is_its(c)) {
                let utility = self.utilities[index];
                in_time |= observation.earliest_answer_ns(candidate) <= view.deadline.0 as f64;
                let utility_per_ns = utility / candidate.expected_ns.max(1.0);
                self.open.push(Launch { index, utility, utility_per_ns });
            }
            if !in_time {
                let drop = Action::Drop { request: request as u16 };
                self.kept.extend(observation.candidates.iter().rposition(|c| c.action == drop));
            }
            self.take(quota);
        }
        self.kept.push(observation.candidates.len() - 1);
        self.kept.sort_unstable();
        self.kept.dedup();
    }

    /// Takes so many of the open launches, by one measure and the other in turn; of equals the last.
    fn take(&mut self, quota: usize) {
        for turn in 0..quota {
            let value = |l: &Launch| if turn % 2 == 0 { l.utility } else { l.utility_per_ns };
            let values = self.open.iter().map(value).enumerate();
            let Some((best, _)) = values.max_by(|a, b| a.1.total_cmp(&b.1)) else { return };
            self.kept.push(self.open.swap_remove(best).index);
        }
    }
}
