//! The temperature of the device and its governor; see [`crate::device::Thermal`] for the model and its sources.
//! Power is constant between two calls, so each step is the exact solution and its length does not matter.
//! It refuses to know which processor draws what.

use crate::device::Thermal;
use crate::time::{Span, Time};
use std::cmp::Ordering;

/// The one thermal node.
#[derive(Clone, Debug)]
pub(super) struct Heat {
    model: Thermal,
    /// Temperature in degrees Celsius.
    pub celsius: f64,
    /// When the governor looks next.
    pub next_look: Time,
    between: Span,
}

impl Heat {
    pub(super) fn new(model: Thermal) -> Heat {
        let between = Span::from_ms(model.poll_ms);
        let celsius = model.start_c.unwrap_or(model.ambient_c);
        Heat { model, celsius, next_look: Time::ZERO + between, between }
    }

    /// Where the temperature goes while the processors draw so many watts.
    fn settles_at(&self, watts: f64) -> f64 {
        self.model.ambient_c + (watts + self.model.base_watts) * self.model.kelvin_per_watt
    }

    /// So many nanoseconds pass while the processors draw so many watts together.
    pub(super) fn pass(&mut self, ns: f64, watts: f64) {
        let end = self.settles_at(watts);
        self.celsius = end + (self.celsius - end) * (-ns / (self.model.time_constant_s * 1e9)).exp();
    }

    /// What the governor wants now: `Greater` one step down, `Less` one step up.
    pub(super) fn look(&mut self) -> Ordering {
        self.next_look = self.next_look + self.between;
        self.wants(self.celsius)
    }

    fn wants(&self, celsius: f64) -> Ordering {
        if celsius > self.model.trip_c {
            Ordering::Greater
        } else if celsius < self.model.trip_c - self.model.hysteresis_c {
            Ordering::Less
        } else {
            Ordering::Equal
        }
    }

    /// Leaves out the looks before `until` if none of them can change anything: power stays as it is, so that the temperature only
    /// moves towards its end, and the governor could only go on wanting what it has.
    pub(super) fn skip_looks(&mut self, until: Time, watts: f64, fastest: bool, slowest: bool) {
        let idle = |wanted: Ordering| match wanted {
            Ordering::Greater => slowest,
            Ordering::Less => fastest,
            Ordering::Equal => true,
        };
        let end = self.settles_at(watts);
        // The band between is passed on the way from one side to the other, and nothing is wanted there.
        if idle(self.wants(self.celsius)) && idle(self.wants(end)) && self.next_look < until {
            let looks = until.since(self.next_look).0.div_ceil(self.between.0);
            self.next_look = self.next_look + Span(looks.saturating_mul(self.between.0));
        }
    }
}
