//! The bearer tokens of the admin, of gateways and of metrics scrapers.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore;
use sha2::{Digest, Sha256};

use super::{PkiError, files};

/// What a token's bearer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything in the admin API.
    Admin,
    /// Following the route table.
    Gateway,
    /// Reading `/metrics`.
    Metrics,
}

const FILES: [(Role, &str); 3] = [
    (Role::Admin, "admin.token"),
    (Role::Gateway, "gateway.token"),
    (Role::Metrics, "metrics.token"),
];

/// Hashes of the tokens; the tokens themselves are in files that only the owner reads.
#[derive(Clone)]
pub struct Credentials {
    hashes: [(Role, [u8; 32]); 3],
}

impl Credentials {
    /// Loads `admin.token`, `gateway.token` and `metrics.token` from the folder; makes the ones
    /// that are not there.
    pub fn load_or_create(dir: &Path) -> Result<Self, PkiError> {
        let mut hashes = FILES.map(|(role, _)| (role, [0; 32]));
        for ((_, name), (_, hash)) in FILES.iter().zip(&mut hashes) {
            *hash = digest(&load_or_create(&dir.join(name))?);
        }
        Ok(Self { hashes })
    }

    /// Whose token this is. Takes as long for a wrong token as for a right one: what is compared
    /// are hashes, and all of each.
    pub fn role_of(&self, token: &str) -> Option<Role> {
        let given = digest(token);
        let mut found = None;
        for (role, hash) in &self.hashes {
            let difference = given
                .iter()
                .zip(hash)
                .fold(0, |sum, (left, right)| sum | (left ^ right));
            if difference == 0 {
                found = Some(*role);
            }
        }
        found
    }
}

/// Never shows hashes.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn load_or_create(path: &Path) -> Result<String, PkiError> {
    if files::read(path)?.is_none() {
        files::create(path, format!("{}\n", random()?).as_bytes(), files::PRIVATE)?;
    }
    files::tighten(path)?;
    let token = files::read(path)?.unwrap_or_default().trim().to_owned();
    if token.len() < 32 {
        return Err(PkiError::Content {
            path: path.to_owned(),
            problem: "is too short to be a token; remove the file and a new one is made".to_owned(),
        });
    }
    Ok(token)
}

fn random() -> Result<String, PkiError> {
    let mut bytes = [0; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| PkiError::Tls(format!("the system gives no randomness: {error}")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_kept_and_known_by_their_role() {
        let dir = tempfile::tempdir().unwrap();
        Credentials::load_or_create(dir.path()).unwrap();
        let again = Credentials::load_or_create(dir.path()).unwrap();
        for (role, name) in FILES {
            let token = std::fs::read_to_string(dir.path().join(name)).unwrap();
            assert_eq!(again.role_of(token.trim()), Some(role));
            assert_eq!(again.role_of(&token[1..]), None);
        }
        assert_eq!(again.role_of(""), None);
        assert_eq!(format!("{again:?}"), "Credentials");
    }

    #[test]
    fn an_emptied_token_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("admin.token"), "\n").unwrap();
        assert!(Credentials::load_or_create(dir.path()).is_err());
    }
}
