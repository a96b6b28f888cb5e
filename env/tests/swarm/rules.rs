//! What every run has to keep: ends, slots, energy, time and utility, each rule a function over the log.
//! They refuse to ask the scheduler: all is worked out again from what crossed its boundary.

use crate::common::Item;
use crate::ledger::{Ledger, Ran, Told, ensure};
use crate::world::Run;
use cosched_env::case::ProcessorId;
use cosched_env::event::{Ended, Event, Launch, Outcome};
use cosched_env::objective::{self, Objective};
use cosched_env::scenario::Queue;
use cosched_env::time::Time;
use std::collections::BTreeMap;

/// Each request that arrived ends exactly once, as what became of its launches says.
pub fn each_request_ends_exactly_once(run: &Run) -> Result<(), String> {
    let ledger = Ledger::of(&run.log)?;
    for (id, told) in &ledger.requests {
        let outcome = match told.ends.as_slice() {
            [one] => how_it_ended(run, &ledger, told, one),
            ends => Err(format!("{} ends", ends.len())),
        };
        outcome.map_err(|why| format!("request {id}: {why}; ends {:?}", told.ends))?;
    }
    // What the books of the other suites say as well.
    crate::common::check(&run.setup.case, &run.log)
}

fn how_it_ended(run: &Run, ledger: &Ledger, told: &Told, ended: &Ended) -> Result<(), String> {
    let (case, request) = (&run.setup.case, &told.request);
    ensure!(ended.request == *request, "the request changed");
    ensure!(ended.launches as usize == told.launches.len(), "expected {} launches", told.launches.len());
    let (mut next, mut failures, mut last, mut reason) = (0, 0, None, None);
    for step in ledger.completions(told) {
        let (launch, completion) = step?;
        ensure!(
            launch.first == next,
            "launch {} begins at segment {}, not {next}",
            launch.id.0,
            launch.first
        );
        let table = case.variant(launch.variant);
        ensure!(
            table.accuracy >= request.min_accuracy,
            "variant {} is not accurate enough",
            launch.variant.0
        );
        ensure!(next == 0 || last == Some(launch.variant), "the variant changed half way");
        last = Some(launch.variant);
        if completion.failure.is_some() {
            (failures, reason) = (failures + 1, completion.failure.clone());
        } else {
            next = launch.last + 1;
        }
    }
    ensure!(ended.variant == last, "served by {last:?}");
    ensure!(failures <= run.setup.options.max_failures, "{failures} launches failed");
    let done = last.is_some_and(|v| next == case.variant(v).segments);
    let finished = told.launches.last().and_then(|id| ledger.launches[id].end.as_ref()).map(|e| e.1.finished);
    match &ended.outcome {
        Outcome::Answered | Outcome::Late => {
            ensure!(done, "it is not done");
            ensure!(Some(ended.at) == finished, "its last launch finished at {finished:?}");
            let on_time = ended.at <= request.deadline;
            ensure!(on_time == (ended.outcome == Outcome::Answered), "on time or late?");
            return Ok(());
        }
        Outcome::Failed(why) => {
            ensure!(failures == run.setup.options.max_failures, "only {failures} launches failed");
            ensure!(reason.as_ref() == Some(why), "the last reason was {reason:?}");
            ensure!(Some(ended.at) == finished, "it failed at {finished:?}");
        }
        Outcome::Expired => ensure!(ended.at >= request.expires, "it was not over"),
        Outcome::Replaced => {
            ensure!(case.stream(request.stream).queue == Queue::Latest, "its queue is no such one");
            ensure!(next == 0, "it had started");
            let newer = ledger.requests.range(request.id.0 + 1..).map(|(_, t)| &t.request);
            let mut newer = newer.filter(|r| r.stream == request.stream);
            ensure!(newer.any(|r| r.arrival == ended.at), "no newer one came then");
        }
        Outcome::Dropped => {}
    }
    ensure!(!done, "it was done");
    Ok(())
}

/// Of a stream that keeps only the latest request, no request that has not started waits beside a newer one when something is decided.
pub fn only_the_latest_waits(run: &Run) -> Result<(), String> {
    let latest = |stream: u16| run.setup.case.streams[stream as usize].queue == Queue::Latest;
    // Unstarted requests, and those that run their first segments: request -> (stream, whether it runs, when a newer one came).
    let mut fresh: BTreeMap<u64, (u16, bool)> = BTreeMap::new();
    let mut launched: BTreeMap<u64, u64> = BTreeMap::new();
    let mut replaced: Vec<u64> = Vec::new();
    for item in &run.log {
        match item {
            Item::Event(_, Event::Arrived(r)) if latest(r.stream.0) => {
                let older = fresh.iter().filter(|(_, (stream, runs))| *stream == r.stream.0 && !runs);
                replaced.extend(older.map(|(id, _)| *id));
                fresh.insert(r.id.0, (r.stream.0, false));
            }
            Item::Launched(_, l) => {
                launched.insert(l.id.0, l.request.0);
                fresh.entry(l.request.0).and_modify(|f| f.1 = true);
            }
            Item::Event(_, Event::Completed(c)) => {
                let request = launched.get(&c.launch.0).ok_or("no such launch")?;
                match c.failure {
                    Some(_) => drop(fresh.entry(*request).and_modify(|f| f.1 = false)),
                    None => drop(fresh.remove(request)),
                }
            }
            Item::Ended(e) => {
                let id = e.request.id.0;
                let due = replaced.contains(&id);
                ensure!(
                    (e.outcome == Outcome::Replaced) == due,
                    "request {id}: {:?}, replaced: {due}",
                    e.outcome
                );
                replaced.retain(|r| *r != id);
                fresh.remove(&id);
            }
            Item::Decided(..) => ensure!(replaced.is_empty(), "{replaced:?} still wait beside newer ones"),
            Item::Event(..) => {}
        }
    }
    ensure!(replaced.is_empty(), "{replaced:?} were never replaced");
    Ok(())
}

/// No processor runs more than its slots, by what was launched and by the times that launches name; what is dead gets no launch and
/// ends none well.
pub fn slots_are_never_exceeded(run: &Run) -> Result<(), String> {
    let case = &run.setup.case;
    let mut running: BTreeMap<u64, Launch> = BTreeMap::new();
    let mut up = vec![true; case.processor_count()];
    for item in &run.log {
        match item {
            Item::Event(_, Event::Health { processor, up: now }) => up[processor.0 as usize] = *now,
            Item::Event(now, Event::Completed(c)) => {
                let launch = running.remove(&c.launch.0).ok_or("a completion of nothing")?;
                let lives = up[launch.processor.0 as usize];
                ensure!(
                    lives || c.failure.is_some(),
                    "at {now}: launch {} ended well on a dead processor",
                    c.launch.0
                );
            }
            Item::Launched(now, launch) => {
                let on = launch.processor;
                ensure!(up[on.0 as usize], "at {now}: launch {} on {on:?}, which is down", launch.id.0);
                let reach = case.variant(launch.variant).reach(on, launch.first);
                let legal = launch.first <= launch.last && reach.is_some_and(|r| launch.last <= r);
                ensure!(legal, "at {now}: {on:?} cannot run launch {}", launch.id.0);
                running.insert(launch.id.0, *launch);
                let here = running.values().filter(|l| l.processor == on).count() as u32;
                ensure!(here <= case.processor(on).slots, "at {now}: {here} launches on {on:?}");
            }
            _ => {}
        }
    }
    let ledger = Ledger::of(&run.log)?;
    (0..case.processor_count()).try_for_each(|p| utilisation(run, &ledger, ProcessorId(p as u16)))
}

/// What the completions say of when launches ran: never more at once than there are slots.
fn utilisation(run: &Run, ledger: &Ledger, on: ProcessorId) -> Result<(), String> {
    let here = |ran: &&Ran| ran.launch.processor == on;
    let mut marks: Vec<(Time, i32)> = Vec::new();
    for (_, c) in ledger.launches.values().filter(here).filter_map(|ran| ran.end.as_ref()) {
        if c.started < c.finished {
            // At one moment what ends makes room for what begins.
            marks.extend([(c.started, 1), (c.finished, -1)]);
        }
    }
    marks.sort();
    let mut at_once = 0;
    for (time, change) in marks {
        at_once += change;
        ensure!(
            at_once <= run.setup.case.processor(on).slots as i32,
            "{on:?} ran {at_once} launches at {time}"
        );
    }
    Ok(())
}

/// What launches took adds up to what their requests are charged.
pub fn energy_adds_up(run: &Run) -> Result<(), String> {
    let ledger = Ledger::of(&run.log)?;
    for (id, told) in &ledger.requests {
        let mut sum = 0.0;
        for step in ledger.completions(told) {
            let (launch, c) = step?;
            ensure!(
                c.energy_mj.is_finite() && c.energy_mj >= 0.0,
                "launch {}: {} mJ",
                launch.id.0,
                c.energy_mj
            );
            sum += c.energy_mj;
        }
        for ended in &told.ends {
            let off = (ended.energy_mj - sum).abs();
            ensure!(off <= 1e-9 * (1.0 + sum), "request {id} is charged {} mJ, not {sum}", ended.energy_mj);
        }
    }
    Ok(())
}

/// Time never goes back, and what is told of has happened.
pub fn time_never_goes_back(run: &Run) -> Result<(), String> {
    let mut last = Time::ZERO;
    let mut made: BTreeMap<u64, Time> = BTreeMap::new();
    for item in &run.log {
        match item {
            Item::Launched(now, launch) => {
                ensure!(*now == last, "launch {} at {now}, but it is {last}", launch.id.0);
                made.insert(launch.id.0, *now);
            }
            Item::Event(now, event) => {
                ensure!(*now >= last, "{event:?} at {now}, after {last}");
                last = *now;
                match event {
                    Event::Arrived(r) => {
                        ensure!(r.origin <= r.arrival && r.arrival <= *now, "{r:?} heard at {now}");
                    }
                    Event::Completed(c) => {
                        let made = made.get(&c.launch.0).ok_or("a completion of nothing")?;
                        let order = *made <= c.started && c.started <= c.finished && c.finished <= *now;
                        ensure!(order, "made {made}, {c:?}, heard {now}");
                    }
                    _ => {}
                }
            }
            Item::Ended(e) => ensure!(e.at <= last, "{e:?} at {last}"),
            Item::Decided(..) => {}
        }
    }
    Ok(())
}

/// The utility of each end is the formula's, the fairness term included.
pub fn utility_is_the_formula(run: &Run) -> Result<(), String> {
    let case = &run.setup.case;
    // With each end a stream's on-time share moves by a twentieth.
    let mut shares = vec![1.0f64; case.streams.len()];
    for item in &run.log {
        let Item::Ended(ended) = item else { continue };
        let o: &Objective = case.objective();
        let stream = ended.request.stream.0 as usize;
        let gap = shares.iter().copied().fold(0.0, f64::max) - shares[stream];
        let lateness_ms = ended.at.ms_after(ended.request.deadline);
        let relative = ended.variant.map_or(0.0, |v| case.variant(v).relative_accuracy);
        let kept = 1.0 - o.continuity_weight * (1.0 - shares[stream]);
        let a = (1.0 - o.accuracy_weight * (1.0 - relative)) * kept;
        let (worth, on_time) = match ended.outcome {
            Outcome::Answered => (a, true),
            Outcome::Late => (a * o.late_value * (1.0 - lateness_ms / o.late_ms).max(0.0), false),
            Outcome::Failed(_) => (-o.fail_penalty, false),
            _ => (-o.drop_penalty, false),
        };
        let unfair = if on_time { 0.0 } else { o.fairness_weight * gap };
        let energy = o.energy_weight * ended.energy_mj / 1e3;
        let expected = ended.request.priority * (worth - unfair) - energy;
        ensure!((ended.utility - expected).abs() < 1e-9, "{ended:?}: expected a utility of {expected}");
        shares[stream] = 0.95 * shares[stream] + if on_time { 0.05 } else { 0.0 };
    }
    // The formula in the crate is the one place that weighs; this is what holds it to its text.
    let nothing = case.objective().utility(objective::Result::Dropped, 0.0, 0.0, objective::Service::FULL);
    ensure!(nothing == 0.0, "a request of no priority is worth {nothing}");
    Ok(())
}
