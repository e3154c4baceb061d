//! A daemon to test with, and the image of the suite in it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use bollard::query_parameters::CreateImageOptions;
use bytes::Bytes;
use futures_util::TryStreamExt;

use crate::config::DockerConfig;
use crate::runtime::conformance::{self, IMAGE};
use crate::runtime::docker::DockerRuntime;
use crate::runtime::docker::daemon::Daemon;

/// A daemon that works.
pub(crate) struct World {
    pub(crate) config: DockerConfig,
    pub(crate) data: tempfile::TempDir,
}

/// Where the daemon is that tests may use; none: there is none, and that is told once.
fn socket() -> Option<&'static Path> {
    static SOCKET: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = SOCKET.get_or_init(|| match find() {
        Ok(socket) => Some(socket),
        Err(why) => {
            skip(&why);
            None
        }
    });
    found.as_deref()
}

fn find() -> Result<PathBuf, String> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = match host.as_str() {
        "" => PathBuf::from("/var/run/docker.sock"),
        host => PathBuf::from(
            host.strip_prefix("unix://")
                .ok_or("DOCKER_HOST is no unix socket")?,
        ),
    };
    import(&socket)?;
    Ok(socket)
}

/// Brings the suite's image into a daemon. Errors: there is none that answers.
pub(crate) fn import(socket: &Path) -> Result<(), String> {
    let daemon = Daemon::new(socket, true).map_err(|error| error.to_string())?;
    let limit = Duration::from_secs(60);
    let version = daemon.wait_for(limit, |docker| async move { docker.ping().await });
    version.map_err(|error| crate::chain(&error))?;
    let imported = daemon.wait_for(limit, |docker| async move {
        if docker.inspect_image(IMAGE).await.is_ok() {
            return Ok(());
        }
        let (repo, tag) = IMAGE.split_once(':').unwrap();
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
            ..CreateImageOptions::default()
        };
        let body = bollard::body_full(tree());
        let news = docker.create_image(Some(options), Some(body), None);
        news.try_for_each(|_| async { Ok(()) }).await
    });
    imported.map_err(|error| crate::chain(&error))
}

/// A tree with nothing but a static shell and its tools.
fn tree() -> Bytes {
    let mut tar = tar::Builder::new(Vec::new());
    let busybox = std::fs::read("/bin/busybox").expect("package busybox-static");
    let mut header = tar::Header::new_gnu();
    header.set_size(busybox.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/busybox", &*busybox)
        .unwrap();
    for program in [
        "sh", "sleep", "seq", "setsid", "cat", "id", "touch", "dd", "tail", "head", "env", "ls",
        "mkdir",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, format!("bin/{program}"), "busybox")
            .unwrap();
    }
    Bytes::from(tar.into_inner().unwrap())
}

/// Tells the test runner that there was nothing to test with.
pub(crate) fn skip(why: &str) {
    berth_skipped::skip("docker", why);
}

impl World {
    /// None: there is no Docker here.
    pub(crate) fn new() -> Option<Self> {
        Some(Self::at(socket()?))
    }

    /// With a daemon of its own.
    pub(crate) fn at(socket: &Path) -> Self {
        let config = DockerConfig {
            wanted: true,
            socket: socket.to_owned(),
            ..DockerConfig::default()
        };
        let data = tempfile::tempdir().unwrap();
        Self { config, data }
    }

    /// The data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.data.path().canonicalize().unwrap()
    }

    /// A start folder.
    pub(crate) fn dir(&self) -> PathBuf {
        self.data().join("instances/conformance.1.0.1/starts/1")
    }

    /// A runtime of an agent.
    pub(crate) fn runtime(&self) -> DockerRuntime {
        let shim = conformance::shim();
        DockerRuntime::new(&self.config, &shim, &self.data(), Vec::new()).unwrap()
    }
}
