//! Content identities: a package's digest and a blob's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not a digest of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a digest: expected {prefix}: and 64 lower-case hexadecimal digits")]
pub struct DigestError {
    text: String,
    prefix: &'static str,
}

macro_rules! digest {
    ($(#[$doc:meta])* $type:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type([u8; 32]);

        impl $type {
            /// From the hash's 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The hash's 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The hash as 64 lower-case hexadecimal digits, without the prefix: a safe file name.
            pub fn hex(&self) -> String {
                use fmt::Write;
                self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{byte:02x}");
                    text
                })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!(concat!($prefix, ":{}"), self.hex()))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $type {
            type Err = DigestError;
            fn from_str(text: &str) -> Result<Self, DigestError> {
                parse(text, concat!($prefix, ":"))
                    .map(Self)
                    .ok_or_else(|| DigestError { text: text.to_owned(), prefix: $prefix })
            }
        }

        impl TryFrom<String> for $type {
            type Error = DigestError;
            fn try_from(text: String) -> Result<Self, DigestError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(digest: $type) -> String {
                digest.to_string()
            }
        }
    };
}

fn parse(text: &str, prefix: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(prefix)?.as_bytes();
    let mut out = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

digest!(
    /// A package's identity: SHA-256 of its canonical index (see `berth-package`), `sha256:HEX`.
    PackageDigest,
    "sha256"
);
digest!(
    /// A blob's identity: BLAKE3 of its bytes, `blake3:HEX`.
    BlobDigest,
    "blake3"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip_and_refuse_other_forms() {
        let text = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let digest: PackageDigest = text.parse().unwrap();
        assert_eq!(digest.to_string(), text);
        assert!(text.to_uppercase().parse::<PackageDigest>().is_err());
        assert!(text.parse::<BlobDigest>().is_err());
        assert!(text[..70].parse::<PackageDigest>().is_err());
    }
}
