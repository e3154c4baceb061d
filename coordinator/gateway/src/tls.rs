//! HTTPS towards clients.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::config::TlsConfig;
use crate::error::GatewayError;

/// Reads certificate and key. HTTP/1.1 only, until the gateway speaks HTTP/2.
pub(crate) fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, GatewayError> {
    let bad = |path: &Path, reason: String| GatewayError::Certificate {
        path: path.to_owned(),
        reason,
    };
    let chain = CertificateDer::pem_file_iter(&config.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| bad(&config.certificate, e.to_string()))?;
    if chain.is_empty() {
        return Err(bad(
            &config.certificate,
            "it holds no certificate".to_owned(),
        ));
    }
    let key =
        PrivateKeyDer::from_pem_file(&config.key).map_err(|e| bad(&config.key, e.to_string()))?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| bad(&config.certificate, e.to_string()))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}
