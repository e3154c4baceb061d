//! Trust by the hash of a CA's public key: all that a joining node knows of its coordinator.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

/// base64url (no padding) SHA-256 of a certificate's public key (SubjectPublicKeyInfo); none if it is no
/// certificate.
pub fn key_hash(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(URL_SAFE_NO_PAD.encode(Sha256::digest(parsed.public_key().raw)))
}

/// Accepts a server only if the chain that it presents holds the CA of a known key hash, and that CA
/// signed its certificate, for serving, in the name that is asked for, and it has not expired.
#[derive(Debug)]
pub struct PinnedCa {
    hash: String,
    provider: Arc<CryptoProvider>,
}

impl PinnedCa {
    /// Trusts the CA whose public key has this hash (base64url SHA-256).
    pub fn new(hash: &str, provider: Arc<CryptoProvider>) -> Self {
        Self {
            hash: hash.to_owned(),
            provider,
        }
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| key_hash(certificate).as_deref() == Some(&self.hash))
            .ok_or_else(|| {
                Error::General(
                    "the server does not present the CA that the join token names: it is not this \
                     fleet's coordinator, or the token is from another fleet"
                        .to_owned(),
                )
            })?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa,
        KeyPair,
    };
    use time::OffsetDateTime;

    use super::*;
    use crate::identity::NodeKey;

    pub(crate) fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    pub(crate) fn leaf(
        ca: &CertifiedIssuer<'static, KeyPair>,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        key: &KeyPair,
        life: Duration,
    ) -> rcgen::Certificate {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.not_before = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
        params.not_after = params.not_before + life;
        params.signed_by(key, ca).unwrap()
    }

    /// PEM of a new CA, the hash of its key, and PEM of a certificate for a node's key.
    pub(crate) fn issue(key: &NodeKey, life: Duration) -> (String, String, String) {
        let ca = authority();
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let certificate = leaf(&ca, "n1", usage, key.pair(), life);
        (ca.pem(), key_hash(ca.der()).unwrap(), certificate.pem())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{ExtendedKeyUsagePurpose, KeyPair};

    use super::testing::{authority, leaf};
    use super::*;

    fn check(
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        present: bool,
        known: bool,
    ) -> Result<(), Error> {
        let (ca, other) = (authority(), authority());
        let key = KeyPair::generate().unwrap();
        let server = leaf(&ca, name, usage, &key, Duration::from_secs(60));
        let hash = key_hash(if known { ca.der() } else { other.der() }).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let presented = if present {
            vec![ca.der().clone(), other.der().clone()]
        } else {
            vec![]
        };
        PinnedCa::new(&hash, provider)
            .verify_server_cert(
                server.der(),
                &presented,
                &ServerName::try_from(berth_proto::COORDINATOR_NAME).unwrap(),
                &[],
                UnixTime::now(),
            )
            .map(|_| ())
    }

    #[test]
    fn only_a_server_certificate_of_the_known_ca_in_the_right_name_is_accepted() {
        let name = berth_proto::COORDINATOR_NAME;
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        check(name, server.clone(), true, true).unwrap();
        check(name, server.clone(), false, true).unwrap_err();
        // The other CA is presented and known, but did not sign.
        check(name, server.clone(), true, false).unwrap_err();
        check("other.example", server, true, true).unwrap_err();
        // What a node has: a stolen one must not pose as the coordinator.
        check(name, ExtendedKeyUsagePurpose::ClientAuth, true, true).unwrap_err();
    }
}
