//! The process `berth-coordinator --role gateway`: feeds `berth-gateway` with control's route table.
//!
//! It needs the coordinator for news only: the last table is on disk, and a gateway that starts
//! while the coordinator is down serves by that.

mod config;
mod follow;
mod identity;
mod tables;

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use berth_gateway::{Gateway, GatewayError, Handle, persist};
use tokio_util::sync::CancellationToken;

use crate::pki::{PkiError, remove, replace};

pub use config::Config;

/// File with the address that clients use, in the data folder.
pub const ENDPOINT_FILE: &str = "gateway-endpoint";
/// File with the address of the gateway's own figures, in the data folder.
pub const ADMIN_ENDPOINT_FILE: &str = "gateway-admin-endpoint";
const TABLE_FILE: &str = "routes.json";

/// Why the gateway's process does not run.
#[derive(Debug, thiserror::Error)]
pub enum GatewayRoleError {
    /// The data plane does not start.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The table on disk is out of reach.
    #[error(transparent)]
    Persist(#[from] persist::PersistError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] PkiError),
    /// The data folder cannot be made.
    #[error("cannot make the folder {path}", path = path.display())]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The configuration lacks something.
    #[error("{0}")]
    Config(String),
}

/// Serves until `shutdown`, then drains.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), GatewayRoleError> {
    let Some(name) = config.name.clone() else {
        let message = "name is required: the host's own name will not do".to_owned();
        return Err(GatewayRoleError::Config(message));
    };
    std::fs::create_dir_all(&config.data_dir).map_err(|source| GatewayRoleError::Folder {
        path: config.data_dir.clone(),
        source,
    })?;
    // Whoever waits for them must not find those of the last run.
    for name in [ENDPOINT_FILE, ADMIN_ENDPOINT_FILE] {
        remove(&config.data_dir.join(name))?;
    }
    let table_path = config.data_dir.join(TABLE_FILE);
    let last = persist::load(&table_path)?;
    let gateway = Gateway::bind(config.gateway.clone())?;
    let handle = gateway.handle();
    // Before the table, which may lead through relays.
    let identity = identity::Identity::open(&config.data_dir, &handle)?;
    let saved = last.as_ref().map(|table| table.version);
    if let Some(table) = last {
        tracing::info!(version = %table.version, services = table.services.len(),
            "serving by the route table on disk until the coordinator sends one");
        if let Err(error) = handle.publish(table) {
            tracing::error!(%error, "the route table on disk cannot be used");
        }
    }
    announce(&config.data_dir, &gateway)?;
    let url = config
        .url
        .clone()
        .unwrap_or_else(|| default_url(&config, &gateway));
    tracing::info!(%url, admin = %gateway.admin_addr(), "the gateway serves");
    let listens = format!("serves at {url}");
    let follower = follow::Follower {
        name: name.to_string(),
        url,
        endpoint: config.endpoint.clone(),
        ca_file: config.ca_file.clone(),
        token_file: config.token_file.clone(),
        identity,
        tables: tables::Tables::new(handle.clone(), table_path, saved),
        gateway: handle.clone(),
    };
    let drained = async {
        shutdown.cancelled().await;
        tracing::info!("draining");
        berth_notify::stopping("draining");
        handle.drain(config.gateway.drain_timeout.0).await
    };
    tokio::select! {
        // Goes on while draining, so that control hears of the last requests' ends.
        never = follower.run() => match never {},
        clean = drained => tracing::info!(clean, "the gateway has ended"),
        never = tell_systemd(&handle, &listens) => match never {},
    }
    Ok(())
}

/// Says that it is ready once it has a table on every thread, and from then on that its threads turn.
async fn tell_systemd(gateway: &Handle, listens: &str) -> Infallible {
    const LOOK: Duration = Duration::from_millis(50);
    if !gateway.is_ready() {
        berth_notify::status("waits for the first route table from the coordinator");
    }
    while !gateway.is_ready() {
        tokio::time::sleep(LOOK).await;
    }
    berth_notify::ready(listens);
    berth_notify::watch(|| async {
        gateway.alive().await;
        Ok(())
    })
    .await
}

/// Tells scripts and `berth up` where it listens.
fn announce(dir: &Path, gateway: &Gateway) -> Result<(), PkiError> {
    let files = [
        (ENDPOINT_FILE, gateway.addr()),
        (ADMIN_ENDPOINT_FILE, gateway.admin_addr()),
    ];
    for (name, address) in files {
        replace(&dir.join(name), format!("{address}\n").as_bytes(), 0o644)?;
    }
    Ok(())
}

/// An unspecified address is told as loopback: it is right on this machine at least.
fn default_url(config: &Config, gateway: &Gateway) -> String {
    let mut address = gateway.addr();
    if address.ip().is_unspecified() {
        let loopback = match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    let scheme = if config.gateway.tls.is_some() {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{address}")
}

/// Time between attempts to reach the coordinator: a random part of a bound that doubles.
#[derive(Debug)]
struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_secs(2);

    fn new() -> Self {
        Self(Self::FIRST)
    }

    fn next(&mut self) -> Duration {
        let bound = self.0;
        self.0 = (bound * 2).min(Self::LAST);
        // Half of it is fixed, so that no attempt comes at once.
        bound / 2 + bound.mul_f64(rand::random::<f64>() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_less_and_less_often_up_to_a_bound() {
        let mut backoff = Backoff::new();
        let mut bound = Backoff::FIRST;
        for _ in 0..20 {
            let next = backoff.next();
            assert!(next >= bound / 2 && next <= bound, "{next:?}");
            bound = (bound * 2).min(Backoff::LAST);
        }
        assert_eq!(bound, Backoff::LAST);
    }
}
