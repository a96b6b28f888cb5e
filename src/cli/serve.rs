//! `cosched serve`: answers requests from outside for the tasks of an app, over HTTP and gRPC.

use super::profile::open;
use super::run::planned_case;
use super::{Outcome, check_policies};
use cosched::experiments::app::App;
use cosched::server::model::serving;
use cosched::server::{Options, Server};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = super::policy_help())]
pub struct Args {
    /// The app file. Its tasks are the models; its streams send nothing, they say which deadline and priority requests have.
    app: PathBuf,
    /// The policy, e.g. learned, edf, fixed:cpu.
    #[arg(short, long, default_value = "learned")]
    policy: String,
    /// Address to listen on. Anything but loopback lets others in: there is no authentication.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port of HTTP; 0 takes a free one.
    #[arg(long, default_value_t = 8000)]
    http_port: u16,
    /// Port of gRPC; 0 takes a free one.
    #[arg(long, default_value_t = 8001)]
    grpc_port: u16,
    /// Largest body of a request, in MiB.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4095))]
    max_body_mb: u32,
    /// Most requests of a model that have not ended; more are refused.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    queue: u32,
    /// Most connections at a time, for each of the two protocols.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    connections: u32,
    /// Let callers on this machine send and get tensors in shared memory.
    #[arg(long)]
    shared_memory: bool,
    /// Seconds that shutdown waits for requests to end.
    #[arg(long, default_value_t = 30)]
    drain: u16,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    check_policies(std::slice::from_ref(&args.policy))?;
    let app = serving(App::read(&args.app)?);
    let session = open(&app)?;
    let case = planned_case(&session, &app)?;
    let options = Options {
        http: SocketAddr::new(args.host, args.http_port),
        grpc: SocketAddr::new(args.host, args.grpc_port),
        max_body: (args.max_body_mb as usize) << 20,
        queue: args.queue as usize,
        connections: args.connections as usize,
        shared_memory: args.shared_memory,
        drain: Duration::from_secs(args.drain.into()),
    };
    let server = Server::start(&session, case, app.scheduler, &args.policy, &options)?;
    // One line that scripts can read the ports from.
    println!("serving HTTP on http://{} and gRPC on {}", server.http(), server.grpc());
    std::io::stdout().flush()?;
    server.wait_for_signal()?;
    eprintln!("stopping: no new requests; those that are there still end (ctrl-c again to give up)");
    server.shutdown();
    Ok(())
}
