//! The fairness term by hand, through the scheduler: what a miss costs where another stream is served better.
//! It refuses to read the formula from the crate.

mod common;
#[path = "common/hand.rs"]
mod hand;

use common::{ms, plan, processor, stream, variant};
use cosched_env::case::Case;
use cosched_env::objective::Objective;
use cosched_env::scenario::{Scenario, Stream};
use cosched_env::scheduler::{Next, Options};
use hand::Hand;
use std::sync::Arc;

/// Two streams on one processor; a miss costs 0.2, and half of how far its stream lies behind.
fn two_streams(fairness_weight: f64) -> Hand {
    let works = variant("v", "t", 0.9, &[&[Some(1000.0)]]);
    let streams = vec![stream("t", 10.0, 5.0), Stream { priority: 3.0, ..stream("t", 10.0, 5.0) }];
    let objective = Objective { fairness_weight, late_value: 0.5, late_ms: 10.0, ..Objective::default() };
    let scenario = Scenario { name: "fair".to_owned(), streams, objective };
    let case = Case::new(plan(vec![processor("p")], 1.0, vec![works]), scenario);
    Hand::new(Arc::new(case.expect("the test's own case is well-formed")), Options::default())
}

/// Drops two requests of stream 1, answers one of stream 0 in time, then one of stream 1 late by 5 ms, then drops another;
/// the utilities.
fn utilities(fairness_weight: f64) -> Vec<f64> {
    let mut hand = two_streams(fairness_weight);
    for at in [0.0, 1.0] {
        hand.arrive(1, ms(at));
        hand.drop_first();
    }
    for (stream, at, took) in [(0, 2.0, 1.0), (1, 10.0, 10.0)] {
        hand.arrive(stream, ms(at));
        // A stream's second request may only start now; nothing else waits.
        let launch = hand.launch(0, 0);
        hand.done(&launch, ms(at + took));
    }
    hand.arrive(1, ms(30.0));
    hand.drop_first();
    hand.ended.iter().map(|e| e.utility).collect()
}

fn near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12)
}

#[test]
fn a_miss_costs_more_where_others_are_served() {
    // Shares of stream 1 before each of its ends: 1, 0.95, 0.9025 (late counts as a miss), 0.857375; stream 0 stays at 1.
    let gaps = [0.0, 0.05, 0.0975, 0.142_625];
    let expected = [
        3.0 * -0.2,
        3.0 * (-0.2 - 0.5 * gaps[1]),
        1.0,
        // Half of late_value is left after half of late_ms.
        3.0 * (0.25 - 0.5 * gaps[2]),
        3.0 * (-0.2 - 0.5 * gaps[3]),
    ];
    let fair = utilities(0.5);
    assert!(near(&fair, &expected), "{fair:?}, expected {expected:?}");
    // Without the weight the same run is worth something else: the numbers above can fail.
    let plain = utilities(0.0);
    assert!(near(&plain, &[-0.6, -0.6, 1.0, 0.75, -0.6]) && !near(&plain, &expected), "{plain:?}");
}

#[test]
fn policies_see_the_shares() {
    let mut hand = two_streams(0.5);
    let shares = |hand: &mut Hand| match hand.core.poll() {
        Next::Decide(o) => [o.streams[0].on_time_share, o.streams[1].on_time_share],
        other => panic!("nothing to decide: {other:?}"),
    };
    hand.arrive(1, ms(0.0));
    assert_eq!(shares(&mut hand), [1.0, 1.0]);
    hand.drop_first();
    hand.arrive(1, ms(1.0));
    assert_eq!(shares(&mut hand), [1.0, 0.95]);
    let launch = hand.launch(0, 0);
    hand.done(&launch, ms(2.0));
    hand.arrive(0, ms(2.0));
    // An answer in time brings it back by a twentieth of what is missing.
    let now = shares(&mut hand);
    assert!((now[1] - (0.95 + 0.05 * 0.05)).abs() < 1e-12, "{now:?}");
}
