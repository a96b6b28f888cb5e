//! What is best among the candidates of one decision, by several measures: a network that scores candidates one by one cannot find
//! that out by itself. It refuses to choose.

use super::outlook::Need;
use cosched_env::observation::{Action, Observation};

/// The best among the launches of one request.
#[derive(Clone, Copy)]
pub(super) struct OfRequest {
    /// Least nanoseconds until the answer.
    pub finish: f64,
    /// Least millijoules.
    pub energy: f64,
    /// Most expected utility by priority.
    pub utility: f64,
}

/// What is best among all launches.
#[derive(Default)]
pub(super) struct Bests {
    pub of_request: Vec<OfRequest>,
    /// Least nanoseconds of a launch.
    pub shortest: f64,
    /// Most expected utility by nanosecond.
    pub rate: f64,
    /// Earliest deadline (nanoseconds from now) that a launch still keeps.
    pub kept: f64,
    /// Least margin of a request.
    pub margin: f64,
}

impl Bests {
    /// Looks at all candidates; `utilities` are theirs, by priority.
    pub(super) fn find(&mut self, observation: &Observation<'_>, needs: &[Need], utilities: &[f64]) {
        let none = OfRequest { finish: f64::INFINITY, energy: f64::INFINITY, utility: f64::NEG_INFINITY };
        self.of_request.clear();
        self.of_request.resize(needs.len(), none);
        self.shortest = f64::INFINITY;
        self.rate = f64::NEG_INFINITY;
        self.kept = f64::INFINITY;
        self.margin = needs.iter().map(|n| n.left - n.earliest).fold(f64::INFINITY, f64::min);
        for (candidate, &utility) in observation.candidates.iter().zip(utilities) {
            let Action::Launch { request, .. } = candidate.action else { continue };
            let best = &mut self.of_request[request as usize];
            let left = needs[request as usize].left;
            let finish = candidate.expected_ns + candidate.rest_ns;
            best.finish = best.finish.min(finish);
            best.energy = best.energy.min(candidate.energy_mj);
            best.utility = best.utility.max(utility);
            self.shortest = self.shortest.min(candidate.expected_ns);
            self.rate = self.rate.max(utility / finish.max(1.0));
            if finish <= left {
                self.kept = self.kept.min(left);
            }
        }
    }
}

/// How near a least value comes to this one, 0 to 1.
pub(super) fn nearness(least: f64, value: f64) -> f32 {
    if value <= 0.0 { 1.0 } else { (least / value).clamp(0.0, 1.0) as f32 }
}
