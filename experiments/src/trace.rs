//! A run as Chrome-trace JSON, which opens in Perfetto: a track for each lane of a processor and of a stream, queue lengths as
//! counters, and flows that tie a request to its launches. It refuses to leave a flow without an end or to overlap slices on a track.

use crate::log::RunLog;
use crate::timeline::{Timeline, outcome_word, stream_name};
use cosched_env::case::Case;
use cosched_env::time::Time;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Process number of the processors' tracks.
const PROCESSORS: u32 = 1;
/// Process number of the streams' tracks.
const STREAMS: u32 = 2;
/// Lanes that a processor or stream may have without its track numbers running into the next one's.
const STRIDE: usize = 4096;

fn us(time: Time) -> f64 {
    time.0 as f64 / 1e3
}

fn track(owner: usize, lane: usize) -> usize {
    owner * STRIDE + lane.min(STRIDE - 1) + 1
}

/// The trace as one JSON object with `traceEvents`; times in microseconds.
pub fn chrome_trace(log: &RunLog, case: &Case) -> Value {
    let timeline = Timeline::of(log, case);
    let mut events = names(case, &timeline);
    launches(log, case, &timeline, &mut events);
    requests(log, case, &timeline, &mut events);
    queues(log, case, &mut events);
    for change in &log.health {
        let name = &case.processor(change.processor).name;
        let state = if change.up { "up" } else { "down" };
        let tid = track(change.processor.0 as usize, 0);
        events.push(json!({"ph": "i", "s": "p", "name": format!("{name} {state}"), "pid": PROCESSORS, "tid": tid, "ts": us(change.at)}));
    }
    json!({
        "displayTimeUnit": "ms",
        "otherData": {"run": log.name, "scenario": case.scenario.name},
        "traceEvents": events,
    })
}

/// Names and order of processes and tracks.
fn names(case: &Case, timeline: &Timeline) -> Vec<Value> {
    let mut events = Vec::new();
    for (pid, name) in [(PROCESSORS, "processors"), (STREAMS, "streams")] {
        events.push(json!({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}));
        events.push(json!({"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}));
    }
    let mut add = |pid: u32, owner: usize, name: &str, lanes: usize| {
        for lane in 0..lanes {
            let tid = track(owner, lane);
            let name = if lanes == 1 { name.to_owned() } else { format!("{name} {}", lane + 1) };
            events.push(
                json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}),
            );
            events.push(json!({"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid}}));
        }
    };
    for (p, spec) in case.plan.processors.iter().enumerate() {
        add(PROCESSORS, p, &spec.name, timeline.processor_lanes[p]);
    }
    for s in 0..case.streams.len() {
        add(STREAMS, s, &stream_name(case, s), timeline.stream_lanes[s]);
    }
    events
}

fn launches(log: &RunLog, case: &Case, timeline: &Timeline, events: &mut Vec<Value>) {
    for bar in &timeline.bars {
        let record = &log.launches[bar.launch];
        let variant = case.variant(record.launch.variant);
        let task = &case.tasks[variant.task.0 as usize].name;
        let failure = record.completion.as_ref().and_then(|c| c.failure.as_deref());
        events.push(json!({
            "ph": "X", "cat": "launch", "name": format!("{} {}-{}", variant.name, record.launch.first, record.launch.last),
            "pid": PROCESSORS, "tid": track(bar.processor, bar.lane), "ts": us(bar.from), "dur": us(bar.to) - us(bar.from),
            "args": {
                "request": record.launch.request.0, "task": task, "launch": record.launch.id.0, "sent_us": us(record.at),
                "energy_mj": record.completion.as_ref().map(|c| c.energy_mj), "failure": failure,
            },
        }));
    }
}

/// Slices of the requests, and for each that was launched a flow from its slice over all its launches.
fn requests(log: &RunLog, case: &Case, timeline: &Timeline, events: &mut Vec<Value>) {
    let mut launched: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, bar) in timeline.bars.iter().enumerate() {
        if let Some(&life) = timeline.by_request.get(&log.launches[bar.launch].launch.request) {
            launched.entry(life).or_default().push(index);
        }
    }
    for (index, life) in timeline.lives.iter().enumerate() {
        let stream = life.request.stream.0 as usize;
        let tid = track(stream, life.lane);
        let ended = life.ended.map(|e| &log.ended[e]);
        let outcome = ended.map_or("open", |e| outcome_word(&e.outcome));
        let id = life.request.id.0;
        events.push(json!({
            "ph": "X", "cat": "request", "name": format!("{} {id}: {outcome}", stream_name(case, stream)),
            "pid": STREAMS, "tid": tid, "ts": us(life.request.arrival), "dur": us(life.to) - us(life.request.arrival),
            "args": {
                "request": id, "outcome": outcome, "deadline_us": us(life.request.deadline),
                "utility": ended.map(|e| e.utility), "variant": ended.and_then(|e| e.variant).map(|v| &case.variant(v).name),
            },
        }));
        let Some(bars) = launched.get(&index) else { continue };
        let flow = |ph: &str, pid: u32, tid: usize, ts: f64| json!({"ph": ph, "cat": "request", "name": "request", "id": id, "pid": pid, "tid": tid, "ts": ts});
        events.push(flow("s", STREAMS, tid, us(life.request.arrival)));
        for (i, &bar) in bars.iter().enumerate() {
            let bar = &timeline.bars[bar];
            let last = i + 1 == bars.len();
            let mut event =
                flow(if last { "f" } else { "t" }, PROCESSORS, track(bar.processor, bar.lane), us(bar.from));
            if last {
                event["bp"] = json!("e");
            }
            events.push(event);
        }
    }
}

/// Waiting requests of each stream, whenever their number changes.
fn queues(log: &RunLog, case: &Case, events: &mut Vec<Value>) {
    let mut stream_of = BTreeMap::new();
    // (stream, time) to change: a completion and the end that it brings, or the next launch, cancel out.
    let mut changes: BTreeMap<(usize, Time), i64> = BTreeMap::new();
    for request in log.ended.iter().map(|e| &e.request).chain(log.unended.values()) {
        let stream = request.stream.0 as usize;
        stream_of.insert(request.id, stream);
        *changes.entry((stream, request.arrival)).or_default() += 1;
    }
    for record in &log.launches {
        let Some(&stream) = stream_of.get(&record.launch.request) else { continue };
        *changes.entry((stream, record.at)).or_default() -= 1;
        if let Some(c) = &record.completion {
            *changes.entry((stream, c.finished)).or_default() += 1;
        }
    }
    for ended in &log.ended {
        *changes.entry((ended.request.stream.0 as usize, ended.at)).or_default() -= 1;
    }
    let mut waiting = vec![0_i64; case.streams.len()];
    for ((stream, time), change) in changes {
        if change == 0 {
            continue;
        }
        waiting[stream] += change;
        let name = format!("waiting {}", stream_name(case, stream));
        events.push(json!({"ph": "C", "name": name, "pid": STREAMS, "tid": 0, "ts": us(time), "args": {"requests": waiting[stream].max(0)}}));
    }
}
