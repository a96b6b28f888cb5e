//! Builds the observation: views of requests, processors and streams, and the legal candidates.
//! Candidates are legal by construction; there is no mask beside them.

use super::Scheduler;
use crate::case::{Case, ProcessorId, StreamId};
use crate::observation::{Action, Candidate, ProcessorView, RequestView, StreamView};
use crate::time::Time;

impl Scheduler {
    pub(super) fn build_views(&mut self) {
        self.build_processors();
        if self.views.processors.iter().any(|p| p.up && p.free > 0) {
            self.build_requests();
            self.build_candidates();
        } else {
            // Nothing can start, so nobody will be asked.
            self.views.candidates.clear();
        }
    }

    fn build_processors(&mut self) {
        let views = &mut self.views.processors;
        views.clear();
        for (spec, state) in self.case.plan.processors.iter().zip(&self.processors) {
            views.push(ProcessorView {
                up: state.up,
                free: spec.slots,
                expected_free: Time::NEVER,
                drift: state.drift(self.now),
                slowdown: 1.0,
            });
        }
        for running in &self.running {
            let other = running.launch.processor.0 as usize;
            let here = &mut views[other];
            here.free = here.free.saturating_sub(1);
            here.expected_free = here.expected_free.min(running.expected_end);
            for (p, view) in views.iter_mut().enumerate().filter(|&(p, _)| p != other) {
                view.slowdown += self.case.plan.contention[p][other] - 1.0;
            }
        }
        for view in views {
            view.expected_free = if view.free > 0 { self.now } else { view.expected_free.max(self.now) };
        }
    }

    fn build_requests(&mut self) {
        self.views.requests.clear();
        self.views.request_slots.clear();
        self.views.streams.clear();
        for s in 0..self.queues.len() {
            let stream = StreamId(s as u16);
            let running = self.running_of[s];
            let waiting = self.queues[s].len() as u32 - running;
            self.views.streams.push(StreamView { waiting, running });
            let mut seen = 0;
            for &slot in &self.queues[s] {
                if seen == self.options.window.min(waiting as usize) {
                    break;
                }
                let active = self.slots[slot].as_ref().expect("a queued request is active");
                if active.running {
                    continue;
                }
                seen += 1;
                let r = &active.request;
                self.views.request_slots.push(slot);
                self.views.requests.push(RequestView {
                    id: r.id,
                    stream,
                    task: self.case.stream(stream).task,
                    arrival: r.arrival,
                    deadline: r.deadline,
                    expires: r.expires,
                    priority: r.priority,
                    // One whose first segments failed may start again in another variant.
                    variant: active.variant.filter(|_| active.next > 0),
                    next: active.next,
                    location: active.location,
                    failures: active.failures,
                });
            }
        }
    }

    fn build_candidates(&mut self) {
        let views = &mut self.views;
        views.candidates.clear();
        for (index, request) in views.requests.iter().enumerate() {
            let started = request.variant;
            let slot = views.request_slots[index];
            let min_accuracy = self.slots[slot].as_ref().map_or(0.0, |a| a.request.min_accuracy);
            for &variant in &self.case.tasks[request.task.0 as usize].variants {
                let fits = match started {
                    Some(chosen) => chosen == variant,
                    None => self.case.variant(variant).accuracy >= min_accuracy,
                };
                if !fits {
                    continue;
                }
                let (table, first) = (self.case.variant(variant), request.next);
                for (p, processor) in views.processors.iter().enumerate() {
                    if !processor.up || processor.free == 0 {
                        continue;
                    }
                    let on = ProcessorId(p as u16);
                    let Some(reach) = table.reach(on, first) else { continue };
                    for last in ends(first, reach) {
                        let action =
                            Action::Launch { request: index as u16, variant, first, last, processor: on };
                        views.candidates.push(estimate(&self.case, request, processor, action));
                    }
                }
            }
        }
        for index in 0..views.requests.len() {
            let action = Action::Drop { request: index as u16 };
            views.candidates.push(Candidate { action, expected_ns: 0.0, energy_mj: 0.0, rest_ns: 0.0 });
        }
        views.candidates.push(Candidate {
            action: Action::Wait,
            expected_ns: 0.0,
            energy_mj: 0.0,
            rest_ns: 0.0,
        });
    }
}

/// Where a launch from `first` may end: as far as the processor can go, half way, and after one segment.
/// Three choices keep the number of candidates linear in requests x processors and still allow to hand over or to preempt.
fn ends(first: u16, reach: u16) -> impl Iterator<Item = u16> {
    let half = first + (reach - first) / 2;
    [Some(reach), (half < reach && half > first).then_some(half), (first < reach).then_some(first)]
        .into_iter()
        .flatten()
}

fn estimate(case: &Case, request: &RequestView, processor: &ProcessorView, action: Action) -> Candidate {
    let Action::Launch { variant, first, last, processor: on, .. } = action else {
        return Candidate { action, expected_ns: 0.0, energy_mj: 0.0, rest_ns: 0.0 };
    };
    let table = case.variant(variant);
    let alone = table.latency_ns(on, first, last);
    let transfer = case.transfer_ns(variant, first, request.location, on);
    Candidate {
        action,
        expected_ns: (transfer + alone * processor.slowdown) * processor.drift,
        energy_mj: table.energy_mj(on, first, last),
        rest_ns: table.best_rest_ns(last + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::ends;

    #[test]
    fn ends_are_distinct_and_within_reach() {
        assert_eq!(ends(2, 2).collect::<Vec<_>>(), [2]);
        assert_eq!(ends(2, 3).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(ends(0, 5).collect::<Vec<_>>(), [5, 2, 0]);
    }
}
