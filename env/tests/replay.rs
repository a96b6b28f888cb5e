//! Recordings: a replay is the same run, another policy is found out, and a recording with any one line wrong is refused.

mod common;

use common::{Item, RandomPolicy, Setup, random_setup, run_in};
use cosched_env::emulator::Emulator;
use cosched_env::recording::{Header, Recorder, Recording, RecordingError};
use cosched_env::streams::rng;
use std::sync::Arc;

fn policy(seed: u64) -> RandomPolicy {
    RandomPolicy(rng(seed, "policy", 0))
}

fn header(setup: &Setup) -> Header {
    Header::new("random", &setup.case, setup.options)
}

/// A run under the random policy, recorded.
fn record(seed: u64) -> (Vec<Item>, String) {
    let setup = random_setup(seed);
    let emulator = Emulator::new(setup.case.clone(), setup.config.clone(), setup.seed, setup.horizon);
    let mut text = Vec::new();
    let mut recorder = Recorder::new(emulator, &mut text, &header(&setup)).expect("memory can be written");
    let log = run_in(&mut recorder, &setup.case, setup.options, &mut policy(seed)).expect("the rules hold");
    recorder.finish().expect("memory can be written");
    (log, String::from_utf8(text).expect("JSON is UTF-8"))
}

/// The log of a replay under the random policy of `seed`.
fn replay(text: &str, seed: u64) -> Result<Vec<Item>, String> {
    let recording = Recording::read(text.as_bytes()).map_err(|e| e.to_string())?;
    let options = recording.header.options;
    let case = Arc::new(recording.header.case().map_err(|e| e.to_string())?);
    let mut world = recording.replay();
    let log = run_in(&mut world, &case, options, &mut policy(seed));
    world.finish().map_err(|e| e.to_string())?;
    log
}

#[test]
fn a_replay_is_the_same_run() {
    for seed in 0..60 {
        let (log, text) = record(seed);
        let again = replay(&text, seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert!(log == again, "seed {seed}: the replay differs and nobody noticed");
    }
}

#[test]
fn another_policy_is_found_out() {
    for seed in 0..60 {
        let (log, text) = record(seed);
        let wrong = replay(&text, seed + 1000);
        let choices = |log: &[Item]| log.iter().filter(|i| matches!(i, Item::Decided(..))).count();
        assert!(wrong.is_err() || choices(&log) < 5, "seed {seed}: another policy, the same run");
        if let Err(why) = wrong {
            assert!(why.contains("replay differs from the recording at line"), "seed {seed}: {why}");
        }
    }
}

/// A recording of some 50 to 200 lines.
fn short() -> Vec<String> {
    let lengths = |seed: u64| record(seed).1.lines().map(str::to_owned).collect::<Vec<_>>();
    (0..).map(lengths).find(|l| (50..200).contains(&l.len())).expect("some seed gives a short one")
}

fn refused(lines: &[String]) -> Option<RecordingError> {
    Recording::read((lines.join("\n") + "\n").as_bytes()).err()
}

#[test]
fn any_one_line_wrong_is_refused() {
    let lines = short();
    assert!(refused(&lines).is_none());
    for at in 0..lines.len() {
        let mut missing = lines.clone();
        missing.remove(at);
        assert!(refused(&missing).is_some(), "line {} is missing", at + 1);
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at].clone());
        assert!(refused(&doubled).is_some(), "line {} is there twice", at + 1);
        if at + 1 < lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            assert!(refused(&swapped).is_some(), "lines {} and the next are swapped", at + 1);
        }
        assert!(refused(&lines[..at]).is_some(), "only {at} lines");
        let mut empty = lines.clone();
        empty.insert(at, String::new());
        assert!(refused(&empty).is_some(), "line {} is empty", at + 1);
        let mut last = lines.clone();
        last.push(lines[at].clone());
        assert!(refused(&last).is_some(), "line {} stands behind the closing line too", at + 1);
    }
}

#[test]
fn any_one_digit_wrong_is_refused() {
    let lines = short();
    for at in 0..lines.len() {
        for (place, digit) in lines[at].char_indices().filter(|(_, c)| c.is_ascii_digit()) {
            // Headers are long; every fifth digit will do there.
            if at == 0 && place % 5 != 0 {
                continue;
            }
            let other = if digit == '7' { "3" } else { "7" };
            let mut changed = lines.clone();
            changed[at].replace_range(place..=place, other);
            assert!(refused(&changed).is_some(), "line {}, column {}", at + 1, place + 1);
        }
    }
}

#[test]
fn errors_name_the_line() {
    let lines = short();
    let mut missing = lines.clone();
    missing.remove(4);
    let text = refused(&missing).expect("refused").to_string();
    assert_eq!(text, "recording, line 5: expected entry 3, found entry 4: lines are missing");
    let text = refused(&lines[..10]).expect("refused").to_string();
    assert_eq!(text, "recording, line 11: the closing line is missing: the run was cut off");
    let mut newer = lines.clone();
    newer[0] = newer[0].replacen("\"format\":2", "\"format\":3", 1);
    let text = refused(&newer).expect("refused").to_string();
    assert_eq!(text, "recording, line 1: expected format 2, got 3");
}
