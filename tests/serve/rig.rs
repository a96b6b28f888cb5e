//! A server in this process on free ports, with a processor that can be held, let go and broken, so that nothing here hangs on timing.
//! It holds no test.

use crate::plans::quick_plan;
use cosched::env::plan::Plan;
use cosched::env::time::Span;
use cosched::executors::deploy::{Deployment, Model, sample_inputs};
use cosched::executors::graph::{Graph, Node};
use cosched::executors::held::Held;
use cosched::executors::processor::{self, ExecError, Instance, Prepared, Processor};
use cosched::executors::segment::CutOptions;
use cosched::executors::stop::{Halt, Stop};
use cosched::executors::tensor::{Data, Tensor};
use cosched::executors::{cpu, onnx, zoo};
use cosched::experiments::app::App;
use cosched::server::live;
use cosched::server::model::serving;
use cosched::server::{Maker, Options, Server, Setup, Wanted};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long anything may take before it counts as a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Two tasks, one of two variants and with two streams, the other without a stream.
pub const APP: &str = r#"
name = "served"
processors = ["cpu"]
[segments]
max = 2
min_share = 0.1
[[task]]
name = "keyword"
[[task.variant]]
model = "zoo:kws"
accuracy = 0.94
[[task.variant]]
model = "zoo:kws_small"
accuracy = 0.9
[[task]]
name = "plain"
[[task.variant]]
model = "zoo:kws_small"
name = "other"
accuracy = 0.9
[[stream]]
name = "frames"
task = "keyword"
period_ms = 10
deadline_ms = 30000
[[stream]]
name = "camera"
task = "keyword"
queue = "latest"
period_ms = 10
deadline_ms = 30000
"#;

/// What becomes of launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// They wait; those that are stopped go away.
    Closed,
    /// They wait, whatever they are told.
    Hung,
    Broken,
}

/// Holds launches up; counts those that it holds.
pub struct Gate {
    state: Mutex<(Way, usize)>,
    moved: Condvar,
    /// Segments that were prepared behind it.
    pub prepared: AtomicUsize,
}

impl Gate {
    pub fn new() -> Gate {
        Gate { state: Mutex::new((Way::Open, 0)), moved: Condvar::new(), prepared: AtomicUsize::new(0) }
    }

    pub fn set(&self, way: Way) {
        self.state.lock().unwrap().0 = way;
        self.moved.notify_all();
    }

    /// Waits until so many launches are held.
    pub fn holds(&self, n: usize) {
        let state = self.state.lock().unwrap();
        let (state, late) = self.moved.wait_timeout_while(state, PATIENCE, |s| s.1 != n).unwrap();
        assert!(!late.timed_out(), "{} launches are held, not {n}", state.1);
    }

    fn pass(&self, stop: &Stop) -> Result<(), ExecError> {
        // Launches have a thread of their processor; preparing, measuring and warming up are not held.
        if !std::thread::current().name().is_some_and(|name| name.starts_with("processor ")) {
            return Ok(());
        }
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.moved.notify_all();
        let waits = |way: Way| way == Way::Hung || (way == Way::Closed && !stop.stopped());
        state = self.moved.wait_while(state, |s| waits(s.0)).unwrap();
        state.1 -= 1;
        self.moved.notify_all();
        if stop.stopped() {
            return Err(ExecError::Stopped { processor: "cpu".into() });
        }
        if state.0 == Way::Broken {
            let (processor, graph) = ("cpu".into(), "x".into());
            return Err(ExecError::Failed { processor, graph, reason: "broken on purpose".into() });
        }
        Ok(())
    }
}

/// Who waits there looks again.
impl Halt for Gate {
    fn halt(&self) {
        drop(self.state.lock().unwrap());
        self.moved.notify_all();
    }
}

/// The cpu behind a gate.
struct Gated(Arc<dyn Processor>, Arc<Gate>);
struct GatedSegment(Arc<dyn Prepared>, Arc<Gate>);
struct GatedInstance(Box<dyn Instance>, Arc<Gate>);

impl Processor for Gated {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn device(&self) -> String {
        self.0.device()
    }
    fn supports(&self, graph: &Graph, node: &Node) -> Result<(), String> {
        self.0.supports(graph, node)
    }
    fn prepare(&self, segment: &Graph, samples: &[Vec<Tensor>]) -> Result<Arc<dyn Prepared>, ExecError> {
        self.1.prepared.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(GatedSegment(self.0.prepare(segment, samples)?, self.1.clone())))
    }
}

impl Prepared for GatedSegment {
    fn spawn(&self) -> Result<Box<dyn Instance>, ExecError> {
        Ok(Box::new(GatedInstance(self.0.spawn()?, self.1.clone())))
    }
    fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }
}

impl Instance for GatedInstance {
    fn advance(
        &mut self,
        inputs: &[Held],
        home: &[bool],
        outputs: &mut Vec<Held>,
        stop: &Stop,
    ) -> Result<(), ExecError> {
        let stopped = || Err(ExecError::Stopped { processor: "cpu".into() });
        stop.during(&self.1, || self.1.pass(stop)).unwrap_or_else(stopped)?;
        self.0.advance(inputs, home, outputs, stop)
    }
}

fn graph(name: &str) -> Graph {
    let bytes = zoo::bytes(name, &zoo::Options::default()).unwrap();
    onnx::from_bytes(name, &bytes, &BTreeMap::new()).unwrap()
}

/// All models of [`APP`], cut and prepared on the cpu behind a gate.
pub fn deployment(gate: &Arc<Gate>) -> Deployment {
    let app = App::parse(APP, "served.toml".as_ref()).unwrap();
    let row = processor::TABLE.iter().find(|row| row.name == "cpu").unwrap();
    let inner = (row.open)(&processor::Options::default()).unwrap();
    let processors: Vec<Arc<dyn Processor>> = vec![Arc::new(Gated(inner, gate.clone()))];
    let mut models = Vec::new();
    for task in &app.tasks {
        for v in &task.variants {
            let name = v.plan_name();
            let graph = graph(v.model.strip_prefix("zoo:").unwrap());
            let (task, samples) = (task.name.clone(), Arc::default());
            models.push(Model { name, task, accuracy: v.accuracy, graph, samples });
        }
    }
    let cut = CutOptions { max_segments: app.segments.max, min_share: app.segments.min_share };
    Deployment::new(models, processors, &cut, &mut |_, _, _| {}).unwrap()
}

/// Serves what a text says, from models that are there already.
struct FromText {
    text: Arc<Mutex<String>>,
    deployment: Deployment,
}

impl Maker for FromText {
    fn make(&self, wanted: &Wanted) -> Result<Setup, String> {
        let mut app =
            App::parse(&self.text.lock().unwrap(), "served.toml".as_ref()).map_err(|e| e.to_string())?;
        app.tasks.retain(|t| !wanted.without.contains(&t.name));
        app.streams.retain(|s| !wanted.without.contains(&s.task));
        let app = serving(app);
        let mut plan = plan(&self.deployment);
        plan.processors[0].slots = self.deployment.slots[0];
        let names: Vec<_> = app.tasks.iter().flat_map(|t| t.variants.iter().map(|v| v.plan_name())).collect();
        let deployment = Arc::new(self.deployment.only(&|v| names.contains(&v.model.name)));
        let case = app.case_of(plan).map_err(|e| e.to_string())?;
        Ok(Setup { deployment, case, scheduler: app.scheduler, policy: wanted.policy.clone(), online: None })
    }
}

/// A running server.
pub struct Rig {
    pub server: Option<Server>,
    pub gate: Arc<Gate>,
    /// The app, as it will be read the next time.
    pub text: Arc<Mutex<String>>,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
}

/// The plan is measured once: every test has the same models.
fn plan(deployment: &Deployment) -> Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| quick_plan(deployment)).clone()
}

/// Options of the tests: free ports, and time to decide on a machine that is busy.
pub fn options() -> Options {
    let free = "127.0.0.1:0".parse().unwrap();
    Options { http: free, grpc: free, decision: Duration::from_secs(10), ..Options::default() }
}

impl Rig {
    pub fn new(policy: &str) -> Rig {
        Rig::with(policy, &options())
    }

    pub fn with(policy: &str, options: &Options) -> Rig {
        Rig::with_slots(policy, 1, options)
    }

    /// With so many launches at a time.
    pub fn with_slots(policy: &str, slots: u32, options: &Options) -> Rig {
        let gate = Arc::new(Gate::new());
        let text = Arc::new(Mutex::new(APP.to_owned()));
        let mut deployment = deployment(&gate);
        deployment.slots = vec![slots];
        let maker = Arc::new(FromText { text: text.clone(), deployment });
        let setup = maker.make(&Wanted { policy: policy.to_owned(), ..Wanted::default() }).unwrap();
        let server = Server::start(&setup, Some(maker), options).unwrap();
        let (http, grpc) = (server.http(), server.grpc());
        Rig { server: Some(server), gate, text, http, grpc }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Waits until something is true.
    pub fn until(&self, what: &str, mut true_now: impl FnMut(&Server) -> bool) {
        let begun = Instant::now();
        while !true_now(self.server()) {
            assert!(begun.elapsed() < PATIENCE, "never: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a model has so many requests that have not ended, by the server's count and by the scheduler's own: a request that
    /// was counted may still be on its way to the scheduler.
    pub fn pending(&self, model: usize, n: u64) {
        self.until(&format!("{n} requests of model {model}"), |s| {
            let core = s.core();
            let known = live::state(&core.catalog(), &core.stats, Span::from_ms(1.0)).models[model].pending;
            core.stats.read().models[model].pending == n && known as u64 == n
        });
    }

    /// How many requests of a model failed for a reason.
    pub fn failures(&self, model: usize, reason: &str) -> u64 {
        self.server().core().stats.read().models[model].failures.get(reason).map_or(0, |t| t.count)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A failed assertion must not leave a server that waits for the gate.
        if matches!(self.gate.state.lock().unwrap().0, Way::Closed | Way::Hung) {
            self.gate.set(Way::Open);
        }
        if let Some(server) = self.server.take() {
            server.shutdown();
        }
    }
}

/// Inputs of a model of the app.
pub fn inputs(seed: u64) -> Vec<f32> {
    static KWS: OnceLock<Graph> = OnceLock::new();
    let tensor = sample_inputs(KWS.get_or_init(|| graph("kws")), seed).remove(0);
    let Data::F32(values) = tensor.data else { panic!("kws takes f32") };
    values
}

/// What onnxruntime answers for a whole zoo model.
pub fn reference(name: &str, input: &[f32]) -> Vec<f32> {
    let mut whole = cpu::reference(&graph(name)).unwrap();
    let tensor = Tensor::f32(&[1, 1, 49, 10], input.to_vec());
    whole.run(&[&tensor]).unwrap()[0].as_f32().unwrap().to_vec()
}

/// The largest difference of two lists.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
