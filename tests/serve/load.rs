//! The load tool against the server: what it counts is what the server counts, a stall shows, and errors are told by status.

use crate::rig::{PATIENCE, Rig, Way, options};
use cosched::load::{Arrivals, Client, ClientError, Load, Question, run};
use cosched::server::Options;
use serde_json::json;
use std::process::Command;
use std::time::Duration;

fn load(rate: f64, ms: u64) -> Load {
    let (length, warm_up) = (Duration::from_millis(ms), Duration::from_millis(ms / 4));
    Load { arrivals: Arrivals::Poisson, rate, length, warm_up, seed: 5, patience: PATIENCE }
}

#[test]
fn it_counts_what_the_server_counts() {
    let rig = Rig::new("edf");
    let client = Client::new(&rig.http.to_string());
    let question = Question::prepare(&client, "keyword", &json!({"variant": "kws_small"}), 1).unwrap();
    let load = load(200.0, 1000);
    let (all, counted) = (load.times().count(), load.times().filter(|&t| t >= load.warm_up).count());
    let outcome = run(client, question, &load).unwrap();
    assert_eq!((outcome.requests, outcome.answered), (counted as u64, counted as u64), "{outcome:?}");
    let stats = rig.server().core().stats.read();
    assert_eq!(
        (stats.models[0].success.count, stats.models[0].variants["kws_small"]),
        (all as u64, all as u64)
    );
    let (due, sent) = (outcome.latency, outcome.uncorrected);
    assert!(due.p50_ms > 0.0 && due.p50_ms <= due.p99_ms && due.max_ms >= sent.max_ms, "{outcome:?}");
}

#[test]
fn callers_in_a_closed_loop_never_have_two_requests_each() {
    let rig = Rig::new("edf");
    let client = Client::new(&rig.http.to_string());
    let question = Question::prepare(&client, "plain", &json!({}), 1).unwrap();
    rig.gate.set(Way::Closed);
    let load = Load { arrivals: Arrivals::Closed(3), ..load(1.0, 400) };
    let outcome = std::thread::scope(|scope| {
        let sending = scope.spawn(|| run(client, question, &load).unwrap());
        rig.pending(1, 3);
        std::thread::sleep(Duration::from_millis(50));
        // One is held, two wait, and nobody else comes.
        rig.gate.holds(1);
        rig.pending(1, 3);
        rig.gate.set(Way::Open);
        sending.join().unwrap()
    });
    let counted = rig.server().core().stats.read().models[1].success.count;
    assert!(
        outcome.answered == outcome.requests && outcome.requests <= counted && counted > 3,
        "{outcome:?}"
    );
}

/// Exit code, standard output and standard error of `cosched load`.
fn command(address: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let always = ["load", address, "--seconds", "0.3", "--warm-up", "0"];
    let output = Command::new(env!("CARGO_BIN_EXE_cosched")).args(always).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_tells_what_the_server_says() {
    let rig = Rig::new("edf");
    let address = rig.http.to_string();
    let (code, said, _) = command(&address, &["--model", "plain", "--clients", "2"]);
    assert!(code == Some(0) && said.contains("p99.9"), "{said}");
    let wrong = ["--model", "plain", "--rate", "100", "--parameter", "variant=x"];
    let (code, said, error) = command(&address, &wrong);
    assert!(code == Some(1) && said.contains(" x status 400: ") && !said.contains("p99"), "{said}");
    assert!(error.contains("was answered: status 400: ") && error.contains("`x`"), "{error}");
    for (arguments, words) in [
        (vec!["--model", "plane", "--rate", "1"], "unknown model"),
        (vec!["--model", "plain", "--rate", "1", "--timeout", "0"], "--timeout"),
    ] {
        let (code, _, error) = command(&address, &arguments);
        assert!(code.is_some_and(|c| c > 0) && error.contains(words), "{error}");
    }
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let rig = Rig::new("edf");
    let client = Client::new(&rig.http.to_string());
    let question = Question::prepare(&client, "plain", &json!({}), 1).unwrap();
    rig.gate.set(Way::Closed);
    let load = Load { patience: Duration::from_millis(250), ..load(100.0, 100) };
    let outcome = run(client, question, &load).unwrap();
    assert_eq!((outcome.answered, outcome.refused["no answer in 0.25 s"]), (0, outcome.requests));
    assert!(outcome.requests > 0);
}

#[test]
fn refusals_are_counted_by_status() {
    let rig = Rig::with("edf", &Options { queue: 1, ..options() });
    let client = Client::new(&rig.http.to_string());
    let question = Question::prepare(&client, "plain", &json!({}), 1).unwrap();
    rig.gate.set(Way::Closed);
    let outcome = std::thread::scope(|scope| {
        let sending = scope.spawn(|| run(client, question, &load(100.0, 400)).unwrap());
        // One is held, all others find the queue full, until the gate opens.
        rig.until("refusals", |s| {
            s.core().stats.read().models[1].failures.get("REJECTED").is_some_and(|t| t.count >= 10)
        });
        rig.gate.set(Way::Open);
        sending.join().unwrap()
    });
    assert_eq!(outcome.answered + outcome.refused.values().sum::<u64>(), outcome.requests);
    assert!(outcome.refused["503"] > 0, "{outcome:?}");
}

#[test]
fn a_server_that_is_none_is_named() {
    let rig = Rig::new("edf");
    let client = Client::new(&rig.http.to_string());
    let error = Question::prepare(&client, "nope", &json!({}), 1).err().unwrap();
    assert!(matches!(error, ClientError::Unexpected { .. }) && error.to_string().contains("404"), "{error}");
    let error = Question::prepare(&Client::new("127.0.0.1:1"), "x", &json!({}), 1).err().unwrap();
    assert!(error.to_string().contains("127.0.0.1:1: connect"), "{error}");
}
