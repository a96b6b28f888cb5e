//! What the live tests share: a small app on real processors, its DSP worker as a process, and the check that totals add up.
//! It holds no test.
#![allow(dead_code)]

#[path = "../support/plans.rs"]
pub mod plans;

use cosched::env::case::Case;
use cosched::env::event::RequestId;
use cosched::env::streams::Arrivals;
use cosched::env::time::{Span, Time};
use cosched::experiments::app::App;
use cosched::experiments::log::RunLog;
use cosched::experiments::summary::Summary;
use cosched::session::{LiveRun, RunOptions, Session, SessionOptions};
use plans::quick_plan;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Two variants, one of two segments, on two processors; more requests than they serve, so that all ways to end happen.
pub const APP: &str = r#"
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
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Length of a run that is stopped.
pub const SECONDS: f64 = 600.0;

/// A session whose DSP workers are told from those of other tests by the name of their command.
pub struct Bench {
    pub app: App,
    pub session: Session,
    pub case: Arc<Case>,
    command: std::path::PathBuf,
}

impl Bench {
    pub fn new(name: &str) -> Bench {
        let app = App::parse(APP, "live.toml".as_ref()).unwrap();
        let command = std::env::temp_dir().join(format!("cosched-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&command);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cosched"), &command).unwrap();
        let mut options = SessionOptions::default();
        options.processors.dsp_command = vec![command.display().to_string(), "dsp-worker".into()];
        let session = Session::open(&app, &options, &mut |_, _, _| {}).unwrap();
        assert!(session.absent.is_empty(), "{:?}", session.absent);
        let plan = quick_plan(&session.deployment);
        session.fits(&plan).unwrap();
        let case = app.case_of(plan).unwrap();
        Bench { app, session, case, command }
    }

    pub fn run(&self, policy: &str, options: RunOptions) -> LiveRun {
        self.session.run(&self.app, self.case.clone(), policy, options).unwrap()
    }

    /// What must arrive, from the same seed but without a live world.
    pub fn arrivals(&self, seed: u64, seconds: f64) -> BTreeSet<RequestId> {
        let horizon = Time::ZERO + Span::from_ms(seconds * 1e3);
        Arrivals::new(self.case.clone(), seed, horizon).map(|r| r.id).collect()
    }

    /// The first requests of a run that was stopped after so many.
    pub fn first_arrivals(&self, n: usize) -> BTreeSet<RequestId> {
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
    pub fn new_worker(&self, known: &BTreeSet<u32>) -> Option<u32> {
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
pub fn totals(log: &RunLog, case: &Arc<Case>, arrived: &BTreeSet<RequestId>) -> Result<(), String> {
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
