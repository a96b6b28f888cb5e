//! Gives memory that is free back to the system now and then. After a pile-up of large tensors glibc keeps what was freed, in pieces of
//! every size and for every thread: a server of 140 MB then stays at 260 for good, and a leak could not be told from it. It refuses to
//! touch memory that is in use, and does nothing where the allocator is another.

use std::time::Duration;

/// How often. A trim holds up who allocates meanwhile, by a few milliseconds where there is much to give back.
const EVERY: Duration = Duration::from_secs(20);

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    use std::ffi::c_int;
    unsafe extern "C" {
        fn malloc_trim(keep: usize) -> c_int;
    }
    // SAFETY: glibc's own function of this type; it may be called at any time from any thread.
    unsafe { malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

/// Goes on for as long as it is polled.
pub(super) async fn now_and_then() {
    loop {
        tokio::time::sleep(EVERY).await;
        // Not on a thread that speaks with callers.
        if tokio::task::spawn_blocking(trim).await.is_err() {
            return;
        }
    }
}
