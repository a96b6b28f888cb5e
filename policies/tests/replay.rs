//! Every row of the table, recorded on random cases: the replay is the same run, and another policy's is not.

#[path = "../../env/tests/common/mod.rs"]
mod common;
mod quick;

use common::{Item, random_setup, run_in};
use cosched_env::emulator::Emulator;
use cosched_env::recording::{Header, Recorder, Recording};
use cosched_policies::{TABLE, make};
use std::sync::Arc;

fn record(seed: u64, policy: &str) -> (Vec<Item>, Vec<u8>) {
    let setup = random_setup(seed);
    let header = Header::new(policy, &setup.case, setup.options);
    let emulator = Emulator::new(setup.case.clone(), setup.config.clone(), setup.seed, setup.horizon);
    let mut text = Vec::new();
    let mut recorder = Recorder::new(emulator, &mut text, &header).expect("memory can be written");
    let mut policy = make(policy, &setup.case).expect("the table makes it");
    let log = run_in(&mut recorder, &setup.case, setup.options, &mut *policy).expect("the rules hold");
    recorder.finish().expect("memory can be written");
    (log, text)
}

/// Replays with the recorded policy, or with another one.
fn replay(text: &[u8], other: Option<&str>) -> Result<Vec<Item>, String> {
    let recording = Recording::read(text).map_err(|e| e.to_string())?;
    let Header { options, policy, .. } = recording.header.clone();
    let case = Arc::new(recording.header.case().map_err(|e| e.to_string())?);
    let mut policy = make(other.unwrap_or(&policy), &case).map_err(|e| e.to_string())?;
    let mut world = recording.replay();
    let log = run_in(&mut world, &case, options, &mut *policy);
    world.finish().map_err(|e| e.to_string())?;
    log
}

#[test]
fn replays_are_the_same_run() {
    for row in TABLE {
        for seed in 0..if row.searches { 3 } else { 25 } {
            let (log, text) = record(seed, &quick::spec(row.name));
            let again = replay(&text, None).unwrap_or_else(|why| panic!("{}, seed {seed}: {why}", row.name));
            assert!(log == again, "{}, seed {seed}: the replay differs and nobody noticed", row.name);
        }
    }
}

#[test]
fn another_policy_is_found_out() {
    let (mut found, mut same) = (0, 0);
    for seed in 0..25 {
        let (log, text) = record(seed, "round-robin");
        match replay(&text, Some("heft")) {
            Err(why) => {
                assert!(why.contains("replay differs from the recording at line"), "seed {seed}: {why}");
                found += 1;
            }
            // With one processor and one stream they may well do the same.
            Ok(again) => {
                assert!(log == again, "seed {seed}: the replay differs and nobody noticed");
                same += 1;
            }
        }
    }
    assert!(found > 15, "{found} found out, {same} the same");
}
