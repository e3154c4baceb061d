//! The init container: who this is, what it runs, and the package.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_model::instance::InstanceSpec;
use berth_model::node::{Facts, NodeKind};
use berth_model::token::JoinToken;
use tokio::sync::{mpsc, watch};

use super::run::Signals;
use super::{PodError, Settings, store_spec};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::data::DataDir;
use crate::disk::Disk;
use crate::facts;
use crate::files::{FileError, make_dir};
use crate::identity::{Identity, IdentityError, JoinRequest, Joined, join};
use crate::packages::{PackageNews, Packages, Shared, Wanted};
use crate::reconcile::Event;
use crate::rpc::connect::{ConnectError, Dialer};

/// What is copied to where the main container finds it. The batch driver is only in images that have it.
const PROGRAMS: [(&str, bool); 3] = [
    ("berth-agent", true),
    ("berth-shim", true),
    ("berth-driver", false),
];

/// Prepares the main container; tells what it will run. Tried again and again in the time that the settings give,
/// unless the coordinator refuses.
pub async fn prepare(settings: &Settings, token: &JoinToken) -> Result<InstanceSpec, PodError> {
    copy_programs(&settings.bin)?;
    let data = DataDir::open(&settings.data)?;
    let _lock = data.lock()?;
    let mut last = "it was not tried yet".to_owned();
    let work = async {
        let (identity, spec) = join_as_pod(settings, token, &data, &mut last).await?;
        store_spec(&data, &spec)?;
        fetch(settings, &data, &identity, &spec, &mut last).await?;
        Ok(spec)
    };
    let mut signals = Signals::new().map_err(|source| PodError::System {
        what: "listen for signals",
        source,
    })?;
    // As a container's first process it would not even hear a signal that it does not listen for, and a Pod
    // that is deleted meanwhile would stay for all of its grace.
    let result = tokio::select! {
        result = tokio::time::timeout(settings.patience, work) => result,
        () = signals.next() => return Err(PodError::ToldToEnd),
    };
    result.unwrap_or_else(|_| {
        Err(PodError::Late {
            after: settings.patience,
            last,
        })
    })
}

/// What a Pod says of itself: it has one instance, and Kubernetes has the rest.
pub(super) fn pod_facts(settings: &Settings, data: &Path) -> Facts {
    let config = Config {
        kind: Some(NodeKind::Virtual),
        exclusive: Some(true),
        ..Config::default()
    };
    Facts {
        hostname: settings.pod.name.clone(),
        ..facts::gather(&config, data)
    }
}

fn copy_programs(bin: &Path) -> Result<(), PodError> {
    let own = Path::new("/proc/self/exe");
    let exe = std::fs::read_link(own).map_err(FileError::of("find", own))?;
    let folder = exe.parent().unwrap_or(Path::new("/"));
    make_dir(bin)?;
    for (name, needed) in PROGRAMS {
        // This very program, whatever its file is called.
        let from = if name == "berth-agent" {
            exe.clone()
        } else {
            folder.join(name)
        };
        if needed || from.exists() {
            copy(&from, &bin.join(name))?;
        }
    }
    Ok(())
}

/// Whole or not at all, and executable by whatever user the main container has.
fn copy(from: &Path, to: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;
    let fresh = to.with_extension("new");
    std::fs::copy(from, &fresh).map_err(FileError::of("copy", from))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))
        .map_err(FileError::of("make executable", &fresh))?;
    std::fs::rename(&fresh, to).map_err(FileError::of("replace", to))
}

async fn join_as_pod(
    settings: &Settings,
    token: &JoinToken,
    data: &DataDir,
    last: &mut String,
) -> Result<(Identity, InstanceSpec), PodError> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        let request = JoinRequest {
            endpoint: &settings.endpoint,
            token,
            name: Some(&settings.pod.name),
            facts: pod_facts(settings, data.root()),
            pod: Some(settings.pod.clone()),
        };
        // The key is on disk before it is asked: an answer that was lost is asked for again by the same key, which
        // uses the token no second time.
        let error = match join(data, request).await {
            Ok(Joined { identity, instance }) => {
                return Ok((identity, instance.ok_or(PodError::NoInstance)?));
            }
            Err(error) if !may_pass(&error) => return Err(error.into()),
            Err(error) => crate::chain(&error),
        };
        let again_in = backoff.wait();
        tracing::warn!(error, ?again_in, "cannot join");
        *last = error;
        tokio::time::sleep(again_in).await;
    }
}

/// Whether it is of the network or the coordinator's moment, and not a word of the coordinator.
fn may_pass(error: &IdentityError) -> bool {
    matches!(
        error,
        IdentityError::Unavailable(_) | IdentityError::Connect(ConnectError::Transport { .. })
    )
}

async fn fetch(
    settings: &Settings,
    data: &DataDir,
    identity: &Identity,
    spec: &InstanceSpec,
    last: &mut String,
) -> Result<(), PodError> {
    let channel = connect(settings, identity, last).await?;
    // Kept until the end: it connects anew by itself.
    let (_connection, connected) = watch::channel(Some(channel));
    let (events, mut news) = mpsc::channel(16);
    let mut packages = Packages::open(
        data,
        &BTreeSet::from([spec.blob]),
        Shared {
            channel: connected,
            events,
            room: Arc::new(Disk::new(data.root(), None)),
            machine: Arc::default(),
            limit: None,
            budget: u64::MAX,
            // Environments are made where they are used.
            runtime: None,
        },
    );
    let wanted = Wanted {
        digest: spec.digest,
        blob: spec.blob,
        bytes: spec.blob_bytes,
        // Made where it runs, with that image's Python.
        venv: false,
    };
    if packages.is_ready(spec.digest, false) {
        return Ok(());
    }
    packages.prepare(wanted);
    while let Some(event) = news.recv().await {
        let Event::Package { digest, news } = event else {
            continue;
        };
        packages.done(digest, &news);
        match news {
            PackageNews::Ready => return Ok(()),
            PackageNews::Trouble(reason) => *last = reason.to_string(),
            PackageNews::Failed {
                reason,
                permanent: true,
                ..
            } => return Err(PodError::Package(reason.to_string())),
            PackageNews::Failed { reason, retry, .. } => {
                *last = reason.to_string();
                tokio::time::sleep(retry).await;
                packages.prepare(wanted);
            }
        }
    }
    Err(PodError::Package("fetching it broke off".to_owned()))
}

async fn connect(
    settings: &Settings,
    identity: &Identity,
    last: &mut String,
) -> Result<tonic::transport::Channel, PodError> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let endpoint = crate::rpc::connect::normalize(&settings.endpoint)?;
    let dialer = Dialer::mutual(&endpoint, identity)?;
    loop {
        match dialer.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error @ ConnectError::Transport { .. }) => *last = crate::chain(&error),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}
