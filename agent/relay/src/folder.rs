//! The files by which an agent tells its node's relay what to do. Each is replaced as a whole, by a rename.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use berth_model::id::{InstanceId, NodeName};
use berth_model::relay::Caller;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// File with the [`Table`].
pub const TABLE: &str = "table.json";
/// File with the [`Identity`]; secret.
pub const IDENTITY: &str = "identity.json";
/// The tables that this version writes and reads.
pub const FORMAT: u32 = 1;

/// What a relay does, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// [`FORMAT`]; a relay takes no newer one.
    pub format: u32,
    /// Whose relay it is.
    pub node: NodeName,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who may come.
    #[serde(default)]
    pub callers: Vec<Caller>,
    /// Where the node's instances listen.
    #[serde(default)]
    pub instances: BTreeMap<InstanceId, Target>,
}

/// Where an instance listens: `127.0.0.1:21000` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// On a port.
    Tcp(SocketAddr),
    /// On a unix socket.
    Unix(PathBuf),
}

const UNIX: &str = "unix:";

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl FromStr for Target {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX).filter(|p| p.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        let address = text.parse();
        address.map(Self::Tcp).map_err(|_| {
            format!("{text:?} is not where an instance listens: ADDRESS:PORT or unix:/PATH")
        })
    }
}

impl TryFrom<String> for Target {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

/// By what a relay is known, all in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The relay's certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The fleet's CA.
    pub ca: String,
}

/// Never shows the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system refused.
    #[error("cannot read {path}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It does not hold what it should.
    #[error("{path}: {problem}", path = path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Table {
    /// Reads the table of a folder; none if there is none yet. Errors: it cannot be read, or is none of this
    /// version's.
    pub fn read(folder: &Path) -> Result<Option<Self>, FolderError> {
        let path = folder.join(TABLE);
        let Some(table) = read::<Self>(&path)? else {
            return Ok(None);
        };
        if table.format > FORMAT {
            let problem = format!(
                "its format is {}, and this relay reads {FORMAT}: restart berth-relay after the upgrade",
                table.format
            );
            return Err(FolderError::Content { path, problem });
        }
        Ok(Some(table))
    }
}

impl Identity {
    /// Reads the identity of a folder; none if there is none yet. Errors: it cannot be read or is none.
    pub fn read(folder: &Path) -> Result<Option<Self>, FolderError> {
        read(&folder.join(IDENTITY))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FolderError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(FolderError::File {
                path: path.to_owned(),
                source,
            });
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(FolderError::Content {
            path: path.to_owned(),
            problem: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_as_it_was_written_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Table::read(dir.path()).unwrap(), None);
        assert!(Identity::read(dir.path()).unwrap().is_none());
        let mut table = Table {
            format: FORMAT,
            node: "n1".parse().unwrap(),
            listen: "0.0.0.0:7460".parse().unwrap(),
            callers: Vec::new(),
            instances: BTreeMap::from([
                (
                    "web.1.0.1".parse().unwrap(),
                    "127.0.0.1:21000".parse().unwrap(),
                ),
                (
                    "web.1.1.1".parse().unwrap(),
                    "unix:/run/web".parse().unwrap(),
                ),
            ]),
        };
        let path = dir.path().join(TABLE);
        std::fs::write(&path, serde_json::to_vec(&table).unwrap()).unwrap();
        assert_eq!(Table::read(dir.path()).unwrap().as_ref(), Some(&table));
        table.format += 1;
        std::fs::write(&path, serde_json::to_vec(&table).unwrap()).unwrap();
        let error = Table::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("restart berth-relay"), "{error}");
        std::fs::write(&path, b"{").unwrap();
        assert!(Table::read(dir.path()).is_err());
        for bad in ["", "21000", "unix:", "unix:relative", "host:80"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
