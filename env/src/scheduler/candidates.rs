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
        self.views.demand_gbps = self.running.iter().map(|r| r.demand_gbps).sum();
        let views = &mut self.views.processors;
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
            self.views.streams.push(StreamView {
                waiting,
                running,
                on_time_share: self.shares.of(s),
                last_arrival: self.last_arrival[s],
            });
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
                    origin: r.origin,
                    deadline: r.deadline,
                    expires: r.expires,
                    priority: r.priority,
                    min_accuracy: r.min_accuracy,
                    // One whose first segments failed may start again in another variant.
                    variant: active.variant.filter(|_| active.next > 0).or(r.variant),
                    next: active.next,
                    location: active.location,
                    failures: active.failures,
                });
            }
        }
    }

    fn build_candidates(&mut self) {
        let views = &mut self.views;
        let demand_gbps = views.demand_gbps;
        views.candidates.clear();
        for (index, request) in views.requests.iter().enumerate() {
            for &variant in &self.case.tasks[request.task.0 as usize].variants {
                let fits = match request.variant {
                    Some(chosen) => chosen == variant,
                    None => self.case.variant(variant).accuracy >= request.min_accuracy,
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
                    let running = self.running.iter().map(|r| &r.launch);
                    let Some(missing) = self.memory.missing(&self.case, on, variant, running) else {
                        continue;
                    };
                    let load_ns = self.case.load_ns(on, missing);
                    for last in ends(first, reach) {
                        let action =
                            Action::Launch { request: index as u16, variant, first, last, processor: on };
                        views.candidates.push(
                            Estimate { case: &self.case, request, processor, load_ns, demand_gbps }
                                .of(action),
                        );
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

/// What the estimates of a launch hang on besides the plan.
struct Estimate<'a> {
    case: &'a Case,
    request: &'a RequestView,
    processor: &'a ProcessorView,
    load_ns: f64,
    /// Bandwidth that running launches ask for.
    demand_gbps: f64,
}

impl Estimate<'_> {
    fn of(&self, action: Action) -> Candidate {
        let Action::Launch { variant, first, last, processor: on, .. } = action else {
            return Candidate { action, expected_ns: 0.0, energy_mj: 0.0, rest_ns: 0.0 };
        };
        let table = self.case.variant(variant);
        let own_gbps = table.demand_gbps(on, first, last);
        let shared = self.case.bandwidth_slowdown(on, own_gbps, own_gbps + self.demand_gbps);
        let alone = table.latency_ns(on, first, last) * self.processor.slowdown * shared;
        let transfer = self.case.transfer_ns(variant, first, self.request.location, on);
        Candidate {
            action,
            expected_ns: (self.load_ns + transfer + alone) * self.processor.drift,
            energy_mj: table.energy_mj(on, first, last),
            rest_ns: table.best_rest_ns(last + 1),
        }
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
