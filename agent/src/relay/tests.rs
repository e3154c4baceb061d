use berth_model::relay::Role;

use super::*;

struct World {
    dir: tempfile::TempDir,
    board: Arc<Board>,
    events: mpsc::Receiver<Event>,
    relay: Arc<Relay>,
}

async fn world(dir: tempfile::TempDir, endpoint: &str) -> World {
    let board: Arc<Board> = Arc::default();
    let (sender, events) = mpsc::channel(8);
    let place = Place {
        node: "n1".parse().unwrap(),
        folder: dir.path().join("relay"),
        figures: dir.path().join("metrics.prom"),
        listen: "127.0.0.1:7460".parse().unwrap(),
        address: Ipv4Addr::LOCALHOST.into(),
        endpoint: endpoint.to_owned(),
        told: dir.path().join("transport"),
    };
    let relay = Relay::open(Some(place), board.clone(), sender).await;
    World {
        dir,
        board,
        events,
        relay,
    }
}

fn one(port: u16) -> BTreeMap<InstanceId, Target> {
    let target = Target::Tcp(([127, 0, 0, 1], port).into());
    BTreeMap::from([("web.1.0.1".parse().unwrap(), target)])
}

fn facts(board: &Board) -> Facts {
    board.begin().2
}

#[tokio::test]
async fn an_instance_is_reached_once_the_relay_has_a_certificate_and_the_table() {
    // A documentation address: the route to it is that to anywhere.
    let mut w = world(tempfile::tempdir().unwrap(), "192.0.2.1:7450").await;
    w.relay.lock().route = Some([10, 0, 0, 7].into());
    assert_eq!(w.relay.host(), Some(Ipv4Addr::LOCALHOST.into()));
    let id: InstanceId = "web.1.0.1".parse().unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], 21_000));
    assert!(
        !w.relay.reaches(&id, at),
        "gateways would dial their own loopback"
    );
    w.relay.instances(one(21_000)).await;
    assert!(!w.relay.reaches(&id, at), "it has no certificate");
    w.relay.certified("aa".to_owned());
    assert!(matches!(w.events.try_recv(), Ok(Event::Relay)));
    assert!(w.relay.reaches(&id, at));
    let told = facts(&w.board).relay.unwrap();
    assert_eq!(told.address.to_string(), "10.0.0.7:7460");
    // Another port is not in the table yet.
    assert!(
        !w.relay
            .reaches(&id, SocketAddr::from(([127, 0, 0, 1], 21_001)))
    );
    // What was started to be dialled itself is not the relay's business.
    assert!(
        w.relay
            .reaches(&id, SocketAddr::from(([10, 0, 0, 7], 21_001)))
    );
    let table = Table::read(&w.dir.path().join("relay")).unwrap().unwrap();
    assert_eq!(table.instances, one(21_000));
}

#[tokio::test]
async fn who_may_come_outlives_the_agent() {
    let w = world(tempfile::tempdir().unwrap(), "192.0.2.1:7450").await;
    let caller = Caller {
        role: Role::Gateway,
        name: "g1".parse().unwrap(),
        key: "aa".to_owned(),
    };
    w.relay.callers(vec![caller.clone()]).await;
    w.relay.instances(one(21_000)).await;
    let w = world(w.dir, "192.0.2.1:7450").await;
    // Before the coordinator is reached, the next one must not lock everybody out.
    w.relay.instances(one(21_001)).await;
    let table = Table::read(&w.dir.path().join("relay")).unwrap().unwrap();
    assert_eq!(
        (table.callers, table.instances),
        (vec![caller], one(21_001))
    );
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_a_condition_and_nothing_is_promised() {
    let w = world(tempfile::tempdir().unwrap(), "192.0.2.1:7450").await;
    std::fs::write(w.dir.path().join("relay"), "a file").unwrap();
    w.relay.certified("aa".to_owned());
    w.relay.instances(one(21_000)).await;
    let id: InstanceId = "web.1.0.1".parse().unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], 21_000));
    assert!(!w.relay.reaches(&id, at));
    let conditions = facts(&w.board).conditions;
    assert_eq!(conditions[0].kind, "relay");
    std::fs::remove_file(w.dir.path().join("relay")).unwrap();
    // Asked for again by the next step, whether or not it is news.
    w.relay.instances(one(21_000)).await;
    assert!(w.relay.reaches(&id, at));
    assert!(facts(&w.board).conditions.is_empty());
}

#[tokio::test]
async fn the_coordinators_word_is_kept_and_on_one_machine_there_is_no_relay() {
    let w = world(tempfile::tempdir().unwrap(), "127.0.0.1:7450").await;
    let id: InstanceId = "web.1.0.1".parse().unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], 21_000));
    assert_eq!(w.relay.host(), None);
    w.relay.instances(one(21_000)).await;
    assert!(w.relay.reaches(&id, at));
    assert!(
        !w.dir.path().join("relay").exists(),
        "there is nothing to look after"
    );
    w.relay.welcome("auto").await;
    assert_eq!(w.relay.host(), None);
    w.relay.welcome("relay").await;
    assert!(w.relay.host().is_some() && !w.relay.reaches(&id, at));
    let w = world(w.dir, "127.0.0.1:7450").await;
    assert!(
        w.relay.host().is_some(),
        "before the coordinator is reached"
    );
    assert_eq!(facts(&w.board).relay, None);
}
