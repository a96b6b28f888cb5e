//! Sockets: accepts connections, speaks HTTP/1.1 or HTTP/2 on them, and lets them finish at shutdown. It refuses more connections than
//! allowed, heads that take too long to come, and to know what is asked.

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// gRPC, over HTTP/2 without an upgrade.
    Grpc,
}

/// Longest time from the beginning of a connection or the last answer to the end of the next head.
const HEAD: Duration = Duration::from_secs(30);
/// How often a silent HTTP/2 connection is asked whether it is there, and how long it may take to say so.
const ASK: Duration = Duration::from_secs(30);
/// After a failure to accept (no more file handles, mostly).
const PAUSE: Duration = Duration::from_millis(50);
/// What HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait for the rest of it.
const REST: Duration = Duration::from_millis(20);
/// Largest head, in bytes.
const HEAD_BYTES: usize = 64 << 10;

/// Accepts until `stop` becomes true, then waits until every connection is over.
pub async fn serve(
    listener: TcpListener,
    protocol: Protocol,
    router: Router,
    connections: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|&stop| stop) => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let Ok(permit) = connections.clone().try_acquire_owned() else {
                    tracing::warn!(%from, "refused: too many connections");
                    continue;
                };
                let (router, watcher) = (router.clone(), graceful.watcher());
                tokio::spawn(async move {
                    if let Err(error) = speak(stream, protocol, router, watcher).await {
                        tracing::debug!(%from, "connection: {error}");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!("accept: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn speak(
    stream: TcpStream,
    protocol: Protocol,
    router: Router,
    watcher: Watcher,
) -> Result<(), hyper::Error> {
    // An answer must not wait for more to send.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("nodelay: {error}");
    }
    if protocol == Protocol::Grpc && !begins(&stream).await {
        tracing::debug!("hung up: it does not speak HTTP/2");
        return Ok(());
    }
    let (io, service) = (TokioIo::new(stream), TowerToHyperService::new(router));
    match protocol {
        Protocol::Http => {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
            watcher.watch(http.serve_connection(io, service)).await
        }
        Protocol::Grpc => {
            let mut http = http2::Builder::new(TokioExecutor::new());
            http.timer(TokioTimer::new()).keep_alive_interval(ASK).keep_alive_timeout(ASK);
            http.max_header_list_size(HEAD_BYTES as u32).max_concurrent_streams(256);
            // Tensors are large: the window that the standard begins with would stop a sender every 64 KiB.
            http.initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
            watcher.watch(http.serve_connection(io, service)).await
        }
    }
}

/// Whether a connection begins as HTTP/2 does, within the time for a head. The library would wait for ever.
async fn begins(stream: &TcpStream) -> bool {
    let whole = async {
        let mut seen = [0; PREFACE.len()];
        loop {
            match stream.peek(&mut seen).await {
                Ok(n) if n > 0 && seen[..n] == PREFACE[..n] => {
                    if n == PREFACE.len() {
                        return true;
                    }
                    tokio::time::sleep(REST).await;
                }
                _ => return false,
            }
        }
    };
    tokio::time::timeout(HEAD, whole).await.unwrap_or(false)
}
