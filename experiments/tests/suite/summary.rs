//! Logs and summaries: totals add up, the two ways to a summary agree, and the tables are as printed.

use crate::fixture::{case, log, setup};
use cosched_env::case::{ProcessorId, StreamId, VariantId};
use cosched_env::event::{Completion, Ended, Event, Launch, LaunchId, Outcome, Request, RequestId};
use cosched_env::time::Time;
use cosched_env::world::Observer;
use cosched_experiments::compare::{Setup, from_table, run_once};
use cosched_experiments::log::RunLog;
use cosched_experiments::summary::{Summary, Tally};
use cosched_experiments::table;

const MS: u64 = 1_000_000;

/// Three requests by hand: on time after 10 ms, late after 40 ms, and one that never ends.
fn by_hand() -> RunLog {
    let mut log = RunLog::new("by hand");
    let request = |id: u64, stream: u16, at: u64| Request {
        id: RequestId(id),
        stream: StreamId(stream),
        arrival: Time(at * MS),
        origin: Time(at * MS),
        deadline: Time((at + 25) * MS),
        expires: Time((at + 50) * MS),
        priority: 1.0,
        min_accuracy: 0.0,
        variant: None,
    };
    let launch = |id: u64, processor: u16, variant: u16| Launch {
        id: LaunchId(id),
        request: RequestId(id),
        variant: VariantId(variant),
        first: 0,
        last: 1,
        processor: ProcessorId(processor),
        inputs_on: None,
        load_bytes: 0,
    };
    let end = |id: u64, started: u64, finished: u64, failure: Option<&str>| {
        Event::Completed(Completion {
            launch: LaunchId(id),
            started: Time(started * MS),
            finished: Time(finished * MS),
            energy_mj: 500.0,
            failure: failure.map(str::to_owned),
        })
    };
    for id in 0..3 {
        log.event(Time(0), &Event::Arrived(request(id, (id % 2) as u16, 0)));
    }
    log.launched(Time(0), &launch(0, 0, 0));
    log.launched(Time(0), &launch(1, 1, 2));
    log.event(Time(10 * MS), &end(0, 0, 10, None));
    log.event(Time(40 * MS), &end(1, 0, 40, Some("x")));
    let ended = |id: u64, at: u64, outcome, variant, utility| Ended {
        request: request(id, (id % 2) as u16, 0),
        outcome,
        at: Time(at * MS),
        variant: Some(VariantId(variant)),
        energy_mj: 500.0,
        launches: 1,
        utility,
    };
    log.ended(&ended(0, 10, Outcome::Answered, 0, 1.0));
    log.ended(&ended(1, 40, Outcome::Late, 2, 0.5));
    log.finish(Time(100 * MS))
}

#[test]
fn a_summary_by_hand() {
    let summary = Summary::of(&by_hand(), &case());
    let total = &summary.total;
    assert_eq!((total.requests, total.on_time, total.late, total.open), (3, 1, 1, 1));
    assert_eq!(total.utility, 0.75);
    assert!((total.accuracy.unwrap() - 0.925).abs() < 1e-12);
    let near = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() <= 1e-3 * b, "{a:?} is not {b}");
    near(total.p50_ms, 10.0);
    near(total.p99_ms, 40.0);
    assert!((summary.processors[0].utilisation - 0.1).abs() < 1e-12);
    assert!((summary.processors[1].utilisation - 0.4).abs() < 1e-12);
    assert_eq!((summary.processors[1].launches, summary.processors[1].failures), (1, 1));
    assert!((summary.processors[0].energy_j - 0.5).abs() < 1e-12);
    assert!((summary.processors[0].idle_j - 0.5 * 0.09).abs() < 1e-12);
    // Shares 0.5 and 0: (0.5)^2 / (2 * 0.25).
    assert!((summary.fairness - 0.5).abs() < 1e-12);
}

#[test]
fn the_totals_add_up_and_both_ways_agree() {
    let mut setup: Setup = setup();
    setup.emulator.failure_rate = 0.05;
    for spec in ["edf", "eft", "fixed:cpu"] {
        let log = log(&setup, spec, 3);
        let from_log = Summary::of(&log, &setup.case);
        let streamed = run_once(&setup, spec, 3, &from_table).unwrap().summary;
        assert_eq!(from_log, streamed, "{spec}");
        let t = &from_log.total;
        assert_eq!(t.requests, t.on_time + t.late + t.dropped + t.expired + t.failed + t.open);
        assert_eq!((t.requests, t.open), (log.arrived() as u64, 0));
        assert!(t.requests > 400, "{}", t.requests);
        assert_eq!(from_log.streams.iter().map(|s| s.requests.requests).sum::<u64>(), t.requests);
    }
}

#[test]
fn a_log_survives_a_round_trip() {
    let log = by_hand();
    let text = serde_json::to_string(&log).unwrap();
    let back: RunLog = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), text);
    assert_eq!(Summary::of(&back, &case()), Summary::of(&log, &case()));
}

#[test]
fn tables_as_printed() {
    // By hand and not from a policy: a policy that gets better must not break this.
    let mut other = by_hand();
    other.name = "other".into();
    other.ended[1].outcome = Outcome::Dropped;
    let summaries = [Summary::of(&by_hand(), &case()), Summary::of(&other, &case())];
    insta::assert_snapshot!("summary_by_hand", Summary::of(&by_hand(), &case()));
    insta::assert_snapshot!("side_by_side", table::side_by_side(&summaries));
    insta::assert_snapshot!("processors", table::processors_side_by_side(&summaries));
}

/// The saboteur: a request that ended twice must not go unnoticed.
#[test]
#[should_panic(expected = "2 requests ended, but only 1 arrived")]
fn a_request_that_ended_twice_is_noticed() {
    let log = by_hand();
    let mut tally = Tally::new(case());
    tally.event(Time(0), &Event::Arrived(log.ended[0].request.clone()));
    tally.ended(&log.ended[0]);
    tally.ended(&log.ended[0]);
    tally.finish("twice", Time(1));
}
