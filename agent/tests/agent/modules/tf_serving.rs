//! What the agent makes of TensorFlow Serving and its troubles.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;

use berth_model::instance::{InstanceSpec, InstanceStatus, Phase, Reason};

use crate::coordinator::Coordinator;
use crate::module::ask;
use crate::node::{Node, Package, order};
use crate::wait::until;

const ID: &str = "web.1.0.1";

fn spec(coordinator: &Coordinator, situation: &str) -> InstanceSpec {
    let manifest = "[package]\nname = \"web\"\nversion = \"1.0.0\"\n[model]\npath = \"model\"\n\
                    [module]\nkind = \"tf-serving\"\nstop_grace = \"1s\"\n\
                    [health]\ninterval = \"100ms\"\nstart_timeout = \"1h\"\n";
    let files = [("berth.toml", manifest), ("model/saved_model.pb", "x")];
    let mut spec = Package::with(coordinator, &files).spec(ID, "");
    spec.env = BTreeMap::from([("SITUATION".to_owned(), situation.to_owned())]);
    spec
}

fn node(coordinator: &Coordinator, server: &Path) -> Node {
    let config = format!("tensorflow_model_server = {server:?}\n");
    let mut node = Node::joined_with(coordinator, &config);
    node.run();
    node
}

fn server() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/modules/tensorflow_model_server")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_when_its_version_is_available_and_its_metrics_are_collected() {
    let coordinator = Coordinator::start().await;
    coordinator.desire(order(1), &[spec(&coordinator, "well")]);
    let node = node(&coordinator, &server());
    let facts = coordinator.hello(1).await.facts.unwrap();
    assert!(
        facts.modules.contains(&"tf-serving".to_owned()),
        "{facts:?}"
    );
    let address = coordinator.phase(ID, Phase::Healthy).await.address.unwrap();
    let config = ask(address, "/config").unwrap();
    let base = node
        .data()
        .canonicalize()
        .unwrap()
        .join("instances/web.1.0.1/work");
    assert!(
        config.contains(&format!("base_path: \"{}/models/web\"", base.display())),
        "{config}"
    );
    assert!(config.contains("versions: 7"), "{config}");
    assert_eq!(ask(address, "/version").unwrap(), "saved_model.pb");
    UnixStream::connect(base.join("grpc.sock")).unwrap();
    let metrics = until("metrics", || {
        coordinator.with(|state| state.metrics.get(ID).cloned().ok_or_else(String::new))
    });
    assert!(metrics.await.contains(":tensorflow:runs{} 3"));
}

/// The start time-out is an hour: whatever is told is told at once.
async fn failed(situation: &str) -> InstanceStatus {
    let coordinator = Coordinator::start().await;
    coordinator.desire(order(1), &[spec(&coordinator, situation)]);
    let _node = node(&coordinator, &server());
    coordinator
        .status(ID, |s| s.phase == Phase::Backoff && s.reason.is_some())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_loaded_is_told_in_its_servers_words() {
    for (situation, words) in [
        (
            "corrupt",
            "UNKNOWN: 1 servable(s) did not become available: {bad}",
        ),
        ("absent", "Could not find base path /m for servable m"),
        ("ended", "OUT_OF_RANGE: Read less bytes than requested"),
    ] {
        let error = words.to_owned();
        assert_eq!(
            failed(situation).await.reason,
            Some(Reason::ModelLoad { error })
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_goes_on_without_its_port_gets_another() {
    let told = failed("no-rest").await;
    assert!(
        matches!(told.reason, Some(Reason::PortTaken { .. })),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_it_says_what_to_do() {
    let coordinator = Coordinator::start().await;
    coordinator.desire(order(1), &[spec(&coordinator, "well")]);
    let _node = node(&coordinator, Path::new("/no/such/program"));
    let facts = coordinator.hello(1).await.facts.unwrap();
    assert!(
        !facts.modules.contains(&"tf-serving".to_owned()),
        "{facts:?}"
    );
    let told = coordinator.status(ID, |s| s.reason.is_some()).await;
    let Some(Reason::Node { error }) = told.reason else {
        panic!("{told:?}")
    };
    assert!(
        error.contains("no tensorflow_model_server: agent.toml names /no/such/program"),
        "{error}"
    );
}
