//! `cosched bench`: what the scheduler itself costs. Overhead per request against calling the processor directly, and of the server over
//! loopback against calling the scheduler; decision latency of each policy, emulator decisions per second.

use super::compare::{all_policies, maker};
use super::{Outcome, print_json};
use cosched::agent::checkpoint;
use cosched::env::case::StreamId;
use cosched::env::scheduler::Scheduler;
use cosched::env::time::Time;
use cosched::env::world::drive;
use cosched::executors::live::LiveWorld;
use cosched::executors::tensor::Tensor;
use cosched::experiments::app::App;
use cosched::experiments::speed::{self, Latency, Ready, Speed};
use cosched::policies::learned::{Learned, SHIPPED};
use cosched::policies::tournament::{Budget, scout};
use cosched::server::model::{Port, datatype, serving};
use cosched::server::{Options, Server, Setup};
use cosched::session::{Session, SessionOptions};
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Arguments.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Requests for the overhead.
    #[arg(long, default_value_t = 2000)]
    requests: usize,
    /// Emulated seconds of each round of a policy.
    #[arg(long, default_value_t = 120.0)]
    seconds: f64,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// What else can be timed.
#[derive(clap::Subcommand)]
enum What {
    /// Time networks of the zoo on every processor against plain onnxruntime, with the slowest kernels.
    Kernels(super::bench_kernels::Args),
}

/// One small model on the CPU: what is left of a request is the scheduler.
const APP: &str = r#"
name = "bench"
processors = ["cpu"]
[segments]
max = 1
[[task]]
name = "keyword"
[[task.variant]]
model = "zoo:kws_small"
accuracy = 1.0
[[stream]]
task = "keyword"
period_ms = 1000
deadline_ms = 1000
"#;

#[derive(Serialize)]
struct Report {
    overhead: Overhead,
    policies: Vec<Speed>,
    /// Under `edf`.
    ready: Vec<Ready>,
    /// Of the shipped network where it decides, its guides included.
    network: Vec<Latency>,
    /// Decisions per second of 64 emulated copies stepped together.
    vector_decisions_per_second: f64,
}

/// Microseconds of one request, alone in the system.
#[derive(Serialize)]
struct Overhead {
    requests: usize,
    direct_p50_us: f64,
    scheduled_p50_us: f64,
    scheduled_p99_us: f64,
    overhead_p50_us: f64,
    served_p50_us: f64,
    served_p99_us: f64,
    server_overhead_p50_us: f64,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    if let Some(What::Kernels(args)) = &args.what {
        return super::bench_kernels::run(args);
    }
    if args.requests == 0 || !(args.seconds > 0.0 && args.seconds <= 1e5) {
        return Err(super::usage("--requests must be at least 1 and --seconds above 0"));
    }
    let overhead = overhead(args.requests)?;
    let case = speed::case();
    let mut policies = Vec::new();
    for spec in all_policies() {
        maker(&spec, &case)?;
        let make = || maker(&spec, &case).expect("it could be made a moment ago");
        policies.push(speed::speed(&spec, &make, args.seconds)?);
    }
    let ready = |requests: usize| {
        let mut policy = maker("edf", &case)?;
        Ok::<_, Box<dyn std::error::Error>>(speed::ready(
            requests,
            policy.as_mut(),
            400_000 / requests as u64,
        )?)
    };
    let ready = [1, 10, 100, 1000].into_iter().map(ready).collect::<Result<Vec<_>, _>>()?;
    // Processors, and requests that wait: 33, 40 and 261 candidates.
    let network =
        [(5, 2), (4, 3), (4, 20)].into_iter().map(|(p, n)| network(p, n)).collect::<Result<Vec<_>, _>>()?;
    let vector_decisions_per_second = speed::vector(64, 20_000)?;
    let report = Report { overhead, policies, ready, network, vector_decisions_per_second };
    if args.json {
        return print_json(&report);
    }
    let o = &report.overhead;
    println!("Scheduler overhead over {} requests, one at a time, a small model on the cpu:", o.requests);
    println!("  direct call          p50 {:8.1} us", o.direct_p50_us);
    println!("  through the scheduler p50 {:7.1} us, p99 {:.1} us", o.scheduled_p50_us, o.scheduled_p99_us);
    println!("  over HTTP on loopback p50 {:7.1} us, p99 {:.1} us", o.served_p50_us, o.served_p99_us);
    println!("  overhead of the scheduler p50 {:7.1} us (goal: under 50)", o.overhead_p50_us);
    println!("  overhead of the server    p50 {:7.1} us (goal: under 200)", o.server_overhead_p50_us);
    println!("Decisions in the emulator (4 processors, 6 streams, one core), median of rounds:");
    println!(
        "  {:16} {:>10} {:>11} {:>21} {:>8} {:>8}",
        "policy", "candidates", "decisions/s", "slowest .. fastest", "p50 us", "p99 us"
    );
    for s in &report.policies {
        let range = format!("{:.0} .. {:.0}", s.slowest, s.fastest);
        println!(
            "  {:16} {:>10.1} {:>11.0} {:>21} {:>8.2} {:>8.2}",
            s.policy, s.candidates, s.decisions_per_second, range, s.p50_us, s.p99_us
        );
    }
    println!("One decision of edf with many requests ready (observation, choice and completion):");
    for r in &report.ready {
        println!("  {:5} requests, {:8.1} candidates: {:10.0} ns", r.requests, r.candidates, r.decision_ns);
    }
    println!("One decision of the shipped network, features and guides included:");
    for l in &report.network {
        println!("  {:5} candidates: p50 {:.2} us, p99 {:.2} us", l.candidates, l.p50_us, l.p99_us);
    }
    println!("64 copies stepped together: {:.0} decisions/s on one core", report.vector_decisions_per_second);
    Ok(())
}

/// The shipped network in a case in which it may prefer anything to its guides.
fn network(processors: usize, requests: usize) -> Result<Latency, Box<dyn std::error::Error>> {
    let case = speed::case_on(processors);
    let (weights, _) = checkpoint::from_bytes("(shipped)", SHIPPED)?;
    let guides = scout(case.as_ref(), &Budget::default())(&case);
    Ok(speed::latency(&case, &mut Learned::new(&weights, guides, 0.0), requests, 20_000)?)
}

/// A connection that sends the same request again and again, as a client would that does nothing else.
struct Loopback {
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
    body: Vec<u8>,
}

impl Loopback {
    fn new(server: &Server, inputs: &[Tensor]) -> std::io::Result<Loopback> {
        let catalog = server.core().catalog();
        let model = &catalog.models[0];
        let tensor = |(port, tensor): (&Port, &Tensor)| {
            let size = json!({ "binary_data_size": port.bytes() });
            json!({ "name": port.name, "datatype": datatype(port.dtype), "shape": tensor.shape, "parameters": size })
        };
        let tensors: Vec<_> = model.inputs.iter().zip(inputs).map(tensor).collect();
        let asked = json!({ "parameters": { "binary_data_output": true }, "inputs": tensors }).to_string();
        let blobs: Vec<u8> = inputs.iter().flat_map(|t| t.data.bytes().to_vec()).collect();
        let (name, json_bytes, all) = (&model.name, asked.len(), asked.len() + blobs.len());
        let head = format!(
            "POST /v2/models/{name}/infer HTTP/1.1\r\nHost: bench\r\nContent-Length: {all}\r\n\
             Inference-Header-Content-Length: {json_bytes}\r\n\r\n"
        );
        let stream = TcpStream::connect(server.http())?;
        stream.set_nodelay(true)?;
        let request = [head.as_bytes(), asked.as_bytes(), &blobs].concat();
        Ok(Loopback { stream: BufReader::new(stream), request, body: Vec::new() })
    }

    fn ask(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        self.stream.get_mut().write_all(&self.request)?;
        let (mut line, mut length) = (String::new(), 0);
        self.stream.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200") {
            return Err(format!("the server answers {}", line.trim()).into());
        }
        while line != "\r\n" {
            line.clear();
            self.stream.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        self.body.resize(length, 0);
        Ok(self.stream.read_exact(&mut self.body)?)
    }
}

/// The same requests to a server on loopback, through the scheduler, and straight to the prepared segment.
fn overhead(requests: usize) -> Result<Overhead, Box<dyn std::error::Error>> {
    let app = serving(App::parse(APP, "bench.toml".as_ref())?);
    let session = Session::open(&app, &SessionOptions::default(), &mut |_, _, _| {})?;
    let plan = session.profile(&app, &mut |_, _, _| {})?;
    let case = app.case_of(plan)?;
    let variant = &session.deployment.variants[0];
    let inputs = &variant.samples[0];
    let mut direct: Histogram<u64> = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    let (mut scheduled, mut served) = (direct.clone(), direct.clone());
    let prepared = variant.prepared[0][0].as_ref().map_err(Clone::clone)?;
    let mut instance = prepared.spawn()?;
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let options = Options { http: free, grpc: free, ..Options::default() };
    let (deployment, policy) = (session.deployment.clone(), "edf".to_owned());
    let setup = Setup { deployment, case: case.clone(), scheduler: app.scheduler, policy, online: None };
    let server = Server::start(&setup, None, &options)?;
    let mut loopback = Loopback::new(&server, inputs)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (mut world, submitter) =
        LiveWorld::new(session.deployment.clone(), case.clone(), 0, Time::ZERO, stop)?;
    let mut policy = maker("edf", &case)?;
    std::thread::scope(|scope| -> Result<(), Box<dyn std::error::Error>> {
        let scheduler = scope.spawn(move || {
            let mut scheduler = Scheduler::new(case, app.scheduler);
            drive(&mut scheduler, &mut world, policy.as_mut(), &mut ())
        });
        // Interleaved, so that whatever else the machine does falls on both.
        for i in 0..requests + requests / 10 {
            let start = Instant::now();
            instance.run(&inputs.iter().collect::<Vec<_>>())?;
            let alone = start.elapsed();
            let given = inputs.clone();
            let start = Instant::now();
            submitter.submit(StreamId(0), given).recv()?;
            let whole = start.elapsed();
            let start = Instant::now();
            loopback.ask()?;
            let over_http = start.elapsed();
            // The first tenth warms up.
            if i >= requests / 10 {
                direct.saturating_record(alone.as_nanos() as u64);
                scheduled.saturating_record(whole.as_nanos() as u64);
                served.saturating_record(over_http.as_nanos() as u64);
            }
        }
        drop(submitter);
        scheduler.join().map_err(|_| "the scheduler's thread panicked")??;
        Ok(())
    })?;
    drop(loopback);
    server.shutdown();
    let us = |h: &Histogram<u64>, q: f64| h.value_at_quantile(q) as f64 / 1e3;
    Ok(Overhead {
        requests,
        direct_p50_us: us(&direct, 0.5),
        scheduled_p50_us: us(&scheduled, 0.5),
        scheduled_p99_us: us(&scheduled, 0.99),
        overhead_p50_us: us(&scheduled, 0.5) - us(&direct, 0.5),
        served_p50_us: us(&served, 0.5),
        served_p99_us: us(&served, 0.99),
        server_overhead_p50_us: us(&served, 0.5) - us(&scheduled, 0.5),
    })
}
