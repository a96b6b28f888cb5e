//! Paces the DSP: each run takes at least as long as it would on a DSP of a given speed, one run after another, so that a DSP that is not
//! there can be emulated in real time. The numbers are computed all the same. It refuses to be faster than this machine computes, and
//! says so once.

use crate::stop::{Halt, Stop};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The speed of a DSP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Billions of int8 operations a second, a multiply-add counted as two; above 0.
    pub gops: f64,
    /// Microseconds that each call costs besides, on its way there and back.
    pub rpc_us: f64,
}

impl Pace {
    /// Nanoseconds of work for so many operations.
    pub fn work_ns(&self, operations: u64) -> f64 {
        operations as f64 / self.gops
    }

    /// What a call with so many operations takes. A year at most: a pace that makes no sense must not be a panic.
    pub fn takes(&self, operations: u64) -> Duration {
        let ns = self.work_ns(operations) + 1e3 * self.rpc_us;
        Duration::from_nanos(ns.clamp(0.0, 3e16) as u64)
    }
}

/// Keeps the pace of one DSP for all threads.
pub struct Pacer {
    pace: Pace,
    /// When the last run that was begun will have ended.
    free: Mutex<Instant>,
    said: AtomicBool,
}

impl Pacer {
    /// A DSP that is free.
    pub fn new(pace: Pace) -> Self {
        Self { pace, free: Mutex::new(Instant::now()), said: AtomicBool::new(false) }
    }

    /// Its speed.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// A run with so many operations, after those that were begun before.
    pub fn begin(&self, operations: u64) -> Turn<'_> {
        let mut free = lock(&self.free);
        let end = (*free).max(Instant::now()) + self.pace.takes(operations);
        *free = end;
        Turn { pacer: self, end }
    }

    /// Says once that this machine took longer for the run of `graph` than the paced DSP would have. Gives whether it was said now.
    pub fn notice(&self, graph: &str, took: Duration, operations: u64) -> bool {
        let paced = self.pace.takes(operations);
        let now = took > paced && !self.said.swap(true, Ordering::Relaxed);
        if now {
            tracing::warn!(
                "the paced dsp is slower than asked: `{graph}` takes {:.2} ms on this machine and would take {:.2} ms at {} GOPS \
                 and {} us a call; this is said once",
                took.as_secs_f64() * 1e3,
                paced.as_secs_f64() * 1e3,
                self.pace.gops,
                self.pace.rpc_us
            );
        }
        now
    }
}

/// A run on the paced DSP. Dropped early (it failed, or was stopped) it gives the rest of its time back, unless another run waits behind it.
pub struct Turn<'p> {
    pacer: &'p Pacer,
    end: Instant,
}

impl Turn<'_> {
    /// Waits until the DSP would have ended; `false`: the run was stopped meanwhile.
    pub fn wait(self, stop: &Stop) -> bool {
        let bell = Arc::new(Bell::default());
        stop.during(&bell, || bell.sleep_until(self.end)).unwrap_or(false)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut free = lock(&self.pacer.free);
        if *free == self.end {
            *free = Instant::now();
        }
    }
}

/// What ends a wait.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    /// `false`: it rang before.
    fn sleep_until(&self, end: Instant) -> bool {
        let mut rung = lock(&self.rung);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if *rung || left.is_zero() {
                return !*rung;
            }
            rung = self.heard.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Halt for Bell {
    fn halt(&self) {
        *lock(&self.rung) = true;
        self.heard.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is one number: a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { gops: 2.0, rpc_us: 500.0 };

    #[test]
    fn a_call_costs_its_way_and_its_work() {
        // 40 million operations at 2 GOPS are 20 ms.
        assert_eq!(PACE.takes(40_000_000), Duration::from_micros(20_500));
        assert_eq!(PACE.takes(0), Duration::from_micros(500));
        assert!(Pace { gops: 1e-300, rpc_us: 0.0 }.takes(u64::MAX) < Duration::from_secs(40_000_000));
    }

    #[test]
    fn runs_queue_up_and_none_is_faster() {
        let three = || {
            let (pacer, begun) = (Pacer::new(PACE), Instant::now());
            std::thread::scope(|scope| {
                let run = || assert!(pacer.begin(40_000_000).wait(&Stop::default()));
                (0..3).for_each(|_| drop(scope.spawn(run)));
            });
            begun.elapsed()
        };
        // A machine may stand still now and then, but not each time.
        let mut times =
            (0..5).map(|_| three()).inspect(|took| assert!(*took >= 3 * PACE.takes(40_000_000), "{took:?}"));
        assert!(times.any(|took| took < Duration::from_secs(2)), "none of five in time");
    }

    #[test]
    fn a_stop_ends_the_wait_and_gives_the_time_back() {
        let (pacer, stop, begun) = (Pacer::new(PACE), Stop::default(), Instant::now());
        // A minute of work.
        let minute = 120_000_000_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.is_running() {
                    std::thread::yield_now();
                }
                stop.stop();
            });
            assert!(!pacer.begin(minute).wait(&stop));
        });
        assert!(!pacer.begin(minute).wait(&stop), "a wait began for a launch that was stopped before");
        assert!(pacer.begin(0).wait(&Stop::default()));
        assert!(begun.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn slower_than_asked_is_said_once() {
        let pacer = Pacer::new(PACE);
        assert!(!pacer.notice("fast", Duration::from_micros(499), 0));
        assert!(pacer.notice("slow", Duration::from_micros(501), 0));
        assert!(!pacer.notice("slow", Duration::from_secs(1), 0));
    }
}
