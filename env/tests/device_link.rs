//! Processors behind a network on the emulated device, against numbers worked out by hand and the statistics that a device file says.

mod common;

use common::rig::{
    about, alarm, case_on, completions, drain, emulator, finished, flat_plan, hang, launch, named, near,
};
use common::{exact, ms, variant};
use cosched_env::case::{ProcessorId, VariantId};
use cosched_env::device::{Device, Frequency, Link, LinkPhase, ProcessorModel, Thermal};
use cosched_env::emulator::{Config, Emulator};
use cosched_env::time::Time;
use cosched_env::world::{Decision, World};

/// 10 ms and 1 byte/us at first, 20 ms and ten times the rate from 50 ms on.
fn link() -> Link {
    let phase = |from_ms, round_trip_ms, mbps| LinkPhase { from_ms, round_trip_ms, mbps, loss: 0.0 };
    Link {
        phases: vec![phase(0.0, 10.0, 8.0), phase(50.0, 20.0, 80.0)],
        sigma: 0.0,
        resend_ms: 100.0,
        tries: 3,
    }
}

fn lossy(loss: f64) -> Link {
    let phases = vec![LinkPhase { from_ms: 0.0, round_trip_ms: 10.0, mbps: 8.0, loss }];
    Link { phases, ..link() }
}

/// p1 is behind a link.
fn device(link: Link) -> Device {
    about([("p1", ProcessorModel { link: Some(link), ..ProcessorModel::default() })])
}

/// Launches of 1 ms and of 100 ms; 1000 bytes go there and 1000 come back.
fn plan(contention: f64) -> cosched_env::plan::Plan {
    flat_plan(named(2), contention, &[1000.0, 100_000.0])
}

#[test]
fn a_launch_takes_a_round_trip_and_its_bytes() {
    let mut d = emulator(plan(1.0), device(link()));
    // 10 ms, 2000 bytes in 2 ms, 1 ms of work; half of 2 W on the link.
    d.launch(&launch(0, 0, 1));
    let done = &completions(&drain(&mut d))[0];
    assert_eq!(done.finished, ms(13.0));
    near(done.energy_mj, 12.0 + 1.0);
    // It began in the first phase and stays in it; the next one begins in the second: 20 + 0.2 + 1.
    alarm(&mut d, ms(45.0));
    d.launch(&launch(1, 0, 1));
    assert_eq!(finished(&mut d), [(1, 58_000.0)]);
    d.launch(&launch(2, 0, 1));
    assert_eq!(finished(&mut d), [(2, 79_200.0)]);
}

#[test]
fn the_phase_is_that_of_the_begin_and_not_of_the_decision() {
    let config = Config { decision_us: 100.0, ..exact() };
    let mut d = Emulator::new(case_on(plan(1.0), device(link())), config, 7, Time::ZERO);
    alarm(&mut d, ms(49.95));
    d.decided(Decision(0), 1);
    d.launch(&launch(0, 0, 1));
    assert_eq!(finished(&mut d), [(0, 71_250.0)]);
}

#[test]
fn inputs_of_the_first_and_outputs_of_the_last_segment_cross() {
    let on = [None, Some(1000.0)];
    let mut three = variant("v", "t", 0.9, &[&[Some(1000.0), Some(1000.0)], &on, &on]);
    for (s, segment) in three.segments.iter_mut().enumerate() {
        segment.input_bytes = 1000 * (s as u64 + 1);
        segment.output_bytes = 10_000 * (s as u64 + 1);
    }
    let plan = common::plan(named(2), 1.0, vec![three]);
    let case = case_on(plan.clone(), device(link()));
    // The scheduler expects the inputs of the segment, the outputs of the last one that it can reach, and the first phase.
    near(case.transfer_ns(VariantId(0), 1, Some(ProcessorId(0)), ProcessorId(1)), 10e6 + 32e6);
    let mut d = emulator(plan, device(link()));
    let mut middle = launch(0, 0, 1);
    (middle.first, middle.last) = (1, 1);
    d.launch(&middle);
    assert_eq!(finished(&mut d), [(0, 10_000.0 + 22_000.0 + 1000.0)]);
}

#[test]
fn neither_contention_nor_frequency_slows_the_link() {
    let mut d = emulator(plan(2.0), device(link()));
    d.launch(&launch(0, 1, 0));
    d.launch(&launch(1, 0, 1));
    // 12 ms on the link, 1 ms of work at half speed; the other has done 7 of its 100 ms then.
    assert_eq!(finished(&mut d), [(1, 14_000.0), (0, 107_000.0)]);
    let mut slow = device(link());
    let step = |mhz, speed, power| Frequency { mhz, speed, power };
    slow.processors.get_mut("p1").expect("named").frequencies =
        vec![step(2.0, 1.0, 1.0), step(1.0, 0.5, 0.4)];
    slow.thermal = Some(Thermal {
        ambient_c: 25.0,
        kelvin_per_watt: 1.0,
        time_constant_s: 1.0,
        start_c: None,
        trip_c: 0.0,
        hysteresis_c: 1.0,
        poll_ms: 1.0,
        base_watts: 0.0,
    });
    let mut d = emulator(plan(1.0), slow);
    d.launch(&launch(0, 0, 1));
    // 1 ms at 1 W, 11 ms at 0.4 W, and 2 ms of work at 0.4 W.
    let done = &completions(&drain(&mut d))[0];
    assert_eq!(done.finished, ms(14.0));
    near(done.energy_mj, 1.0 + 4.4 + 0.8);
}

#[test]
fn a_hung_processor_does_not_answer() {
    let config = Config { faults: vec![hang("p1", 5.0, 8.0, 0.0)], ..exact() };
    let mut d = Emulator::new(case_on(plan(1.0), device(link())), config, 7, Time::ZERO);
    d.launch(&launch(0, 0, 1));
    assert_eq!(finished(&mut d), [(0, 16_000.0)]);
}

#[test]
fn a_message_that_is_always_lost_is_given_up() {
    let mut d = emulator(plan(1.0), device(lossy(1.0)));
    d.launch(&launch(0, 0, 1));
    let done = &completions(&drain(&mut d))[0];
    assert_eq!((done.finished, done.failure.as_deref()), (ms(300.0), Some("the link lost it")));
    near(done.energy_mj, 300.0);
}

#[test]
fn losses_and_round_trips_have_the_stated_rates() {
    let link = Link { sigma: 0.5, ..lossy(0.3) };
    let config = Config { spread: true, ..exact() };
    let mut d = Emulator::new(case_on(plan(1.0), device(link)), config, 11, Time::ZERO);
    let n = 20_000;
    let mut by_losses = [0.0; 4];
    let mut round_trips = Vec::new();
    for id in 0..n {
        d.launch(&launch(id, 0, 1));
        let done = &completions(&drain(&mut d))[0];
        let took_ms = done.finished.since(done.started).ms();
        let losses = if done.failure.is_some() { 3 } else { (took_ms / 100.0) as usize };
        by_losses[losses] += 1.0 / n as f64;
        if losses == 0 {
            round_trips.push(took_ms - 3.0);
        }
    }
    for (losses, expected) in [0.7, 0.21, 0.063, 0.027].into_iter().enumerate() {
        let got: f64 = by_losses[losses];
        assert!((got - expected).abs() < 0.01, "{losses} losses: expected {expected}, got {got}");
    }
    let mean =
        |of: &dyn Fn(f64) -> f64| round_trips.iter().map(|&t| of(t)).sum::<f64>() / round_trips.len() as f64;
    let (average, log_mean) = (mean(&|t| t), mean(&f64::ln));
    let log_sd = mean(&|t| (t.ln() - log_mean).powi(2)).sqrt();
    assert!((average - 10.0).abs() < 0.2, "mean {average}");
    assert!((log_sd - 0.5).abs() < 0.02, "sigma {log_sd}");
}
