//! The process `berth-coordinator --role gateway`: feeds `berth-gateway` with control's route table.
//!
//! It needs the coordinator for news only: the last table is on disk, and a gateway that starts
//! while the coordinator is down serves by that.

mod config;
mod follow;
mod identity;
mod serving;
mod stance;
mod tables;

use std::convert::Infallible;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use berth_gateway::{Gateway, GatewayError, Handle, Sockets, persist};
use berth_handover::{Entrance, HandoverError, Socket, Taking};
use tokio_util::sync::CancellationToken;

use crate::pki::{PkiError, remove, replace};
use serving::{Process, Serving};
use stance::Stance;

pub use config::Config;

/// File with the address that clients use, in the data folder.
pub const ENDPOINT_FILE: &str = "gateway-endpoint";
/// File with the address of the gateway's own figures, in the data folder.
pub const ADMIN_ENDPOINT_FILE: &str = "gateway-admin-endpoint";
const TABLE_FILE: &str = "routes.json";
/// Where a process that takes over meets the one that serves, in the data folder.
const HANDOVER_FILE: &str = "handover.sock";
/// This program, for people.
const PROGRAM: &str = concat!("berth-gateway ", env!("CARGO_PKG_VERSION"));
/// Names of the sockets that are handed over.
const CLIENTS: &str = "clients";
const ADMIN: &str = "admin";
/// Longest time to find out whether another process serves.
const ENTER: Duration = Duration::from_secs(30);
/// Longest time for a new process to serve.
const RELOAD: Duration = Duration::from_secs(75);

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
    /// A socket cannot be duplicated.
    #[error("cannot offer the listening sockets to a later process")]
    Sockets(#[source] std::io::Error),
    /// The process that serves from the same data folder does not hand over.
    #[error("cannot take over from the gateway that runs")]
    Handover(#[from] HandoverError),
    /// What is here is older than what the process that serves has.
    #[error(
        "the gateway that runs has route table {theirs}, and this process only has {mine}: the \
         coordinator is out of reach and the newer one is not on disk; the old one serves on"
    )]
    OlderTable {
        /// The table in force there.
        theirs: berth_model::route::Order,
        /// The table in force here.
        mine: berth_model::route::Order,
    },
}

/// Takes over from the gateway that serves from the same data folder, if one does; serves until
/// `shutdown`, or until another one takes over; then drains.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), GatewayRoleError> {
    let Some(name) = config.name.clone() else {
        let message = "name is required: the host's own name will not do".to_owned();
        return Err(GatewayRoleError::Config(message));
    };
    std::fs::create_dir_all(&config.data_dir).map_err(|source| GatewayRoleError::Folder {
        path: config.data_dir.clone(),
        source,
    })?;
    let me = Process {
        incarnation: format!("{:016x}", rand::random::<u64>()),
        ..Process::default()
    };
    let place = config.data_dir.join(HANDOVER_FILE);
    let entering = berth_handover::enter(&place, PROGRAM, &me, ENTER);
    let entrance = tokio::select! {
        entrance = entering => entrance?,
        () = shutdown.cancelled() => return Ok(()),
    };
    match entrance {
        Entrance::First(claim) => {
            // Whoever waits for them must not find those of the last run.
            for name in [ENDPOINT_FILE, ADMIN_ENDPOINT_FILE] {
                remove(&config.data_dir.join(name))?;
            }
            let sockets = Sockets::bind(&config.gateway, Vec::new(), None)?;
            let offered = offered(&config, &sockets)?;
            let serving = Serving::begin(config, &name, me, Stance::Serving, sockets)?;
            serving.gateway.open();
            serving.serve(claim, offered, &shutdown).await
        }
        Entrance::Takeover(mut taking) => {
            tracing::info!(
                from = taking.owner(),
                program = taking.program(),
                "taking over"
            );
            let before: Process = taking.state();
            let me = Process {
                beside: [before.beside, vec![before.incarnation]].concat(),
                ..me
            };
            let sockets = taken(&config, &mut taking)?;
            let offered = offered(&config, &sockets)?;
            let serving = Serving::begin(config, &name, me, Stance::Preparing, sockets)?;
            let claim = tokio::select! {
                claim = serving.take_over(taking, before.table) => claim?,
                () = shutdown.cancelled() => return Ok(()),
            };
            serving.serve(claim, offered, &shutdown).await
        }
    }
}

/// The sockets of the gateway that serves, as far as the configuration wants the same addresses.
fn taken(config: &Config, taking: &mut Taking) -> Result<Sockets, GatewayError> {
    let mut named = |name, address: std::net::SocketAddr| {
        let sockets = taking.sockets(name, &address.to_string());
        sockets.into_iter().map(TcpListener::from)
    };
    let clients = named(CLIENTS, config.gateway.listen).collect();
    let admin = named(ADMIN, config.gateway.admin_listen).next();
    Sockets::bind(&config.gateway, clients, admin)
}

/// What the next process may take over.
fn offered(config: &Config, sockets: &Sockets) -> Result<Vec<Socket>, GatewayRoleError> {
    let (clients, admin) = sockets.duplicate().map_err(GatewayRoleError::Sockets)?;
    let socket = |name: &str, address: std::net::SocketAddr, listener: TcpListener| Socket {
        name: name.to_owned(),
        address: address.to_string(),
        socket: listener.into(),
    };
    let clients = clients
        .into_iter()
        .map(|listener| socket(CLIENTS, config.gateway.listen, listener));
    let admin = socket(ADMIN, config.gateway.admin_listen, admin);
    Ok(clients.chain([admin]).collect())
}

/// Starts the gateway program anew beside the one that runs with this configuration, by `command`, and
/// returns the new one's process id when it serves.
pub async fn reload(
    config: &Config,
    command: std::process::Command,
) -> Result<u32, berth_handover::HandoverError> {
    let place = config.data_dir.join(HANDOVER_FILE);
    berth_handover::reload(&place, command, RELOAD).await
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
    berth_notify::ready(listens).await;
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
