//! Deciding allocates nothing once a policy has seen the largest observation: counted at the allocator, for every row of the table.
//! It is a test binary of its own, with one test, so that nothing else allocates beside it.

#[path = "../../env/tests/common/mod.rs"]
mod common;

use common::{Setup, random_setup, run};
use cosched_env::observation::Observation;
use cosched_env::world::{Decision, Policy};
use cosched_policies::TABLE;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts what a policy allocates after `warm` decisions.
struct Watched {
    policy: Box<dyn Policy>,
    warm: usize,
    decisions: usize,
    allocations: usize,
}

impl Policy for Watched {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let decision = self.policy.decide(observation);
        self.decisions += 1;
        if self.decisions > self.warm {
            self.allocations += ALLOCATIONS.load(Ordering::Relaxed) - before;
        }
        decision
    }
}

/// Allocates each time.
struct Saboteur;

impl Policy for Saboteur {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let order: Vec<usize> = (0..observation.candidates.len()).collect();
        Decision(std::hint::black_box(order)[0])
    }
}

fn watch(setup: &Setup, policy: Box<dyn Policy>) -> (usize, usize) {
    let mut watched = Watched { policy, warm: 50, decisions: 0, allocations: 0 };
    run(setup, &mut watched).expect("the rules hold");
    (watched.decisions.saturating_sub(50), watched.allocations)
}

#[test]
fn deciding_allocates_nothing() {
    let (mut decisions, mut saboteur) = (0, 0);
    for seed in 0..20 {
        let setup = Setup { horizon: common::ms(1000.0), ..random_setup(seed) };
        for row in TABLE {
            let policy = (row.make)(None, &setup.case).expect("the table makes it");
            let (n, allocations) = watch(&setup, policy);
            decisions += n;
            // A buffer may grow once more when a rare, larger observation comes.
            assert!(
                allocations <= 2,
                "{}, seed {seed}: {allocations} allocations in {n} decisions",
                row.name
            );
        }
        let (n, allocations) = watch(&setup, Box::new(Saboteur));
        saboteur += usize::from(allocations >= n);
    }
    assert!(decisions > 5000, "only {decisions} decisions were watched");
    assert_eq!(saboteur, 20, "a policy that allocates was not found out");
}
