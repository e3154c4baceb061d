//! A gateway with a fixed table, for benchmarks and experiments:
//!
//! ```text
//! cargo run --release -p berth-gateway --example bare_gateway -- \
//!     --listen 127.0.0.1:8080 --threads 1 --upstream 127.0.0.1:9001 --upstream 127.0.0.1:9002
//! ```
//!
//! The service is called `bench`, so requests go to `/s/bench/…` or `/v1/models/bench:predict`. It prints
//! its two addresses as soon as it is ready and runs until it is killed.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;

use berth_gateway::{Gateway, GatewayConfig};
use berth_model::route::{RevisionRoute, ServiceRoute, Table};

fn arguments() -> Result<(GatewayConfig, Vec<SocketAddr>), Box<dyn Error>> {
    let mut config = GatewayConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: ([127, 0, 0, 1], 0).into(),
        ..GatewayConfig::default()
    };
    let mut upstreams = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} wants a value"))?;
        match name.as_str() {
            "--listen" => config.listen = value.parse()?,
            "--admin" => config.admin_listen = value.parse()?,
            "--threads" => config.threads = value.parse()?,
            "--upstream" => upstreams.push(value.parse()?),
            _ => return Err(format!("unknown argument {name}").into()),
        }
    }
    Ok((config, upstreams))
}

fn table(upstreams: &[SocketAddr]) -> Result<Table, Box<dyn Error>> {
    let mut revision = RevisionRoute {
        relayed: Default::default(),
        serial: 1,
        version: semver::Version::new(1, 0, 0),
        predict_path: None,
        protocol: Default::default(),
        limits: Default::default(),
        instances: BTreeMap::new(),
    };
    for (ordinal, addr) in upstreams.iter().enumerate() {
        let id = format!("bench.1.{ordinal}.1").parse()?;
        revision.instances.insert(id, *addr);
    }
    let mut table = Table::default();
    table.version.generation = 1;
    let service = ServiceRoute {
        revisions: BTreeMap::from([(1, revision)]),
        ..ServiceRoute::default()
    };
    table.services.insert("bench".parse()?, service);
    Ok(table)
}

fn main() -> Result<(), Box<dyn Error>> {
    let (config, upstreams) = arguments()?;
    let gateway = Gateway::bind(config)?;
    gateway.handle().publish(table(&upstreams)?)?;
    let mut out = std::io::stdout();
    writeln!(out, "gateway http://{}", gateway.addr())?;
    writeln!(out, "admin   http://{}", gateway.admin_addr())?;
    out.flush()?;
    loop {
        std::thread::park();
    }
}
