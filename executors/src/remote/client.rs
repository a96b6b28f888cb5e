//! A client of the Open Inference Protocol v2 over HTTP/1.1, in the clear or with TLS, with connections that are used again. It asks a
//! server what its models take, and speaks binary tensors where the server says that it understands them, JSON elsewhere. It refuses
//! to look into answers: that is for those who asked.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::http::request::Builder;
use hyper::http::{Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Why a server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached, or does not answer.
    #[error("{address}: {problem}")]
    Unreachable {
        /// Where.
        address: String,
        /// What went wrong.
        problem: String,
    },
    /// It answers, but not what the protocol says.
    #[error("{address}{path}: {problem}")]
    Unexpected {
        /// Where.
        address: String,
        /// Which path.
        path: String,
        /// What it said and what was expected.
        problem: String,
    },
    /// There is no runtime to be had.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// An answer of any status.
pub struct Response {
    /// As HTTP has it.
    pub status: u16,
    /// Where binary data follows: how many bytes of the body are JSON.
    pub json_bytes: Option<usize>,
    /// All of it.
    pub body: Bytes,
}

impl Response {
    /// What an answer that is no good says, shortened.
    pub fn complaint(&self) -> String {
        let told = serde_json::from_slice::<Value>(&self.body).ok();
        let told = told.and_then(|v| v["error"].as_str().map(str::to_owned));
        let text = told.unwrap_or_else(|| String::from_utf8_lossy(&self.body).into_owned());
        format!("status {}: {}", self.status, text.chars().take(200).collect::<String>())
    }
}

/// Who is asked. See the module's text.
pub struct Client {
    /// `host:port`.
    address: String,
    /// With whom TLS is spoken, and how.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The value of the header `Authorization`.
    authorization: Option<String>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// Largest answer that is read, in bytes.
const MOST: usize = 1 << 30;

/// Anything that bytes go through.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Client {
    /// For a server at `host:port`, in the clear.
    pub fn new(address: &str) -> Client {
        let address = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
        Client { address: address.to_owned(), tls: None, authorization: None, idle: Mutex::new(Vec::new()) }
    }

    /// For a server at `host:port`, `http://host:port` or `https://host:port`. With `https` it trusts the certificates in the PEM file
    /// `trusted` and no others.
    ///
    /// # Errors
    /// In words: another scheme, a path, no file of certificates, or one that holds none.
    pub fn open(url: &str, trusted: Option<&Path>) -> Result<Client, String> {
        let Some(rest) = url.strip_prefix("https://") else {
            let client = Client::new(url);
            if client.address.contains('/') || !client.address.contains(':') {
                return Err(format!("`{url}`: expected http://HOST:PORT or https://HOST:PORT"));
            }
            return Ok(client);
        };
        let client = Client::new(rest);
        let path = trusted.ok_or_else(|| format!("`{url}`: https needs a file of trusted certificates"))?;
        let name = client.address.rsplit_once(':').map_or("", |(host, _)| host);
        let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name =
            ServerName::try_from(name).map_err(|e| format!("`{url}`: expected https://HOST:PORT ({e})"))?;
        Ok(Client { tls: Some((connector(path)?, name)), ..client })
    }

    /// The same with a bearer token in every request, where there is one.
    pub fn with_token(self, token: Option<String>) -> Client {
        Client { authorization: token.map(|token| format!("Bearer {token}")), ..self }
    }

    /// Where it asks.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Forgets its connections: they belong to the runtime in which they were opened.
    pub fn forget(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn with_head(&self, request: Builder) -> Builder {
        let request = request.header(header::HOST, &self.address);
        match &self.authorization {
            Some(value) => request.header(header::AUTHORIZATION, value),
            None => request,
        }
    }

    /// What a path says, as JSON. Blocks; not for threads of a runtime.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn read(&self, path: &str) -> Result<Value, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let value = runtime.block_on(self.get(path));
        self.forget();
        value
    }

    /// A connection, and whether it has been used before.
    async fn connection(&self) -> Result<(SendRequest<Full<Bytes>>, bool), String> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut idle) = idle else { break };
            // One that the server has closed meanwhile is no use.
            if idle.ready().await.is_ok() {
                return Ok((idle, true));
            }
        }
        let stream = TcpStream::connect(&self.address).await.map_err(|e| format!("connect: {}", e.kind()))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let wire: Box<dyn Wire> = match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => {
                let spoken = connector.connect(name.clone(), stream).await;
                Box::new(spoken.map_err(|e| format!("TLS: {e}"))?)
            }
        };
        let (send, connection) = handshake(TokioIo::new(wire)).await.map_err(|e| e.to_string())?;
        tokio::spawn(async move { drop(connection.await) });
        Ok((send, false))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response, String> {
        let again = request.clone();
        let (mut connection, used) = self.connection().await?;
        let mut response = connection.send_request(request).await;
        // The server may close a connection at the moment when it is used again; nothing was answered then.
        if used && response.as_ref().is_err_and(hung_up) {
            self.forget();
            (connection, _) = self.connection().await?;
            response = connection.send_request(again).await;
        }
        let response = response.map_err(|e| format!("send: {e}"))?;
        let status = response.status().as_u16();
        let json_bytes = response.headers().get(JSON_BYTES).and_then(|v| v.to_str().ok()?.parse().ok());
        let body = Limited::new(response.into_body(), MOST).collect().await;
        let body = body.map_err(|e| format!("receive: {e}"))?.to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(Response { status, json_bytes, body })
    }

    /// Posts a body of which the first `json_bytes` are JSON, where binary data follows.
    ///
    /// # Errors
    /// What went wrong with the connection.
    pub async fn post(&self, path: &str, body: Bytes, json_bytes: Option<usize>) -> Result<Response, String> {
        let request = self.with_head(Request::post(path));
        let request = match json_bytes {
            Some(n) => request.header(header::CONTENT_TYPE, "application/octet-stream").header(JSON_BYTES, n),
            None => request.header(header::CONTENT_TYPE, "application/json"),
        };
        self.send(request.body(Full::new(body)).map_err(|e| e.to_string())?).await
    }

    /// What a path says, as JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        let address = || self.address.clone();
        let unreachable = |problem| ClientError::Unreachable { address: address(), problem };
        let unexpected =
            |problem| ClientError::Unexpected { address: address(), path: path.to_owned(), problem };
        let request = self.with_head(Request::get(path)).body(Full::default());
        let request = request.map_err(|e| unexpected(e.to_string()))?;
        let response = self.send(request).await.map_err(unreachable)?;
        if response.status != 200 {
            return Err(unexpected(format!("expected status 200, got {}", response.complaint())));
        }
        serde_json::from_slice(&response.body).map_err(|e| unexpected(format!("expected JSON: {e}")))
    }
}

/// Whether the other side closed the connection instead of answering: before, while or after the request was written.
fn hung_up(error: &hyper::Error) -> bool {
    error.is_canceled()
        || error.is_incomplete_message()
        || error.source().is_some_and(|e| e.is::<io::Error>())
}

/// Header with the length of the JSON before binary data.
const JSON_BYTES: &str = "inference-header-content-length";

/// Speaks TLS with servers whose certificates the file vouches for.
fn connector(trusted: &Path) -> Result<TlsConnector, String> {
    let shown = trusted.display();
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(trusted).map_err(|e| format!("{shown}: cannot be read: {e}"))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| format!("{shown}: expected PEM: {e}"))?;
        roots.add(certificate).map_err(|e| format!("{shown}: {e}"))?;
    }
    if roots.is_empty() {
        return Err(format!("{shown}: expected at least one certificate in PEM"));
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Serves connections one after the other, each with so many answers; it hangs up in the middle of the request after them.
    fn server(answers: &'static [usize]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for answers in answers {
                let mut stream = listener.accept().unwrap().0;
                let mut bytes = vec![0; 1 << 16];
                for _ in 0..*answers {
                    // A request ends with the only 9 in it.
                    let mut last = 0;
                    while last != 9 {
                        let n = stream.read(&mut bytes).unwrap();
                        last = bytes[n - 1];
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
                }
                stream.read_exact(&mut [0; 20]).unwrap();
            }
        });
        address
    }

    #[test]
    fn a_request_is_sent_again_where_the_server_hung_up_on_a_connection_used_before() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut body = vec![0; 4 << 20];
        body.push(9);
        let body = Bytes::from(body);
        let asked = |client: Client, times: usize| {
            runtime.block_on(async {
                let mut ends = Vec::new();
                for _ in 0..times {
                    ends.push(client.post("/", body.clone(), None).await.map(|r| r.status));
                }
                ends
            })
        };
        assert_eq!(asked(Client::new(&server(&[1, 2])), 3), [Ok(200), Ok(200), Ok(200)]);
        // A new connection that is closed at once is the server's answer: nobody asks for ever.
        let ends = asked(Client::new(&server(&[0, 1])), 1);
        assert!(ends[0].as_ref().is_err_and(|e| e.starts_with("send: ")), "{ends:?}");
    }
}
