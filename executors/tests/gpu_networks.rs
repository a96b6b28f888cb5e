//! Whole networks on every GPU processor against onnxruntime: the zoo and the PyTorch exports of `tests/data`.
//! It refuses to pass a network partly: every node must be supported. `ONLY=resnet` runs the networks with that in their name.

mod support;

use cosched_executors::graph::Graph;
use cosched_executors::processor::{Options, Processor, TABLE};
use cosched_executors::{cpu, onnx, zoo};
use std::collections::BTreeMap;
use support::{difference, fixture, random_inputs};

/// CPU time of this process so far: wall time says little on a machine that others use. It is of one test only with `--test-threads=1`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn check(processor: &dyn Processor, graph: &Graph) {
    let mut why = Vec::new();
    for node in &graph.nodes {
        if let Err(reason) = processor.supports(graph, node) {
            why.push(format!("{} ({}): {reason}", node.name, node.op));
        }
    }
    if !why.is_empty() {
        panic!("{} on {}: not supported: {}", graph.name, processor.name(), why.join("; "));
    }
    let inputs = random_inputs(graph, 5);
    let inputs: Vec<_> = inputs.iter().collect();
    let want = cpu::reference(graph).unwrap().run(&inputs).unwrap();
    let start = (std::time::Instant::now(), cpu_seconds());
    let prepared = processor.prepare(graph, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mut instance = prepared.spawn().unwrap();
    let got = instance.run(&inputs).unwrap_or_else(|e| panic!("{e}"));
    let cold = (start.0.elapsed().as_secs_f64(), cpu_seconds() - start.1);
    let worst = difference(&got, &want);
    let start = (std::time::Instant::now(), cpu_seconds());
    let runs = 3;
    for _ in 0..runs {
        instance.run(&inputs).unwrap();
    }
    let warm = (start.0.elapsed().as_secs_f64() / runs as f64, (cpu_seconds() - start.1) / runs as f64);
    println!(
        "{} on {}: off by {worst:.1e}; first {:.2} s ({:.2} CPU-s), then {:.1} ms ({:.0} CPU-ms), {} KiB",
        graph.name,
        processor.name(),
        cold.0,
        cold.1,
        1e3 * warm.0,
        1e3 * warm.1,
        prepared.memory_bytes() / 1024
    );
    assert!(worst < 1e-3, "{} on {}: off by {worst}", graph.name, processor.name());
}

fn networks(processor: &str) {
    let only = std::env::var("ONLY").unwrap_or_default();
    let row = TABLE.iter().find(|r| r.name == processor).unwrap();
    let processor = (row.open)(&Options::default()).unwrap_or_else(|e| panic!("{e}"));
    println!("{}: {}", processor.name(), processor.device());
    for name in support::FIXTURES.iter().filter(|n| n.contains(&only)) {
        check(&*processor, &fixture(name));
    }
    for row in zoo::TABLE.iter().filter(|r| r.name.contains(&only)) {
        let bytes = zoo::bytes(row.name, &zoo::Options { seed: 7, ..Default::default() }).unwrap();
        check(&*processor, &onnx::from_bytes(row.name, &bytes, &BTreeMap::new()).unwrap());
    }
}

// Drivers compile on one thread: a test each, so that both cores have something to do.
#[test]
fn networks_agree_with_onnxruntime_on_wgpu() {
    networks("wgpu");
}

#[test]
fn networks_agree_with_onnxruntime_on_opencl() {
    networks("opencl");
}

/// Set for the process that `absent_drivers_are_a_clear_error` starts; without it `child_opens_all` has nothing to do.
const CHILD: &str = "COSCHED_TEST_CHILD";

#[test]
fn child_opens_all() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    for row in TABLE.iter().filter(|r| matches!(r.name, "wgpu" | "opencl")) {
        match (row.open)(&Options::default()) {
            Ok(p) => println!("{} opened {}", row.name, p.device()),
            Err(e) => println!("{e}"),
        }
    }
}

#[test]
fn absent_drivers_are_a_clear_error() {
    let child = |variables: &[(&str, &str)]| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child_opens_all", "--nocapture"])
            .env(CHILD, "1")
            .envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let nowhere =
        [("VK_DRIVER_FILES", "/nowhere"), ("VK_ICD_FILENAMES", "/nowhere"), ("OCL_ICD_VENDORS", "/nowhere")];
    let text = child(&nowhere);
    assert!(
        text.contains("processor `wgpu` is not available") && text.contains("mesa-vulkan-drivers"),
        "{text}"
    );
    assert!(
        text.contains("processor `opencl` is not available") && text.contains("pocl-opencl-icd"),
        "{text}"
    );
    // The saboteur: with the drivers in place the same check must fail.
    assert!(child(&[]).contains("wgpu opened"));
}
