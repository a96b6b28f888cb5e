//! What each processor did and drew in a run. It refuses to decide what that is: launches and the emulator say it.

use crate::case::{Case, ProcessorId};
use crate::time::{Span, Time};

/// What one processor did and drew from time zero on. The energies of its launches add up to `busy_mj`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Meter {
    /// Time in which at least one launch was there.
    pub busy: Span,
    /// The rest of the time, down or not.
    pub idle: Span,
    /// Millijoules of its launches.
    pub busy_mj: f64,
    /// Millijoules while idle, at the plan's idle power.
    pub idle_mj: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    busy_ns: f64,
    busy_mj: f64,
    /// The piece of time that was read last, and how much of it counts as busy already.
    piece: u64,
    covered_ns: f64,
}

/// The meters of all processors while they run.
#[derive(Clone, Debug)]
pub(super) struct Meters {
    readings: Vec<Reading>,
    piece: u64,
}

impl Meters {
    pub(super) fn new(processors: usize) -> Meters {
        Meters { readings: vec![Reading::default(); processors], piece: 0 }
    }

    /// Another piece of time begins: what is noted next happened in it.
    pub(super) fn turn_over(&mut self) {
        self.piece += 1;
    }

    /// A launch was there in the last so many nanoseconds of this piece and drew so many millijoules. Launches side by side all
    /// reach to the piece's end, so that the longest covers the others.
    pub(super) fn note(&mut self, on: ProcessorId, ns: f64, mj: f64) {
        let reading = &mut self.readings[on.0 as usize];
        if reading.piece != self.piece {
            reading.piece = self.piece;
            reading.covered_ns = 0.0;
        }
        reading.busy_ns += (ns - reading.covered_ns).max(0.0);
        reading.covered_ns = reading.covered_ns.max(ns);
        reading.busy_mj += mj;
    }

    /// What they show at `now`.
    pub(super) fn read(&self, case: &Case, now: Time) -> Vec<Meter> {
        let read = |(reading, spec): (&Reading, &crate::plan::ProcessorSpec)| {
            let busy = Span::from_ns(reading.busy_ns);
            let idle = now.since(Time::ZERO) - busy;
            Meter { busy, idle, busy_mj: reading.busy_mj, idle_mj: spec.idle_watts * idle.ms() }
        };
        self.readings.iter().zip(&case.plan.processors).map(read).collect()
    }
}
