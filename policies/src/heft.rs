//! After HEFT (Topcuoglu, Hariri and Wu, TPDS 2002), for streams: a request's rank is its upward rank (remaining work, mean over the
//! processors that can run each segment) times its priority, by the time left to its deadline; the highest rank goes first, to the
//! processor with the earliest answer, busy ones included. HEFT has no deadlines, so what it does about missed ones is ours: overdue
//! requests come last, and what cannot be on time is dropped if something else waits, which overload rewards.
//! It refuses to insert work into gaps, which real timetables do not keep.

use crate::board::{Board, Rules, variants};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::{Case, ProcessorId};
use cosched_env::observation::{Observation, RequestView};
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "heft",
    about: "most urgent work first (upward rank by priority and deadline), on the processor with the earliest answer; drops the hopeless",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    Ok(Box::new(Heft { board: Board::default(), rank_ns: rank_ns(case) }))
}

struct Heft {
    board: Board,
    /// See [`rank_ns`].
    rank_ns: Vec<Vec<f64>>,
}

/// Upward ranks: `[variant][segment]`: nanoseconds from this segment to the end, each segment at its mean over the processors that can
/// run it.
pub(crate) fn rank_ns(case: &Case) -> Vec<Vec<f64>> {
    let ranks = |table: &cosched_env::case::VariantTable| {
        let mut ranks = vec![0.0; table.segments as usize + 1];
        for s in (0..table.segments).rev() {
            let able =
                (0..case.processor_count() as u16).map(ProcessorId).filter(|&p| table.reach(p, s).is_some());
            let (sum, count) =
                able.fold((0.0, 0.0), |(sum, n), p| (sum + table.latency_ns(p, s, s), n + 1.0));
            ranks[s as usize] = ranks[s as usize + 1] + sum / count;
        }
        ranks
    };
    case.variants.iter().map(ranks).collect()
}

/// Upward rank of what is left of a request, in its quickest variant, times its priority; nanoseconds.
pub(crate) fn work_ns(ranks: &[Vec<f64>], observation: &Observation<'_>, r: &RequestView) -> f64 {
    let rest = variants(observation, r).map(|v| ranks[v.0 as usize][r.next as usize]);
    rest.fold(f64::INFINITY, f64::min) * r.priority
}

/// The key by which requests are ordered, least first: minus the work by the time left; overdue requests come last.
pub(crate) fn urgency(work_ns: f64, left_ms: f64) -> f64 {
    if left_ms > 0.0 { -work_ns / left_ms } else { -left_ms }
}

impl Policy for Heft {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let ranks = &self.rank_ns;
        let rules = Rules { wait: true, drop: true };
        self.board.decide(observation, rules, |r| {
            urgency(work_ns(ranks, observation, r), r.deadline.ms_after(observation.now))
        })
    }
}
