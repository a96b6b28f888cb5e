//! A run that nobody wants any more ends at the next operator or dispatch, on every processor: judged by operators or by CPU time in
//! proportion to a whole run, never by the clock. The next run is right. It refuses a processor that does not listen.

mod dsp_common;

use cosched_executors::chain::{Chain, Room};
use cosched_executors::dsp::Dsp;
use cosched_executors::graph::Graph;
use cosched_executors::held::Held;
use cosched_executors::in_segments::even;
use cosched_executors::processor::{self, ExecError, Instance, Options, Processor};
use cosched_executors::segment::Segment;
use cosched_executors::stop::Stop;
use cosched_executors::tensor::Tensor;
use dsp_common::{Build, Rng, dsp, long_graph, reference, samples, sqnr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Runs that may end before the stop comes, on a machine that is busy with other things.
const TRIES: usize = 20;
/// Of what does listen one is enough, and most need one or two: where the machine is very busy, many.
const PATIENT: usize = 500;

/// So many convolutions, one after the other.
fn chain(channels: usize, side: usize, layers: usize) -> Graph {
    let (mut rng, mut b) = (Rng::new(5), Build::new("chain"));
    let mut x = b.input(&[1, channels, side, side]);
    for _ in 0..layers {
        x = b.conv(&mut rng, x, channels, 3, 1, 1);
        x = b.same("Relu", &[x]);
    }
    b.done(&[x])
}

/// A graph in segments, one after the other without waiting in between.
struct InTurn {
    chain: Chain,
    instances: Vec<Box<dyn Instance>>,
}

impl InTurn {
    fn new(processor: &dyn Processor, graph: &Graph, most: usize) -> InTurn {
        let segments = even(graph, most);
        assert_eq!(segments.len(), most);
        let spawn = |s: &Segment| processor.prepare(&s.graph, &[]).unwrap().spawn().unwrap();
        InTurn { chain: Chain::new(graph, &segments), instances: segments.iter().map(spawn).collect() }
    }
}

impl Instance for InTurn {
    fn advance(
        &mut self,
        inputs: &[Held],
        _: &[bool],
        outputs: &mut Vec<Held>,
        stop: &Stop,
    ) -> Result<(), ExecError> {
        let inputs = inputs.iter().map(|held| held.host().cloned()).collect::<Result<_, _>>()?;
        let mut values = self.chain.start(inputs)?;
        for (s, instance) in self.instances.iter_mut().enumerate() {
            self.chain.advance(&mut values, s, &mut **instance, &mut Room::default(), stop)?;
        }
        outputs.extend(self.chain.shared_outputs(&values)?.into_iter().map(Held::Host));
        Ok(())
    }
}

/// A processor at work: what tells that a run has begun, and what runs have cost so far.
struct Rig<'a> {
    instance: Box<dyn Instance + 'a>,
    inputs: Vec<Held>,
    begun: &'a (dyn Fn(&Stop) -> bool + Sync),
    cost: &'a dyn Fn() -> f64,
}

impl Rig<'_> {
    fn run(&mut self, stop: &Stop) -> Result<Vec<Tensor>, ExecError> {
        let mut outputs = Vec::new();
        let ran = self.instance.advance(&self.inputs, &[], &mut outputs, stop);
        assert!(ran.is_ok() || outputs.is_empty(), "outputs of a run that failed");
        ran?;
        outputs.iter().map(|held| held.host().map(|tensor| Tensor::clone(tensor))).collect()
    }

    fn whole(&mut self) -> (Vec<Tensor>, f64) {
        let before = (self.cost)();
        let outputs = self.run(&Stop::default()).unwrap();
        (outputs, (self.cost)() - before)
    }

    /// Stops a run as soon as it has begun. What it cost, if it was stopped before its end.
    fn stopped(&mut self) -> Option<f64> {
        let (stop, over, begun) = (Stop::default(), AtomicBool::new(false), self.begun);
        let before = (self.cost)();
        let ran = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !begun(&stop) && !over.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                stop.stop();
            });
            let ran = self.run(&stop);
            over.store(true, Ordering::SeqCst);
            ran
        });
        match ran {
            Ok(_) => None,
            Err(ExecError::Stopped { .. }) => Some((self.cost)() - before),
            Err(other) => panic!("{other}"),
        }
    }

    /// Whether some run of so many that are stopped costs less than half of a whole one.
    fn listens(&mut self, whole: f64, tries: usize) -> bool {
        (0..tries).any(|_| self.stopped().is_some_and(|cost| cost < whole / 2.0))
    }

    fn check(mut self, what: &str) -> Vec<Tensor> {
        let (want, _) = self.whole();
        let (again, whole) = self.whole();
        assert_eq!(want, again, "{what} is not the same twice");
        assert!(
            self.listens(whole, PATIENT),
            "{what} runs on for an answer that nobody wants; a whole run: {whole}"
        );
        assert_eq!(self.whole().0, want, "{what} is wrong after a run that was stopped");
        let (never, before) = (Stop::default(), (self.cost)());
        never.stop();
        assert!(matches!(self.run(&never), Err(ExecError::Stopped { .. })), "{what} begins");
        assert!((self.cost)() - before < whole / 2.0);
        // The saboteur: one that does not listen is found.
        let deaf: Box<dyn Instance> = Box::new(Deaf(self.instance));
        assert!(
            !Rig { instance: deaf, ..self }.listens(whole, TRIES),
            "{what}: one that does not listen passes"
        );
        want
    }
}

/// Does not hear of stops.
struct Deaf<'a>(Box<dyn Instance + 'a>);

impl Instance for Deaf<'_> {
    fn advance(
        &mut self,
        inputs: &[Held],
        home: &[bool],
        outputs: &mut Vec<Held>,
        _: &Stop,
    ) -> Result<(), ExecError> {
        self.0.advance(inputs, home, outputs, &Stop::default())
    }
}

fn held(inputs: &[Tensor]) -> Vec<Held> {
    inputs.iter().cloned().map(Held::from).collect()
}

fn open(name: &str) -> Arc<dyn Processor> {
    (processor::row(name).unwrap().open)(&Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// CPU seconds of this thread, which computes.
#[cfg(target_os = "linux")]
fn thread_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_on_the_cpu_stops_at_the_next_operator() {
    let graph = chain(64, 64, 60);
    let inputs = samples(&mut Rng::new(9), &graph, 1).remove(0);
    let instance = open("cpu").prepare(&graph, &[]).unwrap().spawn().unwrap();
    Rig { instance, inputs: held(&inputs), begun: &Stop::is_running, cost: &thread_seconds }.check("cpu");
}

/// Counts kernels, of the graph whole and in segments.
fn on_gpu(name: &str, graph: &Graph) {
    let processor = open(name);
    let whole = processor.prepare(graph, &[]).unwrap().spawn().unwrap();
    on_this_gpu(&*processor, graph, whole);
    let mut parts = InTurn::new(&*processor, graph, 8);
    let left = (0..TRIES).map(|_| left(&mut parts, graph)).fold(f64::INFINITY, f64::min);
    assert!(left < 0.5, "{name}: {left} of a launch were still queued when nobody wanted the rest");
    on_this_gpu(&*processor, graph, Box::new(parts));
}

/// The share of the time of a launch that passes after its segments but the last were queued, until they have ended.
fn left(parts: &mut InTurn, graph: &Graph) -> f64 {
    let inputs = samples(&mut Rng::new(9), graph, 1).remove(0);
    let mut values = parts.chain.start(inputs.into_iter().map(Arc::new).collect()).unwrap();
    let (stop, begun, last) = (Stop::default(), Instant::now(), parts.instances.len() - 1);
    for (s, instance) in parts.instances[..last].iter_mut().enumerate() {
        parts.chain.advance(&mut values, s, &mut **instance, &mut Room::default(), &stop).unwrap();
    }
    let queued = begun.elapsed();
    stop.stop();
    let instance = &mut *parts.instances[last];
    let ran = parts.chain.advance(&mut values, last, instance, &mut Room::default(), &stop);
    assert!(matches!(ran, Err(ExecError::Stopped { .. })));
    1.0 - queued.as_secs_f64() / begun.elapsed().as_secs_f64()
}

fn on_this_gpu(processor: &dyn Processor, graph: &Graph, instance: Box<dyn Instance>) {
    let (name, inputs) = (processor.name(), samples(&mut Rng::new(9), graph, 1).remove(0));
    let seen = std::sync::Mutex::new(processor.traffic().uploads);
    // The input goes there before the first kernel.
    let begun = |_: &Stop| {
        let mut seen = seen.lock().unwrap();
        let now = processor.traffic().uploads;
        std::mem::replace(&mut *seen, now) < now
    };
    let cost = || {
        *seen.lock().unwrap() = processor.traffic().uploads;
        processor.traffic().dispatches as f64
    };
    let got = Rig { instance, inputs: held(&inputs), begun: &begun, cost: &cost }.check(name);
    assert!(sqnr(&reference(graph, &inputs), &got) > 60.0, "{name} is not what onnxruntime gives");
}

#[test]
fn a_run_on_wgpu_stops_between_dispatches() {
    on_gpu("wgpu", &chain(16, 32, 150));
}

#[test]
fn a_run_on_opencl_stops_between_dispatches() {
    on_gpu("opencl", &chain(64, 64, 60));
}

/// CPU time of the worker's process, in the system's ticks.
#[cfg(target_os = "linux")]
fn ticks(dsp: &Dsp) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", dsp.worker_pid().unwrap())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_on_the_dsp_stops_at_the_next_operator_and_its_process_lives_on() {
    let (dsp, graph) = (dsp(), long_graph());
    let worker = dsp.worker_pid();
    let samples = samples(&mut Rng::new(9), &graph, 1);
    let instance = dsp.prepare(&graph, &samples).unwrap().spawn().unwrap();
    let cost = || ticks(&dsp);
    Rig { instance, inputs: held(&samples[0]), begun: &Stop::is_running, cost: &cost }.check("dsp");
    assert_eq!((dsp.worker_pid(), dsp.restarts()), (worker, 0));
}
