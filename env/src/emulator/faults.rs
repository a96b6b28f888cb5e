//! When which processor is down, stands still or is slow. Overlapping deaths and hangs are counted: only the first begin and the last end
//! change anything; the speeds of overlapping slow-downs are multiplied. It refuses to touch launches; the emulator fails or re-times them.

use super::config::{Config, FaultKind};
use crate::case::{Case, ProcessorId};
use crate::time::{Span, Time};

/// What a fault does to a processor while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    /// Nothing on it makes progress.
    Still,
    /// It takes no launches; those that run when it begins fail for this reason.
    Down(&'static str),
    /// It works at the speed of the slow-down of this index.
    Slow(usize),
}

/// How a processor changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It went down: its launches fail for this reason.
    Down(ProcessorId, &'static str),
    /// It takes launches again.
    Up(ProcessorId),
    /// It stands still, goes on, or works at another speed.
    Pace,
}

/// All faults of a run.
#[derive(Clone)]
pub(super) struct Faults {
    /// (time, processor, whether it is over, effect), soonest last. What ends at the moment when another begins goes on.
    turns: Vec<(Time, ProcessorId, bool, Effect)>,
    /// Per processor: faults that keep it down now.
    down: Vec<u32>,
    /// Per processor: hangs that it is in now.
    still: Vec<u32>,
    /// (processor, speed, whether it lasts now).
    slow: Vec<(ProcessorId, f64, bool)>,
}

impl Faults {
    pub(super) fn new(case: &Case, config: &Config) -> Faults {
        let at = |ms: f64| Time::ZERO + Span::from_ms(ms);
        let (mut turns, mut slow) = (Vec::new(), Vec::new());
        for fault in config.faults.iter().filter(|f| f.from_ms < f.to_ms) {
            let mut named = case.plan.processors.iter();
            let Some(index) = named.position(|p| p.name == fault.processor) else { continue };
            let mut lasts = |from_ms: f64, effect: Effect| {
                for (ms, over) in [(from_ms, false), (fault.to_ms, true)] {
                    turns.push((at(ms), ProcessorId(index as u16), over, effect));
                }
            };
            let noticed_at = fault.from_ms + fault.noticed_ms;
            match fault.kind {
                FaultKind::Die => lasts(fault.from_ms, Effect::Down("the emulated processor died")),
                FaultKind::Slow => {
                    lasts(fault.from_ms, Effect::Slow(slow.len()));
                    slow.push((ProcessorId(index as u16), fault.speed, false));
                }
                FaultKind::Hang => {
                    lasts(fault.from_ms, Effect::Still);
                    if fault.noticed_ms > 0.0 && noticed_at < fault.to_ms {
                        lasts(noticed_at, Effect::Down("the emulated processor hung"));
                    }
                }
            }
        }
        // What never comes is no event.
        turns.retain(|turn| turn.0 != Time::NEVER);
        turns.sort();
        turns.reverse();
        let none = vec![0; case.processor_count()];
        Faults { turns, down: none.clone(), still: none, slow }
    }

    /// Takes a processor down for good.
    pub(super) fn keep_down(&mut self, processor: ProcessorId) {
        self.down[processor.0 as usize] += 1;
    }

    /// Whether a processor takes no launches.
    pub(super) fn is_down(&self, processor: ProcessorId) -> bool {
        self.down[processor.0 as usize] > 0
    }

    /// Whether nothing makes progress on a processor.
    pub(super) fn is_still(&self, processor: ProcessorId) -> bool {
        self.still[processor.0 as usize] > 0
    }

    /// The share of its speed at which a processor works now.
    pub(super) fn speed(&self, processor: ProcessorId) -> f64 {
        let lasting = self.slow.iter().filter(|s| s.2 && s.0 == processor);
        lasting.map(|s| s.1).product()
    }

    /// When something begins or ends next.
    pub(super) fn next(&self) -> Option<Time> {
        self.turns.last().map(|turn| turn.0)
    }

    /// Takes the next begin or end; `None` when it changes nothing.
    pub(super) fn turn(&mut self) -> Option<Change> {
        let (_, processor, over, effect) = self.turns.pop()?;
        let counts = match effect {
            Effect::Slow(index) => {
                self.slow[index].2 = !over;
                return Some(Change::Pace);
            }
            Effect::Still => &mut self.still,
            Effect::Down(_) => &mut self.down,
        };
        let count = &mut counts[processor.0 as usize];
        let before = *count;
        *count = if over { before - 1 } else { before + 1 };
        if (before == 0) == (*count == 0) {
            return None;
        }
        Some(match (effect, over) {
            (Effect::Down(why), false) => Change::Down(processor, why),
            (Effect::Down(_), true) => Change::Up(processor),
            _ => Change::Pace,
        })
    }
}
