//! The worker as a process: it dies, hangs, loses its parent, and serves many threads; the scheduler's side sees each of them as what it
//! is and works again afterwards. What is no worker at all is refused in `dsp_refusals.rs`.
#![cfg(target_os = "linux")]

mod dsp_common;

use cosched_executors::dsp::pace::Pace;
use cosched_executors::dsp::queue::shared_dir;
use cosched_executors::dsp::{Dsp, Limits};
use cosched_executors::held::Held;
use cosched_executors::processor::{ExecError, Instance, Options, Processor};
use cosched_executors::stop::Stop;
use cosched_executors::tensor::Tensor;
use dsp_common::*;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

fn ready(dsp: &Dsp, seed: u64) -> (Box<dyn Instance>, Vec<Tensor>, Vec<Tensor>) {
    let graph = tiny_graph(seed);
    let samples = samples(&mut Rng::new(seed), &graph, 2);
    let prepared = dsp.prepare(&graph, &samples).unwrap();
    let want = reference(&graph, &samples[0]);
    (prepared.spawn().unwrap(), samples[0].clone(), want)
}

fn check(instance: &mut dyn Instance, input: &[Tensor], want: &[Tensor]) {
    let got = instance.run(&input.iter().collect::<Vec<_>>()).unwrap();
    let db = sqnr(want, &got);
    assert!(db > 25.0, "{db} dB");
}

#[test]
fn killed_in_the_middle_of_a_run_and_back_again() {
    let dsp = dsp();
    let (mut tiny, input, want) = ready(&dsp, 1);
    check(&mut *tiny, &input, &want);
    let graph = long_graph();
    let samples = samples(&mut Rng::new(2), &graph, 1);
    let mut long = dsp.prepare(&graph, &samples).unwrap().spawn().unwrap();
    let first = dsp.worker_pid().unwrap();

    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(25));
        signal("-KILL", first);
        Instant::now()
    });
    let error = long.run(&[&samples[0][0]]).unwrap_err();
    let noticed = killer.join().unwrap().elapsed();
    assert!(matches!(error, ExecError::Died { .. }), "{error}");
    assert!(
        error.to_string().contains("signal: 9") && error.to_string().contains(&first.to_string()),
        "{error}"
    );
    // Much sooner than by its silence.
    assert!(noticed < Limits::default().heartbeat, "noticed after {noticed:?}");

    // An instance of the old worker, one that was in the middle of a run, and a new segment: all work in the new worker.
    assert!(tiny.stale() && long.stale());
    check(&mut *tiny, &input, &want);
    assert!(!tiny.stale() && long.stale());
    assert_eq!(dsp.restarts(), 1);
    assert_ne!(dsp.worker_pid().unwrap(), first);
    assert_eq!(long.run(&[&samples[0][0]]).unwrap().len(), 1);
    let (mut other, input, want) = ready(&dsp, 3);
    check(&mut *other, &input, &want);
    assert_eq!(dsp.restarts(), 1);
}

#[test]
fn killed_while_idle() {
    let dsp = dsp();
    let (mut tiny, input, want) = ready(&dsp, 4);
    for round in 1..=3 {
        let pid = dsp.worker_pid().unwrap();
        signal("-KILL", pid);
        while dsp.worker_pid().is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
        check(&mut *tiny, &input, &want);
        assert_eq!(dsp.restarts(), round);
    }
}

#[test]
fn a_stopped_worker_is_killed_and_replaced() {
    let limits = Limits { heartbeat: Duration::from_millis(700), ..Limits::default() };
    let dsp = Dsp::open(&options(), limits).unwrap();
    let (mut tiny, input, want) = ready(&dsp, 5);
    let pid = dsp.worker_pid().unwrap();
    signal("-STOP", pid);
    // It may be in its short look at the ring or asleep: stopped either way.
    std::thread::sleep(Duration::from_millis(20));
    let error = tiny.run(&[&input[0]]).unwrap_err();
    assert!(matches!(error, ExecError::Died { .. }), "{error}");
    assert!(error.to_string().contains("no life sign"), "{error}");
    assert!(gone(pid));
    check(&mut *tiny, &input, &want);
    assert_eq!(dsp.restarts(), 1);
}

#[test]
fn a_run_without_end_is_killed() {
    let limits = Limits { run: Duration::from_millis(50), ..Limits::default() };
    let dsp = Dsp::open(&options(), limits).unwrap();
    let graph = long_graph();
    let samples = samples(&mut Rng::new(6), &graph, 1);
    let mut long = dsp.prepare(&graph, &samples).unwrap().spawn().unwrap();
    let error = long.run(&[&samples[0][0]]).unwrap_err();
    assert!(
        matches!(error, ExecError::Died { .. }) && error.to_string().contains("did not answer"),
        "{error}"
    );
    let (mut tiny, input, want) = ready(&dsp, 7);
    check(&mut *tiny, &input, &want);
}

#[test]
fn many_threads_share_one_worker() {
    let dsp = dsp();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let dsp = &dsp;
            scope.spawn(move || {
                let (mut instance, input, want) = ready(dsp, 100 + thread);
                let first = instance.run(&[&input[0]]).unwrap();
                assert!(sqnr(&want, &first) > 25.0);
                for _ in 0..200 {
                    assert_eq!(instance.run(&[&input[0]]).unwrap(), first, "thread {thread}");
                }
            });
        }
    });
    assert_eq!(dsp.restarts(), 0);
}

#[test]
fn threads_survive_repeated_murder() {
    let dsp = dsp();
    let until = Instant::now() + Duration::from_secs(2);
    let (good, died) = std::thread::scope(|scope| {
        let runners: Vec<_> = (0..3)
            .map(|thread| {
                let dsp = &dsp;
                let (mut instance, input, want) = ready(dsp, 200 + thread);
                scope.spawn(move || {
                    let (mut good, mut died) = (0u32, 0u32);
                    while Instant::now() < until {
                        match instance.run(&[&input[0]]) {
                            Ok(got) => {
                                assert!(sqnr(&want, &got) > 25.0);
                                good += 1;
                            }
                            Err(ExecError::Died { .. }) => died += 1,
                            Err(e) => panic!("thread {thread}: {e}"),
                        }
                    }
                    (good, died)
                })
            })
            .collect();
        while Instant::now() < until - Duration::from_millis(300) {
            std::thread::sleep(Duration::from_millis(150));
            if let Some(pid) = dsp.worker_pid() {
                signal("-KILL", pid);
            }
        }
        runners.into_iter().map(|r| r.join().unwrap()).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    });
    assert!(
        good > 100 && died >= 1 && dsp.restarts() >= 2,
        "{good} good, {died} died, {} restarts",
        dsp.restarts()
    );
    let (mut tiny, input, want) = ready(&dsp, 8);
    check(&mut *tiny, &input, &want);
}

/// Not a test by itself: the process that `a_worker_does_not_outlive_its_parent` starts and kills.
#[test]
fn role_of_a_parent() {
    if std::env::var_os("COSCHED_TEST_PARENT").is_none() {
        return;
    }
    let dsp = dsp();
    let graph = long_graph();
    let samples = samples(&mut Rng::new(9), &graph, 1);
    let mut long = dsp.prepare(&graph, &samples).unwrap().spawn().unwrap();
    println!("\nworker {}", dsp.worker_pid().unwrap());
    while std::env::var_os("COSCHED_TEST_PARENT").is_some_and(|v| v == "idle") {
        std::thread::sleep(Duration::from_secs(1));
    }
    loop {
        long.run(&[&samples[0][0]]).unwrap();
    }
}

#[test]
fn a_worker_does_not_outlive_its_parent() {
    for role in ["idle", "busy"] {
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "role_of_a_parent", "--nocapture"])
            .env("COSCHED_TEST_PARENT", role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let pid: u32 = lines
            .map_while(Result::ok)
            .find_map(|l| l.strip_prefix("worker ").and_then(|p| p.parse().ok()))
            .expect("the parent says the worker's number");
        std::thread::sleep(Duration::from_millis(100));
        assert!(lives(pid));
        parent.kill().unwrap();
        parent.wait().unwrap();
        assert!(gone(pid), "worker {pid} of a {role} parent lives on");
    }
}

#[test]
fn dropping_the_processor_ends_the_worker_and_leaves_no_file() {
    let dsp = dsp();
    let (tiny, _, _) = ready(&dsp, 10);
    let pid = dsp.worker_pid().unwrap();
    drop((tiny, dsp));
    assert!(gone(pid));
    let mine = format!("cosched-dsp-{}-", std::process::id());
    // Other tests of this process may hold a file for a moment: wait for all to be gone.
    let start = Instant::now();
    loop {
        let left: Vec<_> = std::fs::read_dir(shared_dir())
            .unwrap()
            .filter_map(Result::ok)
            .filter(|e| e.file_name().to_string_lossy().starts_with(&mine))
            .collect();
        if left.is_empty() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{left:?}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

#[test]
fn loads_and_unloads_leave_the_worker_flat() {
    let dsp = dsp();
    let mut rng = Rng::new(13);
    let mut b = Build::new("heavy");
    let x = b.input(&[1, 1024]);
    let y = b.gemm(&mut rng, x, 2048, true);
    let graph = b.done(&[y]);
    let samples = samples(&mut rng, &graph, 1);
    let quantised = cosched_executors::dsp::quantise_segment(&graph, &samples, Default::default()).unwrap();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", dsp.worker_pid().unwrap())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    };
    let cycle = |n: usize| {
        for _ in 0..n {
            let mut instance = dsp.prepare_quantised(&graph, &quantised).unwrap().spawn_seat().unwrap();
            instance.run(&[&samples[0][0]]).unwrap();
        }
        resident()
    };
    // 2 MB of weights each time: sixty of them leaked would be 120 MB.
    let (before, after) = (cycle(20), cycle(60));
    assert!(after < before + 30.0, "{before} MB, then {after} MB");
}

#[test]
fn a_paced_dsp_takes_its_time_and_can_be_stopped() {
    let graph = tiny_graph(12);
    let samples = samples(&mut Rng::new(12), &graph, 2);
    // 4 x 4 pixels, 4 to 4 channels: 512 operations, so 40 ms, and 10 ms a call.
    let pace = Pace { gops: 512.0 / 40e6, rpc_us: 10_000.0 };
    let open = |pace| Dsp::open(&Options { pace, ..options() }, Limits::default()).unwrap();
    let (paced, free) = (open(Some(pace)), open(None));
    assert!(paced.device().ends_with("us a call") && !free.device().contains("paced"), "{}", paced.device());
    let spawn = |dsp: &Dsp| dsp.prepare_segment(&graph, &samples).unwrap().spawn_seat().unwrap();
    let (mut slow, mut fast) = (spawn(&paced), spawn(&free));
    let timed = |instance: &mut dyn Instance| {
        let begun = Instant::now();
        instance.run(&[&samples[0][0]]).unwrap();
        begun.elapsed()
    };
    let numbers = slow.run(&[&samples[0][0]]).unwrap();
    // A machine may stand still now and then, but not each time.
    let mut times = (0..5)
        .map(|_| timed(&mut slow))
        .inspect(|took| assert!(*took >= Duration::from_millis(50), "{took:?}"));
    assert!(times.any(|took| took < Duration::from_secs(1)), "none of five in time");
    assert_eq!(slow.busy_ns(), 40_000_000, "the rest is the price of the call");
    // The saboteur: the same without a pace, which is faster, with the same numbers.
    assert_eq!(fast.run(&[&samples[0][0]]).unwrap(), numbers);
    let least = (0..20).map(|_| timed(&mut fast)).min().unwrap();
    assert!(least < Duration::from_millis(50), "{least:?}");
    // A minute a call: nobody waits for its end.
    let endless = open(Some(Pace { gops: 1.0, rpc_us: 60e6 }));
    let (mut instance, stop) = (spawn(&endless), Stop::default());
    let inputs = [Held::from(samples[0][0].clone())];
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            stop.stop();
        });
        let ended = instance.advance(&inputs, &[], &mut Vec::new(), &stop);
        assert!(matches!(ended, Err(ExecError::Stopped { .. })), "{ended:?}");
    });
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
}
