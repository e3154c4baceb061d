//! Who is let in, and who gets nothing.

use berth_model::relay::{Answer, gateway_name};
use rcgen::ExtendedKeyUsagePurpose;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{HandshakeKind, version};

use crate::common::*;

const WEB: &str = "web.1.0.1";

async fn relay() -> (Relay, Certified) {
    let fleet = Fleet::new();
    let gateway = fleet.gateway("g1");
    let mut relay = Relay::start(fleet, &[("g1", &gateway)]).await;
    relay.add(WEB, echo().await);
    (relay, gateway)
}

/// Whether a caller gets not a single byte.
async fn gets_nothing(relay: &Relay, caller: &TlsConnector, sni: &str) -> bool {
    let tcp = TcpStream::connect(relay.address).await.unwrap();
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    // In TLS 1.3 the client's side of the handshake ends before the server has looked at the certificate.
    let Ok(mut stream) = caller.connect(name, tcp).await else {
        return true;
    };
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    stream.read_u8().await.is_err()
}

#[tokio::test]
async fn a_gateway_on_the_list_is_let_in_and_resumes_its_session() {
    let (relay, gateway) = relay().await;
    let caller = relay.fleet.caller(&gateway);
    let mut first = relay.connect(&caller, WEB).await;
    ping(&mut first, b"hello").await.unwrap();
    let kind = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.handshake_kind().unwrap()
    };
    assert_eq!(kind(&first), HandshakeKind::Full);
    let mut second = relay.connect(&caller, WEB).await;
    assert_eq!(kind(&second), HandshakeKind::Resumed);
    ping(&mut second, b"again").await.unwrap();
    ping(&mut first, b"and again").await.unwrap();
}

#[tokio::test]
async fn everybody_else_gets_nothing() {
    let (mut relay, gateway) = relay().await;
    let sni = format!("{WEB}.{NODE}.relay.berth.internal");
    let fleet = &relay.fleet;
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let foreign = Fleet::new();
    // The list does not help what another CA signed.
    let stranger = foreign.gateway("g1");
    let unlisted = fleet.gateway("g2");
    let node = fleet.certify("g3", client.clone(), (-1, 24));
    let other_role = fleet.certify("g4.relay.berth.internal", client.clone(), (-1, 24));
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    let server = fleet.certify(&gateway_name("g5"), server, (-1, 24));
    for (name, certified) in [
        ("g1", &stranger),
        ("g3", &node),
        ("g4", &other_role),
        ("g5", &server),
    ] {
        relay.table.callers.push(caller(name, certified));
    }
    // Another's name does not help, either.
    relay.table.callers.push(caller("g6", &unlisted));
    relay.publish();
    let fleet = &relay.fleet;
    for (what, certified) in [
        ("another CA", &stranger),
        ("a key that is listed under another name", &unlisted),
        ("a node", &node),
        ("another role", &other_role),
        ("a server", &server),
    ] {
        let caller = fleet.caller(certified);
        assert!(gets_nothing(&relay, &caller, &sni).await, "{what}");
    }
    let nobody = fleet.connector(None, &[&version::TLS13]);
    assert!(gets_nothing(&relay, &nobody, &sni).await, "no certificate");
    let old = fleet.connector(Some(&gateway), &[&version::TLS12]);
    assert!(gets_nothing(&relay, &old, &sni).await, "TLS 1.2");
    // It works all the same for whom it should.
    let caller = fleet.caller(&gateway);
    ping(&mut relay.connect(&caller, WEB).await, b"x")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_name_of_another_place_is_not_answered() {
    let (relay, gateway) = relay().await;
    let caller = relay.fleet.caller(&gateway);
    for sni in [
        "web.1.0.1.n2.relay.berth.internal",
        "n1.relay.berth.internal",
        "coordinator.berth.internal",
        "localhost",
        // No name at all.
        "127.0.0.1",
    ] {
        let tcp = TcpStream::connect(relay.address).await.unwrap();
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        let refused = caller.connect(name, tcp).await.unwrap_err();
        assert!(
            refused.to_string().contains("AccessDenied"),
            "{sni}: {refused}"
        );
    }
}

#[tokio::test]
async fn what_is_not_tls_is_not_answered() {
    let (relay, gateway) = relay().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        &[0; 4096],
        b"\x16\x03\x01\xff\xff\x01",
        b"SSH-2.0-x\r\n",
    ] {
        let mut tcp = TcpStream::connect(relay.address).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Reset or closed, both will do.
        let _ = tcp.read_to_end(&mut answer).await;
        // At most an alert: record type 21, two bytes long.
        let alert = answer.len() == 7 && answer[0] == 21;
        assert!(answer.is_empty() || alert, "{garbage:?}: {answer:?}");
    }
    let caller = relay.fleet.caller(&gateway);
    ping(&mut relay.connect(&caller, WEB).await, b"x")
        .await
        .unwrap();
}

#[tokio::test]
async fn the_dates_in_certificates_are_not_what_counts() {
    let fleet = Fleet::new();
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let expired = fleet.certify(&gateway_name("g1"), client.clone(), (-48, -24));
    let early = fleet.certify(&gateway_name("g2"), client, (24, 48));
    let mut relay = Relay::start(fleet, &[("g1", &expired), ("g2", &early)]).await;
    relay.add(WEB, echo().await);
    for certified in [&expired, &early] {
        let caller = relay.fleet.caller(certified);
        ping(&mut relay.connect(&caller, WEB).await, b"x")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn who_is_taken_off_the_list_loses_its_connections_and_its_sessions() {
    let fleet = Fleet::new();
    let (bad, good) = (fleet.gateway("bad"), fleet.gateway("good"));
    let mut relay = Relay::start(fleet, &[("bad", &bad), ("good", &good)]).await;
    relay.add(WEB, echo().await);
    let (bad, good) = (relay.fleet.caller(&bad), relay.fleet.caller(&good));
    let mut cut = relay.connect(&bad, WEB).await;
    let mut kept = relay.connect(&good, WEB).await;
    ping(&mut cut, b"x").await.unwrap();
    ping(&mut kept, b"x").await.unwrap();
    relay
        .table
        .callers
        .retain(|caller| caller.name.as_str() != "bad");
    relay.publish();
    // Ends without any more being sent.
    let mut rest = Vec::new();
    let end = cut.read_to_end(&mut rest).await;
    assert!(
        end.is_err() && rest.is_empty(),
        "{end:?}: the end is told from an orderly one"
    );
    ping(&mut kept, b"y").await.unwrap();
    // Its session could be resumed, but for the list.
    let sni = format!("{WEB}.{NODE}.relay.berth.internal");
    assert!(gets_nothing(&relay, &bad, &sni).await);
    ping(&mut relay.connect(&good, WEB).await, b"z")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_gateway_is_told_why_it_is_not_connected() {
    let (mut relay, gateway) = relay().await;
    let caller = relay.fleet.caller(&gateway);
    let (_, answer) = relay.call(&caller, "web.1.7.1").await.unwrap();
    assert_eq!(answer, Answer::NoInstance);
    // Bound and not listened on: nobody else can take the port meanwhile.
    let dead = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let loopback: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    dead.bind(&loopback.into()).unwrap();
    let address = dead.local_addr().unwrap().as_socket().unwrap();
    // Known from the moment at which it is written.
    relay.add("web.1.8.1", address);
    let (_, answer) = relay.call(&caller, "web.1.8.1").await.unwrap();
    assert_eq!(answer, Answer::Refused);
}

#[tokio::test]
async fn figures_tell_what_came() {
    let (relay, gateway) = relay().await;
    let caller = relay.fleet.caller(&gateway);
    for _ in 0..3 {
        ping(&mut relay.connect(&caller, WEB).await, b"12345")
            .await
            .unwrap();
    }
    assert!(first(&gateway.pem).len() > 100);
    let file = relay.path("runtime/metrics.prom");
    until(async || {
        let text = std::fs::read_to_string(&file).ok()?;
        let has = |line: &str| text.lines().any(|l| l == line);
        (has("berth_relay_passed_on_total 3")
            && has("berth_relay_handshakes_resumed_total 2")
            && has("berth_relay_bytes_to_instances_total 15"))
        .then_some(())
    })
    .await;
}

/// Somebody who is taken off the list while the instance is dialled for them must not slip through.
#[tokio::test]
async fn who_is_taken_off_the_list_while_the_instance_is_dialled_is_cut_off() {
    let (mut relay, gateway) = relay().await;
    // An instance that accepts nobody for now: further connections to it wait.
    let slow = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let loopback: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    slow.bind(&loopback.into()).unwrap();
    slow.listen(0).unwrap();
    let address = slow.local_addr().unwrap().as_socket().unwrap();
    let filler = TcpStream::connect(address).await.unwrap();
    relay.add("web.1.7.1", address);
    let caller = relay.fleet.caller(&gateway);
    let sni = format!("web.1.7.1.{NODE}.relay.berth.internal");
    let tcp = TcpStream::connect(relay.address).await.unwrap();
    let name = ServerName::try_from(sni).unwrap();
    let mut stream = caller.connect(name, tcp).await.unwrap();
    until(async || {
        let dialled = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let to = format!(":{:04X} 02 ", address.port());
        dialled.contains(&to).then_some(())
    })
    .await;
    relay.table.callers.clear();
    relay.publish();
    let other = format!("{WEB}.{NODE}.relay.berth.internal");
    until(async || {
        let fresh = relay.fleet.caller(&gateway);
        gets_nothing(&relay, &fresh, &other).await.then_some(())
    })
    .await;
    let accepting = std::net::TcpListener::from(slow);
    let accepting = std::thread::spawn(move || (accepting.accept(), accepting.accept()));
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest).await;
    // The relay's own word at most; or it gave up meanwhile, and says so.
    assert!(
        (end.is_err() && rest.len() <= 1) || rest == [Answer::Refused.byte()],
        "{end:?} {rest:?}"
    );
    drop(filler);
    let _ = std::net::TcpStream::connect(address);
    drop(accepting.join().unwrap());
}
