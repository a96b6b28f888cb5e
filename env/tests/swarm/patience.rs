//! Nothing starves: how long a request can take at most, and that the scheduler hears and is woken in time.
//! The bounds are worked out from the case and the faults; they refuse to take the emulator's word.

use crate::common::Item;
use crate::draft::Setup;
use crate::ledger::{Ledger, ensure};
use crate::world::Run;
use cosched_env::case::ProcessorId;
use cosched_env::event::{Ended, Event, Launch, Outcome, Request};
use cosched_env::time::{Span, Time};
use std::collections::BTreeMap;

/// Standard deviations that no spread goes beyond in as many launches as there ever are here (one in 10^9).
const SIGMAS: f64 = 6.0;

struct Open {
    request: Request,
    running: bool,
    /// When the end of its last launch was heard of.
    free_since: Time,
}

/// A request that waits ends when it expires, one that runs when its launch ends: both as soon as the decider, who may be busy, hears.
/// So the end of a request is bounded by the latest of its expiry, the end of its last launch, and what deciding takes.
pub fn nothing_starves(run: &Run) -> Result<(), String> {
    let mut open: BTreeMap<u64, Open> = BTreeMap::new();
    let mut request_of: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut now, mut busy) = (Time::ZERO, Time::ZERO);
    for item in &run.log {
        if !matches!(item, Item::Ended(_)) {
            let overdue = open.values().find(|o| !o.running && o.request.expires <= now);
            ensure!(overdue.is_none(), "at {now}: {:?} still waits", overdue.map(|o| &o.request));
        }
        match item {
            Item::Decided(_, of) => {
                let cost_us = run.setup.config.decision_us + run.setup.config.candidate_us * *of as f64;
                busy = busy.max(now) + Span::from_ns(1e3 * cost_us);
            }
            Item::Launched(_, l) => {
                request_of.insert(l.id.0, l.request.0);
                open.get_mut(&l.request.0).ok_or("a launch for nobody")?.running = true;
            }
            Item::Event(time, event) => {
                let late = open.values().find(|o| !o.running && o.request.expires < *time && busy < *time);
                ensure!(late.is_none(), "{time}: too late for {:?}", late.map(|o| &o.request));
                now = *time;
                match event {
                    Event::Arrived(r) => {
                        let request = r.clone();
                        open.insert(r.id.0, Open { request, running: false, free_since: Time::ZERO });
                    }
                    Event::Completed(c) => {
                        let request = request_of.get(&c.launch.0).ok_or("a completion of nothing")?;
                        let open = open.get_mut(request).ok_or("a launch of a request that has ended")?;
                        (open.running, open.free_since) = (false, now);
                    }
                    _ => {}
                }
            }
            Item::Ended(ended) => {
                let was = open.remove(&ended.request.id.0).ok_or("an end of nobody")?;
                ends_in_time(&was, ended, busy)?;
            }
        }
    }
    ensure!(open.is_empty(), "{} requests never ended", open.len());
    Ok(())
}

fn ends_in_time(was: &Open, ended: &Ended, busy: Time) -> Result<(), String> {
    let heard = if ended.outcome == Outcome::Expired { busy } else { Time::ZERO };
    let bound = was.request.expires.max(was.free_since).max(heard).max(was.request.arrival);
    ensure!(ended.at <= bound, "{ended:?}: expected an end by {bound}");
    Ok(())
}

/// What has happened by the time of a decision was heard before it.
pub fn all_is_heard_before_deciding(run: &Run) -> Result<(), String> {
    let (mut now, mut decided) = (Time::ZERO, None);
    for item in &run.log {
        match item {
            Item::Decided(..) => decided = Some(now),
            Item::Event(time, event) => {
                now = *time;
                let happened = match event {
                    Event::Arrived(r) => r.arrival,
                    Event::Completed(c) => c.finished,
                    _ => *time,
                };
                let unheard = decided.is_some_and(|decided| happened < decided);
                ensure!(!unheard, "{event:?} had happened when something was decided at {decided:?}");
                // At the same moment: only what a decision of that moment itself brought about.
                let launched_then = matches!(event, Event::Completed(c) if c.started == c.finished);
                let same =
                    decided == Some(happened) && matches!(event, Event::Arrived(_) | Event::Completed(_));
                ensure!(!same || launched_then, "{event:?} was heard after deciding at the same moment");
            }
            _ => {}
        }
    }
    Ok(())
}

/// A launch ends: alone it takes what the plan says, its spread, loading and transfers; others slow it by no more than if all ran at
/// once; the slowest frequency, resent messages and faults add to that.
pub fn launches_are_bounded(run: &Run) -> Result<(), String> {
    let ledger = Ledger::of(&run.log)?;
    for (id, ran) in &ledger.launches {
        let Some((_, c)) = &ran.end else { return Err(format!("launch {id} never ended")) };
        let took = c.finished.since(c.started).0 as f64;
        let most = longest_ns(&run.setup, &ran.launch);
        ensure!(took <= most, "launch {id} took {took} ns, expected {most} at most: {:?}", ran.launch);
    }
    Ok(())
}

fn longest_ns(setup: &Setup, launch: &Launch) -> f64 {
    let Launch { variant, first, last, processor: on, .. } = *launch;
    let (case, table) = (&setup.case, setup.case.variant(variant));
    let model = &case.processors[on.0 as usize].model;
    let spread = (SIGMAS * table.log_sigma(on, first, last)).exp();
    let bringing = case.transfer_ns(variant, first, None, on) + case.load_ns(on, launch.load_bytes);
    let alone = table.latency_ns(on, first, last) * spread + bringing;
    let slowest = model.frequencies.last().filter(|_| case.device.thermal.is_some()).map_or(1.0, |f| f.speed);
    let link = model.link.as_ref().map_or(0.0, |link| {
        let bytes = table.input_bytes[first as usize] + table.output_bytes[last as usize];
        let worst = link.phases.iter().map(|p| p.transfer_ns(bytes)).fold(0.0, f64::max);
        let trip = worst * (SIGMAS * link.sigma).exp();
        f64::from(link.tries + 1) * (link.resend_ms * 1e6 + trip)
    });
    let here = &case.processor(on).name;
    let faults = setup.config.faults.iter().filter(|f| f.processor == *here);
    let standing: f64 = faults.map(|f| 1e6 * (f.to_ms - f.from_ms).max(0.0)).sum();
    // Times are rounded up to whole nanoseconds, once for each event that re-times the launch.
    (alone * most_slowed(setup, on) / slowest + link) * 1.001 + standing + 1e4
}

/// Slow-down when all slots of the others run what asks for most.
fn most_slowed(setup: &Setup, on: ProcessorId) -> f64 {
    let case = &setup.case;
    let pairs = case.plan.contention[on.0 as usize].iter().zip(&case.plan.processors).enumerate();
    let others = pairs.filter(|(p, _)| *p != on.0 as usize);
    let contention: f64 =
        1.0 + others.map(|(_, (factor, spec))| f64::from(spec.slots) * (factor - 1.0)).sum::<f64>();
    let most_gbps = |p: usize| {
        let on = ProcessorId(p as u16);
        let each = case.variants.iter().flat_map(|v| (0..v.segments).map(move |s| v.demand_gbps(on, s, s)));
        each.filter(|d| d.is_finite()).fold(0.0, f64::max)
    };
    let slots = |p: usize| f64::from(case.plan.processors[p].slots);
    let all: f64 = (0..case.processor_count()).map(|p| slots(p) * most_gbps(p)).sum();
    // Who asks for little is slowed least together with all others, but for the share of its time on memory: take the whole.
    let bandwidth = match &case.device.bandwidth {
        Some(b) if all > 0.0 => all / b.achieved(all),
        _ => 1.0,
    };
    contention * bandwidth
}
