//! The coordinator's server certificate: made anew at each start and at two thirds of its life,
//! without closing a connection.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::KeyPair;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use time::OffsetDateTime;

use super::{Authority, PkiError, files};

/// How often the certificate's age is looked at. By the wall clock, so a clock that was set or a
/// machine that slept is noticed too.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// The certificate that is used now, with its key.
pub struct ServerCertificate {
    authority: Arc<Authority>,
    dir: PathBuf,
    names: Vec<String>,
    life: Duration,
    current: ArcSwap<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    not_after: OffsetDateTime,
}

impl ServerCertificate {
    /// Makes the certificate; `server.crt` and `server.key` in the folder show it to people.
    /// `extra` names and addresses are added to the ones that every coordinator has.
    pub fn create(
        authority: Arc<Authority>,
        dir: &Path,
        extra: &[String],
        life: Duration,
    ) -> Result<Arc<Self>, PkiError> {
        let names = names(extra);
        let current = issue(&authority, dir, &names, life)?;
        Ok(Arc::new(Self {
            authority,
            dir: dir.to_owned(),
            names,
            life,
            current: ArcSwap::from_pointee(current),
        }))
    }

    /// Renews the certificate whenever it is due; never returns.
    pub async fn keep_fresh(&self) {
        let mut ticks = tokio::time::interval(CHECK_EVERY.min(self.life / 6));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.renew_if_due(OffsetDateTime::now_utc());
        }
    }

    fn renew_if_due(&self, now: OffsetDateTime) {
        let left = self.current.load().not_after - now;
        // More left than a whole life: the clock was set back, and the certificate is not valid yet.
        if left > self.life / 3 && left <= self.life {
            return;
        }
        match issue(&self.authority, &self.dir, &self.names, self.life) {
            Ok(fresh) => {
                tracing::info!(not_after = %fresh.not_after, "renewed the server certificate");
                self.current.store(Arc::new(fresh));
            }
            Err(error) => {
                tracing::error!(
                    error = crate::chain(&error),
                    "cannot renew the server certificate"
                );
            }
        }
    }

    #[cfg(test)]
    fn current_der(&self) -> Vec<u8> {
        self.current.load().key.cert[0].to_vec()
    }
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerCertificate({:?})", self.names)
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1; client certificates are optional, but must be the
/// authority's (and for client use) where one is shown.
pub fn server_config(
    authority: &Authority,
    certificate: Arc<ServerCertificate>,
) -> Result<ServerConfig, PkiError> {
    let tls = |error: &dyn std::fmt::Display| PkiError::Tls(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(authority.certificate().clone())
        .map_err(|error| tls(&error))?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| tls(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn issue(
    authority: &Authority,
    dir: &Path,
    names: &[String],
    life: Duration,
) -> Result<Current, PkiError> {
    let key = KeyPair::generate()?;
    let issued = authority.sign_server(&key, names, life)?;
    // For people and tools only; a full disk must not keep the coordinator from a valid certificate.
    if let Err(error) = show(dir, &key, &issued.chain_pem) {
        tracing::warn!(
            error = crate::chain(&error),
            "the server certificate's files are not current"
        );
    }
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    let signer = ring::default_provider()
        .key_provider
        .load_private_key(private)
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    // The authority's certificate is in the chain, so that a joining agent can check its key's hash.
    let chain = vec![issued.der, authority.certificate().clone()];
    Ok(Current {
        key: Arc::new(CertifiedKey::new(chain, signer)),
        not_after: issued.not_after,
    })
}

fn show(dir: &Path, key: &KeyPair, chain: &str) -> Result<(), PkiError> {
    let pem = key.serialize_pem();
    files::replace(&dir.join("server.key"), pem.as_bytes(), files::PRIVATE)?;
    files::replace(&dir.join("server.crt"), chain.as_bytes(), files::PUBLIC)
}

fn names(extra: &[String]) -> Vec<String> {
    let always = [
        berth_proto::COORDINATOR_NAME,
        "localhost",
        "127.0.0.1",
        "::1",
    ];
    let mut names: BTreeSet<String> = always.map(str::to_owned).into();
    names.extend(extra.iter().cloned());
    let host = host_name();
    if !host.is_empty() && rustls::pki_types::DnsName::try_from(host.as_str()).is_ok() {
        names.insert(host);
    }
    names.into_iter().collect()
}

/// The machine's name; empty if it has none.
pub(crate) fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_renewed_at_two_thirds_of_its_life_and_when_the_clock_was_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(dir.path()).unwrap());
        let life = Duration::from_secs(3000);
        let extra = ["berth.example".to_owned(), "10.1.2.3".to_owned()];
        let server = ServerCertificate::create(authority, dir.path(), &extra, life).unwrap();
        let now = OffsetDateTime::now_utc();
        let first = server.current_der();
        server.renew_if_due(now + Duration::from_secs(1900));
        assert_eq!(first, server.current_der());
        server.renew_if_due(now + Duration::from_secs(2001));
        let second = server.current_der();
        assert_ne!(first, second);
        server.renew_if_due(now - Duration::from_secs(7200));
        assert_ne!(second, server.current_der());
        let (_, parsed) = x509_parser::parse_x509_certificate(&second).unwrap();
        let sans = parsed.subject_alternative_name().unwrap().unwrap().value;
        let text = format!("{:?}", sans.general_names);
        for wanted in ["coordinator.berth.internal", "localhost", "berth.example"] {
            assert!(text.contains(wanted), "{text}");
        }
    }
}
