//! `cargo xtask bench relay`: what the way through a relay costs beside plain TCP, per request, per new connection
//! and per GB, in interleaved rounds: client → gateway → (relay →) module.
//!
//! One program in four roles, each a process of its own, so that their CPU time is told apart.
#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_gateway::{Gateway, GatewayConfig, RelayIdentity};
use berth_model::relay::{Caller, Relayed, Role, gateway_name, relay_name};
use berth_model::route::{RevisionRoute, ServiceRoute, Table};
use berth_relay::folder::{FORMAT, IDENTITY, Identity, TABLE, Table as Folder};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CLIENTS: usize = 16;
const ROUND: Duration = Duration::from_secs(3);
const SERVICES: [&str; 2] = ["plain", "relay"];

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["module"] => runtime.block_on(module()),
        ["relay", dir] => runtime.block_on(relay(Path::new(dir))),
        ["gateway", dir, idle] => gateway(Path::new(dir), idle.parse()?),
        [rounds] => runtime.block_on(bench(rounds.parse()?)),
        _ => runtime.block_on(bench(7)),
    }
}

/// Answers `GET …/BYTES` with so many bytes.
async fn module() -> Fallible<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&listener.local_addr()?.to_string())?;
    let body = std::sync::Arc::new(vec![b'x'; 8 << 20]);
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let body = std::sync::Arc::clone(&body);
        tokio::spawn(async move {
            let mut head = Vec::new();
            while let Ok(Some(())) = read_head(&mut stream, &mut head).await {
                let line = String::from_utf8_lossy(&head);
                let path = line.split(' ').nth(1).unwrap_or_default();
                let size: usize = path
                    .rsplit('/')
                    .next()
                    .unwrap_or_default()
                    .parse()
                    .unwrap_or(0);
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
                let mut all = answer.into_bytes();
                all.extend_from_slice(&body[..size]);
                if stream.write_all(&all).await.is_err() {
                    return;
                }
                head.clear();
            }
        });
    }
}

async fn relay(dir: &Path) -> Fallible<()> {
    let config = berth_relay::Config {
        folder: dir.to_owned(),
        runtime: dir.to_owned(),
        connections: 10_000,
        stop: Duration::ZERO,
        drain: Duration::ZERO,
    };
    Ok(berth_relay::run(&config, std::future::pending()).await?)
}

fn gateway(dir: &Path, idle: usize) -> Fallible<()> {
    let gateway = Gateway::bind(GatewayConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: ([127, 0, 0, 1], 0).into(),
        threads: 1,
        pool_max_idle: idle,
        ..GatewayConfig::default()
    })?;
    let read = |name: &str| std::fs::read(dir.join(name));
    let (certificate, key, ca): (String, String, String) =
        serde_json::from_slice(&read("gateway.json")?)?;
    let handle = gateway.handle();
    handle.identify(&RelayIdentity {
        certificate,
        key,
        ca,
    })?;
    handle.publish(serde_json::from_slice(&read("routes.json")?)?)?;
    say(&gateway.addr().to_string())?;
    loop {
        std::thread::park();
    }
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}

/// A role's process; killed when dropped.
struct Process(Child);

impl Process {
    fn start(arguments: &[&str]) -> Fallible<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let child = command.args(arguments).stdout(Stdio::piped()).spawn()?;
        Ok(Self(child))
    }

    /// The address that it says.
    fn address(&mut self) -> Fallible<SocketAddr> {
        let out = self.0.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }

    /// CPU time so far, in seconds.
    fn cpu(&self) -> Fallible<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let rest = stat.rsplit(") ").next().ok_or("no stat")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn certify(
    ca: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    usage: ExtendedKeyUsagePurpose,
) -> Fallible<(String, String, String)> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    let hash = berth_relay::key_hash(certificate.der()).ok_or("no hash")?;
    Ok((certificate.pem(), key.serialize_pem(), hash))
}

/// Writes everything but the gateway's table, which needs the relay's address; answers with the relay's key.
fn lay_out(dir: &Path, module: SocketAddr) -> Fallible<String> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let (server, client) = (
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    let (certificate, key, relay_key) = certify(&ca, &relay_name(&"n1".parse()?), server)?;
    let identity = Identity {
        certificate,
        key,
        ca: ca.pem(),
    };
    std::fs::write(dir.join(IDENTITY), serde_json::to_vec(&identity)?)?;
    let (certificate, key, gateway_key) = certify(&ca, &gateway_name("g1"), client)?;
    let shown = serde_json::to_vec(&(certificate, key, ca.pem()))?;
    std::fs::write(dir.join("gateway.json"), shown)?;
    let folder = Folder {
        format: FORMAT,
        node: "n1".parse()?,
        listen: "127.0.0.1:0".parse()?,
        callers: vec![Caller {
            role: Role::Gateway,
            name: "g1".parse()?,
            key: gateway_key,
        }],
        instances: BTreeMap::from([("relay.1.0.1".parse()?, module.to_string().parse()?)]),
    };
    std::fs::write(dir.join(TABLE), serde_json::to_vec(&folder)?)?;
    Ok(relay_key)
}

fn table(module: SocketAddr, relay: SocketAddr, key: &str) -> Fallible<Table> {
    let mut table = Table::default();
    table.version.generation = 1;
    for service in SERVICES {
        let mut revision = RevisionRoute {
            serial: 1,
            version: semver::Version::new(1, 0, 0),
            predict_path: None,
            protocol: Default::default(),
            limits: Default::default(),
            instances: BTreeMap::new(),
            relayed: BTreeMap::new(),
        };
        let id = format!("{service}.1.0.1").parse()?;
        if service == "plain" {
            revision.instances.insert(id, module);
        } else {
            let relayed = Relayed {
                address: relay,
                node: "n1".parse()?,
                key: key.to_owned(),
                local: module,
            };
            revision.relayed.insert(id, relayed);
        }
        let route = ServiceRoute {
            revisions: BTreeMap::from([(1, revision)]),
            ..ServiceRoute::default()
        };
        table.services.insert(service.parse()?, route);
    }
    Ok(table)
}

/// What one round measured.
#[derive(Clone, Copy)]
struct Measured {
    requests: f64,
    gateway: f64,
    relay: f64,
    p50: f64,
    p99: f64,
}

async fn bench(rounds: usize) -> Fallible<()> {
    let dir = tempfile::tempdir()?;
    let text = dir.path().to_str().ok_or("a path")?;
    let mut module = Process::start(&["module"])?;
    let module_at = module.address()?;
    let key = lay_out(dir.path(), module_at)?;
    let relay = Process::start(&["relay", text])?;
    let endpoint = dir.path().join(berth_relay::ENDPOINT);
    while !endpoint.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let relay_at = std::fs::read_to_string(&endpoint)?.trim().parse()?;
    let routes = serde_json::to_vec(&table(module_at, relay_at, &key)?)?;
    std::fs::write(dir.path().join("routes.json"), routes)?;
    for (what, size, idle) in [
        ("1 KB bodies, kept connections", 1_000, "64"),
        (
            "1 KB bodies, a new connection to the instance each",
            1_000,
            "0",
        ),
        ("4 MB bodies, kept connections", 4_000_000, "64"),
    ] {
        let mut gateway = Process::start(&["gateway", text, idle])?;
        let at = gateway.address()?;
        let mut all: [Vec<Measured>; 2] = [Vec::new(), Vec::new()];
        // The first round warms up.
        for round in 0..=rounds {
            let mut order = [0, 1];
            order.rotate_left(round % 2);
            for which in order {
                let path = format!("/s/{}/{size}", SERVICES[which]);
                let measured = measure(at, &path, &gateway, &relay).await?;
                if round > 0 {
                    all[which].push(measured);
                }
            }
        }
        show(what, size, &all);
    }
    Ok(())
}

async fn measure(
    at: SocketAddr,
    path: &str,
    gateway: &Process,
    relay: &Process,
) -> Fallible<Measured> {
    let until = Instant::now() + ROUND;
    let before = (gateway.cpu()?, relay.cpu()?);
    let clients = (0..CLIENTS).map(|_| tokio::spawn(client(at, path.to_owned(), until)));
    let clients: Vec<_> = clients.collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64();
    Ok(Measured {
        requests: times.len() as f64,
        gateway: gateway.cpu()? - before.0,
        relay: relay.cpu()? - before.1,
        p50: at(0.5),
        p99: at(0.99),
    })
}

async fn client(at: SocketAddr, path: String, until: Instant) -> Fallible<Vec<Duration>> {
    let mut stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    let mut times = Vec::new();
    let mut head = Vec::new();
    let mut rest = vec![0; 256 << 10];
    while Instant::now() < until {
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        head.clear();
        read_head(&mut stream, &mut head).await?.ok_or("closed")?;
        let text = String::from_utf8_lossy(&head).to_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err(format!("{path}: {text}").into());
        }
        let length = text.split("content-length: ").nth(1).ok_or("no length")?;
        let mut left: usize = length.split("\r\n").next().unwrap_or_default().parse()?;
        while left > 0 {
            let most = left.min(rest.len());
            let got = stream.read(&mut rest[..most]).await?;
            if got == 0 {
                return Err("cut off".into());
            }
            left -= got;
        }
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Reads a head byte by byte from what the system has; none at the end.
async fn read_head(stream: &mut TcpStream, head: &mut Vec<u8>) -> std::io::Result<Option<()>> {
    let mut peeked = [0; 4096];
    loop {
        let n = stream.peek(&mut peeked).await?;
        if n == 0 {
            return Ok(None);
        }
        let before = head.len();
        head.extend_from_slice(&peeked[..n]);
        let end = head.windows(4).position(|w| w == b"\r\n\r\n");
        let take = end.map_or(n, |end| end + 4 - before);
        head.truncate(before + take);
        stream.read_exact(&mut peeked[..take]).await?;
        if end.is_some() {
            return Ok(Some(()));
        }
    }
}

fn median(all: &[Measured], of: impl Fn(&Measured) -> f64) -> f64 {
    let mut values: Vec<f64> = all.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn show(what: &str, size: usize, all: &[Vec<Measured>; 2]) {
    println!(
        "{what}: {} rounds of {ROUND:?}, {CLIENTS} clients",
        all[0].len()
    );
    for (service, measured) in SERVICES.iter().zip(all) {
        let requests = median(measured, |m| m.requests / ROUND.as_secs_f64());
        let gateway = median(measured, |m| m.gateway / m.requests * 1e6);
        let relay = median(measured, |m| m.relay / m.requests * 1e6);
        let (p50, p99) = (median(measured, |m| m.p50), median(measured, |m| m.p99));
        let per_gb = (gateway + relay) * 1e-6 / size as f64 * 1e9;
        println!(
            "  {service:<6} {requests:>8.0}/s  gateway {gateway:>8.1} µs  relay {relay:>8.1} µs  \
             p50 {:>7.2} ms  p99 {:>7.2} ms  {per_gb:>6.2} CPU-s/GB",
            p50 * 1e3,
            p99 * 1e3
        );
    }
}
