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
        if self.can_start() {
            self.build_processors();
            self.build_requests();
            self.build_candidates();
        } else {
            // Nothing can start, so nobody will be asked.
            self.views.candidates.clear();
        }
    }

    /// Whether some processor takes a launch now.
    fn can_start(&self) -> bool {
        let processors = self.case.plan.processors.iter().zip(&self.up).zip(&self.launches_on);
        processors.into_iter().any(|((spec, &up), &launches)| up && launches < spec.slots)
    }

    fn build_processors(&mut self) {
        self.drifts.age(self.now);
        let views = &mut self.views.processors;
        let known =
            self.case.plan.processors.iter().zip(&self.up).zip(&self.launches_on).zip(self.drifts.aged());
        for (view, (((spec, &up), &launches), drift)) in views.iter_mut().zip(known) {
            let free = spec.slots.saturating_sub(launches);
            let expected_free = if free > 0 { self.now } else { Time::NEVER };
            *view = ProcessorView { up, free, expected_free, drift, slowdown: 1.0 };
        }
        self.views.demand_gbps = self.running.iter().map(|r| r.demand_gbps).sum();
        for running in &self.running {
            let here = &mut views[running.launch.processor.0 as usize];
            // Overdue by now: any moment.
            here.expected_free = here.expected_free.min(running.expected_end.max(self.now));
        }
        if self.case.disturbing {
            for (p, view) in views.iter_mut().enumerate() {
                let running = self.running.iter().map(|r| r.launch.processor);
                view.slowdown = self.case.slowdown(ProcessorId(p as u16), running);
            }
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
                    let reach = endings[0].last;
                    views.candidates.extend(endings.iter().map(|end| {
                        let own_gbps = end.demand_gbps;
                        let shared = self.case.bandwidth_slowdown(on, own_gbps, own_gbps + demand_gbps);
                        let alone_ns = end.latency_ns * processor.slowdown * shared;
                        let (request, last) = (index as u16, end.last);
                        Candidate {
                            action: Action::Launch { request, variant, first, last, processor: on },
                            farthest: last == reach,
                            expected_ns: (bringing_ns + alone_ns) * processor.drift,
                            energy_mj: end.energy_mj,
                            rest_ns: end.rest_ns,
                            handover_ns: end.handover_ns,
                        }
                    }));
                }
            }
        }
        let drops = (0..views.requests.len() as u16).map(|request| Action::Drop { request });
        views.candidates.extend(drops.chain([Action::Wait]).map(Candidate::without_launch));
    }
}
