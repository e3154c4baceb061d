//! What the coordinator wants of this node and what was given out for it, on disk.
//!
//! A desired set is written before it is acted on and before it is acknowledged, so that an agent that
//! was restarted goes on with it, coordinator or not. Older sets are refused, and equal ones with
//! another content: there, two coordinators would be at work.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use berth_model::id::InstanceId;
use berth_model::instance::{InstanceSpec, Reason};
use berth_model::job::TaskOutput;
use berth_model::route::Order;
use berth_model::time::Monotonic;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::disk::RESERVE;
use crate::files::{FileError, read_optional, replace};

const VERSION: u32 = 1;

/// Why a desired set is not taken. The text form is what the coordinator is told.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is older than the one on disk.
    #[error("stale: {given} came after {accepted}")]
    Stale {
        /// Its order.
        given: Order,
        /// That on disk.
        accepted: Order,
    },
    /// It has the order of the one on disk and another content.
    #[error("conflict: {0} was accepted with another content")]
    Conflict(Order),
    /// It makes no sense.
    #[error("invalid: {0}")]
    Invalid(String),
    /// It cannot be written.
    #[error("disk: {}", crate::chain(.0))]
    Disk(#[from] FileError),
}

/// What was given out for one instance, and what must survive the agent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Lease {
    /// Its port.
    pub port: Option<u16>,
    /// The port of its module, where that is not the instance's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_port: Option<u16>,
    /// Number of its last start.
    pub start: u32,
    /// Its restarts.
    pub restarts: u32,
    /// Its ends in a row.
    pub streak: u32,
    /// Why its last start ended, as known at the next.
    pub ended: Option<Reason>,
    /// What must survive of a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskLease>,
}

/// What must survive of a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskLease {
    /// When it has run too long, in this boot.
    pub deadline: Option<Monotonic>,
    /// Its output, once that is on the coordinator's disk.
    pub output: Option<TaskOutput>,
}

/// The ports of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Where predictions go.
    pub port: u16,
    /// Where its module listens, if that is another.
    pub module: Option<u16>,
}

impl Lease {
    /// Notes the ports that were given out.
    pub fn give(&mut self, ports: Ports) {
        self.port = Some(ports.port);
        self.module_port = ports.module;
    }

    /// Whether these are the ports that were given out.
    pub fn holds(&self, ports: Ports) -> bool {
        (self.port, self.module_port) == (Some(ports.port), ports.module)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Document {
    version: u32,
    /// None: no desired set was ever accepted.
    order: Option<Order>,
    /// SHA-256 of the set as it was accepted, hexadecimal.
    content: String,
    desired: BTreeMap<InstanceId, InstanceSpec>,
    leases: BTreeMap<InstanceId, Lease>,
}

/// The ledger: in memory what is on disk.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    document: Document,
    /// The document has changed since it was written.
    unwritten: bool,
}

impl Ledger {
    /// Reads the ledger; an absent one is empty. One that cannot be understood is set aside, and the agent
    /// begins without: it touches nothing until the coordinator has said again what it wants.
    pub fn open(path: PathBuf) -> Result<Self, FileError> {
        let empty = Document {
            version: VERSION,
            order: None,
            content: String::new(),
            desired: BTreeMap::new(),
            leases: BTreeMap::new(),
        };
        let Some(bytes) = read_optional(&path)? else {
            return Ok(Self {
                path,
                document: empty,
                unwritten: false,
            });
        };
        match serde_json::from_slice::<Document>(&bytes) {
            Ok(document) if document.version <= VERSION => Ok(Self {
                path,
                document,
                unwritten: false,
            }),
            other => {
                let problem = match other {
                    Ok(newer) => format!(
                        "it has version {}, and this agent reads {VERSION}",
                        newer.version
                    ),
                    Err(error) => error.to_string(),
                };
                let aside = path.with_extension("json.bad");
                tracing::error!(problem, ?aside, "the ledger cannot be used: set aside");
                std::fs::rename(&path, &aside).map_err(FileError::of("set aside", &path))?;
                Ok(Self {
                    path,
                    document: empty,
                    unwritten: false,
                })
            }
        }
    }

    /// The order of the accepted set.
    pub fn order(&self) -> Option<Order> {
        self.document.order
    }

    /// The accepted set; none if there never was one.
    pub fn desired(&self) -> Option<&BTreeMap<InstanceId, InstanceSpec>> {
        self.document.order.map(|_| &self.document.desired)
    }

    /// What was given out.
    pub fn leases(&self) -> &BTreeMap<InstanceId, Lease> {
        &self.document.leases
    }

    /// The ports that are given out, but for those of one instance.
    pub fn ports(&self, except: &InstanceId) -> BTreeSet<u16> {
        let others = self.document.leases.iter().filter(|(id, _)| *id != except);
        others
            .flat_map(|(_, lease)| [lease.port, lease.module_port])
            .flatten()
            .collect()
    }

    /// Takes a desired set if it is in order, with ports for instances that are new. Returns whether it is
    /// another than before. On disk when it returns; after an error all is as it was.
    pub async fn accept(
        &mut self,
        order: Order,
        specs: Vec<InstanceSpec>,
        new_ports: impl FnOnce(
            &Self,
            &BTreeMap<InstanceId, InstanceSpec>,
        ) -> BTreeMap<InstanceId, Ports>,
    ) -> Result<bool, Refused> {
        let count = specs.len();
        let desired: BTreeMap<_, _> = specs
            .into_iter()
            .map(|spec| (spec.id.clone(), spec))
            .collect();
        if desired.len() != count {
            return Err(Refused::Invalid("an instance is in it twice".to_owned()));
        }
        let content = content(&desired).map_err(|error| Refused::Invalid(error.to_string()))?;
        if let Some(accepted) = self.document.order {
            if order < accepted {
                return Err(Refused::Stale {
                    given: order,
                    accepted,
                });
            }
            if order == accepted && content != self.document.content {
                return Err(Refused::Conflict(order));
            }
            if order == accepted {
                return Ok(false);
            }
        }
        let mut document = self.document.clone();
        for (id, ports) in new_ports(self, &desired) {
            document.leases.entry(id).or_default().give(ports);
        }
        document.order = Some(order);
        document.content = content;
        document.desired = desired;
        self.write(document).await?;
        Ok(true)
    }

    /// Changes leases, on disk when it returns; after an error all is as it was.
    pub async fn lease(
        &mut self,
        change: impl FnOnce(&mut BTreeMap<InstanceId, Lease>),
    ) -> Result<(), FileError> {
        let mut document = self.document.clone();
        change(&mut document.leases);
        if document == self.document && !self.unwritten {
            return Ok(());
        }
        self.write(document).await
    }

    /// Takes back what was given out for an instance of which nothing is left. Written with the next change:
    /// an agent that is killed before finds nothing of the instance, and forgets it again.
    pub fn forget(&mut self, id: &InstanceId) {
        self.document.leases.remove(id);
        self.unwritten = true;
    }

    async fn write(&mut self, document: Document) -> Result<(), FileError> {
        let path = self.path.clone();
        let bytes = serde_json::to_vec(&document)
            .map_err(|error| FileError::of("write", &path)(std::io::Error::other(error)))?;
        // Off the only thread: a slow disk must not hold up health checks and answers to pings.
        tokio::task::spawn_blocking(move || write(&path, &bytes))
            .await
            .map_err(|error| FileError::of("write", &self.path)(std::io::Error::other(error)))??;
        self.document = document;
        self.unwritten = false;
        Ok(())
    }
}

/// What is to be stopped or deleted must not need room itself: for that there is a reserve, which is given up if it is
/// needed, and made anew when there is room again.
fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    match replace(path, bytes, 0o600) {
        Err(error) if error.is_full() => {
            let reserve = path.with_file_name(RESERVE);
            if std::fs::remove_file(&reserve).is_err() {
                return Err(error);
            }
            tracing::warn!("no room for the ledger: the reserve is given up");
            replace(path, bytes, 0o600)
        }
        other => other,
    }
}

fn content(desired: &BTreeMap<InstanceId, InstanceSpec>) -> Result<String, serde_json::Error> {
    Ok(hex::encode(Sha256::digest(serde_json::to_vec(desired)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    fn order(generation: u64) -> Order {
        Order {
            epoch: 1,
            term: 1,
            generation,
        }
    }

    async fn take(ledger: &mut Ledger, order: Order, ids: &[&str]) -> Result<bool, Refused> {
        let specs = ids.iter().map(|id| spec(id)).collect();
        ledger.accept(order, specs, |_, _| BTreeMap::new()).await
    }

    #[tokio::test]
    async fn older_and_conflicting_sets_are_refused_and_the_accepted_one_survives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.json");
        let mut ledger = Ledger::open(path.clone()).unwrap();
        assert_eq!(ledger.desired(), None);
        assert!(take(&mut ledger, order(5), &["a.1.0.1"]).await.unwrap());
        assert!(!take(&mut ledger, order(5), &["a.1.0.1"]).await.unwrap());
        let mut ledger = Ledger::open(path.clone()).unwrap();
        assert!(matches!(
            take(&mut ledger, order(4), &[]).await,
            Err(Refused::Stale { .. })
        ));
        assert!(matches!(
            take(&mut ledger, order(5), &[]).await,
            Err(Refused::Conflict(_))
        ));
        assert!(!take(&mut ledger, order(5), &["a.1.0.1"]).await.unwrap());
        let twice = take(&mut ledger, order(6), &["a.1.0.1", "a.1.0.1"]).await;
        assert!(matches!(twice, Err(Refused::Invalid(_))));
        // A restore raises the epoch, and its generations begin lower.
        let restored = Order {
            epoch: 2,
            term: 1,
            generation: 1,
        };
        assert!(take(&mut ledger, restored, &["b.1.0.1"]).await.unwrap());
        let ledger = Ledger::open(path).unwrap();
        assert_eq!(ledger.order(), Some(restored));
        assert!(
            ledger
                .desired()
                .unwrap()
                .keys()
                .map(ToString::to_string)
                .eq(["b.1.0.1"])
        );
    }

    #[tokio::test]
    async fn both_ports_of_an_instance_survive_and_an_old_ledger_has_only_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.json");
        let (one, two) = ("a.1.0.1".parse().unwrap(), "b.1.0.1".parse().unwrap());
        let old = "{\"version\":1,\"order\":null,\"content\":\"\",\"desired\":{},\"leases\":{\"a.1.0.1\":\
                   {\"port\":21000,\"start\":3,\"restarts\":1,\"streak\":1,\"ended\":null}}}";
        std::fs::write(&path, old).unwrap();
        let mut ledger = Ledger::open(path.clone()).unwrap();
        let lease = &ledger.leases()[&one];
        assert_eq!(
            (lease.port, lease.module_port, lease.start),
            (Some(21_000), None, 3)
        );
        let given = Ports {
            port: 21_001,
            module: Some(21_002),
        };
        ledger
            .accept(order(1), vec![spec("b.1.0.1")], |_, _| {
                BTreeMap::from([(two, given)])
            })
            .await
            .unwrap();
        let ledger = Ledger::open(path).unwrap();
        assert_eq!(
            ledger.ports(&one),
            BTreeSet::from([21_001, 21_002]),
            "both are taken for others"
        );
        assert!(ledger.leases()[&"b.1.0.1".parse().unwrap()].holds(given));
    }

    #[tokio::test]
    async fn a_disk_that_refuses_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("gone");
        std::fs::create_dir(&folder).unwrap();
        let mut ledger = Ledger::open(folder.join("ledger.json")).unwrap();
        std::fs::remove_dir(&folder).unwrap();
        assert!(matches!(
            take(&mut ledger, order(5), &["a.1.0.1"]).await,
            Err(Refused::Disk(_))
        ));
        assert_eq!(ledger.order(), None);
    }

    #[tokio::test]
    async fn a_ledger_that_makes_no_sense_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.json");
        for bad in [
            "{",
            "{\"version\":99,\"order\":null,\"content\":\"\",\"desired\":{},\"leases\":{}}",
        ] {
            std::fs::write(&path, bad).unwrap();
            let ledger = Ledger::open(path.clone()).unwrap();
            assert_eq!(ledger.order(), None);
            let aside = std::fs::read_to_string(dir.path().join("ledger.json.bad")).unwrap();
            assert_eq!(aside, bad);
        }
    }
}
