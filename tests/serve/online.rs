//! `serve --online`: what is served teaches, the guard's state is in the metrics, a change while it runs and a restart go on from what was
//! learned. Nothing here looks at latencies.
#![cfg(feature = "train")]

use crate::command::{address, signal, spawn, wait};
use crate::http::{get, infer, post};
use crate::rig::{PATIENCE, inputs};
use cosched::agent::online::state::{State, load};
use cosched::experiments::app::App;
use cosched::server::model::serving;
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::time::Instant;

const APP: &str = r#"name = "served"
processors = ["cpu"]
plan = "plan.json"
[[task]]
name = "keyword"
[[task.variant]]
model = "zoo:kws"
accuracy = 0.94
[[task.variant]]
model = "zoo:kws_small"
accuracy = 0.9
[[stream]]
task = "keyword"
period_ms = 20
deadline_ms = 20000
"#;

fn start(folder: &Path) -> (Child, SocketAddr) {
    let arguments =
        "app.toml -p learned:@40 --online --learn-state state --control --http-port 0 --grpc-port 0";
    let mut child = spawn(folder, &arguments.split(' ').collect::<Vec<_>>());
    let http = address(&mut child);
    (child, http)
}

fn ask(http: SocketAddr, times: u64) {
    for seed in 0..times {
        let answer = infer(http, "keyword", &inputs(seed), json!({}));
        assert_eq!(answer.status, 200, "{}", answer.error());
    }
}

/// A number of the metrics.
fn number(http: SocketAddr, name: &str) -> Option<f64> {
    let page = String::from_utf8(get(http, "/metrics").body).unwrap();
    let line = page.lines().find(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !true_now() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// What is kept in the folder, and how many launches it has seen.
fn kept(folder: &Path) -> (State, u32) {
    let case = serving(App::read(&folder.join("app.toml")).unwrap()).case().unwrap();
    let state = load(&folder.join("state"), &case).unwrap().expect("a state");
    let seen = state.profile.processors.iter().map(|p| p.seen).sum();
    (state, seen)
}

#[test]
fn a_restart_goes_on_from_what_was_learned() {
    let folder = std::env::temp_dir().join(format!("cosched-serve-online-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("app.toml"), APP).unwrap();
    let (mut child, http) = start(&folder);
    ask(http, 60);
    // What the last decision led to is only known at the next one.
    until("the learner hears", || number(http, "cosched_online_decisions_total").is_some_and(|n| n >= 59.0));
    assert_eq!(number(http, "cosched_online_acting{who=\"good\"}"), Some(1.0));
    assert_eq!(number(http, "cosched_online_lessons_total"), Some(0.0));
    assert!(get(http, "/live/state").json()["learning"].as_str().unwrap().contains("last good weights"));
    // Read again while it runs: the next engine goes on from there.
    let before = kept(&folder).1;
    signal(&child, "-HUP");
    until("what was learned is kept for the next engine", || kept(&folder).1 >= before + 60);
    // The engine before goes on until the next one is ready, which begins to count anew.
    let mut swapped = false;
    until("the next engine decides", || {
        ask(http, 1);
        let heard = number(http, "cosched_online_decisions_total").unwrap_or(0.0);
        swapped |= heard < 59.0;
        swapped && heard >= 39.0
    });
    signal(&child, "-TERM");
    assert_eq!(wait(&mut child), Some(0));
    let (first, seen) = kept(&folder);
    assert!(seen >= before + 60 + 39, "{seen} launches of 100 requests and more, {before} before");
    let (mut child, http) = start(&folder);
    ask(http, 30);
    // Another policy does not learn; what was learned stays.
    for (policy, learns) in [("edf", false), ("learned:@40", true)] {
        let chosen = json!({ "policy": policy }).to_string();
        assert_eq!(post(http, "/cosched/policy", chosen.as_bytes()).status, 200);
        let told = || number(http, "cosched_online_decisions_total").is_some() == learns;
        until("the learner comes and goes with its policy", told);
        ask(http, 1);
    }
    signal(&child, "-TERM");
    assert_eq!(wait(&mut child), Some(0));
    let (second, after) = kept(&folder);
    assert!(after >= seen + 30, "{after} launches after {seen} and 30 requests");
    assert_eq!(first.good, second.good, "no lesson was long enough to change them");
    // A state of another plan is refused at the start, and put aside when the plan changes while it runs.
    let (mut child, http) = start(&folder);
    std::fs::write(folder.join("app.toml"), APP.replace("[[stream]]\n", "[[task]]\nname = \"second\"\n[[task.variant]]\nmodel = \"zoo:kws_small\"\nname = \"other\"\naccuracy = 0.9\n[[stream]]\n")).unwrap();
    signal(&child, "-HUP");
    until("the new task", || get(http, "/v2/models/second/ready").status == 200);
    assert!(folder.join("state.before").exists());
    signal(&child, "-TERM");
    assert_eq!(wait(&mut child), Some(0));
    std::fs::rename(folder.join("state.before"), folder.join("state")).unwrap();
    let mut child = spawn(
        &folder,
        &["app.toml", "--online", "--learn-state", "state", "--http-port", "0", "--grpc-port", "0"],
    );
    assert_eq!(wait(&mut child), Some(1));
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(said.contains("learn state state") && said.contains("another plan"), "{said}");
    let _ = std::fs::remove_dir_all(&folder);
}
