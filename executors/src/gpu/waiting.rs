//! Waiting for wgpu without allocating: a mapping that says when it is done, a future that is ready at once. It refuses to wait for ever.

use super::device::Fault;
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What takes longer means that the device hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Says when a buffer is mapped, once a mapping.
#[derive(Default)]
pub(super) struct Mapped {
    result: Mutex<Option<Result<(), wgpu::BufferAsyncError>>>,
    rung: Condvar,
}

impl Mapped {
    pub(super) fn tell(&self, result: Result<(), wgpu::BufferAsyncError>) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.rung.notify_all();
    }

    /// Another thread that polls the device may have taken the news on it.
    pub(super) fn wait(&self) -> Result<(), Fault> {
        let guard = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.rung.wait_timeout_while(guard, PATIENCE, |result| result.is_none());
        match waited.unwrap_or_else(PoisonError::into_inner).0.take() {
            Some(Ok(())) => Ok(()),
            Some(Err(e)) => Err(Fault::Failed(format!("reading results back: {e}"))),
            None => Err(Fault::Died("the device never finished".into())),
        }
    }
}

/// What a future has that is ready at once, as those of scopes are where there is no browser. Waiting for it would allocate.
pub(super) fn ready(future: impl Future<Output = Option<wgpu::Error>>) -> Option<wgpu::Error> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(error) => error,
        Poll::Pending => pollster::block_on(future),
    }
}
