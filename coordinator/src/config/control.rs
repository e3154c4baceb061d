//! `coordinator.toml`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_logs::Retention;
use berth_model::relay::Transport;
use berth_model::time::{Bytes, Span};

use super::cluster::ClusterSettings;
use super::{ConfigError, Keys};
use crate::edge::Settings;

/// What the role `control` can be told, with its defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// Where the API listens; port 0 takes a free one. Default `0.0.0.0:7450`.
    pub listen: SocketAddr,
    /// Everything that the coordinator keeps. Default `/var/lib/berth/coordinator`.
    pub data_dir: PathBuf,
    /// Further names and addresses in the server certificate. Default: none.
    pub names: Vec<String>,
    /// How long the server certificate is valid; it is renewed at two thirds of that. Default 90d.
    pub server_certificate_life: Span,
    /// How long a node's certificate is valid. Default 24h.
    pub node_certificate_life: Span,
    /// How often an agent shall be heard of. Default 5s.
    pub heartbeat: Span,
    /// Silence after which a node is lost. Default 30s.
    pub node_lease: Span,
    /// Silence after which a gateway no longer holds up stopping. Default 15s.
    pub gateway_lease: Span,
    /// Longest time an instance drains. Default 30s.
    pub drain_deadline: Span,
    /// Share of nodes (percent) that may fall silent within one lease before replacing waits. Default 30.
    pub mass_loss_percent: u32,
    /// Largest archive of a package. Default 64GiB.
    pub max_blob: Bytes,
    /// How long log lines are kept. Default 7d.
    pub log_max_age: Span,
    /// How much of all services' logs is kept. Default 10GiB.
    pub log_max_bytes: Bytes,
    /// How much of one service's logs is kept. Default 1GiB.
    pub log_service_bytes: Bytes,
    /// Connections to the API at a time. Default 16384.
    pub max_connections: u32,
    /// How gateways reach instances on nodes: `auto`, `relay` or `plain`. Default `auto`.
    pub transport: Transport,
    /// Kubernetes clusters. Default: none.
    pub clusters: Vec<ClusterSettings>,
}

impl Default for ControlConfig {
    fn default() -> Self {
        let plan = berth_plan::Settings::default();
        let logs = Retention::default();
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 7450).into(),
            data_dir: "/var/lib/berth/coordinator".into(),
            names: Vec::new(),
            server_certificate_life: Span::secs(90 * 86400),
            node_certificate_life: Span::secs(24 * 3600),
            heartbeat: Span::secs(5),
            node_lease: plan.node_lease,
            gateway_lease: plan.gateway_lease,
            drain_deadline: plan.drain_deadline,
            mass_loss_percent: plan.mass_loss_percent,
            max_blob: Bytes(64 << 30),
            log_max_age: Span(logs.max_age),
            log_max_bytes: Bytes(logs.max_bytes),
            log_service_bytes: Bytes(logs.per_service_bytes),
            max_connections: 16_384,
            transport: Transport::default(),
            clusters: Vec::new(),
        }
    }
}

impl ControlConfig {
    /// Reads a file. Where `required` is false, a file that is not there gives the defaults.
    pub fn read(path: &Path, required: bool) -> Result<Self, ConfigError> {
        Self::from_keys(Keys::read(path, required)?)
    }

    fn from_keys(mut keys: Keys) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        keys.take("listen", &mut config.listen);
        keys.take("data_dir", &mut config.data_dir);
        keys.take("names", &mut config.names);
        keys.take(
            "server_certificate_life",
            &mut config.server_certificate_life,
        );
        keys.take("node_certificate_life", &mut config.node_certificate_life);
        keys.take("heartbeat", &mut config.heartbeat);
        keys.take("node_lease", &mut config.node_lease);
        keys.take("gateway_lease", &mut config.gateway_lease);
        keys.take("drain_deadline", &mut config.drain_deadline);
        keys.take("mass_loss_percent", &mut config.mass_loss_percent);
        keys.take("max_blob", &mut config.max_blob);
        keys.take("log_max_age", &mut config.log_max_age);
        keys.take("log_max_bytes", &mut config.log_max_bytes);
        keys.take("log_service_bytes", &mut config.log_service_bytes);
        keys.take("max_connections", &mut config.max_connections);
        keys.take("transport", &mut config.transport);
        keys.take("cluster", &mut config.clusters);
        config.check(&mut keys);
        keys.finish(config)
    }

    fn check(&self, keys: &mut Keys) {
        if self.heartbeat.0.is_zero() {
            keys.wrong("heartbeat", "must not be zero");
        }
        if self.node_lease.0 < self.heartbeat.0 * 2 {
            keys.wrong(
                "node_lease",
                format!(
                    "{} is less than two heartbeats ({}): a node would be lost by one late message",
                    self.node_lease, self.heartbeat
                ),
            );
        }
        if self.gateway_lease < Span::secs(3) {
            keys.wrong(
                "gateway_lease",
                "must be at least 3s: gateways report once a second",
            );
        }
        if !(1..=100).contains(&self.mass_loss_percent) {
            keys.wrong("mass_loss_percent", "must be from 1 to 100");
        }
        for (key, life) in [
            ("server_certificate_life", self.server_certificate_life),
            ("node_certificate_life", self.node_certificate_life),
        ] {
            if life < Span::secs(10) {
                keys.wrong(key, "must be at least 10s");
            }
        }
        if self.max_connections == 0 {
            keys.wrong("max_connections", "must not be zero");
        }
        super::cluster::check(&self.clusters, keys);
        for name in &self.names {
            if rustls::pki_types::ServerName::try_from(name.as_str()).is_err() {
                keys.wrong(
                    "names",
                    format!("{name:?} is neither a DNS name nor an address"),
                );
            }
        }
    }

    /// What the planner is told.
    pub fn plan_settings(&self) -> berth_plan::Settings {
        berth_plan::Settings {
            node_lease: self.node_lease,
            gateway_lease: self.gateway_lease,
            drain_deadline: self.drain_deadline,
            mass_loss_percent: self.mass_loss_percent,
        }
    }

    /// What the edges are told.
    pub fn edge_settings(&self) -> Settings {
        Settings {
            node_certificate_life: self.node_certificate_life.0,
            heartbeat: self.heartbeat.0,
            node_lease: self.node_lease.0,
            max_blob: self.max_blob.0,
            upload_idle: Duration::from_secs(30),
            transport: self.transport,
        }
    }

    /// What the log store is told.
    pub fn retention(&self) -> Retention {
        Retention {
            max_age: self.log_max_age.0,
            max_bytes: self.log_max_bytes.0,
            per_service_bytes: self.log_service_bytes.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ControlConfig, ConfigError> {
        ControlConfig::from_keys(Keys::parse(Path::new("c.toml"), text.to_owned())?)
    }

    /// As shipped, and with every key taken out of its comment: prose lines begin with "# ".
    fn shipped(text: &str) -> [String; 2] {
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => key,
            _ => line,
        });
        [text.to_owned(), lines.collect::<Vec<_>>().join("\n")]
    }

    #[test]
    fn the_shipped_file_parses_also_with_its_keys_taken_out_of_the_comments() {
        for text in shipped(include_str!("../../../systemd/coordinator.toml")) {
            parse(&text).unwrap();
        }
    }

    #[test]
    fn nothing_is_needed_and_everything_can_be_said() {
        assert_eq!(parse("").unwrap(), ControlConfig::default());
        let config =
            parse("listen = \"127.0.0.1:0\"\nnode_lease = \"1m\"\nmax_blob = \"1GiB\"").unwrap();
        assert_eq!(config.listen.port(), 0);
        assert_eq!(config.plan_settings().node_lease, Span::secs(60));
        assert_eq!(config.edge_settings().max_blob, 1 << 30);
    }

    #[test]
    fn clusters_are_read_and_their_mistakes_told() {
        let good =
            "[[cluster]]\nname = \"prod\"\nkubeconfig = \"/etc/k\"\nendpoint = \"10.0.0.5:7450\"\n";
        let config = parse(good).unwrap();
        assert_eq!(config.clusters[0].namespace, "berth");
        let twice = parse(&format!("{good}{good}in_cluster = true\n")).unwrap_err();
        assert_eq!(twice.errors.len(), 2, "{twice}");
        let unknown = parse(&format!("{good}namespce = \"x\"\n")).unwrap_err();
        assert!(
            unknown.to_string().contains("unknown field `namespce`"),
            "{unknown}"
        );
        let local = parse(&good.replace("10.0.0.5", "127.0.0.1")).unwrap_err();
        assert!(
            local.to_string().contains("every Pod's own loopback"),
            "{local}"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-z_]{1,12} ?= ?[\"0-9a-z\\[\\]{}.]{0,9}\n?){0,4}|\\PC{0,40}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused_all_at_once() {
        let error = parse("node_lease = \"6s\"\nmass_loss_percent = 0\nnames = [\"a b\"]\nfoo = 1")
            .unwrap_err();
        assert_eq!(error.errors.len(), 4, "{error}");
        assert!(
            error.to_string().contains("c.toml:4: foo: unknown key"),
            "{error}"
        );
    }
}
