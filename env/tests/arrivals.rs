//! Arrivals against the statistics that the scenario promises, and against themselves by seed.

mod common;

use common::{case, ms, plan, processor, random_setup, stream, variant};
use cosched_env::case::{Case, StreamId};
use cosched_env::event::{Ended, Outcome, Request};
use cosched_env::scenario::{ArrivalKind, Scenario, Stream};
use cosched_env::streams::Arrivals;
use std::sync::Arc;

/// Mean period of all streams here, and how long they run: 100 000 requests.
const PERIOD_MS: f64 = 10.0;
const HORIZON_MS: f64 = 1e6;

fn one_plan() -> cosched_env::plan::Plan {
    plan(vec![processor("a")], 1.0, vec![variant("v", "t", 0.9, &[&[Some(1.0)]])])
}

fn streams(all: Vec<Stream>) -> Arc<Case> {
    case(one_plan(), all)
}

fn arrivals(stream: Stream, seed: u64) -> Vec<Request> {
    Arrivals::new(streams(vec![stream]), seed, ms(HORIZON_MS)).collect()
}

fn of_kind(kind: ArrivalKind) -> Stream {
    Stream { kind, dwell_ms: 100.0, burst: 1.8, ..stream("t", PERIOD_MS, 5.0) }
}

/// Mean and coefficient of variation of the gaps in milliseconds.
fn gaps(requests: &[Request]) -> (f64, f64) {
    let gaps: Vec<f64> = requests.windows(2).map(|w| w[1].arrival.since(w[0].arrival).ms()).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    (mean, variance.sqrt() / mean)
}

/// Variance by mean of the number of requests in windows of a second: 0 for periodic, 1 for Poisson streams.
fn dispersion(requests: &[Request]) -> f64 {
    let mut counts = vec![0.0; (HORIZON_MS / 1e3) as usize];
    for r in requests {
        counts[(r.arrival.0 / 1_000_000_000) as usize] += 1.0;
    }
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    counts.iter().map(|c| (c - mean) * (c - mean)).sum::<f64>() / counts.len() as f64 / mean
}

#[test]
fn periodic_requests_are_on_the_grid() {
    let requests = arrivals(Stream { offset_ms: 3.0, ..of_kind(ArrivalKind::Periodic) }, 1);
    assert_eq!(requests.len(), 100_000);
    for (i, r) in requests.iter().enumerate() {
        assert_eq!(r.arrival, ms(3.0 + PERIOD_MS * i as f64));
    }
}

#[test]
fn jitter_moves_requests_within_its_bounds_and_keeps_their_order() {
    for jitter_ms in [2.0, 4.9, 25.0] {
        let requests = arrivals(Stream { jitter_ms, offset_ms: 30.0, ..of_kind(ArrivalKind::Periodic) }, 2);
        let mut sum = 0.0;
        for (i, r) in requests.iter().enumerate() {
            let shift = r.arrival.ms_after(ms(30.0 + PERIOD_MS * i as f64));
            assert!(
                shift >= -jitter_ms && (jitter_ms > 5.0 || shift <= jitter_ms),
                "request {i}: {shift} ms"
            );
            sum += shift;
        }
        assert!(requests.is_sorted_by_key(|r| r.arrival));
        assert!((requests.len() as f64 - 99_997.0).abs() < 10.0);
        if jitter_ms < 5.0 {
            assert!((sum / requests.len() as f64).abs() < 0.05 * jitter_ms, "the shifts have no mean");
        }
    }
}

#[test]
fn poisson_streams_have_their_mean_and_spread() {
    for seed in 0..3 {
        let requests = arrivals(of_kind(ArrivalKind::Poisson), seed);
        let (mean, variation) = gaps(&requests);
        assert!((mean - PERIOD_MS).abs() < 0.1, "seed {seed}: mean gap {mean}");
        assert!((variation - 1.0).abs() < 0.02, "seed {seed}: variation {variation}");
        let dispersion = dispersion(&requests);
        assert!((dispersion - 1.0).abs() < 0.2, "seed {seed}: dispersion {dispersion}");
    }
}

#[test]
fn bursty_streams_have_the_same_mean_and_more_spread() {
    for seed in 0..3 {
        let requests = arrivals(of_kind(ArrivalKind::Bursty), seed);
        let (mean, variation) = gaps(&requests);
        assert!((mean - PERIOD_MS).abs() < 0.3, "seed {seed}: mean gap {mean}");
        assert!(variation > 1.3, "seed {seed}: variation {variation}");
        // Index of dispersion of a symmetric two-state process in long windows: 1 + (b - 1)^2 x dwell / period = 7.4.
        let dispersion = dispersion(&requests);
        assert!((4.5..9.0).contains(&dispersion), "seed {seed}: dispersion {dispersion}");
    }
}

#[test]
fn bursts_of_factor_one_are_a_poisson_stream() {
    let (mean, variation) = gaps(&arrivals(Stream { burst: 1.0, ..of_kind(ArrivalKind::Bursty) }, 4));
    assert!((mean - PERIOD_MS).abs() < 0.1 && (variation - 1.0).abs() < 0.02, "{mean}, {variation}");
}

#[test]
fn nothing_comes_before_the_offset() {
    for kind in [ArrivalKind::Periodic, ArrivalKind::Poisson, ArrivalKind::Bursty] {
        for seed in 0..20 {
            let first = arrivals(Stream { offset_ms: 990_000.0, ..of_kind(kind) }, seed).remove(0);
            assert!(first.arrival >= ms(990_000.0), "{kind:?}, seed {seed}: {}", first.arrival);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_arrivals_and_another_others() {
    for seed in 0..50 {
        let setup = random_setup(seed);
        let all = |s| Arrivals::new(setup.case.clone(), s, ms(2000.0)).collect::<Vec<_>>();
        let bytes = |s| serde_json::to_vec(&all(s)).expect("plain data");
        assert_eq!(bytes(seed), bytes(seed), "seed {seed}");
        let draws = |kind| matches!(kind, ArrivalKind::Poisson | ArrivalKind::Bursty);
        let random = setup.case.streams.iter().any(|s| draws(s.kind) && s.open.is_empty());
        assert!(!random || bytes(seed) != bytes(seed + 1), "seed {seed}");
        for (i, r) in all(seed).iter().enumerate() {
            let stream = setup.case.stream(r.stream);
            assert_eq!(r.id.0, i as u64);
            assert_eq!(r.deadline, r.arrival + stream.deadline);
            assert_eq!(r.expires, r.arrival + stream.expire);
        }
        assert!(all(seed).is_sorted_by_key(|r| r.arrival));
    }
}

#[test]
fn a_stream_does_not_depend_on_those_beside_it() {
    let poisson = of_kind(ArrivalKind::Poisson);
    let alone = arrivals(poisson.clone(), 5);
    let both = Arrivals::new(streams(vec![poisson, of_kind(ArrivalKind::Bursty)]), 5, ms(HORIZON_MS));
    let first = both.filter(|r| r.stream == StreamId(0)).map(|r| r.arrival);
    assert!(first.eq(alone.iter().map(|r| r.arrival)));
}

#[test]
fn a_period_of_no_time_is_refused() {
    let streams = vec![stream("t", 1e-7, 5.0)];
    let scenario = Scenario { name: "test".into(), streams, objective: Default::default() };
    let error = Case::new(one_plan(), scenario).expect_err("requests would never stop coming");
    assert_eq!(error.key, "stream[0].period_ms");
}

#[test]
fn an_answer_near_the_end_is_followed_all_the_same() {
    // The root's next arrival lies between the horizon and the answer: it never comes, and hides nothing.
    let named = |name: &str, s: Stream| Stream { name: name.into(), ..s };
    let root = named("root", of_kind(ArrivalKind::Periodic));
    let follower = Stream { after: "root".into(), ..named("follower", of_kind(ArrivalKind::Dependent)) };
    let mut all = Arrivals::new(streams(vec![root, follower]), 1, ms(PERIOD_MS / 2.0));
    let request = all.next().expect("the first one");
    assert_eq!(all.peek(), None);
    let at = ms(3.0 * PERIOD_MS);
    let (outcome, origin) = (Outcome::Late, request.origin);
    all.ended(&Ended { request, outcome, at, variant: None, energy_mj: 0.0, launches: 1, utility: 0.0 });
    let next = all.next().expect("the one that follows");
    assert_eq!((next.stream, next.arrival, next.origin), (StreamId(1), at, origin));
    assert_eq!(all.next(), None);
}
