//! Any legal mix of processors gives the whole model's output: every zoo model and PyTorch export, cut at random, its segments on
//! cpu, wgpu and opencl alone and on random mixes of them, against onnxruntime's run of the whole model.
//! It refuses a silent fallback: a segment goes to the cpu only where the processor says that it does not support it.
//! `ONLY=resnet` runs the networks with that in their name, `SEED=7` another choice of cuts and mixes.

mod dsp_common;
mod support;

use cosched_executors::chain::Chain;
use cosched_executors::graph::{Graph, Node};
use cosched_executors::processor::{Instance, Options, Processor, TABLE};
use cosched_executors::segment::{Segment, split_at};
use cosched_executors::tensor::{Data, Tensor};
use cosched_executors::{cpu, onnx, zoo};
use rand::RngExt;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use support::{FIXTURES, difference, fixture, random_inputs};

/// Largest difference to onnxruntime, relative to the largest output.
const BOUND: f64 = 1e-3;
/// Signal to quantisation noise of a mix with the int8 DSP in it, on inputs that calibration has not seen: that of `dsp_models.rs`.
const DSP_DB: f64 = 15.0;
/// Random mixes of each network.
const MIXES: usize = 3;
/// Cuts asked for; a network has one segment more, if all are legal.
const CUTS: usize = 3;

fn seed() -> u64 {
    std::env::var("SEED").map_or(1, |s| s.parse().expect("SEED is a number"))
}

/// The processors of the table with these names, in this order; the first one is the cpu, where others fall back to.
fn processors(names: &[&str]) -> Vec<Arc<dyn Processor>> {
    let options = Options { dsp_command: dsp_common::options().dsp_command, ..Options::default() };
    let open = |name: &&str| {
        let row = TABLE.iter().find(|r| r.name == *name).expect("a row of the table");
        (row.open)(&options).unwrap_or_else(|e| panic!("{e}"))
    };
    names.iter().map(open).collect()
}

fn zoo_model(name: &str) -> Graph {
    let row = zoo::TABLE.iter().find(|r| r.name == name).expect("a zoo model");
    let resolution = if row.resolution == 0 { None } else { Some(64) };
    let bytes = zoo::bytes(name, &zoo::Options { seed: 11, resolution }).unwrap();
    onnx::from_bytes(name, &bytes, &BTreeMap::new()).unwrap()
}

fn whole(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    cpu::reference(graph).unwrap().run(&inputs.iter().collect::<Vec<_>>()).unwrap()
}

/// A network cut at random places, each segment ready on each processor that supports it.
struct Cut {
    segments: Vec<Segment>,
    chain: Chain,
    /// `[segment][processor]`.
    instances: Vec<Vec<Option<Box<dyn Instance>>>>,
}

impl Cut {
    /// `samples` are inputs of the whole network, for processors that calibrate.
    fn new(
        graph: &Graph,
        processors: &[Arc<dyn Processor>],
        rng: &mut Pcg64Mcg,
        samples: &[Vec<Tensor>],
        cuts: usize,
    ) -> Cut {
        let supports = |node: &Node| {
            let able = |(i, p): (usize, &Arc<dyn Processor>)| u64::from(p.supports(graph, node).is_ok()) << i;
            processors.iter().enumerate().map(able).sum()
        };
        let positions: Vec<usize> = (0..cuts).map(|_| rng.random_range(1..graph.nodes.len())).collect();
        let segments = split_at(graph, &supports, &positions);
        let chain = Chain::new(graph, &segments);
        let seen = seen_by(&chain, &segments, samples);
        let mut instances = Vec::new();
        for (segment, seen) in segments.iter().zip(&seen) {
            assert_eq!(segment.supported & 1, 1, "{}: the cpu runs everything", segment.graph.name);
            let ready = |(i, p): (usize, &Arc<dyn Processor>)| {
                (segment.supported >> i & 1 == 1).then(|| {
                    let prepared = p.prepare(&segment.graph, seen);
                    let name = &segment.graph.name;
                    prepared.and_then(|p| p.spawn()).unwrap_or_else(|e| panic!("{name}: {e}"))
                })
            };
            instances.push(processors.iter().enumerate().map(ready).collect());
        }
        Cut { segments, chain, instances }
    }

    /// Runs segment `s` on processor `mix[s]`, or on the cpu where that one does not support it; `spoil` sees every output.
    fn run(&mut self, mix: &[usize], inputs: &[Tensor], spoil: &dyn Fn(usize, &mut [Tensor])) -> Vec<Tensor> {
        let mut values = self.chain.start(inputs.iter().cloned().map(Arc::new).collect()).unwrap();
        for (s, row) in self.instances.iter_mut().enumerate() {
            let place = if row[mix[s]].is_some() { mix[s] } else { 0 };
            let instance = row[place].as_mut().expect("the cpu runs everything");
            let mut outputs = instance.run(&self.chain.inputs(&values, s).unwrap()).unwrap();
            spoil(s, &mut outputs);
            self.chain.finish(&mut values, s, outputs).unwrap();
        }
        self.chain.outputs(&values).unwrap()
    }

    fn random_mix(&self, rng: &mut Pcg64Mcg, processors: usize) -> Vec<usize> {
        (0..self.segments.len()).map(|_| rng.random_range(0..processors)).collect()
    }
}

/// What each segment reads for each sample: `[segment][sample]`.
fn seen_by(chain: &Chain, segments: &[Segment], samples: &[Vec<Tensor>]) -> Vec<Vec<Vec<Tensor>>> {
    let mut seen = vec![Vec::new(); segments.len()];
    for sample in samples {
        let mut values = chain.start(sample.iter().cloned().map(Arc::new).collect()).unwrap();
        for (s, segment) in segments.iter().enumerate() {
            let inputs: Vec<Tensor> = chain.inputs(&values, s).unwrap().into_iter().cloned().collect();
            chain.finish(&mut values, s, whole(&segment.graph, &inputs)).unwrap();
            seen[s].push(inputs);
        }
    }
    seen
}

const HONEST: &dyn Fn(usize, &mut [Tensor]) = &|_, _| {};

/// One network on every processor alone and on random mixes.
fn check(graph: &Graph, processors: &[Arc<dyn Processor>]) {
    let seed = seed();
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let begun = std::time::Instant::now();
    let mut cut = Cut::new(graph, processors, &mut rng, &[], CUTS);
    let n = cut.segments.len();
    let mut mixes: Vec<Vec<usize>> = (0..processors.len()).map(|p| vec![p; n]).collect();
    mixes.extend((0..MIXES).map(|_| cut.random_mix(&mut rng, processors.len())));
    let mut worst = 0.0f64;
    for (i, mix) in mixes.iter().enumerate() {
        let inputs = random_inputs(graph, seed.wrapping_add(i as u64));
        let off = difference(&cut.run(mix, &inputs, HONEST), &whole(graph, &inputs));
        let names: Vec<_> = mix.iter().map(|&p| processors[p].name()).collect();
        assert!(off < BOUND, "{} on {names:?}: off by {off:e}, SEED={seed}", graph.name);
        worst = worst.max(off);
    }
    let fallen = cut.instances.iter().flatten().filter(|i| i.is_none()).count();
    println!(
        "{}: {n} segments, {} mixes, off by at most {worst:.1e}, {fallen} fall back, {:.1} s",
        graph.name,
        mixes.len(),
        begun.elapsed().as_secs_f64()
    );
}

fn gpus_and_cpu() -> &'static [Arc<dyn Processor>] {
    static OPEN: OnceLock<Vec<Arc<dyn Processor>>> = OnceLock::new();
    OPEN.get_or_init(|| processors(&["cpu", "wgpu", "opencl"]))
}

fn wanted(name: &str) -> bool {
    std::env::var("ONLY").map_or(true, |only| name.contains(&only))
}

#[test]
fn every_zoo_model_on_any_mix_is_the_whole_model() {
    for row in zoo::TABLE.iter().filter(|r| wanted(r.name)) {
        check(&zoo_model(row.name), gpus_and_cpu());
    }
}

#[test]
fn every_pytorch_export_on_any_mix_is_the_whole_model() {
    for name in FIXTURES.iter().filter(|n| wanted(n)) {
        check(&fixture(name), gpus_and_cpu());
    }
}

#[test]
fn unsupported_segments_fall_back_and_the_whole_is_right() {
    // The DSP has no Abs, Elu, Max and Neg, so some segments of this network must go elsewhere whatever the mix says; int8 is in the
    // others, so their bound is the DSP's.
    let processors = processors(&["cpu", "dsp"]);
    let (graph, seed) = (fixture("unet"), seed());
    let mut numbers = dsp_common::Rng::new(seed);
    let mut normal = || dsp_common::samples(&mut numbers, &graph, 2);
    let (samples, unseen) = (normal(), normal());
    let mut cut = Cut::new(&graph, &processors, &mut Pcg64Mcg::seed_from_u64(seed), &samples, 60);
    let (n, fallen) = (cut.segments.len(), cut.instances.iter().filter(|row| row[1].is_none()).count());
    let want: Vec<Tensor> = unseen.iter().flat_map(|i| whole(&graph, i)).collect();
    let got: Vec<Tensor> = unseen.iter().flat_map(|i| cut.run(&vec![1; n], i, HONEST)).collect();
    let db = dsp_common::sqnr(&want, &got);
    println!("{fallen} of {n} segments fall back from the dsp, {db:.1} dB");
    assert!(fallen > 0 && fallen < n && db >= DSP_DB, "{fallen} of {n}, {db:.1} dB, SEED={seed}");
    // An already quantised network has operators that no GPU kernel is there for: all of it falls back, and is right.
    let quantised = onnx::load(&support::data("odd/mobile_qdq.onnx"), &BTreeMap::new()).unwrap();
    check(&quantised, gpus_and_cpu());
}

#[test]
fn mixes_with_the_dsp_keep_its_bound() {
    let processors = processors(&["cpu", "wgpu", "opencl", "dsp"]);
    for name in ["kws", "squeezenet1_1"].into_iter().filter(|n| wanted(n)) {
        let (graph, seed) = (zoo_model(name), seed());
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let normal = |rng: &mut dsp_common::Rng| dsp_common::samples(rng, &graph, 4);
        let mut numbers = dsp_common::Rng::new(seed);
        let (samples, unseen) = (normal(&mut numbers), normal(&mut numbers));
        let mut cut = Cut::new(&graph, &processors, &mut rng, &samples, CUTS);
        let mut mixes = vec![vec![3; cut.segments.len()]];
        for _ in 0..MIXES {
            let mut mix = cut.random_mix(&mut rng, processors.len());
            let on_dsp = rng.random_range(0..mix.len());
            mix[on_dsp] = 3;
            mixes.push(mix);
        }
        for mix in &mixes {
            let want: Vec<Tensor> = unseen.iter().flat_map(|i| whole(&graph, i)).collect();
            let got: Vec<Tensor> = unseen.iter().flat_map(|i| cut.run(mix, i, HONEST)).collect();
            let db = dsp_common::sqnr(&want, &got);
            println!("{name} on {mix:?}: {db:.1} dB");
            assert!(db >= DSP_DB, "{name} on {mix:?} (3 is the dsp): {db:.1} dB, SEED={seed}");
        }
    }
}

/// Swaps the first two different weights of one shape in a segment.
fn with_swapped_weights(segment: &Graph) -> Option<Graph> {
    let ids: Vec<_> = segment.constants.keys().copied().collect();
    for (i, a) in ids.iter().enumerate() {
        for b in &ids[i + 1..] {
            let (x, y) = (&segment.constants[a], &segment.constants[b]);
            if x.shape == y.shape && x.dtype() == y.dtype() && x != y && x.shape.len() > 1 {
                let mut swapped = segment.clone();
                swapped.constants.insert(*a, y.clone());
                swapped.constants.insert(*b, x.clone());
                return Some(swapped);
            }
        }
    }
    None
}

#[test]
fn swapped_weights_and_spoilt_outputs_are_noticed() {
    // The saboteurs. What is wrong: two weights in one segment of one processor, or 2 % on one output of one segment.
    let processors = gpus_and_cpu();
    let graph = fixture("residual");
    let inputs = random_inputs(&graph, 17);
    let want = whole(&graph, &inputs);
    let mut cut = Cut::new(&graph, processors, &mut Pcg64Mcg::seed_from_u64(seed()), &[], CUTS);
    let n = cut.segments.len();
    assert!(n > 1, "the cut must leave something between segments");
    for s in 0..n {
        let spoil = |at: usize, outputs: &mut [Tensor]| {
            if at == s
                && let Data::F32(values) = &mut outputs[0].data
            {
                values.iter_mut().for_each(|v| *v = *v * 1.02 + 0.02);
            }
        };
        let mix: Vec<usize> = (0..n).map(|i| i % processors.len()).collect();
        let off = difference(&cut.run(&mix, &inputs, &spoil), &want);
        assert!(off > BOUND, "a spoilt output of segment {s} passed: {off:e}");
    }
    let mut swapped = 0;
    for s in 0..n {
        let Some(wrong) = with_swapped_weights(&cut.segments[s].graph) else { continue };
        for (p, processor) in processors.iter().enumerate() {
            let right = cut.instances[s][p].replace(processor.prepare(&wrong, &[]).unwrap().spawn().unwrap());
            let off = difference(&cut.run(&vec![p; n], &inputs, HONEST), &want);
            assert!(off > BOUND, "swapped weights of segment {s} on {} passed: {off:e}", processor.name());
            cut.instances[s][p] = right;
            swapped += 1;
        }
    }
    assert!(swapped > 0, "no segment has two weights of one shape");
    let off = difference(&cut.run(&vec![1; n], &inputs, HONEST), &want);
    assert!(off < BOUND, "the honest run must pass: {off:e}");
}
