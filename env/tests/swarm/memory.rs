//! Loaded weights by a slow model of its own: for each processor the list of what was used, by name, oldest first.
//! It refuses to share code with the scheduler's.

use crate::common::Item;
use crate::ledger::ensure;
use crate::world::Run;
use cosched_env::case::Case;
use cosched_env::event::{Event, Launch};
use std::collections::BTreeMap;

/// One processor's memory.
#[derive(Default)]
struct Shelf {
    /// (name of the weights, bytes), what was used longest ago first.
    loaded: Vec<(String, u64)>,
    /// What runs: launch -> name of its weights.
    running: BTreeMap<u64, String>,
}

/// Variants that name the same weights share them; others have their own.
fn weights(case: &Case, launch: &Launch) -> (String, u64) {
    let variant = &case.plan.variants[launch.variant.0 as usize];
    let own = format!("own {}", launch.variant.0);
    let name = variant.weights.as_ref().map_or(own, |w| format!("shared {w}"));
    (name, variant.memory_bytes)
}

impl Shelf {
    fn sum(&self) -> u64 {
        self.loaded.iter().map(|l| l.1).sum()
    }

    /// The bytes that had to be loaded.
    fn use_for(&mut self, id: u64, (name, bytes): (String, u64), capacity: u64) -> Result<u64, String> {
        let before = self.loaded.iter().position(|l| l.0 == name).map_or(0, |i| self.loaded.remove(i).1);
        self.running.insert(id, name.clone());
        self.loaded.push((name, bytes.max(before)));
        while self.sum() > capacity {
            let idle = self.loaded.iter().position(|l| !self.running.values().any(|r| *r == l.0));
            let Some(idle) = idle else {
                return Err(format!("what runs needs {} of {capacity} bytes: {:?}", self.sum(), self.loaded));
            };
            self.loaded.remove(idle);
        }
        Ok(bytes.saturating_sub(before))
    }
}

/// Weights never take more than there is, what runs stays loaded, and each launch loads just what is missing.
pub fn memory_is_never_over_capacity(run: &Run) -> Result<(), String> {
    let case = &run.setup.case;
    let mut shelves: Vec<Shelf> = (0..case.processor_count()).map(|_| Shelf::default()).collect();
    for item in &run.log {
        match item {
            Item::Launched(now, launch) => {
                let p = launch.processor.0 as usize;
                let mb =
                    case.device.processors.get(&case.plan.processors[p].name).map_or(0.0, |m| m.memory_mb);
                let expected = if mb == 0.0 {
                    0
                } else {
                    let capacity = (mb * 1e6) as u64;
                    let used = shelves[p].use_for(launch.id.0, weights(case, launch), capacity);
                    used.map_err(|why| format!("at {now}, {launch:?}: {why}"))?
                };
                ensure!(
                    launch.load_bytes == expected,
                    "at {now}, {launch:?}: expected to load {expected} bytes"
                );
            }
            Item::Event(_, Event::Completed(c)) => {
                shelves.iter_mut().for_each(|s| drop(s.running.remove(&c.launch.0)));
            }
            Item::Event(_, Event::Health { processor, up: false }) => {
                shelves[processor.0 as usize].loaded.clear();
            }
            _ => {}
        }
    }
    Ok(())
}
