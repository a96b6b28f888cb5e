//! What a device does besides what its plan says: shared memory bandwidth, heat and frequency steps, memory limits, links.
//! Plain data as it stands in a device file; everything is optional, and an empty one changes nothing. It refuses to check itself:
//! [`crate::case::Case`] does.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The device beyond its plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Device {
    /// Memory that all processors share.
    pub bandwidth: Option<Bandwidth>,
    /// Heat that makes processors step down.
    pub thermal: Option<Thermal>,
    /// By processor name.
    #[serde(rename = "processor")]
    pub processors: BTreeMap<String, ProcessorModel>,
}

/// Shared memory bandwidth. Running launches ask for the sum of their demands (plan: `traffic_bytes` by latency); the curve says
/// what they get together. A launch that runs while all ask for `D` and get `A(D)` slows down by
/// `1 + m * (D / A(D) - 1)`, where `m = min(1, own demand / peak_gbps of its processor)` is the share of its time that it spends on
/// memory. The three regions (no, growing, full contention) are those of PCCS (Xu et al., MICRO 2021), which HaX-CoNN (Dagli and
/// Belviranli, PPoPP 2024) uses per layer; the share is the memory side of the roofline (Williams et al., CACM 2009).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bandwidth {
    /// Points (asked for, got) in GB/s, ascending in both; before the first point all is got, past the last one no more is got.
    pub curve: Vec<[f64; 2]>,
}

/// One thermal node for the whole device: `C dT/dt = P - (T - ambient) / R`, with the time constant `R C` (the lumped form of
/// HotSpot, Skadron et al., ISCA 2003). A governor looks every `poll_ms` and moves all processors one frequency step down
/// above `trip_c` and one up below `trip_c - hysteresis_c` (the step-wise governor of Linux).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thermal {
    /// Temperature of the surroundings, in degrees Celsius.
    pub ambient_c: f64,
    /// Thermal resistance to the surroundings, in kelvin per watt.
    pub kelvin_per_watt: f64,
    /// Time constant in seconds.
    pub time_constant_s: f64,
    /// Temperature at time zero; by default the surroundings'.
    #[serde(default)]
    pub start_c: Option<f64>,
    /// Temperature above which processors step down.
    pub trip_c: f64,
    /// How far below it they step up again, in kelvin.
    pub hysteresis_c: f64,
    /// Milliseconds between two looks of the governor.
    pub poll_ms: f64,
    /// Power of the rest of the device, in watts.
    #[serde(default)]
    pub base_watts: f64,
}

/// One processor beyond its plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessorModel {
    /// Steps from fast to slow, the first the one that the plan was measured at; empty: it has one step. Used with [`Thermal`].
    pub frequencies: Vec<Frequency>,
    /// Most bandwidth that it can ask for by itself, in GB/s; 0: unknown, its launches count as bound by memory.
    pub peak_gbps: f64,
    /// Memory for weights, in MB (10^6 bytes); 0: no limit, and all variants are loaded from the start.
    pub memory_mb: f64,
    /// Rate of loading weights, in GB/s; 0: loading takes no time but `load_us`.
    pub load_gbps: f64,
    /// Fixed time of loading a variant's weights, in microseconds.
    pub load_us: f64,
    /// It is behind a network.
    pub link: Option<Link>,
}

/// A frequency step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frequency {
    /// For people.
    pub mhz: f64,
    /// Speed relative to the first step's, in (0, 1].
    pub speed: f64,
    /// Active power relative to the first step's, in (0, 1].
    pub power: f64,
}

/// A network between the host and a remote processor: a launch takes a round trip, its inputs go there and its outputs come back, so
/// that the tensors are on the host afterwards. What the scheduler expects is the first phase without loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// From when on it is how, ascending; the first at 0.
    #[serde(rename = "phase")]
    pub phases: Vec<LinkPhase>,
    /// Log-normal sigma of the round-trip time.
    #[serde(default)]
    pub sigma: f64,
    /// After this many milliseconds without an answer the message is sent again; with [`LinkPhase::loss`].
    #[serde(default = "second")]
    pub resend_ms: f64,
    /// Lost messages in a row after which the launch fails.
    #[serde(default = "three")]
    pub tries: u32,
}

fn second() -> f64 {
    1000.0
}
fn three() -> u32 {
    3
}

/// How a link is from some time on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkPhase {
    /// From when, in milliseconds.
    pub from_ms: f64,
    /// Mean round-trip time in milliseconds.
    pub round_trip_ms: f64,
    /// Rate in megabits per second, each way.
    pub mbps: f64,
    /// Probability that a message is lost.
    #[serde(default)]
    pub loss: f64,
}

impl LinkPhase {
    /// Nanoseconds of a round trip with so many bytes there and back together.
    pub fn transfer_ns(&self, bytes: u64) -> f64 {
        self.round_trip_ms * 1e6 + bytes as f64 * 8e3 / self.mbps
    }
}

impl Bandwidth {
    /// What launches get together, in GB/s, when they ask for `demand` GB/s.
    pub fn achieved(&self, demand: f64) -> f64 {
        let mut before = [0.0, 0.0];
        for &point in &self.curve {
            if demand <= point[0] {
                // Before the first point all is got.
                if before[0] == 0.0 {
                    return demand.min(point[1]);
                }
                let share = (demand - before[0]) / (point[0] - before[0]);
                return before[1] + share * (point[1] - before[1]);
            }
            before = point;
        }
        if self.curve.is_empty() { demand } else { before[1] }
    }
}

#[cfg(test)]
mod tests {
    use super::Bandwidth;

    #[test]
    fn the_curve_is_followed() {
        let bandwidth = Bandwidth { curve: vec![[10.0, 10.0], [20.0, 14.0], [40.0, 16.0]] };
        let near = |demand: f64, got: f64| assert!((bandwidth.achieved(demand) - got).abs() < 1e-12);
        near(5.0, 5.0);
        near(10.0, 10.0);
        near(15.0, 12.0);
        near(30.0, 15.0);
        near(400.0, 16.0);
    }
}
