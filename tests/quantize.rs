//! `cosched quantize`, and what `[dsp]` and `samples` of an app file do: the file that is written, its losses, the plans that are refused,
//! mistakes by file and key. The arithmetic is tested in `executors/tests/dsp_*.rs`.

mod support;

use cosched::executors::{cpu, onnx};
use cosched::experiments::app::App;
use cosched::session::{Session, SessionOptions};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use support::Folder;
use support::apps::keyword_app;

/// Numbers in a file as NumPy writes it.
fn npy(shape: &[usize], number: impl Fn(usize) -> f32) -> Vec<u8> {
    let shape_text: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape_text}), }}");
    let header = format!("{header:117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    (0..shape.iter().product()).for_each(|i| bytes.extend(number(i).to_le_bytes()));
    bytes
}

/// Samples of the keyword network: one pattern or another, with some noise.
fn frames(folder: &Folder, name: &str, count: usize) {
    let noise = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7 & 1023) as f32 / 512.0 - 1.0;
    let number = |i: usize| noise(i) + ((i / 490 * 7 + i) % 13) as f32 / 6.0;
    folder.write(name, npy(&[count, 1, 49, 10], number));
}

#[test]
fn a_model_is_written_in_int8_with_its_losses() {
    let folder = Folder::new("quantize");
    frames(&folder, "frames.npy", 12);
    let args = "quantize zoo:kws --samples frames.npy --method percentile --percentile 99.9 --compare -o kws8.onnx --json";
    let ran = folder.good(args, &[]);
    assert!(!ran.err.contains("note:"), "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&report["calibrated_on"], &report["measured_on"], &report["held_out"]),
        (&9.into(), &3.into(), &true.into())
    );
    let of = |m: usize| &report["losses"][m]["outputs"][0];
    let names: Vec<_> = (0..3).map(|m| report["losses"][m]["method"].as_str().unwrap()).collect();
    assert_eq!(names, ["percentile 99.9", "min-max", "entropy"]);
    assert!(
        (0..3).all(|m| of(m)["sqnr_db"].as_f64().unwrap() > 15.0 && of(m)["top1"][1] == 3),
        "{}",
        ran.out
    );
    assert!(of(0)["largest"] != of(1)["largest"], "two methods lose the same");
    let bytes = |key: &str| report[key].as_u64().unwrap();
    assert!(bytes("bytes_after") * 9 < bytes("bytes_before") * 5, "{}", ran.out);
    // The file in plain onnxruntime, beside the original: as many dB as were said, on the held-out samples.
    folder.good("zoo kws --out .", &[]);
    let load = |name: &str| onnx::load(&folder.0.join(name), &BTreeMap::new()).unwrap();
    let (original, int8) = (load("kws.onnx"), load("kws8.onnx"));
    assert!(int8.nodes.iter().any(|n| n.op == "QuantizeLinear"));
    let samples = cosched::executors::samples::read(&folder.0.join("frames.npy"), &original, 99).unwrap();
    let (mut one, mut other) = (cpu::reference(&original).unwrap(), cpu::reference(&int8).unwrap());
    let (mut signal, mut noise) = (0.0, 0.0);
    for sample in [3, 7, 11].map(|i| &samples[i]) {
        let (a, b) = (one.run(&[&sample[0]]).unwrap(), other.run(&[&sample[0]]).unwrap());
        for (a, b) in a[0].as_f32().unwrap().iter().zip(b[0].as_f32().unwrap()) {
            signal += f64::from(a * a);
            noise += f64::from(a - b).powi(2);
        }
    }
    let db = 10.0 * f64::log10(signal / noise);
    assert!((db - of(0)["sqnr_db"].as_f64().unwrap()).abs() < 0.01, "{db} dB, {}", ran.out);
    // The saboteur: those of another method are other dB.
    assert!((db - of(1)["sqnr_db"].as_f64().unwrap()).abs() > 0.01, "{db} dB, {}", ran.out);
    // Without samples it is said that the numbers are those of random inputs.
    let ran = folder.good("quantize zoo:kws_small", &[]);
    assert!(
        ran.err.contains("note: no --samples") && ran.out.contains("nothing written"),
        "{} {}",
        ran.err,
        ran.out
    );
}

#[test]
fn mistakes_are_named() {
    let folder = Folder::new("mistakes");
    frames(&folder, "frames.npy", 2);
    folder.write("flat.npy", npy(&[3, 490], |_| 0.0));
    folder.write("words.npz", "no zip");
    folder.write("dsp.toml", app("", "samples = \"flat.npy\"\n"));
    folder.refuses(&[
        (
            "quantize zoo:kws --method middle",
            2,
            &["--method", "expected one of min-max, percentile, entropy, got `middle`"],
        ),
        ("quantize zoo:kws --percentile 99", 2, &["the percentile 99 is for the method percentile"]),
        ("quantize zoo:kws --method percentile --percentile 20", 2, &["above 50 and at most 100, got 20"]),
        ("quantize zoo:kws --weight-bits 4", 2, &["--weight-bits", "expected 7 or 8, got 4"]),
        ("quantize zoo:kvs", 2, &["no model `kvs`", "did you mean"]),
        ("quantize zoo:kws --samples gone.npz", 1, &["gone.npz", "No such file"]),
        ("quantize zoo:kws --samples words.npz", 1, &["words.npz", "numpy.savez"]),
        (
            "quantize zoo:kws --samples flat.npy",
            1,
            &["flat.npy", "expected [samples, 1, 1, 49, 10], got [3, 490]"],
        ),
        ("profile dsp.toml", 1, &["dsp.toml: task[0].variant[0].samples", "flat.npy", "got [3, 490]"]),
    ]);
}

fn app(head: &str, variant: &str) -> String {
    let head = format!("name = \"int8\"\nprocessors = [\"cpu\", \"dsp\"]\n{head}\n");
    let text = keyword_app(&head, "period_ms = 50\ndeadline_ms = 400\n");
    text.replace("accuracy = 0.9\n", &format!("accuracy = 0.9\n{variant}"))
}

fn open(folder: &Folder, head: &str, variant: &str) -> (App, Session) {
    let app = App::parse(&app(head, variant), &folder.0.join("app.toml")).unwrap();
    let mut options = SessionOptions::default();
    options.processors.dsp_command = vec![env!("CARGO_BIN_EXE_cosched").into(), "dsp-worker".into()];
    let session = Session::open(&app, &options, &mut |_, _, _| {}).unwrap();
    assert!(session.absent.is_empty(), "{:?}", session.absent);
    (app, session)
}

#[test]
fn samples_and_method_reach_the_live_dsp_and_other_plans_are_refused() {
    let folder = Folder::new("live");
    frames(&folder, "frames.npy", 6);
    let (plain_app, plain) = open(&folder, "", "");
    let (_, tuned) =
        open(&folder, "[dsp]\nmethod = \"percentile\"\npercentile = 99.5", "samples = \"frames.npy\"\n");
    let device = |s: &Session| s.deployment.processors[1].device();
    assert!(device(&plain).contains("min-max calibration"), "{}", device(&plain));
    assert!(device(&tuned).contains("percentile 99.5 calibration"), "{}", device(&tuned));
    let plan = plain.profile(&plain_app, &mut |_, _, _| {}).unwrap();
    assert_eq!(plain.fits(&plan), Ok(()));
    let problem = tuned.fits(&plan).unwrap_err();
    assert!(problem.contains("percentile 99.5") && problem.contains("min-max"), "{problem}");
    // The user's samples are what the profile and the streams run on; without them there are random ones.
    let samples = |s: &Session| s.deployment.variants[0].samples.clone();
    assert_eq!((samples(&tuned).len(), samples(&plain).len()), (6, 4));
    let file = folder.read("frames.npy");
    let first = f32::from_le_bytes(file[128..132].try_into().unwrap());
    assert_eq!(samples(&tuned)[0][0].as_f32().unwrap()[0], first);
}

#[test]
fn a_paced_dsp_is_profiled_at_its_pace() {
    let folder = Folder::new("paced");
    let (app, paced) = open(&folder, "[dsp.pace]\ngops = 1000\nrpc_us = 30000", "");
    assert!(paced.deployment.processors[1].device().ends_with("paced to 1000 GOPS and 30000 us a call"));
    let plan = paced.profile(&app, &mut |_, _, _| {}).unwrap();
    for segment in &plan.variants[0].segments {
        let of = |p: usize| segment.costs[p].unwrap().mean_us;
        assert!(of(1) >= 30_000.0 && of(0) < 30_000.0, "{} us and {} us", of(0), of(1));
    }
}

#[test]
fn wrong_keys_of_the_dsp_are_named() {
    for (table, words) in [
        ("[dsp]\nmethod = \"middle\"", "middle"),
        ("[dsp]\nmethods = \"entropy\"", "methods"),
        ("[dsp]\npercentile = 99.0", "dsp.percentile: expected none"),
        ("[dsp]\nmethod = \"percentile\"\npercentile = 12.0", "dsp.percentile: expected a number above 50"),
        ("[dsp]\nworker = [\"\"]", "dsp.worker: expected a program"),
        ("[dsp.pace]\ngops = 0.0", "dsp.pace.gops: expected a number above 0"),
        ("[dsp.pace]\ngops = 10.0\nrpc_us = -1.0", "dsp.pace.rpc_us: expected a number of at least 0"),
        ("[dsp.pace]\nrpc_us = 1.0", "gops"),
    ] {
        let problem = App::parse(&app(table, ""), Path::new("int8.toml")).unwrap_err().to_string();
        assert!(problem.contains("int8.toml") && problem.contains(words), "{table}: {problem}");
    }
    let app =
        App::parse(&app("[dsp]\nworker = [\"./vendor\", \"x\"]", ""), Path::new("/apps/int8.toml")).unwrap();
    assert_eq!(app.dsp_worker(), ["/apps/./vendor", "x"]);
}
