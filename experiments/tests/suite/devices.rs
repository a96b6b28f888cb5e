//! Device files and trace files: what an app file that names them gets, and what every mistake in them says.

use crate::fixture::{APP, folder};
use cosched_experiments::app::App;
use cosched_experiments::app::device::DeviceFile;
use cosched_experiments::compare::Setup;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

const DEVICE: &str = r#"
name = "board"
about = "A board"
plan = "plan.json"
failure_rate = 0.5

[source]
latency = "imagined"

[bandwidth]
curve = [[4.0, 4.0], [10.0, 7.0]]

[thermal]
ambient_c = 25.0
kelvin_per_watt = 5.0
time_constant_s = 30.0
trip_c = 60.0
hysteresis_c = 5.0
poll_ms = 100.0

[processor.cpu]
peak_gbps = 3.0
memory_mb = 64.0
frequencies = [{ mhz = 1000.0, speed = 1.0, power = 1.0 }]

[processor.gpu.link]
sigma = 0.3

[[processor.gpu.link.phase]]
from_ms = 0.0
round_trip_ms = 2.0
mbps = 100.0

[[fault]]
processor = "gpu"
from_ms = 10.0
to_ms = 20.0
"#;

/// A folder with `board.toml` (with one text replaced) and `small.toml`, which names it.
fn with(name: &str, old: &str, new: &str) -> PathBuf {
    assert!(DEVICE.contains(old), "the fixture has no `{old}`");
    let folder = folder(&format!("device-{name}"));
    std::fs::write(folder.join("board.toml"), DEVICE.replacen(old, new, 1)).unwrap();
    let app = APP.replacen("plan = \"plan.json\"", "device = \"board.toml\"", 1);
    std::fs::write(folder.join("small.toml"), app).unwrap();
    folder
}

fn setup(folder: &std::path::Path) -> Result<Setup, String> {
    let app = App::read(&folder.join("small.toml")).map_err(|e| e.to_string())?;
    Setup::of(&app).map_err(|e| e.to_string())
}

#[test]
fn an_app_gets_all_that_its_device_file_says() {
    let folder = with("whole", "name", "name");
    let text = std::fs::read_to_string(folder.join("small.toml")).unwrap();
    let more =
        "[emulator]\nfailure_rate = 0.2\n[[emulator.faults]]\nprocessor = 'cpu'\nfrom_ms = 1\nto_ms = 2\n";
    std::fs::write(folder.join("small.toml"), format!("{text}{more}")).unwrap();
    let setup = setup(&folder).unwrap();
    let device = DeviceFile::read(&folder.join("board.toml")).unwrap();
    assert_eq!(setup.case.device, device.device());
    assert_eq!(setup.case.device.bandwidth.as_ref().unwrap().curve[1], [10.0, 7.0]);
    assert_eq!(setup.case.device.thermal.unwrap().trip_c, 60.0);
    assert_eq!(setup.case.processors[0].capacity, Some(64_000_000));
    assert_eq!(setup.case.processors[1].model.link.as_ref().unwrap().phases[0].mbps, 100.0);
    // 1 - (1 - 0.2) (1 - 0.5)
    assert!((setup.emulator.failure_rate - 0.6).abs() < 1e-12, "{}", setup.emulator.failure_rate);
    let faults: Vec<_> = setup.emulator.faults.iter().map(|f| (f.processor.as_str(), f.from_ms)).collect();
    assert_eq!(faults, [("cpu", 1.0), ("gpu", 10.0)]);
}

#[test]
fn processors_that_an_app_leaves_out_are_left_out_of_its_device() {
    let folder = with("chosen", "name", "name");
    let text = std::fs::read_to_string(folder.join("small.toml")).unwrap();
    std::fs::write(folder.join("small.toml"), text.replacen("seconds = 5", "processors = ['cpu']", 1))
        .unwrap();
    let setup = setup(&folder).unwrap();
    assert_eq!(setup.case.device.processors.keys().collect::<Vec<_>>(), ["cpu"]);
}

#[test]
fn mistakes_in_a_device_file_are_named_with_file_line_and_key() {
    let table = [
        ("trip_c", "trap_c", "board.toml:17:1: unknown key `trap_c` in [thermal]; did you mean `trip_c`?"),
        (
            "peak_gbps",
            "peek_gbps",
            "board.toml:22:1: unknown key `peek_gbps` in [processor.cpu]; did you mean `peak_gbps`?",
        ),
        (
            "mbps = 100.0",
            "mpbs = 100.0",
            "board.toml:32:1: unknown key `mpbs` in [[processor.gpu.link.phase]]; did you mean `mbps`?",
        ),
        (
            "[source]",
            "[sauce]",
            "board.toml:7:2: unknown key `sauce` in the top level; did you mean `source`?",
        ),
        ("plan = \"plan.json\"\n", "", "board.toml:1:1: missing key `plan` in the file"),
        (
            "mbps = 100.0",
            "mbps = 0.0",
            "board.toml:32:1: processor.gpu.link.phase[0].mbps: expected a number above 0",
        ),
        (
            "poll_ms = 100.0",
            "poll_ms = 0",
            "board.toml:19:1: thermal.poll_ms: expected a number of at least 0.001",
        ),
        (
            "[10.0, 7.0]",
            "[10.0, 17.0]",
            "board.toml:11:22: bandwidth.curve[1]: expected above 0, and no more got",
        ),
        (
            "failure_rate = 0.5",
            "failure_rate = 2",
            "board.toml:5:1: failure_rate: expected a number from 0 to 1",
        ),
        ("to_ms = 20.0", "to_ms = 10.0", "board.toml:37:1: fault[0].to_ms: expected a time after from_ms"),
        (
            "processor = \"gpu\"",
            "processor = \"gpx\"",
            "board.toml:35:1: fault[0].processor: the plan has no processor `gpx`; did you mean `gpu`?",
        ),
        (
            "[processor.cpu]",
            "[processor.cpv]",
            "board.toml:21:12: processor.cpv: the plan has no processor `cpv`; did you mean `cpu`?",
        ),
        ("plan = \"plan.json\"", "plan = \"plain.json\"", "plain.json: no such plan"),
        ("memory_mb = 64.0", "memory_mb = 1.0", ""),
    ];
    for (i, (old, new, expected)) in table.into_iter().enumerate() {
        let result = setup(&with(&format!("mistake{i}"), old, new));
        match result {
            // What fits in the other processor is no mistake.
            Ok(_) => assert_eq!(expected, "", "accepted: {new}"),
            Err(error) => assert!(
                !expected.is_empty() && error.contains(expected),
                "{new}: {error}\nexpected {expected}"
            ),
        }
    }
}

#[test]
fn a_device_and_a_plan_exclude_each_other() {
    let folder = with("both", "name", "name");
    let text = std::fs::read_to_string(folder.join("small.toml")).unwrap();
    std::fs::write(folder.join("small.toml"), text.replacen("device =", "plan = 'plan.json'\ndevice =", 1))
        .unwrap();
    let error = setup(&folder).unwrap_err();
    assert!(error.contains("small.toml:3:1: plan: `device` names the plan already; expected one"), "{error}");
    std::fs::write(folder.join("small.toml"), text.replacen("board.toml", "bord.toml", 1)).unwrap();
    let error = setup(&folder).unwrap_err();
    assert!(error.ends_with("bord.toml: no such file"), "{error}");
}

#[test]
fn a_sweep_goes_over_devices() {
    let folder = with("sweep", "failure_rate = 0.5", "failure_rate = 0.0");
    let hard = DEVICE.replacen("failure_rate = 0.5", "failure_rate = 0.9", 1);
    std::fs::write(folder.join("hard.toml"), hard).unwrap();
    let text = "base = 'small.toml'\npolicies = ['edf']\nseeds = 1\n[grid]\ndevice = ['board.toml', 'hard.toml', 'none.toml']\n";
    std::fs::write(folder.join("sweep.toml"), text).unwrap();
    let error = crate::sweep::read(&folder.join("sweep.toml")).map(|s| s.name).unwrap_err().to_string();
    assert!(
        error.contains("sweep.toml:5:1: grid key `device`: ") && error.ends_with("none.toml: no such file"),
        "{error}"
    );
    std::fs::write(folder.join("sweep.toml"), text.replace(", 'none.toml'", "")).unwrap();
    let sweep = crate::sweep::read(&folder.join("sweep.toml")).unwrap();
    let failed = |cell: usize| {
        let outcome = sweep.kind.run(&sweep.cells[cell].spec, &AtomicBool::new(false).into()).unwrap();
        let all = outcome.rows.iter().find(|r| r.stream == "all").unwrap();
        assert_eq!(all.device, ["board", "hard"][cell]);
        all.numbers["failed"] / all.numbers["requests"]
    };
    assert!(failed(0) < 0.05 && failed(1) > 0.1, "{} {}", failed(0), failed(1));
}

const TRACED: &str = "name = 'traced'\nplan = 'plan.json'\n[[stream]]\ntask = 'see'\nkind = 'trace'\ntrace = 'times.csv'\ndeadline_ms = 30\n";

fn traced(name: &str, times: &str, app: &str) -> Result<App, String> {
    let folder = folder(&format!("trace-{name}"));
    std::fs::write(folder.join("times.csv"), times).unwrap();
    std::fs::write(folder.join("traced.toml"), app).unwrap();
    App::read(&folder.join("traced.toml")).map_err(|e| e.to_string())
}

#[test]
fn a_trace_is_read_from_its_file_and_survives_a_round_trip() {
    let app = traced("good", "# from a camera\narrival_ms\n1.5\n\n 2 # two\n2\n70.25\n", TRACED).unwrap();
    assert_eq!(app.streams[0].times_ms, [1.5, 2.0, 2.0, 70.25]);
    let case = app.case().unwrap();
    assert_eq!(case.streams[0].times.len(), 4);
    let text = toml::to_string(&app).unwrap();
    assert_eq!(App::parse(&text, &app.file).unwrap(), app);
    // A sweep reads another trace, and its load presses it together.
    let folder = app.file.parent().unwrap();
    std::fs::write(folder.join("other.csv"), "8\n16\n").unwrap();
    let sweep = "base = 'traced.toml'\npolicies = ['edf']\n[grid]\n'stream.0.trace' = ['times.csv', 'other.csv']\nload = [2.0]\n";
    std::fs::write(folder.join("sweep.toml"), sweep).unwrap();
    let sweep = crate::sweep::read(&folder.join("sweep.toml")).unwrap();
    let times = |cell: usize| sweep.cells[cell].spec.config["stream"][0]["times_ms"].clone();
    assert_eq!(times(0), serde_json::json!([0.75, 1.0, 1.0, 35.125]));
    assert_eq!(times(5), serde_json::json!([4.0, 8.0]));
}

#[test]
fn mistakes_in_a_trace_are_named_with_file_and_line() {
    let table = [
        ("1\ntwo\n3\n", "times.csv:2:1: expected one arrival in milliseconds, got `two`"),
        ("1,2\n", "times.csv:1:1: expected one arrival in milliseconds, got `1,2`"),
        ("ms\nms\n1\n", "times.csv:2:1: expected one arrival in milliseconds, got `ms`"),
        ("1\n-1\n", "times.csv:2:1: expected one arrival in milliseconds, got `-1`"),
        ("1\ninf\n", "times.csv:2:1: expected one arrival in milliseconds, got `inf`"),
        ("5\n# back\n4\n", "times.csv:3:1: expected ascending times, got 4 after 5"),
        ("# nothing\n", "times.csv: expected at least one arrival in milliseconds"),
    ];
    for (i, (times, expected)) in table.into_iter().enumerate() {
        let error = traced(&format!("bad{i}"), times, TRACED).map(|_| times).unwrap_err();
        assert!(error.ends_with(expected), "{error}\nexpected {expected}");
    }
    let table = [
        ("trace = 'times.csv'", "trace = 'tims.csv'", "traced.toml:6:1: stream[0].trace: no such file: "),
        (
            "kind = 'trace'",
            "period_ms = 5",
            "traced.toml:6:1: stream[0].trace: only a stream of kind `trace`",
        ),
        (
            "trace = 'times.csv'",
            "trace = 'times.csv'\ntimes_ms = [2.0]",
            "stream[0].trace: times_ms says otherwise",
        ),
    ];
    for (i, (old, new, expected)) in table.into_iter().enumerate() {
        let error =
            traced(&format!("app{i}"), "1\n", &TRACED.replacen(old, new, 1)).map(|_| new).unwrap_err();
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
}
