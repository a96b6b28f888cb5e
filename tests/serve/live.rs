//! What people watch: the last seconds as data, the reason of a decision, the Chrome trace, the page. (`scripts/test-clients` opens the page in
//! a browser.)

use crate::http::{body, get, infer, receive, send};
use crate::rig::{Rig, Way, inputs};
use cosched::server::live::{Explained, State};
use serde_json::json;
use std::collections::BTreeSet;

fn state(rig: &Rig, query: &str) -> State {
    serde_json::from_value(get(rig.http, &format!("/live/state{query}")).json()).unwrap()
}

fn explain(rig: &Rig, number: u64) -> Explained {
    serde_json::from_value(get(rig.http, &format!("/live/decisions/{number}")).json()).unwrap()
}

#[test]
fn the_last_seconds_are_as_they_were() {
    let rig = Rig::new("edf");
    for seed in 0..3 {
        assert_eq!(infer(rig.http, "plain", &inputs(seed), json!({})).status, 200);
    }
    rig.gate.set(Way::Closed);
    let held = send(rig.http, "POST", "/v2/models/keyword/infer", &[], &body(&inputs(1), json!({})));
    rig.gate.holds(1);
    let seen = state(&rig, "");
    assert_eq!((seen.policy.as_str(), seen.fallbacks, seen.window_ms), ("edf", 0, 10_000.0));
    let [keyword, plain] = &seen.models[..] else { panic!("{:?}", seen.models) };
    assert_eq!((keyword.name.as_str(), keyword.pending, keyword.outcomes.len()), ("keyword", 1, 0));
    assert_eq!((plain.pending, &plain.outcomes), (0, &[("on time".to_owned(), 3)].into()));
    assert!(plain.p50_ms > 0.0 && plain.p50_ms <= plain.p99_ms, "{plain:?}");
    let (requests, launches) = (&seen.requests, &seen.launches);
    assert_eq!(requests.iter().filter(|r| r.outcome == "open" && r.end_ms.is_none()).count(), 1);
    assert_eq!((requests.len(), seen.processors.len()), (4, 1));
    // Every launch is of a request that is there, runs within its life, and comes from a decision that chose it.
    for l in launches {
        let request = requests.iter().find(|r| r.id == l.request).expect("its request");
        assert!(l.from_ms >= request.arrival_ms && l.to_ms.unwrap_or(0.0) <= seen.now_ms, "{l:?}");
        let reason = explain(&rig, l.decision);
        let chosen: Vec<_> = reason.candidates.iter().filter(|c| c.chosen).collect();
        let words = format!("{} {}-{} on cpu", l.variant, l.first, l.last);
        assert_eq!((chosen.len(), &chosen[0].what, chosen[0].request), (1, &words, Some(l.request)));
        assert_eq!(reason.brief.what, words);
        // The last one is always to wait, which takes nothing.
        let wait = reason.candidates.last().unwrap();
        assert_eq!((wait.what.as_str(), wait.launch_ms, wait.request), ("wait", None, None));
        assert!(
            chosen[0].slack_ms.unwrap() > 0.0 && chosen[0].answer_ms.unwrap() >= chosen[0].launch_ms.unwrap()
        );
    }
    let running: Vec<_> = launches.iter().filter(|l| l.to_ms.is_none()).collect();
    assert_eq!((running.len(), running[0].model), (1, 0));
    let busy = seen.processors[0].busy;
    assert!(busy > 0.0 && busy <= 1.0, "{busy}");
    rig.gate.set(Way::Open);
    assert_eq!(receive(held).status, 200);
    assert_eq!(state(&rig, "?window_ms=1").window_ms, 1.0);
}

#[test]
fn what_is_not_there_is_told() {
    let rig = Rig::new("edf");
    for query in ["?window_ms=0", "?window_ms=-1", "?window_ms=NaN", "?window_ms=1e9", "?x=1"] {
        let answer = get(rig.http, &format!("/live/state{query}"));
        assert_eq!((answer.status, answer.error().contains("window_ms")), (400, true), "{query}");
    }
    for number in ["0", "999999", "x", "-1", "99999999999999999999999"] {
        let answer = get(rig.http, &format!("/live/decisions/{number}"));
        assert_eq!((answer.status, answer.error().contains("is not kept")), (404, true), "{number}");
    }
}

#[test]
fn a_decision_of_the_network_comes_with_its_scores() {
    let rig = Rig::new("learned:@20");
    assert_eq!(infer(rig.http, "keyword", &inputs(1), json!({})).status, 200);
    let numbers: BTreeSet<u64> = state(&rig, "").launches.iter().map(|l| l.decision).collect();
    for number in numbers {
        let scores: Vec<_> = explain(&rig, number).candidates.iter().map(|c| c.score).collect();
        // All or none: where the case's trial found no margin for the network, the first guide decides alone.
        assert!(scores.iter().all(Option::is_some) || scores.iter().all(Option::is_none), "{scores:?}");
    }
}

#[test]
fn the_trace_opens_at_any_moment() {
    let rig = Rig::new("edf");
    assert_eq!(infer(rig.http, "plain", &inputs(1), json!({})).status, 200);
    let answer = get(rig.http, "/live/trace");
    assert!(answer.header("content-disposition").unwrap().contains("cosched-trace.json"));
    let trace = answer.json();
    let events = trace["traceEvents"].as_array().unwrap();
    let slices = |cat: &str| events.iter().filter(|e| e["ph"] == "X" && e["cat"] == cat).count();
    assert!(slices("launch") >= 1 && slices("request") == 1, "{trace}");
    let numbers = |e: &serde_json::Value| e["pid"].is_u64() && e["tid"].is_u64();
    assert!(events.iter().all(numbers), "{trace}");
}

#[test]
fn the_page_takes_nothing_from_elsewhere() {
    let rig = Rig::new("edf");
    let page = get(rig.http, "/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    let text = String::from_utf8(page.body).unwrap();
    assert!(!text.contains("src=") && !text.contains("innerHTML"), "text of others becomes part of the page");
    assert!(text.matches("http").count() <= 1, "it names other hosts");
}
