//! The vectorised environment: 64 copies step as each would alone, and stepping allocates nothing once its buffers have grown.

mod common;

use common::{exact, ms, random_setup};
use cosched_env::case::Case;
use cosched_env::emulator::Config;
use cosched_env::episode::{Episode, Step};
use cosched_env::event::Outcome;
use cosched_env::observation::{Action, Observation};
use cosched_env::plan::Plan;
use cosched_env::scenario::{ArrivalKind, Scenario, Stream};
use cosched_env::scheduler::Options;
use cosched_env::time::Time;
use cosched_env::vector::Vector;
use cosched_env::world::Decision;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

/// Counts this thread's allocations.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator; counting touches no memory of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const COPIES: usize = 64;

/// Earliest deadline first on whichever processor comes first.
fn urgent(o: &Observation<'_>) -> Decision {
    let launches = o.candidates.iter().enumerate().filter(|(_, c)| matches!(c.action, Action::Launch { .. }));
    let first = launches.min_by_key(|(i, c)| (o.request_of(c).map(|r| r.deadline), *i));
    Decision(first.map_or(o.candidates.len() - 1, |(i, _)| i))
}

fn episode(seed: u64) -> Episode {
    let s = random_setup(seed % 7);
    Episode::new(s.case, s.options, s.config, seed, ms(250.0), Time::NEVER)
}

#[test]
fn copies_step_as_each_would_alone() {
    let mut vector = Vector::new((0..COPIES as u64).map(episode).collect()).unwrap();
    let mut alone: Vec<Episode> = (0..COPIES as u64).map(episode).collect();
    let mut last: Vec<Step> = alone.iter_mut().map(|e| e.advance().unwrap()).collect();
    let mut decisions = vec![Decision(0); COPIES];
    while vector.steps().iter().any(|s| s.end.is_none()) {
        assert!(vector.steps().iter().zip(&last).all(|(a, b)| a == b), "a copy went another way");
        for (i, decision) in decisions.iter_mut().enumerate() {
            *decision = vector.observation(i).as_ref().map_or(Decision(0), urgent);
        }
        vector.step(&decisions).unwrap();
        for (episode, step) in alone.iter_mut().zip(&mut last) {
            let Some(observation) = episode.observation() else {
                *step = Step { reward: 0.0, elapsed: cosched_env::time::Span::ZERO, end: step.end };
                continue;
            };
            let (decision, n) = (urgent(&observation), observation.candidates.len());
            episode.decide(decision, n).unwrap();
            *step = episode.advance().unwrap();
        }
    }
    // A new one takes the place of one that is over.
    vector.replace(3, episode(99)).unwrap();
    assert!(vector.observation(3).is_some() && vector.steps()[3].end.is_none());
    assert!(vector.observation(4).is_none());
}

/// Four processors and six streams, at a load that they can bear.
fn steady() -> Arc<Case> {
    let costs: Vec<[Option<f64>; 4]> =
        (0..3).map(|s| [0, 1, 2, 3].map(|p| Some(300.0 + 100.0 * f64::from((s + p) % 3)))).collect();
    let rows: Vec<&[Option<f64>]> = costs.iter().map(|c| c.as_slice()).collect();
    let variants = (0..6).map(|t| common::variant(&format!("v{t}"), &format!("t{t}"), 0.9, &rows)).collect();
    let processors = (0..4).map(|p| common::processor(&format!("p{p}"))).collect();
    let plan: Plan = common::plan(processors, 1.2, variants);
    let kinds = [ArrivalKind::Periodic, ArrivalKind::Poisson, ArrivalKind::Bursty];
    let streams =
        (0..6).map(|t| Stream { kind: kinds[t % 3], ..common::stream(&format!("t{t}"), 9.0, 20.0) });
    let scenario =
        Scenario { name: "steady".into(), streams: streams.collect(), objective: Default::default() };
    Arc::new(Case::new(plan, scenario).expect("the case above is well-formed"))
}

#[test]
fn stepping_allocates_nothing_in_the_steady_state() {
    let config = Config { spread: true, ..exact() };
    let fresh = |seed| Episode::new(steady(), Options::default(), config.clone(), seed, ms(1e6), Time::NEVER);
    let mut vector = Vector::new((0..COPIES as u64).map(fresh).collect()).unwrap();
    let mut decisions = vec![Decision(0); COPIES];
    let (mut ended, mut taken) = (0_u64, 0_u64);
    let mut steps = |count: usize| {
        for _ in 0..count {
            for (i, decision) in decisions.iter_mut().enumerate() {
                *decision = vector.observation(i).as_ref().map_or(Decision(0), urgent);
            }
            vector.step(&decisions).unwrap();
            taken += COPIES as u64;
            for i in 0..COPIES {
                ended +=
                    vector.episode(i).take_ended().filter(|e| e.outcome != Outcome::Dropped).count() as u64;
            }
        }
        (ended, taken)
    };
    // Queues grow to their largest; bursts are rare, so this takes a while.
    steps(3000);
    let before = ALLOCATIONS.with(Cell::get);
    let (ended, taken) = steps(1000);
    let allocations = ALLOCATIONS.with(Cell::get) - before;
    assert!(ended > 10_000, "only {ended} requests ended in {taken} decisions");
    // A longer queue than ever before may still come; one allocation in a thousand decisions is not one per decision.
    assert!(allocations < COPIES as u64, "{allocations} allocations in {} decisions", 1000 * COPIES);
}
