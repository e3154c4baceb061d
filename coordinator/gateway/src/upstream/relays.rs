//! TLS towards relays: whom this gateway shows itself as, and how it knows that it talks to the right one.

use std::io;
use std::sync::Arc;

use berth_model::relay::{Answer, parse_instance_name, relay_name};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{
    ClientSessionMemoryCache, Resumption, verify_server_cert_signed_by_trust_anchor,
    verify_server_name,
};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::Failure;
use crate::error::GatewayError;
use crate::routing::Via;

/// Instances whose sessions are kept to be resumed, over all threads.
const SESSIONS: usize = 4096;

/// What a gateway shows to relays, all in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayIdentity {
    /// Its certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The fleet's CA.
    pub ca: String,
}

/// Never shows the key.
impl std::fmt::Debug for RelayIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayIdentity").finish_non_exhaustive()
    }
}

/// Connects to relays.
pub(crate) struct Relays {
    connector: TlsConnector,
}

impl Relays {
    /// Errors: what of the identity cannot be used.
    pub(crate) fn new(identity: &RelayIdentity) -> Result<Self, GatewayError> {
        let bad = |what: &str, error: &dyn std::fmt::Display| {
            GatewayError::Identity(format!("{what}: {error}"))
        };
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for ca in certificates(&identity.ca).map_err(|e| bad("ca", &e))? {
            roots.add(ca).map_err(|e| bad("ca", &e))?;
        }
        let verifier = OfTheFleet {
            roots,
            algorithms: provider.signature_verification_algorithms,
        };
        let chain = certificates(&identity.certificate).map_err(|e| bad("certificate", &e))?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| bad("TLS", &e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain, key.map_err(|e| bad("key", &e))?)
            .map_err(|e| bad("certificate and key", &e))?;
        config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(SESSIONS)));
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// The connection to an instance, once its relay has said that there is one. Until then nothing is sent.
    pub(super) async fn open(
        &self,
        via: &Via,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let connecting = self.connector.connect(via.name.clone(), stream);
        let mut stream = connecting.await.map_err(|error| failed(&error))?;
        let certificates = stream.get_ref().1.peer_certificates();
        let shown = certificates.and_then(|all| key_hash(all.first()?));
        if shown.is_none_or(|shown| !shown.eq_ignore_ascii_case(&via.relayed.key)) {
            let why = format!("it shows another key than that of {}", via.relayed.node);
            return Err(Failure::Relay(why));
        }
        let mut word = [0];
        match stream.read(&mut word).await {
            // An orderly end.
            Ok(0) => {
                let why = format!("it turns this gateway away without a word{UNTOLD}");
                return Err(Failure::Relay(why));
            }
            Ok(_) => {}
            Err(error) => return Err(failed(&error)),
        }
        let [byte] = word;
        match Answer::of(byte) {
            Some(Answer::Connected) => Ok(stream),
            Some(answer) => Err(Failure::Relay(answer.to_string())),
            None => Err(Failure::Relay(format!(
                "it answers {byte}, which this version does not know"
            ))),
        }
    }
}

/// Added where that may be the reason.
const UNTOLD: &str = " (it may not have been told of this gateway yet)";

/// A relay that is killed, or has no place for a stranger, ends in disorder; whom it does not know gets an alert.
fn failed(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => Failure::Away(error.to_string()),
        io::ErrorKind::InvalidData => Failure::Relay(format!("{error}{UNTOLD}")),
        _ => Failure::Relay(error.to_string()),
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if all.is_empty() => Err("there is no certificate in it".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(error.to_string()),
    }
}

/// SHA-256 of a certificate's key, hexadecimal.
fn key_hash(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let key = parsed.subject_public_key_info();
    let hash = ::ring::digest::digest(&::ring::digest::SHA256, key.as_ref());
    Some(hash.as_ref().iter().map(|b| format!("{b:02x}")).collect())
}

/// Takes certificates that the fleet's CA signed for the relay of the node that is asked for. That it has that
/// relay's very key is checked of every connection, resumed ones too. The dates are not looked at: a gateway whose
/// clock is wrong, or nodes that cannot reach their coordinator for longer than a certificate's life, would make an
/// outage of nothing; and the key that counts comes with the route table.
#[derive(Debug)]
struct OfTheFleet {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for OfTheFleet {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let verify = |at| {
            let (roots, algorithms) = (&self.roots, self.algorithms.all);
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, at, algorithms)
        };
        match verify(now) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => verify(not_after),
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before,
                ..
            })) => verify(not_before),
            other => other,
        }?;
        let (_, node) = parse_instance_name(&server_name.to_str()).ok_or(Error::General(
            "what is asked for is no instance".to_owned(),
        ))?;
        let name = ServerName::try_from(relay_name(&node))
            .map_err(|error| Error::General(error.to_string()))?;
        verify_server_name(&parsed, &name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
