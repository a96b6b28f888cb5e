//! A GPU device that its driver gives up: the run fails and says that the device died, tensors that lay there are gone and said to be,
//! and the next run opens the device again and is right. It refuses an instance that only says that it works again.

mod support;

use cosched_executors::chain::{Chain, Room, Values};
use cosched_executors::gpu::device::{Device, Gpu};
use cosched_executors::gpu::opencl::OpenClDevice;
use cosched_executors::gpu::wgpu::WgpuDevice;
use cosched_executors::graph::Graph;
use cosched_executors::in_segments::even;
use cosched_executors::processor::{ExecError, Instance, Processor};
use cosched_executors::stop::Stop;
use cosched_executors::tensor::Tensor;
use cosched_executors::{cpu, onnx, zoo};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{difference, random_inputs};

/// Largest difference to onnxruntime, relative to the largest output.
const BOUND: f64 = 1e-4;
const SEGMENTS: usize = 3;

struct Rig {
    graph: Graph,
    chain: Chain,
    instances: Vec<Box<dyn Instance>>,
    wanted: Vec<Tensor>,
}

impl Rig {
    fn new(gpu: &dyn Processor) -> Rig {
        let options = zoo::Options { seed: 5, resolution: Some(64) };
        let bytes = zoo::bytes("squeezenet1_1", &options).unwrap();
        let graph = onnx::from_bytes("squeezenet1_1", &bytes, &BTreeMap::new()).unwrap();
        let segments = even(&graph, SEGMENTS);
        assert_eq!(segments.len(), SEGMENTS);
        let instances = segments.iter().map(|s| gpu.prepare(&s.graph, &[]).unwrap().spawn().unwrap());
        let (instances, chain) = (instances.collect(), Chain::new(&graph, &segments));
        let inputs = random_inputs(&graph, 3);
        let wanted = cpu::reference(&graph).unwrap().run(&inputs.iter().collect::<Vec<_>>()).unwrap();
        Rig { graph, chain, instances, wanted }
    }

    fn start(&self) -> Values {
        let inputs = random_inputs(&self.graph, 3).into_iter().map(Arc::new).collect();
        self.chain.start(inputs).unwrap()
    }

    fn advance(&mut self, values: &mut Values, segment: usize) -> Result<(), ExecError> {
        let instance = &mut *self.instances[segment];
        self.chain.advance(values, segment, instance, &mut Room::default(), &Stop::default())?;
        self.instances[segment].finish()
    }

    /// The whole network once; how far it is off.
    fn off(&mut self) -> f64 {
        let mut values = self.start();
        (0..SEGMENTS).for_each(|s| self.advance(&mut values, s).unwrap());
        difference(&self.chain.outputs(&values).unwrap(), &self.wanted)
    }

    fn stale(&self) -> usize {
        self.instances.iter().filter(|i| i.stale()).count()
    }
}

/// `says`: whether the device really goes, and tells the run that meets it. Else it only counts as lost, and can still be read.
fn comes_back<D: Device>(gpu: &Gpu<D>, says: bool) {
    let mut rig = Rig::new(gpu);
    let (device, traffic) = (gpu.device(), gpu.traffic());
    assert!(rig.off() < BOUND && rig.stale() == 0);
    for _ in 0..3 {
        let mut values = rig.start();
        rig.advance(&mut values, 0).unwrap();
        let mut later = values.clone();
        gpu.lose();
        let met = rig.advance(&mut values, 1);
        if says {
            assert!(
                matches!(&met, Err(ExecError::Died { processor, .. }) if processor == D::NAME),
                "{met:?}"
            );
            // What it had computed is gone with it, which is said to whoever asks for it next.
            let gone = rig.advance(&mut later, 1).unwrap_err().to_string();
            assert!(gone.contains("left there and cannot be read"), "{gone}");
        } else {
            met.unwrap();
        }
        assert!(rig.stale() >= SEGMENTS - 1, "{} of {SEGMENTS} know of it", rig.stale());
        assert!(rig.off() < BOUND, "{}", rig.off());
        assert_eq!(rig.stale(), 0);
        assert_eq!(gpu.device(), device);
    }
    // A segment that is prepared after a loss is prepared on a device that is there.
    gpu.lose();
    let mut values = rig.start();
    let _ = rig.advance(&mut values, 0);
    assert!(Rig::new(gpu).off() < BOUND);
    assert!(gpu.traffic().uploads > traffic.uploads, "the counters go on");
}

#[test]
fn a_lost_device_is_opened_again_on_wgpu() {
    comes_back(&Gpu::new(WgpuDevice::open(None).unwrap()), true);
}

#[test]
fn a_lost_device_is_opened_again_on_opencl() {
    comes_back(&Gpu::new(OpenClDevice::open(None).unwrap()), false);
}
