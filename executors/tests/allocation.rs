//! A launch in the steady state allocates nothing of ours on cpu, wgpu and opencl: counted by the allocator of this test, which asks the
//! stack who wanted the memory. What wgpu allocates for a submission is counted beside it, and must not grow.
//! It refuses to count what C libraries (onnxruntime, drivers) allocate: that never comes to Rust's allocator.

mod support;

use cosched_executors::chain::{Chain, Room, Values};
use cosched_executors::graph::{Graph, Node, Value, ValueId};
use cosched_executors::in_segments::even;
use cosched_executors::processor::{Instance, Options, Processor, row};
use cosched_executors::stop::Stop;
use cosched_executors::tensor::DType;
use cosched_executors::{onnx, zoo};
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::random_inputs;

thread_local! {
    /// Allocations of this thread while `WATCH` is not `Off`.
    static ALL: Cell<usize> = const { Cell::new(0) };
    static WATCH: Cell<Watch> = const { Cell::new(Watch::Off) };
    /// Who wanted what was ours, when it was asked.
    static OURS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Copy, PartialEq)]
enum Watch {
    Off,
    /// Count.
    Count,
    /// Count, and ask the stack whose each is. Slow.
    Ask,
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn seen() {
    let watch = WATCH.with(Cell::get);
    if watch == Watch::Off {
        return;
    }
    ALL.with(|all| all.set(all.get() + 1));
    if watch == Watch::Ask {
        // What follows allocates too.
        WATCH.with(|w| w.set(Watch::Off));
        if let Some(place) = ours(&Backtrace::force_capture().to_string()) {
            OURS.with(|ours| ours.borrow_mut().push(place));
        }
        WATCH.with(|w| w.set(Watch::Ask));
    }
}

// SAFETY: everything is left to the system's allocator; counting touches nothing but this thread's own cells.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        seen();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        seen();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Crates whose allocations are theirs, though our call leads there.
const DRIVERS: &[&str] = &["wgpu", "ash", "gpu-", "naga", "opencl3", "cl3", "ort"];
/// The innermost function of a stack that is neither the language's nor a small helper's: its name and place if it is ours. Its place says
/// whose a function is, for names have no crate where there are line tables; other people's code has none, and there the name says it.
fn ours(stack: &str) -> Option<String> {
    let mut frames: Vec<(&str, Option<&str>)> = Vec::new();
    for line in stack.lines().map(str::trim_start) {
        match (line.strip_prefix("at "), frames.last_mut()) {
            (Some(place), Some(frame)) => frame.1 = Some(place),
            _ => frames.push((line.split_once(": ").map_or(line, |(_, name)| name), None)),
        }
    }
    let in_allocator = |place: Option<&str>| place.is_some_and(|p| p.contains("tests/allocation.rs"));
    // Within what takes the stack, within this file's allocator, behind it.
    let allocator = frames.iter().skip_while(|frame| !in_allocator(frame.1));
    for (name, place) in allocator.skip_while(|frame| in_allocator(frame.1)) {
        let krate = match place {
            Some(place) if place.starts_with("/rustc/") => continue,
            Some(place) => match place.split_once("/registry/src/") {
                Some((_, outside)) => outside.split('/').nth(1).unwrap_or(outside),
                None => return Some(format!("{name} at {place}")),
            },
            None => name.trim_start_matches(['<', '&']),
        };
        if DRIVERS.iter().any(|driver| krate.starts_with(driver)) {
            return None;
        }
    }
    None
}

/// A network in segments on one processor.
struct Rig {
    chain: Chain,
    instances: Vec<Box<dyn Instance>>,
    start: Values,
    values: Values,
    room: Room,
    stop: Stop,
}

/// Two kernels, so that asking every stack does not take minutes.
fn two_kernels() -> Graph {
    let mut graph = Graph { name: "two".into(), opset: 17, ..Graph::default() };
    for name in ["x", "y", "z"] {
        graph.values.push(Value { name: name.into(), dtype: DType::F32, shape: vec![3, 50] });
    }
    for (op, from) in [("Softmax", 0), ("Tanh", 1)] {
        graph.nodes.push(Node {
            name: op.into(),
            op: op.into(),
            domain: String::new(),
            inputs: vec![Some(ValueId(from))],
            outputs: vec![Some(ValueId(from + 1))],
            attrs: BTreeMap::new(),
        });
    }
    (graph.inputs, graph.outputs) = (vec![ValueId(0)], vec![ValueId(2)]);
    graph
}

fn network() -> Graph {
    let bytes = zoo::bytes("kws_small", &zoo::Options::default()).unwrap();
    onnx::from_bytes("kws_small", &bytes, &BTreeMap::new()).unwrap()
}

impl Rig {
    fn new(processor: &dyn Processor, graph: &Graph, most: usize) -> Rig {
        let segments = even(graph, most);
        assert_eq!(segments.len(), most);
        let chain = Chain::new(graph, &segments);
        let start = chain.start(random_inputs(graph, 3).into_iter().map(Arc::new).collect()).unwrap();
        let ready = segments.iter().map(|s| processor.prepare(&s.graph, &[]).unwrap().spawn().unwrap());
        let mut rig = Rig {
            chain,
            instances: ready.collect(),
            start,
            values: Values::default(),
            room: Room::default(),
            stop: Stop::default(),
        };
        (0..WARM_UP).for_each(|_| rig.launch());
        rig
    }

    /// A launch of all segments, as a worker runs it.
    fn launch(&mut self) {
        self.values.copy(&self.start);
        for (s, instance) in self.instances.iter_mut().enumerate() {
            let instance = &mut **instance;
            self.chain.advance(&mut self.values, s, instance, &mut self.room, &self.stop).unwrap();
        }
    }

    /// What is not the steady state: every run makes new tensors.
    fn launch_with_copies(&mut self) {
        self.values.copy(&self.start);
        for (s, instance) in self.instances.iter_mut().enumerate() {
            let outputs = instance.run(&self.chain.inputs(&self.values, s).unwrap()).unwrap();
            self.chain.finish(&mut self.values, s, outputs).unwrap();
        }
    }
}

/// Allocations of this thread while `work` runs, and the names of those that are ours if they are asked.
fn counted(watch: Watch, work: impl FnOnce()) -> (usize, Vec<String>) {
    ALL.with(|all| all.set(0));
    WATCH.with(|w| w.set(watch));
    work();
    WATCH.with(|w| w.set(Watch::Off));
    (ALL.with(Cell::get), OURS.with(RefCell::take))
}

/// Launches to begin with: buffers are made, wgpu's pools fill.
const WARM_UP: usize = 20;

fn check(processor: &str, drivers_own: bool) {
    let processor = (row(processor).unwrap().open)(&Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let name = processor.name();
    let mut rig = Rig::new(&*processor, &network(), 3);
    // The middle of many: wgpu's own lists grow now and then.
    let mut middle = || {
        let mut all: Vec<usize> = (0..21).map(|_| counted(Watch::Count, || rig.launch()).0).collect();
        all.sort_unstable();
        all[10]
    };
    let (first, later) = (middle(), middle());
    println!("{name}: {first}, then {later} allocations a launch of 3 segments");
    assert!(later <= first, "{name}: {first} allocations a launch, then {later}");
    assert_eq!(first > 0, drivers_own, "{name}: {first}");
    let mut rig = Rig::new(&*processor, &two_kernels(), 2);
    let (all, ours) = counted(Watch::Ask, || rig.launch());
    println!(
        "{name}: {all} allocations a launch of 2 segments of one kernel each, {} of them ours",
        ours.len()
    );
    assert!(ours.is_empty(), "{name}: allocations of ours: {ours:#?}");
    // The saboteur: new tensors are seen, and seen as ours.
    let (with_copies, ours) = counted(Watch::Ask, || rig.launch_with_copies());
    assert!(with_copies > all && ours.len() > 6, "{name}: {with_copies}, {ours:?}");
}

/// Set for the processes that do the counting: the processor. wgpu takes stacks of its own where `RUST_BACKTRACE` is set, which costs
/// memory and stands in the way of ours.
const CHILD: &str = "COSCHED_TEST_CHILD";

#[test]
fn child_counts() {
    match std::env::var(CHILD).as_deref() {
        Ok("wgpu") => check("wgpu", true),
        Ok(other) => check(other, false),
        Err(_) => {}
    }
}

fn in_a_process_of_its_own(processor: &str) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_counts", "--nocapture"]).env(CHILD, processor);
    let output = command.env("RUST_BACKTRACE", "0").env("RUST_LIB_BACKTRACE", "0").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success() && said.contains("0 of them ours"), "{processor}");
}

#[test]
fn a_launch_on_the_cpu_allocates_nothing() {
    in_a_process_of_its_own("cpu");
}

#[test]
fn a_launch_on_wgpu_allocates_nothing_of_ours() {
    in_a_process_of_its_own("wgpu");
}

#[test]
fn a_launch_on_opencl_allocates_nothing() {
    in_a_process_of_its_own("opencl");
}

#[test]
fn whose_memory_it_is_is_read_from_the_stack() {
    let stack = |frames: &[(&str, &str)]| {
        let lines = frames
            .iter()
            .enumerate()
            .map(|(i, (name, at))| format!("  {i}: {name}\n             at {at}:1:2\n"));
        ours(&lines.collect::<String>())
    };
    let allocator = [
        ("seen", "./tests/allocation.rs"),
        ("alloc", "./tests/allocation.rs"),
        ("push", "/rustc/abc/vec.rs"),
    ];
    let with = |more: &[(&str, &str)]| stack(&[&allocator[..], more].concat());
    let crates = "/root/.cargo/registry/src/index-1";
    let [wgpu, small, block] = ["wgpu-30.0.1", "smallvec-1.15.1", "pollster-0.4.0"]
        .map(|name| format!("{crates}/{name}/src/lib.rs"));
    let run = ("run", "./src/gpu/wgpu.rs");
    assert_eq!(with(&[run]).as_deref(), Some("run at ./src/gpu/wgpu.rs:1:2"));
    assert_eq!(with(&[("map_async", &wgpu), run]), None);
    assert_eq!(with(&[("grow", &small), ("poll", &wgpu), run]), None);
    assert!(with(&[("block_on", &block), run]).is_some());
    assert_eq!(with(&[]), None);
    // Other people's code without line tables.
    let bare = |name: &str| {
        let allocator = "  0: alloc\n             at ./tests/allocation.rs:1:2\n";
        ours(&format!("{allocator}  1: {name}\n  2: run\n             at ./src/gpu/wgpu.rs:1:2\n"))
    };
    assert_eq!(bare("<wgpu_core::device::Device as wgpu_hal::Device>::submit"), None);
    assert!(bare("smallvec::SmallVec<A>::grow").is_some());
}
