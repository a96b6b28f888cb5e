//! The device behind a GPU processor. A device that a driver has given up (reset, unplugged, crashed) never comes back; another one is opened in
//! its place when somebody needs it next. It refuses to open a device of another kind: plans and tuning are of the first one.

use super::device::{Device, Fault};
use crate::processor::ExecError;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// An open device, and whether it was lost since.
pub(super) struct Opened<D> {
    device: D,
    lost: AtomicBool,
}

impl<D> Deref for Opened<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.device
    }
}

impl<D: Device> Opened<D> {
    fn new(device: D) -> Arc<Opened<D>> {
        Arc::new(Opened { device, lost: AtomicBool::new(false) })
    }

    /// Whether nothing on it can be used any more.
    pub(super) fn lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Loses it; for tests.
    pub(super) fn lose(&self) {
        if !self.device.lose() {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    /// What a fault on it means to whoever runs `graph`.
    pub(super) fn failed(&self, graph: &str, fault: Fault) -> ExecError {
        let processor = D::NAME.to_string();
        match fault {
            Fault::Failed(reason) => ExecError::Failed { processor, graph: graph.to_string(), reason },
            Fault::Died(reason) => {
                self.lost.store(true, Ordering::Relaxed);
                ExecError::Died { processor, reason }
            }
            Fault::Stopped => ExecError::Stopped { processor },
        }
    }
}

/// See the module's text.
pub(super) struct Door<D>(Mutex<Arc<Opened<D>>>);

impl<D: Device> Door<D> {
    /// With an open device.
    pub(super) fn new(device: D) -> Door<D> {
        Door(Mutex::new(Opened::new(device)))
    }

    /// Another door to the same device.
    pub(super) fn twin(&self) -> Door<D> {
        Door(Mutex::new(self.last()))
    }

    /// The device that was opened last; it may be lost.
    pub(super) fn last(&self) -> Arc<Opened<D>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A device that is not known to be lost; opens one if need be.
    ///
    /// # Errors
    /// [`ExecError::Died`] when none opens, or one of another kind.
    pub(super) fn device(&self) -> Result<Arc<Opened<D>>, ExecError> {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.lost() {
            let died = |reason: String| ExecError::Died { processor: D::NAME.to_string(), reason };
            let device = now.reopen().map_err(|e| died(format!("it does not open again: {e}")))?;
            let (before, after) = (now.describe(), device.describe());
            if before != after {
                return Err(died(format!("it was {before}, and now there is only {after}")));
            }
            tracing::warn!("{}: opened again", D::NAME);
            *now = Opened::new(device);
        }
        Ok(now.clone())
    }
}
