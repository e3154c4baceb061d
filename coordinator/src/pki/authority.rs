//! Berth's certificate authority: made at the first start, kept for the fleet's life.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_model::id::{GatewayName, NodeName};
use berth_model::relay;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SigningKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::{PkiError, files};

/// Certificates count as valid this long before they were made, for machines whose clocks are behind.
const CLOCK_SLACK: Duration = Duration::from_secs(3600);
/// Twenty years: the authority is replaced by people, not by a timer.
const CA_LIFE: Duration = Duration::from_secs(20 * 365 * 86400);

/// The authority that signs the fleet's certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    key_hash: [u8; 32],
}

/// A certificate as it goes to its owner.
pub struct IssuedCertificate {
    /// The certificate, then the authority's, in PEM.
    pub chain_pem: String,
    /// The certificate alone, in PEM.
    pub pem: String,
    /// The same in DER.
    pub der: CertificateDer<'static>,
    /// The moment from which it is not valid any more.
    pub not_after: OffsetDateTime,
}

/// A certificate request that nothing can be signed for.
#[derive(Debug, thiserror::Error)]
#[error("the certificate request is not valid: {0}")]
pub struct CsrError(#[from] rcgen::Error);

/// A certificate request whose signature proves that its sender holds the key.
pub struct VerifiedCsr {
    request: CertificateSigningRequestParams,
}

impl VerifiedCsr {
    /// Reads a PKCS#10 request in DER and checks its signature. Errors: [`CsrError`].
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))?;
        Ok(Self { request })
    }

    /// SHA-256 of the key (SubjectPublicKeyInfo, DER), hexadecimal: what a node is pinned by.
    pub fn key_hash(&self) -> String {
        hex::encode(Sha256::digest(
            self.request.public_key.subject_public_key_info(),
        ))
    }
}

impl Authority {
    /// Loads the authority from `ca.key` and `ca.crt` in the folder, or makes it at the first start.
    ///
    /// The key is on disk before the certificate, so a crash in between leaves a key alone; the
    /// certificate is then made from that key, which every holder of an earlier certificate of the
    /// same key goes on trusting. A certificate without its key is an error: nothing here may
    /// replace an authority that nodes trust.
    pub fn load_or_create(dir: &Path) -> Result<Self, PkiError> {
        let (key_path, cert_path) = (dir.join("ca.key"), dir.join("ca.crt"));
        let key = match files::read(&key_path)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|error| PkiError::Content {
                path: key_path.clone(),
                problem: format!("is not a private key ({error}); restore it from your backup"),
            })?,
            None if cert_path.exists() => {
                return Err(PkiError::Content {
                    path: key_path,
                    problem: "is missing, but ca.crt is there: nodes trust that authority. \
                              Restore ca.key from your backup"
                        .to_owned(),
                });
            }
            None => create_key(&key_path)?,
        };
        files::tighten(&key_path)?;
        let pem = match files::read(&cert_path)? {
            Some(pem) => pem,
            None => create_certificate(&cert_path, &key)?,
        };
        Self::assemble(key, pem, cert_path)
    }

    fn assemble(key: KeyPair, pem: String, path: PathBuf) -> Result<Self, PkiError> {
        let bad = |problem: String| PkiError::Content {
            path: path.clone(),
            problem,
        };
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| bad(format!("is not a certificate: {error}")))?;
        let spki = key.subject_public_key_info();
        let certified =
            spki_of(&certificate).ok_or_else(|| bad("is not a certificate".to_owned()))?;
        if certified != spki {
            return Err(bad(
                "does not belong to ca.key; restore both from the same backup".to_owned(),
            ));
        }
        Ok(Self {
            key_hash: Sha256::digest(&spki).into(),
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            certificate,
            pem,
        })
    }

    /// base64url SHA-256 of the authority's key (SubjectPublicKeyInfo): the part of a join token
    /// by which an agent knows the right coordinator.
    pub fn key_hash(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key_hash)
    }

    /// The authority's certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A key for one purpose that whoever has the authority's own key, and nobody else, can make again.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.issuer.key().serialized_der());
        let mut derived = [0; 32];
        derived.copy_from_slice(ring::hmac::sign(&key, purpose.as_bytes()).as_ref());
        derived
    }

    /// A certificate for a node's key. Nothing of the request but its key is used.
    pub fn sign_node(
        &self,
        csr: &VerifiedCsr,
        name: &str,
        life: Duration,
    ) -> Result<IssuedCertificate, PkiError> {
        let mut params = leaf(name, life, ExtendedKeyUsagePurpose::ClientAuth);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        self.sign(&params, &csr.request.public_key)
    }

    /// A certificate for the key of a node's relay, in its fixed name.
    pub fn sign_relay(
        &self,
        csr: &VerifiedCsr,
        node: &NodeName,
        life: Duration,
    ) -> Result<IssuedCertificate, PkiError> {
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        self.sign_named(csr, relay::relay_name(node), life, usage)
    }

    /// A certificate that a gateway shows to relays, in its fixed name.
    pub fn sign_gateway(
        &self,
        csr: &VerifiedCsr,
        gateway: &GatewayName,
        life: Duration,
    ) -> Result<IssuedCertificate, PkiError> {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        self.sign_named(csr, relay::gateway_name(gateway.as_str()), life, usage)
    }

    /// A certificate in one DNS name. Nothing of the request but its key is used. The subject is empty, as the
    /// name may be longer than a common name's 64 bytes.
    fn sign_named(
        &self,
        csr: &VerifiedCsr,
        name: String,
        life: Duration,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<IssuedCertificate, PkiError> {
        let mut params = leaf("", life, usage);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = CertificateParams::new([name])?.subject_alt_names;
        self.sign(&params, &csr.request.public_key)
    }

    /// A server certificate for the names and addresses.
    pub fn sign_server(
        &self,
        key: &impl PublicKeyData,
        names: &[String],
        life: Duration,
    ) -> Result<IssuedCertificate, PkiError> {
        let mut params = leaf(
            berth_proto::COORDINATOR_NAME,
            life,
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        params.subject_alt_names = CertificateParams::new(names.to_vec())?.subject_alt_names;
        self.sign(&params, key)
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<IssuedCertificate, PkiError> {
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(IssuedCertificate {
            chain_pem: format!("{}{}", certificate.pem(), self.pem),
            pem: certificate.pem(),
            der: certificate.der().clone(),
            not_after: params.not_after,
        })
    }
}

/// SHA-256 of a certificate's key (SubjectPublicKeyInfo, DER), hexadecimal; none if it is no certificate.
pub fn key_hash_of_certificate(certificate: &CertificateDer<'_>) -> Option<String> {
    spki_of(certificate).map(key_hash)
}

/// SHA-256 of a key (SubjectPublicKeyInfo, DER), hexadecimal.
pub(crate) fn key_hash(spki: &[u8]) -> String {
    hex::encode(Sha256::digest(spki))
}

fn spki_of<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a [u8]> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.tbs_certificate.subject_pki.raw)
}

fn create_key(path: &Path) -> Result<KeyPair, PkiError> {
    let key = KeyPair::generate()?;
    if files::create(path, key.serialize_pem().as_bytes(), files::PRIVATE)? {
        return Ok(key);
    }
    // Another process was faster: its key is the one that counts.
    let pem = files::read(path)?.unwrap_or_default();
    Ok(KeyPair::from_pem(&pem)?)
}

fn create_certificate(path: &Path, key: &impl SigningKey) -> Result<String, PkiError> {
    let mut params = base("Berth fleet CA", CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let certificate: Certificate = params.self_signed(key)?;
    let pem = certificate.pem();
    files::create(path, pem.as_bytes(), files::PUBLIC)?;
    Ok(files::read(path)?.unwrap_or(pem))
}

fn leaf(name: &str, life: Duration, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = base(name, life);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

fn base(name: &str, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SLACK;
    params.not_after = now + life;
    params
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn csr(key: &KeyPair) -> Vec<u8> {
        let params = base("whatever-the-agent-says", Duration::from_secs(1));
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn the_authority_survives_restarts_and_a_crash_between_key_and_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(dir.path()).unwrap();
        let again = Authority::load_or_create(dir.path()).unwrap();
        assert_eq!(first.pem(), again.pem());
        fs::remove_file(dir.path().join("ca.crt")).unwrap();
        let remade = Authority::load_or_create(dir.path()).unwrap();
        assert_eq!(first.key_hash(), remade.key_hash());
    }

    #[test]
    fn a_lost_or_foreign_key_is_refused_and_nothing_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        Authority::load_or_create(dir.path()).unwrap();
        let key_path = dir.path().join("ca.key");
        fs::remove_file(&key_path).unwrap();
        let error = Authority::load_or_create(dir.path()).err().unwrap();
        assert!(error.to_string().contains("backup"), "{error}");
        assert!(!key_path.exists());
        fs::write(&key_path, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let error = Authority::load_or_create(dir.path()).err().unwrap();
        assert!(error.to_string().contains("does not belong"), "{error}");
        fs::write(&key_path, "rubbish").unwrap();
        assert!(Authority::load_or_create(dir.path()).is_err());
    }

    #[test]
    fn a_node_certificate_has_the_given_name_and_the_requests_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        let request = VerifiedCsr::parse(&csr(&key)).unwrap();
        let name = "n1";
        let issued = authority
            .sign_node(&request, name, Duration::from_secs(60))
            .unwrap();
        assert_eq!(
            key_hash_of_certificate(&issued.der).unwrap(),
            request.key_hash()
        );
        let (_, parsed) = x509_parser::parse_x509_certificate(&issued.der).unwrap();
        assert_eq!(parsed.subject().to_string(), "CN=n1");
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
    }

    #[test]
    fn certificates_of_relays_and_gateways_are_good_for_one_name_and_one_use() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        let request = VerifiedCsr::parse(&csr(&key)).unwrap();
        let life = Duration::from_secs(60);
        let node = "n1".parse().unwrap();
        let gateway = "g1".parse().unwrap();
        for (issued, name, serves) in [
            (
                authority.sign_relay(&request, &node, life),
                "n1.relay.berth.internal",
                true,
            ),
            (
                authority.sign_gateway(&request, &gateway, life),
                "g1.gateway.berth.internal",
                false,
            ),
        ] {
            let issued = issued.unwrap();
            let (_, parsed) = x509_parser::parse_x509_certificate(&issued.der).unwrap();
            let usage = parsed.extended_key_usage().unwrap().unwrap().value;
            assert_eq!(
                (usage.server_auth, usage.client_auth),
                (serves, !serves),
                "{name}"
            );
            let names = parsed.subject_alternative_name().unwrap().unwrap().value;
            let names: Vec<String> = names
                .general_names
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(names, [format!("DNSName({name})")]);
            // One certificate, not the chain: the other side knows the CA.
            assert_eq!(issued.pem.matches("BEGIN").count(), 1);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0_usize..200, with: u8, cut in 0_usize..200) {
            let mut der = csr(&KeyPair::generate().unwrap());
            let at = at % der.len();
            der[at] = with;
            der.truncate(der.len() - cut % der.len());
            let _ = VerifiedCsr::parse(&der);
            let _ = key_hash_of_certificate(&CertificateDer::from(der));
        }
    }

    #[test]
    fn a_request_whose_signature_is_wrong_is_refused() {
        let mut der = csr(&KeyPair::generate().unwrap());
        assert!(VerifiedCsr::parse(&der).is_ok());
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(VerifiedCsr::parse(&der).is_err());
        assert!(VerifiedCsr::parse(b"").is_err());
    }
}
