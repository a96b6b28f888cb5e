//! Neither a policy nor the loop of scheduler and emulator around it allocates once buffers have grown to the largest observation: counted at
//! the allocator, for every row of the table that does not search and for the actor of online learning.
//! It is a test binary of its own, with one test, so that nothing else allocates beside it.

#[path = "../../env/tests/common/mod.rs"]
mod common;
mod quick;

use common::{Setup, ms, random_setup, run};
use cosched_agent::checkpoint;
use cosched_agent::network::Forward;
use cosched_agent::online::explore::Exploration;
use cosched_agent::online::lens::Lens;
use cosched_agent::online::link::{Actor, Bounds, Brain, Links, connect};
use cosched_env::emulator::{Config, Emulator};
use cosched_env::observation::Observation;
use cosched_env::scheduler::Scheduler;
use cosched_env::world::{Decision, Policy, drive};
use cosched_policies::learned::SHIPPED;
use cosched_policies::tournament::{Budget, scout};
use cosched_policies::{Row, TABLE, make};
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

/// What the whole loop of scheduler, emulator and policy allocates after the first half of a run; (decisions, allocations).
fn loop_allocations(setup: &Setup, row: &Row) -> (usize, usize) {
    let run_until = |horizon_ms: f64| {
        let mut policy = Watched {
            policy: make(&quick::spec(row.name), &setup.case).expect("the table makes it"),
            warm: 0,
            decisions: 0,
            allocations: 0,
        };
        let config = Config { failure_rate: 0.0, faults: Vec::new(), ..setup.config.clone() };
        let mut emulator = Emulator::new(setup.case.clone(), config, setup.seed, ms(horizon_ms));
        let mut scheduler = Scheduler::new(setup.case.clone(), setup.options);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        drive(&mut scheduler, &mut emulator, &mut policy, &mut ()).expect("the protocol holds");
        (policy.decisions, ALLOCATIONS.load(Ordering::Relaxed) - before)
    };
    let (half, full) = (run_until(1000.0), run_until(2000.0));
    (full.0 - half.0, full.1.saturating_sub(half.1))
}

fn watch(setup: &Setup, policy: Box<dyn Policy>) -> (usize, usize) {
    let mut watched = Watched { policy, warm: 50, decisions: 0, allocations: 0 };
    run(setup, &mut watched).expect("the rules hold");
    (watched.decisions.saturating_sub(50), watched.allocations)
}

/// The actor of online learning, whose learner takes everything in between decisions: what that allocates does not count.
struct Taught {
    actor: Actor,
    links: Links,
}

impl Policy for Taught {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let decision = self.actor.decide(observation);
        while let Ok(transition) = self.links.transitions.try_recv() {
            self.links.pool.try_send(transition).expect("the pool has room for all");
        }
        decision
    }
}

/// An actor that explores, is guided, sees through a lens and is learned from.
fn taught(setup: &Setup) -> Taught {
    let (weights, _) = checkpoint::from_bytes("shipped", SHIPPED).expect("it is well-formed");
    let squad =
        scout(setup.case.as_ref(), &Budget { runs: 1, requests: 50.0, placement_runs: 10, attempts: 1 });
    let brain = Brain {
        forward: Forward::new(&weights),
        guides: squad(&setup.case),
        margin: 1.0,
        lens: Some(Lens::new(setup.case.clone())),
    };
    let exploration = Exploration { comparison: 0.1, share: 0.1, seed: 1 };
    // Room in each buffer for the largest observation.
    let bounds = Bounds { transitions: 4, candidates: 2048, ..Bounds::default() };
    let (actor, _, links) = connect(setup.case.clone(), brain, exploration, bounds);
    Taught { actor, links }
}

#[test]
fn deciding_allocates_nothing() {
    let (mut decisions, mut looped, mut saboteur) = (0, 0, 0);
    for seed in 0..20 {
        let setup = Setup { horizon: ms(1000.0), ..random_setup(seed) };
        let (n, allocations) = watch(&setup, Box::new(taught(&setup)));
        decisions += n;
        assert!(allocations <= 8, "online, seed {seed}: {allocations} allocations in {n} decisions");
        // A search clones the core, by its nature.
        for row in TABLE.iter().filter(|row| !row.searches) {
            let policy = make(&quick::spec(row.name), &setup.case).expect("the table makes it");
            let (n, allocations) = watch(&setup, policy);
            decisions += n;
            let (more, grown) = loop_allocations(&setup, row);
            looped += more;
            // Some twenty buffers, which double when a backlog grows.
            assert!(grown <= 32, "{}, seed {seed}: {grown} allocations in {more} decisions", row.name);
            // Buffers may grow once more when something rarer and larger comes.
            assert!(
                allocations <= 8,
                "{}, seed {seed}: {allocations} allocations in {n} decisions",
                row.name
            );
        }
        let (n, allocations) = watch(&setup, Box::new(Saboteur));
        saboteur += usize::from(allocations >= n);
    }
    assert!(looped > 5000, "only {looped} decisions of the whole loop were watched");
    assert!(decisions > 5000, "only {decisions} decisions were watched");
    assert_eq!(saboteur, 20, "a policy that allocates was not found out");
}
