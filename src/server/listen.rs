//! Sockets: accepts connections, speaks HTTP/1.1 or HTTP/2 on them, inside TLS where there is a certificate, and lets them finish at
//! shutdown. It refuses more connections than allowed, heads that take too long to come, and to know what is asked.

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

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
/// Largest head, in bytes.
const HEAD_BYTES: usize = 64 << 10;

/// What a socket is for.
pub struct Door {
    /// What is spoken.
    pub protocol: Protocol,
    /// Inside TLS, or in the clear.
    pub tls: Option<TlsAcceptor>,
    /// What answers.
    pub router: Router,
    /// Connections that may still come.
    pub connections: Arc<Semaphore>,
}

/// Accepts until `stop` becomes true, then waits until every connection is over.
pub async fn serve(
    listener: TcpListener,
    Door { protocol, tls, router, connections }: Door,
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
                let (tls, router, watcher) = (tls.clone(), router.clone(), graceful.watcher());
                tokio::spawn(async move {
                    if let Err(error) = welcome(stream, protocol, tls, router, watcher).await {
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

/// Why a connection ended otherwise than it should.
type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// Speaks TLS first where it is spoken.
async fn welcome(
    stream: TcpStream,
    protocol: Protocol,
    tls: Option<TlsAcceptor>,
    router: Router,
    watcher: Watcher,
) -> Result<(), Trouble> {
    // An answer must not wait for more to send.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("nodelay: {error}");
    }
    match tls {
        None => speak(stream, protocol, router, watcher).await,
        Some(tls) => {
            let inside = tokio::time::timeout(HEAD, tls.accept(stream)).await??;
            speak(inside, protocol, router, watcher).await
        }
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    mut stream: S,
    protocol: Protocol,
    router: Router,
    watcher: Watcher,
) -> Result<(), Trouble> {
    let begins = match protocol {
        Protocol::Http => 0,
        Protocol::Grpc if begins(&mut stream).await => PREFACE.len(),
        Protocol::Grpc => {
            tracing::debug!("hung up: it does not speak HTTP/2");
            return Ok(());
        }
    };
    let stream = Begun { seen: &PREFACE[..begins], stream };
    let (io, service) = (TokioIo::new(stream), TowerToHyperService::new(router));
    match protocol {
        Protocol::Http => {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
            watcher.watch(http.serve_connection(io, service)).await?;
        }
        Protocol::Grpc => {
            let mut http = http2::Builder::new(TokioExecutor::new());
            http.timer(TokioTimer::new()).keep_alive_interval(ASK).keep_alive_timeout(ASK);
            http.max_header_list_size(HEAD_BYTES as u32).max_concurrent_streams(256);
            // Tensors are large: the window that the standard begins with would stop a sender every 64 KiB.
            http.initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
            watcher.watch(http.serve_connection(io, service)).await?;
        }
    }
    Ok(())
}

/// Whether a connection begins as HTTP/2 does, within the time for a head. The library would wait for ever.
async fn begins(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let whole = async {
        let (mut seen, mut n) = ([0; PREFACE.len()], 0);
        while n < PREFACE.len() {
            match stream.read(&mut seen[n..]).await {
                Ok(more) if more > 0 && seen[..n + more] == PREFACE[..n + more] => n += more,
                _ => return false,
            }
        }
        true
    };
    tokio::time::timeout(HEAD, whole).await.unwrap_or(false)
}

/// A stream of which the first bytes have been read already.
struct Begun<S> {
    seen: &'static [u8],
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, out);
        }
        let (now, later) = self.seen.split_at(self.seen.len().min(out.remaining()));
        out.put_slice(now);
        self.seen = later;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
}
