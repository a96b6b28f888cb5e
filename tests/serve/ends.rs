//! The other ways to end, each told to its caller in its own words, once: expired, dropped, replaced, failed, refused, withdrawn, late,
//! shut down. Launches are held by the gate, so that what happens is not a matter of luck.

use crate::http::{Answer, body, get, infer, receive, send};
use crate::rig::{PATIENCE, Rig, Way, inputs, options};
use cosched::server::Options;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Sends a request without waiting for its answer.
fn begin(rig: &Rig, model: &str, parameters: Value) -> TcpStream {
    send(rig.http, "POST", &format!("/v2/models/{model}/infer"), &[], &body(&inputs(1), parameters))
}

fn check(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&answer.body));
    assert!(answer.error().contains(words), "{}", answer.error());
}

/// A server on which one request runs and is held.
fn held(policy: &str, options: &Options) -> (Rig, TcpStream) {
    let rig = Rig::with(policy, options);
    rig.gate.set(Way::Closed);
    let first = begin(&rig, "plain", json!({}));
    rig.gate.holds(1);
    (rig, first)
}

#[test]
fn a_request_that_waits_too_long_is_told_so_in_time() {
    let (rig, first) = held("edf", &options());
    let begun = Instant::now();
    let answer = receive(begin(&rig, "keyword", json!({"timeout": 50_000})));
    let took = begun.elapsed();
    check(&answer, 504, "in the queue");
    // Not before its time, and long before anything else would end it.
    assert!(took >= Duration::from_millis(50) && took < PATIENCE / 2, "{took:?}");
    let answer = receive(begin(&rig, "keyword", json!({"deadline_ms": 20})));
    check(&answer, 504, "expired after ");
    // Twice the deadline, as for streams that do not say.
    let ms: f64 = answer.error().split(' ').nth(2).unwrap().parse().unwrap();
    assert!(ms >= 40.0, "{}", answer.error());
    assert_eq!(rig.failures(0, "EXPIRED"), 2);
    rig.gate.set(Way::Open);
    assert_eq!(receive(first).status, 200);
}

#[test]
fn an_answer_after_its_deadline_says_so() {
    let rig = Rig::new("edf");
    rig.gate.set(Way::Closed);
    let late = begin(&rig, "plain", json!({"deadline_ms": 1, "timeout": 60_000_000}));
    rig.gate.holds(1);
    std::thread::sleep(Duration::from_millis(5));
    rig.gate.set(Way::Open);
    let answer = receive(late);
    assert_eq!((answer.status, &answer.json()["parameters"]["late"]), (200, &json!(true)));
    assert_eq!(rig.server().core().stats.read().models[1].late, 1);
}

#[test]
fn what_the_policy_drops_is_unavailable() {
    let (rig, first) = held("edf-skip", &options());
    // It can no longer be on time, and something else waits: this policy gives it up.
    let hopeless = begin(&rig, "keyword", json!({"deadline_ms": 0.001, "timeout": 60_000_000}));
    rig.pending(0, 1);
    let other = begin(&rig, "plain", json!({}));
    rig.pending(1, 2);
    rig.gate.set(Way::Open);
    check(&receive(hopeless), 503, "dropped by the policy");
    assert_eq!((receive(first).status, receive(other).status), (200, 200));
    assert_eq!(rig.failures(0, "DROPPED"), 1);
}

#[test]
fn a_newer_frame_takes_the_place_of_an_older_one() {
    let (rig, first) = held("edf", &options());
    let old = begin(&rig, "keyword", json!({"stream": "camera"}));
    rig.pending(0, 1);
    let new = begin(&rig, "keyword", json!({"stream": "camera"}));
    check(&receive(old), 503, "replaced");
    rig.gate.set(Way::Open);
    assert_eq!((receive(first).status, receive(new).status), (200, 200));
    assert_eq!(rig.failures(0, "REPLACED"), 1);
}

#[test]
fn a_failed_launch_is_the_servers_fault() {
    let rig = Rig::new("edf");
    rig.gate.set(Way::Broken);
    check(&infer(rig.http, "plain", &inputs(1), json!({})), 500, "broken on purpose");
    rig.gate.set(Way::Open);
    assert_eq!(infer(rig.http, "plain", &inputs(1), json!({})).status, 200);
    assert_eq!(rig.failures(1, "BACKEND"), 1);
}

#[test]
fn a_full_queue_refuses_and_has_room_again() {
    let (rig, first) = held("edf", &Options { queue: 2, ..options() });
    let second = begin(&rig, "plain", json!({}));
    rig.pending(1, 2);
    check(&infer(rig.http, "plain", &inputs(1), json!({})), 503, "the queue of model `plain` is full: 2");
    assert_eq!(rig.failures(1, "REJECTED"), 1);
    // Another model has a queue of its own.
    let other = begin(&rig, "keyword", json!({}));
    rig.pending(0, 1);
    rig.gate.set(Way::Open);
    for stream in [first, second, other] {
        assert_eq!(receive(stream).status, 200);
    }
    rig.pending(1, 0);
    assert_eq!(infer(rig.http, "plain", &inputs(1), json!({})).status, 200);
}

#[test]
fn a_caller_that_goes_away_takes_its_request_along() {
    let (rig, first) = held("edf", &options());
    let gone = begin(&rig, "keyword", json!({}));
    rig.pending(0, 1);
    drop(gone);
    rig.pending(0, 0);
    assert_eq!(rig.failures(0, "CANCELED"), 1);
    // One that runs frees its processor, though the gate is still closed: the next is held there.
    drop(first);
    rig.until("the first is canceled", |_| rig.failures(1, "CANCELED") == 1);
    rig.pending(1, 0);
    let third = begin(&rig, "plain", json!({}));
    rig.pending(1, 1);
    rig.gate.holds(1);
    let counted = |outcome: &str| {
        let line = format!("cosched_launches_total{{processor=\"cpu\",outcome=\"{outcome}\"}} ");
        let page = String::from_utf8(get(rig.http, "/metrics").body).unwrap();
        page.lines().find_map(|l| l.strip_prefix(&line)).map(|n| n.parse::<f64>().unwrap())
    };
    assert_eq!((counted("stopped"), counted("failed")), (Some(1.0), Some(0.0)));
    rig.gate.set(Way::Open);
    assert_eq!(receive(third).status, 200);
    rig.pending(1, 0);
}

#[test]
fn shutdown_lets_requests_end_and_refuses_new_ones() {
    let (mut rig, first) = held("edf", &options());
    let second = begin(&rig, "keyword", json!({}));
    rig.pending(0, 1);
    let server = rig.server.take().unwrap();
    let (http, grpc) = (rig.http, rig.grpc);
    std::thread::scope(|scope| {
        let ending = scope.spawn(move || server.shutdown());
        let begun = Instant::now();
        while get(http, "/v2/health/ready").status != 503 {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(get(http, "/v2/health/ready").json(), json!({"ready": false}));
        assert_eq!(get(http, "/v2/health/live").status, 200);
        check(&infer(http, "plain", &inputs(1), json!({})), 503, "shutting down");
        assert!(!ending.is_finished(), "it does not wait");
        rig.gate.set(Way::Open);
        assert_eq!((receive(first).status, receive(second).status), (200, 200));
        ending.join().unwrap();
    });
    assert!(TcpStream::connect(http).is_err() && TcpStream::connect(grpc).is_err(), "it still listens");
}

#[test]
fn shutdown_gives_up_what_does_not_end() {
    let (mut rig, first) = held("edf", &Options { drain: Duration::from_millis(100), ..options() });
    let second = begin(&rig, "keyword", json!({}));
    rig.pending(0, 1);
    let server = rig.server.take().unwrap();
    let ending = std::thread::spawn(move || server.shutdown());
    check(&receive(first), 503, "shutting down");
    check(&receive(second), 503, "shutting down");
    rig.gate.set(Way::Open);
    ending.join().unwrap();
}
