//! Prioritised experience replay (Schaul et al., ICLR 2016): a ring of transitions within a bound on their number and one on their
//! bytes, and a sum tree over their priorities. It refuses to draw by itself: the caller brings the random numbers.

use std::cell::Cell;
use std::rc::Rc;

/// A full binary tree of sums over a fixed number of priorities: setting one and finding where a mass falls take `log2(n)` steps.
pub struct SumTree {
    /// `nodes[1]` is the root, the children of `i` are `2 i` and `2 i + 1`; the leaves fill the second half.
    nodes: Vec<f64>,
}

impl SumTree {
    /// A tree over `n` priorities, all 0.
    pub fn new(n: usize) -> SumTree {
        SumTree { nodes: vec![0.0; 2 * n.next_power_of_two()] }
    }

    fn leaves(&self) -> usize {
        self.nodes.len() / 2
    }

    /// The priority at `index`.
    pub fn get(&self, index: usize) -> f64 {
        self.nodes[self.leaves() + index]
    }

    /// Sets a priority (at least 0). Parents are added up anew, so that rounding errors do not pile up.
    pub fn set(&mut self, index: usize, priority: f64) {
        let mut node = self.leaves() + index;
        self.nodes[node] = priority;
        while node > 1 {
            node /= 2;
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1];
        }
    }

    /// The sum of all.
    pub fn total(&self) -> f64 {
        self.nodes[1]
    }

    /// The index in whose share of `[0, total)` the mass falls. It never is one of priority 0, even where rounding would have it so.
    pub fn find(&self, mut mass: f64) -> usize {
        let mut node = 1;
        while node < self.leaves() {
            let (left, right) = (2 * node, 2 * node + 1);
            if (mass < self.nodes[left] && self.nodes[left] > 0.0) || self.nodes[right] <= 0.0 {
                node = left;
            } else {
                mass -= self.nodes[left];
                node = right;
            }
        }
        node - self.leaves()
    }
}

/// An encoded observation in the replay; transitions share it. It counts itself.
pub struct Kept {
    /// `[candidates, CANDIDATE_FEATURES]`.
    pub rows: Box<[f32]>,
    /// `[CONTEXT_FEATURES]`.
    pub context: Box<[f32]>,
    meter: Rc<Cell<usize>>,
}

impl Kept {
    fn bytes(&self) -> usize {
        size_of::<Kept>() + (self.rows.len() + self.context.len()) * size_of::<f32>()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.meter.set(self.meter.get() - self.bytes());
    }
}

/// What a decision led to.
#[derive(Clone)]
pub struct Transition {
    /// What was seen.
    pub state: Rc<Kept>,
    /// Candidate chosen.
    pub action: usize,
    /// Reward until `next`, discounted to the decision.
    pub reward: f32,
    /// Discount over the time until `next`.
    pub discount: f32,
    /// What was seen then; `None`: the episode had finished.
    pub next: Option<Rc<Kept>>,
    /// Whether a teacher chose.
    pub taught: bool,
}

/// Transitions with priorities; the oldest make room for new ones.
pub struct Replay {
    slots: Vec<Option<Transition>>,
    tree: SumTree,
    oldest: usize,
    len: usize,
    meter: Rc<Cell<usize>>,
    most_bytes: usize,
    alpha: f64,
    /// The highest priority so far, to the power of alpha: that of new transitions, so that each is learned from soon.
    highest: f64,
}

/// Added to every error, so that no transition is forgotten for good.
const LEAST_PRIORITY: f64 = 1e-3;

impl Replay {
    /// An empty replay of at most `most` transitions and `most_bytes` of observations; `alpha` is the exponent of the priorities.
    pub fn new(most: usize, most_bytes: usize, alpha: f64) -> Replay {
        let most = most.max(1);
        Replay {
            slots: vec![None; most],
            tree: SumTree::new(most),
            oldest: 0,
            len: 0,
            meter: Rc::default(),
            most_bytes,
            alpha,
            highest: 1.0,
        }
    }

    /// Number of transitions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the observations that it keeps (and of those that callers still hold).
    pub fn bytes(&self) -> usize {
        self.meter.get()
    }

    /// Copies an observation, for transitions to share.
    pub fn keep(&self, (rows, context): (&[f32], &[f32])) -> Rc<Kept> {
        let kept = Kept { rows: rows.into(), context: context.into(), meter: self.meter.clone() };
        self.meter.set(self.meter.get() + kept.bytes());
        Rc::new(kept)
    }

    /// Takes in a transition with the highest priority there was. The oldest go while there are too many or too large ones.
    pub fn push(&mut self, transition: Transition) {
        if self.len == self.slots.len() {
            self.forget_oldest();
        }
        let place = (self.oldest + self.len) % self.slots.len();
        self.slots[place] = Some(transition);
        self.tree.set(place, self.highest);
        self.len += 1;
        while self.bytes() > self.most_bytes && self.len > 1 {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        self.slots[self.oldest] = None;
        self.tree.set(self.oldest, 0.0);
        self.oldest = (self.oldest + 1) % self.slots.len();
        self.len -= 1;
    }

    /// The transition at an index that [`Replay::sample`] gave.
    ///
    /// # Panics
    /// When there is none: a bug in the caller.
    pub fn get(&self, index: usize) -> &Transition {
        self.slots[index].as_ref().expect("sampled indices hold transitions until the next push")
    }

    /// Draws one transition for each number of `draws` (each in `[0, 1)`), the i-th from the i-th of equal parts of the total priority:
    /// their indices, and the importance weights `(len P(i))^-beta` relative to the largest of them.
    ///
    /// # Panics
    /// When the replay is empty: a bug in the caller.
    pub fn sample(&self, draws: &[f64], beta: f64) -> (Vec<usize>, Vec<f32>) {
        assert!(!self.is_empty(), "an empty replay has nothing to draw");
        let total = self.tree.total();
        let part = total / draws.len() as f64;
        let place = |(i, draw): (usize, &f64)| self.tree.find((i as f64 + draw) * part);
        let indices: Vec<usize> = draws.iter().enumerate().map(place).collect();
        let weight = |&i: &usize| (self.len as f64 * self.tree.get(i) / total).powf(-beta);
        let weights: Vec<f64> = indices.iter().map(weight).collect();
        let most = weights.iter().copied().fold(0.0, f64::max);
        (indices, weights.iter().map(|w| (w / most) as f32).collect())
    }

    /// Sets the priority of a sampled transition to `(|error| + a little)^alpha`.
    pub fn set_error(&mut self, index: usize, error: f64) {
        let priority = (error.abs() + LEAST_PRIORITY).powf(self.alpha);
        self.highest = self.highest.max(priority);
        self.tree.set(index, priority);
    }
}
