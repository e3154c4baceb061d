//! Coordinator, gateway and nodes, one after the other, each only if it does not run already.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_model::api::{CreateToken, GatewayView, List, NodeView, TokenView};
use berth_model::node::NodeState;

use super::local::Local;
use super::record::Record;
use super::{process, write_context};
use crate::args::Up;
use crate::client::Client;
use crate::progress::note;

/// Longest wait for one part to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an agent that is to end may take.
const STOPPING: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(10);

/// Where to find what was started.
pub(super) struct Running {
    pub(super) api: String,
    pub(super) gateway: String,
}

pub(super) async fn start(local: &Local, up: &Up) -> Result<Running> {
    let mut record = Record::read(local)?;
    let api = coordinator(local, &mut record, up).await?;
    write_context(local, &api)?;
    let client = Client::from_context()?;
    await_ready(local, &record, &client).await?;
    let gateway = gateway(local, &mut record, up, &api).await?;
    for number in 1..=up.nodes {
        node(local, &mut record, up, &client, &api, number).await?;
    }
    await_connected(local, &client, up).await?;
    Ok(Running { api, gateway })
}

async fn coordinator(local: &Local, record: &mut Record, up: &Up) -> Result<String> {
    let data = local.coordinator();
    if !record.runs("coordinator") {
        check_port(up.api_port, "--api-port")?;
        forget(&data.join("endpoint"))?;
        let listen = loopback(up.api_port);
        let config = local.root.join("coordinator.toml");
        write_config(&config, &format!("listen = \"{listen}\"\n"))?;
        let args = vec![
            "--config".into(),
            text(&config)?,
            "--data".into(),
            text(&data)?,
        ];
        process::start(
            local,
            record,
            "coordinator",
            local.program("berth-coordinator")?,
            args,
        )?;
    }
    let address = await_address(local, record, "coordinator", &data.join("endpoint")).await?;
    Ok(format!("https://{address}"))
}

async fn gateway(local: &Local, record: &mut Record, up: &Up, api: &str) -> Result<String> {
    let data = local.gateway();
    if !record.runs("gateway") {
        check_port(up.gateway_port, "--gateway-port")?;
        forget(&data.join("gateway-endpoint"))?;
        // The usual admin port goes with the usual port; a second Berth on a machine takes a free one.
        let admin = if up.gateway_port == 7480 && port_is_free(7481) {
            7481
        } else {
            0
        };
        let (listen, admin) = (loopback(up.gateway_port), loopback(admin));
        let endpoint = api.trim_start_matches("https://");
        let config = local.root.join("gateway.toml");
        let toml = format!(
            "name = \"local\"\nendpoint = \"{endpoint}\"\nlisten = \"{listen}\"\nadmin_listen = \"{admin}\"\n"
        );
        write_config(&config, &toml)?;
        let args = vec![
            "--role".into(),
            "gateway".into(),
            "--config".into(),
            text(&config)?,
            "--data".into(),
            text(&data)?,
            "--ca-file".into(),
            text(&local.coordinator().join("ca.crt"))?,
            "--token-file".into(),
            text(&local.coordinator().join("gateway.token"))?,
        ];
        process::start(
            local,
            record,
            "gateway",
            local.program("berth-coordinator")?,
            args,
        )?;
    }
    let address = await_address(local, record, "gateway", &data.join("gateway-endpoint")).await?;
    Ok(format!("http://{address}"))
}

async fn node(
    local: &Local,
    record: &mut Record,
    up: &Up,
    client: &Client,
    api: &str,
    number: u16,
) -> Result<()> {
    let name = format!("node-{number}");
    let data = local.node(number);
    let known = is_known(client, &name).await?;
    if record.runs(&name) {
        if known {
            return Ok(());
        }
        // It was removed while its agent ran, which would only ask again and again.
        process::stop(record, &name, STOPPING).await?;
    }
    std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    let first = up.port_base + (number - 1) * 100;
    let config = local.agent_config(number);
    let endpoint = api.trim_start_matches("https://");
    // The coordinator's keys are here, too, and everything may run as one user.
    let hidden = toml::Value::from(local.root_text()?);
    let toml = format!(
        "endpoint = \"{endpoint}\"\nport_range = \"{first}-{}\"\nkind = \"virtual\"\nexclusive = true\n\
         [isolation]\nhidden = [{hidden}]\n",
        first + 99
    );
    write_config(&config, &toml)?;
    let agent = local.program("berth-agent")?;
    let joined = data.join("identity/node.json").is_file();
    if !joined || !known {
        join(client, &agent, (&config, &data), endpoint, &name).await?;
    }
    let args = vec![
        "run".into(),
        "--config".into(),
        text(&config)?,
        "--data".into(),
        text(&data)?,
    ];
    process::start(local, record, &name, agent, args)
}

/// Whether the fleet has the node still: one that was removed joins anew.
async fn is_known(client: &Client, name: &str) -> Result<bool> {
    let nodes: List<NodeView> = client.get("/v1/nodes").await?;
    Ok(nodes.items.iter().any(|node| node.name.as_str() == name))
}

async fn join(
    client: &Client,
    agent: &Path,
    (config, data): (&Path, &Path),
    endpoint: &str,
    name: &str,
) -> Result<()> {
    let body = CreateToken {
        uses: Some(1),
        ..CreateToken::default()
    };
    let token: TokenView = client.post("/v1/tokens", &body).await?;
    let output = Command::new(agent)
        .args(["join", endpoint, "--token", &token.token, "--name", name])
        .arg("--config")
        .arg(config)
        .arg("--data")
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", agent.display()))?;
    if !output.status.success() {
        bail!(
            "{name} could not join: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Each part is told its file, so that none reads what a package put into /etc/berth.
fn write_config(path: &Path, toml: &str) -> Result<()> {
    std::fs::write(path, format!("# Written by `berth up`.\n{toml}"))
        .with_context(|| format!("cannot write {}", path.display()))
}

async fn await_address(
    local: &Local,
    record: &Record,
    name: &str,
    file: &Path,
) -> Result<SocketAddr> {
    let began = Instant::now();
    loop {
        if let Ok(written) = std::fs::read_to_string(file) {
            let address = written
                .trim()
                .trim_start_matches("https://")
                .trim_start_matches("http://");
            return address
                .parse()
                .with_context(|| format!("{}: {written:?}", file.display()));
        }
        if !record.runs(name) || began.elapsed() > PATIENCE {
            bail!(
                "the {name} does not start; its last words:\n  {}",
                process::last_words(local, name)
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn await_ready(local: &Local, record: &Record, client: &Client) -> Result<()> {
    let began = Instant::now();
    while let Err(error) = client
        .send(client.request(reqwest::Method::GET, "/readyz"))
        .await
    {
        if !record.runs("coordinator") || began.elapsed() > PATIENCE {
            let words = process::last_words(local, "coordinator");
            return Err(error.context(format!(
                "the coordinator does not get ready; its last words:\n  {words}"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn await_connected(local: &Local, client: &Client, up: &Up) -> Result<()> {
    let began = Instant::now();
    loop {
        let nodes: List<NodeView> = client.get("/v1/nodes").await?;
        let gateways: List<GatewayView> = client.get("/v1/gateways").await?;
        let missing: Vec<String> = (1..=up.nodes)
            .map(|n| format!("node-{n}"))
            .filter(|name| {
                !nodes
                    .items
                    .iter()
                    .any(|n| n.name.as_str() == name && n.state == NodeState::Ready)
            })
            .collect();
        let following = gateways.items.iter().any(|gateway| gateway.connected);
        if missing.is_empty() && following {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let what = missing.first().map_or("gateway", String::as_str);
            bail!(
                "{what} does not connect; its last words:\n  {}",
                process::last_words(local, what)
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn check_port(port: u16, flag: &str) -> Result<()> {
    if port != 0 && !port_is_free(port) {
        bail!(
            "port {port} is taken by another program; choose another one with {flag} P (0: any that is free)"
        );
    }
    Ok(())
}

fn port_is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// An address of an earlier process must not be taken for the new one's.
fn forget(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            note(&format!("cannot remove {}: {error}", file.display()));
            Err(error.into())
        }
        _ => Ok(()),
    }
}

fn text(path: &Path) -> Result<String> {
    Ok(path
        .to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))?
        .to_owned())
}
