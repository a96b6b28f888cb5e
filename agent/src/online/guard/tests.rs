//! The guard against orders worked out by hand. It refuses to run anything: scores are given.

use super::*;
use crate::online::off_policy::Gain;

fn rules() -> Rules {
    Rules { window: 20, least: 10, proof: 30, ..Rules::default() }
}

fn at(s: f64) -> Time {
    Time::ZERO + Span::from_ms(s * 1e3)
}

fn shadow(trial: f64, good: f64, baseline: f64) -> Shadow {
    Shadow { trial, good, baseline, agreement: 0.5, gain: None }
}

/// What a guard says to so many requests of this score; the first thing that is not `Stay`, and after how many.
fn feed(guard: &mut Guard, n: usize, score: f64) -> Option<(usize, Order)> {
    (1..=n).find_map(|i| match guard.ended(2.0 * score, 2.0, at(1.0)) {
        Order::Stay => None,
        order => Some((i, order)),
    })
}

/// Publishes weights that get nothing live after good ones that got 0.9; after how many requests the good ones act again.
fn loss_of(mut on_ended: impl FnMut(&mut Guard, f64) -> Order) -> Option<usize> {
    let mut guard = Guard::new(rules());
    (0..30).for_each(|_| drop(on_ended(&mut guard, 0.9)));
    guard.publish(at(1.0));
    (1..=100).find(|_| matches!(on_ended(&mut guard, 0.0), Order::RollBack(_)))
}

#[test]
fn a_crash_is_rolled_back_after_the_least_number_of_requests() {
    let lost = loss_of(|guard, score| guard.ended(score, 1.0, at(2.0)));
    assert_eq!(lost, Some(10), "the bound is `least` requests");
    // Saboteur: a guard that never rolls back.
    let lost = loss_of(|guard, score| match guard.ended(score, 1.0, at(2.0)) {
        Order::RollBack(_) => Order::Stay,
        order => order,
    });
    assert_eq!(lost, None);
}

#[test]
fn a_trial_that_holds_is_the_new_good() {
    let mut guard = Guard::new(rules());
    assert_eq!(feed(&mut guard, 30, 0.8), None);
    guard.publish(at(1.0));
    assert_eq!((guard.acting(), guard.live()), (Acting::Trial, None));
    assert_eq!(feed(&mut guard, 40, 0.78), Some((30, Order::Proven)));
    assert_eq!((guard.acting(), guard.counts().proven), (Acting::Good, 1));
    assert!((guard.live().expect("enough requests") - 0.78).abs() < 1e-12);
}

#[test]
fn worse_weights_are_not_admitted() {
    let mut guard = Guard::new(rules());
    assert!(guard.admit(&[0.5, 0.7], &[0.6, 0.6], &[0.61, 0.61]).is_ok());
    assert!(guard.admit(&[0.5, 0.69], &[0.6, 0.6], &[0.1, 0.1]).unwrap_err().contains("last good"));
    assert!(guard.admit(&[0.7, 0.7], &[0.6, 0.6], &[0.8, 0.8]).unwrap_err().contains("baseline"));
    assert!(guard.admit(&[f64::NAN], &[0.6], &[0.6]).is_err());
    assert_eq!(guard.counts().refused, 3);
}

#[test]
fn a_promise_that_is_not_kept_is_rolled_back_before_it_crashes() {
    let mut guard = Guard::new(rules());
    feed(&mut guard, 30, 0.8);
    // The emulator is optimistic by 0.1.
    assert_eq!(guard.check(at(1.0), &shadow(0.9, 0.9, 0.85)), Order::Stay);
    guard.publish(at(2.0));
    assert_eq!(feed(&mut guard, 15, 0.83), None);
    assert_eq!(guard.check(at(3.0), &shadow(0.93, 0.9, 0.85)), Order::Stay, "0.83 was promised");
    assert_eq!(feed(&mut guard, 14, 0.7), None, "no crash yet");
    let order = guard.check(at(4.0), &shadow(0.99, 0.9, 0.85));
    assert!(matches!(&order, Order::RollBack(why) if why.contains("0.890 was to be expected")), "{order:?}");
}

#[test]
fn a_trial_ends_when_the_emulator_turns_against_it() {
    let mut guard = Guard::new(rules());
    guard.publish(at(1.0));
    assert_eq!(guard.check(at(2.0), &shadow(0.69, 0.7, 0.7)), Order::Stay);
    assert!(matches!(guard.check(at(3.0), &shadow(0.6, 0.7, 0.5)), Order::RollBack(_)));
    guard.publish(at(4.0));
    assert!(matches!(guard.check(at(5.0), &shadow(0.6, 0.6, 0.7)), Order::RollBack(_)));
    assert_eq!(guard.counts().rolled_back, 2);
}

#[test]
fn the_baseline_takes_over_and_gives_back_after_rests_that_double() {
    let mut guard = Guard::new(rules());
    let behind = shadow(0.5, 0.5, 0.7);
    assert_eq!(guard.check(at(1.0), &behind), Order::Stay, "once is chance");
    assert!(matches!(guard.check(at(2.0), &behind), Order::HandOver(_)));
    assert_eq!(guard.acting(), Acting::Baseline);
    let even = shadow(0.7, 0.7, 0.7);
    assert_eq!(guard.check(at(6.9), &even), Order::Stay, "it rests for 5 s");
    assert_eq!(guard.check(at(7.1), &behind), Order::Stay, "it is still behind");
    assert!(matches!(guard.check(at(8.0), &even), Order::TryAgain(_)));
    guard.check(at(9.0), &behind);
    assert!(matches!(guard.check(at(10.0), &behind), Order::HandOver(_)));
    assert_eq!(guard.check(at(19.0), &even), Order::Stay, "now it rests for 10 s");
    assert!(matches!(guard.check(at(20.5), &even), Order::TryAgain(_)));
    // Well for long enough: the next rest is short again.
    guard.check(at(200.0), &even);
    guard.check(at(201.0), &behind);
    assert!(matches!(guard.check(at(202.0), &behind), Order::HandOver(why) if why.contains("in 5 s")));
    assert_eq!((guard.counts().handed_over, guard.counts().tried_again), (3, 2));
}

#[test]
fn what_live_decisions_show_counts_where_the_emulator_sees_nothing() {
    let even = |gain| Shadow { gain, ..shadow(0.8, 0.8, 0.8) };
    let sure = Some(Gain { mean: 0.1, error: 0.03 });
    let unsure = Some(Gain { mean: 0.1, error: 0.045 });
    for (gain, handed_over) in [(sure, 1), (unsure, 0), (None, 0)] {
        let mut guard = Guard::new(rules());
        guard.check(at(1.0), &even(gain));
        let order = guard.check(at(2.0), &even(gain));
        assert_eq!(guard.counts().handed_over, handed_over, "{gain:?}: {order:?}");
        guard = Guard::new(rules());
        guard.publish(at(1.0));
        let order = guard.check(at(2.0), &even(gain));
        assert_eq!(guard.counts().rolled_back, handed_over, "{gain:?}: {order:?}");
        if let Order::RollBack(why) = order {
            assert!(why.contains("give the baseline +0.100 (standard error 0.030)"), "{why}");
        }
    }
}

#[test]
fn good_weights_that_fall_short_live_hand_over_unless_they_do_what_the_baseline_does() {
    for (agreement, handed_over) in [(0.5, 1), (1.0, 0)] {
        let mut guard = Guard::new(rules());
        feed(&mut guard, 30, 0.9);
        let shadow = Shadow { agreement, ..shadow(0.95, 0.95, 0.9) };
        assert_eq!(guard.check(at(1.0), &shadow), Order::Stay);
        feed(&mut guard, 30, 0.5);
        guard.check(at(2.0), &shadow);
        guard.check(at(3.0), &shadow);
        assert_eq!(guard.counts().handed_over, handed_over, "agreement {agreement}");
    }
}

#[test]
fn what_is_kept_comes_back() {
    let mut guard = Guard::new(rules());
    feed(&mut guard, 30, 0.9);
    let behind = shadow(0.5, 0.5, 0.7);
    guard.check(at(1.0), &behind);
    guard.check(at(2.0), &behind);
    let memory = guard.memory();
    let again = Guard::resume(rules(), &memory);
    assert_eq!((again.memory(), again.acting()), (memory, Acting::Baseline));
    assert!(memory.baseline_acts && memory.reference.is_some());
}
