//! Peers one version apart: what an older coordinator said, and what an older agent left on the disk. How
//! recordings are made is in `proto/recorded/README.md`.

use std::path::{Path, PathBuf};
use std::process::Command;

use berth_model::instance::Phase;
use berth_proto::v1;
use berth_proto::v1::coordinator_message::Message as Down;
use prost::Message;

use crate::coordinator::Coordinator;
use crate::module::ask;
use crate::node::{Node, Package, agent, alive, order, shim};
use crate::wait::until_true;

const ID: &str = "web.1.0.1";

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/recorded/d5cd8fe")
}

/// Messages, each behind its length.
fn read<M: Message + Default>(name: &str) -> Vec<M> {
    let bytes = std::fs::read(recorded().join(name)).unwrap();
    let mut rest = bytes.as_slice();
    let mut all = Vec::new();
    while !rest.is_empty() {
        all.push(M::decode_length_delimited(&mut rest).unwrap());
    }
    assert!(!all.is_empty(), "{name}");
    all
}

/// The scenario of a recording: an instance starts, serves, is asked for a sign of life, stops, is forgotten.
async fn scenario(coordinator: &Coordinator) -> Node {
    let package = Package::quick(coordinator);
    let spec = package.spec(ID, "serve");
    coordinator.desire(order(1), std::slice::from_ref(&spec));
    let node = Node::running(coordinator);
    coordinator.phase(ID, Phase::Healthy).await;
    coordinator.send(Down::Ping(v1::Ping { nonce: 9 }));
    until_true("a pong and a heartbeat", || {
        coordinator.with(|state| state.pongs == [9] && state.statistics > 2)
    })
    .await;
    node
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes a recording"]
async fn record() {
    let folder = PathBuf::from(std::env::var_os("BERTH_RECORD").unwrap());
    let coordinator = Coordinator::start().await;
    let mut node = scenario(&coordinator).await;
    // The disk as a killed agent leaves it while its instance runs.
    node.kill();
    let state = folder.join("agent");
    let program = std::env::current_exe().unwrap();
    let path = std::env::var("PATH").unwrap();
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        // Without what is this machine's.
        let text = std::fs::read_to_string(from).unwrap();
        let home = node.data().parent().unwrap().display().to_string();
        let text = text
            .replace(&program.display().to_string(), "/recorded/program")
            .replace(&home, "/recorded")
            .replace(&path, "/usr/bin:/bin");
        std::fs::write(to, text).unwrap();
    };
    let list = Command::new("find")
        .args([".", "-type", "f", "-size", "-64k", "-name", "*.json"])
        .args(["-not", "-path", "./packages/*"])
        .current_dir(node.data())
        .output()
        .unwrap();
    for path in String::from_utf8(list.stdout).unwrap().lines() {
        copy(&node.data().join(path), &state.join(path));
    }
    node.run();
    coordinator.hello(2).await;
    let package = Package::quick(&coordinator);
    let spec = package.spec(ID, "serve");
    coordinator.desire(order(2), &[crate::node::stopping(&spec)]);
    coordinator.phase(ID, Phase::Stopped).await;
    coordinator.desire(order(3), &[]);
    coordinator.forgotten(ID).await;
    let said = coordinator.with(|state| std::mem::take(&mut state.heard));
    let bytes: Vec<u8> = said
        .iter()
        .flat_map(Message::encode_length_delimited_to_vec)
        .collect();
    std::fs::write(folder.join("agent-to-coordinator.bin"), bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_coordinator_is_understood() {
    let coordinator = Coordinator::start().await;
    let _node = Node::running(&coordinator);
    coordinator.hello(1).await;
    let mut sets = 0;
    for message in read::<v1::CoordinatorMessage>("coordinator-to-agent.bin") {
        let message = message.message.unwrap();
        if let Down::Desired(set) = &message {
            sets += 1;
            let known = set.instances.iter().cloned();
            let specs: Result<Vec<berth_model::instance::InstanceSpec>, _> =
                known.map(TryInto::try_into).collect();
            specs.unwrap();
        }
        // An acknowledgement of what was never reported is passed over, too.
        coordinator.send(message);
    }
    assert!(sets > 1);
    let acks = coordinator.acked(sets).await;
    assert!(acks.iter().all(|ack| ack.refused.is_empty()), "{acks:?}");
    coordinator.send(Down::Ping(v1::Ping { nonce: 7 }));
    until_true("the session to go on", || {
        coordinator.with(|state| state.pongs.contains(&7))
    })
    .await;
}

/// The older agent's files, with the process that runs now in the place of the one that ran then.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_agent_left_is_adopted() {
    let coordinator = Coordinator::start().await;
    let mut node = scenario(&coordinator).await;
    let before = coordinator.phase(ID, Phase::Healthy).await;
    node.kill();
    let old = recorded().join("agent");
    let mut replaced = 0;
    for path in files(&old) {
        let inside = path.strip_prefix(&old).unwrap();
        let live = node.data().join(inside);
        if !live.exists() {
            continue;
        }
        let then: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let now: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&live).unwrap()).unwrap();
        let merged = in_the_shape_of(&then, &now);
        std::fs::write(&live, serde_json::to_vec(&merged).unwrap()).unwrap();
        replaced += 1;
    }
    assert!(replaced >= 3, "ledger, specification and state: {replaced}");
    node.run();
    let hello = coordinator.hello(2).await;
    let told = &hello.instances[0];
    assert_eq!(
        (told.phase.as_str(), told.start, told.restarts),
        ("healthy", 1, 0)
    );
    assert_eq!(told.pid, before.pid.unwrap());
    assert!(hello.accepted.is_some());
    assert!(alive(before.pid.unwrap()));
    ask(before.address.unwrap(), "/").unwrap();
}

/// What is there now, without what was not there then.
fn in_the_shape_of(then: &serde_json::Value, now: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => now
            .iter()
            .filter_map(|(key, now)| {
                // Keys of maps, as instances' names, are the same in both.
                let then = then.get(key)?;
                Some((key.clone(), in_the_shape_of(then, now)))
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        (Value::Array(then), Value::Array(now)) => match then.first() {
            Some(then) => now.iter().map(|now| in_the_shape_of(then, now)).collect(),
            None => now.clone().into(),
        },
        _ => now.clone(),
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "json") {
            all.push(path);
        }
    }
    all
}

/// With the older programs at hand (`BERTH_OLDER` is their folder), the real thing: their agent and shim start
/// an instance, and today's agent finds it as it was.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an older build"]
async fn an_older_shim_is_adopted() {
    let older = PathBuf::from(std::env::var_os("BERTH_OLDER").unwrap());
    assert_eq!(shim(), older.join("berth-shim"), "say BERTH_SHIM, too");
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    coordinator.desire(order(1), &[package.spec(ID, "serve")]);
    let mut node = Node::joined(&coordinator);
    node.agent_program = older.join("berth-agent");
    node.run();
    let before = coordinator.phase(ID, Phase::Healthy).await;
    node.kill();
    let address = before.address.unwrap();
    ask(address, "/log?0-500").unwrap();
    node.agent_program = agent();
    node.run();
    let told = coordinator.hello(2).await.instances.remove(0);
    assert_eq!(
        (told.phase.as_str(), told.start, told.restarts),
        ("healthy", 1, 0)
    );
    assert_eq!(told.pid, before.pid.unwrap());
    until_true("all lines, once", || {
        coordinator.lines(ID, "line ").len() == 500
    })
    .await;
    coordinator.desire(
        order(2),
        &[crate::node::stopping(&package.spec(ID, "serve"))],
    );
    coordinator.phase(ID, Phase::Stopped).await;
    assert!(!alive(before.pid.unwrap()));
}
