//! TLS for both protocols: a certificate chain and its key from PEM files, read once when the server starts. It refuses keys that do not
//! belong to the certificate, versions before TLS 1.2, and certificates of callers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, then those that vouch for it, as PEM.
    pub certificate: PathBuf,
    /// Its key as PEM.
    pub key: PathBuf,
}

impl Files {
    /// What accepts connections that speak `protocol` inside TLS (`http/1.1` or `h2`).
    ///
    /// # Errors
    /// A file that cannot be read, holds nothing of the kind, or a key of another certificate; with the file's name.
    pub fn acceptor(&self, protocol: &str) -> Result<TlsAcceptor, String> {
        let of = |path: &Path, problem: String| format!("{}: {problem}", path.display());
        let certificates = CertificateDer::pem_file_iter(&self.certificate);
        let certificates = certificates.and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let certificates =
            certificates.map_err(|e| of(&self.certificate, format!("expected certificates in PEM: {e}")))?;
        if certificates.is_empty() {
            return Err(of(&self.certificate, "expected at least one certificate in PEM".into()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key = key.map_err(|e| of(&self.key, format!("expected a private key in PEM: {e}")))?;
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key);
        let mut config = config
            .map_err(|e| of(&self.key, format!("it is no key of {}: {e}", self.certificate.display())))?;
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
