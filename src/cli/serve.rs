//! `cosched serve`: answers requests from outside for the tasks of an app, or the models of a folder as Triton has it, over HTTP and gRPC.

use super::profile::{open, write_plan};
use super::run::planned_case;
use super::{Outcome, check_policies};
use cosched::executors::inject::{Injection, POLICY};
use cosched::executors::live::{HANG_SECONDS, Trouble};
use cosched::experiments::app::{App, read_plan};
use cosched::online::{Conditions, LEARNS, Options as Online};
use cosched::server::model::serving;
use cosched::server::repository;
use cosched::server::tls::Files;
use cosched::server::{Maker, Options, Server, Setup, Wanted, claim_signals};
use cosched::session::Session;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = super::policy_help())]
pub struct Args {
    /// The app file. Its tasks are the models; its streams send nothing, they say which deadline and priority requests have.
    /// Or a model repository as Triton has it: a folder of MODEL/VERSION/model.onnx.
    app: PathBuf,
    /// The policy, e.g. learned, edf, fixed:cpu.
    #[arg(short, long, default_value = "learned")]
    policy: String,
    /// Address to listen on. Anything but loopback lets others in: give a token then.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port of HTTP; 0 takes a free one.
    #[arg(long, default_value_t = 8000)]
    http_port: u16,
    /// Port of gRPC; 0 takes a free one.
    #[arg(long, default_value_t = 8001)]
    grpc_port: u16,
    /// A file of tokens, one a line: requests must carry one as `Authorization: Bearer TOKEN`. Health is told to everybody.
    #[arg(long)]
    tokens: Option<PathBuf>,
    /// PEM file of a certificate (and those that vouch for it): HTTP and gRPC are spoken inside TLS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// URL of an OpenTelemetry collector, e.g. http://localhost:4318: it gets a trace of each request (OTLP as JSON over HTTP).
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Largest body of a request, in MiB.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4095))]
    max_body_mb: u32,
    /// Most requests of a model that have not ended; more are refused.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    queue: u32,
    /// Most connections at a time, for each of the two protocols.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    connections: u32,
    /// Milliseconds that a decision may take; then `edf` decides instead, and the policy is not asked for a while.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    decision_ms: u32,
    /// Let callers on this machine send and get tensors in shared memory.
    #[arg(long)]
    shared_memory: bool,
    /// Let callers load and unload models and change the policy. SIGHUP reads the app file again with or without it.
    #[arg(long)]
    control: bool,
    /// Seconds after which a launch counts as hanging: its processor is down then, until it comes back.
    #[arg(long, default_value_t = HANG_SECONDS, value_parser = clap::value_parser!(u16).range(1..))]
    hang: u16,
    /// A fault on purpose, e.g. cpu:die:0.01, dsp:hang=2000:0.001, wgpu:nan:0.01, policy:panic:0.1, policy:slow=500:0.1; may be given
    /// several times.
    #[arg(long, value_name = "WHAT:HOW:SHARE")]
    inject: Vec<Injection>,
    #[command(flatten)]
    learning: super::learning::Args,
    /// Seconds that shutdown waits for requests to end.
    #[arg(long, default_value_t = 30)]
    drain: u16,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    check_policies(std::slice::from_ref(&args.policy))?;
    args.learning.check(&args.policy)?;
    let tokens = args.tokens.as_deref().map(read_tokens).transpose()?.unwrap_or_default();
    let app = serving(read(&args.app)?);
    if !args.host.is_loopback() && tokens.is_empty() {
        eprintln!("warning: whoever reaches {} may ask: there are no --tokens", args.host);
    }
    claim_signals()?;
    let session = open(&app)?;
    let here = |what: &str| what == POLICY || session.deployment.processors.iter().any(|p| p.name() == what);
    if let Some(nowhere) = args.inject.iter().find(|i| !here(&i.what)) {
        return Err(super::usage(format!("--inject {nowhere}: no processor `{}` is open", nowhere.what)));
    }
    let case = planned_case(&session, &app)?;
    let options = Options {
        http: SocketAddr::new(args.host, args.http_port),
        grpc: SocketAddr::new(args.host, args.grpc_port),
        tokens,
        tls: args
            .tls_cert
            .clone()
            .zip(args.tls_key.clone())
            .map(|(certificate, key)| Files { certificate, key }),
        otlp: args.otlp.clone(),
        max_body: (args.max_body_mb as usize) << 20,
        queue: args.queue as usize,
        connections: args.connections as usize,
        decision: Duration::from_millis(args.decision_ms.into()),
        shared_memory: args.shared_memory,
        control: args.control,
        trouble: Trouble {
            patience: Some(Duration::from_secs(args.hang.into())),
            injections: args.inject.clone(),
        },
        drain: Duration::from_secs(args.drain.into()),
    };
    let learn = args.learning.options();
    let online = match &learn {
        Some(learn) => Some((learn.clone(), Conditions::of(&app)?)),
        None => None,
    };
    let (deployment, policy) = (session.deployment.clone(), args.policy.clone());
    let setup = Setup { deployment, case, scheduler: app.scheduler, policy, online };
    let learn = learn.map(|learn| Online { renew: true, ..learn });
    let maker = Arc::new(FromFile { app: args.app.clone(), session: Mutex::new(session), learn });
    let server = Server::start(&setup, Some(maker), &options)?;
    // One line that scripts can read the ports from; who reads it may send signals.
    let signals = server.hear_signals()?;
    let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
    println!("serving HTTP on {scheme}://{} and gRPC on {}", server.http(), server.grpc());
    std::io::stdout().flush()?;
    server.wait_for(signals)?;
    eprintln!("stopping: no new requests; those that are there still end (ctrl-c again to give up)");
    server.shutdown();
    Ok(())
}

fn read(path: &Path) -> Result<App, Box<dyn std::error::Error>> {
    if path.extension().is_some_and(|e| e == "onnx") {
        let problem = "expected an app file or a folder of MODEL/VERSION/model.onnx, and not a model itself";
        return Err(super::usage(format!("{}: {problem}", path.display())));
    }
    if path.is_dir() { Ok(repository::read(path)?) } else { Ok(App::read(path)?) }
}

fn read_tokens(path: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("--tokens {}: {e}", path.display()))?;
    let tokens: Vec<_> = text.lines().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect();
    match tokens.iter().find(|t| t.len() < 16 || !t.bytes().all(|b| b.is_ascii_graphic())) {
        Some(_) => Err(format!(
            "{}: expected tokens of at least 16 letters, digits and signs, one a line",
            path.display()
        )),
        None if tokens.is_empty() => Err(format!("{}: expected at least one token", path.display())),
        None => Ok(tokens),
    }
}

/// Makes what is served from the app file as it is at that moment.
struct FromFile {
    app: PathBuf,
    session: Mutex<Session>,
    /// How the policy learns, where it is one that does.
    learn: Option<Online>,
}

impl FromFile {
    fn remake(&self, wanted: &Wanted) -> Result<Setup, Box<dyn std::error::Error>> {
        let mut app = read(&self.app)?;
        app.tasks.retain(|t| !wanted.without.contains(&t.name));
        app.streams.retain(|s| !wanted.without.contains(&s.task));
        let app = serving(app);
        let mut kept = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let session = kept.reopen(&app, &mut |_, _, _| {})?;
        let path = app.plan_path()?;
        if path.exists() && app.device.is_none() {
            let mut plan = read_plan(&path)?;
            // A model that is new is measured beside the traffic; the others stay as they were measured.
            if session.complete(&app, &mut plan, &mut |_, _, _| {})? {
                write_plan(&plan, &path)?;
            }
        }
        let case = planned_case(&session, &app)?;
        let learns = wanted.policy.split(':').next() == Some(LEARNS);
        let online = match self.learn.as_ref().filter(|_| learns) {
            None => None,
            Some(learn) => Some((learn.clone(), Conditions::of(&app)?)),
        };
        let setup = Setup {
            online,
            deployment: session.deployment.clone(),
            case,
            scheduler: app.scheduler,
            policy: wanted.policy.clone(),
        };
        *kept = session;
        Ok(setup)
    }
}

impl Maker for FromFile {
    fn make(&self, wanted: &Wanted) -> Result<Setup, String> {
        self.remake(wanted).map_err(|e| e.to_string())
    }
}
