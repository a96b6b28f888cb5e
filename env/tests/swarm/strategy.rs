//! How drafts are drawn: strategies put together as the draft is, so that proptest takes a failing one apart piece by piece.
//! Each piece shrinks towards the plain: one processor, one variant, one stream, no fault, no spread, always the first candidate.

use crate::draft::{Chooser, Draft, Heat, Kind, Mem, Net, Outage, PROCESSORS, Proc, Seg, Source, Var};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

fn memory() -> impl Strategy<Value = Mem> {
    (1u8..=8, prop_oneof![Just(0u8), 1u8..=10], 0u8..=200).prop_map(|(mb, load_gbps, load_us)| Mem {
        mb,
        load_gbps,
        load_us,
    })
}

fn net() -> impl Strategy<Value = Net> {
    let slow_from = weighted(0.5, any::<u8>());
    let loss = prop_oneof![Just(0u8), 1u8..=50];
    (0u8..=50, 1u8..=200, loss, 0u8..=5, 1u8..=100, 1u8..=3, slow_from).prop_map(
        |(round_trip, mbps, loss_percent, sigma_tenths, resend, tries, slow_from)| Net {
            round_trip,
            mbps,
            loss_percent,
            sigma_tenths,
            resend,
            tries,
            slow_from,
        },
    )
}

fn processor() -> impl Strategy<Value = Proc> {
    let slots = prop_oneof![4 => Just(1u8), 1 => 2u8..=3];
    let copy = prop_oneof![Just((0u8, 0u8)), (0u8..=20, 0u8..=10)];
    (slots, copy, weighted(0.4, memory()), vec(1u8..=10, 0..=2), 0u8..=20, weighted(0.15, net())).prop_map(
        |(slots, copy, memory, steps, peak_gbps, net)| Proc { slots, copy, memory, steps, peak_gbps, net },
    )
}

fn heat() -> impl Strategy<Value = Heat> {
    (1u8..=40, 1u8..=20, 1u8..=100, 0u8..=10, 1u8..=20).prop_map(
        |(trip_k, kelvin_per_watt, time_constant_ms, hysteresis_k, poll_ms)| Heat {
            trip_k,
            kelvin_per_watt,
            time_constant_ms,
            hysteresis_k,
            poll_ms,
        },
    )
}

fn segment() -> impl Strategy<Value = Seg> {
    let costs = [(); PROCESSORS].map(|()| weighted(0.6, 1u8..=60));
    (costs, 0u8..PROCESSORS as u8, any::<u8>(), 0u8..=40).prop_map(|(costs, home, kb, traffic_mb)| Seg {
        costs,
        home,
        kb,
        traffic_mb,
    })
}

fn variant() -> impl Strategy<Value = Var> {
    (0u8..=2, 50u8..=99, 0u8..=6, weighted(0.3, 0u8..=1), vec(segment(), 1..=4)).prop_map(
        |(task, accuracy, memory_mb, weights, segments)| Var { task, accuracy, memory_mb, weights, segments },
    )
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => (10u8..=255, prop_oneof![Just(0u8), 1u8..=200])
            .prop_map(|(period, jitter)| Kind::Periodic { period, jitter }),
        2 => vec(0u16..=1000, 1..=12).prop_map(Kind::Trace),
        2 => (10u8..=255).prop_map(|period| Kind::Poisson { period }),
        1 => (10u8..=255, 0u8..=10, 1u8..=255)
            .prop_map(|(period, burst_tenths, dwell)| Kind::Bursty { period, burst_tenths, dwell }),
        3 => (any::<u8>(), prop_oneof![Just(100u8), 0u8..=100])
            .prop_map(|(stream, percent)| Kind::After { stream, percent }),
    ]
}

fn source() -> impl Strategy<Value = Source> {
    let ends = (1u16..=400, weighted(0.5, 0u8..=200));
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.3));
    let open = prop_oneof![3 => Just(Vec::new()), 1 => vec((0u8..=200, 0u8..=200), 1..=3)];
    (
        any::<u8>(),
        kind(),
        prop_oneof![Just(0u8), 0u8..=100],
        ends,
        prop_oneof![Just(2u8), 1u8..=6],
        flags,
        open,
    )
        .prop_map(
            |(task, kind, offset, (deadline, patience), halves_of_priority, (best_only, latest), open)| {
                Source { task, kind, offset, deadline, patience, halves_of_priority, best_only, latest, open }
            },
        )
}

fn outage() -> impl Strategy<Value = Outage> {
    (any::<u8>(), any::<bool>(), 0u16..=1000, -20i16..=400, 0u8..=50).prop_map(
        |(processor, hangs, from, length, noticed)| Outage { processor, hangs, from, length, noticed },
    )
}

fn chooser() -> impl Strategy<Value = Chooser> {
    prop_oneof![
        Just(Chooser::First),
        vec(any::<u8>(), 1..=6).prop_map(Chooser::Turns),
        (0u16..1000).prop_map(Chooser::Random),
    ]
}

/// Any draft.
pub fn draft() -> impl Strategy<Value = Draft> {
    let device = (
        vec(processor(), 1..=PROCESSORS),
        vec(0u8..=15, 1..=4),
        weighted(0.4, 1u8..=30),
        weighted(0.3, heat()),
        vec(variant(), 1..=5),
        vec(outage(), 0..=4),
    );
    let spread = prop_oneof![Just(0u8), 1u8..=8];
    let cost = prop_oneof![Just((0u8, 0u8)), (0u8..=250, 0u8..=5)];
    let failures = prop_oneof![Just(0u8), 1u8..=40];
    let work = (vec(source(), 1..=5), spread, cost, failures, 1u8..=3, 1u8..=3);
    let fairness = prop_oneof![Just(0u8), 1u8..=10];
    (device, work, fairness, 0u16..1000, 100u16..=1500, chooser()).prop_map(
        |(device, work, fairness, seed, horizon, chooser)| {
            let (processors, contention, bandwidth, heat, variants, faults) = device;
            let (streams, spread, (decision_us, candidate_us), failure_percent, window, max_failures) = work;
            Draft {
                processors,
                contention,
                bandwidth,
                heat,
                variants,
                streams,
                faults,
                spread,
                decision_us,
                candidate_us,
                failure_percent,
                window,
                max_failures,
                fairness,
                seed,
                horizon,
                chooser,
            }
        },
    )
}
