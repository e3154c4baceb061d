//! A transform and its module: two processes, two ports, one health.

use berth_model::instance::{Phase, Reason};

use crate::coordinator::Coordinator;
use crate::module::{self, ask};
use crate::node::{Node, Package, alive, order};

const ID: &str = "web.1.0.1";

fn package(coordinator: &Coordinator) -> Package {
    let manifest = format!(
        "[package]\nname = \"web\"\nversion = \"1.0.0\"\n[model]\npath = \"model\"\n\
         [module]\nkind = \"custom\"\ncommand = {:?}\nstop_grace = \"1s\"\n\
         [transform]\ncommand = [\"./transform.py\"]\n\
         [health]\nhttp = \"/healthz\"\ninterval = \"100ms\"\nunhealthy_after = 2\nstart_timeout = \"30s\"\n",
        module::command()
    );
    let files = [
        ("berth.toml", manifest.as_str()),
        ("model/x", "x"),
        ("transform.py", include_str!("transform.py")),
    ];
    Package::with(coordinator, &files)
}

/// The module's port, as its transform was told.
fn module_port(said: &str) -> u16 {
    let (_, url) = said.split_once("http://127.0.0.1:").unwrap();
    url.split('/').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_go_through_the_transform_and_both_must_be_well() {
    let coordinator = Coordinator::start().await;
    let package = package(&coordinator);
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    let mut node = Node::running(&coordinator);
    let healthy = coordinator.phase(ID, Phase::Healthy).await;
    let address = healthy.address.unwrap();
    let said = ask(address, "/").unwrap();
    // The module answers, and the status names its pid.
    assert!(
        said.starts_with(&format!("{} web.1.0.1 7 via ", healthy.pid.unwrap())),
        "{said}"
    );
    assert!(said.contains("/v1/models/web:predict"), "{said}");
    let module = std::net::SocketAddr::new(address.ip(), module_port(&said));
    assert_ne!(module, address);
    ask(module, "/sick").unwrap();
    let sick = coordinator.phase(ID, Phase::Unhealthy).await;
    let reason = sick.reason.unwrap().to_string();
    assert!(
        reason.contains("module: GET /healthz answered 503"),
        "{reason}"
    );
    ask(module, "/well").unwrap();
    coordinator.phase(ID, Phase::Healthy).await;
    // The next agent knows both ports.
    node.kill();
    node.run();
    let hello = coordinator.hello(2).await;
    assert_eq!(hello.instances[0].phase, "healthy");
    ask(module, "/sick").unwrap();
    coordinator.phase(ID, Phase::Unhealthy).await;
    ask(module, "/well").unwrap();
    coordinator.phase(ID, Phase::Healthy).await;
    assert_eq!(ask(address, "/").unwrap(), said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_either_is_named_and_both_keep_their_ports() {
    let coordinator = Coordinator::start().await;
    let package = package(&coordinator);
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    let _node = Node::running(&coordinator);
    let healthy = coordinator.phase(ID, Phase::Healthy).await;
    let address = healthy.address.unwrap();
    let port = module_port(&ask(address, "/").unwrap());
    let module = std::net::SocketAddr::new(address.ip(), port);
    let _ = ask(address, "/exit");
    let exited = |process: &str, code| Reason::Exited {
        process: process.to_owned(),
        code,
    };
    let restarted = coordinator
        .status(ID, |s| s.phase == Phase::Healthy && s.start == 2)
        .await;
    assert_eq!(restarted.reason, Some(exited("transform", 7)));
    assert!(!alive(healthy.pid.unwrap()), "the module ends with it");
    assert_eq!(restarted.address, Some(address));
    let _ = ask(module, "/exit");
    let restarted = coordinator
        .status(ID, |s| s.phase == Phase::Healthy && s.start == 3)
        .await;
    assert_eq!(restarted.reason, Some(exited("module", 4)));
    assert_eq!(restarted.address, Some(address));
    assert_eq!(module_port(&ask(address, "/").unwrap()), module.port());
}
