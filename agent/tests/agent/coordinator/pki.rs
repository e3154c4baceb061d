//! A CA as a coordinator has one.

use std::time::Duration;

use berth_agent::identity::key_hash;
use berth_proto::COORDINATOR_NAME;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use time::OffsetDateTime;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

pub(crate) struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
    server: rcgen::Certificate,
    server_key: KeyPair,
    pub(crate) hash: String,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "Berth CA");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new(vec![COORDINATOR_NAME.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server_key = KeyPair::generate().unwrap();
        let server = params.signed_by(&server_key, &ca).unwrap();
        let hash = key_hash(ca.der()).unwrap();
        Self {
            ca,
            server,
            server_key,
            hash,
        }
    }

    pub(crate) fn server_tls(&self) -> ServerTlsConfig {
        let chain = self.server.pem() + &self.ca.pem();
        ServerTlsConfig::new()
            .identity(Identity::from_pem(chain, self.server_key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(self.ca.pem()))
            .client_auth_optional(true)
    }

    pub(crate) fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// The public key in a request.
    pub(crate) fn key_of(&self, csr: &[u8]) -> Vec<u8> {
        use rcgen::PublicKeyData;
        let request = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        request.public_key.der_bytes().to_vec()
    }

    /// Certifies a request's key, whatever else it says.
    pub(crate) fn sign(&self, csr: &[u8], name: &str, life: Duration) -> String {
        let mut request = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = OffsetDateTime::now_utc();
        params.not_after = params.not_before + life;
        request.params = params;
        request.signed_by(&self.ca).unwrap().pem()
    }

    /// For serving in one DNS name.
    pub(crate) fn sign_server(&self, csr: &[u8], name: &str, life: Duration) -> String {
        let mut request = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = OffsetDateTime::now_utc();
        params.not_after = params.not_before + life;
        request.params = params;
        request.signed_by(&self.ca).unwrap().pem()
    }
}
