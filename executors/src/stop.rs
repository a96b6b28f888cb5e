//! The way of "nobody wants the answer any more" to a launch that runs: from any thread to the one that computes, and from there to
//! whatever can be told to end early (onnxruntime, the process of the DSP, a call to a server). It refuses to wait for the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something that runs below us and can be told from another thread to end early.
pub trait Halt: Send + Sync {
    /// What runs ends soon, with an error or without. Must not wait.
    fn halt(&self);

    /// What ran has ended, after a [`Halt::halt`]: the next run goes on to its end.
    fn release(&self) {}
}

/// Whether a launch is still wanted. One a launch: once stopped it stays so.
#[derive(Default)]
pub struct Stop {
    unwanted: AtomicBool,
    /// What runs now.
    running: Mutex<Option<Arc<dyn Halt>>>,
}

impl Stop {
    /// The launch is not wanted any more: what runs of it ends at the next operator or dispatch, the rest does not begin. Does not wait.
    pub fn stop(&self) {
        let running = self.lock();
        self.unwanted.store(true, Ordering::SeqCst);
        if let Some(halt) = &*running {
            halt.halt();
        }
    }

    /// Whether it was stopped.
    pub fn stopped(&self) -> bool {
        self.unwanted.load(Ordering::SeqCst)
    }

    /// Whether something runs that would be told.
    pub fn is_running(&self) -> bool {
        self.lock().is_some()
    }

    /// Does `work`, which `halt` ends early if the launch is stopped meanwhile; `None`: it was stopped before.
    pub fn during<T>(&self, halt: &Arc<impl Halt + 'static>, work: impl FnOnce() -> T) -> Option<T> {
        let mut running = self.lock();
        if self.stopped() {
            return None;
        }
        *running = Some(halt.clone());
        drop(running);
        let _over = Over(self);
        Some(work())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<dyn Halt>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends [`Stop::during`], by a panic too.
struct Over<'s>(&'s Stop);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let halt = self.0.lock().take();
        // From here on nobody can halt it any more.
        if let Some(halt) = halt.filter(|_| self.0.stopped()) {
            halt.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[derive(Default)]
    struct Halted(Mutex<(u32, u32)>);

    impl Halt for Halted {
        fn halt(&self) {
            self.0.lock().unwrap().0 += 1;
        }
        fn release(&self) {
            self.0.lock().unwrap().1 += 1;
        }
    }

    #[test]
    fn what_runs_is_told_once_and_released_and_nothing_begins_afterwards() {
        let (stop, halted) = (Stop::default(), Arc::new(Halted::default()));
        let told = || *halted.0.lock().unwrap();
        assert_eq!((stop.during(&halted, || stop.is_running()), told()), (Some(true), (0, 0)));
        assert!(!stop.is_running());
        let seen = stop.during(&halted, || {
            stop.stop();
            told()
        });
        assert_eq!((seen, told()), (Some((1, 0)), (1, 1)));
        stop.stop();
        assert_eq!((stop.during(&halted, || ()), told()), (None, (1, 1)));
    }

    #[test]
    fn a_panic_leaves_nothing_behind() {
        let (stop, halted) = (Stop::default(), Arc::new(Halted::default()));
        let panicking = || {
            stop.during(&halted, || {
                stop.stop();
                panic!("on purpose")
            })
        };
        assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
        assert!(!stop.is_running());
        assert_eq!(*halted.0.lock().unwrap(), (1, 1));
    }
}
