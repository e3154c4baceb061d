//! Join tokens.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What the store keeps of a join token; never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Public part.
    pub id: String,
    /// SHA-256 of the secret part, hexadecimal.
    pub secret_hash: String,
    /// How often it may still be used; none means without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// When it ends.
    pub expires: Timestamp,
    /// Labels that nodes joined with it get.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Key hashes of the nodes that used it, so that a repeated join by the same key costs no use.
    #[serde(default)]
    pub used_by: Vec<String>,
}

/// A join token as people carry it: `berth1.CA_KEY_HASH.ID.SECRET`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// base64url (no padding) SHA-256 of the CA's SubjectPublicKeyInfo.
    pub ca_key_hash: String,
    /// The token's public part.
    pub id: String,
    /// The secret part.
    pub secret: String,
}

/// A text that is not a join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a join token: expected berth1.HASH.ID.SECRET as printed by `berth node token create`"
)]
pub struct TokenError;

impl FromStr for JoinToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let ok = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        match parts[..] {
            ["berth1", hash, id, secret] if ok(hash) && ok(id) && ok(secret) => Ok(Self {
                ca_key_hash: hash.to_owned(),
                id: id.to_owned(),
                secret: secret.to_owned(),
            }),
            _ => Err(TokenError),
        }
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "berth1.{}.{}.{}", self.ca_key_hash, self.id, self.secret)
    }
}

/// Never shows the secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}
