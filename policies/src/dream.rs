//! After DREAM (Kim et al., ASPLOS 2023): each pair of request and processor has a score, the largest goes first:
//! `priority * (urgency * latency preference + ALPHA * starvation + BETA * energy preference)`, with
//! - urgency: the typical work of a request by the time to this one's deadline (0 when that is over);
//! - latency preference: mean latency of what is left over the processors, by the time to the answer on this one, what it is busy with
//!   included;
//! - starvation: time since arrival by that mean;
//! - energy preference: mean energy of what is left over the processors by that on this one.
//!
//! DREAM's urgency has the request's own work instead of the typical one. Layer by layer that falls as a request goes on; with
//! launches as long as ours it only makes the heavy ones go first, which cost a fifth of the utility in an overloaded scenario.
//! DREAM tunes its two weights online within 0 to 2; ours are constants, found on the shipped scenarios, where little hangs on them.
//! Supernet switching: a launch is made in the variant that loses least: its relative loss of accuracy by its priority, the priorities of
//! waiting requests that it makes late, and its time at a price that rises with the share of requests missed lately.
//! Smart drop: what cannot be on time is dropped if something else waits. DREAM looks at idle accelerators only; as launches here are
//! longer, a pair with a busy processor counts too, and its request waits. It refuses to be late where a lighter variant is not.

use crate::board::{Board, Place, later, variants, wait};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::{Case, ProcessorId, StreamTable, VariantTable};
use cosched_env::observation::{Observation, RequestView};
use cosched_env::world::{Decision, Policy};

/// Weight of starvation.
const ALPHA: f64 = 0.3;
/// Weight of the energy preference.
const BETA: f64 = 0.05;
/// Price of a processor's time when everything is missed, in priority by typical work.
const PRICE: f64 = 3.0;

pub(crate) const ROW: Row = Row {
    name: "dream",
    about: "by a score of urgency, preferred processor, starvation and energy; lighter variants under load; drops the hopeless",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    let means = case.variants.iter().map(|table| means(case, table)).collect();
    let work_ns = |s: &StreamTable| {
        let variants = &case.tasks[s.task.0 as usize].variants;
        variants.iter().map(|&v| case.variant(v).best_rest_ns(0)).fold(f64::INFINITY, f64::min)
    };
    let typical_ns = case.streams.iter().map(work_ns).sum::<f64>() / case.streams.len() as f64;
    let streams = case.streams.iter().map(|s| 1.0 / s.period.0 as f64);
    let arriving = streams.zip(&case.streams).map(|(rate, s)| rate * work_ns(s)).sum();
    Ok(Box::new(Dream { board: Board::default(), means, typical_ns, arriving }))
}

struct Dream {
    board: Board,
    /// `[variant][segment]`: (nanoseconds, millijoules) from this segment to the end, each at its mean over the processors that can run it.
    means: Vec<Vec<(f64, f64)>>,
    /// Nanoseconds of a request at its quickest, mean over the streams.
    typical_ns: f64,
    /// Nanoseconds of work that arrive in one, all at their quickest.
    arriving: f64,
}

fn means(case: &Case, table: &VariantTable) -> Vec<(f64, f64)> {
    let mut means = vec![(0.0, 0.0); table.segments as usize + 1];
    for s in (0..table.segments).rev() {
        let mut sum = (0.0, 0.0, 0.0);
        for p in (0..case.processor_count() as u16).map(ProcessorId) {
            if table.reach(p, s).is_some() {
                sum = (sum.0 + table.latency_ns(p, s, s), sum.1 + table.energy_mj(p, s, s), sum.2 + 1.0);
            }
        }
        let after = means[s as usize + 1];
        means[s as usize] = (after.0 + sum.0 / sum.2, after.1 + sum.1 / sum.2);
    }
    means
}

impl Policy for Dream {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        self.board.begin(observation, |r| r.arrival.0 as f64);
        if let Some(drop) = self.board.first_hopeless(observation) {
            return drop;
        }
        let (means, typical_ns) = (&self.means, self.typical_ns);
        let score = |r: &RequestView, place: &Place| score(means, typical_ns, observation, r, place);
        let pick = |r: &RequestView, best: Option<Place>, b: Place| {
            let Some(a) = best else { return Some(b) };
            let deadline = r.deadline.0 as f64;
            let b_wins = match (a.answer_ns <= deadline, b.answer_ns <= deadline) {
                (true, true) if a.accuracy != b.accuracy => b.accuracy > a.accuracy,
                (true, false) => false,
                (false, true) => true,
                (false, false) => b.answer_ns < a.answer_ns,
                _ => score(r, &b) > score(r, &a),
            };
            Some(if b_wins { b } else { a })
        };
        let first = self.board.largest(observation, pick, score);
        let Some((index, place)) = first else { return wait(observation) };
        let place = self.switched(observation, index, place);
        place.candidate.map_or_else(|| wait(observation), Decision)
    }
}

/// See the module's text.
fn score(
    means: &[Vec<(f64, f64)>],
    typical_ns: f64,
    observation: &Observation<'_>,
    r: &RequestView,
    place: &Place,
) -> f64 {
    let now = observation.now.0 as f64;
    let (to_go_ns, energy_mj) = means[place.variant.0 as usize][r.next as usize];
    let (_, rest_mj) = means[place.variant.0 as usize][place.last as usize + 1];
    let slack_ns = r.deadline.0 as f64 - now;
    let urgency = if slack_ns > 0.0 { typical_ns / slack_ns } else { 0.0 };
    let preference = to_go_ns / (place.answer_ns - now).max(1.0);
    let starvation = (now - r.arrival.0 as f64) / to_go_ns.max(1.0);
    let energy = energy_mj / (place.energy_mj + rest_mj).max(1e-9);
    r.priority * (urgency * preference + ALPHA * starvation + BETA * energy)
}

impl Dream {
    /// The launch of a request in the variant that loses least.
    fn switched(&self, observation: &Observation<'_>, index: usize, place: Place) -> Place {
        let request = &observation.requests[index];
        let deadline = request.deadline.0 as f64;
        if request.variant.is_some() || place.answer_ns > deadline {
            return place;
        }
        let price = self.price(observation);
        let loss = |place: &Place| {
            let relative = observation.case.variant(place.variant).relative_accuracy;
            let busy_ns = place.free_ns - observation.now.0 as f64;
            self.harm(observation, index, place) + request.priority * (1.0 - relative) + price * busy_ns
        };
        let mut best = (loss(&place), place);
        self.board.places(observation, index, false, |other| {
            if other.accuracy < place.accuracy && other.answer_ns <= deadline {
                let loss = loss(&other);
                if loss < best.0 {
                    best = (loss, other);
                }
            }
        });
        best.1
    }

    /// What a nanosecond of a processor is worth to others: what was missed lately by the work that arrives.
    fn price(&self, observation: &Observation<'_>) -> f64 {
        let streams = observation.case.streams.iter().zip(observation.streams);
        let missed = streams.map(|(s, view)| s.priority * (1.0 - view.on_time_share) / s.period.0 as f64);
        PRICE * missed.sum::<f64>() / self.arriving.max(1e-12)
    }

    /// Sum of the priorities of other waiting requests that are late if this place is taken, and not otherwise.
    fn harm(&self, observation: &Observation<'_>, index: usize, place: &Place) -> f64 {
        let others = observation.requests.iter().enumerate().filter(|&(other, _)| other != index);
        let late = |r: &RequestView, taken: bool| {
            let deadline = r.deadline.0 as f64;
            variants(observation, r).all(|variant| {
                observation.processors.iter().enumerate().all(|(p, view)| {
                    let on = ProcessorId(p as u16);
                    let taken = taken && on == place.processor && view.free < 2;
                    let start_ns = if taken { place.free_ns } else { self.board.free_ns(on) };
                    !view.up
                        || later(observation, r, variant, on, start_ns).is_none_or(|l| l.answer_ns > deadline)
                })
            })
        };
        others.filter(|(_, r)| late(r, true) && !late(r, false)).map(|(_, r)| r.priority).sum()
    }
}
