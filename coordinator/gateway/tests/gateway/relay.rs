//! Instances behind relays: the real relay, in this process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_gateway::{RelayIdentity, persist};
use berth_model::manifest::Limits;
use berth_model::relay::{Caller, Relayed, Role, gateway_name, relay_name};
use berth_model::route::Table;
use berth_relay::folder::{FORMAT, IDENTITY, Identity, TABLE, Table as Folder};
use http::Method;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::common::upstream::{Upstream, plain, read_request};
use crate::common::{Rig, config, limited, table, until};

/// A fleet's CA, and one node with a relay.
struct Node {
    dir: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
    folder: Folder,
    key: String,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    address: SocketAddr,
}

struct Certified {
    pem: String,
    key: String,
    hash: String,
}

fn certify(
    ca: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    usage: ExtendedKeyUsagePurpose,
) -> Certified {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    let der: &CertificateDer<'_> = certificate.der();
    Certified {
        pem: certificate.pem(),
        key: key.serialize_pem(),
        hash: berth_relay::key_hash(der).unwrap(),
    }
}

impl Node {
    /// Its relay lets gateway `g1` in once that has identified itself, and knows these instances.
    async fn start(instances: &[(&str, SocketAddr)]) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        let relay = certify(&ca, &relay_name(&"n1".parse().unwrap()), server);
        let dir = tempfile::tempdir().unwrap();
        let target = |at: &SocketAddr| at.to_string().parse().unwrap();
        let folder = Folder {
            format: FORMAT,
            node: "n1".parse().unwrap(),
            listen: "127.0.0.1:0".parse().unwrap(),
            callers: Vec::new(),
            instances: instances
                .iter()
                .map(|(id, at)| (id.parse().unwrap(), target(at)))
                .collect(),
        };
        let identity = Identity {
            certificate: relay.pem,
            key: relay.key,
            ca: ca.pem(),
        };
        let json = serde_json::to_vec(&identity).unwrap();
        std::fs::write(dir.path().join(IDENTITY), json).unwrap();
        let mut node = Self {
            dir,
            ca,
            folder,
            key: relay.hash,
            running: None,
            address: ([127, 0, 0, 1], 0).into(),
        };
        node.write();
        node.run().await;
        node
    }

    fn write(&self) {
        let path = self.dir.path().join(TABLE);
        let fresh = path.with_extension("tmp");
        std::fs::write(&fresh, serde_json::to_vec(&self.folder).unwrap()).unwrap();
        std::fs::rename(fresh, path).unwrap();
    }

    async fn run(&mut self) {
        let endpoint = self.dir.path().join(berth_relay::ENDPOINT);
        let _ = std::fs::remove_file(&endpoint);
        let config = berth_relay::Config {
            folder: self.dir.path().to_owned(),
            runtime: self.dir.path().to_owned(),
            connections: 100,
            stop: Duration::ZERO,
            drain: Duration::ZERO,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            berth_relay::run(&config, stopped).await.unwrap();
        });
        self.running = Some((stop, running));
        let address = || std::fs::read_to_string(&endpoint).ok()?.trim().parse().ok();
        until("the relay listens", || address().is_some()).await;
        self.address = address().unwrap();
    }

    /// Ends it with all its connections.
    async fn stop(&mut self) {
        let (stop, running) = self.running.take().unwrap();
        drop(stop);
        running.await.unwrap();
        self.folder.listen = self.address;
        self.write();
    }

    /// Ends it, and starts it again at the same address.
    async fn restart(&mut self) {
        self.stop().await;
        self.run().await;
    }

    /// Lets the gateway in, and shows it what to show.
    fn admit(&mut self, rig: &Rig) {
        let client = ExtendedKeyUsagePurpose::ClientAuth;
        let gateway = certify(&self.ca, &gateway_name("g1"), client);
        self.folder.callers = vec![Caller {
            role: Role::Gateway,
            name: "g1".parse().unwrap(),
            key: gateway.hash,
        }];
        self.write();
        rig.handle
            .identify(&RelayIdentity {
                certificate: gateway.pem,
                key: gateway.key,
                ca: self.ca.pem(),
            })
            .unwrap();
    }

    fn relayed(&self, local: SocketAddr) -> Relayed {
        Relayed {
            address: self.address,
            node: "n1".parse().unwrap(),
            key: self.key.clone(),
            local,
        }
    }

    /// A table in which `dga.1.N.1` are behind the relay.
    fn table(&self, locals: &[SocketAddr]) -> Table {
        let mut table = table(1, &[("dga", &[])]);
        let route = table.services.get_mut("dga").unwrap();
        let revision = route.revisions.get_mut(&1).unwrap();
        revision.relayed = locals
            .iter()
            .enumerate()
            .map(|(n, at)| (format!("dga.1.{n}.1").parse().unwrap(), self.relayed(*at)))
            .collect::<BTreeMap<_, _>>();
        table
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((_, running)) = self.running.take() {
            running.abort();
        }
    }
}

#[tokio::test]
async fn predictions_go_through_the_relay_on_kept_connections() {
    let up = Upstream::echo().await;
    let mut node = Node::start(&[("dga.1.0.1", up.addr)]).await;
    let rig = Rig::new(node.table(&[up.addr]));
    node.admit(&rig);
    for n in 0..20 {
        let body = format!("{{\"n\": {n}, \"pad\": \"{}\"}}", "x".repeat(n * 20_000));
        let path = "/v1/models/dga:predict";
        let reply = rig.call(Method::POST, path, body.clone()).await.expect(200);
        assert!(reply.text().ends_with(&body));
        // As if it were dialled itself.
        let host = format!("host: {}", up.addr);
        assert!(reply.text().contains(&host), "{}", reply.text());
        // What must not be sent twice takes a connection that was just looked at.
        rig.call(Method::POST, "/s/dga/order", "1")
            .await
            .expect(200);
    }
    assert_eq!(up.requests(), 40);
    assert!(up.connections() <= 4, "{} connections", up.connections());
}

#[tokio::test]
async fn what_could_not_be_delivered_was_not_sent() {
    let up = Upstream::echo().await;
    let dead = Upstream::nobody().await;
    let instances = [("dga.1.0.1", up.addr), ("dga.1.1.1", dead)];
    let mut node = Node::start(&instances).await;
    // The third is in nobody's table.
    let rig = Rig::new(node.table(&[up.addr, dead, dead]));
    node.admit(&rig);
    for _ in 0..20 {
        rig.call(Method::POST, "/s/dga/order", "1")
            .await
            .expect(200);
    }
    assert_eq!(up.requests(), 20);
    assert!(rig.metric("upstream_connect_errors_total", "") >= 2);
}

#[tokio::test]
async fn a_gateway_without_a_certificate_or_off_the_list_says_so() {
    let up = Upstream::echo().await;
    let mut node = Node::start(&[("dga.1.0.1", up.addr)]).await;
    let rig = Rig::new(node.table(&[up.addr]));
    let refused = rig.predict("dga").await.refused(502, "upstream");
    assert!(
        refused.error().contains("no certificate for relays"),
        "{}",
        refused.error()
    );
    node.admit(&rig);
    rig.predict("dga").await.expect(200);
    node.folder.callers.clear();
    node.write();
    // The kept connection is cut off, and no new one is to be had.
    until("it is turned away", || {
        let text =
            std::fs::read_to_string(node.dir.path().join("metrics.prom")).unwrap_or_default();
        text.contains("berth_relay_cut_off_total 1")
    })
    .await;
    let refused = rig.predict("dga").await.refused(502, "upstream");
    assert!(refused.error().contains("relay"), "{}", refused.error());
    assert_eq!(up.requests(), 1);
}

#[tokio::test]
async fn another_machine_with_a_certificate_of_the_fleet_is_not_the_relay_that_is_wanted() {
    let up = Upstream::echo().await;
    let mut node = Node::start(&[("dga.1.0.1", up.addr)]).await;
    let mut wrong = node.table(&[up.addr]);
    let route = wrong.services.get_mut("dga").unwrap();
    let revision = route.revisions.get_mut(&1).unwrap();
    for relayed in revision.relayed.values_mut() {
        relayed.key = "00".repeat(32);
    }
    let rig = Rig::new(wrong);
    node.admit(&rig);
    let refused = rig.predict("dga").await.refused(502, "upstream");
    assert!(
        refused.error().contains("another key"),
        "{}",
        refused.error()
    );
    // The right key, and the name of another node.
    let mut wrong = node.table(&[up.addr]);
    wrong.version.generation = 2;
    let route = wrong.services.get_mut("dga").unwrap();
    let revision = route.revisions.get_mut(&1).unwrap();
    for relayed in revision.relayed.values_mut() {
        relayed.node = "n2".parse().unwrap();
    }
    rig.handle.publish(wrong).unwrap();
    rig.predict("dga").await.refused(502, "upstream");
    assert_eq!(up.requests(), 0);
    let mut right = node.table(&[up.addr]);
    right.version.generation = 3;
    rig.handle.publish(right).unwrap();
    rig.predict("dga").await.expect(200);
}

#[tokio::test]
async fn a_relay_that_was_restarted_costs_no_request() {
    let up = Upstream::echo().await;
    let mut node = Node::start(&[("dga.1.0.1", up.addr)]).await;
    let rig = Rig::with(config(), node.table(&[up.addr]));
    node.admit(&rig);
    rig.call(Method::POST, "/s/dga/order", "1")
        .await
        .expect(200);
    node.restart().await;
    // Not even what must not be sent twice: the kept connection is found closed before it is used.
    rig.call(Method::POST, "/s/dga/order", "1")
        .await
        .expect(200);
    assert_eq!(up.requests(), 2);
}

#[tokio::test]
async fn with_one_instance_only_requests_wait_for_its_relay() {
    let up = Upstream::echo().await;
    let mut node = Node::start(&[("dga.1.0.1", up.addr)]).await;
    let rig = Rig::new(node.table(&[up.addr]));
    node.admit(&rig);
    rig.predict("dga").await.expect(200);
    node.stop().await;
    let back = async {
        until("they wait", || rig.metric("retries_total", "") >= 3).await;
        node.run().await;
    };
    // What must not be sent twice was not sent.
    let order = || rig.call(Method::POST, "/s/dga/order", "1");
    let (first, second, third, ()) = tokio::join!(rig.predict("dga"), order(), order(), back);
    for reply in [first, second, third] {
        reply.expect(200);
    }
    assert_eq!(up.requests(), 4);
}

#[tokio::test]
async fn those_that_wait_for_a_relay_are_counted_and_bounded() {
    let up = Upstream::echo().await;
    let mut node = Node::start(&[("dga.1.0.1", up.addr)]).await;
    let limits = Limits {
        queue: Some(2),
        ..Limits::default()
    };
    let rig = Rig::new(limited(node.table(&[up.addr]), "dga", limits));
    node.admit(&rig);
    rig.predict("dga").await.expect(200);
    node.stop().await;
    let waiting = || rig.metric("waiting_for_relay", "dga");
    let over = async {
        until("two wait", || waiting() == 2).await;
        rig.predict("dga").await.refused(502, "upstream");
        assert_eq!(waiting(), 2, "neither has given up");
        node.run().await;
    };
    let order = rig.call(Method::POST, "/s/dga/order", "1");
    let (first, second, ()) = tokio::join!(rig.predict("dga"), order, over);
    first.expect(200);
    second.expect(200);
    assert_eq!((up.requests(), waiting()), (3, 0));
}

#[tokio::test]
async fn a_prediction_that_was_under_way_is_made_again_when_the_relay_is_back() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let up = Upstream::new(move |_| {
        let gate = Arc::clone(&opened);
        async move {
            let _passed = gate.acquire().await.map_err(std::io::Error::other)?;
            Ok(plain("42"))
        }
    })
    .await;
    let mut node = Node::start(&[("dga.1.0.1", up.addr)]).await;
    let rig = Rig::new(node.table(&[up.addr]));
    node.admit(&rig);
    let killed = async {
        until("both are under way", || up.requests() == 2).await;
        node.restart().await;
        until("the prediction is there again", || up.requests() == 3).await;
        gate.add_permits(1);
    };
    let order = rig.call(Method::POST, "/s/dga/order", "1");
    let (prediction, order, ()) = tokio::join!(rig.predict("dga"), order, killed);
    assert_eq!(prediction.expect(200).text(), "42");
    // It may have been carried out.
    order.refused(502, "upstream");
    assert_eq!(up.requests(), 3);
}

#[tokio::test]
async fn a_request_that_its_instance_does_not_survive_is_not_sent_for_ever() {
    let up = Upstream::raw(|mut stream| async move {
        read_request(&mut stream).await;
    })
    .await;
    let mut node = Node::start(&[("dga.1.0.1", up.addr)]).await;
    let rig = Rig::with(config(), node.table(&[up.addr]));
    node.admit(&rig);
    rig.predict("dga").await.refused(502, "upstream");
    let attempts = u64::from(config().attempts);
    assert!(up.connections() <= attempts, "{}", up.connections());
}

#[test]
fn a_table_with_relays_is_kept_and_an_older_gateway_sees_no_address_to_dial() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = table(1, &[("dga", &[])]);
    let route = table.services.get_mut("dga").unwrap();
    let relayed = Relayed {
        address: "10.0.0.7:7460".parse().unwrap(),
        node: "n1".parse().unwrap(),
        key: "00".to_owned(),
        local: "127.0.0.1:21000".parse().unwrap(),
    };
    let revision = route.revisions.get_mut(&1).unwrap();
    revision
        .relayed
        .insert("dga.1.0.1".parse().unwrap(), relayed);
    let path = dir.path().join("routes.json");
    persist::save(&path, &table).unwrap();
    assert_eq!(persist::load(&path).unwrap(), Some(table));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"instances\":{}"), "{text}");
}
