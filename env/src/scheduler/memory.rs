//! Which weights are loaded where. Room is made by evicting what was used longest ago; what runs is never evicted.
//! It refuses to charge time: loading costs what [`Case::load_ns`] says of the bytes that it names.

use crate::case::{Case, ProcessorId, VariantId};
use crate::event::Launch;

/// Weights that are loaded on a processor.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    /// [`crate::case::VariantTable::weights`].
    weights: u16,
    bytes: u64,
    used: u64,
}

/// Loaded weights of all processors that have a limit.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// Per processor.
    loaded: Vec<Vec<Loaded>>,
    clock: u64,
}

impl Memory {
    /// Nothing is loaded.
    pub(super) fn new(processors: usize) -> Memory {
        Memory { loaded: vec![Vec::new(); processors], clock: 0 }
    }

    /// Bytes to load before `variant` can run on `on` beside what runs there; `None`: there is no room as long as that runs.
    pub(super) fn missing<'a>(
        &self,
        case: &Case,
        on: ProcessorId,
        variant: VariantId,
        running: impl Iterator<Item = &'a Launch>,
    ) -> Option<u64> {
        let Some(capacity) = case.processors[on.0 as usize].capacity else { return Some(0) };
        let table = case.variant(variant);
        let loaded = &self.loaded[on.0 as usize];
        let there = loaded.iter().find(|l| l.weights == table.weights).map_or(0, |l| l.bytes);
        let missing = table.memory_bytes.saturating_sub(there);
        if missing == 0 {
            return Some(0);
        }
        let mut pinned = there.max(table.memory_bytes);
        let mut counted = [u16::MAX; 8];
        let mut count = 0;
        for launch in running.filter(|l| l.processor == on) {
            let weights = case.variant(launch.variant).weights;
            // A processor has few slots; launches beyond the eighth kind of weights count twice at worst.
            if weights == table.weights || counted[..count].contains(&weights) {
                continue;
            }
            if count < counted.len() {
                counted[count] = weights;
                count += 1;
            }
            pinned += loaded.iter().find(|l| l.weights == weights).map_or(0, |l| l.bytes);
        }
        (pinned <= capacity).then_some(missing)
    }

    /// Loads `variant` on `on`, evicting what is not running there. [`Memory::missing`] has said that there is room.
    pub(super) fn load<'a>(
        &mut self,
        case: &Case,
        on: ProcessorId,
        variant: VariantId,
        running: impl Iterator<Item = &'a Launch> + Clone,
    ) {
        let Some(capacity) = case.processors[on.0 as usize].capacity else { return };
        self.clock += 1;
        let table = case.variant(variant);
        let loaded = &mut self.loaded[on.0 as usize];
        match loaded.iter_mut().find(|l| l.weights == table.weights) {
            Some(there) => {
                there.used = self.clock;
                there.bytes = there.bytes.max(table.memory_bytes);
            }
            None => {
                loaded.push(Loaded { weights: table.weights, bytes: table.memory_bytes, used: self.clock })
            }
        }
        let in_use = |weights: u16| {
            weights == table.weights
                || running.clone().any(|l| l.processor == on && case.variant(l.variant).weights == weights)
        };
        while loaded.iter().map(|l| l.bytes).sum::<u64>() > capacity {
            let idle = loaded.iter().enumerate().filter(|(_, l)| !in_use(l.weights));
            let Some((oldest, _)) = idle.min_by_key(|(_, l)| l.used) else { return };
            loaded.swap_remove(oldest);
        }
    }

    /// What was on a processor that died is gone.
    pub(super) fn forget(&mut self, on: ProcessorId) {
        self.loaded[on.0 as usize].clear();
    }
}
