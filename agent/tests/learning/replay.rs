//! The replay against slow twins and hand-computed numbers.

use cosched_agent::train::replay::{Replay, SumTree, Transition};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::rc::Rc;

/// Priorities that can be found by mass.
trait Sums {
    fn set(&mut self, index: usize, priority: f64);
    fn total(&self) -> f64;
    fn find(&self, mass: f64) -> usize;
}

impl Sums for SumTree {
    fn set(&mut self, index: usize, priority: f64) {
        SumTree::set(self, index, priority);
    }
    fn total(&self) -> f64 {
        SumTree::total(self)
    }
    fn find(&self, mass: f64) -> usize {
        SumTree::find(self, mass)
    }
}

/// A plain list, walked from the left.
struct Twin(Vec<f64>);

impl Sums for Twin {
    fn set(&mut self, index: usize, priority: f64) {
        self.0[index] = priority;
    }
    fn total(&self) -> f64 {
        self.0.iter().sum()
    }
    fn find(&self, mut mass: f64) -> usize {
        for (i, p) in self.0.iter().enumerate() {
            if mass < *p {
                return i;
            }
            mass -= p;
        }
        panic!("the mass is beyond the total")
    }
}

/// Wrong in one way each.
struct Broken {
    inner: SumTree,
    sets: usize,
    forgets: bool,
}

impl Sums for Broken {
    fn set(&mut self, index: usize, priority: f64) {
        self.sets += 1;
        if !(self.forgets && self.sets.is_multiple_of(5)) {
            self.inner.set(index, priority);
        }
    }
    fn total(&self) -> f64 {
        self.inner.total()
    }
    fn find(&self, mass: f64) -> usize {
        let shift = if self.forgets { 0.0 } else { 1.0 };
        self.inner.find((mass + shift).min(self.total() - 1.0))
    }
}

/// Sets and looks up at random; whole priorities, so that sums are exact and answers must be the same.
fn judge(made: impl Fn(usize) -> Box<dyn Sums>) -> Result<(), String> {
    let cases = (1_usize..40, prop::collection::vec((0_usize..40, 0_u8..6, 0.0..1.0_f64), 1..60));
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let config = Config { failure_persistence: None, ..Config::default() };
    let test = |(n, deeds): (usize, Vec<(usize, u8, f64)>)| {
        let (mut twin, mut sums) = (Twin(vec![0.0; n]), made(n));
        for (index, priority, at) in deeds {
            twin.set(index % n, f64::from(priority));
            sums.set(index % n, f64::from(priority));
            prop_assert_eq!(sums.total(), twin.total());
            if twin.total() > 0.0 {
                let mass = at * twin.total();
                prop_assert_eq!(sums.find(mass), twin.find(mass), "mass {}", mass);
            }
        }
        Ok(())
    };
    TestRunner::new_with_rng(config, rng).run(&cases, test).map_err(|e| e.to_string())
}

#[test]
fn the_sum_tree_equals_a_plain_list() {
    judge(|n| Box::new(SumTree::new(n))).unwrap();
    for forgets in [true, false] {
        let broken = judge(|n| Box::new(Broken { inner: SumTree::new(n), sets: 0, forgets }));
        assert!(broken.is_err(), "a broken tree passed (forgets: {forgets})");
    }
}

#[test]
fn what_has_no_priority_is_never_found() {
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    let mut tree = SumTree::new(100);
    for i in (0..100).filter(|i| i % 7 != 3) {
        tree.set(i, rng.random::<f64>() * 1e-3 + f64::from(u8::from(i % 5 == 0)) * 1e3);
    }
    for k in 0..10_000 {
        // The total itself is beyond the last share: rounding may bring a mass there.
        let mass = if k == 0 { tree.total() } else { rng.random::<f64>() * tree.total() };
        let found = tree.find(mass);
        assert!(tree.get(found) > 0.0, "mass {mass} fell on {found}");
    }
}

fn plain(replay: &Replay, number: usize, floats: usize) -> Transition {
    let state = replay.keep((&vec![number as f32; floats], &[0.0]));
    Transition { state, action: number, reward: 0.0, discount: 0.0, next: None, taught: false }
}

/// How often each of three transitions with errors 1, 2 and 5 is drawn, and the importance weights by transition.
fn shares(alpha: f64, beta: f64) -> ([f64; 3], [f32; 3]) {
    let mut replay = Replay::new(8, usize::MAX, alpha);
    let mut rng = Pcg64Mcg::seed_from_u64(9);
    for number in 0..3 {
        let transition = plain(&replay, number, 1);
        replay.push(transition);
    }
    for (index, error) in [1.0, -2.0, 5.0].into_iter().enumerate() {
        replay.set_error(index, error - 1e-3_f64.copysign(error));
    }
    let (mut counts, mut weights) = ([0.0; 3], [f32::NAN; 3]);
    for _ in 0..500 {
        let draws: [f64; 32] = std::array::from_fn(|_| rng.random());
        let (indices, importance) = replay.sample(&draws, beta);
        for (i, w) in indices.into_iter().zip(importance) {
            counts[replay.get(i).action] += 1.0 / (500.0 * 32.0);
            weights[i] = w;
        }
    }
    (counts, weights)
}

#[test]
fn transitions_are_drawn_by_their_errors_and_weighed_back() {
    let near = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.01);
    let (counts, weights) = shares(1.0, 0.5);
    assert!(near(counts, [1.0 / 8.0, 2.0 / 8.0, 5.0 / 8.0]), "{counts:?}");
    // (3 P)^-0.5 relative to that of P = 1/8: 1, sqrt(1/2), sqrt(1/5).
    let expected = [1.0, 0.5_f64.sqrt(), 0.2_f64.sqrt()];
    assert!(near(weights.map(f64::from), expected), "{weights:?}");
    let (counts, weights) = shares(2.0, 1.0);
    assert!(near(counts, [1.0 / 30.0, 4.0 / 30.0, 25.0 / 30.0]), "{counts:?}");
    assert!(near(weights.map(f64::from), [1.0, 0.25, 0.04]), "{weights:?}");
    // Saboteur: with alpha 0 all are alike, and the bounds above see it.
    let (counts, weights) = shares(0.0, 1.0);
    assert!(near(counts, [1.0 / 3.0; 3]) && weights == [1.0; 3], "{counts:?} {weights:?}");
}

#[test]
fn a_new_transition_has_the_highest_priority_there_was() {
    let mut replay = Replay::new(8, usize::MAX, 1.0);
    for number in 0..2 {
        let transition = plain(&replay, number, 1);
        replay.push(transition);
    }
    replay.set_error(0, 99.0 - 1e-3);
    replay.set_error(0, 1e-3);
    replay.set_error(1, 1e-3);
    let transition = plain(&replay, 2, 1);
    replay.push(transition);
    let draws: Vec<f64> = (0..100).map(|i| f64::from(i) / 100.0).collect();
    let newest = replay.sample(&draws, 0.0).0.iter().filter(|&&i| i == 2).count();
    assert!(newest >= 99, "{newest}");
    // Saboteur: with an error of its own it is like the others.
    replay.set_error(2, 1e-3);
    assert!(replay.sample(&draws, 0.0).0.iter().filter(|&&i| i == 2).count() < 40);
}

#[test]
fn the_oldest_go_first_and_the_bounds_hold() {
    let mut rng = Pcg64Mcg::seed_from_u64(4);
    let fill = |most_bytes: usize, rng: &mut Pcg64Mcg| {
        let mut replay = Replay::new(50, most_bytes, 0.6);
        let (mut most, mut held, mut before) = (0, 0, None::<Transition>);
        for number in 0..400 {
            let mut transition = plain(&replay, number, rng.random_range(10..2000));
            // As in an episode: the state behind a decision is that of the next one.
            if let Some(mut before) = before.take() {
                before.next = Some(transition.state.clone());
                replay.push(before);
            }
            transition.action = number;
            before = Some(transition);
            most = most.max(replay.bytes());
            held = held.max(replay.len());
        }
        drop(before);
        let mut indices: Vec<usize> =
            replay.sample(&(0..5000).map(|i| f64::from(i) / 5000.0).collect::<Vec<_>>(), 0.0).0;
        indices.sort_unstable();
        indices.dedup();
        let mut numbers: Vec<usize> = indices.iter().map(|&i| replay.get(i).action).collect();
        numbers.sort_unstable();
        let newest: Vec<usize> = (399 - replay.len()..399).collect();
        assert_eq!(numbers, newest, "not the newest are held");
        (most, held)
    };
    // One observation may be in the caller's hands: at most 8 kB more.
    let (most, held) = fill(100_000, &mut rng);
    assert!(most <= 108_200 && held < 50, "{most} bytes, {held} transitions");
    // Saboteur: without the bound on bytes there would be more of them; then the bound on numbers holds.
    let (most, held) = fill(usize::MAX, &mut rng);
    assert!(most > 150_000 && held == 50, "{most} bytes, {held} transitions");
}

#[test]
fn shared_observations_are_counted_once() {
    let replay = Replay::new(4, usize::MAX, 1.0);
    let kept = replay.keep((&[1.0; 100], &[2.0; 10]));
    let bytes = replay.bytes();
    let again = Rc::clone(&kept);
    assert!(replay.bytes() == bytes && bytes >= 440, "{bytes}");
    drop(kept);
    assert_eq!(replay.bytes(), bytes);
    drop(again);
    assert_eq!(replay.bytes(), 0);
}
