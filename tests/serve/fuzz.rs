//! Good inputs changed at random into the parsers and the model loader (`fuzz/targets.rs`): nothing panics, hangs or lets through what does not
//! fit. A short form runs here; `scripts/fuzz` runs a million inputs a target by this same file. It knows nothing of coverage: cargo-fuzz does.

#[path = "../../fuzz/targets.rs"]
mod targets;

use cosched::env::streams::rng;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use targets::{TARGETS, Target};

/// Longest time for one input.
const LONG: Duration = Duration::from_secs(20);
/// Pieces that parsers look at twice.
const WORDS: [&[u8]; 16] = [
    b"\"",
    b"[",
    b"]",
    b"{",
    b"}",
    b"-",
    b"9999999999999999999",
    b"1e999",
    b"null",
    b"-0.0",
    b"\\u0000",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\"shape\":",
    b"\"data\":",
];

/// A good input with a few changes, of which most are small.
fn changed(random: &mut Pcg64Mcg, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut data = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..1 << random.random_range(0..4) {
        let at = random.random_range(0..=data.len());
        let until = (at + random.random_range(0..16)).min(data.len());
        match random.random_range(0..8) {
            0 | 1 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
            2 if at < data.len() => data[at] = random.random(),
            3 => drop(data.splice(at..until, [])),
            4 => drop(data.splice(at..at, WORDS[random.random_range(0..WORDS.len())].iter().copied())),
            5 => drop(data.splice(at..until, WORDS[random.random_range(0..WORDS.len())].iter().copied())),
            6 => {
                // A piece of this or another input.
                let other = &seeds[random.random_range(0..seeds.len())];
                let from = random.random_range(0..=other.len());
                let piece = other[from..(from + random.random_range(0..64)).min(other.len())].to_vec();
                data.splice(at..until, piece);
            }
            7 if random.random_bool(0.1) => data.truncate(at),
            _ => {}
        }
    }
    data
}

/// What went wrong with which input, counted from 0; or how many were let through.
fn fuzz(target: &Target, inputs: u64, seed: u64) -> Result<u64, (u64, String)> {
    let (seeds, mut random) = ((target.seeds)(), rng(seed, "fuzz", 0));
    let last = keep(target.name, inputs);
    let mut through = 0;
    for number in 0..inputs {
        // A long run that is broken off has told something.
        if number > 0 && number % 100_000 == 0 {
            println!("{}: {number} inputs so far, {through} let through", target.name);
        }
        let data = if (number as usize) < seeds.len() {
            seeds[number as usize].clone()
        } else {
            changed(&mut random, &seeds)
        };
        // What kills the process outright must be known afterwards.
        if let Some(path) = &last {
            std::fs::write(path, &data).unwrap();
        }
        let begun = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| (target.run)(&data))) {
            Ok(was) => through += u64::from(was),
            Err(_) => return Err((number, format!("it panics; the input: {}", told(&data)))),
        }
        if begun.elapsed() > LONG {
            return Err((number, format!("it took {:?}; the input: {}", begun.elapsed(), told(&data))));
        }
    }
    Ok(through)
}

/// Where the input that runs is kept in a long run; the loader calls a library that is not ours.
fn keep(name: &str, inputs: u64) -> Option<PathBuf> {
    (inputs > 100_000 && name == "onnx")
        .then(|| std::env::temp_dir().join(format!("cosched-fuzz-{name}-last")))
}

fn told(data: &[u8]) -> String {
    data.iter().flat_map(|&b| std::ascii::escape_default(b)).map(char::from).take(4000).collect()
}

fn run(target: &Target, short: u64) {
    let set = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (inputs, seed) = (set("COSCHED_FUZZ_INPUTS").unwrap_or(short), set("COSCHED_FUZZ_SEED").unwrap_or(1));
    let begun = Instant::now();
    match fuzz(target, inputs, seed) {
        Ok(through) => {
            println!(
                "{}: {inputs} inputs, {through} let through, {:.0} s",
                target.name,
                begun.elapsed().as_secs_f64()
            );
            // Most changes are wrong, and some are not; otherwise hardly anything was tried.
            assert!(through >= 3.min(inputs) && through < inputs, "{}: {through} let through", target.name);
        }
        Err((number, problem)) => panic!("{} with seed {seed}, input {number}: {problem}", target.name),
    }
}

#[test]
fn changed_bodies_of_http() {
    run(&TARGETS[0], 20_000);
}

#[test]
fn changed_messages_of_grpc() {
    run(&TARGETS[1], 20_000);
}

#[test]
fn changed_models() {
    run(&TARGETS[2], 400);
}

#[test]
fn every_seed_but_the_one_for_shared_memory_is_good() {
    for target in &TARGETS {
        let seeds = (target.seeds)();
        let good = seeds.iter().filter(|s| (target.run)(s)).count();
        let bad = usize::from(target.name == "http");
        assert_eq!(good + bad, seeds.len(), "{}", target.name);
        if let Some(folder) = std::env::var_os("COSCHED_FUZZ_CORPUS") {
            let folder = PathBuf::from(folder).join(target.name);
            std::fs::create_dir_all(&folder).unwrap();
            for (i, seed) in seeds.iter().enumerate() {
                std::fs::write(folder.join(format!("seed-{i}")), seed).unwrap();
            }
        }
    }
}

/// The saboteurs: a parser that believes what the length says, and one that loops over a number of the caller's.
#[test]
fn wrong_parsers_are_found() {
    let trusting = |data: &[u8]| {
        let length = usize::from(u16::from_le_bytes([data[0], data[1]]));
        data[2..][..length.min(60_000)].len() > 3
    };
    let unfit = |data: &[u8]| {
        let text = String::from_utf8_lossy(data);
        assert!(!text.contains("\"shape\":[2,-"), "it lets through what does not fit");
        true
    };
    for run in [trusting as fn(&[u8]) -> bool, unfit] {
        let wrong = Target { run, ..TARGETS[0] };
        assert!(fuzz(&wrong, 20_000, 1).is_err());
    }
}
