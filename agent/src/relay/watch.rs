//! Whether the relay is there, and what it does.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_model::relay::RelayStatistics;
use berth_relay::figures;
use tokio::net::TcpStream;

use super::{Place, Relay};
use crate::files::open_plain;
use crate::rpc::machine::Machine;

/// Between looks; sooner while it is missed.
const LOOK: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(2);
/// A relay that is being restarted is not missed at once.
const MISSED: u32 = 3;

/// How much of its figures is read.
const MOST: u64 = 64 << 10;

/// Looks whether something accepts where the relay shall listen, and what it counts, for ever.
pub(super) async fn keep_looking(relay: &Arc<Relay>, place: &Place, machine: &Machine) {
    let at = dialled(place.listen);
    let mut wake = relay.wake.subscribe();
    let mut missed = 0_u32;
    loop {
        let certified = relay.lock().key.is_some();
        if !certified {
            // It does not listen before it has a certificate.
            tokio::select! {
                _ = wake.changed() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
            continue;
        }
        let wait = match tokio::time::timeout(CONNECT, TcpStream::connect(at)).await {
            Ok(Ok(_)) => {
                missed = 0;
                relay.trouble("process", None);
                machine.relay(read(&place.figures).await);
                LOOK
            }
            Ok(Err(error)) => miss(relay, &mut missed, at, &error.to_string()),
            Err(_) => miss(relay, &mut missed, at, "no answer"),
        };
        if missed >= MISSED {
            machine.relay(None);
        }
        tokio::time::sleep(wait).await;
    }
}

/// What the relay counts. Without it the relay serves all the same.
async fn read(path: &Path) -> Option<RelayStatistics> {
    let file = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || read_now(&file));
    match reading.await.unwrap_or_else(|error| Err(error.into())) {
        Ok(figures) => Some(figures),
        Err(error) => {
            tracing::debug!(%error, path = %path.display(), "no figures of the relay");
            None
        }
    }
}

/// The folder is that of a program which strangers reach: it may hold anything.
fn read_now(path: &Path) -> io::Result<RelayStatistics> {
    let mut bytes = Vec::new();
    open_plain(path)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(figures::parse(&String::from_utf8_lossy(&bytes)))
}

fn miss(relay: &Relay, missed: &mut u32, at: SocketAddr, why: &str) -> Duration {
    *missed = missed.saturating_add(1);
    if *missed >= MISSED {
        let trouble = format!(
            "nothing accepts connections at {at} ({why}), so that gateways reach no instance here: look at \
             berth-relay on the machine"
        );
        relay.trouble("process", Some(trouble));
    }
    AGAIN
}

/// Where to dial what listens there.
fn dialled(listen: SocketAddr) -> SocketAddr {
    if !listen.ip().is_unspecified() {
        return listen;
    }
    let loopback: IpAddr = match listen {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(loopback, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_a_plain_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.prom");
        assert!(read_now(&path).is_err());
        std::fs::write(&path, b"berth_relay_passed_on_total 7\n\xff").unwrap();
        assert_eq!(read_now(&path).unwrap().passed_on, 7);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read_now(&link).is_err());
        // Nobody writes into it, and nobody waits for that.
        let fifo = dir.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(read_now(&fifo).is_err());
    }
}
