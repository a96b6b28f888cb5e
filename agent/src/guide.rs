//! Guides: policies that a network hears before it decides. They are the best few for a case, found by whoever knows policies; to
//! the network their choices are features like any other, and it follows them or not. This file refuses to know which policies there are.

use cosched_env::case::Case;
use cosched_env::observation::Observation;
use cosched_env::world::Policy;

/// Most guides that are heard.
pub const GUIDES: usize = 2;

/// By how much a candidate's logit may have to exceed that of the first guide's choice. Which of them is found out by a trial: a network
/// is not equally good everywhere, and infinity, the guide alone, is there for a case that it has no feeling for.
pub const MARGINS: [f32; 4] = [f32::INFINITY, 3.0, 1.0, 0.0];

/// What is done of the `best` by the logits and what the guides would do: the first guide's choice, unless the best one's logit exceeds that by
/// more than `margin`. All are indices into the logits.
pub fn heed(logits: &[f32], best: usize, votes: &[Vote], margin: f32) -> usize {
    match votes.first() {
        Some(vote) if logits[best] - logits[vote.choice] <= margin => vote.choice,
        _ => best,
    }
}

/// What one guide would do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vote {
    /// Index of the candidate.
    pub choice: usize,
    /// What the guide earned on the case when it was chosen: mean utility of a request by mean priority, so that 1 is all on time.
    pub score: f32,
}

/// The guides of one run, best first; none is allowed.
#[derive(Default)]
pub struct Guides {
    members: Vec<(Box<dyn Policy>, f32)>,
    votes: Vec<Vote>,
}

impl Guides {
    /// Policies with their scores (see [`Vote::score`]), best first; those beyond [`GUIDES`] are not heard.
    pub fn new(members: Vec<(Box<dyn Policy>, f32)>) -> Guides {
        Guides { votes: Vec::with_capacity(GUIDES), members: members.into_iter().take(GUIDES).collect() }
    }

    /// Asks each of them; to be called once a decision, for guides may remember what they saw.
    pub fn vote(&mut self, observation: &Observation<'_>) -> &[Vote] {
        self.votes.clear();
        for (policy, score) in &mut self.members {
            self.votes.push(Vote { choice: policy.decide(observation).0, score: *score });
        }
        &self.votes
    }

    /// The best of them.
    pub fn into_first(self) -> Option<Box<dyn Policy>> {
        self.members.into_iter().next().map(|(policy, _)| policy)
    }

    /// The votes of the last decision.
    pub fn votes(&self) -> &[Vote] {
        &self.votes
    }
}

/// Makes the guides of a case anew for each run.
pub type Squad = Box<dyn Fn(&Case) -> Guides + Send>;

/// Finds the guides of a case.
pub type Scout = dyn Fn(&Case) -> Squad + Sync;

/// No guides at all.
pub fn alone(_: &Case) -> Squad {
    Box::new(|_| Guides::default())
}
