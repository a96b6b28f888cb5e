//! Runs numbered jobs on a few threads and gives the results back in order.
//! It refuses to let the number of threads, or who finishes first, be seen in the results.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads to use when the caller has no wish: what the machine runs at once.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// `job(0) .. job(count - 1)` on up to `threads` threads (0: as many as the machine runs at once), results in that order.
/// `progress(done, count)` is called after each job, from any of the threads. A job's panic goes on in the caller.
pub fn run<T: Send>(
    count: usize,
    threads: usize,
    job: impl Fn(usize) -> T + Sync,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Vec<T> {
    let threads = if threads == 0 { default_threads() } else { threads }.min(count.max(1));
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(count));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            let result = job(index);
            // A lock poisoned by a panic elsewhere is harmless: the scope passes that panic on.
            results.lock().unwrap_or_else(|e| e.into_inner()).push((index, result));
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, count);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn order_does_not_depend_on_threads() {
        let expected: Vec<usize> = (0..100).map(|i| i * i).collect();
        for threads in [0, 1, 2, 7] {
            assert_eq!(super::run(100, threads, |i| i * i, &|_, _| {}), expected);
        }
        assert!(super::run(0, 3, |i| i, &|_, _| {}).is_empty());
    }
}
