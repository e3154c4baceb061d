//! Whether the relay is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Place, Relay};

/// Between looks; sooner while it is missed.
const LOOK: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(2);
/// A relay that is being restarted is not missed at once.
const MISSED: u32 = 3;

/// Looks whether something accepts where the relay shall listen, for ever.
pub(super) async fn keep_looking(relay: &Arc<Relay>, place: &Place) {
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
                LOOK
            }
            Ok(Err(error)) => miss(relay, &mut missed, at, &error.to_string()),
            Err(_) => miss(relay, &mut missed, at, "no answer"),
        };
        tokio::time::sleep(wait).await;
    }
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
