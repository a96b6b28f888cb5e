//! Tensors stay where they were made: what goes between the host and a processor when a chain of segments runs, counted, and what is
//! left when a request has ended. It refuses to take a counter's word alone: every answer is compared with the whole model's.

mod support;

use cosched_executors::chain::{Chain, Room, Values};
use cosched_executors::graph::{Graph, ValueId};
use cosched_executors::held::{Held, Traffic};
use cosched_executors::in_segments::even;
use cosched_executors::processor::{Instance, Options, Processor, row};
use cosched_executors::segment::Segment;
use cosched_executors::stop::Stop;
use cosched_executors::tensor::Tensor;
use cosched_executors::{cpu, onnx, zoo};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use support::{difference, random_inputs};

/// The cpu and the GPU processors, opened once for all tests of this file.
static PROCESSORS: LazyLock<Vec<Arc<dyn Processor>>> = LazyLock::new(|| {
    let open = |name| (row(name).unwrap().open)(&Options::default()).unwrap_or_else(|e| panic!("{e}"));
    ["cpu", "wgpu", "opencl"].map(open).into()
});

/// One test at a time runs: the counters are of whole processors.
static COUNTING: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Largest difference to onnxruntime, relative to the largest output.
const BOUND: f64 = 1e-4;

struct Rig {
    graph: Graph,
    segments: Vec<Segment>,
    chain: Chain,
    /// `[segment][processor]`.
    instances: Vec<Vec<Box<dyn Instance>>>,
}

impl Rig {
    fn new() -> Rig {
        let bytes = zoo::bytes("mobilenet_v2", &zoo::Options { seed: 5, resolution: Some(64) }).unwrap();
        let graph = onnx::from_bytes("mobilenet_v2", &bytes, &BTreeMap::new()).unwrap();
        let segments = even(&graph, 8);
        assert_eq!(segments.len(), 8);
        let ready = |s: &Segment| {
            PROCESSORS.iter().map(|p| p.prepare(&s.graph, &[]).unwrap().spawn().unwrap()).collect()
        };
        let instances = segments.iter().map(ready).collect();
        Rig { chain: Chain::new(&graph, &segments), graph, segments, instances }
    }

    fn start(&self, seed: u64) -> Values {
        self.chain.start(random_inputs(&self.graph, seed).into_iter().map(Arc::new).collect()).unwrap()
    }

    fn advance(&mut self, values: &mut Values, segment: usize, processor: usize) {
        let instance = &mut *self.instances[segment][processor];
        self.chain.advance(values, segment, instance, &mut Room::default(), &Stop::default()).unwrap();
    }

    fn want(&self, seed: u64) -> Vec<Tensor> {
        let inputs = random_inputs(&self.graph, seed);
        cpu::reference(&self.graph).unwrap().run(&inputs.iter().collect::<Vec<_>>()).unwrap()
    }

    /// What went to and from all processors while one request ran, segment `s` on processor `mix[s]`; `through_host`: the wrong way.
    fn traffic(&mut self, mix: &[usize], through_host: bool) -> Vec<Traffic> {
        let before: Vec<Traffic> = PROCESSORS.iter().map(|p| p.traffic()).collect();
        let mut values = self.start(3);
        for (s, &p) in mix.iter().enumerate() {
            if through_host {
                let outputs = self.instances[s][p].run(&self.chain.inputs(&values, s).unwrap()).unwrap();
                self.chain.finish(&mut values, s, outputs).unwrap();
            } else {
                self.advance(&mut values, s, p);
            }
        }
        let got = self.chain.outputs(&values).unwrap();
        assert!(difference(&got, &self.want(3)) < BOUND);
        PROCESSORS.iter().zip(before).map(|(p, before)| p.traffic().since(before)).collect()
    }

    fn bytes(&self, ids: &[ValueId]) -> u64 {
        ids.iter().map(|&id| self.graph.value(id).bytes() as u64).sum()
    }

    /// Tensors that must cross: (to, from) each processor, where each crosses once.
    fn crossing(&self, mix: &[usize]) -> Vec<(u64, u64)> {
        let mut made: BTreeMap<&str, usize> = BTreeMap::new();
        let mut crossings = vec![(0, 0); PROCESSORS.len()];
        let mut brought: BTreeSet<&str> = BTreeSet::new();
        for (segment, &p) in self.segments.iter().zip(mix) {
            let name = |id: &ValueId| segment.graph.values[id.0 as usize].name.as_str();
            for name in segment.graph.inputs.iter().map(name) {
                let from = made.get(name).copied().unwrap_or(0);
                crossings[p].0 += u64::from(p != 0 && from != p);
                crossings[from].1 += u64::from(from != 0 && from != p && brought.insert(name));
            }
            made.extend(segment.graph.outputs.iter().map(|id| (name(id), p)));
        }
        for id in &self.graph.outputs {
            let name = self.graph.value(*id).name.as_str();
            let from = made[name];
            crossings[from].1 += u64::from(from != 0 && brought.insert(name));
        }
        crossings
    }
}

#[test]
fn eight_segments_on_one_processor_bring_the_inputs_there_and_the_outputs_back() {
    let _alone = COUNTING.lock().unwrap_or_else(|e| e.into_inner());
    let mut rig = Rig::new();
    let (inputs, outputs) = (rig.graph.inputs.clone(), rig.graph.outputs.clone());
    let least = |t: &Traffic| (t.uploads, t.downloads) == (inputs.len() as u64, outputs.len() as u64);
    for p in [1, 2] {
        let traffic = rig.traffic(&[p; 8], false);
        assert!(least(&traffic[p]), "{:?}", traffic[p]);
        assert_eq!(traffic[p].upload_bytes, rig.bytes(&inputs));
        assert_eq!(traffic[p].download_bytes, rig.bytes(&outputs));
        // Between two segments a tensor is put aside once, and taken by each that reads it.
        let count = |ids: &[ValueId]| ids.len() as u64;
        let moves: u64 = rig.segments.iter().map(|s| count(&s.graph.inputs) + count(&s.graph.outputs)).sum();
        assert_eq!(traffic[p].moves, moves - count(&inputs) - count(&outputs));
        // The saboteur: what goes through the host is counted.
        assert!(!least(&rig.traffic(&[p; 8], true)[p]));
    }
    assert_eq!(rig.traffic(&[0; 8], false), vec![Traffic::default(); 3]);
}

#[test]
fn a_tensor_crosses_to_another_processor_once() {
    let _alone = COUNTING.lock().unwrap_or_else(|e| e.into_inner());
    let mut rig = Rig::new();
    for mix in [[0, 1, 0, 2, 0, 1, 0, 2], [1, 0, 0, 1, 1, 2, 2, 0], [2, 1, 2, 1, 2, 1, 2, 1]] {
        let counted =
            |traffic: Vec<Traffic>| traffic.iter().map(|t| (t.uploads, t.downloads)).collect::<Vec<_>>();
        let must = rig.crossing(&mix);
        assert_eq!(counted(rig.traffic(&mix, false)), must, "{mix:?}");
        // The saboteur: where neighbours are on one processor, the way through the host is seen.
        let alike = mix.windows(2).any(|pair| pair[0] == pair[1] && pair[0] != 0);
        assert_eq!(counted(rig.traffic(&mix, true)) != must, alike, "{mix:?}");
    }
}

#[test]
fn requests_that_take_turns_do_not_disturb_each_other() {
    let _alone = COUNTING.lock().unwrap_or_else(|e| e.into_inner());
    let mut rig = Rig::new();
    for p in [0, 1, 2] {
        let seeds = [11, 12, 13];
        let mut all: Vec<Values> = seeds.iter().map(|&seed| rig.start(seed)).collect();
        for s in 0..8 {
            for values in &mut all {
                rig.advance(values, s, p);
            }
        }
        let got: Vec<_> = all.iter().map(|values| rig.chain.outputs(values).unwrap()).collect();
        for (got, &seed) in got.iter().zip(&seeds) {
            assert!(difference(got, &rig.want(seed)) < BOUND, "{}", PROCESSORS[p].name());
        }
        assert!(difference(&got[0], &got[1]) > BOUND, "requests that are alike show nothing");
    }
}

#[test]
fn what_is_still_in_the_making_is_finished_for_whoever_looks() {
    let _alone = COUNTING.lock().unwrap_or_else(|e| e.into_inner());
    let mut rig = Rig::new();
    for p in [0, 1, 2] {
        for until in 1..8 {
            // Two requests, so that the memory of the first is written again while it may still be read.
            let mut all = [31, 32].map(|seed| rig.start(seed));
            for values in &mut all {
                for s in 0..until {
                    rig.advance(values, s, p);
                }
            }
            // The rest on another processor, which gets what it reads from there.
            for (mut values, seed) in all.into_iter().zip([31, 32]) {
                (until..8).for_each(|s| rig.advance(&mut values, s, (p + 1) % 3));
                let got = rig.chain.outputs(&values).unwrap();
                assert!(difference(&got, &rig.want(seed)) < BOUND, "{} until {until}", PROCESSORS[p].name());
                assert!(difference(&got, &rig.want(33)) > BOUND, "requests that are alike show nothing");
            }
        }
    }
}

#[test]
fn what_ended_is_used_again() {
    let _alone = COUNTING.lock().unwrap_or_else(|e| e.into_inner());
    let mut rig = Rig::new();
    let place = |held: &Held| match held {
        Held::There(resident) => Arc::as_ptr(resident).cast::<u8>(),
        Held::Host(tensor) => Arc::as_ptr(tensor).cast(),
    };
    for p in [0, 1, 2] {
        let mut first = rig.start(21);
        rig.advance(&mut first, 0, p);
        let mut second = rig.start(22);
        rig.advance(&mut second, 0, p);
        let places = |rig: &Rig, values: &mut Values| {
            rig.chain.outputs_of(values, 0).map(|h| place(h)).collect::<BTreeSet<_>>()
        };
        let (a, b) = (places(&rig, &mut first), places(&rig, &mut second));
        assert!(a.is_disjoint(&b), "both requests live");
        drop(first);
        let mut third = rig.start(23);
        rig.advance(&mut third, 0, p);
        assert_eq!(places(&rig, &mut third), a, "{}", PROCESSORS[p].name());
    }
}
