//! How requests end: answered, dropped, replaced, failed, or expired; each exactly once. It refuses to start anything.

use super::{Active, Scheduler};
use crate::event::{Ended, Outcome, RequestId};
use crate::objective;
use crate::time::Time;
use std::cmp::Reverse;

impl Scheduler {
    /// Lets a request expire at once; nothing when it has ended.
    pub(super) fn withdrawn(&mut self, id: RequestId, now: Time) {
        let is = |slot: &Option<Active>| slot.as_ref().is_some_and(|a| a.request.id == id);
        let Some(slot) = self.slots.iter().position(is) else { return };
        if let Some(active) = &mut self.slots[slot] {
            active.request.expires = active.request.expires.min(now.max(self.now));
            active.withdrawn = true;
            self.expiries.push(Reverse((active.request.expires, id.0, slot)));
        }
    }

    /// Ends the requests of a stream that have not started: a newer frame is here.
    pub(super) fn replace_waiting(&mut self, stream: usize, now: Time) {
        let waits = |a: &Active| !a.running && a.next == 0;
        let mut place = 0;
        while let Some(&slot) = self.queues[stream].get(place) {
            if self.slots[slot].as_ref().is_some_and(waits) {
                self.end(slot, Outcome::Replaced, now);
            } else {
                place += 1;
            }
        }
    }

    /// A request that ran waits again, or ends if it expired meanwhile; its entry in `expiries` may have been skipped then.
    pub(super) fn expire_after_run(&mut self, slot: usize, now: Time) {
        let Some(active) = &self.slots[slot] else { return };
        if active.request.expires <= now {
            self.end(slot, Outcome::Expired, now);
        } else {
            let stream = active.request.stream.0 as usize;
            self.expiries.push(Reverse((active.request.expires, active.request.id.0, slot)));
            self.view_stream(stream);
        }
    }

    /// Ends the waiting requests whose time is over.
    pub(super) fn expire(&mut self) {
        while let Some(&Reverse((time, id, slot))) = self.expiries.peek() {
            if time > self.now {
                break;
            }
            self.expiries.pop();
            let waits = self.slots[slot].as_ref().is_some_and(|a| a.request.id.0 == id && !a.running);
            if waits {
                self.end(slot, Outcome::Expired, self.now);
            }
        }
    }

    pub(super) fn next_alarm(&mut self) -> Option<Time> {
        while let Some(&Reverse((time, id, slot))) = self.expiries.peek() {
            match &self.slots[slot] {
                Some(a) if a.request.id.0 == id && !a.running => return Some(time),
                // A running request is looked at when its launch completes.
                _ => drop(self.expiries.pop()),
            }
        }
        None
    }

    pub(super) fn end(&mut self, slot: usize, outcome: Outcome, at: Time) {
        let active = self.slots[slot].take().expect("a request ends exactly once");
        assert!(!active.running, "request {} would end while it runs", active.request.id.0);
        self.free_slots.push(slot);
        let queue = &mut self.queues[active.request.stream.0 as usize];
        if let Some(place) = queue.iter().position(|&s| s == slot) {
            queue.remove(place);
        }
        let result = match (&outcome, active.variant) {
            (Outcome::Answered | Outcome::Late, Some(variant)) => objective::Result::Answer {
                lateness_ms: at.ms_after(active.request.deadline),
                relative_accuracy: self.case.variant(variant).relative_accuracy,
            },
            (Outcome::Failed(_), _) => objective::Result::Failed,
            _ => objective::Result::Dropped,
        };
        let stream = active.request.stream.0 as usize;
        let service = self.shares.service(stream);
        self.shares.note(stream, result.on_time());
        self.view_stream(stream);
        let utility =
            self.case.objective().utility(result, active.request.priority, active.energy_mj, service);
        self.pending_ended.push_back(Ended {
            request: active.request,
            outcome,
            at,
            variant: active.variant,
            energy_mj: active.energy_mj,
            launches: active.launches,
            utility,
        });
    }
}
