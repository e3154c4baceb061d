//! Machines of the network that mean harm: what they can take is bounded, and it is given back.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{SignatureScheme, version};

use crate::common::*;

const WEB: &str = "web.1.0.1";

/// What a relay may need for all strangers together, over what it needs for none: 1024 handshakes of 64 KiB, and change.
const STRANGERS: u64 = 100 << 20;

async fn relay() -> (Relay, Certified) {
    let fleet = Fleet::new();
    let gateway = fleet.gateway("g1");
    let mut relay = Relay::start(fleet, &[("g1", &gateway)]).await;
    relay.add(WEB, echo().await);
    (relay, gateway)
}

/// Resident bytes of the relay.
fn resident(relay: &Relay) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib << 10
}

/// From another address of this machine, as from another machine.
async fn from(address: Ipv4Addr, relay: &Relay) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket.connect(relay.address).await.unwrap()
}

/// Begins a handshake whose first message is said to be so long: headers of its record and of itself.
fn hello(record: u16, message: u32) -> Vec<u8> {
    let mut bytes = vec![22, 3, 1];
    bytes.extend(record.to_be_bytes());
    bytes.push(1);
    bytes.extend(&message.to_be_bytes()[1..]);
    bytes
}

/// Reads until the relay has closed; what it said.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // Reset or closed, both will do.
    let _ = stream.read_to_end(&mut said).await;
    said
}

#[tokio::test]
async fn handshakes_that_do_not_go_on_leave_room_for_gateways_and_are_closed() {
    let (relay, gateway) = relay().await;
    let before = resident(&relay);
    let mut strangers = Vec::new();
    // More from each than one address may have at a time.
    for host in 2..6 {
        for n in 0..150 {
            let mut stream = from(Ipv4Addr::new(127, 0, 0, host), &relay).await;
            match n % 3 {
                // Says nothing.
                0 => {}
                // Most of the longest hello that is taken, and then nothing more. Those who had no place are gone.
                1 => {
                    let mut most = hello(16_000, 60_000);
                    most.resize(16_005, 0);
                    for _ in 0..2 {
                        most.extend([22, 3, 1]);
                        most.extend(16_000_u16.to_be_bytes());
                        most.resize(most.len() + 16_000, 0);
                    }
                    let _ = stream.write_all(&most).await;
                }
                _ => {
                    let _ = stream.write_all(&hello(500, 400)).await;
                }
            }
            strangers.push(stream);
        }
    }
    let caller = relay.fleet.caller(&gateway);
    for _ in 0..20 {
        ping(&mut relay.connect(&caller, WEB).await, b"x")
            .await
            .unwrap();
    }
    let taken = resident(&relay).saturating_sub(before);
    assert!(taken < STRANGERS, "{taken} bytes for 600 strangers");
    // Somebody who says a byte now and then has no more time than the others.
    let mut drip = from(Ipv4Addr::new(127, 0, 0, 9), &relay).await;
    let dripping = async {
        drip.write_all(&hello(4_000, 3_996)).await.unwrap();
        while drip.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut closing = JoinSet::new();
    for stranger in strangers {
        closing.spawn(rest(stranger));
    }
    let closed = async {
        while let Some(said) = closing.join_next().await {
            let said = said.unwrap();
            // At most an alert: record type 21, two bytes long.
            assert!(said.is_empty() || (said.len() == 7 && said[0] == 21));
        }
    };
    tokio::join!(dripping, closed);
    // Everybody's place is free again.
    let mut again = Vec::new();
    for _ in 0..100 {
        again.push(from(Ipv4Addr::new(127, 0, 0, 2), &relay).await);
    }
    ping(&mut relay.connect(&caller, WEB).await, b"x")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_hello_of_megabytes_is_not_listened_to() {
    let (relay, gateway) = relay().await;
    let before = resident(&relay);
    let mut strangers = JoinSet::new();
    for _ in 0..50 {
        let mut stream = from(Ipv4Addr::new(127, 0, 0, 2), &relay).await;
        strangers.spawn(async move {
            let mut first = hello(16_000, 0x00ff_ffff);
            first.resize(16_005, 0);
            let mut sent = stream.write_all(&first).await.map(|()| 1_u32);
            let mut record = vec![22, 3, 1];
            record.extend(16_000_u16.to_be_bytes());
            record.resize(16_005, 0);
            // What the system's buffers hold on the way, and no more.
            for n in 2..1_000 {
                if sent.is_ok() {
                    sent = stream.write_all(&record).await.map(|()| n);
                }
            }
            (sent, rest(stream).await)
        });
    }
    while let Some(ended) = strangers.join_next().await {
        let (sent, said) = ended.unwrap();
        assert!(sent.is_err(), "all of it was taken");
        assert!(said.len() <= 7, "{said:?}");
    }
    let taken = resident(&relay).saturating_sub(before);
    assert!(taken < STRANGERS, "{taken} bytes for 50 strangers");
    let caller = relay.fleet.caller(&gateway);
    ping(&mut relay.connect(&caller, WEB).await, b"x")
        .await
        .unwrap();
}

/// Shows a certificate without having its key.
#[derive(Debug)]
struct Borrowed(Arc<CertifiedKey>);

impl ResolvesClientCert for Borrowed {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_gateways_certificate_does_not_help_without_its_key() {
    let (relay, gateway) = relay().await;
    let thief = relay.fleet.gateway("g2");
    let borrowed = thief.showing(&gateway);
    let mut config = (**relay.fleet.connector(None, &[&version::TLS13]).config()).clone();
    config.client_auth_cert_resolver = Arc::new(Borrowed(Arc::new(borrowed)));
    let caller = TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(relay.address).await.unwrap();
    let sni = format!("{WEB}.{NODE}.relay.berth.internal");
    let connected = caller.connect(ServerName::try_from(sni).unwrap(), tcp);
    // In TLS 1.3 the client's side of the handshake ends before the server has looked at the certificate.
    let mut stream = connected.await.unwrap();
    let refused = stream.read_u8().await.unwrap_err();
    assert!(refused.to_string().contains("DecryptError"), "{refused}");
}
