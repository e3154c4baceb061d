//! Trust in the fleet's own servers, whatever the clocks say.
//!
//! A server is trusted because the fleet's CA, which whoever dials knows beforehand, signed its certificate
//! for serving and for the name that is asked for. The dates in it are not looked at: a machine whose clock is
//! wrong by a year must find its coordinator, and nothing is lost by that. The coordinator's key lies beside the
//! CA's own, so whoever can steal the one can make any other; and a node is let in and sent away by its key, not
//! by a date.
//!
//! Not for servers that people name, which any CA may have signed.
#![forbid(unsafe_code)]

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, WantsVerifier, client::WantsClientCert,
};

/// Accepts what another verifier accepts at any time.
#[derive(Debug)]
pub struct Undated(Arc<dyn ServerCertVerifier>);

impl Undated {
    /// Trusts what `signed` trusts, whatever the dates.
    pub fn new(signed: Arc<dyn ServerCertVerifier>) -> Self {
        Self(signed)
    }

    /// Trusts what these CAs signed. Errors: one of them is not a CA's certificate.
    pub fn of(cas: &[CertificateDer<'_>]) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for ca in cas {
            roots.add(ca.clone().into_owned())?;
        }
        let provider = Arc::new(ring::default_provider());
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self(signed))
    }
}

/// Begins a client's configuration that trusts what these CAs signed.
pub fn client(
    cas: &[CertificateDer<'_>],
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder: ConfigBuilder<ClientConfig, WantsVerifier> =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Undated::of(cas)?)))
}

impl ServerCertVerifier for Undated {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |at| {
            let signed = &self.0;
            signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)
        };
        // Everything else is checked again at a time at which the certificate holds.
        match verify(now) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => verify(not_after),
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before,
                ..
            })) => verify(not_before),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
        IsCa, KeyPair,
    };
    use time::OffsetDateTime;

    use super::*;

    const NAME: &str = "coordinator.example";
    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Good for a day from now.
    fn server(
        ca: &CertifiedIssuer<'static, KeyPair>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Certificate {
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.not_before = OffsetDateTime::now_utc();
        params.not_after = params.not_before + Duration::from_secs(86_400);
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, ca).unwrap()
    }

    fn now() -> Duration {
        Duration::from_secs(UnixTime::now().as_secs())
    }

    fn check(
        trusted: &CertifiedIssuer<'static, KeyPair>,
        shown: &Certificate,
        name: &str,
        at: Duration,
    ) -> Result<(), Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let at = UnixTime::since_unix_epoch(at);
        Undated::of(&[trusted.der().clone()])?
            .verify_server_cert(shown.der(), &[], &name, &[], at)
            .map(|_| ())
    }

    #[test]
    fn the_fleets_server_is_trusted_at_any_time() {
        let ca = authority();
        let shown = server(&ca, ExtendedKeyUsagePurpose::ServerAuth);
        let minute = Duration::from_secs(60);
        for at in [now() + minute, now() - YEAR, now() + YEAR, minute] {
            check(&ca, &shown, NAME, at).unwrap();
        }
    }

    /// Neither is the date a way round everything else.
    #[test]
    fn what_the_fleet_did_not_sign_for_this_is_trusted_at_no_time() {
        let ca = authority();
        let good = server(&ca, ExtendedKeyUsagePurpose::ServerAuth);
        let nodes = server(&ca, ExtendedKeyUsagePurpose::ClientAuth);
        for at in [now() - YEAR, now() + Duration::from_secs(60), now() + YEAR] {
            check(&authority(), &good, NAME, at).unwrap_err();
            check(&ca, &good, "other.example", at).unwrap_err();
            check(&ca, &nodes, NAME, at).unwrap_err();
        }
    }
}
