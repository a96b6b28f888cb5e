//! The device as it is observed now, emulated: how brains would do there. It refuses to judge; the guard does.

use super::Subject;
use crate::online::link::{Actor, Brain};
use crate::online::profile::Profile;
use crate::online::traffic::Traffic;
use cosched_env::case::Case;
use cosched_env::emulator::{Config, Emulator};
use cosched_env::scenario::ArrivalKind;
use cosched_env::scheduler::Scheduler;
use cosched_env::time::{Span, Time};
use cosched_env::world::{Earned, Policy, drive};
use std::sync::Arc;

/// The case as it is observed to be; as it is known where that cannot be made into one.
pub(super) fn seeded(subject: &Subject, profile: &Profile, traffic: &Traffic, now: Time) -> Case {
    let scenario = traffic.scenario(&subject.case.scenario);
    profile.case(&subject.case, scenario, now).unwrap_or_else(|_| (*subject.case).clone())
}

/// Latency by the plan's, per processor.
pub(super) fn slowness(profile: &Profile, now: Time) -> Vec<f64> {
    profile.processors.iter().map(|p| p.now(now)).collect()
}

/// Whether some processor is slower or faster by so much than it was then (`None`: than its plan says).
pub(super) fn has_moved(now: &[f64], then: Option<&[f64]>, by: f64) -> bool {
    let before = |p: usize| then.map_or(1.0, |t| t[p]);
    now.iter().enumerate().any(|(p, now)| (now / before(p)).ln().abs() > by.ln())
}

/// When a run of a case has seen so many requests.
pub(super) fn horizon(case: &Case, requests: f64) -> Time {
    let own = case.streams.iter().filter(|s| s.kind != ArrivalKind::Dependent);
    let rate: f64 = own.map(|s| 1.0 / s.period.ms()).sum();
    Time::ZERO + Span::from_ms(requests / rate.max(1e-9))
}

/// Utility by priority of a brain on the device as it is now.
pub(super) fn run(subject: &Subject, real: &Arc<Case>, brain: Brain, seed: u64, horizon: Time) -> f64 {
    let config = Config { faults: Vec::new(), ..subject.emulator.clone() };
    let mut emulator = Emulator::new(real.clone(), config, seed, horizon);
    // It knows no more than the live one does: the plan, and what it sees of the processors.
    let mut scheduler = Scheduler::new(subject.case.clone(), subject.options);
    let mut earned = Earned::default();
    let mut policy: Box<dyn Policy> = Box::new(Actor::still(brain));
    let ran = drive(&mut scheduler, &mut emulator, policy.as_mut(), &mut earned);
    ran.map_or(f64::NEG_INFINITY, |_| earned.by_priority())
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
