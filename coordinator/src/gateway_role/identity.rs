//! What this gateway shows to relays: a key of its own, made once, and the coordinator's certificate for it.
//!
//! Both are on the disk, so that a gateway which starts while the coordinator is away still reaches instances.

use std::path::{Path, PathBuf};

use berth_gateway::{Handle, RelayIdentity};
use berth_proto::v1::Certified;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::pki::{PkiError, read, replace};

const KEY: &str = "relay.key";
const CERTIFICATE: &str = "relay.crt";
const CA: &str = "relay-ca.crt";

/// The key, and where it and its certificate are.
pub(super) struct Identity {
    dir: PathBuf,
    key: KeyPair,
}

/// A certificate that is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    #[error("the coordinator's certificate is not one")]
    NoCertificate,
    #[error("the coordinator's certificate is for another key")]
    OtherKey,
    #[error(transparent)]
    Gateway(#[from] berth_gateway::GatewayError),
}

impl Identity {
    /// Loads the key, or makes it. Shows relays the certificate of the last run, if there is one.
    pub(super) fn open(dir: &Path, gateway: &Handle) -> Result<Self, PkiError> {
        let path = dir.join(KEY);
        let key = match read(&path)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|error| PkiError::Content {
                path,
                problem: format!("is not a private key ({error}); remove it and a new one is made"),
            })?,
            None => {
                let key = KeyPair::generate()?;
                replace(&path, key.serialize_pem().as_bytes(), 0o600)?;
                key
            }
        };
        let identity = Self {
            dir: dir.to_owned(),
            key,
        };
        if let (Some(certificate), Some(ca)) = (read(&dir.join(CERTIFICATE))?, read(&dir.join(CA))?)
            && let Err(error) = identity.show(gateway, &certificate, &ca)
        {
            tracing::warn!(
                error = crate::chain(&error),
                "the certificate on disk is of no use"
            );
        }
        Ok(identity)
    }

    /// A certificate request, signed by the key.
    pub(super) fn request(&self) -> Result<Vec<u8>, rcgen::Error> {
        let request = CertificateParams::default().serialize_request(&self.key)?;
        Ok(request.der().to_vec())
    }

    /// Shows a new certificate from now on. That it cannot be kept is no reason not to.
    pub(super) fn take(&self, gateway: &Handle, certified: &Certified) -> Result<(), NotTaken> {
        self.show(gateway, &certified.certificate, &certified.ca)?;
        let files = [(CA, &certified.ca), (CERTIFICATE, &certified.certificate)];
        for (name, pem) in files {
            if let Err(error) = replace(&self.dir.join(name), pem.as_bytes(), 0o644) {
                tracing::error!(
                    error = crate::chain(&error),
                    "the certificate for relays cannot be kept"
                );
            }
        }
        Ok(())
    }

    fn show(&self, gateway: &Handle, certificate: &str, ca: &str) -> Result<(), NotTaken> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| NotTaken::NoCertificate)?;
        let hash = crate::pki::key_hash_of_certificate(&der).ok_or(NotTaken::NoCertificate)?;
        if hash != crate::pki::key_hash(&self.key.subject_public_key_info()) {
            return Err(NotTaken::OtherKey);
        }
        gateway.identify(&RelayIdentity {
            certificate: certificate.to_owned(),
            key: self.key.serialize_pem(),
            ca: ca.to_owned(),
        })?;
        Ok(())
    }
}
