//! Chrome traces: well-formed, balanced flows, no overlap on a track; and broken ones are told apart.

use crate::fixture::{log, setup};
use cosched_experiments::trace::chrome_trace;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Every rule that a trace must keep; the first that is broken.
fn check(trace: &Value) -> Result<(), String> {
    let events = trace["traceEvents"].as_array().ok_or("no events")?;
    let mut tracks: BTreeMap<(u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
    let mut flows: BTreeMap<u64, Vec<(f64, String)>> = BTreeMap::new();
    let mut named = Vec::new();
    for e in events {
        let (pid, tid) = (e["pid"].as_u64().ok_or("pid")?, e["tid"].as_u64().ok_or("tid")?);
        match e["ph"].as_str().ok_or("ph")? {
            "X" => {
                let (ts, dur) = (e["ts"].as_f64().ok_or("ts")?, e["dur"].as_f64().ok_or("dur")?);
                if dur < 0.0 || ts < 0.0 {
                    return Err(format!("negative time: {e}"));
                }
                tracks.entry((pid, tid)).or_default().push((ts, ts + dur));
            }
            ph @ ("s" | "t" | "f") => {
                let (id, ts) = (e["id"].as_u64().ok_or("id")?, e["ts"].as_f64().ok_or("flow ts")?);
                let inside = events.iter().any(|s| {
                    s["ph"] == "X"
                        && s["pid"] == e["pid"]
                        && s["tid"] == e["tid"]
                        && s["ts"].as_f64() <= Some(ts)
                        && s["ts"].as_f64().unwrap() + s["dur"].as_f64().unwrap() >= ts
                });
                if !inside {
                    return Err(format!("a flow outside any slice: {e}"));
                }
                flows.entry(id).or_default().push((ts, ph.to_owned()));
            }
            "C" => {
                if e["args"]["requests"].as_i64().ok_or("counter")? < 0 {
                    return Err(format!("negative counter: {e}"));
                }
            }
            "M" if e["name"] == "thread_name" => named.push((pid, tid)),
            "M" | "i" => {}
            other => return Err(format!("unknown phase {other}")),
        }
    }
    for (track, mut slices) in tracks {
        if !named.contains(&track) {
            return Err(format!("track {track:?} has no name"));
        }
        slices.sort_by(|a, b| a.partial_cmp(b).unwrap());
        // Times are nanoseconds as fractions of microseconds: allow for the last bit of their sum.
        if let Some(w) = slices.windows(2).find(|w| w[1].0 < w[0].1 - 1e-6) {
            return Err(format!("slices overlap on {track:?}: {w:?}"));
        }
    }
    for (id, steps) in flows {
        let phases: String = steps.iter().map(|s| s.1.as_str()).collect();
        if !(phases.starts_with('s')
            && phases.ends_with('f')
            && phases[1..phases.len() - 1].chars().all(|c| c == 't'))
        {
            return Err(format!("flow {id} is {phases}"));
        }
        if steps.windows(2).any(|w| w[1].0 < w[0].0) {
            return Err(format!("flow {id} goes back in time"));
        }
    }
    Ok(())
}

fn traces() -> Vec<Value> {
    let mut setup = setup();
    setup.seconds = 1.0;
    let good = ["edf", "eft", "fixed:gpu"].map(|spec| chrome_trace(&log(&setup, spec, 2), &setup.case));
    setup.emulator.failure_rate = 0.1;
    let failing = chrome_trace(&log(&setup, "eft", 2), &setup.case);
    good.into_iter().chain([failing]).collect()
}

#[test]
fn traces_keep_the_rules() {
    for trace in traces() {
        let parsed: Value = serde_json::from_str(&trace.to_string()).unwrap();
        check(&parsed).unwrap();
        let count =
            |ph: &str| parsed["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == ph).count();
        let (x, c, s, f) = (count("X"), count("C"), count("s"), count("f"));
        assert!(x > 150 && c > 80 && s > 50 && s == f, "{x} slices, {c} counters, {s} starts, {f} ends");
    }
}

#[test]
fn a_dead_processor_is_marked() {
    let mut setup = setup();
    let processor = setup.case.plan.processors[1].name.clone();
    let fault =
        cosched_env::emulator::Fault { processor, from_ms: 100.0, to_ms: 300.0, ..Default::default() };
    setup.emulator.faults = vec![fault];
    let trace = chrome_trace(&log(&setup, "eft", 1), &setup.case);
    check(&trace).unwrap();
    let names: Vec<_> = trace["traceEvents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["ph"] == "i")
        .map(|e| e["name"].clone())
        .collect();
    assert_eq!(names, ["gpu down", "gpu up"]);
}

/// The saboteurs: each breaks one rule.
#[test]
fn broken_traces_are_told_apart() {
    let sabotage = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut trace = traces().remove(0);
        change(trace["traceEvents"].as_array_mut().unwrap());
        check(&trace)
    };
    let first = |events: &[Value], ph: &str| events.iter().position(|e| e["ph"] == ph).unwrap();
    assert!(
        sabotage(&|events| {
            let i = first(events, "f");
            events.remove(i);
        })
        .is_err()
    );
    assert!(
        sabotage(&|events| {
            let i = first(events, "X");
            events[i]["dur"] = json!(1e6);
        })
        .is_err()
    );
    assert!(
        sabotage(&|events| {
            let i = first(events, "X");
            events[i]["dur"] = json!(-1.0);
        })
        .is_err()
    );
    assert!(
        sabotage(&|events| {
            let i = first(events, "C");
            events[i]["args"]["requests"] = json!(-1);
        })
        .is_err()
    );
}
