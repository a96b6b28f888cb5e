//! Parts of the CPU as processors: what `[[processor]]` asks for is what the system says of the threads that compute. It refuses to time
//! anything. One test, because it looks at all threads of this process.
#![cfg(target_os = "linux")]

#[path = "support/apps.rs"]
mod apps;

use apps::keyword_app;
use cosched::env::case::Case;
use cosched::executors::affinity::allowed;
use cosched::experiments::app::App;
use cosched::session::{RunOptions, Session, SessionOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An app with two parts of the CPU: one core each, the second with two threads on all cores.
fn app(first: usize, all: &[usize]) -> App {
    let many = if all.len() > 1 { format!("cores = {all:?}") } else { String::new() };
    let head = format!(
        r#"name = "parts"
processors = ["one", "many"]
seconds = 1.0
[[processor]]
name = "one"
cores = [{first}]
[[processor]]
name = "many"
threads = 2
{many}
"#
    );
    let text = keyword_app(&head, "period_ms = 10\ndeadline_ms = 50\n");
    App::parse(&text, Path::new("parts.toml")).unwrap()
}

/// Name and cores of each thread of this process, as the system has them, by thread number.
fn threads() -> BTreeMap<String, (String, String)> {
    let mut found = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        // A thread may end while it is looked at.
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).ok();
        let Some((name, status)) = read("comm").zip(read("status")) else { continue };
        let cores = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        let number = task.file_name().to_string_lossy().into_owned();
        found.insert(number, (name.trim().to_owned(), cores.trim().to_owned()));
    }
    found
}

#[test]
fn threads_run_on_the_cores_that_were_asked_for() {
    let all = allowed();
    let last = all[all.len() - 1];
    let app = app(last, &all);
    let before: BTreeSet<String> = threads().into_keys().collect();
    let session = Session::open(&app, &SessionOptions::default(), &mut |_, _, _| {}).unwrap();
    // `many` has started a thread beside its caller's for each of its sessions; they may go wherever it may.
    let fresh = threads().into_iter().filter(|(number, _)| !before.contains(number)).count();
    assert!(fresh >= 1, "no thread was started for `many`");
    assert_eq!(allowed(), all, "opening moved the caller");
    let device = |p: usize| session.deployment.processors[p].device();
    assert!(device(0).ends_with(&format!("1 thread(s) on core(s) {last}")), "{}", device(0));
    assert!(device(1).contains("2 thread(s)"), "{}", device(1));

    let plan = session.profile(&app, &mut |_, _, _| {}).unwrap();
    assert_eq!(allowed(), all, "measuring moved the caller");
    assert_eq!((plan.processors[0].name.as_str(), plan.processors[0].active_watts), ("one", 4.0));
    let case = Arc::new(Case::new(plan, app.scenario()).unwrap());
    let ended = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !ended.load(Ordering::Relaxed) {
                seen.extend(threads().into_values());
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            seen
        });
        let live = session.run(&app, case, "fixed:one", RunOptions::default()).unwrap();
        ended.store(true, Ordering::Relaxed);
        assert!(live.log.ended.len() > 50, "{}", live.log.ended.len());
        watch.join().unwrap()
    });
    let of = |name: &str| seen.iter().filter(|(n, _)| n == name).map(|(_, c)| c.clone()).collect::<Vec<_>>();
    assert_eq!(of("processor one"), [last.to_string()], "{seen:?}");
    // The saboteur: a thread that nobody pinned is somewhere else, so the test can tell.
    if all.len() > 1 {
        assert_ne!(of("processor many"), [last.to_string()], "{seen:?}");
        let here = threads()[&std::process::id().to_string()].1.clone();
        assert_ne!(here, last.to_string());
    }
}

#[test]
fn parts_that_make_no_sense_are_named() {
    let base = "name = \"parts\"\n[[stream]]\ntask = \"t\"\nperiod_ms = 10\ndeadline_ms = 10\n";
    let wrong = |part: &str| {
        let text = format!("{base}[[processor]]\n{part}\n");
        App::parse(&text, Path::new("parts.toml")).unwrap_err().to_string()
    };
    for (part, words) in [
        ("name = \"a b\"", "processor[0].name: expected a name of letters"),
        ("name = \"a\"\nkind = \"gpu\"", "processor[0].kind: expected `cpu`"),
        (
            "name = \"a\"\ncores = [0, 0]",
            "processor[0].cores: expected core numbers below 1024, each once, got 0",
        ),
        ("name = \"a\"\nthreads = 2\ncores = [0]", "processor[0].threads: expected 1 to 1"),
        ("name = \"a\"\nthreads = 0", "processor[0].threads: expected 1 to 256"),
        ("name = \"a\"\nthread = 1", "thread"),
        ("name = \"a\"\n[[processor]]\nname = \"a\"", "processor[1].name"),
    ] {
        let error = wrong(part);
        assert!(error.contains("parts.toml:") && error.contains(words), "{part}: {error}");
    }
    let open = |name: &str, cores: &str| {
        let head = format!(
            "name = \"x\"\nprocessors = [\"{name}\"]\n[[processor]]\nname = \"{name}\"\ncores = {cores}\n"
        );
        let text = keyword_app(&head, "period_ms = 10\ndeadline_ms = 10\n");
        let app = App::parse(&text, Path::new("parts.toml")).unwrap();
        Session::open(&app, &SessionOptions::default(), &mut |_, _, _| {}).map(drop).unwrap_err().to_string()
    };
    let gone = open("far", "[1000]");
    assert!(
        gone.contains("`far` is not available: there is no core 1000 for this process; there are"),
        "{gone}"
    );
    let taken = open("wgpu", "[]");
    assert!(taken.contains("processor[0].name: a processor of this machine is called `wgpu`"), "{taken}");
}
