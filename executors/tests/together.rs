//! Both GPU interfaces at work in one process at the same time: every answer is checked and memory stays flat. Five seconds; `SECONDS=600`
//! asks for another length (`make test-together`: ten minutes). It refuses to take the last answers for all of them.

mod support;

use cosched_executors::chain::{Chain, Room};
use cosched_executors::in_segments::even;
use cosched_executors::processor::{ExecError, Instance, Options, Processor, row};
use cosched_executors::stop::Stop;
use cosched_executors::tensor::Tensor;
use cosched_executors::{cpu, onnx, zoo};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::memory::{flat, resident_mb};
use support::{difference, random_inputs};

/// Largest difference to onnxruntime, relative to the largest output.
const BOUND: f64 = 1e-4;
/// Different inputs of each network, so that an answer of another run is found.
const SEEDS: u64 = 5;
/// Launches that end early, as when a caller goes away: one of so many.
const STOPPED: u64 = 13;

/// A network in segments, with the answers that onnxruntime gives.
struct Network {
    name: &'static str,
    chain: Chain,
    inputs: Vec<Vec<Arc<Tensor>>>,
    wanted: Vec<Vec<Tensor>>,
}

impl Network {
    fn new(name: &'static str, resolution: Option<usize>, gpu: &dyn Processor) -> Ready {
        let bytes = zoo::bytes(name, &zoo::Options { seed: 5, resolution }).unwrap();
        let graph = onnx::from_bytes(name, &bytes, &BTreeMap::new()).unwrap();
        let segments = even(&graph, 3);
        let ready = segments.iter().map(|s| gpu.prepare(&s.graph, &[]).unwrap().spawn().unwrap()).collect();
        let inputs: Vec<Vec<Tensor>> = (0..SEEDS).map(|seed| random_inputs(&graph, seed)).collect();
        let mut whole = cpu::reference(&graph).unwrap();
        let wanted = inputs.iter().map(|i| whole.run(&i.iter().collect::<Vec<_>>()).unwrap()).collect();
        let inputs = inputs.into_iter().map(|i| i.into_iter().map(Arc::new).collect()).collect();
        (Network { name, chain: Chain::new(&graph, &segments), inputs, wanted }, ready)
    }

    /// What a run with the inputs of `seed` gives.
    fn run(
        &self,
        seed: usize,
        instances: &mut [Box<dyn Instance>],
        room: &mut Room,
        stop: &Stop,
    ) -> Result<Vec<Tensor>, ExecError> {
        let mut values = self.chain.start(self.inputs[seed].clone())?;
        for (s, instance) in instances.iter_mut().enumerate() {
            self.chain.advance(&mut values, s, &mut **instance, room, stop)?;
        }
        self.chain.outputs(&values)
    }

    fn is_right(&self, seed: usize, got: &[Tensor]) -> bool {
        difference(got, &self.wanted[seed]) < BOUND
    }
}

/// A network on a processor.
type Ready = (Network, Vec<Box<dyn Instance>>);

/// Runs networks in turn until `end`; counts the answers.
fn work(name: &str, mut networks: [Ready; 2], end: Instant, answers: &AtomicU64) {
    let mut room = Room::default();
    for turn in 0.. {
        let (network, instances) = &mut networks[turn % 2];
        let seed = turn / 2 % SEEDS as usize;
        if (turn as u64).is_multiple_of(STOPPED) {
            let stop = Stop::default();
            stop.stop();
            let ended = network.run(seed, instances, &mut room, &stop);
            assert!(matches!(ended, Err(ExecError::Stopped { .. })), "{name}: {ended:?}");
        }
        let got = network.run(seed, instances, &mut room, &Stop::default());
        let got = got.unwrap_or_else(|e| panic!("{name}, {}, turn {turn}: {e}", network.name));
        assert!(network.is_right(seed, &got), "{name}, {}, turn {turn}: a wrong answer", network.name);
        // The saboteur: the answer to another input is not this one.
        assert!(!network.is_right((seed + 1) % SEEDS as usize, &got), "{name}: any answer is good enough");
        answers.fetch_add(1, Ordering::Relaxed);
        if Instant::now() > end {
            return;
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn both_gpu_interfaces_work_side_by_side_in_one_process() {
    let seconds = std::env::var("SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(5.0);
    let gpus = ["wgpu", "opencl"].map(|name| {
        let opened = (row(name).unwrap().open)(&Options::default());
        (name, opened.unwrap_or_else(|e| panic!("{e}")), AtomicU64::new(0))
    });
    // Compiled before the time begins.
    let ready = gpus.each_ref().map(|(_, gpu, _)| {
        [Network::new("kws_small", None, &**gpu), Network::new("squeezenet1_1", Some(64), &**gpu)]
    });
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut samples = Vec::new();
    std::thread::scope(|scope| {
        let working: Vec<_> = gpus
            .iter()
            .zip(ready)
            .map(|((name, _, n), ready)| scope.spawn(move || work(name, ready, end, n)))
            .collect();
        while working.iter().any(|w| !w.is_finished()) {
            std::thread::sleep(Duration::from_secs_f64(seconds / 100.0));
            // From when both have answered.
            if gpus.iter().all(|(.., n)| n.load(Ordering::Relaxed) > 10) {
                samples.push(resident_mb(std::process::id()));
            }
        }
    });
    for (name, gpu, n) in &gpus {
        let (n, traffic) = (n.load(Ordering::Relaxed), gpu.traffic());
        println!("{name}: {n} answers, {} kernels, all right", traffic.dispatches);
        assert!(n > 1);
    }
    if samples.len() >= 30 {
        let (before, after) = flat(&samples).unwrap_or_else(|grown| panic!("memory grows: {grown}"));
        println!("memory: at most {before:.1} MB in the first third, {after:.1} MB in the rest");
    }
}

#[test]
fn memory_that_grows_is_found() {
    let grows = |by: f64| (0..90).map(|i| 300.0 + by * f64::from(i) / 90.0).collect::<Vec<_>>();
    assert!(flat(&grows(5.0)).is_ok());
    assert!(flat(&grows(60.0)).is_err());
}
