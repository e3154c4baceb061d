//! Python environments: made once from the package's own wheels, shared, collected.

use std::path::Path;

use berth_model::instance::{Phase, Reason};

use crate::coordinator::Coordinator;
use crate::module::ask;
use crate::node::{Node, Package, order};
use crate::wait::until_true;

const ID: &str = "web.1.0.1";

fn package(coordinator: &Coordinator, requirements: &str) -> Package {
    let dir = tempfile::tempdir().unwrap();
    let file = |path: &str, text: &str| std::fs::write(dir.path().join(path), text).unwrap();
    file(
        "berth.toml",
        "[package]\nname = \"web\"\nversion = \"1.0.0\"\n[model]\npath = \"weights\"\n\
         [module]\nkind = \"custom\"\npreset = \"python\"\ncommand = [\"tiny-serve\"]\nstop_grace = \"1s\"\n\
         [health]\nhttp = \"/\"\ninterval = \"100ms\"\nstart_timeout = \"30s\"\n",
    );
    file("weights", "x");
    file("requirements.txt", requirements);
    let wheels = dir.path().join("wheels");
    std::fs::create_dir(&wheels).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/modules/wheel.py");
    let made = std::process::Command::new("python3")
        .arg(script)
        .arg(&wheels)
        .status();
    assert!(made.unwrap().success());
    Package::of(coordinator, dir.path())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_is_made_once_and_shared_and_goes_with_its_package() {
    let coordinator = Coordinator::start().await;
    let package = package(&coordinator, "tiny-serve==1.0\n");
    let two = ["web.1.0.1", "web.1.1.1"].map(|id| package.spec(id, ""));
    coordinator.desire(order(1), &two);
    let mut node = Node::joined_with(&coordinator, "package_budget = \"0B\"\n");
    node.run();
    let facts = coordinator.hello(1).await.facts.unwrap();
    assert!(facts.modules.contains(&"python".to_owned()), "{facts:?}");
    let mut prefixes = Vec::new();
    for id in ["web.1.0.1", "web.1.1.1"] {
        let address = coordinator.phase(id, Phase::Healthy).await.address.unwrap();
        let said = ask(address, "/").unwrap();
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words[1], words[2], "its own environment");
        prefixes.push(words[1].to_owned());
    }
    assert_eq!(prefixes[0], prefixes[1]);
    let told = coordinator.with(|state| state.history.clone());
    let told = told.iter().filter_map(|status| status.reason.as_ref());
    let told: Vec<String> = told.map(ToString::to_string).collect();
    assert!(
        told.iter()
            .any(|text| text.contains("environment is being made")),
        "{told:?}"
    );
    // The next agent uses it as it is.
    let made = Path::new(&prefixes[0])
        .join("pyvenv.cfg")
        .metadata()
        .unwrap()
        .modified();
    node.kill();
    node.run();
    coordinator.hello(2).await;
    coordinator.phase(ID, Phase::Healthy).await;
    let found = Path::new(&prefixes[0])
        .join("pyvenv.cfg")
        .metadata()
        .unwrap()
        .modified();
    assert_eq!(found.unwrap(), made.unwrap());
    coordinator.desire(order(2), &[]);
    coordinator.forgotten("web.1.0.1").await;
    coordinator.forgotten("web.1.1.1").await;
    until_true("the environment's end", || {
        !Path::new(&prefixes[0]).exists()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_wheel_is_named() {
    let coordinator = Coordinator::start().await;
    let package = package(&coordinator, "tiny-serve==1.0\nno-such-thing==3.1\n");
    coordinator.desire(order(1), &[package.spec(ID, "")]);
    let _node = Node::running(&coordinator);
    let failed = |reason: &Reason| matches!(reason, Reason::Package { error } if error.contains("pip cannot install"));
    let told = coordinator
        .status(ID, |s| s.reason.as_ref().is_some_and(failed))
        .await;
    assert_eq!(told.phase, Phase::Preparing);
    let text = told.reason.unwrap().to_string();
    assert!(
        text.contains("No matching distribution found for no-such-thing==3.1"),
        "{text}"
    );
}
