//! Working memory of runs. A device does one run after the other, so segments that follow one another share one arena, which stays in the
//! caches of the device: with one each, eight segments of SqueezeNet cost a tenth more than the whole. It refuses to know any driver.

use super::device::Fault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Where the steps of a run keep their numbers, from its first command to its last.
pub struct Arena<B> {
    size: usize,
    buffer: Mutex<B>,
}

impl<B> Arena<B> {
    /// Waits until no other thread hands out commands that use it. The device does them in order.
    pub fn turn(&self) -> MutexGuard<'_, B> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The arena that the first instances of all segments on a device share.
pub struct Common<B>(Mutex<Weak<Arena<B>>>);

impl<B> Default for Common<B> {
    fn default() -> Self {
        Common(Mutex::new(Weak::new()))
    }
}

impl<B> Common<B> {
    /// An arena of `size` or more. Where `own` is true nobody else has it, so that launches on several threads need not wait for each
    /// other; else whoever asks later and needs no more has the same one. It is freed with its last holder.
    pub fn arena(
        &self,
        size: usize,
        own: bool,
        make: impl FnOnce() -> Result<B, Fault>,
    ) -> Result<Arc<Arena<B>>, Fault> {
        let new = || Ok(Arc::new(Arena { size, buffer: Mutex::new(make()?) }));
        if own {
            return new();
        }
        let mut common = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(arena) = common.upgrade().filter(|arena| arena.size >= size) {
            return Ok(arena);
        }
        let arena = new()?;
        *common = Arc::downgrade(&arena);
        Ok(arena)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_is_shared_by_all_that_it_is_large_enough_for() {
        let common = Common::<usize>::default();
        let get = |size, own| common.arena(size, own, || Ok(size)).unwrap();
        let first = get(10, false);
        assert!(Arc::ptr_eq(&first, &get(10, false)) && Arc::ptr_eq(&first, &get(3, false)));
        assert!(!Arc::ptr_eq(&first, &get(3, true)));
        let larger = get(11, false);
        assert_eq!((*first.turn(), *larger.turn()), (10, 11));
        assert!(Arc::ptr_eq(&larger, &get(10, false)));
        drop(larger);
        assert_eq!(*get(1, false).turn(), 1, "it was freed");
        assert!(common.arena(50, false, || Err(Fault::Stopped)).is_err());
    }
}
