//! Temperature, governor and frequency steps of the emulated device, against numbers worked out by hand.

mod common;

use common::rig::{about, alarm, case_on, completions, drain, emulator, flat_plan, launch, named, near, us};
use common::{exact, ms};
use cosched_env::case::ProcessorId;
use cosched_env::device::{Device, Frequency, ProcessorModel, Thermal};
use cosched_env::emulator::{Config, Emulator};
use cosched_env::event::Event;
use cosched_env::plan::Plan;
use cosched_env::time::Time;
use cosched_env::world::{Decision, World};

/// 10 K/W and 10 ms; 25 degrees around it; down above 40, up below 36, looked at every millisecond.
const THERMAL: Thermal = Thermal {
    ambient_c: 25.0,
    kelvin_per_watt: 10.0,
    time_constant_s: 0.01,
    start_c: None,
    trip_c: 40.0,
    hysteresis_c: 4.0,
    poll_ms: 1.0,
    base_watts: 0.0,
};

/// p0 has a second step of half the speed and a quarter of the power.
fn device(thermal: Thermal) -> Device {
    let step = |mhz, speed, power| Frequency { mhz, speed, power };
    let frequencies = vec![step(1000.0, 1.0, 1.0), step(500.0, 0.5, 0.25)];
    let p0 = ProcessorModel { frequencies, ..ProcessorModel::default() };
    Device { thermal: Some(thermal), ..about([("p0", p0)]) }
}

/// Launches of 20 ms at 2 W.
fn hot(processors: usize) -> Plan {
    let mut plan = flat_plan(named(processors), 1.0, &[20_000.0]);
    for cost in plan.variants[0].segments[0].costs.iter_mut().flatten() {
        cost.energy_mj = 40.0;
    }
    plan
}

#[test]
fn the_temperature_is_an_exact_exponential() {
    let mut d = emulator(hot(1), device(THERMAL));
    d.launch(&launch(0, 0, 0));
    // Towards 25 + 2 W x 10 K/W = 45.
    for at_ms in [0.5, 3.7, 9.0] {
        alarm(&mut d, ms(at_ms));
        near(d.celsius().expect("modelled"), 45.0 - 20.0 * (-at_ms / 10.0f64).exp());
    }
    // Idle it goes towards 25 + 0.5 W x 10 K/W, and what the rest of the device draws comes on top.
    let thermal = Thermal { start_c: Some(38.0), base_watts: 0.3, ..THERMAL };
    let mut d = emulator(hot(1), device(thermal));
    alarm(&mut d, ms(7.0));
    near(d.celsius().expect("modelled"), 33.0 + 5.0 * (-0.7f64).exp());
    assert_eq!(emulator(hot(1), Device::default()).celsius(), None);
}

#[test]
fn a_hot_device_steps_down_and_up_again() {
    // 45 - 20 exp(-t / 10 ms) is 40 at 13.86 ms: down at 14 ms, at 40.068 degrees. 6 ms of work are left, at half the speed.
    // 0.5 W: towards 30; 36 is passed at 19.2 ms: up at 20 ms, with 3 ms of work left, done at 23 ms.
    // 14 ms and 3 ms at 2 W, and 6 ms at 0.5 W: 37 mJ.
    let mut d = emulator(hot(1), device(THERMAL));
    d.launch(&launch(0, 0, 0));
    let steps = [(13.9, 0), (14.1, 1), (19.9, 1), (20.1, 0)];
    for (at_ms, step) in steps {
        alarm(&mut d, ms(at_ms));
        assert_eq!(d.step_of(ProcessorId(0)), step, "at {at_ms} ms");
    }
    let done = &completions(&drain(&mut d))[0];
    assert_eq!(done.finished, ms(23.0));
    near(done.energy_mj, 37.0);
    let down = 45.0 - 20.0 * (-1.4f64).exp();
    let up = 30.0 + (down - 30.0) * (-0.6f64).exp();
    near(d.celsius().expect("modelled"), 45.0 + (up - 45.0) * (-0.3f64).exp());
    let meter = d.meters()[0];
    assert_eq!((meter.busy, meter.idle.0), (ms(23.0).since(Time::ZERO), 0));
    near(meter.busy_mj, 37.0);
}

#[test]
fn only_processors_with_steps_are_slowed() {
    // Hot from the start for good: down at the first look.
    let mut d = emulator(hot(2), device(Thermal { trip_c: 0.0, ..THERMAL }));
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 0, 1));
    let done = completions(&drain(&mut d));
    // 19 ms of work are left at 1 ms, at half the speed.
    let ends: Vec<_> = done.iter().map(|c| (c.launch.0, c.finished)).collect();
    assert_eq!(ends, [(1, ms(20.0)), (0, ms(39.0))]);
    near(done[1].energy_mj, 2.0 + 38.0 * 0.5);
    near(done[0].energy_mj, 40.0);
}

#[test]
fn there_is_no_step_below_the_last_and_none_above_the_first() {
    let mut d = emulator(hot(1), device(Thermal { trip_c: 0.0, ..THERMAL }));
    alarm(&mut d, ms(50.0));
    assert_eq!(d.step_of(ProcessorId(0)), 1);
    let mut d = emulator(hot(1), device(Thermal { trip_c: 1000.0, ..THERMAL }));
    alarm(&mut d, ms(50.0));
    assert_eq!(d.step_of(ProcessorId(0)), 0);
}

#[test]
fn a_processor_stays_idle_until_the_decider_is_done() {
    let config = Config { decision_us: 2000.0, ..exact() };
    let mut d = Emulator::new(case_on(hot(1), device(THERMAL)), config, 7, Time::ZERO);
    d.decided(Decision(0), 1);
    d.launch(&launch(0, 0, 0));
    // 2 ms towards 30, then 1 ms towards 45. (What happens while the decider is busy is heard when it is done, so wait longer.)
    alarm(&mut d, ms(3.0));
    let begun = 30.0 - 5.0 * (-0.2f64).exp();
    near(d.celsius().expect("modelled"), 45.0 + (begun - 45.0) * (-0.1f64).exp());
    let meter = d.meters()[0];
    assert_eq!((meter.idle, meter.busy), (ms(2.0).since(Time::ZERO), ms(1.0).since(Time::ZERO)));
    near(meter.idle_mj, 1.0);
    near(meter.busy_mj, 2.0);
}

#[test]
fn the_governor_alone_keeps_no_world_alive() {
    let mut d = emulator(hot(1), device(Thermal { trip_c: 0.0, ..THERMAL }));
    assert_eq!(d.wait(None), None);
    // Nor does it make a long calm slow: as many looks as microseconds in eleven days.
    let calm = Thermal { poll_ms: 1e-3, ..THERMAL };
    let mut d = emulator(hot(1), device(calm));
    alarm(&mut d, ms(1e9));
    near(d.celsius().expect("modelled"), 30.0);
    d.launch(&launch(0, 0, 0));
    let Some((at, Event::Completed(_))) = d.wait(None) else { panic!("expected the end of launch 0") };
    // From 30 towards 45: 40 is passed after 10.99 ms. 36 is passed upwards again and again meanwhile.
    assert!(at > ms(1e9 + 20.0) && at < ms(1e9 + 30.0), "{at}");
    assert!(at.since(ms(1e9)) > us(20_000.0).since(Time::ZERO));
}
