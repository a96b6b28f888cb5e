//! Online learning beside live runs: lessons are really learned while requests are served, a killed run goes on from what it had saved, and
//! a state that cannot be used is refused before anything runs. Nothing here looks at latencies: the machine may be busy with anything.
#![cfg(feature = "train")]

mod bench;
mod support;

use bench::{Bench, PATIENCE, totals};
use cosched::agent::online::learner::{Report, Settings};
use cosched::agent::online::state::{State, load};
use cosched::env::case::Case;
use cosched::experiments::app::App;
use cosched::online::Options;
use cosched::session::RunOptions;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{Folder, app, judge};

/// Launches that a state has seen.
fn seen(state: &State) -> u32 {
    state.profile.processors.iter().map(|p| p.seen).sum()
}

fn state(path: &Path, case: &Case) -> State {
    load(path, case).unwrap().unwrap_or_else(|| panic!("{} is not there", path.display()))
}

/// A live run with lessons as short as a test needs them.
fn learn(bench: &Bench, path: Option<&Path>) -> Report {
    let settings =
        Settings { batch: 64, check_s: 0.2, scout_s: 1.0, margins: vec![0.0], ..Settings::default() };
    let online = Options { state: path.map(Path::to_owned), settings, ..Options::default() };
    let options = RunOptions { seconds: Some(3.0), online: Some(online), ..RunOptions::default() };
    let live = bench.run("learned:@40", options);
    totals(&live.log, &bench.case, &bench.arrivals(bench.app.seed, 3.0)).unwrap();
    live.online.expect("it learned")
}

/// Whether each of so many lessons was refused or published. While a baseline decides, which a slow machine may come to, none is.
fn check_judged(report: &Report, lessons: u64) {
    let counts = &report.counts;
    let judged = u64::from(counts.refused + counts.published);
    assert!(
        judged == lessons || (judged < lessons && counts.handed_over > 0),
        "{lessons} lessons: {report:?}"
    );
}

#[test]
fn lessons_are_learned_beside_a_live_run_and_kept() {
    let (bench, folder) = (Bench::new("learns"), Folder::new("learns"));
    let path = folder.0.join("state");
    let report = learn(&bench, Some(&path));
    // A lesson on trial holds the next ones up; a trial of 80 requests takes a third of a second.
    assert!(report.decisions > 500 && report.lessons >= 2, "{report:?}");
    check_judged(&report, report.lessons);
    let first = state(&path, &bench.case);
    assert!(seen(&first) > 100, "{} launches", seen(&first));
    assert_eq!(first.guard.counts, report.counts);
    let second = learn(&bench, Some(&path));
    let after = state(&path, &bench.case);
    assert!(seen(&after) > seen(&first) + 100, "{} launches after {}", seen(&after), seen(&first));
    check_judged(&second, report.lessons + second.lessons);
    // The saboteur: a run that is told of no state begins anew.
    let fresh = learn(&bench, None);
    check_judged(&fresh, fresh.lessons);
    assert_eq!(state(&path, &bench.case), after, "a run that was not told of the state has changed it");
}

#[test]
fn a_killed_run_goes_on_from_what_it_had_saved() {
    let folder = Folder::new("killed");
    folder.write(
        "app.toml",
        app().replace("period_ms = 20", "period_ms = 4").replace("seconds = 0.3", "seconds = 60"),
    );
    folder.good("profile app.toml", &[]);
    let case = App::read(&folder.0.join("app.toml")).unwrap().case().unwrap();
    let path = folder.0.join("state");
    let mut child =
        folder.start("run app.toml -p learned:@40 --online --learn-state state --learn-minutes 0.01");
    let begun = Instant::now();
    // What a reader finds is whole at any time.
    while load(&path, &case).unwrap().is_none_or(|s| seen(&s) < 200) {
        assert!(begun.elapsed() < PATIENCE, "nothing was saved");
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = state(&path, &case);
    folder.good("run app.toml -p learned:@40 --online --learn-state state --seconds 1", &[]);
    let after = state(&path, &case);
    assert!(seen(&after) > seen(&before) + 50, "{} launches after {}", seen(&after), seen(&before));
    let refused = |args: &str, says: &[&str]| {
        let ran = folder.run(args, &[], PATIENCE).unwrap();
        judge(&(args, 1, says), &ran).unwrap();
    };
    let whole = folder.read("state");
    folder.write("cut", &whole[..whole.len() / 2]);
    refused("run app.toml --online --learn-state cut", &["learn state cut", "truncated"]);
    refused(
        "run app.toml --online --learn-state nowhere/state",
        &["learn state nowhere/state", "No such file"],
    );
    folder.write("other.toml", app().replace("kws_small", "kws"));
    folder.good("profile other.toml", &[]);
    refused("run other.toml --online --learn-state state", &["learn state state", "another plan"]);
}

#[test]
fn what_cannot_learn_is_said() {
    let folder = Folder::new("unlearned");
    folder.write("app.toml", app());
    folder.refuses(&[
        ("run app.toml -p edf --online", 2, &["--online", "only the policy `learned`", "`edf`"]),
        ("run app.toml --learn-state x", 2, &["--online"]),
        ("run app.toml --online --learn-state x --learn-minutes 0", 2, &["--learn-minutes"]),
        ("run app.toml --online --record x", 2, &["--record"]),
    ]);
}
