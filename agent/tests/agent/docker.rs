//! Containers under the real agent, with a real Docker daemon: the one that `DOCKER_HOST` names, or this machine's own.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use berth_model::instance::{Intent, Phase};
use berth_model::node::RuntimeKind;
use bollard::Docker;
use bollard::query_parameters::{CreateImageOptions, ListContainersOptions};
use futures_util::TryStreamExt;

use crate::coordinator::Coordinator;
use crate::module::ask;
use crate::node::{Node, Package, alive, order};
use crate::wait::until_true;

const ID: &str = "web.1.0.1";
const IMAGE: &str = "berth-agent-test:busybox";

/// Serves its model's folder, and counts in its log.
const MANIFEST: &str = r#"
[package]
name = "web"
version = "1.0.0"
[model]
path = "model"
format = "custom"
[module]
kind = "custom"
command = ["/bin/busybox", "sh", "serve.sh"]
stop_grace = "1s"
[health]
http = "/healthz"
interval = "100ms"
[resources]
memory = "64MiB"
cpu = 0.5
"#;

const SERVE: &str = "i=0\n\
    (while :; do i=$((i+1)); echo line $i; /bin/busybox sleep 0.01; done) &\n\
    exec /bin/busybox httpd -f -p 127.0.0.1:$PORT -h $BERTH_MODEL_DIR\n";

/// A daemon that works, and its socket. None: there is none, and that was told.
async fn docker() -> Option<(Docker, String)> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = host
        .strip_prefix("unix://")
        .unwrap_or("/var/run/docker.sock");
    match connect(socket).await {
        Ok(docker) => Some((docker, socket.to_owned())),
        Err(error) => {
            berth_skipped::skip("docker", &error.to_string());
            None
        }
    }
}

async fn connect(socket: &str) -> Result<Docker, bollard::errors::Error> {
    let docker = Docker::connect_with_unix(socket, 60, bollard::API_DEFAULT_VERSION)?;
    let docker = docker.negotiate_version().await?;
    if docker.inspect_image(IMAGE).await.is_err() {
        let busybox = std::fs::read("/bin/busybox").expect("package busybox-static");
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(busybox.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, "bin/busybox", &*busybox)
            .unwrap();
        let (repo, tag) = IMAGE.split_once(':').unwrap();
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
            ..CreateImageOptions::default()
        };
        let body = bollard::body_full(tar.into_inner().unwrap().into());
        docker
            .create_image(Some(options), Some(body), None)
            .try_for_each(|_| async { Ok(()) })
            .await?;
    }
    Ok(docker)
}

/// A static shim: the one of a build for users, or one that is built here once.
fn static_shim() -> PathBuf {
    if let Some(shim) = std::env::var_os("BERTH_SHIM") {
        return shim.into();
    }
    if let Some(bin) = std::env::var_os("BERTH_BIN_DIR") {
        return PathBuf::from(bin).join("berth-shim");
    }
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("static");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "berth-shim",
            "--target",
            &triple,
        ])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .status()
        .unwrap();
    assert!(built.success());
    target.join(triple).join("debug/berth-shim")
}

fn configuration(socket: &str) -> String {
    format!("[docker]\nsocket = {socket:?}\nbase_binary = {IMAGE:?}\n")
}

async fn containers(docker: &Docker, node: &Node) -> Vec<String> {
    let data = node.data().canonicalize().unwrap();
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([(
            "label".to_owned(),
            vec![format!("io.berth.data={}", data.display())],
        )])),
        ..ListContainersOptions::default()
    };
    let found = docker.list_containers(Some(options)).await.unwrap();
    found.into_iter().filter_map(|one| one.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_outlives_its_agent_and_no_line_is_lost() {
    let Some((docker, socket)) = docker().await else {
        return;
    };
    let coordinator = Coordinator::start().await;
    let files = [
        ("berth.toml", MANIFEST),
        ("serve.sh", SERVE),
        ("model/healthz", "ok"),
    ];
    let package = Package::with(&coordinator, &files);
    let mut spec = package.spec(ID, "serve");
    spec.runtime = RuntimeKind::Docker;
    spec.env = BTreeMap::new();
    coordinator.desire(order(1), std::slice::from_ref(&spec));
    let mut node = Node::joined_at(&coordinator, &static_shim(), &configuration(&socket));
    node.run();
    let first = coordinator.hello(1).await;
    assert!(first.facts.unwrap().runtimes.contains(&"docker".to_owned()));
    let before = coordinator.phase(ID, Phase::Healthy).await;
    let (address, pid) = (before.address.unwrap(), before.pid.unwrap());
    assert_eq!(ask(address, "/healthz").unwrap(), "ok");
    let running = containers(&docker, &node).await;
    assert_eq!(running.len(), 1);
    for round in 2..=3 {
        node.kill();
        assert!(alive(pid));
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.run();
        let hello = coordinator.hello(round).await;
        let told = &hello.instances[0];
        assert_eq!(
            (told.phase.as_str(), told.start, told.restarts, told.pid),
            ("healthy", 1, 0, pid)
        );
        assert_eq!(containers(&docker, &node).await, running);
    }
    let seen = coordinator.lines(ID, "line ").len();
    until_true("more lines", || {
        coordinator.lines(ID, "line ").len() > seen + 100
    })
    .await;
    let lines = coordinator.lines(ID, "line ");
    let expected: Vec<String> = (1..=lines.len()).map(|i| format!("line {i}")).collect();
    assert_eq!(lines, expected, "none lost, none doubled, in order");
    spec.intent = Intent::Stop;
    coordinator.desire(order(2), &[spec]);
    coordinator.phase(ID, Phase::Stopped).await;
    assert!(!alive(pid));
    coordinator.desire(order(3), &[]);
    let gone = || async {
        match containers(&docker, &node).await.len() {
            0 => Ok(()),
            some => Err(format!("{some} containers")),
        }
    };
    until_gone(gone).await;
}

/// Waits for something that has to be asked for.
async fn until_gone<F: Future<Output = Result<(), String>>>(mut is: impl FnMut() -> F) {
    let begin = std::time::Instant::now();
    while let Err(why) = is().await {
        assert!(begin.elapsed() < Duration::from_secs(60), "{why}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_node_says_so_and_processes_are_well() {
    if docker().await.is_none() {
        return;
    }
    let coordinator = Coordinator::start().await;
    let package = Package::quick(&coordinator);
    let mut contained = package.spec("other.1.0.1", "serve");
    contained.runtime = RuntimeKind::Docker;
    coordinator.desire(order(1), &[package.spec(ID, "serve"), contained]);
    let mut node = Node::joined_with(&coordinator, &configuration("/no/such/docker.sock"));
    node.run();
    let facts = coordinator.hello(1).await.facts.unwrap();
    assert_eq!(facts.runtimes, ["process"]);
    assert_eq!(facts.conditions[0].kind, "docker");
    coordinator.phase(ID, Phase::Healthy).await;
    let waiting = coordinator
        .status("other.1.0.1", |status| status.reason.is_some())
        .await;
    assert_eq!(waiting.phase, Phase::Preparing);
    let reason = waiting.reason.unwrap().to_string();
    assert!(reason.contains("does not answer"), "{reason}");
}
