//! The command queue of a device, which threads ask in turn where the driver needs that. It refuses to be asked in any other way.

use opencl3::command_queue::CommandQueue;
use opencl3::context::Context;
use opencl3::device::{CL_DEVICE_TYPE_CPU, Device};
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held for each call to pocl's `basic` device: it computes in the thread that asks, and its driver (3.1) locks itself out when a second thread
/// asks meanwhile.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// See the module's text.
pub(super) struct Queue {
    queue: CommandQueue,
    /// Whether one thread may ask at a time only.
    alone: bool,
}

/// The queue, for one call: others may wait until it is let go of.
pub(super) struct Asked<'q> {
    queue: &'q CommandQueue,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Deref for Asked<'_> {
    type Target = CommandQueue;

    fn deref(&self) -> &CommandQueue {
        self.queue
    }
}

impl Queue {
    /// In order.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn new(context: &Context, device: &Device) -> opencl3::Result<Queue> {
        // SAFETY: the device belongs to the context, and there are no properties whose lifetime could matter.
        #[allow(deprecated)]
        let queue = unsafe { CommandQueue::create(context, device.id(), 0) }?;
        let cpu = device.dev_type().is_ok_and(|t| t & CL_DEVICE_TYPE_CPU != 0);
        Ok(Queue { queue, alone: cpu && device.name().is_ok_and(|name| name.starts_with("basic")) })
    }

    /// For one call. To keep what it gives is to keep others waiting.
    pub(super) fn ask(&self) -> Asked<'_> {
        let turn = || ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Asked { queue: &self.queue, _turn: self.alone.then(turn) }
    }
}
