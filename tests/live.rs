//! Live runs on real processors: every request ends once and the totals add up, recordings replay to the same decisions, a killed DSP
//! loses nothing, callers get one reply each. Nothing here looks at latencies: the machine may be busy with anything.

use cosched::env::case::{Case, StreamId};
use cosched::env::event::{Outcome, RequestId};
use cosched::env::recording::Recording;
use cosched::env::scheduler::Scheduler;
use cosched::env::streams::Arrivals;
use cosched::env::time::{Span, Time};
use cosched::env::world::drive;
use cosched::executors::cpu;
use cosched::executors::deploy::sample_inputs;
use cosched::executors::live::{LiveWorld, Submitter};
use cosched::executors::profile::{Options, profile};
use cosched::executors::tensor::Tensor;
use cosched::experiments::app::App;
use cosched::experiments::log::RunLog;
use cosched::experiments::summary::Summary;
use cosched::session::{LiveRun, RunOptions, Session, SessionOptions};
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Two variants, one of two segments, on two processors; more requests than they serve, so that all ways to end happen.
const APP: &str = r#"
name = "live"
processors = ["cpu", "dsp"]
seconds = 1
[segments]
max = 2
min_share = 0.1
[[task]]
name = "keyword"
[[task.variant]]
model = "zoo:kws"
accuracy = 0.94
[[task.variant]]
model = "zoo:kws_small"
accuracy = 0.9
[[stream]]
task = "keyword"
period_ms = 10
deadline_ms = 10
[[stream]]
task = "keyword"
kind = "poisson"
period_ms = 5
deadline_ms = 30
expire_ms = 5000
"#;

/// How long anything may take before it counts as a hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// Length of a run that is stopped.
const SECONDS: f64 = 600.0;

/// A session whose DSP workers are told from those of other tests by the name of their command.
struct Bench {
    app: App,
    session: Session,
    case: Arc<Case>,
    command: std::path::PathBuf,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let app = App::parse(APP, "live.toml".as_ref()).unwrap();
        let command = std::env::temp_dir().join(format!("cosched-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&command);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cosched"), &command).unwrap();
        let mut options = SessionOptions::default();
        options.processors.dsp_command = vec![command.display().to_string(), "dsp-worker".into()];
        let session = Session::open(&app, &options, &mut |_, _, _| {}).unwrap();
        assert!(session.absent.is_empty(), "{:?}", session.absent);
        let ms = Duration::from_millis;
        let quick = Options { warm_up: 1, least_runs: 3, most_runs: 10, budget: ms(20), pair: ms(20) };
        let plan = profile(&session.deployment, &quick, &|_| (1.0, 0.1), &mut |_, _, _| {}).unwrap();
        session.fits(&plan).unwrap();
        let case = app.case_of(plan).unwrap();
        Bench { app, session, case, command }
    }

    fn run(&self, policy: &str, options: RunOptions) -> LiveRun {
        self.session.run(&self.app, self.case.clone(), policy, options).unwrap()
    }

    /// What must arrive, from the same seed but without a live world.
    fn arrivals(&self, seed: u64, seconds: f64) -> BTreeSet<RequestId> {
        let horizon = Time::ZERO + Span::from_ms(seconds * 1e3);
        Arrivals::new(self.case.clone(), seed, horizon).map(|r| r.id).collect()
    }

    /// The first requests of a run that was stopped after so many.
    fn first_arrivals(&self, n: usize) -> BTreeSet<RequestId> {
        self.arrivals(self.app.seed, SECONDS).into_iter().take(n).collect()
    }

    /// The DSP worker's process, looked for among all processes.
    fn worker(&self, known: &BTreeSet<u32>) -> Option<u32> {
        let mine = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|&b| b == 0).next() == Some(self.command.to_string_lossy().as_bytes())
        };
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        pids.filter_map(|e| e.file_name().to_str()?.parse().ok())
            .filter(|pid| !known.contains(pid))
            .find(mine)
    }

    /// Waits for a worker that is none of the known ones.
    fn new_worker(&self, known: &BTreeSet<u32>) -> Option<u32> {
        let begun = Instant::now();
        loop {
            match self.worker(known) {
                None if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
                found => return found,
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.command);
    }
}

/// Whether every request that arrived ended exactly once, and every launch was for one of them and ended.
fn totals(log: &RunLog, case: &Arc<Case>, arrived: &BTreeSet<RequestId>) -> Result<(), String> {
    let ended: BTreeSet<_> = log.ended.iter().map(|e| e.request.id).collect();
    if ended.len() != log.ended.len() {
        return Err(format!("{} ends for {} requests", log.ended.len(), ended.len()));
    }
    if &ended != arrived {
        let lost: Vec<_> = arrived.difference(&ended).map(|r| r.0).collect();
        let strange: Vec<_> = ended.difference(arrived).map(|r| r.0).collect();
        return Err(format!("never ended: {lost:?}; never arrived: {strange:?}"));
    }
    if !log.unended.is_empty() {
        return Err(format!("{} requests are open", log.unended.len()));
    }
    if let Some(open) = log.launches.iter().find(|l| l.completion.is_none()) {
        return Err(format!("launch {} has no completion", open.launch.id.0));
    }
    let launches: usize = log.ended.iter().map(|e| e.launches as usize).sum();
    if launches != log.launches.len() {
        return Err(format!("requests count {launches} launches, the log {}", log.launches.len()));
    }
    let t = Summary::of(log, case).total;
    let sum = t.on_time + t.late + t.dropped + t.expired + t.failed;
    if (t.requests, t.open) != (sum, 0) || sum != arrived.len() as u64 {
        return Err(format!("{} requests, but the ways to end sum to {sum}", t.requests));
    }
    Ok(())
}

/// A recording in memory.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Replays a recording under a policy; the log, or the first difference.
fn replay(text: &str, policy: &str) -> Result<RunLog, String> {
    let recording = Recording::read(text.as_bytes()).map_err(|e| e.to_string())?;
    let header = &recording.header;
    let case = Arc::new(Case::new(header.plan.clone(), header.scenario.clone()).unwrap());
    let mut decider = cosched::policies::make(policy, &case).unwrap();
    let mut scheduler = Scheduler::new(case, header.options);
    let mut world = recording.replay();
    let mut log = RunLog::new(policy);
    let end = drive(&mut scheduler, &mut world, decider.as_mut(), &mut log).map_err(|e| e.to_string())?;
    world.finish().map_err(|e| e.to_string())?;
    Ok(log.finish(end))
}

#[test]
fn a_live_run_is_whole_and_replays_to_the_same_decisions() {
    let bench = Bench::new("replay");
    let mut texts = Vec::new();
    for policy in ["edf", "learned"] {
        let paper = Paper::default();
        let record: Box<dyn Write> = Box::new(paper.clone());
        let live =
            bench.run(policy, RunOptions { record: Some(record), seed: Some(3), ..Default::default() });
        totals(&live.log, &bench.case, &bench.arrivals(3, 1.0)).unwrap();
        assert_eq!(live.log.decisions, live.decision_ns.len() as u64);
        let again = replay(&paper.text(), policy).unwrap();
        assert_eq!(again, live.log, "the replay of {policy} is another run");
        texts.push(paper.text());
    }
    // The saboteurs: another policy, and every recording with one line taken out.
    let error = replay(&texts[0], "fixed:dsp").unwrap_err();
    assert!(error.contains("line"), "{error}");
    let lines: Vec<&str> = texts[0].lines().collect();
    for gone in 0..lines.len() {
        let rest: Vec<&str> = lines.iter().enumerate().filter(|(i, _)| *i != gone).map(|(_, l)| *l).collect();
        let error = Recording::read(rest.join("\n").as_bytes()).map(drop).unwrap_err().to_string();
        assert!(error.contains("line"), "without line {}: {error}", gone + 1);
    }
}

#[test]
fn a_log_that_does_not_add_up_is_noticed() {
    // The saboteur of `totals`: a request less, one twice, a launch without an end, a launch too many.
    let bench = Bench::new("totals");
    let log = bench.run("round-robin", RunOptions { seconds: Some(0.3), ..Default::default() }).log;
    let arrived = bench.arrivals(bench.app.seed, 0.3);
    let check = |spoil: &dyn Fn(&mut RunLog)| {
        let mut log = log.clone();
        spoil(&mut log);
        totals(&log, &bench.case, &arrived)
    };
    check(&|_| ()).unwrap();
    check(&|log| drop(log.ended.remove(3))).unwrap_err();
    check(&|log| log.ended.push(log.ended[0].clone())).unwrap_err();
    check(&|log| log.launches[0].completion = None).unwrap_err();
    check(&|log| drop(log.launches.pop())).unwrap_err();
}

#[test]
fn a_killed_dsp_loses_no_request_and_comes_back() {
    const KILLS: usize = 4;
    let bench = Bench::new("kill");
    let paper = Paper::default();
    let record: Box<dyn Write> = Box::new(paper.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let (live, killed) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut killed = BTreeSet::new();
            for _ in 0..KILLS {
                killed.extend(bench.new_worker(&killed).inspect(|&pid| {
                    // Time to load its models and to serve: the kill shall come in the middle of work.
                    std::thread::sleep(Duration::from_millis(500));
                    let kill = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
                    assert!(kill.unwrap().success());
                }));
            }
            let back = bench.new_worker(&killed);
            std::thread::sleep(Duration::from_secs(2));
            stop.store(true, Ordering::Relaxed);
            assert!(back.is_some(), "no new worker");
            killed
        });
        let options = RunOptions {
            record: Some(record),
            seconds: Some(SECONDS),
            stop: stop.clone(),
            ..Default::default()
        };
        (bench.run("fixed:dsp", options), killer.join().unwrap())
    });
    // Each of them was a process of its own, so the one before it had come back.
    assert_eq!(killed.len(), KILLS);
    let log = &live.log;
    totals(log, &bench.case, &bench.first_arrivals(log.arrived())).unwrap();
    let failures = log.launches.iter().filter_map(|l| l.completion.as_ref()?.failure.as_ref());
    let died = failures.filter(|f| f.contains("died")).count();
    let total = Summary::of(log, &bench.case).total;
    println!(
        "{} workers killed: {} requests, {} on time, {} late, {} expired, {} failed; {died} launches died, health {:?}",
        killed.len(),
        total.requests,
        total.on_time,
        total.late,
        total.expired,
        total.failed,
        log.health.iter().map(|h| h.up).collect::<Vec<_>>()
    );
    for ended in &log.ended {
        if let Outcome::Failed(reason) = &ended.outcome {
            assert!(reason.contains("dsp"), "no reason: {reason}");
        }
    }
    let down = log.health.iter().filter(|h| !h.up).count();
    assert!(died >= 1 && down >= 1, "{died} launches died, {down} times down: the kills were not felt");
    let last = log.health.last().unwrap();
    assert!(last.up, "the dsp was still down at the end");
    let after = |l: &&cosched::experiments::log::LaunchRecord| {
        l.at >= last.at && l.completion.as_ref().is_some_and(|c| c.failure.is_none())
    };
    assert!(log.launches.iter().any(|l| after(&l)), "nothing ran on the dsp after it came back");
    assert_eq!(&replay(&paper.text(), "fixed:dsp").unwrap(), log, "the replay is another run");
}

#[test]
fn a_stopped_run_ends_early_and_drains() {
    let bench = Bench::new("stop");
    let stop = Arc::new(AtomicBool::new(false));
    let heard = stop.clone();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        heard.store(true, Ordering::Relaxed);
    });
    let begun = Instant::now();
    let live = bench.run("eft", RunOptions { seconds: Some(SECONDS), stop, ..Default::default() });
    stopper.join().unwrap();
    assert!(begun.elapsed() < PATIENCE, "it went on for {:?}", begun.elapsed());
    let n = live.log.arrived();
    assert!(n > 0);
    totals(&live.log, &bench.case, &bench.first_arrivals(n)).unwrap();
}

/// A world without streams' requests, driven by a thread of its own until the last submitter is gone.
fn serve<T>(bench: &Bench, policy: &str, callers: impl FnOnce(Submitter) -> T) -> (T, RunLog) {
    let (deployment, case) = (bench.session.deployment.clone(), bench.case.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let (mut world, submitter) = LiveWorld::new(deployment, case.clone(), 0, Time::ZERO, stop).unwrap();
    let mut decider = cosched::policies::make(policy, &case).unwrap();
    let mut log = RunLog::new(policy);
    let result = std::thread::scope(|scope| {
        let log = &mut log;
        let driver = scope.spawn(move || {
            let mut scheduler = Scheduler::new(case, Default::default());
            drive(&mut scheduler, &mut world, decider.as_mut(), log)
        });
        let result = callers(submitter);
        driver.join().unwrap().unwrap();
        result
    });
    (result, log)
}

#[test]
fn every_caller_gets_one_reply_with_onnxruntimes_answer() {
    let bench = Bench::new("callers");
    let graphs: Vec<_> = bench.session.deployment.variants.iter().map(|v| &v.model.graph).collect();
    let want = |variant: usize, inputs: &[Tensor]| {
        let mut whole = cpu::reference(graphs[variant]).unwrap();
        whole.run(&inputs.iter().collect::<Vec<_>>()).unwrap()
    };
    let (outcomes, log) = serve(&bench, "fixed:cpu", |submitter| {
        let ask = |caller: u64| {
            let submitter = submitter.clone();
            let mut outcomes = Vec::new();
            for i in 0..20 {
                let inputs = sample_inputs(graphs[0], 1000 + caller * 100 + i);
                let stream = StreamId((i % 2) as u16);
                let receiver = submitter.submit(stream, inputs.clone());
                let reply = receiver.recv_timeout(PATIENCE).unwrap();
                assert!(receiver.recv_timeout(PATIENCE).is_err(), "a second reply");
                assert_eq!(reply.ended.request.stream, stream);
                let answered = matches!(reply.ended.outcome, Outcome::Answered | Outcome::Late);
                assert_eq!(reply.outputs.is_some(), answered, "{:?}", reply.ended.outcome);
                if let (Some(outputs), Some(variant)) = (&reply.outputs, reply.ended.variant) {
                    let (got, want) = (&outputs[0], &want(variant.0 as usize, &inputs)[0]);
                    assert_eq!(got.shape, want.shape);
                    let pairs = got.as_f32().unwrap().iter().zip(want.as_f32().unwrap());
                    let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(off < 1e-4, "caller {caller}, request {i}: off by {off}");
                }
                outcomes.push(answered);
            }
            outcomes
        };
        let all = std::thread::scope(|scope| {
            let ask = &ask;
            let callers: Vec<_> = (0..3).map(|c| scope.spawn(move || ask(c))).collect();
            callers.into_iter().flat_map(|c| c.join().unwrap()).collect::<Vec<_>>()
        });
        drop(submitter);
        all
    });
    assert_eq!((outcomes.len(), log.ended.len()), (60, 60));
    assert!(outcomes.contains(&true), "not one answer");
}

#[test]
fn wrong_callers_are_refused_and_others_go_on() {
    let bench = Bench::new("wrong");
    let good = || sample_inputs(&bench.session.deployment.variants[0].model.graph, 5);
    let (_, log) = serve(&bench, "eft", |submitter| {
        let shape = submitter.submit(StreamId(1), vec![Tensor::f32(&[1, 1, 10, 49], vec![0.0; 490])]);
        let reply = shape.recv_timeout(PATIENCE).unwrap();
        match &reply.ended.outcome {
            Outcome::Failed(reason) => {
                assert!(reason.contains("expected f32[1, 1, 49, 10], got f32[1, 1, 10, 49]"), "{reason}");
            }
            other => panic!("a wrong shape: {other:?}"),
        }
        assert!(reply.outputs.is_none());
        let none = submitter.submit(StreamId(1), Vec::new()).recv_timeout(PATIENCE).unwrap();
        assert!(matches!(none.ended.outcome, Outcome::Failed(_)), "{:?}", none.ended.outcome);
        // No such stream: refused, and only this caller hears of it.
        let before = Instant::now();
        assert!(submitter.submit(StreamId(2), good()).recv_timeout(PATIENCE).is_err());
        assert!(submitter.submit(StreamId(u16::MAX), good()).recv_timeout(PATIENCE).is_err());
        assert!(before.elapsed() < PATIENCE, "a hang");
        assert!(submitter.submit(StreamId(0), good()).recv_timeout(PATIENCE).is_ok());
        // A caller that goes away is not missed.
        drop(submitter.submit(StreamId(0), good()));
    });
    assert_eq!(log.ended.len(), 4);
}

#[test]
fn a_world_that_is_gone_disconnects_its_callers() {
    let bench = Bench::new("gone");
    let (deployment, case) = (bench.session.deployment.clone(), bench.case.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let (world, submitter) = LiveWorld::new(deployment.clone(), case, 0, Time::ZERO, stop).unwrap();
    let inputs = sample_inputs(&deployment.variants[0].model.graph, 5);
    let waiting = submitter.submit(StreamId(0), inputs.clone());
    drop(world);
    let late = submitter.submit(StreamId(0), inputs);
    let before = Instant::now();
    assert!(waiting.recv_timeout(PATIENCE).is_err() && late.recv_timeout(PATIENCE).is_err());
    assert!(before.elapsed() < PATIENCE, "a hang");
}
