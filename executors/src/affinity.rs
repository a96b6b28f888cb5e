//! The cores that a thread may run on. It refuses to keep a thread where it was put: what is pinned is free again when the guard goes.

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

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(problem) = system::set(&self.before) {
            tracing::warn!("a thread stays on its cores: {problem}");
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

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
