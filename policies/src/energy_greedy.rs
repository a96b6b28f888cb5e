//! Least energy on time, the greedy form of energy-aware placement (as in AutoScale, Kim and Wu, MICRO 2020, whose reward is energy under
//! a latency and an accuracy constraint): requests with least slack first; each goes where it costs least energy among the places,
//! busy processors included, that have its answer on time in the most accurate variant that any place has on time. When none is on time,
//! to the earliest answer; the hopeless are dropped when others wait. It refuses to weigh energy against accuracy or lateness.

use crate::board::{Board, Place, Rules, variants};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::{Case, ProcessorId, VariantTable};
use cosched_env::observation::{Observation, RequestView};
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "energy-greedy",
    about: "least slack first, on the processor that costs least energy and is still on time; drops the hopeless",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    Ok(Box::new(EnergyGreedy {
        board: Board::default(),
        rest_mj: case.variants.iter().map(rest_mj(case)).collect(),
    }))
}

struct EnergyGreedy {
    board: Board,
    /// `[variant][segment]`: least millijoules from this segment to the end.
    rest_mj: Vec<Vec<f64>>,
}

fn rest_mj(case: &Case) -> impl Fn(&VariantTable) -> Vec<f64> {
    let processors = case.processor_count() as u16;
    move |table| {
        let mut rest = vec![0.0; table.segments as usize + 1];
        for s in (0..table.segments).rev() {
            let able = (0..processors).map(ProcessorId).filter(|&p| table.reach(p, s).is_some());
            let least = able.map(|p| table.energy_mj(p, s, s)).fold(f64::INFINITY, f64::min);
            rest[s as usize] = rest[s as usize + 1] + least;
        }
        rest
    }
}

impl Policy for EnergyGreedy {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let rest = &self.rest_mj;
        let total = |p: &Place| p.energy_mj + rest[p.variant.0 as usize][p.last as usize + 1];
        let pick = |r: &RequestView, best: Option<Place>, b: Place| {
            let Some(a) = best else { return Some(b) };
            let deadline = r.deadline.0 as f64;
            let b_wins = match (a.answer_ns <= deadline, b.answer_ns <= deadline) {
                (true, true) => {
                    let least = (a.accuracy.total_cmp(&b.accuracy)).then(total(&b).total_cmp(&total(&a)));
                    least.then(b.answer_ns.total_cmp(&a.answer_ns)).is_lt()
                }
                (true, false) => false,
                (false, true) => true,
                (false, false) => b.answer_ns < a.answer_ns,
            };
            Some(if b_wins { b } else { a })
        };
        let slack = |r: &RequestView| {
            let rest = variants(observation, r).map(|v| observation.case.variant(v).best_rest_ns(r.next));
            r.deadline.0 as f64 - rest.fold(f64::INFINITY, f64::min)
        };
        self.board.decide_by(observation, Rules { wait: true, drop: true }, slack, pick)
    }
}
