//! The profile: what still holds is kept and only the rest is measured, a plan of other weights is refused, runs go on until the mean is
//! known, three processors are measured together, and power comes from counters where there are any. It refuses to judge the numbers.

mod support;

use cosched::env::plan::Plan;
use cosched::executors::measure::cpu_ms;
use cosched::executors::profile::{Options, Power, Update, update};
use cosched::executors::zoo;
use cosched::experiments::app::App;
use cosched::session::{Session, SessionOptions};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use support::{Folder, LIMIT, app, judge};

/// One test at a time measures.
static MEASURING: Mutex<()> = Mutex::new(());

/// Quick enough for tests.
fn quick() -> Options {
    let ms = Duration::from_millis;
    Options {
        warm_up: 1,
        least_runs: 4,
        most_runs: 8,
        budget: ms(10),
        pair: ms(10),
        power: ms(300),
        powercap: "/nowhere".into(),
        ..Options::default()
    }
}

fn assumed(_: &str) -> Power {
    Power { active: None, idle: None, assumed: (4.0, 0.4) }
}

/// A folder with the models `a.onnx` and `b.onnx` of these seeds, and an app of them on three parts of the CPU.
fn session(folder: &Folder, seeds: [u64; 2], threads: u32) -> Session {
    let mut text = "name = \"profiled\"\nprocessors = [\"one\", \"two\", \"three\"]\n".to_owned();
    for (name, threads) in [("one", 1), ("two", 1), ("three", threads)] {
        text += &format!("[[processor]]\nname = \"{name}\"\nthreads = {threads}\n");
    }
    for (name, seed) in ["a", "b"].into_iter().zip(seeds) {
        let options = zoo::Options { seed, ..zoo::Options::default() };
        folder.write(&format!("{name}.onnx"), zoo::bytes("kws_small", &options).unwrap());
        let path = folder.0.join(format!("{name}.onnx"));
        text += &format!(
            "[[task]]\nname = \"{name}\"\n[[task.variant]]\nname = \"{name}\"\nmodel = {path:?}\naccuracy = 0.9\n[[stream]]\ntask = \"{name}\"\nperiod_ms = 10\ndeadline_ms = 50\n"
        );
    }
    let app = App::parse(&text, &folder.0.join("app.toml")).unwrap();
    Session::open(&app, &SessionOptions::default(), &mut |_, _, _| {}).unwrap()
}

fn updated(session: &Session, previous: Option<&Plan>) -> Update {
    update(&session.deployment, previous, &quick(), &assumed, &mut |_, _, _| {}).unwrap()
}

#[test]
fn only_what_changed_is_measured_again() {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Folder::new("update");
    let first = session(&folder, [1, 2], 2);
    let Update { plan, measured, kept } = updated(&first, None);
    assert_eq!((measured.len(), kept.len()), (4, 0), "{measured:?}");
    assert_eq!(first.fits(&plan), Ok(()));

    // Nothing has changed. Numbers that were measured again would not be the same.
    let again = updated(&first, Some(&plan));
    assert!(again.measured.is_empty() && again.plan == plan, "{:?}", again.measured);
    assert_eq!(again.kept.len(), 4, "{:?}", again.kept);
    // The saboteur: nothing at all is kept, and everything differs.
    let fresh = updated(&first, None).plan;
    assert!(fresh.variants[0].segments[0].costs[0] != plan.variants[0].segments[0].costs[0]);
    assert!(fresh.contention != plan.contention);

    // Other weights in the same shapes: refused, and measured again on all processors, and nothing else.
    let weights = session(&folder, [3, 2], 2);
    let problem = weights.fits(&plan).unwrap_err();
    assert!(problem.contains("`a`") && problem.contains("layers or weights have changed"), "{problem}");
    let update = updated(&weights, Some(&plan));
    assert_eq!(update.measured.len(), 1, "{:?}", update.measured);
    assert!(
        update.measured[0].starts_with("`a` on one, two, three: its layers or weights"),
        "{:?}",
        update.measured
    );
    assert_eq!(update.plan.variants[1], plan.variants[1]);
    assert_eq!((&update.plan.contention, &update.plan.processors), (&plan.contention, &plan.processors));
    assert_eq!(weights.fits(&update.plan), Ok(()));
    // The saboteurs: it is the digest that tells; one that is missing is refused too.
    let mut lied = plan.clone();
    lied.variants[0].model.clone_from(&update.plan.variants[0].model);
    assert_eq!(weights.fits(&lied), Ok(()));
    lied.variants[0].model = None;
    assert!(weights.fits(&lied).unwrap_err().contains("does not say of which model"));

    // Another device: all models there, and the pairs and triples that it takes part in.
    let device = session(&folder, [1, 2], 1);
    assert!(device.fits(&plan).unwrap_err().contains("it was made for the processors"));
    let update = updated(&device, Some(&plan));
    let says = |what: &str| update.measured.iter().any(|m| m.starts_with(what));
    assert!(says("`a` on three: three was `") && says("`b` on three: three was `"), "{:?}", update.measured);
    assert!(says("slow-downs of 4 pairs") && says("slow-downs of 3 triples"), "{:?}", update.measured);
    assert!(update.kept.contains(&"slow-downs of 2 pairs of processors".into()), "{:?}", update.kept);
    for (new, old) in update.plan.variants.iter().zip(&plan.variants) {
        let costs = |v: &cosched::env::plan::Variant| v.segments[0].costs.clone();
        assert_eq!((&costs(new)[..2], new.measured[1]), (&costs(old)[..2], old.measured[1]));
        assert_ne!(costs(new)[2], costs(old)[2]);
    }
    assert_eq!(update.plan.contention[0][1], plan.contention[0][1]);
}

#[test]
fn runs_go_on_until_the_mean_is_known_or_the_time_is_up() {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Folder::new("confidence");
    let session = session(&folder, [1, 2], 2);
    let with = |within: f64, budget: Duration| {
        let options = Options { within, budget, ..quick() };
        let plan = update(&session.deployment, None, &options, &assumed, &mut |_, _, _| {}).unwrap().plan;
        plan.variants.iter().flat_map(|v| v.measured.iter().map(|m| m.unwrap())).collect::<Vec<_>>()
    };
    let long = Duration::from_secs(10);
    // The fewest where anything will do, or where there is no time; the most where nothing will.
    assert!(with(1e9, long).iter().all(|m| m.runs == 4));
    assert!(with(0.0, Duration::ZERO).iter().all(|m| m.runs == 4));
    let most = with(0.0, long);
    for m in &most {
        let [p50, p95, p99] = m.quantiles_us.unwrap();
        assert!(m.runs == 8 && m.within > 0.0 && p50 > 0.0 && p50 <= p95 && p95 <= p99, "{m:?}");
        assert!(m.load_ms > 0.0 && m.memory_bytes > 10_000, "{m:?}");
    }
}

#[test]
fn three_processors_are_measured_together() {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Folder::new("triples");
    let session = session(&folder, [1, 2], 2);
    let plan = updated(&session, None).plan;
    let names: Vec<_> = plan.processors.iter().map(|p| p.name.clone()).collect();
    for (i, p) in plan.processors.iter().enumerate() {
        let crowd = p.crowd.as_ref().unwrap();
        let [triple] = &crowd.triples[..] else { panic!("{crowd:?}") };
        assert!(triple.factor >= 1.0 && !triple.with.contains(&p.name), "{triple:?}");
        // One triple is met exactly: by hand from the two pairs.
        let pair = |name: &String| plan.contention[i][names.iter().position(|n| n == name).unwrap()];
        let added_up = pair(&triple.with[0]) + pair(&triple.with[1]) - 1.0;
        let counts =
            if triple.factor > 3.0_f64.max(added_up) { 3.0_f64.max(added_up) } else { triple.factor };
        assert!((crowd.added - (counts - added_up)).abs() < 1e-9, "{crowd:?}");
    }
}

/// A RAPL counter as Linux shows it: 5 W always, and 10 J for each second that this process computes.
fn feed(folder: &std::path::Path, stop: &AtomicBool) {
    let (begun, cpu) = (Instant::now(), cpu_ms());
    while !stop.load(Ordering::Relaxed) {
        let joules = 5.0 * begun.elapsed().as_secs_f64() + 10.0 * (cpu_ms() - cpu) / 1e3;
        // In one piece: who reads must never find half a number. It begins near the end of its range, and over again.
        let uj = (999_500_000.0 + joules * 1e6) as u64 % 1_000_000_000;
        std::fs::write(folder.join("next"), format!("{uj}\n")).unwrap();
        std::fs::rename(folder.join("next"), folder.join("energy_uj")).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn power_comes_from_the_counter_unless_somebody_gives_it() {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Folder::new("power");
    let session = session(&folder, [1, 2], 1);
    let powercap: PathBuf = folder.0.join("powercap");
    let zone = powercap.join("intel-rapl:0");
    std::fs::create_dir_all(&zone).unwrap();
    std::fs::write(zone.join("name"), "package-0\n").unwrap();
    std::fs::write(zone.join("max_energy_range_uj"), "1000000000\n").unwrap();
    std::fs::write(zone.join("energy_uj"), "999500000\n").unwrap();
    let options = Options { powercap, ..quick() };
    let given = |name: &str| if name == "two" { Power::given((7.0, 1.0)) } else { assumed(name) };
    let (stop, deployment) = (AtomicBool::new(false), &session.deployment);
    let plan = std::thread::scope(|scope| {
        scope.spawn(|| feed(&zone, &stop));
        let measured = update(deployment, None, &options, &given, &mut |_, _, _| {});
        stop.store(true, Ordering::Relaxed);
        measured.unwrap().plan
    });
    let source = |plan: &Plan, name: &str| plan.provenance[&format!("power {name}")].clone();
    for p in [0, 2] {
        let spec = &plan.processors[p];
        assert_eq!(source(&plan, &spec.name), "measured by RAPL package-0 beside idle");
        // Both share what the package takes while nothing runs; a busy thread takes up to 10 W more, on a busy machine less.
        let (idle, above) = (spec.idle_watts, spec.active_watts - spec.idle_watts);
        assert!((2.4..4.5).contains(&idle) && (2.0..12.0).contains(&above), "{spec:?}");
        let cost = plan.variants[0].segments[0].costs[p].unwrap();
        assert!((cost.energy_mj - spec.active_watts * cost.mean_us / 1e3).abs() < 1e-9);
    }
    let two = &plan.processors[1];
    assert_eq!((two.active_watts, two.idle_watts), (7.0, 1.0));
    assert_eq!(source(&plan, "two"), "app file");
    // What was measured is kept, also where the counter is gone; what is given now wins.
    let gone = Options { powercap: "/nowhere".into(), ..quick() };
    let later = update(deployment, Some(&plan), &gone, &given, &mut |_, _, _| {}).unwrap();
    assert!(later.plan == plan && later.measured.is_empty());
    assert!(later.kept.contains(&"power of one, three".into()), "{:?}", later.kept);
    // Half of it may be given: the other half stays as it was measured, and stays so.
    let half = |name: &str| Power { active: Some(9.0), ..given(name) };
    let mixed = update(deployment, Some(&plan), &gone, &half, &mut |_, _, _| {}).unwrap().plan;
    assert_eq!(source(&mixed, "one"), "app file (active), measured by RAPL package-0 beside idle");
    assert_eq!(mixed.processors[0].idle_watts, plan.processors[0].idle_watts);
    let again = update(deployment, Some(&mixed), &gone, &half, &mut |_, _, _| {}).unwrap();
    assert!(again.plan == mixed && again.measured.is_empty(), "{:?}", again.measured);
    let all = |_: &str| Power::given((2.0, 0.5));
    let later = update(deployment, Some(&plan), &gone, &all, &mut |_, _, _| {}).unwrap().plan;
    let cost = later.variants[0].segments[0].costs[0].unwrap();
    assert!((cost.energy_mj - 2.0 * cost.mean_us / 1e3).abs() < 1e-9);
    // The saboteur: without a counter it is assumed, and the plan says why.
    let fresh = update(deployment, None, &gone, &given, &mut |_, _, _| {}).unwrap().plan;
    assert_eq!((fresh.processors[0].active_watts, fresh.processors[0].idle_watts), (4.0, 0.4));
    assert!(source(&fresh, "one").starts_with("assumed (RAPL: /nowhere"), "{}", source(&fresh, "one"));
}

#[test]
fn the_command_says_what_it_keeps_and_a_plan_of_other_weights_is_refused() {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Folder::new("command");
    let model = |seed| zoo::bytes("kws_small", &zoo::Options { seed, ..zoo::Options::default() }).unwrap();
    folder.write("m.onnx", model(1));
    folder.write("app.toml", app().replace("zoo:kws_small", "m.onnx"));
    let ran = folder.good("profile app.toml --update", &[]);
    assert!(ran.err.contains("there is no plan yet") && ran.err.contains("measured: `"), "{}", ran.err);
    for words in ["Mean latency in ms", "p99 ms", "load ms", "Watts while running", "plan written to"] {
        assert!(ran.out.contains(words), "`{words}` is not in: {}", ran.out);
    }
    let plan = folder.read("plan.json");
    let ran = folder.good("profile app.toml --update", &[]);
    assert!(ran.err.contains("nothing has changed: nothing was measured"), "{}", ran.err);
    assert!(ran.err.contains("kept: `") && folder.read("plan.json") == plan, "{}", ran.err);
    folder.good("run app.toml -p edf", &[]);
    // The same shapes with other weights.
    folder.write("m.onnx", model(2));
    let says: &[&str] = &["plan.json", "layers or weights have changed", "cosched profile --update"];
    let refused = |args: &str| judge(&(args, 1, says), &folder.run(args, &[], LIMIT).unwrap()).unwrap();
    refused("run app.toml -p edf");
    let ran = folder.good("profile app.toml --update", &[]);
    assert!(ran.err.contains("on cpu: its layers or weights have changed"), "{}", ran.err);
    assert!(folder.read("plan.json") != plan);
    folder.good("run app.toml -p edf", &[]);
    // Power of the app file needs no measurement.
    let text = String::from_utf8(folder.read("app.toml")).unwrap();
    folder.write("app.toml", format!("{text}[power.cpu]\nactive_watts = 9.0\n"));
    let ran = folder.good("profile app.toml --update", &[]);
    assert!(ran.err.contains("nothing was measured") && ran.out.contains("plan written to"), "{}", ran.err);
    assert!(ran.out.contains("app file (active)"), "{}", ran.out);
}
