//! Weights that are larger than one binding of a device are used in slices: layers of every kind and way with a limit that makes them
//! too large, against onnxruntime. It refuses a layer that was not sliced.

mod gpu_cases;

use cosched_executors::cpu;
use cosched_executors::gpu::device::{Device, Gpu};
use cosched_executors::gpu::lower::choice::Choice;
use cosched_executors::gpu::lower::{Plan, Target, lower};
use cosched_executors::gpu::opencl::OpenClDevice;
use cosched_executors::gpu::wgpu::WgpuDevice;
use cosched_executors::graph::{Attr, Graph};
use cosched_executors::processor::Processor;
use cosched_executors::tensor::Tensor;
use gpu_cases::{Case, Net, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes; each layer below has more in weights, and less in everything else.
const LIMIT: usize = 400_000;

fn conv(net: &mut Net, op: &str, outs: usize, ins: usize, window: usize, image: usize) {
    let x = net.input(&[1, ins, image, image]);
    let shape = if op == "Conv" { [outs, ins, window, window] } else { [ins, outs, window, window] };
    let (w, b) = (net.constant(&shape, -0.2, 0.2), net.constant(&[outs], -1.0, 1.0));
    let pad = (window / 2) as i64;
    let y = net.node(op, &[x, w, b], &[("pads", Attr::Ints(vec![pad; 4]))]);
    // A sum that is fused, so that a slice must find its part of it.
    let z = net.input(&[1, outs, image, image]);
    net.out("Add", &[y, z], &[]);
}

fn rows() -> Vec<Row> {
    let row = |name, make| Row { name, relative: 1e-3, absolute: 1e-3, make };
    vec![
        row("matmul", |net: &mut Net| {
            let x = net.input(&[3, 128]);
            let w = net.constant(&[128, 1041], -0.3, 0.3);
            let y = net.node("MatMul", &[x, w], &[]);
            let b = net.constant(&[1041], -1.0, 1.0);
            net.out("Add", &[y, b], &[]);
        }),
        row("gemm of a transposed constant", |net: &mut Net| {
            let x = net.input(&[2, 128]);
            let (w, b) = (net.constant(&[1040, 128], -0.3, 0.3), net.constant(&[1040], -1.0, 1.0));
            net.out("Gemm", &[x, w, b], &[("transB", Attr::Int(1)), ("alpha", Attr::Float(0.5))]);
        }),
        row("a constant from the left", |net: &mut Net| {
            let w = net.constant(&[1041, 128], -0.3, 0.3);
            let x = net.input(&[5, 128]);
            net.out("Gemm", &[w, x], &[("transB", Attr::Int(1))]);
        }),
        row("conv 1x1", |net: &mut Net| conv(net, "Conv", 520, 256, 1, 3)),
        row("conv 3x3", |net: &mut Net| conv(net, "Conv", 520, 32, 3, 4)),
        row("transposed conv", |net: &mut Net| conv(net, "ConvTranspose", 520, 32, 3, 3)),
    ]
}

fn plan(graph: &Graph, target: &Target) -> Plan {
    lower(graph, target).unwrap_or_else(|(node, op, why)| panic!("{node} ({op}): {why}"))
}

fn run(processor: &dyn Processor, case: &Case) -> Vec<Tensor> {
    let inputs: Vec<_> = case.inputs.iter().collect();
    let prepared = processor.prepare(&case.graph, &[]).unwrap_or_else(|e| panic!("{e}"));
    prepared.spawn().unwrap().run(&inputs).unwrap()
}

fn check<D: Device>(device: D) {
    let gpu = Gpu::new(device);
    let mut ways = BTreeSet::new();
    for row in rows() {
        let case = row.case(1);
        let inputs: Vec<_> = case.inputs.iter().collect();
        let want = cpu::reference(&case.graph).unwrap().run(&inputs).unwrap();
        for met in gpu.problems(&case.graph).unwrap() {
            for choice in met.candidates {
                let tuned: Arc<BTreeMap<String, Choice>> = Arc::new([(met.key.clone(), choice)].into());
                let what = format!("{} on {}: {choice:?}", row.name, D::NAME);
                let mut target = None;
                let whole = gpu.with(|t| {
                    t.tuned = tuned.clone();
                    target = Some(t.clone());
                });
                let target = target.unwrap();
                let small = Target { max_binding: LIMIT, ..target.clone() };
                let (one, sliced) = (plan(&case.graph, &target), plan(&case.graph, &small));
                assert!(sliced.steps.len() > one.steps.len(), "{what}: not sliced");
                assert!(sliced.pages.iter().all(|page| 4 * page.floats.len() <= LIMIT), "{what}");
                let sliced = gpu.with(|t| *t = small);
                let got = run(&sliced, &case);
                assert_eq!(row.differs(&got, &want), None, "{what}");
                assert_eq!(row.differs(&run(&whole, &case), &want), None, "{what}, whole");
                // The saboteur: slices in another order would be seen.
                let mut wrong = got;
                let cosched_executors::tensor::Data::F32(floats) = &mut wrong[0].data else { panic!("f32") };
                floats.rotate_left(64);
                assert!(row.differs(&wrong, &want).is_some(), "{what}: any order is good enough");
                ways.insert(format!("{choice:?}").split([' ', '(']).next().unwrap().to_owned());
            }
        }
        let tiny = gpu.with(|t| t.max_binding = 1 << 10);
        let refused = case.graph.nodes.iter().find_map(|node| tiny.supports(&case.graph, node).err());
        assert!(refused.is_some_and(|why| why.contains("of one binding")), "{}", row.name);
    }
    assert_eq!(ways.into_iter().collect::<Vec<_>>(), ["Strip", "Tile", "Winograd"]);
}

#[test]
fn large_weights_are_sliced_on_wgpu() {
    check(WgpuDevice::open(None).unwrap());
}

#[test]
fn large_weights_are_sliced_on_opencl() {
    check(OpenClDevice::open(None).unwrap());
}
