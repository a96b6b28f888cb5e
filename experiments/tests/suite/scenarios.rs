//! All device and scenario files of the repository: each loads, makes a case and runs; the committed plans say what the published
//! tables say. Some of the tables' rows stand here by hand, so that the script that writes the plans is not its own judge.

use cosched_env::event::{Ended, Event, RequestId};
use cosched_env::plan::Plan;
use cosched_env::time::Time;
use cosched_env::world::Observer;
use cosched_experiments::app::device::DeviceFile;
use cosched_experiments::app::{App, read_plan};
use cosched_experiments::compare::{Setup, emulate, from_table};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Files of a folder whose text has `mark` at the beginning of a line, sorted.
fn files(name: &str, mark: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(name)).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .filter(|p| std::fs::read_to_string(p).unwrap().lines().any(|l| l.starts_with(mark)))
        .collect();
    files.sort();
    files
}

/// How often each request arrived and ended.
#[derive(Clone, Default)]
struct Ends(BTreeMap<RequestId, (u32, u32)>);

impl Observer for Ends {
    fn event(&mut self, _: Time, event: &Event) {
        if let Event::Arrived(request) = event {
            self.0.entry(request.id).or_default().0 += 1;
        }
    }
    fn ended(&mut self, ended: &Ended) {
        self.0.entry(ended.request.id).or_default().1 += 1;
    }
}

impl Ends {
    /// The first request that did not arrive once and end once.
    fn wrong(&self) -> Option<(RequestId, (u32, u32))> {
        self.0.iter().map(|(id, counts)| (*id, *counts)).find(|(_, counts)| *counts != (1, 1))
    }
}

fn run(path: &Path) -> Ends {
    let app = App::read(path).unwrap_or_else(|e| panic!("{e}"));
    let setup = Setup::of(&app).unwrap_or_else(|e| panic!("{e}"));
    let mut policy = from_table("edf", &setup.case).unwrap();
    let mut ends = Ends::default();
    emulate(&Setup { seconds: 2.0, ..setup }, policy.as_mut(), 1, &mut ends)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    ends
}

#[test]
fn every_scenario_runs_and_ends_every_request_once() {
    let scenarios = files("scenarios", "[[stream]]");
    assert!(scenarios.len() >= 20, "only {} found", scenarios.len());
    for path in scenarios {
        let ends = run(&path);
        assert!(ends.0.len() >= 10, "{}: only {} requests in 2 s", path.display(), ends.0.len());
        assert_eq!(ends.wrong(), None, "{}, seed 1", path.display());
    }
}

/// The saboteurs: an end that is lost, one that is doubled, one of a request that never came.
#[test]
fn a_request_that_does_not_end_once_is_seen() {
    let good = run(&folder("scenarios/rk3588.toml"));
    for (arrived, ended) in [(1, 0), (1, 2), (0, 1)] {
        let mut bad = good.clone();
        let id = *bad.0.keys().nth(3).unwrap();
        bad.0.insert(id, (arrived, ended));
        assert_eq!(bad.wrong(), Some((id, (arrived, ended))));
    }
}

#[test]
fn every_device_says_where_its_numbers_come_from_and_has_a_scenario() {
    let devices = files("devices", "plan");
    assert!(devices.len() >= 8, "only {} found", devices.len());
    let used: BTreeSet<PathBuf> = files("scenarios", "device")
        .iter()
        .filter_map(|p| App::read(p).unwrap().device_file().unwrap())
        .map(|d| d.file.file_name().unwrap().into())
        .collect();
    for path in devices {
        let device = DeviceFile::read(&path).unwrap_or_else(|e| panic!("{e}"));
        read_plan(&device.plan_path()).unwrap_or_else(|e| panic!("{e}"));
        let says = |key: &str| device.source.keys().any(|k| k.starts_with(key));
        assert!(says("latency") || says("catalog"), "{}: no source", path.display());
        assert!(says("assumed"), "{}: nothing is marked as assumed", path.display());
        let name = PathBuf::from(path.file_name().unwrap());
        assert!(used.contains(&name), "{}: no scenario uses it", path.display());
    }
}

/// Files named in the lines of the split table that contain `word` in their last column.
fn split(word: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(folder("scenarios/README.md")).unwrap();
    let rows = text.lines().filter(|l| l.starts_with("| `"));
    let named = |l: &str| l.split('`').nth(1).unwrap_or_default().to_owned();
    rows.filter(|l| l.trim_end_matches([' ', '|']).ends_with(word)).map(named).collect()
}

#[test]
fn the_split_holds_back_devices_and_scenarios() {
    let (train, held) = (split("train"), split("held out"));
    let files: BTreeSet<String> = files("scenarios", "[[stream]]")
        .iter()
        .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        train.union(&held).cloned().collect::<BTreeSet<_>>(),
        files,
        "README.md and the folder differ"
    );
    assert!(train.is_disjoint(&held));
    assert!(held.len() * 3 >= files.len(), "{} of {} are held out", held.len(), files.len());
    let devices = |names: &BTreeSet<String>| -> BTreeSet<PathBuf> {
        names.iter().filter_map(|n| App::read(&folder("scenarios").join(n)).unwrap().device).collect()
    };
    let unseen = devices(&held).difference(&devices(&train)).count();
    assert!(unseen >= 3, "{unseen} devices are never trained on");
}

/// (device, processor, network) and the mean and slowest run that the table has, in ms, and the segments here.
type Spot = (&'static str, &'static str, &'static str, f64, f64, f64);

/// Copied by hand from ncnn_latency_ms.csv and qualcomm_aihub_latency_ms.csv (which gives one number: the second is 1.1 of it).
const SPOTS: &[Spot] = &[
    ("rk3588", "little", "squeezenet", 83.53, 83.63, 1.0),
    ("rk3588", "big", "resnet18", 61.05, 61.18, 2.0),
    ("rk3588", "gpu", "yolov4-tiny", 50.13, 50.73, 4.0),
    ("kirin970", "cpu", "resnet18", 73.45, 81.6, 2.0),
    ("kirin970", "gpu", "resnet50", 125.02, 125.9, 4.0),
    ("sd8gen2", "cpu", "resnet50", 18.94, 19.0, 4.0),
    ("sd8gen2", "gpu", "resnet50", 44.29, 44.4, 4.0),
    ("sd8gen2", "npu", "resnet50", 2.198, 2.198 * 1.1, 4.0),
    ("sd8gen2", "npu", "resnet50_int8", 0.767, 0.767 * 1.1, 4.0),
    ("sd855p", "gpu", "mobilenet_ssd", 29.25, 29.4, 3.0),
    ("orin", "gpu", "yolov4-tiny", 18.40, 28.8, 4.0),
    ("rpi5", "gpu", "resnet18", 304.58, 304.6, 2.0),
    ("rk3399", "little", "mobilenet_v3", 66.25, 92.9, 2.0),
    ("dimensity9300", "mid", "resnet50_int8", 15.20, 15.6, 4.0),
    ("xelite", "npu", "mobilenet_v3", 0.826, 0.826 * 1.1, 2.0),
    ("vim3", "gpu", "resnet50", 159.76, 160.1, 4.0),
    ("rb3gen2", "cpu", "yolov8_det-w8a8", 60.772, 60.772 * 1.1, 4.0),
    ("rb3gen2", "npu", "resnet_3d-w8a8", 19.807, 19.807 * 1.1, 3.0),
    ("mdinference", "server", "nasnet-large", 112.6, 112.6 * 1.1, 1.0),
    ("mdinference", "local", "squeezenet", 25.83, 27.98, 1.0),
];

/// What differs from the table by more than the rounding of the files (five digits) or of the slowest run as printed there.
fn differs(plan: &Plan, spot: &Spot) -> Option<String> {
    let (_, processor, network, mean, most, segments) = *spot;
    let column = plan.processors.iter().position(|p| p.name == processor)?;
    let Some(variant) = plan.variants.iter().find(|v| v.name == network) else {
        return Some(format!("no {network}"));
    };
    let sum = |f: fn(&cosched_env::plan::Cost) -> f64| -> f64 {
        variant.segments.iter().filter_map(|s| s.costs[column].as_ref().map(f)).sum::<f64>() / 1e3
    };
    let (own_mean, own_most) = (sum(|c| c.mean_us), sum(|c| c.p95_us));
    let near = |a: f64, b: f64, within: f64| (a - b).abs() <= within * b;
    let same = variant.segments.len() as f64 == segments
        && near(own_mean, mean, 1e-4)
        && (near(own_most, most, 1e-4) || (own_most - most).abs() <= 0.051);
    (!same)
        .then(|| format!("{network} on {processor}: {own_mean} / {own_most}, the table has {mean} / {most}"))
}

#[test]
fn the_plans_say_what_the_tables_say() {
    for spot in SPOTS {
        let plan = read_plan(&folder("devices").join(format!("{}.json", spot.0))).unwrap();
        assert_eq!(differs(&plan, spot), None, "{}", spot.0);
    }
    // The saboteur: a column that is not the one.
    let plan = read_plan(&folder("devices/rk3588.json")).unwrap();
    assert!(differs(&plan, &("rk3588", "gpu", "squeezenet", 83.53, 83.63, 1.0)).is_some());
}

/// Numbers of the NestDNN catalog, by hand: sizes, shared weights, and 2 ms + GFLOPs / 60 GFLOP/s on the GPU.
#[test]
fn nestdnn_is_its_catalog() {
    let plan = read_plan(&folder("devices/nestdnn.json")).unwrap();
    let of = |name: &str| plan.variants.iter().find(|v| v.name == name).unwrap();
    for (name, mb, accuracy, gpu_ms) in
        [("VC-5", 196.0, 0.883, 2.0 + 7400.0 / 60.0), ("VS-1", 0.72, 0.944, 2.0 + 40.0 / 60.0)]
    {
        let v = of(name);
        assert_eq!((v.memory_bytes, v.accuracy), ((mb * 1e6) as u64, accuracy), "{name}");
        assert_eq!(v.weights.as_deref(), Some(&name[..2]));
        let us: f64 = v.segments.iter().map(|s| s.costs[1].unwrap().mean_us).sum();
        assert!((us / 1e3 - gpu_ms).abs() < 0.01, "{name}: {us} us, expected {gpu_ms} ms");
    }
    assert_eq!(plan.variants.len(), 30);
}
