//! The node's key.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use super::IdentityError;
use crate::files::{make_dir, read_optional, replace};

/// The node's private key (ECDSA P-256). Never printed.
#[derive(Clone)]
pub struct NodeKey {
    pair: Arc<KeyPair>,
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeKey({})", self.hash())
    }
}

impl NodeKey {
    /// The key in an identity folder, if there is one.
    pub fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        let Some(pem) = read_optional(&folder.join("node.key"))? else {
            return Ok(None);
        };
        let damaged = |problem: String| IdentityError::Damaged {
            file: "node.key",
            problem,
            folder: folder.to_owned(),
        };
        let pem = String::from_utf8(pem).map_err(|error| damaged(error.to_string()))?;
        let pair = KeyPair::from_pem(&pem).map_err(|error| damaged(error.to_string()))?;
        Ok(Some(Self {
            pair: Arc::new(pair),
        }))
    }

    /// The key in an identity folder, made and written (mode 0600) if there is none. A join that is
    /// tried again therefore uses the same key.
    pub fn load_or_make(folder: &Path) -> Result<Self, IdentityError> {
        if let Some(key) = Self::load(folder)? {
            return Ok(key);
        }
        make_dir(folder)?;
        let pair = KeyPair::generate()?;
        replace(
            &folder.join("node.key"),
            pair.serialize_pem().as_bytes(),
            0o600,
        )?;
        Ok(Self {
            pair: Arc::new(pair),
        })
    }

    /// A certificate request, signed by the key.
    pub fn request(&self, name: &str) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(params.serialize_request(&*self.pair)?.der().to_vec())
    }

    /// base64url SHA-256 of the public key.
    pub fn hash(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.pair.subject_public_key_info()))
    }

    /// For TLS.
    pub fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pair.serialize_der()))
    }

    #[cfg(test)]
    pub(super) fn pair(&self) -> &KeyPair {
        &self.pair
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("identity");
        let made = NodeKey::load_or_make(&folder).unwrap();
        assert_eq!(NodeKey::load_or_make(&folder).unwrap().hash(), made.hash());
        let mode = folder
            .join("node.key")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{made:?}").contains("PRIVATE"));
        assert!(!made.request("n1").unwrap().is_empty());
    }
}
