//! The baselines of online learning: the tournament on the device as it is observed to be. It refuses to learn; `agent::online` does.

use crate::tournament::{Budget, Standing, finalists};
use cosched_agent::online::{Arena, Rival};
use std::sync::{Mutex, PoisonError};

/// A tournament short enough to be held again and again beside a live run.
pub const LIVE: Budget = Budget { runs: 3, requests: 400.0, placement_runs: 200, attempts: 1 };

/// So many earlier winners play again: those of the last three tournaments.
const VETERANS: usize = 3 * cosched_agent::guide::GUIDES;

/// Where the policies of the table play against each other, the `first` time and `then`; the best few are given. What won before plays again: a
/// search is a matter of luck, and what was found on the device as it was may be better than anything that a short search finds
/// on the device as it is.
pub fn arena(first: Budget, then: Budget) -> Arena {
    let veterans = Mutex::new((first, Vec::<Standing>::new()));
    Box::new(move |real| {
        let mut veterans = veterans.lock().unwrap_or_else(PoisonError::into_inner);
        let (budget, known) = &mut *veterans;
        let best = finalists(real, budget, known);
        *budget = then;
        known.retain(|old| !best.iter().any(|new| new.same_as(old)));
        known.splice(0..0, best.iter().cloned());
        known.truncate(VETERANS);
        let rival = |standing: Standing| Rival {
            name: standing.name.to_owned(),
            score: standing.score,
            make: Box::new(move |case| standing.policy(case)),
        };
        best.into_iter().map(rival).collect()
    })
}
