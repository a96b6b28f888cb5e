//! Things go wrong on purpose: launches fail, the processor dies, hangs, makes NaN; the policy panics or dawdles. Every request ends once,
//! every answer is right, and the server is well afterwards.

use crate::http::{body, get, infer, receive, send};
use crate::rig::{Rig, Way, difference, inputs, options, reference};
use cosched::executors::live::Trouble;
use cosched::server::Options;
use serde_json::json;
use std::time::Duration;

fn rig(faults: &[&str]) -> Rig {
    rig_with_slots(faults, 1)
}

fn rig_with_slots(faults: &[&str], slots: u32) -> Rig {
    let injections = faults.iter().map(|f| f.parse().unwrap()).collect();
    let trouble = Trouble { injections, ..options().trouble };
    Rig::with_slots("edf", slots, &Options { trouble, decision: Duration::from_millis(20), ..options() })
}

/// Sends `n` requests one after the other; how many were answered. Whatever is answered is right.
fn answered(rig: &Rig, n: u64) -> u64 {
    let mut answered = 0;
    for seed in 0..n {
        let answer = infer(rig.http, "plain", &inputs(seed), json!({}));
        if answer.status == 200 {
            answered += 1;
            let off = difference(&answer.outputs()[0].1, &reference("kws_small", &inputs(seed)));
            assert!(off < 1e-4, "request {seed} is off by {off}");
        } else {
            assert_eq!(answer.status, 500, "{}", answer.error());
        }
    }
    let counted = rig.server().core().stats.read();
    let (of, failed) = (&counted.models[1], rig.failures(1, "BACKEND"));
    assert_eq!((of.success.count, of.success.count + failed), (answered, n));
    answered
}

#[test]
fn failed_launches_are_tried_again() {
    for (fault, words) in [("cpu:fail:0.3", "failed"), ("cpu:die:0.2", "died"), ("cpu:nan:0.2", "NaN")] {
        let rig = rig(&[fault]);
        let good = answered(&rig, 30);
        let counted = rig.server().core().stats.read();
        // With these shares a request fails as often as is allowed once in a hundred times or less.
        assert!(good >= 25 && counted.processors[0].failed > 0, "{fault} ({words}): {good} good");
        rig.until("the processor is up", |s| s.core().stats.read().processors[0].up);
    }
}

#[test]
fn a_processor_of_two_slots_runs_two_launches_at_a_time_and_dies_as_one() {
    for slots in [1, 2] {
        let rig = rig_with_slots(&[], slots);
        rig.gate.set(Way::Closed);
        let ask = |seed| {
            let question = body(&inputs(seed), json!({}));
            send(rig.http, "POST", "/v2/models/plain/infer", &[], &question)
        };
        let asked: Vec<_> = (0..4).map(ask).collect();
        rig.pending(1, 4);
        rig.gate.holds(slots as usize);
        std::thread::sleep(Duration::from_millis(50));
        rig.gate.holds(slots as usize);
        rig.gate.set(Way::Open);
        for (seed, answer) in asked.into_iter().map(receive).enumerate() {
            let off = difference(&answer.outputs()[0].1, &reference("kws_small", &inputs(seed as u64)));
            assert!(answer.status == 200 && off < 1e-4, "request {seed} is off by {off}");
        }
    }
    let rig = rig_with_slots(&["cpu:die:0.2"], 2);
    let ends = std::thread::scope(|scope| {
        let ask = |seed| infer(rig.http, "plain", &inputs(seed), json!({})).status;
        let four = [0, 100, 200, 300];
        let four = four.map(|from| scope.spawn(move || (from..from + 15).map(ask).collect::<Vec<_>>()));
        four.map(|f| f.join().unwrap()).concat()
    });
    let good = ends.iter().filter(|&&status| status == 200).count();
    assert!(good > 40 && ends.iter().all(|status| [200, 500].contains(status)), "{ends:?}");
    rig.until("the processor is up", |s| s.core().stats.read().processors[0].up);
}

#[test]
fn a_processor_that_always_makes_nan_answers_nothing() {
    let rig = rig(&["cpu:nan:1"]);
    let answer = infer(rig.http, "plain", &inputs(1), json!({}));
    assert_eq!((answer.status, answer.error().contains("NaN")), (500, true), "{}", answer.error());
}

#[test]
fn nan_that_was_sent_is_the_callers_own() {
    let rig = Rig::new("edf");
    let mut values = inputs(1);
    values[7] = f32::NAN;
    let (bytes, json_bytes) = crate::http::binary_body(&values, json!({}));
    let headers = [("Inference-Header-Content-Length", json_bytes.to_string())];
    let answer = receive(send(rig.http, "POST", "/v2/models/plain/infer", &headers, &bytes));
    assert_eq!(answer.status, 200, "{}", answer.error());
    let counted = rig.server().core().stats.read();
    assert!(counted.processors[0].up && counted.processors[0].failed == 0, "a caller took the processor out");
}

#[test]
fn a_hanging_processor_is_taken_out_and_taken_back() {
    let trouble = Trouble { patience: Some(Duration::from_millis(300)), injections: Vec::new() };
    let rig = Rig::with("edf", &Options { trouble, ..options() });
    rig.gate.set(Way::Hung);
    let first = send(rig.http, "POST", "/v2/models/plain/infer", &[], &body(&inputs(1), json!({})));
    rig.until("it is taken out", |s| !s.core().stats.read().processors[0].up);
    assert!(!receive_now(rig.http, "/metrics").contains("cosched_processor_up{processor=\"cpu\"} 1"));
    let second = send(rig.http, "POST", "/v2/models/keyword/infer", &[], &body(&inputs(2), json!({})));
    rig.pending(0, 1);
    rig.gate.set(Way::Open);
    rig.until("it is taken back", |s| s.core().stats.read().processors[0].up);
    // Both are answered: the first one's launch is made again.
    assert_eq!((receive(first).status, receive(second).status), (200, 200));
    assert!(rig.server().core().stats.read().processors[0].failed >= 1);
}

fn receive_now(to: std::net::SocketAddr, path: &str) -> String {
    String::from_utf8(get(to, path).body).unwrap()
}

#[test]
fn a_server_whose_processor_hangs_can_be_shut_down() {
    let trouble = Trouble { patience: Some(Duration::from_millis(300)), injections: Vec::new() };
    let mut rig = Rig::with("edf", &Options { trouble, drain: Duration::from_millis(300), ..options() });
    rig.gate.set(Way::Hung);
    let question = body(&inputs(1), json!({"deadline_ms": 60_000}));
    let first = send(rig.http, "POST", "/v2/models/plain/infer", &[], &question);
    rig.gate.holds(1);
    rig.until("it is taken out", |s| !s.core().stats.read().processors[0].up);
    rig.server.take().unwrap().shutdown();
    assert_eq!(receive(first).status, 503);
}

#[test]
fn the_fallback_decides_where_the_policy_cannot() {
    for (fault, reason) in [("policy:panic:0.5", "it panicked"), ("policy:slow=60:0.2", "it was too slow")] {
        let rig = rig(&[fault]);
        assert_eq!(answered(&rig, 20), 20, "{fault}");
        let fallbacks = rig.server().core().stats.read().fallbacks;
        assert!(fallbacks.get(reason).is_some_and(|&n| n > 0), "{fault}: {fallbacks:?}");
        let line = format!("cosched_fallback_decisions_total{{reason=\"{reason}\"}} {}\n", fallbacks[reason]);
        assert!(receive_now(rig.http, "/metrics").contains(&line), "{line}");
    }
    // A policy that is well is never replaced.
    let rig = Rig::new("edf");
    assert_eq!(answered(&rig, 10), 10);
    assert!(rig.server().core().stats.read().fallbacks.is_empty());
}
