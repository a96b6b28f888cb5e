//! Live against emulated: errors and medians by hand, and one real pair of runs on the cpu. Nothing here judges how large an error is:
//! the machine may be busy with anything.

#[path = "support/apps.rs"]
mod apps;

use apps::keyword_app;
use cosched::experiments::app::App;
use cosched::experiments::summary::{Group, Requests, Summary};
use cosched::fidelity::{Fidelity, Launches, Pair, pair, rows};
use cosched::session::{RunOptions, Session, SessionOptions};

/// A summary of tasks `a` and `b`: (on time of 100, mean, p95 in milliseconds).
fn summary(tasks: [(u64, Option<f64>, Option<f64>); 2]) -> Summary {
    let requests = |(on_time, mean_ms, p95_ms)| Requests {
        requests: 100,
        on_time,
        mean_ms,
        p95_ms,
        ..Requests::default()
    };
    let groups =
        ["a", "b"].iter().zip(tasks).map(|(name, t)| Group { name: (*name).into(), requests: requests(t) });
    let tasks: Vec<Group> = groups.collect();
    Summary {
        name: "made up".into(),
        seconds: 1.0,
        decisions: 0,
        streams: tasks.clone(),
        processors: Vec::new(),
        total: tasks[0].requests.clone(),
        tasks,
        fairness: 1.0,
    }
}

fn near(a: Option<f64>, b: f64) -> bool {
    a.is_some_and(|a| (a - b).abs() < 1e-12)
}

#[test]
fn errors_by_hand() {
    let live = summary([(90, Some(10.0), Some(20.0)), (0, None, None)]);
    let emulated = summary([(95, Some(11.0), Some(18.0)), (3, Some(5.0), Some(5.0))]);
    let found = rows(&live, &emulated);
    assert_eq!(found.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["a", "b", "all"]);
    assert!(near(found[0].mean_error, 0.1) && near(found[0].p95_error, -0.1), "{:?}", found[0]);
    assert!(near(Some(found[0].on_time_error), 0.05) && near(Some(found[1].on_time_error), 0.03));
    // Where nothing was answered there is no error, and it is not 0.
    assert_eq!((found[1].mean_error, found[1].p95_error), (None, None));
    assert_eq!(found[2].mean_error, found[0].mean_error);
    // The saboteur: the two worlds exchanged are another error.
    let exchanged = rows(&emulated, &live);
    assert!(near(exchanged[0].mean_error, 10.0 / 11.0 - 1.0) && !near(exchanged[0].mean_error, -0.1));
}

#[test]
fn medians_by_hand() {
    let one = |seed: u64, live: f64, emulated: f64| Pair {
        seed,
        rows: rows(
            &summary([(90, Some(live), Some(20.0)), (0, None, None)]),
            &summary([(90, Some(emulated), Some(20.0)), (0, None, None)]),
        ),
        live: Launches { per_request: 1.0, begin_us: seed as f64, run_us: 5.0 },
        emulated: Launches::default(),
        decision_us: 2.0,
    };
    // Errors: +50 %, -10 %, 0; the median is 0, and not the error of the medians (10 and 11).
    let pairs = vec![one(1, 10.0, 15.0), one(2, 20.0, 18.0), one(3, 10.0, 10.0)];
    let fidelity = Fidelity::of("x", "edf", 1.0, pairs.clone()).unwrap();
    let a = &fidelity.rows[0];
    assert!(near(a.mean_error, 0.0) && near(a.live.mean_ms, 10.0) && near(a.emulated.mean_ms, 15.0), "{a:?}");
    assert_eq!((a.live.requests, fidelity.rows[1].mean_error), (100, None));
    assert_eq!((fidelity.live.begin_us, fidelity.decision_us), (2.0, 2.0));
    let two = Fidelity::of("x", "edf", 1.0, pairs[..2].to_vec()).unwrap();
    assert!(near(two.rows[0].mean_error, 0.2), "the mean of the two middle ones: {:?}", two.rows[0]);
    assert_eq!(Fidelity::of("x", "edf", 1.0, Vec::new()), None);
}

/// A small model on the cpu, asked often enough that answers come.
fn app() -> App {
    let head = "name = \"fidelity\"\nprocessors = [\"cpu\"]\nseconds = 0.5\n[segments]\nmax = 2\n";
    let text = keyword_app(head, "period_ms = 10\ndeadline_ms = 10\nexpire_ms = 5000\n");
    App::parse(&text, "fidelity.toml".as_ref()).unwrap()
}

#[test]
fn a_live_run_has_its_emulated_twin() {
    let app = app();
    let session = Session::open(&app, &SessionOptions::default(), &mut |_, _, _| {}).unwrap();
    let plan = session.profile(&app, &mut |_, _, _| {}).unwrap();
    assert!(plan.processors[0].launch_us > 0.0, "handing over costs nothing");
    let case = app.case_of(plan).unwrap();
    let one = |seed: u64| {
        let options = RunOptions { seed: Some(seed), ..RunOptions::default() };
        pair(&session, &app, &case, "edf", options).unwrap()
    };
    let found = one(5);
    assert_eq!(found.rows.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["keyword", "all"]);
    for row in &found.rows {
        assert_eq!((row.live.requests, row.emulated.requests), (50, 50), "not the same streams");
        assert!(row.mean_error.unwrap().is_finite() && row.p95_error.unwrap().is_finite(), "{row:?}");
    }
    assert!(found.live.run_us > 0.0 && found.live.begin_us > 0.0 && found.decision_us > 0.0);
    assert!(found.emulated.run_us > 0.0 && found.emulated.per_request >= 1.0);
    let text = serde_json::to_string(&Fidelity::of("x", "edf", 0.5, vec![found]).unwrap()).unwrap();
    assert!(serde_json::from_str::<Fidelity>(&text).is_ok());
    // Emulated runs of one plan and seed are one and the same, whatever the live ones were.
    assert_eq!(one(6).emulated, one(6).emulated);
}
