//! Where the coordinator is and how to be let in: contexts in `~/.config/berth/config.toml`, or the
//! environment, which wins. Without either, the coordinator that is installed on this machine, for whoever may
//! read its token.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// Where the package `berth-coordinator` keeps what the CLI needs.
const INSTALLED: &str = "/var/lib/berth/coordinator";

/// The file of contexts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Contexts {
    /// Name of the one that is used.
    pub(crate) current: String,
    /// All of them.
    pub(crate) contexts: BTreeMap<String, Stored>,
}

/// One context in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    /// `https://HOST:PORT`.
    pub(crate) endpoint: String,
    /// File with the CA's certificate (PEM).
    pub(crate) ca: PathBuf,
    /// The admin's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// File with the admin's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
}

/// What a client needs.
pub(crate) struct Context {
    /// `HOST:PORT`.
    pub(crate) authority: String,
    /// The CA's certificate, PEM.
    pub(crate) ca: Vec<u8>,
    /// The admin's token.
    pub(crate) token: String,
}

/// Never shows the token.
impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({})", self.authority)
    }
}

/// The file of contexts: `$XDG_CONFIG_HOME/berth/config.toml`, else `~/.config/berth/config.toml`.
pub(crate) fn file() -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let config = set("XDG_CONFIG_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".config")))
        .context("neither XDG_CONFIG_HOME nor HOME is set, so there is no place for contexts")?;
    Ok(config.join("berth/config.toml"))
}

impl Contexts {
    /// Reads the file; none is no contexts.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .with_context(|| format!("{}: mend or remove it", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the file, readable by its owner only, all of it or nothing.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let doing = || format!("cannot write {}", path.display());
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(doing)?;
        }
        let fresh = path.with_extension(format!("new{}", std::process::id()));
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&fresh)
            .with_context(doing)?;
        file.write_all(toml::to_string(self)?.as_bytes())
            .with_context(doing)?;
        file.sync_all().with_context(doing)?;
        std::fs::rename(&fresh, path).with_context(doing)
    }
}

/// The context to use: the environment's where it is complete, else the file's, overlaid with the
/// environment's.
pub(crate) fn load() -> Result<Context> {
    let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let (endpoint, ca, token) = (var("BERTH_ENDPOINT"), var("BERTH_CA"), var("BERTH_TOKEN"));
    let stored = if endpoint.is_some() && ca.is_some() && token.is_some() {
        None
    } else {
        // Without a home, as under cron, there are no contexts.
        let contexts =
            file().map_or_else(|_| Ok(Contexts::default()), |file| Contexts::read(&file))?;
        match chosen(&contexts, var("BERTH_CONTEXT"))? {
            Some(stored) => Some(stored),
            None => installed(Path::new(INSTALLED))?,
        }
    };
    let missing = "there is no coordinator to talk to: run `berth up`, or set BERTH_ENDPOINT, BERTH_CA and BERTH_TOKEN";
    let endpoint = endpoint
        .or_else(|| stored.as_ref().map(|s| s.endpoint.clone()))
        .context(missing)?;
    let ca = ca
        .map(PathBuf::from)
        .or_else(|| stored.as_ref().map(|s| s.ca.clone()))
        .context(missing)?;
    let token = match (token, &stored) {
        (Some(token), _) => token,
        (None, Some(stored)) => stored_token(stored)?,
        (None, None) => bail!(missing),
    };
    let pem = std::fs::read(&ca).with_context(|| {
        format!(
            "cannot read the CA certificate {} (BERTH_CA or the context's `ca`)",
            ca.display()
        )
    })?;
    Ok(Context {
        authority: authority(&endpoint)?,
        ca: pem,
        token,
    })
}

fn chosen(contexts: &Contexts, wanted: Option<String>) -> Result<Option<Stored>> {
    let name = wanted.clone().unwrap_or_else(|| contexts.current.clone());
    let found = contexts.contexts.get(&name).cloned();
    if found.is_none() && wanted.is_some() {
        let known: Vec<&str> = contexts.contexts.keys().map(String::as_str).collect();
        bail!(
            "there is no context {name:?} (BERTH_CONTEXT); there are: {}",
            known.join(", ")
        );
    }
    Ok(found)
}

/// The coordinator whose data are in this folder, if there is one. Errors: there is one, and this user may not
/// read its token.
fn installed(data: &Path) -> Result<Option<Stored>> {
    let written = match std::fs::read_to_string(data.join("endpoint")) {
        Ok(written) => written,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!(
            "this user may not read the token of this machine's coordinator: run this as root, or set \
             BERTH_ENDPOINT, BERTH_CA and BERTH_TOKEN"
        ),
        Err(_) => return Ok(None),
    };
    Ok(Some(Stored {
        endpoint: reachable(written.trim()),
        ca: data.join("ca.crt"),
        token: None,
        token_file: Some(data.join("admin.token")),
    }))
}

/// Every address of this machine is written as none: one of them is loopback.
fn reachable(written: &str) -> String {
    let address = written.trim_start_matches("https://");
    match address.parse::<SocketAddr>() {
        Ok(listens) if listens.ip().is_unspecified() => {
            let port = listens.port();
            match listens {
                SocketAddr::V4(_) => format!("127.0.0.1:{port}"),
                SocketAddr::V6(_) => format!("[::1]:{port}"),
            }
        }
        _ => address.to_owned(),
    }
}

fn stored_token(stored: &Stored) -> Result<String> {
    match (&stored.token, &stored.token_file) {
        (Some(token), _) => Ok(token.clone()),
        (None, Some(file)) => Ok(std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the token file {}", file.display()))?
            .trim()
            .to_owned()),
        (None, None) => bail!("the context has neither token nor token_file"),
    }
}

/// `HOST:PORT` of an endpoint, with or without `https://`.
fn authority(endpoint: &str) -> Result<String> {
    let text = endpoint
        .strip_prefix("https://")
        .unwrap_or(endpoint)
        .trim_end_matches('/');
    let port = text
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse::<u16>().ok());
    if endpoint.starts_with("http://") || port.is_none() {
        bail!(
            "{endpoint:?} is not an endpoint: write https://HOST:PORT, as in https://127.0.0.1:7450"
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_a_port_and_no_clear_text() {
        assert_eq!(
            authority("https://10.0.0.1:7450/").unwrap(),
            "10.0.0.1:7450"
        );
        assert_eq!(authority("[::1]:7450").unwrap(), "[::1]:7450");
        for bad in ["http://a:1", "a", "https://a", "a:x"] {
            assert!(authority(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn contexts_round_trip_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("berth/config.toml");
        let stored = Stored {
            endpoint: "https://127.0.0.1:7450".into(),
            ca: "/x/ca.crt".into(),
            token: None,
            token_file: Some("/x/admin.token".into()),
        };
        let contexts = Contexts {
            current: "local".into(),
            contexts: [("local".to_owned(), stored.clone())].into(),
        };
        contexts.write(&path).unwrap();
        assert_eq!(Contexts::read(&path).unwrap(), contexts);
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(chosen(&contexts, None).unwrap(), Some(stored));
        assert!(chosen(&contexts, Some("prod".into())).is_err());
    }

    #[test]
    fn the_coordinator_of_this_machine_needs_no_context() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(installed(dir.path()).unwrap(), None);
        std::fs::write(dir.path().join("endpoint"), "0.0.0.0:7450\n").unwrap();
        let found = installed(dir.path()).unwrap().unwrap();
        assert_eq!(found.endpoint, "127.0.0.1:7450");
        assert_eq!(found.ca, dir.path().join("ca.crt"));
        assert_eq!(found.token_file, Some(dir.path().join("admin.token")));
        assert_eq!(reachable("https://[::]:1"), "[::1]:1");
        assert_eq!(reachable("10.0.0.1:7450"), "10.0.0.1:7450");
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(toml::from_str::<Contexts>("current = \"a\"\ncurent = \"b\"\n").is_err());
    }
}
