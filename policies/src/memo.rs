//! What was found out about a case is kept for the next policy that is made for it: a sweep makes the same policy again for every seed.
//! It refuses to keep much: the last few cases, for as long as the process lives.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// So many answers are kept: more than a sweep has cases.
const KEPT: usize = 128;

/// Answers by what they hang on. Who asks while another one still works on the same answer waits for it.
pub(crate) struct Memo<K, V>(Mutex<VecDeque<(K, Arc<OnceLock<V>>)>>);

impl<K: PartialEq, V: Clone> Memo<K, V> {
    pub(crate) const fn new() -> Memo<K, V> {
        Memo(Mutex::new(VecDeque::new()))
    }

    /// The answer that was kept, or what `find` finds.
    pub(crate) fn get(&self, key: K, find: impl FnOnce() -> V) -> V {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match kept.iter().find(|(known, _)| *known == key) {
            Some((_, answer)) => answer.clone(),
            None => {
                let answer = Arc::new(OnceLock::new());
                kept.push_back((key, answer.clone()));
                if kept.len() > KEPT {
                    kept.pop_front();
                }
                answer
            }
        };
        drop(kept);
        answer.get_or_init(find).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn an_answer_is_found_once_and_the_oldest_is_forgotten() {
        let (memo, asked) = (Memo::new(), AtomicUsize::new(0));
        let get = |key: usize| {
            memo.get(key, || {
                asked.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(5));
                10 * key
            })
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| assert_eq!(get(7), 70)))));
        assert_eq!((get(7), asked.load(Ordering::Relaxed)), (70, 1));
        // Saboteur: a memo that does not look at the key would say 70.
        (0..KEPT).for_each(|key| assert_eq!(get(100 + key), 10 * (100 + key)));
        assert_eq!((get(7), asked.load(Ordering::Relaxed)), (70, KEPT + 2));
    }
}
