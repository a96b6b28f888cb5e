//! What `run` and `serve` are told of online learning. It refuses what cannot be before anything costly is done.

use super::{Outcome, usage};
use cosched::online::{LEARNS, NO_LEARNER, Options, can_learn};
use std::path::PathBuf;

/// Arguments.
#[derive(clap::Args)]
// A group of clap's is called after its type, and the commands that take these have an `Args` of their own.
#[group(skip)]
pub struct Args {
    /// Learn from the run while it goes on; only for the policy learned. What was learned is forgotten unless --learn-state says where to keep it.
    #[arg(long)]
    online: bool,
    /// Keep what online learning learned in this file, and go on from it when it is there.
    #[arg(long, value_name = "FILE", requires = "online")]
    learn_state: Option<PathBuf>,
    /// Minutes after which that file is written again while the run goes on; it is also written at the end.
    #[arg(
        long,
        value_name = "MINUTES",
        default_value_t = 5.0,
        requires = "learn_state",
        allow_negative_numbers = true
    )]
    learn_minutes: f64,
}

impl Args {
    /// Checks them for a run under `policy`.
    pub fn check(&self, policy: &str) -> Outcome {
        if !(self.learn_minutes > 0.0 && self.learn_minutes <= 1e6) {
            return Err(usage("--learn-minutes: expected a number above 0 and at most 1000000"));
        }
        if self.online && !can_learn() {
            return Err(usage(NO_LEARNER));
        }
        if self.online && policy.split(':').next() != Some(LEARNS) {
            return Err(usage(format!("--online: only the policy `{LEARNS}` learns, got `{policy}`")));
        }
        Ok(())
    }

    /// How to learn; `None`: not at all.
    pub fn options(&self) -> Option<Options> {
        let (state, save_minutes) = (self.learn_state.clone(), self.learn_minutes);
        self.online.then(|| Options { state, save_minutes, ..Options::default() })
    }
}
