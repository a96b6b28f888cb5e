//! What a launch meets on the way to a processor behind a network and back: a round trip, its tensors' bytes, and losses.
//! It refuses to know what runs there: time on the link is the link's alone.

use crate::device::{Link, LinkPhase};
use crate::time::Time;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;

/// A draw from a log-normal distribution with mean 1 and this sigma.
pub(super) fn log_normal(sigma: f64, rng: &mut Pcg64Mcg) -> f64 {
    let normal: f64 = StandardNormal.sample(rng);
    // The mean of a log-normal is exp(mu + sigma^2 / 2).
    (sigma * normal - sigma * sigma / 2.0).exp()
}

/// The way there and back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Crossing {
    /// Nanoseconds on the link.
    pub ns: f64,
    /// Whether the message was given up after too many losses.
    pub lost: bool,
}

/// The phase in force at a time.
pub(super) fn phase_at(link: &Link, at: Time) -> &LinkPhase {
    let ms = at.ms_after(Time::ZERO);
    let begun = link.phases.iter().rposition(|p| p.from_ms <= ms);
    &link.phases[begun.unwrap_or(0)]
}

/// Draws a crossing with so many bytes there and back together. Each try is lost by itself and costs the time until it is resent;
/// the one that arrives takes a round trip (log-normal when `spread`) and the transfer.
pub(super) fn cross(
    link: &Link,
    phase: &LinkPhase,
    bytes: u64,
    spread: bool,
    rng: &mut Pcg64Mcg,
) -> Crossing {
    let resend_ns = link.resend_ms * 1e6;
    let mut losses = 0;
    while phase.loss > 0.0 && rng.random::<f64>() < phase.loss {
        losses += 1;
        if losses == link.tries {
            return Crossing { ns: f64::from(losses) * resend_ns, lost: true };
        }
    }
    let stretch = if spread && link.sigma > 0.0 { log_normal(link.sigma, rng) } else { 1.0 };
    let extra_ns = phase.round_trip_ms * 1e6 * (stretch - 1.0);
    Crossing { ns: f64::from(losses) * resend_ns + phase.transfer_ns(bytes) + extra_ns, lost: false }
}
