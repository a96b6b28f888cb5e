//! The baselines of online learning: the tournament on the device as it is observed to be. It refuses to learn; `agent::online` does.

use crate::tournament::{Budget, Standing, finalists};
use cosched_agent::online::{Arena, Rival};

/// A tournament short enough to be held again and again beside a live run.
pub const LIVE: Budget = Budget { runs: 3, requests: 400.0, placement_runs: 200, attempts: 1 };

/// Where the policies of the table play against each other; the best few are given.
pub fn arena(budget: Budget) -> Arena {
    Box::new(move |real| {
        let rival = |standing: Standing| Rival {
            name: standing.name.to_owned(),
            score: standing.score,
            make: Box::new(move |case| standing.policy(case)),
        };
        finalists(real, &budget).into_iter().map(rival).collect()
    })
}
