//! Both GPU processors with numbers stored in 16 bits: every operator and some networks against onnxruntime, whose inputs and constants
//! are rounded alike, within a stated share of the largest result. Memory and traffic halve, and plans see another device. It refuses
//! kernels that lose more than the storage does.

mod gpu_cases;
mod support;

use cosched_executors::chain::{Chain, Room};
use cosched_executors::cpu;
use cosched_executors::gpu::device::{Device, Edit, Gpu};
use cosched_executors::gpu::opencl::OpenClDevice;
use cosched_executors::gpu::wgpu::WgpuDevice;
use cosched_executors::graph::Graph;
use cosched_executors::in_segments::even;
use cosched_executors::processor::{Options, Processor, Storage, row};
use cosched_executors::stop::Stop;
use cosched_executors::tensor::{Data, Tensor};
use cosched_executors::{onnx, zoo};
use gpu_cases::{Case, Row, rows};
use half::f16;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{difference, random_inputs};

/// Largest error of an operator, as a share of the largest result: results are rounded to 11 bits, constants that were folded or scaled
/// before they were stored a second time, and what goes from kernel to kernel once more.
const OPERATOR: f32 = 1.0 / 256.0;
/// The same of a whole network, whose layers all round.
const NETWORK: f64 = 0.02;
/// Random cases of each row on each processor.
const CASES: u64 = 2;

fn round(v: &mut f32) {
    *v = f16::from_f32(*v).to_f32();
}

fn rounded(tensor: &mut Tensor) {
    if let Data::F32(values) = &mut tensor.data {
        values.iter_mut().for_each(round);
    }
}

/// The case with every number as the storage has it.
fn as_stored(mut case: Case) -> Case {
    case.inputs.iter_mut().for_each(rounded);
    case.graph.constants.values_mut().for_each(|tensor| rounded(Arc::make_mut(tensor)));
    case
}

fn run(processor: &dyn Processor, graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let prepared = processor.prepare(graph, &[]).map_err(|e| e.to_string())?;
    let inputs: Vec<_> = inputs.iter().collect();
    prepared.spawn().and_then(|mut i| i.run(&inputs)).map_err(|e| e.to_string())
}

/// What is wrong with `got`, if anything.
fn wrong(got: &[Tensor], want: &[Tensor]) -> Option<String> {
    for (got, want) in got.iter().zip(want) {
        let (got, want) = (got.as_f32().unwrap(), want.as_f32().unwrap());
        let kept = |v: &f32| f16::from_f32(*v).to_f32();
        let largest = want.iter().filter(|v| kept(v).is_finite()).fold(0f32, |m, v| m.max(v.abs()));
        // The second term: the least number that can be stored.
        let bound = OPERATOR * largest + 6e-8;
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            let fits = if w.is_nan() {
                g.is_nan()
            } else if kept(w).is_infinite() {
                *g == kept(w)
            } else {
                (g - w).abs() <= bound
            };
            if !fits {
                return Some(format!("element {i} is {g}, not {w}, beyond {bound}"));
            }
        }
    }
    None
}

fn verdict(row: &Row, seed: u64, processor: &dyn Processor) -> Option<String> {
    let case = as_stored(row.case(seed));
    let inputs: Vec<_> = case.inputs.iter().collect();
    let want = cpu::reference(&case.graph).unwrap().run(&inputs).unwrap();
    let why = match run(processor, &case.graph, &case.inputs) {
        Err(why) => Some(why),
        Ok(got) => wrong(&got, &want),
    };
    why.map(|why| format!("`{}` seed {seed} on {}: {why}", row.name, processor.name()))
}

fn open(name: &str, storage: Storage) -> Arc<dyn Processor> {
    let options = Options { storage: BTreeMap::from([(name.to_owned(), storage)]), ..Options::default() };
    (row(name).unwrap().open)(&options).unwrap_or_else(|e| panic!("{e}"))
}

fn operators_agree(name: &str) {
    let only = std::env::var("ONLY").unwrap_or_default();
    let processor = open(name, Storage::F16);
    let all = rows();
    let wanted = all.iter().filter(|row| row.name.contains(&only));
    let cases = wanted.flat_map(|row| (0..CASES).map(move |seed| (row, seed)));
    let wrong: Vec<_> = cases.filter_map(|(row, seed)| verdict(row, seed, &*processor)).collect();
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

// Drivers compile on one thread: a test each.
#[test]
fn every_operator_agrees_in_16_bits_on_wgpu() {
    operators_agree("wgpu");
}

#[test]
fn every_operator_agrees_in_16_bits_on_opencl() {
    operators_agree("opencl");
}

/// Wrong kernels: the row that must find each, and the edit.
const SABOTEURS: &[(&str, Edit)] = &[
    ("gemm", |t| t.replace("+ bias_1)", ")")),
    ("softmax", |t| t.replace("= 0; j_2", "= 1; j_2")),
    ("conv depthwise", |t| t.replace("* p_dilation_w)", "* 1)")),
    ("binary", |t| t.replace("* p_b_s3)", "* 0)")),
    // A hundredth is lost on the way into memory.
    ("Tanh", |t| {
        let t = t.replace("= f16(", "= f16(0.99f * ").replace("vstore_half(", "vstore_half(0.99f * ");
        t.replace("vstore_halves16(", "vstore_halves16(0.99f * ")
    }),
];

fn sabotage<D: Device>(open: impl Fn(Option<Edit>) -> D) {
    for (name, edit) in SABOTEURS {
        let (row, gpu) = (rows().into_iter().find(|r| r.name == *name).unwrap(), Gpu::new(open(Some(*edit))));
        let changed = |seed: u64| {
            let texts = gpu.texts(&row.case(seed).graph).unwrap();
            texts.into_iter().any(|text| edit(text.clone()) != text)
        };
        let found: Vec<_> =
            (0..12).filter(|&s| changed(s)).filter_map(|seed| verdict(&row, seed, &gpu)).collect();
        assert!(found.iter().any(|why| why.contains("beyond")), "{}: `{name}` passes: {found:?}", D::NAME);
    }
}

#[test]
fn wrong_kernels_in_16_bits_are_rejected() {
    sabotage(|edit| WgpuDevice::open_with(edit, Storage::F16).unwrap());
    sabotage(|edit| OpenClDevice::open_with(edit, Storage::F16).unwrap());
}

fn network(name: &str, resolution: Option<usize>) -> Graph {
    let bytes = zoo::bytes(name, &zoo::Options { seed: 5, resolution }).unwrap();
    onnx::from_bytes(name, &bytes, &BTreeMap::new()).unwrap()
}

/// In three segments: tensors stay on the device in 16 bits between them.
fn in_segments(processor: &dyn Processor, graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let segments = even(graph, 3);
    let chain = Chain::new(graph, &segments);
    let mut values = chain.start(inputs.iter().cloned().map(Arc::new).collect()).unwrap();
    for (s, segment) in segments.iter().enumerate() {
        let mut instance = processor.prepare(&segment.graph, &[]).unwrap().spawn().unwrap();
        let (room, stop) = (&mut Room::default(), &Stop::default());
        chain.advance(&mut values, s, &mut *instance, room, stop).unwrap();
    }
    chain.outputs(&values).unwrap()
}

fn networks_agree(name: &str) {
    let [full, halved] = [Storage::F32, Storage::F16].map(|storage| open(name, storage));
    assert_ne!(full.device(), halved.device(), "plans and tuning would not see it");
    for (model, resolution) in [("kws_small", None), ("mobilenet_v2", Some(64)), ("bert_mini", None)] {
        let graph = network(model, resolution);
        let inputs = random_inputs(&graph, 3);
        let want = cpu::reference(&graph).unwrap().run(&inputs.iter().collect::<Vec<_>>()).unwrap();
        let before = halved.traffic();
        let got = run(&*halved, &graph, &inputs).unwrap();
        let moved = halved.traffic().since(before);
        let (whole, parts) =
            (difference(&got, &want), difference(&in_segments(&*halved, &graph, &inputs), &want));
        let bytes = [&full, &halved].map(|p| p.prepare(&graph, &[]).unwrap().memory_bytes());
        println!("{model} on {name}: off by {whole:.1e}, in segments {parts:.1e}; {bytes:?} bytes");
        assert!(whole < NETWORK && parts < NETWORK, "{model}: off by {whole}, in segments {parts}");
        // Tables of indices keep their 32 bits: bert's embeddings lie beside such.
        let share = bytes[1] as f64 / bytes[0] as f64;
        assert!(share < if model == "bert_mini" { 0.9 } else { 0.56 }, "{model}: {share} of the memory");
        let floats = |ids: &[cosched_executors::graph::ValueId]| {
            ids.iter().map(|&id| graph.value(id).bytes() as u64 / 2).sum::<u64>()
        };
        assert_eq!(moved.download_bytes, floats(&graph.outputs));
    }
}

#[test]
fn networks_agree_in_16_bits_on_wgpu() {
    networks_agree("wgpu");
}

#[test]
fn networks_agree_in_16_bits_on_opencl() {
    networks_agree("opencl");
}
