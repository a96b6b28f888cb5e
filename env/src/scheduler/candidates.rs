//! Builds the observation: views of requests, processors and streams, and the legal candidates.
//! Candidates are legal by construction; there is no mask beside them.

use super::Scheduler;
use crate::case::{ProcessorId, StreamId};
use crate::observation::{Action, Candidate, ProcessorView, RequestView, StreamView};
use crate::time::Time;

impl Scheduler {
    pub(super) fn build_views(&mut self) {
        // Every running launch has one request of its own.
        if self.active() == self.running.len() {
            self.views.candidates.clear();
            return;
        }
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
        self.drifts.age(self.now);
        let views = &mut self.views.processors;
        views.clear();
        for (p, spec) in self.case.plan.processors.iter().enumerate() {
            views.push(ProcessorView {
                up: self.up[p],
                free: spec.slots,
                expected_free: Time::NEVER,
                drift: self.drifts.aged(ProcessorId(p as u16)),
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
            if self.case.disturbing {
                for (p, view) in views.iter_mut().enumerate().filter(|&(p, _)| p != other) {
                    view.slowdown += self.case.plan.contention[p][other] - 1.0;
                }
            }
        }
        for view in views {
            view.expected_free = if view.free > 0 { self.now } else { view.expected_free.max(self.now) };
        }
    }

    /// Brings the view of a stream up to date: something of it has changed. The views of the others stay, which spares decisions most of
    /// the work.
    pub(super) fn view_stream(&mut self, s: usize) {
        let running = self.running_of[s];
        self.views.streams[s] = StreamView {
            waiting: self.queues[s].len() as u32 - running,
            running,
            on_time_share: self.shares.of(s),
            last_arrival: self.last_arrival[s],
        };
    }

    fn build_requests(&mut self) {
        self.views.requests.clear();
        self.views.request_slots.clear();
        for (s, view) in self.views.streams.iter().enumerate().filter(|(_, view)| view.waiting > 0) {
            let stream = StreamId(s as u16);
            let task = self.case.stream(stream).task;
            let waiting = view.waiting;
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
                    task,
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
                    let endings = table.endings(on, first);
                    if endings.is_empty() {
                        continue;
                    }
                    let running = self.running.iter().map(|r| &r.launch);
                    let Some(missing) = self.memory.missing(&self.case, on, variant, running) else {
                        continue;
                    };
                    let transfer_ns = self.case.transfer_ns(variant, first, request.location, on);
                    let bringing_ns = self.case.load_ns(on, missing) + transfer_ns;
                    views.candidates.extend(endings.iter().map(|end| {
                        let own_gbps = end.demand_gbps;
                        let shared = self.case.bandwidth_slowdown(on, own_gbps, own_gbps + demand_gbps);
                        let alone_ns = end.latency_ns * processor.slowdown * shared;
                        let (request, last) = (index as u16, end.last);
                        Candidate {
                            action: Action::Launch { request, variant, first, last, processor: on },
                            expected_ns: (bringing_ns + alone_ns) * processor.drift,
                            energy_mj: end.energy_mj,
                            rest_ns: end.rest_ns,
                        }
                    }));
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
