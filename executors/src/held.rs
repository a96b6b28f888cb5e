//! A tensor between two segments: on the host, or still with the processor that made it and brought to the host when somebody asks.
//! Tensors and device buffers that nobody holds any more are used again. It refuses to know any driver.

use crate::processor::ExecError;
use crate::tensor::{DType, Tensor};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A tensor, wherever it is. Copies share it.
#[derive(Clone)]
pub enum Held {
    /// On the host.
    Host(Arc<Tensor>),
    /// With a processor.
    There(Arc<dyn Resident>),
}

/// A tensor that a processor keeps. Its memory is free again when the last holder lets go of it.
pub trait Resident: Any + Send + Sync {
    /// Element type and shape.
    fn form(&self) -> (DType, &[usize]);

    /// The tensor on the host, if it has been brought there.
    fn seen(&self) -> Option<&Arc<Tensor>>;

    /// Brings it to the host, the first time.
    ///
    /// # Errors
    /// [`ExecError::Failed`], never [`ExecError::Died`]: who asks may be another processor, which is well.
    fn host(&self) -> Result<&Arc<Tensor>, ExecError>;
}

impl From<Tensor> for Held {
    fn from(tensor: Tensor) -> Self {
        Held::Host(Arc::new(tensor))
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dtype, shape) = self.form();
        write!(f, "{dtype}{shape:?}{}", if self.seen().is_some() { "" } else { " on its processor" })
    }
}

impl Held {
    /// Element type and shape.
    pub fn form(&self) -> (DType, &[usize]) {
        match self {
            Held::Host(tensor) => (tensor.dtype(), &tensor.shape),
            Held::There(resident) => resident.form(),
        }
    }

    /// The tensor on the host; brings it there if it must.
    ///
    /// # Errors
    /// When the processor that has it does not give it.
    pub fn host(&self) -> Result<&Arc<Tensor>, ExecError> {
        match self {
            Held::Host(tensor) => Ok(tensor),
            Held::There(resident) => resident.host(),
        }
    }

    /// The tensor if it is on the host already.
    pub fn seen(&self) -> Option<&Arc<Tensor>> {
        match self {
            Held::Host(tensor) => Some(tensor),
            Held::There(resident) => resident.seen(),
        }
    }
}

/// All of them on the host.
///
/// # Errors
/// As [`Held::host`].
pub fn hosts(all: &[Held]) -> Result<Vec<&Tensor>, ExecError> {
    all.iter().map(|held| held.host().map(|tensor| &**tensor)).collect()
}

/// What a shelf keeps for the next run, at most; whatever is made beyond that is freed with its last holder.
const KEPT: usize = 8;

/// Things that are lent out again once nobody else holds them: what a run fills, so that it need not allocate.
pub struct Shelf<T>(Vec<Arc<T>>);

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(Vec::with_capacity(KEPT))
    }
}

impl<T> Shelf<T> {
    /// One that nobody holds, or a new one.
    pub fn take(&mut self, make: impl FnOnce() -> T) -> Own<T> {
        match self.0.iter_mut().position(|item| Arc::get_mut(item).is_some()) {
            Some(free) => Own(self.0.swap_remove(free)),
            None => Own(Arc::new(make())),
        }
    }

    /// Remembers what was taken, and gives a reference to hand on.
    pub fn lend(&mut self, own: Own<T>) -> Arc<T> {
        if self.0.len() < KEPT {
            self.0.push(own.0.clone());
        }
        own.0
    }
}

/// Something from a shelf, before anybody else holds it: it may be written.
pub struct Own<T>(Arc<T>);

impl<T> Own<T> {
    /// The thing itself.
    ///
    /// # Panics
    /// Never: the shelf gave it away, and it has not been lent yet.
    pub fn get(&mut self) -> &mut T {
        Arc::get_mut(&mut self.0).expect("nobody else holds it")
    }
}

/// Tensors that went between the host and a processor, or from one place of it to another, and kernels that ran there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Tensors from the host to the processor.
    pub uploads: u64,
    /// Their bytes.
    pub upload_bytes: u64,
    /// Tensors from the processor to the host.
    pub downloads: u64,
    /// Their bytes.
    pub download_bytes: u64,
    /// Tensors from one place of the processor to another, between kernels of two segments.
    pub moves: u64,
    /// Their bytes.
    pub move_bytes: u64,
    /// Kernels that were launched.
    pub dispatches: u64,
}

impl Traffic {
    /// What was added since `before`.
    #[must_use]
    pub fn since(self, before: Traffic) -> Traffic {
        Traffic {
            uploads: self.uploads - before.uploads,
            upload_bytes: self.upload_bytes - before.upload_bytes,
            downloads: self.downloads - before.downloads,
            download_bytes: self.download_bytes - before.download_bytes,
            moves: self.moves - before.moves,
            move_bytes: self.move_bytes - before.move_bytes,
            dispatches: self.dispatches - before.dispatches,
        }
    }
}

/// Counts [`Traffic`] from many threads.
#[derive(Debug, Default)]
pub struct Meter([AtomicU64; 7]);

impl Meter {
    fn add(&self, at: usize, bytes: usize) {
        self.0[at].fetch_add(1, Ordering::Relaxed);
        self.0[at + 1].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A tensor came from the host.
    pub fn upload(&self, bytes: usize) {
        self.add(0, bytes);
    }

    /// A tensor went to the host.
    pub fn download(&self, bytes: usize) {
        self.add(2, bytes);
    }

    /// A tensor was moved within the processor.
    pub fn moved(&self, bytes: usize) {
        self.add(4, bytes);
    }

    /// So many kernels were launched.
    pub fn dispatched(&self, kernels: usize) {
        self.0[6].fetch_add(kernels as u64, Ordering::Relaxed);
    }

    /// All so far.
    pub fn read(&self) -> Traffic {
        let [uploads, upload_bytes, downloads, download_bytes, moves, move_bytes, dispatches] =
            [0, 1, 2, 3, 4, 5, 6].map(|i| self.0[i].load(Ordering::Relaxed));
        Traffic { uploads, upload_bytes, downloads, download_bytes, moves, move_bytes, dispatches }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_not_lent_again_and_what_was_let_go_is() {
        let mut shelf = Shelf::<u32>::default();
        let made = std::cell::Cell::new(0);
        let mut next = || {
            let item = shelf.take(|| {
                made.set(made.get() + 1);
                made.get()
            });
            shelf.lend(item)
        };
        let (first, second) = (next(), next());
        assert_eq!((*first, *second), (1, 2));
        drop(first);
        assert_eq!(*next(), 1);
        let many: Vec<_> = (0..KEPT + 3).map(|_| next()).collect();
        let mut numbers: Vec<u32> = many.iter().map(|item| **item).chain([*second]).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|w| w[0] != w[1]), "{numbers:?}");
        drop(many);
        assert_eq!(shelf.0.len(), KEPT);
    }
}
