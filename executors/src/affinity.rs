//! What the system does with a thread: the cores that it may run on, and how late it may wake. It refuses to keep a thread where it was put:
//! what is pinned is free again when the guard goes.

/// The cores that this process may use, ascending; empty where the system has no core sets (other than Linux).
pub fn allowed() -> Vec<usize> {
    system::now()
}

/// Keeps the calling thread on some cores until it is dropped; threads that are started meanwhile inherit them.
#[derive(Debug)]
pub struct Pinned {
    before: Vec<usize>,
    /// A guard belongs to its thread.
    _here: std::marker::PhantomData<*const ()>,
}

impl Pinned {
    /// Pins the calling thread to `cores`; nothing to do for none, or where it is there already.
    ///
    /// # Errors
    /// What the system says, e.g. of a core that there is not.
    pub fn to(cores: &[usize]) -> Result<Option<Pinned>, String> {
        if cores.is_empty() {
            return Ok(None);
        }
        let before = system::now();
        if before == cores {
            return Ok(None);
        }
        system::set(cores)?;
        Ok(Some(Pinned { before, _here: std::marker::PhantomData }))
    }
}

/// From now on the calling thread's timed waits end when they should: Linux lets them end up to 50 us late, to wake several threads at once
/// (`PR_SET_TIMERSLACK`). Nothing happens where the system has no such thing.
pub fn wake_on_time() {
    system::wake_on_time();
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(problem) = system::set(&self.before) {
            tracing::warn!("a thread stays on its cores: {problem}");
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, set_current_timer_slack};
    use std::num::NonZeroU64;

    pub fn wake_on_time() {
        if let Err(problem) = set_current_timer_slack(NonZeroU64::new(1)) {
            tracing::debug!("timed waits may end late: {problem}");
        }
    }

    pub fn now() -> Vec<usize> {
        let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
    }

    pub fn set(cores: &[usize]) -> Result<(), String> {
        let mut set = CpuSet::new();
        cores.iter().filter(|&&core| core < CpuSet::MAX_CPU).for_each(|&core| set.set(core));
        sched_setaffinity(None, &set).map_err(|e| format!("cores {cores:?}: {e}"))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub fn wake_on_time() {}

    pub fn now() -> Vec<usize> {
        Vec::new()
    }

    pub fn set(_: &[usize]) -> Result<(), String> {
        Err("core sets are known on Linux only".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn timed_waits_of_this_thread_alone_end_on_time() {
        let slack = || rustix::thread::current_timer_slack().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let before = slack();
                wake_on_time();
                assert_eq!((slack(), before > 1), (1, true));
            });
        });
        assert!(slack() > 1);
    }

    #[test]
    fn a_pinned_thread_is_where_it_was_put_and_free_again_afterwards() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let before = allowed();
                let one = before[before.len() - 1];
                let guard = Pinned::to(&[one]).unwrap();
                assert_eq!(allowed(), [one]);
                // What is started meanwhile is there too; a second guard for the same cores has nothing to do.
                assert_eq!(std::thread::spawn(allowed).join().unwrap(), [one]);
                assert!(Pinned::to(&[one]).unwrap().is_none());
                drop(guard);
                assert_eq!(allowed(), before);
                assert!(Pinned::to(&[]).unwrap().is_none());
                assert!(Pinned::to(&[1023]).is_err());
                assert_eq!(allowed(), before);
            });
        });
    }
}
