//! Shared memory bandwidth on the emulated device, against numbers worked out by hand. It refuses to test the curve itself, which
//! `env/src/device.rs` does.

mod common;

use common::rig::{about, alarm, case_on, emulator, finished, flat_plan, launch, named, near, us};
use cosched_env::case::{ProcessorId, VariantId};
use cosched_env::device::{Bandwidth, Device, Link, LinkPhase, ProcessorModel};
use cosched_env::plan::Plan;
use cosched_env::world::World;

/// p0 can ask for 20 GB/s at most, nothing is known of p1.
fn device() -> Device {
    let p0 = ProcessorModel { peak_gbps: 20.0, ..ProcessorModel::default() };
    let bandwidth = Some(Bandwidth { curve: vec![[10.0, 10.0], [20.0, 14.0], [40.0, 16.0]] });
    Device { bandwidth, ..about([("p0", p0)]) }
}

/// Variants of a millisecond; variant `v` asks for `gbps[v]`.
fn asking(contention: f64, gbps: &[f64]) -> Plan {
    let mut plan = flat_plan(named(2), contention, &vec![1000.0; gbps.len()]);
    for (variant, gbps) in plan.variants.iter_mut().zip(gbps) {
        variant.segments[0].traffic_bytes = (gbps * 1e6) as u64;
    }
    plan
}

#[test]
fn launches_share_the_bandwidth() {
    // They ask for 16 together and get 12.4: 1.2903 times slower. p0 spends 8 / 20 of its time on memory, so 1 + 0.4 x 0.2903.
    // When p0 is done at 1116.129, p1 has done 1116.129 / 1.2903 = 865 of its 1000; the rest is alone.
    let mut d = emulator(asking(1.0, &[8.0]), device());
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 0, 1));
    let ends = finished(&mut d);
    assert_eq!((ends[0].0, ends[1].0), (0, 1));
    near(ends[0].1, 1116.13);
    near(ends[1].1, 1251.13);
}

#[test]
fn it_comes_on_top_of_pairwise_contention() {
    // As above, times 1.5 as long as both run: p0 is done at 1674.194, p1 135 later.
    let mut d = emulator(asking(1.5, &[8.0]), device());
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 0, 1));
    let ends = finished(&mut d);
    near(ends[0].1, 1674.194);
    near(ends[1].1, 1809.194);
}

#[test]
fn alone_or_below_the_knee_or_without_traffic_nothing_is_slower() {
    // 12 GB/s alone are as slow as they were measured.
    let mut d = emulator(asking(1.0, &[12.0]), device());
    d.launch(&launch(0, 0, 1));
    assert_eq!(finished(&mut d), [(0, 1000.0)]);
    let mut d = emulator(asking(1.0, &[4.0, 6.0]), device());
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 1, 1));
    assert_eq!(finished(&mut d), [(0, 1000.0), (1, 1000.0)]);
    let mut d = emulator(asking(1.0, &[12.0, 0.0]), device());
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 1, 1));
    assert_eq!(finished(&mut d), [(0, 1000.0), (1, 1000.0)]);
}

#[test]
fn slots_of_one_processor_share_it_too() {
    // 16 GB/s on p1: both 1.2903 times slower.
    let mut plan = asking(1.0, &[8.0]);
    plan.processors[1].slots = 2;
    let mut d = emulator(plan, device());
    d.launch(&launch(0, 0, 1));
    d.launch(&launch(1, 0, 1));
    let ends = finished(&mut d);
    near(ends[0].1, 1290.323);
    near(ends[1].1, 1290.323);
}

#[test]
fn running_launches_are_retimed_when_one_comes() {
    // p1 has done 500 alone. Together until p0 is done 1116.129 later, when p1 would have done 865 but has only 500: it is done after
    // 500 x 1.2903 = 645.161, at 1145.161; then p0 has done 645.161 / 1.116129 = 578.035 and does 421.965 alone.
    let mut d = emulator(asking(1.0, &[8.0]), device());
    d.launch(&launch(0, 0, 1));
    alarm(&mut d, us(500.0));
    d.launch(&launch(1, 0, 0));
    let ends = finished(&mut d);
    assert_eq!((ends[0].0, ends[1].0), (0, 1));
    near(ends[0].1, 1145.162);
    near(ends[1].1, 1567.127);
}

#[test]
fn what_is_behind_a_link_has_its_own_memory() {
    let phases = vec![LinkPhase { from_ms: 0.0, round_trip_ms: 1.0, mbps: 1e3, loss: 0.0 }];
    let link = Link { phases, sigma: 0.0, resend_ms: 1.0, tries: 1 };
    let mut device = device();
    device.processors.insert("p1".into(), ProcessorModel { link: Some(link), ..ProcessorModel::default() });
    let case = case_on(asking(1.0, &[12.0]), device.clone());
    assert_eq!(case.variant(VariantId(0)).demand_gbps(ProcessorId(1), 0, 0), 0.0);
    let mut d = emulator(asking(1.0, &[12.0]), device);
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 0, 1));
    assert_eq!(finished(&mut d)[0], (0, 1000.0));
}
