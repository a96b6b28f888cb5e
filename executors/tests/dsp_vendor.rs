//! A vendor's DSP behind the trait: a small accelerator with integer arithmetic of its own computes in the worker process instead of
//! onnxruntime, and gives the same numbers. This program is its own worker, so it has a `main`; it holds no numbers of the quantiser.

mod dsp_common;

use cosched_executors::dsp::accelerator::{Accelerator, Bound, Fault, Memory, Outlet, Program};
use cosched_executors::dsp::{Dsp, Limits, worker_with};
use cosched_executors::graph::{Graph, Node, ValueId};
use cosched_executors::onnx;
use cosched_executors::processor::{ExecError, Options, Prepared, Processor};
use cosched_executors::stop::Stop;
use cosched_executors::tensor::{Data, Tensor};
use dsp_common::*;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

/// Computes one convolution of 1 x 1 in integers. `step` is added to each result, by which the saboteur is told apart.
struct Toy {
    step: i32,
}

/// What the QDQ form says of the convolution.
#[derive(Clone)]
struct Layer {
    inputs: Vec<Outlet>,
    outputs: Vec<Outlet>,
    x: (f32, i32),
    y: (f32, i32),
    weights: Vec<i8>,
    scales: Vec<f32>,
    bias: Vec<i32>,
    step: i32,
}

fn made_by(graph: &Graph, id: ValueId) -> Result<&Node, String> {
    let made = |n: &&Node| n.outputs.contains(&Some(id));
    graph.nodes.iter().find(made).ok_or_else(|| "toy: a value from nowhere".to_owned())
}

/// The constants of a (de)quantise node: what it dequantises (if that is constant), scales, zero points.
fn constants(graph: &Graph, node: &Node) -> (Option<Arc<Tensor>>, Vec<f32>, i32) {
    let of = |i: usize| node.inputs[i].and_then(|id| graph.constant(id).cloned());
    let zero = match of(2).map(|t| t.data.clone()) {
        Some(Data::U8(v)) => i32::from(v[0]),
        _ => 0,
    };
    (of(0), of(1).unwrap().as_f32().unwrap().to_vec(), zero)
}

impl Accelerator for Toy {
    fn name(&self) -> String {
        "toy 1.0".into()
    }

    fn compile(&mut self, bytes: &[u8]) -> Result<Box<dyn Program>, String> {
        let graph = onnx::from_bytes("toy", bytes, &BTreeMap::new()).map_err(|e| e.to_string())?;
        let arithmetic: Vec<&Node> = graph.nodes.iter().filter(|n| !n.op.ends_with("Linear")).collect();
        let conv = match arithmetic[..] {
            [conv] if conv.op == "Conv" && conv.ints("kernel_shape") == Some(&[1, 1]) => conv,
            _ => return Err(format!("toy: {} operators, expected one Conv of 1 x 1", arithmetic.len())),
        };
        let input = |i: usize| made_by(&graph, conv.inputs[i].unwrap()).map(|n| constants(&graph, n));
        let ((_, x, x_zero), (w, scales, _), (b, ..)) = (input(0)?, input(1)?, input(2)?);
        let quantise = graph.nodes.iter().find(|n| n.inputs[0] == conv.outputs[0]).unwrap();
        let (_, y, y_zero) = constants(&graph, quantise);
        let (Some(Data::I8(weights)), Some(Data::I32(bias))) =
            (w.map(|t| t.data.clone()), b.map(|t| t.data.clone()))
        else {
            return Err("toy: expected s8 weights and an i32 bias".into());
        };
        let outlets = |ids: &[ValueId]| -> Vec<Outlet> {
            let outlet = |id: &ValueId| Outlet {
                name: graph.value(*id).name.clone(),
                shape: graph.value(*id).shape.clone(),
            };
            ids.iter().map(outlet).collect()
        };
        Ok(Box::new(Layer {
            inputs: outlets(&graph.inputs),
            outputs: outlets(&graph.outputs),
            x: (x[0], x_zero),
            y: (y[0], y_zero),
            weights,
            scales,
            bias,
            step: self.step,
        }))
    }
}

impl Program for Layer {
    fn inputs(&self) -> &[Outlet] {
        &self.inputs
    }

    fn outputs(&self) -> &[Outlet] {
        &self.outputs
    }

    unsafe fn bind(&self, memory: &[Memory]) -> Result<Box<dyn Bound>, String> {
        Ok(Box::new(Ready { layer: self.clone(), memory: memory.to_vec() }))
    }
}

struct Ready {
    layer: Layer,
    memory: Vec<Memory>,
}

impl Bound for Ready {
    fn run(&mut self, stop: &Stop) -> Result<(), Fault> {
        if stop.stopped() {
            return Err(Fault::Stopped);
        }
        let [x, y] = self.memory[..] else { return Err(Fault::Failed("toy: expected two tensors".into())) };
        // SAFETY: the worker keeps the memory for as long as this lives, and nobody touches it during a run.
        let (x, y) = unsafe {
            (
                std::slice::from_raw_parts(x.address.cast::<f32>(), x.bytes / 4),
                std::slice::from_raw_parts_mut(y.address.cast::<f32>(), y.bytes / 4),
            )
        };
        let l = &self.layer;
        let level = |v: f32, (scale, zero): (f32, i32)| {
            ((v / scale).round_ties_even() as i32).saturating_add(zero).clamp(0, 255)
        };
        let (channels, out) = (l.inputs[0].shape[1], l.outputs[0].shape[1]);
        let pixels = x.len() / channels;
        for o in 0..out {
            for p in 0..pixels {
                let product = |c: usize| {
                    (level(x[c * pixels + p], l.x) - l.x.1) * i32::from(l.weights[o * channels + c])
                };
                let sum = l.bias[o] + (0..channels).map(product).sum::<i32>() + l.step;
                let real = sum as f32 * l.x.0 * l.scales[o];
                y[o * pixels + p] = (level(real, l.y) - l.y.1) as f32 * l.y.0;
            }
        }
        Ok(())
    }
}

fn vendor(word: &str) -> Dsp {
    let program = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    let options = Options { dsp_command: vec![program, word.into()], ..Options::default() };
    Dsp::open(&options, Limits::default()).unwrap()
}

/// Largest distance between two DSPs on the tiny network, in steps of the outputs' u8.
fn apart(one: &Dsp, other: &Dsp) -> f32 {
    let graph = tiny_graph(3);
    let samples = samples(&mut Rng::new(4), &graph, 6);
    let spawn = |dsp: &Dsp| dsp.prepare_segment(&graph, &samples).unwrap().spawn().unwrap();
    let (mut one, mut other) = (spawn(one), spawn(other));
    let (mut most, mut low, mut high) = (0f32, 0f32, 0f32);
    for sample in &samples {
        let (a, b) = (one.run(&[&sample[0]]).unwrap(), other.run(&[&sample[0]]).unwrap());
        for (a, b) in a[0].as_f32().unwrap().iter().zip(b[0].as_f32().unwrap()) {
            (most, low, high) = (most.max((a - b).abs()), low.min(*a), high.max(*a));
        }
    }
    most / ((high - low) / 255.0)
}

fn a_vendors_dsp_gives_the_same_numbers() {
    let (ours, toy) = (dsp(), vendor("toy"));
    assert!(toy.device().contains("toy 1.0") && !ours.device().contains("toy"), "{}", toy.device());
    assert!(ours.device().contains("onnxruntime 1."), "{}", ours.device());
    // Where a sum lies between two steps either may be right.
    let steps = apart(&ours, &toy);
    assert!(steps <= 1.1, "{steps} steps apart");
    // The saboteur: integers that are off by more than one step.
    let steps = apart(&ours, &vendor("wrong"));
    assert!(steps > 1.1, "a wrong sum is only {steps} steps away");
}

fn what_a_vendor_refuses_is_said_and_the_worker_lives_on() {
    let toy = vendor("toy");
    let mut b = Build::new("two");
    let x = b.input(&[1, 4, 4, 4]);
    let x = b.conv(&mut Rng::new(1), x, 4, 1, 1, 1);
    let x = b.conv(&mut Rng::new(2), x, 4, 1, 1, 1);
    let graph = b.done(&[x]);
    let error = toy.prepare(&graph, &samples(&mut Rng::new(5), &graph, 2)).err().unwrap();
    assert!(matches!(error, ExecError::Failed { .. }), "{error}");
    assert!(error.to_string().contains("toy: 2 operators, expected one Conv"), "{error}");
    assert!(apart(&toy, &toy) == 0.0 && toy.restarts() == 0);
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("toy") => return worker_with(&args[1..], Box::new(Toy { step: 0 })),
        Some("wrong") => return worker_with(&args[1..], Box::new(Toy { step: 4000 })),
        _ => {}
    }
    let tests: [(&str, fn()); 2] = [
        ("a_vendors_dsp_gives_the_same_numbers", a_vendors_dsp_gives_the_same_numbers),
        (
            "what_a_vendor_refuses_is_said_and_the_worker_lives_on",
            what_a_vendor_refuses_is_said_and_the_worker_lives_on,
        ),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}
