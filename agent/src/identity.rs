//! Who this node is: its key, its certificate, and the fleet's CA, as files in `identity/`.
//!
//! The key is made once and never leaves the node; the coordinator pins it at joining. `node.json` is
//! written last: without it the node has not joined.

mod join;
mod key;
mod pin;
mod renew;

use std::time::Duration;

use berth_model::id::NodeName;
use berth_model::time::{Monotonic, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::data::DataDir;
use crate::files::{FileError, make_dir, read_optional, replace};
use crate::rpc::connect::ConnectError;

pub use join::{JoinRequest, Joined, Pod, join};
pub use key::NodeKey;
pub use pin::{PinnedCa, key_hash};
pub use renew::{Renewer, renew};

/// Why joining, renewing or loading an identity failed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file in `identity/` is not what it should be.
    #[error(
        "{file} is not usable: {problem}; to join anew, delete {folder:?} and run `berth-agent join`"
    )]
    Damaged {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        problem: String,
        /// Where it is.
        folder: std::path::PathBuf,
    },
    /// The node has not joined yet.
    #[error(
        "this node has not joined a fleet: run `berth-agent join ENDPOINT --token T --data {0:?}`"
    )]
    NotJoined(std::path::PathBuf),
    /// The node belongs to another fleet.
    #[error(
        "this node is {name} of another fleet: to join this one, stop its agent and delete {folder:?}"
    )]
    OtherFleet {
        /// Its name there.
        name: NodeName,
        /// Its identity.
        folder: std::path::PathBuf,
    },
    /// No connection to the coordinator.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The coordinator refused.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    /// The coordinator did not answer, or not usefully; it may later.
    #[error("the coordinator did not answer: {0}")]
    Unavailable(String),
    /// The coordinator's answer makes no sense.
    #[error("the coordinator's answer is wrong: {0}")]
    Answer(String),
    /// A key or request could not be made.
    #[error("cannot make a key or certificate request")]
    Crypto(#[from] rcgen::Error),
}

/// What `node.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    name: NodeName,
    endpoint: String,
    /// base64url SHA-256 of the CA's public key, as in join tokens.
    ca_key_hash: String,
    /// When the certificate was received, by a clock that does not jump.
    received_boot_id: String,
    received_ms: Monotonic,
    /// When it shall be renewed, counted from then; none from a coordinator that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renew_after_ms: Option<u64>,
}

/// A joined node's identity.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The node's name.
    pub name: NodeName,
    /// The coordinator it joined.
    pub endpoint: String,
    /// base64url SHA-256 of the CA's public key.
    pub ca_key_hash: String,
    /// The node's key.
    pub key: NodeKey,
    /// Its certificate, with what the coordinator sent along.
    pub chain: Vec<CertificateDer<'static>>,
    /// The fleet's CA.
    pub ca: Vec<CertificateDer<'static>>,
    /// The certificate's dates.
    pub validity: Validity,
    /// How long after it was received the certificate shall be renewed: two thirds of its life.
    pub renew_after: Duration,
    received_boot_id: String,
    received: Monotonic,
}

/// From when to when a certificate holds, by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub from: Timestamp,
    /// Not after.
    pub until: Timestamp,
}

impl Validity {
    /// Its length.
    pub fn life(&self) -> Duration {
        self.from.age(self.until)
    }
}

impl Identity {
    /// Loads a joined node's identity. Errors: not joined, or damaged.
    pub fn load(data: &DataDir) -> Result<Self, IdentityError> {
        let folder = data.identity();
        let damaged = |file, problem: String| IdentityError::Damaged {
            file,
            problem,
            folder: folder.clone(),
        };
        let record = read_optional(&folder.join("node.json"))?
            .ok_or_else(|| IdentityError::NotJoined(data.root().to_owned()))?;
        let record: Record =
            serde_json::from_slice(&record).map_err(|e| damaged("node.json", e.to_string()))?;
        let key =
            NodeKey::load(&folder)?.ok_or_else(|| damaged("node.key", "it is not there".into()))?;
        let pem = |file: &'static str| {
            let bytes = read_optional(&folder.join(file))?.unwrap_or_default();
            certificates(&bytes).map_err(|problem| damaged(file, problem))
        };
        let (chain, ca) = (pem("node.crt")?, pem("ca.crt")?);
        let validity = validity(&chain[0]).map_err(|problem| damaged("node.crt", problem))?;
        let told = record.renew_after_ms.map(Duration::from_millis);
        Ok(Self {
            name: record.name,
            endpoint: record.endpoint,
            ca_key_hash: record.ca_key_hash,
            key,
            chain,
            ca,
            validity,
            renew_after: told.unwrap_or(validity.life() * 2 / 3),
            received_boot_id: record.received_boot_id,
            received: record.received_ms,
        })
    }

    /// How long until the certificate should be renewed: counted on a clock that does not jump if it was received in
    /// this boot, else by the wall clock, and then when a third of its life is left.
    pub fn renewal_in(&self, boot_id: &str, now: Monotonic, wall: Timestamp) -> Duration {
        if boot_id == self.received_boot_id {
            return self.renew_after.saturating_sub(now.since(self.received));
        }
        let left = wall.age(self.validity.until);
        left.saturating_sub(self.renew_after / 2)
            .min(self.renew_after)
    }
}

/// The certificates of a PEM file; at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err("it holds no certificate".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a certificate's validity.
fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, String> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    let millis = |time: x509_parser::time::ASN1Time| {
        Timestamp(
            u64::try_from(time.timestamp())
                .unwrap_or(0)
                .saturating_mul(1000),
        )
    };
    let validity = parsed.validity();
    Ok(Validity {
        from: millis(validity.not_before),
        until: millis(validity.not_after),
    })
}

/// Checks what a coordinator issued and writes it: certificates first, `node.json` last.
fn accept(
    data: &DataDir,
    key: &NodeKey,
    issued: &Issued<'_>,
    boot_id: &str,
    now: Monotonic,
) -> Result<Identity, IdentityError> {
    let answer = |what: &str, problem: String| IdentityError::Answer(format!("{what}: {problem}"));
    let chain =
        certificates(issued.certificate.as_bytes()).map_err(|p| answer("certificate", p))?;
    let ca = certificates(issued.ca.as_bytes()).map_err(|p| answer("ca", p))?;
    if !ca
        .iter()
        .any(|ca| key_hash(ca).as_deref() == Some(issued.ca_key_hash))
    {
        return Err(answer(
            "ca",
            "it is not the one that the join token names".to_owned(),
        ));
    }
    if key_hash(&chain[0]).as_deref() != Some(key.hash().as_str()) {
        return Err(answer(
            "certificate",
            "it is not for this node's key".to_owned(),
        ));
    }
    let name = NodeName::new(issued.name).map_err(|error| answer("name", error.to_string()))?;
    let record = Record {
        name,
        endpoint: issued.endpoint.to_owned(),
        ca_key_hash: issued.ca_key_hash.to_owned(),
        received_boot_id: boot_id.to_owned(),
        received_ms: now,
        renew_after_ms: Some(issued.renew_after)
            .filter(|after| !after.is_zero())
            .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
    };
    let folder = data.identity();
    make_dir(&folder)?;
    replace(&folder.join("ca.crt"), issued.ca.as_bytes(), 0o644)?;
    replace(
        &folder.join("node.crt"),
        issued.certificate.as_bytes(),
        0o644,
    )?;
    let json = serde_json::to_vec_pretty(&record).map_err(|e| answer("record", e.to_string()))?;
    replace(&folder.join("node.json"), &json, 0o644)?;
    Identity::load(data)
}

/// What a coordinator issued.
struct Issued<'a> {
    name: &'a str,
    endpoint: &'a str,
    certificate: &'a str,
    ca: &'a str,
    ca_key_hash: &'a str,
    /// When it shall be renewed, from now; zero if that was not said.
    renew_after: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(
        dir: &DataDir,
        life: Duration,
        renew_after: Duration,
    ) -> Result<Identity, IdentityError> {
        let key = NodeKey::load_or_make(&dir.identity()).unwrap();
        let (ca_pem, ca_hash, certificate) = pin::testing::issue(&key, life);
        let issued = Issued {
            name: "n1",
            endpoint: "127.0.0.1:1",
            certificate: &certificate,
            ca: &ca_pem,
            ca_key_hash: &ca_hash,
            renew_after,
        };
        accept(dir, &key, &issued, "this-boot", Monotonic(1000))
    }

    #[test]
    fn what_is_accepted_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert!(matches!(
            Identity::load(&data),
            Err(IdentityError::NotJoined(_))
        ));
        let accepted = identity(&data, Duration::from_secs(300), Duration::ZERO).unwrap();
        let loaded = Identity::load(&data).unwrap();
        assert_eq!(
            (loaded.name.as_str(), &loaded.chain),
            ("n1", &accepted.chain)
        );
        assert_eq!(loaded.key.hash(), accepted.key.hash());
    }

    #[test]
    fn renewal_is_due_at_two_thirds_of_life_and_the_wall_clock_may_jump() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let loaded = identity(&data, Duration::from_secs(300), Duration::ZERO).unwrap();
        let from = loaded.validity.from;
        let year = Timestamp(from.0 + 365 * 86_400_000);
        let at = |boot: &str, now: u64, wall| loaded.renewal_in(boot, Monotonic(now), wall);
        assert_eq!(at("this-boot", 1000, year), Duration::from_secs(200));
        assert_eq!(at("this-boot", 201_000, from), Duration::ZERO);
        assert_eq!(at("other-boot", 7, year), Duration::ZERO);
        assert_eq!(
            at("other-boot", 7, Timestamp(from.0 + 50_000)),
            Duration::from_secs(150)
        );
        // A clock set back does not put it off for ever.
        assert_eq!(at("other-boot", 7, Timestamp(0)), Duration::from_secs(200));
    }

    /// A certificate counts as valid from some time before it was made, so its dates make it look older than it is.
    #[test]
    fn renewal_is_due_when_the_coordinator_said() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let told = Duration::from_secs(10);
        identity(&data, Duration::from_secs(3600 + 15), told).unwrap();
        let loaded = Identity::load(&data).unwrap();
        let until = loaded.validity.until;
        let before = |ms: u64| Timestamp(until.0 - ms);
        let at = |boot: &str, now: u64, wall| loaded.renewal_in(boot, Monotonic(now), wall);
        assert_eq!(at("this-boot", 1000, until), told);
        assert_eq!(at("this-boot", 8000, until), Duration::from_secs(3));
        assert_eq!(at("other-boot", 7, before(15_000)), told);
        assert_eq!(at("other-boot", 7, before(6_000)), Duration::from_secs(1));
        assert_eq!(at("other-boot", 7, before(5_000)), Duration::ZERO);
    }

    #[test]
    fn a_certificate_for_another_key_or_of_another_ca_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let key = NodeKey::load_or_make(&data.identity()).unwrap();
        let other = NodeKey::load_or_make(&dir.path().join("other")).unwrap();
        let (ca, hash, certificate) = pin::testing::issue(&other, Duration::from_secs(300));
        let go = |hash: &str, key: &NodeKey| {
            let issued = Issued {
                name: "n1",
                endpoint: "x:1",
                certificate: &certificate,
                ca: &ca,
                ca_key_hash: hash,
                renew_after: Duration::ZERO,
            };
            accept(&data, key, &issued, "b", Monotonic(1)).map(|_| ())
        };
        assert!(
            go(&hash, &key)
                .unwrap_err()
                .to_string()
                .contains("this node's key")
        );
        assert!(
            go("other", &other)
                .unwrap_err()
                .to_string()
                .contains("join token")
        );
        assert!(matches!(
            Identity::load(&data),
            Err(IdentityError::NotJoined(_))
        ));
    }
}
