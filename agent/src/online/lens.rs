//! What a decision sees of a device that is no longer as its plan says: the same observation with the profile as it is observed, in place of
//! the plan and of the drift that makes up for it. Drift knows of one processor only what its last launches took, forgets it within a
//! second, and says nothing of the segments that a launch leaves to later ones; the profile does.
//! It refuses to change what may be chosen: candidates stay in their places.

use cosched_env::case::Case;
use cosched_env::observation::{Action, Candidate, Observation, ProcessorView};
use std::sync::Arc;

/// See the module's text.
pub struct Lens {
    /// The case as it is observed to be.
    real: Arc<Case>,
    candidates: Vec<Candidate>,
    processors: Vec<ProcessorView>,
}

impl Lens {
    /// On a case with the processors, variants, segments and streams of the one that the decision core knows.
    pub fn new(real: Arc<Case>) -> Lens {
        Lens { real, candidates: Vec::new(), processors: Vec::new() }
    }

    /// The case that decisions see through it.
    pub fn case(&self) -> &Case {
        &self.real
    }

    /// What a decision sees. It allocates only while its buffers grow.
    pub fn look<'a>(&'a mut self, observation: &Observation<'a>) -> Observation<'a> {
        self.processors.clear();
        self.processors.extend(observation.processors.iter().map(|p| ProcessorView { drift: 1.0, ..*p }));
        self.candidates.clear();
        for candidate in observation.candidates {
            self.candidates.push(corrected(observation, candidate, &self.real));
        }
        let mut seen = *observation;
        (seen.case, seen.processors, seen.candidates) = (&self.real, &self.processors, &self.candidates);
        seen
    }
}

fn corrected(observation: &Observation<'_>, candidate: &Candidate, real: &Case) -> Candidate {
    let Action::Launch { variant, first, last, processor, .. } = candidate.action else { return *candidate };
    let (known, now) = (observation.case.variant(variant), real.variant(variant));
    let planned = known.latency_ns(processor, first, last);
    let factor = if planned > 0.0 { now.latency_ns(processor, first, last) / planned } else { 1.0 };
    Candidate {
        expected_ns: candidate.expected_ns / observation.processors[processor.0 as usize].drift * factor,
        energy_mj: now.energy_mj(processor, first, last),
        rest_ns: now.best_rest_ns(last + 1),
        handover_ns: now.handover_ns(processor, last + 1),
        ..*candidate
    }
}
