//! What is served changes while it is served: models come and go, another policy decides, the app is read again. No request is lost, and
//! what cannot be is refused with everything left as it was.

use crate::http::{Answer, body, get, infer, post, receive, send};
use crate::rig::{APP, Gate, Rig, Way, deployment, difference, inputs, options, reference};
use cosched::executors::deploy::Deployment;
use cosched::executors::processor::Processor;
use cosched::executors::segment::CutOptions;
use cosched::server::Options;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn rig() -> Rig {
    Rig::with("edf", &Options { control: true, ..options() })
}

fn states(rig: &Rig) -> Vec<(String, String)> {
    let index = post(rig.http, "/v2/repository/index", b"").json();
    let word = |v: &Value, key: &str| v[key].as_str().unwrap().to_owned();
    index.as_array().unwrap().iter().map(|m| (word(m, "name"), word(m, "state"))).collect()
}

fn owned(states: &[(&str, &str)]) -> Vec<(String, String)> {
    states.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn choose(rig: &Rig, policy: &str) -> Answer {
    post(rig.http, "/cosched/policy", json!({ "policy": policy }).to_string().as_bytes())
}

#[test]
fn a_model_goes_and_comes_back_and_nothing_is_lost() {
    let rig = rig();
    rig.gate.set(Way::Closed);
    let ask = |model: &str| {
        send(rig.http, "POST", &format!("/v2/models/{model}/infer"), &[], &body(&inputs(1), json!({})))
    };
    let runs = ask("plain");
    rig.gate.holds(1);
    let waits = ask("plain");
    rig.pending(1, 2);
    assert_eq!(post(rig.http, "/v2/repository/models/plain/unload", b"{}").status, 200);
    assert_eq!(states(&rig), owned(&[("keyword", "READY"), ("plain", "UNAVAILABLE")]));
    let answer = infer(rig.http, "plain", &inputs(1), json!({}));
    assert_eq!(answer.status, 404, "{}", answer.error());
    assert_eq!(get(rig.http, "/v2/models/plain").status, 404);
    assert_eq!(get(rig.http, "/v2/models/keyword/ready").status, 200);
    // Both that came before are still there, and are answered by what they were sent to.
    rig.gate.set(Way::Open);
    for stream in [runs, waits] {
        let answer = receive(stream);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert!(difference(&answer.outputs()[0].1, &reference("kws_small", &inputs(1))) < 1e-4);
    }
    assert_eq!(infer(rig.http, "keyword", &inputs(2), json!({})).status, 200);
    assert_eq!(post(rig.http, "/v2/repository/models/plain/load", b"").status, 200);
    assert_eq!(states(&rig), owned(&[("keyword", "READY"), ("plain", "READY")]));
    let answer = infer(rig.http, "plain", &inputs(3), json!({}));
    assert!(difference(&answer.outputs()[0].1, &reference("kws_small", &inputs(3))) < 1e-4);
    // It is counted where it was counted before.
    let stats = get(rig.http, "/v2/models/plain/stats").json();
    assert_eq!(stats["model_stats"][0]["inference_stats"]["success"]["count"], 3);
}

#[test]
fn what_cannot_be_changes_nothing() {
    let rig = rig();
    let answer = post(rig.http, "/v2/repository/models/nope/load", b"");
    assert_eq!((answer.status, answer.error().contains("unknown model")), (404, true));
    assert_eq!(post(rig.http, "/v2/repository/models/nope/unload", b"").status, 404);
    assert_eq!(post(rig.http, "/v2/repository/models/plain/unload", b"").status, 200);
    let last = post(rig.http, "/v2/repository/models/keyword/unload", b"");
    assert_eq!(last.status, 400, "nothing would be left");
    let answer = choose(&rig, "edff");
    assert_eq!((answer.status, answer.error().contains("edff")), (400, true), "{}", answer.error());
    assert_eq!(post(rig.http, "/cosched/policy", b"{}").status, 400);
    rig.text.lock().unwrap().push_str("\nspeed = 3\n");
    assert_eq!(post(rig.http, "/cosched/reload", b"").status, 400);
    assert_eq!(states(&rig), owned(&[("keyword", "READY"), ("plain", "UNAVAILABLE")]));
    assert_eq!(get(rig.http, "/cosched/policy").json(), json!({"policy": "edf"}));
    assert_eq!(infer(rig.http, "keyword", &inputs(1), json!({})).status, 200);
}

#[test]
fn callers_may_change_nothing_unless_they_may() {
    let rig = Rig::new("edf");
    for path in ["/v2/repository/models/plain/load", "/v2/repository/models/plain/unload", "/cosched/reload"]
    {
        let answer = post(rig.http, path, b"");
        assert_eq!((answer.status, answer.error().contains("--control")), (501, true));
    }
    assert_eq!(choose(&rig, "eft").status, 501);
    assert_eq!(states(&rig), owned(&[("keyword", "READY"), ("plain", "READY")]));
}

#[test]
fn the_app_is_read_again() {
    let rig = rig();
    let told =
        |rig: &Rig| infer(rig.http, "keyword", &inputs(1), json!({})).json()["parameters"]["late"].clone();
    assert_eq!(told(&rig), json!(false));
    // A deadline that nothing can meet, and only the small variant.
    let changed = APP.replace("deadline_ms = 30000", "deadline_ms = 0.001\nexpire_ms = 30000");
    *rig.text.lock().unwrap() =
        changed.replace("[[task.variant]]\nmodel = \"zoo:kws\"\naccuracy = 0.94\n", "");
    assert_eq!(post(rig.http, "/cosched/reload", b"").status, 200);
    let answer = infer(rig.http, "keyword", &inputs(1), json!({}));
    let parameters = answer.json()["parameters"].clone();
    assert_eq!((&parameters["late"], &parameters["variant"]), (&json!(true), &json!("kws_small")));
}

#[test]
fn no_request_is_lost_while_policies_change() {
    let rig = rig();
    let over = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|i| {
                let (over, http) = (&over, rig.http);
                scope.spawn(move || {
                    let mut answered = 0_u64;
                    while !over.load(Ordering::Relaxed) {
                        let model = if i % 2 == 0 { "keyword" } else { "plain" };
                        let answer = infer(http, model, &inputs(i), json!({}));
                        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        for policy in ["eft", "least-slack", "edf", "round-robin", "greedy", "edf-skip"] {
            assert_eq!(choose(&rig, policy).status, 200, "{policy}");
            assert_eq!(get(rig.http, "/cosched/policy").json(), json!({ "policy": policy }));
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        over.store(true, Ordering::Relaxed);
        callers.into_iter().map(|c| c.join().unwrap()).sum::<u64>()
    });
    rig.pending(0, 0);
    rig.pending(1, 0);
    let counted = rig.server().core().stats.read();
    assert_eq!(counted.models.iter().map(|m| m.success.count).sum::<u64>(), answered);
    assert!(counted.models.iter().all(|m| m.failures.is_empty()) && answered > 6, "{answered}");
}

#[test]
fn what_is_the_same_is_not_prepared_again() {
    let gate = Arc::new(Gate::new());
    let first = deployment(&gate);
    let count = || gate.prepared.load(Ordering::Relaxed);
    let (all, cut) = (count(), CutOptions { max_segments: 2, min_share: 0.1 });
    let again = |keep: usize, processors: &[Arc<dyn Processor>], cut: &CutOptions| {
        let models = first.variants[..keep].iter().map(|v| v.model.clone()).collect();
        let made =
            Deployment::again(Some(&first), models, processors.to_vec(), cut, &mut |_, _, _| {}).unwrap();
        assert_eq!(made.variants.len(), keep);
        count()
    };
    assert_eq!((again(3, &first.processors, &cut), again(1, &first.processors, &cut)), (all, all));
    // Other processors, or another cut, and everything is.
    let other = deployment(&gate);
    let before = count();
    assert_eq!((before, again(3, &other.processors, &cut)), (2 * all, 3 * all));
    assert_eq!(again(3, &first.processors, &CutOptions { max_segments: 1, min_share: 0.1 }), 3 * all + 3);
}
