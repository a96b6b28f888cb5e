//! A test bench for the emulated device alone: launches are handed to it without a scheduler, and its events are read.
//! It refuses to decide anything.

use super::{case, exact, plan, processor, stream, variant};
use cosched_env::case::{Case, ProcessorId, VariantId};
use cosched_env::device::{Device, ProcessorModel};
use cosched_env::emulator::{Config, Emulator, Fault, FaultKind};
use cosched_env::event::{Completion, Event, Launch, LaunchId, RequestId};
use cosched_env::plan::{Plan, ProcessorSpec};
use cosched_env::scenario::Scenario;
use cosched_env::time::Time;
use cosched_env::world::World;
use std::sync::Arc;

/// A point in time in microseconds.
pub fn us(us: f64) -> Time {
    super::ms(us / 1e3)
}

/// Processors p0, p1 and so on: 2 W active, 0.5 W idle.
pub fn named(n: usize) -> Vec<ProcessorSpec> {
    (0..n).map(|p| processor(&format!("p{p}"))).collect()
}

/// Variants of one segment; `works[v]` is the latency of variant `v` everywhere, in microseconds, at 1 mJ. 1000 bytes in and out.
pub fn flat_plan(processors: Vec<ProcessorSpec>, contention: f64, works: &[f64]) -> Plan {
    let row = |us: f64| vec![Some(us); processors.len()];
    let variants = works.iter().enumerate().map(|(v, &w)| variant(&format!("v{v}"), "t", 0.9, &[&row(w)]));
    let variants = variants.collect();
    plan(processors, contention, variants)
}

/// A plan with a device file, and one stream that nobody listens to.
pub fn case_on(plan: Plan, device: Device) -> Arc<Case> {
    let streams = vec![stream("t", 10.0, 10.0)];
    let scenario = Scenario { name: "test".to_owned(), streams, objective: Default::default() };
    Arc::new(Case::on(plan, device, scenario).expect("the test's own case is well-formed"))
}

/// A device file about some processors.
pub fn about<const N: usize>(processors: [(&str, ProcessorModel); N]) -> Device {
    let processors = processors.into_iter().map(|(name, model)| (name.to_owned(), model)).collect();
    Device { processors, ..Device::default() }
}

/// An emulator of [`flat_plan`] without arrivals.
pub fn device(processors: Vec<ProcessorSpec>, contention: f64, works: &[f64], config: Config) -> Emulator {
    let case = case(flat_plan(processors, contention, works), vec![stream("t", 10.0, 10.0)]);
    Emulator::new(case, config, 7, Time::ZERO)
}

/// An emulator without arrivals, spread or cost of deciding.
pub fn emulator(plan: Plan, device: Device) -> Emulator {
    Emulator::new(case_on(plan, device), exact(), 7, Time::ZERO)
}

pub fn die(processor: &str, from_ms: f64, to_ms: f64) -> Fault {
    Fault { processor: processor.into(), from_ms, to_ms, ..Fault::default() }
}

pub fn hang(processor: &str, from_ms: f64, to_ms: f64, noticed_ms: f64) -> Fault {
    Fault { kind: FaultKind::Hang, noticed_ms, ..die(processor, from_ms, to_ms) }
}

/// A processor that works at a share of its speed.
pub fn slow(processor: &str, from_ms: f64, to_ms: f64, speed: f64) -> Fault {
    Fault { kind: FaultKind::Slow, speed, ..die(processor, from_ms, to_ms) }
}

pub fn launch(id: u64, variant: u16, processor: u16) -> Launch {
    Launch {
        id: LaunchId(id),
        request: RequestId(id),
        variant: VariantId(variant),
        first: 0,
        last: 0,
        processor: ProcessorId(processor),
        inputs_on: None,
        load_bytes: 0,
    }
}

/// All events until nothing happens any more.
pub fn drain(world: &mut dyn World) -> Vec<(Time, Event)> {
    std::iter::from_fn(|| world.wait(None)).collect()
}

pub fn completions(events: &[(Time, Event)]) -> Vec<Completion> {
    let only = events.iter().filter_map(|(_, e)| match e {
        Event::Completed(c) => Some(c.clone()),
        _ => None,
    });
    only.collect()
}

/// (launch, finished in microseconds) in order of completion.
pub fn finished(world: &mut dyn World) -> Vec<(u64, f64)> {
    completions(&drain(world)).iter().map(|c| (c.launch.0, c.finished.0 as f64 / 1e3)).collect()
}

/// Waits until a time before which nothing is told.
pub fn alarm(world: &mut dyn World, at: Time) {
    assert_eq!(world.wait(Some(at)), Some((at, Event::Alarm)));
}

/// Times of going down (false) and up of all processors until nothing happens any more.
pub fn health(world: &mut dyn World) -> Vec<(Time, bool)> {
    let told = drain(world).into_iter().filter_map(|(at, event)| match event {
        Event::Health { up, .. } => Some((at, up)),
        _ => None,
    });
    told.collect()
}

/// Fails unless two numbers are equal but for rounding.
pub fn near(got: f64, expected: f64) {
    assert!((got - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "expected {expected}, got {got}");
}
