//! The emulated world as the decision core believes it to be at some moment, for searches that look ahead. It refuses to know more.

use super::{Config, Emulator};
use crate::case::ProcessorId;
use crate::scheduler::Scheduler;
use crate::streams::Arrivals;
use crate::time::Time;
use std::ops::RangeInclusive;

/// Drifts that are not taken for the processor's own. Launches that disturb each other, measured spread and a neighbour now and then make a
/// drift too, of up to about a third; in the look-ahead they do so by themselves, and would count twice. Beyond that a processor is slower
/// (or faster) than its plan says, and stays so. The two ends are inverse to each other, roughly; they were set by hand.
const PASSING: RangeInclusive<f64> = 0.75..=1.35;

impl Emulator {
    /// A device as somebody sees it who knows no more than the decision core: what runs ends when it is expected to, what is slower
    /// than planned stays so, what is up stays up, links are as at first and lose nothing, nothing heats up, and requests go on arriving as [`Arrivals::resume`] says.
    /// For searches that look ahead; a fork is resumed before it takes its choice, since the new launch is polled and not yet running.
    pub fn resume(core: &Scheduler, config: Config, seed: u64, horizon: Time) -> Emulator {
        let case = core.case().clone();
        let calm = Config { failure_rate: 0.0, faults: Vec::new(), ..config };
        let mut emulator = Emulator::new(case.clone(), calm, seed, horizon);
        let last = |stream| core.last_arrival(stream);
        // Numbers that no request of the true world is near.
        emulator.arrivals = Arrivals::resume(case.clone(), seed, core.now(), horizon, 1 << 62, &last);
        emulator.as_expected = true;
        emulator.heat = None;
        emulator.now = core.now();
        emulator.brought = core.now();
        emulator.decider_free = core.now();
        let ids = (0..case.processor_count()).map(|p| ProcessorId(p as u16));
        ids.clone().filter(|&id| !core.is_up(id)).for_each(|id| emulator.faults.keep_down(id));
        let lasting = |drift: f64| if PASSING.contains(&drift) { 1.0 } else { drift };
        emulator.drifts.extend(ids.map(|id| lasting(core.drift(id))));
        let mut left_ns = Vec::new();
        for (launch, end) in core.running() {
            let running = emulator.begin(launch, 1.0);
            emulator.running.push(running);
            left_ns.push(end.since(core.now()).0 as f64);
        }
        emulator.retime();
        // What is expected counts the slow-down already.
        for (running, left_ns) in emulator.running.iter_mut().zip(left_ns) {
            running.go_on(left_ns);
        }
        emulator.retime();
        emulator
    }
}
