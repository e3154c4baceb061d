//! TLS towards callers: 1.3 only, a client certificate of the fleet's CA, resumption.

use std::sync::Arc;

use berth_model::id::NodeName;
use berth_model::relay::parse_instance_name;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{
    ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::folder::Identity;
use crate::state::Current;

/// The process's keys for tickets: callers resume their sessions whatever becomes of the certificate.
#[derive(Clone)]
pub(crate) struct Tickets(Arc<dyn ProducesTickets>);

impl Tickets {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self(ring::Ticketer::new()?))
    }
}

/// Makes what accepts connections. Errors: what cannot be used, for people.
pub(crate) fn acceptor(
    identity: &Identity,
    node: &NodeName,
    tickets: &Tickets,
    current: &watch::Receiver<Current>,
) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for ca in certificates("ca", &identity.ca)? {
        roots.add(ca).map_err(|error| format!("ca: {error}"))?;
    }
    let chain = certificates("certificate", &identity.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
        .map_err(|error| format!("key: {error}"))?;
    let certified = CertifiedKey::from_der(chain, key, &provider)
        .map_err(|error| format!("certificate and key: {error}"))?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| format!("ca: {error}"))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(Arc::new(Callers {
            signed: verifier,
            current: current.clone(),
        }))
        .with_cert_resolver(Arc::new(Named {
            node: node.clone(),
            certified: Arc::new(certified),
        }));
    config.ticketer = Arc::clone(&tickets.0);
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if all.is_empty() => Err(format!("{what}: there is no certificate in it")),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

/// Shows the certificate only to those who ask for an instance of this node, whichever.
#[derive(Debug)]
struct Named {
    node: NodeName,
    certified: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Named {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (_, node) = parse_instance_name(hello.server_name()?)?;
        (node == self.node).then(|| Arc::clone(&self.certified))
    }
}

/// Takes certificates that the CA signed for clients, whatever the dates in them (see the crate's documentation),
/// of those who may come by the newest table.
struct Callers {
    signed: Arc<dyn ClientCertVerifier>,
    current: watch::Receiver<Current>,
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Callers")
    }
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Who comes knows which certificate is wanted, and others need not know whose fleet this is.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verify = |at| {
            self.signed
                .verify_client_cert(end_entity, intermediates, at)
        };
        let signed = match verify(now) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => verify(not_after),
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before,
                ..
            })) => verify(not_before),
            other => other,
        }?;
        let current = self.current.borrow();
        match current.as_ref().and_then(|state| state.admit(end_entity)) {
            Some(_) => Ok(signed),
            None => Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<tokio_rustls::rustls::client::danger::HandshakeSignatureValid, Error> {
        self.signed
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<tokio_rustls::rustls::client::danger::HandshakeSignatureValid, Error> {
        self.signed
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}
