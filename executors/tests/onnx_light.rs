//! The light real-model graphs of the ONNX project (`data/onnx_light.bin`, made by `data/onnx_light.py`) on every f32 processor. With the
//! weights that they bring every class is as likely as the next, so weights are drawn and onnxruntime's answer is the reference; that
//! one must meet the stated outputs with the weights as they are. The list `data/onnx_light.txt` must be true both ways: `UPDATE=1`
//! writes it. It refuses int8 (the dsp). `ONLY=vgg` runs the graphs with that in their name and leaves the list alone.

mod support;

use cosched_executors::graph::Graph;
use cosched_executors::processor::{Options, Processor, TABLE};
use cosched_executors::tensor::{Data, Tensor};
use cosched_executors::{cpu, onnx};
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use support::{data, difference};

/// Largest difference, relative to the largest output.
const BOUND: f64 = 1e-3;

struct Light {
    name: String,
    model: Vec<u8>,
    stated: Vec<f32>,
}

fn all() -> Vec<Light> {
    let bytes = std::fs::read(data("onnx_light.bin")).unwrap();
    let mut rest = &bytes[..];
    let number = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_at(4);
        *rest = tail;
        u32::from_le_bytes(head.try_into().unwrap()) as usize
    };
    let n = number(&mut rest);
    let mut blob = || {
        let n = number(&mut rest);
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head.to_vec()
    };
    let mut light = || Light {
        name: String::from_utf8(blob()).unwrap(),
        model: blob(),
        stated: bytemuck::pod_collect_to_vec(&blob()),
    };
    (0..n).map(|_| light()).collect()
}

/// The weights are drawn so that signals neither die nor grow, whatever the depth.
fn draw(graph: &mut Graph, seed: u64) {
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
    // Scales and variances, which are not small numbers around zero.
    let norms = graph.nodes.iter().filter(|node| node.op == "BatchNormalization");
    let positive: BTreeSet<_> = norms.flat_map(|n| [n.inputs[1], n.inputs[4]]).flatten().collect();
    for (id, tensor) in &mut graph.constants {
        let tensor = Arc::make_mut(tensor);
        let fan_in: usize = tensor.shape.iter().skip(1).product::<usize>().max(1);
        let (least, most) = match tensor.shape[..] {
            // Scales of a normalisation that stands alone.
            [_, 1, 1] => (0.5, 1.5),
            _ if positive.contains(id) => (0.5, 1.5),
            [_] | [] => (-0.1, 0.1),
            _ => (-(6.0 / fan_in as f32).sqrt(), (6.0 / fan_in as f32).sqrt()),
        };
        if let Data::F32(values) = &mut tensor.data {
            values.iter_mut().for_each(|v| *v = rng.random_range(least..most));
        }
    }
}

/// Counts up from 0 to 1, as the package does.
fn counting(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::f32(shape, (0..n).map(|i| (i as f64 / n as f64) as f32).collect())
}

fn outcome(processor: &dyn Processor, graph: &Graph, input: &Tensor, want: &[Tensor]) -> String {
    if let Some(node) = graph.nodes.iter().find(|n| processor.supports(graph, n).is_err()) {
        return format!("refused({})", node.op);
    }
    let run = processor.prepare(graph, &[]).and_then(|p| p.spawn()).and_then(|mut i| i.run(&[input]));
    match run {
        Ok(got) if difference(&got, want) < BOUND => "pass".into(),
        Ok(got) => format!("wrong({:.0e})", difference(&got, want)),
        Err(error) => format!("failed({error})"),
    }
}

/// What the reference and each processor do with one graph.
fn line(light: &Light, processors: &[Arc<dyn Processor>]) -> String {
    let mut graph = match onnx::from_bytes(&light.name, &light.model, &BTreeMap::new()) {
        Ok(graph) => graph,
        Err(error) => return format!("{}: not-loaded({error})", light.name),
    };
    let input = counting(&graph.value(graph.inputs[0]).shape);
    let run = |graph: &Graph| cpu::reference(graph).unwrap().run(&[&input]).unwrap();
    let as_it_is = run(&graph);
    let stated = Tensor::f32(&as_it_is[0].shape, light.stated.clone());
    let met = difference(&as_it_is, &[stated]) < BOUND;
    draw(&mut graph, 7);
    let want = run(&graph);
    let floats = want[0].as_f32().unwrap();
    let (least, most) = floats.iter().fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)));
    assert!(most > 1.05 * least, "{}: all answers are alike, {least} to {most}", light.name);
    // The saboteur: another class is another answer.
    let mut turned = want.clone();
    let Data::F32(values) = &mut turned[0].data else { panic!("f32") };
    values.rotate_left(1);
    assert!(difference(&turned, &want) > BOUND, "{}: any order is good enough", light.name);
    let ends = processors.iter().map(|p| format!("{}={}", p.name(), outcome(&**p, &graph, &input, &want)));
    format!(
        "{}: stated={} {}",
        light.name,
        if met { "met" } else { "missed" },
        ends.collect::<Vec<_>>().join(" ")
    )
}

/// Lines that are in one list and not in the other.
fn differences(stated: &str, seen: &str) -> Vec<String> {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    lines(stated).symmetric_difference(&lines(seen)).cloned().collect()
}

#[test]
fn the_light_graphs_of_onnx_end_as_stated() {
    let rows = TABLE.iter().filter(|r| r.name != "dsp");
    let processors: Vec<Arc<dyn Processor>> =
        rows.map(|r| (r.open)(&Options::default()).unwrap_or_else(|e| panic!("{e}"))).collect();
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut seen = String::new();
    for light in all().iter().filter(|light| light.name.contains(&only)) {
        let begun = std::time::Instant::now();
        let line = line(light, &processors);
        println!("{line} ({:.1} s)", begun.elapsed().as_secs_f64());
        seen.push_str(&line);
        seen.push('\n');
    }
    if !only.is_empty() {
        return;
    }
    let list = data("onnx_light.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&list, &seen).unwrap();
    }
    let wrong = differences(&std::fs::read_to_string(&list).unwrap(), &seen);
    assert!(wrong.is_empty(), "the list is not true (UPDATE=1 writes it):\n{}", wrong.join("\n"));
    assert_eq!(differences(&seen.replacen("=pass", "=refused", 1), &seen).len(), 2);
}
