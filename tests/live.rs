//! Live runs on real processors: every request ends once and the totals add up, recordings replay to the same decisions, a killed DSP
//! loses nothing, a stopped run drains. Nothing here looks at latencies: the machine may be busy with anything.

mod bench;

use bench::plans::quick_plan;
use bench::{Bench, PATIENCE, SECONDS, totals};
use cosched::env::case::Case;
use cosched::env::event::{Completion, Ended, Event, Launch, Outcome};
use cosched::env::observation::Observation;
use cosched::env::recording::Recording;
use cosched::env::scheduler::Scheduler;
use cosched::env::streams::Arrivals;
use cosched::env::time::{Span, Time};
use cosched::env::world::{Decision, Observer, drive};
use cosched::executors::deploy::{Deployment, Model};
use cosched::executors::gpu::device::Gpu;
use cosched::executors::gpu::wgpu::WgpuDevice;
use cosched::executors::live::LiveWorld;
use cosched::executors::segment::CutOptions;
use cosched::executors::{onnx, zoo};
use cosched::experiments::app::App;
use cosched::experiments::log::{LaunchRecord, RunLog};
use cosched::experiments::summary::Summary;
use cosched::session::RunOptions;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
    let after =
        |l: &&LaunchRecord| l.at >= last.at && l.completion.as_ref().is_some_and(|c| c.failure.is_none());
    assert!(log.launches.iter().any(|l| after(&l)), "nothing ran on the dsp after it came back");
    assert_eq!(&replay(&paper.text(), "fixed:dsp").unwrap(), log, "the replay is another run");
}

/// A network on a GPU that is all there is, and the device under it.
fn on_one_gpu() -> (Arc<Gpu<WgpuDevice>>, Arc<Deployment>, Arc<Case>) {
    let text = "name = \"lost\"\n[[task]]\nname = \"k\"\n[[task.variant]]\nmodel = \"zoo:kws_small\"\naccuracy = 0.9\n\
                [[stream]]\ntask = \"k\"\nperiod_ms = 20\ndeadline_ms = 500\n";
    let app = App::parse(text, "lost.toml".as_ref()).unwrap();
    let gpu = Arc::new(Gpu::new(WgpuDevice::open(None).unwrap()));
    let bytes = zoo::bytes("kws_small", &zoo::Options::default()).unwrap();
    let graph = onnx::from_bytes("kws_small", &bytes, &BTreeMap::new()).unwrap();
    let model = Model {
        name: app.tasks[0].variants[0].plan_name(),
        task: "k".into(),
        accuracy: 0.9,
        graph,
        samples: Default::default(),
    };
    let cut = CutOptions { max_segments: 2, min_share: 0.1 };
    let deployment = Deployment::new(vec![model], vec![gpu.clone()], &cut, &mut |_, _, _| {}).unwrap();
    let case = app.case_of(quick_plan(&deployment)).unwrap();
    (gpu, Arc::new(deployment), case)
}

/// Loses the device three times, each after twenty good launches, and stops the run after twenty more.
struct Loser<'a> {
    log: RunLog,
    gpu: &'a Gpu<WgpuDevice>,
    stop: &'a AtomicBool,
    good: u32,
}

impl Observer for Loser<'_> {
    fn decided(&mut self, observation: &Observation<'_>, decision: Decision) {
        self.log.decided(observation, decision);
    }

    fn launched(&mut self, now: Time, launch: &Launch) {
        self.log.launched(now, launch);
    }

    fn event(&mut self, now: Time, event: &Event) {
        self.log.event(now, event);
        let Event::Completed(Completion { failure: None, .. }) = event else { return };
        self.good += 1;
        match self.good {
            20 | 40 | 60 => self.gpu.lose(),
            80 => self.stop.store(true, Ordering::Relaxed),
            _ => {}
        }
    }

    fn ended(&mut self, ended: &Ended) {
        self.log.ended(ended);
    }
}

#[test]
fn a_gpu_that_its_driver_gives_up_is_opened_again_and_no_request_is_lost() {
    let (gpu, deployment, case) = on_one_gpu();
    let (stop, horizon) = (Arc::new(AtomicBool::new(false)), Time::ZERO + Span::from_ms(SECONDS * 1e3));
    let (mut world, submitter) = LiveWorld::new(deployment, case.clone(), 1, horizon, stop.clone()).unwrap();
    drop(submitter);
    let mut decider = cosched::policies::make("edf", &case).unwrap();
    let mut scheduler = Scheduler::new(case.clone(), Default::default());
    let mut loser = Loser { log: RunLog::new("edf"), gpu: &gpu, stop: &stop, good: 0 };
    let end = drive(&mut scheduler, &mut world, decider.as_mut(), &mut loser).unwrap();
    let log = loser.log.finish(end);
    let arrived: BTreeSet<_> =
        Arrivals::new(case.clone(), 1, horizon).map(|r| r.id).take(log.arrived()).collect();
    totals(&log, &case, &arrived).unwrap();
    let last = log.health.last().unwrap();
    let down = log.health.iter().filter(|h| !h.up).count();
    assert!(last.up && down >= 3, "{:?}", log.health);
    let failures: Vec<_> =
        log.launches.iter().filter_map(|l| l.completion.as_ref()?.failure.as_ref()).collect();
    assert!(failures.iter().any(|f| f.contains("`wgpu` died")), "{failures:?}");
    let after =
        |l: &&LaunchRecord| l.at >= last.at && l.completion.as_ref().is_some_and(|c| c.failure.is_none());
    assert!(log.launches.iter().filter(after).count() > 10, "nothing ran after it came back");
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
