//! A server of the Open Inference Protocol v2: the tasks of an app over HTTP and gRPC, decided by a policy, answered on the processors of
//! this machine. Every request ends exactly once, at shutdown too. It refuses to read or write any file on behalf of a caller.
//!
//! ```no_run
//! use cosched::experiments::app::App;
//! use cosched::server::{Options, Server, Setup, model::serving};
//! use cosched::session::{Session, SessionOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let app = serving(App::read("robot.toml".as_ref())?);
//! let session = Session::open(&app, &SessionOptions::default(), &mut |_, _, _| {})?;
//! let case = app.case_of(session.profile(&app, &mut |_, _, _| {})?)?;
//! let (deployment, policy) = (session.deployment, "edf".to_owned());
//! let setup = Setup { deployment, case, scheduler: app.scheduler, policy, online: None };
//! let server = Server::start(&setup, None, &Options::default())?;
//! println!("http://{}", server.http());
//! server.wait_for(server.hear_signals()?)?;
//! server.shutdown();
//! # Ok(())
//! # }
//! ```

mod auth;
pub mod core;
pub mod engine;
pub mod grpc;
mod http;
mod listen;
pub mod live;
mod metrics;
pub mod model;
pub mod otlp;
pub mod proto;
pub mod refusal;
pub mod repository;
pub mod request;
pub mod rolling;
pub mod shared_memory;
pub mod stats;
pub mod tls;
mod trim;
mod watched;
pub mod wire;

use self::core::NO_CHANGE;
pub use self::core::{Core, Maker, Wanted};
pub use self::engine::Setup;
use crate::session::SessionError;
use cosched_executors::live::Trouble;
use engine::Limits;
use listen::{Door, Protocol};
use otlp::Exporter;
use refusal::{Kind, Refusal};
use shared_memory::Regions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where HTTP is spoken; port 0 takes a free one.
    pub http: SocketAddr,
    /// Where gRPC is spoken.
    pub grpc: SocketAddr,
    /// One of these has to come with each request; none: everybody may ask.
    pub tokens: Vec<String>,
    /// Both protocols are spoken inside TLS with this certificate; none: in the clear.
    pub tls: Option<tls::Files>,
    /// URL of an OpenTelemetry collector that gets a trace of each request; none: no traces.
    pub otlp: Option<String>,
    /// Largest body of a request, in bytes.
    pub max_body: usize,
    /// Most requests of a model that have not ended.
    pub queue: usize,
    /// Longest time that a decision may take before the fallback decides instead.
    pub decision: Duration,
    /// Most connections at a time, for each of the two protocols.
    pub connections: usize,
    /// Whether callers may send and get tensors in shared memory of this machine.
    pub shared_memory: bool,
    /// Whether callers may load and unload models and change the policy.
    pub control: bool,
    /// When launches count as hanging, and faults on purpose.
    pub trouble: Trouble,
    /// How long shutdown waits for requests to end before it gives them up.
    pub drain: Duration,
}

impl Default for Options {
    /// The usual ports, on loopback.
    fn default() -> Options {
        let on = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Options {
            http: on(8000),
            grpc: on(8001),
            tokens: Vec::new(),
            tls: None,
            otlp: None,
            max_body: 64 << 20,
            queue: 256,
            decision: Duration::from_millis(250),
            connections: 512,
            shared_memory: false,
            control: false,
            trouble: Trouble::default(),
            drain: Duration::from_secs(30),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The models, the plan or the policy.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The address cannot be used.
    #[error("{address}: cannot listen: {source}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate or its key.
    #[error("{0}")]
    Tls(String),
    /// Where traces shall go.
    #[error("the collector of traces: {0}")]
    Otlp(String),
    /// Threads, signals.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the handlers of both protocols share.
#[derive(Clone)]
struct Shared {
    core: Arc<Core>,
    max_body: usize,
    /// KiB of large bodies over HTTP that may be in memory together; who comes too late waits before its body is read.
    room: Arc<Semaphore>,
    regions: Arc<Regions>,
    control: bool,
}

impl Shared {
    /// What callers may change.
    fn controlled(&self) -> Result<&Arc<Core>, Refusal> {
        if self.control { Ok(&self.core) } else { Err(Refusal::new(Kind::NotBuilt, NO_CHANGE)) }
    }
}

/// Bodies of the largest size that may be in memory together.
const BODIES: usize = 4;

/// A running server.
pub struct Server {
    runtime: Runtime,
    core: Arc<Core>,
    http: SocketAddr,
    grpc: SocketAddr,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
    exporter: Option<Arc<tokio::sync::Mutex<Exporter>>>,
    drain: Duration,
}

/// Threads that speak with callers; inference has threads of its own.
const THREADS: usize = 2;
/// Threads for what takes a while: large bodies, a change, the end. A burst must not leave hundreds, each with memory of its own.
const BLOCKING: usize = 16;
/// What connections may still take after the last request has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Server {
    /// Listens, starts the scheduler, and answers from then on. What is served can change while it runs where there is a `maker`.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(
        setup: &Setup,
        maker: Option<Arc<dyn Maker>>,
        options: &Options,
    ) -> Result<Server, ServerError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("server")
            .max_blocking_threads(BLOCKING)
            .enable_all()
            .build()?;
        let bind = |address: SocketAddr| {
            let bound = runtime.block_on(TcpListener::bind(address));
            let bound = bound.and_then(|l| Ok((l.local_addr()?, l)));
            bound.map_err(|source| ServerError::Listen { address, source })
        };
        let acceptor = |protocol: &str| options.tls.as_ref().map(|t| t.acceptor(protocol)).transpose();
        let tls = |protocol| acceptor(protocol).map_err(ServerError::Tls);
        let (http_tls, grpc_tls) = (tls("http/1.1")?, tls("h2")?);
        // An address that is taken is found out before anything costly.
        let ((http, http_socket), (grpc, grpc_socket)) = (bind(options.http)?, bind(options.grpc)?);
        let Options { queue, decision, trouble, .. } = options.clone();
        let limits = Limits { queue, decision, trouble };
        let core = Core::start(setup, maker, limits)?;
        let core = Arc::new(core);
        let exporter = options.otlp.as_ref().map(|url| Exporter::new(url, core.clone())).transpose();
        let exporter = exporter.map_err(ServerError::Otlp)?.map(|e| Arc::new(tokio::sync::Mutex::new(e)));
        if let Some(exporter) = exporter.clone() {
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(otlp::EVERY).await;
                    exporter.lock().await.step().await;
                }
            });
        }
        runtime.spawn(trim::now_and_then());
        let room = Arc::new(Semaphore::new(BODIES * options.max_body.div_ceil(1024)));
        let regions = Arc::new(Regions::new(options.shared_memory));
        let state = Shared {
            core: core.clone(),
            max_body: options.max_body,
            room,
            regions,
            control: options.control,
        };
        let (stop, stopped) = watch::channel(false);
        let sockets = [
            (
                http_socket,
                (Protocol::Http, http_tls),
                auth::guard(http::router(state.clone()), &options.tokens, auth::over_http),
            ),
            (
                grpc_socket,
                (Protocol::Grpc, grpc_tls),
                auth::guard(grpc::router(&state), &options.tokens, auth::over_grpc),
            ),
        ];
        let spawn = |(socket, (protocol, tls), router)| {
            // Connections of one protocol must not use up those of the other.
            let connections = Arc::new(Semaphore::new(options.connections));
            let door = Door { protocol, tls, router, connections };
            runtime.spawn(listen::serve(socket, door, stopped.clone()))
        };
        let listeners = sockets.map(spawn).into();
        tracing::info!(%http, %grpc, policy = setup.policy, models = core.catalog().models.len(), "serving");
        let drain = options.drain;
        Ok(Server { runtime, core, http, grpc, stop, listeners, exporter, drain })
    }

    /// Where HTTP is spoken.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where gRPC is spoken.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// What is served and counted.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// From now on ctrl-c, SIGTERM and SIGHUP do not end the process: the first two end the wait, at SIGHUP it reads again what it serves.
    ///
    /// # Errors
    /// When signals cannot be heard.
    pub fn hear_signals(&self) -> io::Result<Signals> {
        #[cfg(unix)]
        self.reload_at_hangup()?;
        let _entered = self.runtime.enter();
        Signals::new()
    }

    /// Waits for ctrl-c or SIGTERM. From then on a second one ends the process at once.
    ///
    /// # Errors
    /// When signals cannot be heard.
    pub fn wait_for(&self, mut signals: Signals) -> io::Result<()> {
        self.runtime.block_on(signals.next())?;
        self.runtime.spawn(async move {
            if signals.next().await.is_ok() {
                std::process::exit(130);
            }
        });
        Ok(())
    }

    #[cfg(unix)]
    fn reload_at_hangup(&self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let _entered = self.runtime.enter();
        let mut hangup = signal(SignalKind::hangup())?;
        let core = self.core.clone();
        self.runtime.spawn(async move {
            while hangup.recv().await.is_some() {
                match core.reload().await {
                    Ok(()) => tracing::info!("reloaded"),
                    Err(refusal) => tracing::error!("not reloaded, all is as it was: {refusal}"),
                }
            }
        });
        Ok(())
    }

    /// Takes no more requests, lets those that are there end, then closes the connections. Requests that are still there after
    /// `drain` are given up. Blocks.
    pub fn shutdown(self) {
        tracing::info!("shutting down: no new requests; those that are there still end");
        self.core.close();
        let core = self.core.clone();
        self.runtime.block_on(async {
            let ended = tokio::task::spawn_blocking(move || core.join());
            tokio::pin!(ended);
            if tokio::time::timeout(self.drain, &mut ended).await.is_err() {
                tracing::warn!("requests are given up after {:?}", self.drain);
                self.core.give_up();
                // What runs cannot be stopped in the middle; a device that hangs must not hold the process.
                let _ = tokio::time::timeout(self.drain, &mut ended).await;
            }
            if let Some(exporter) = self.exporter {
                exporter.lock().await.step().await;
            }
            // Connections stay until here, so that whoever came too late was told so.
            self.stop.send_replace(true);
            for listener in self.listeners {
                let _ = tokio::time::timeout(LAST_WORDS, listener).await;
            }
        });
        self.runtime.shutdown_timeout(LAST_WORDS);
        tracing::info!("ended");
    }
}

/// Makes signals ours before a GPU's driver takes them. LLVM, which the drivers load, has handlers that clean up and raise the signal again:
/// what is installed after them hands signals on to them and the process dies, what is installed before them is called in the end.
///
/// # Errors
/// When signals cannot be heard.
pub fn claim_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    // Handlers stay for the life of the process.
    #[cfg(unix)]
    drop(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?);
    Signals::new().map(drop)
}

/// What ends a server; heard from when it is made.
pub struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            Ok(Signals { interrupt, terminate })
        }
        #[cfg(not(unix))]
        Ok(Signals {})
    }

    async fn next(&mut self) -> io::Result<()> {
        #[cfg(unix)]
        {
            tokio::select! {
                _ = self.interrupt.recv() => Ok(()),
                _ = self.terminate.recv() => Ok(()),
            }
        }
        #[cfg(not(unix))]
        tokio::signal::ctrl_c().await
    }
}
