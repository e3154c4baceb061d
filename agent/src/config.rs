//! `agent.toml`: every key is optional, unknown ones are refused, and all mistakes are told at once.

mod docker;
mod isolation;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use berth_model::node::NodeKind;
use berth_model::time::Bytes;

use crate::ports::PortRange;

pub use docker::DockerConfig;
pub use isolation::{IsolationConfig, LauncherChoice, UserRange};

/// What an agent is configured to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `endpoint`: the coordinator's address, `host:port`; none: the one it joined.
    pub endpoint: Option<String>,
    /// `data_dir`: where it keeps everything.
    pub data_dir: PathBuf,
    /// `shim`: the `berth-shim` binary; none: beside this executable, then on PATH.
    pub shim: Option<PathBuf>,
    /// `port_range`: ports that it gives to instances, `"21000-21999"`.
    pub port_range: PortRange,
    /// `address`: where gateways dial the relay; without relays, what instances are told as HOST and gateways dial.
    pub address: IpAddr,
    /// `relay_listen`: where the node's `berth-relay` listens.
    pub relay_listen: SocketAddr,
    /// `relay_dir`: the folder that it reads.
    pub relay_dir: PathBuf,
    /// `relay_metrics`: the file with its figures.
    pub relay_metrics: PathBuf,
    /// `kind`: `"physical"` or `"virtual"`; none: found out.
    pub kind: Option<NodeKind>,
    /// `exclusive`: one instance at a time; none: on virtual machines.
    pub exclusive: Option<bool>,
    /// `[labels]`: labels of the node.
    pub labels: BTreeMap<String, String>,
    /// `log_budget`: most bytes of a start's log that wait on disk for the coordinator.
    pub log_budget: Bytes,
    /// `log_segment`: size at which a log segment is closed.
    pub log_segment: Bytes,
    /// `tensorflow_model_server`: the program; none: the one on PATH.
    pub model_server: Option<PathBuf>,
    /// `driver`: the `berth-driver` binary; none: beside this executable, then on PATH.
    pub driver: Option<PathBuf>,
    /// `max_output`: the largest output of a job's task.
    pub max_output: Bytes,
    /// `package_budget`: most bytes of all unpacked packages, unless instances use more.
    pub package_budget: Bytes,
    /// `download_limit`: most bytes a second that packages and inputs come with; none: as fast as they can.
    pub download_limit: Option<Bytes>,
    /// `disk_low`: free bytes below which room is made and the condition `disk-low` told; none: a tenth of the disk.
    pub disk_low: Option<Bytes>,
    /// `[docker]`: the Docker runtime.
    pub docker: DockerConfig,
    /// `[isolation]`: how instances that are plain processes are kept apart.
    pub isolation: IsolationConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: None,
            data_dir: PathBuf::from("/var/lib/berth/agent"),
            shim: None,
            port_range: PortRange::default(),
            address: IpAddr::from([127, 0, 0, 1]),
            relay_listen: SocketAddr::from(([0, 0, 0, 0], 7460)),
            relay_dir: PathBuf::from("/var/lib/berth/relay"),
            relay_metrics: PathBuf::from("/run/berth-relay/metrics.prom"),
            kind: None,
            exclusive: None,
            labels: BTreeMap::new(),
            log_budget: Bytes(64 << 20),
            log_segment: Bytes(1 << 20),
            model_server: None,
            driver: None,
            max_output: Bytes(10 << 30),
            package_budget: Bytes(20 << 30),
            download_limit: None,
            disk_low: None,
            docker: DockerConfig::default(),
            isolation: IsolationConfig::default(),
        }
    }
}

/// Where the configuration is if nothing else is said.
pub const DEFAULT_FILE: &str = "/etc/berth/agent.toml";

const KEYS: &[&str] = &[
    "endpoint",
    "data_dir",
    "shim",
    "port_range",
    "address",
    "relay_listen",
    "relay_dir",
    "relay_metrics",
    "kind",
    "exclusive",
    "labels",
    "log_budget",
    "log_segment",
    "tensorflow_model_server",
    "driver",
    "max_output",
    "package_budget",
    "download_limit",
    "disk_low",
    "docker",
    "isolation",
];

/// Everything that is wrong with a configuration file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigErrors(pub Vec<String>);

impl Config {
    /// Reads a file. Without one named, the default file, which may be absent.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigErrors> {
        let file = path.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, &file.display().to_string()),
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(ConfigErrors(vec![format!(
                "cannot read {}: {error}",
                file.display()
            )])),
        }
    }

    /// Reads a configuration; `file` is for the errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let table: toml::Table = text
            .parse()
            .map_err(|error| ConfigErrors(vec![format!("{file}: {error}")]))?;
        let mut reader = Reader {
            file,
            table,
            errors: Vec::new(),
        };
        let default = Self::default();
        let config = Self {
            endpoint: reader.text("endpoint"),
            data_dir: reader
                .text("data_dir")
                .map_or(default.data_dir, PathBuf::from),
            shim: reader.text("shim").map(PathBuf::from),
            port_range: reader.parsed("port_range").unwrap_or(default.port_range),
            address: reader.parsed("address").unwrap_or(default.address),
            relay_listen: reader
                .parsed("relay_listen")
                .unwrap_or(default.relay_listen),
            relay_dir: reader
                .text("relay_dir")
                .map_or(default.relay_dir, PathBuf::from),
            relay_metrics: reader
                .text("relay_metrics")
                .map_or(default.relay_metrics, PathBuf::from),
            kind: reader.kind(),
            exclusive: reader.take("exclusive", "true or false", |value| value.as_bool()),
            labels: reader.labels(),
            log_budget: reader.parsed("log_budget").unwrap_or(default.log_budget),
            log_segment: reader.parsed("log_segment").unwrap_or(default.log_segment),
            model_server: reader.text("tensorflow_model_server").map(PathBuf::from),
            driver: reader.text("driver").map(PathBuf::from),
            max_output: reader.parsed("max_output").unwrap_or(default.max_output),
            package_budget: reader
                .parsed("package_budget")
                .unwrap_or(default.package_budget),
            download_limit: reader.parsed("download_limit"),
            disk_low: reader.parsed("disk_low"),
            docker: DockerConfig::read(&mut reader),
            isolation: IsolationConfig::read(&mut reader),
        };
        if config.log_budget.0 < 256 << 10 {
            reader.error("log_budget", "must be at least 256KiB");
        }
        if config
            .download_limit
            .is_some_and(|limit| limit.0 < 16 << 10)
        {
            reader.error("download_limit", "must be at least 16KiB (a second)");
        }
        if reader.table.remove("unused_packages").is_some() {
            reader.error(
                "unused_packages",
                "is not counted any more: set package_budget, a size",
            );
        }
        for key in reader.table.keys() {
            let known = KEYS.join(", ");
            reader
                .errors
                .push(format!("{file}: unknown key {key:?}; there are {known}"));
        }
        if reader.errors.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(reader.errors))
        }
    }
}

/// Takes keys out of a table and collects what is wrong with them.
struct Reader<'a> {
    file: &'a str,
    table: toml::Table,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn error(&mut self, key: &str, problem: impl std::fmt::Display) {
        self.errors.push(format!("{}: {key}: {problem}", self.file));
    }

    fn take<T>(
        &mut self,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(&toml::Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.table.remove(key)?;
        let converted = convert(&value);
        if converted.is_none() {
            self.error(key, format_args!("expected {wanted}, not {value}"));
        }
        converted
    }

    /// Takes a table out, to be read like a configuration of its own and then closed.
    fn section(&mut self, name: &str) -> Option<Self> {
        let table = self.take(name, "a table", |value| value.as_table().cloned())?;
        Some(Self {
            file: self.file,
            table,
            errors: Vec::new(),
        })
    }

    /// Takes over what is wrong with a section, of which nothing should be left.
    fn close(&mut self, name: &str, mut section: Self, keys: &[&str]) {
        for key in section.table.keys() {
            let known = keys.join(", ");
            let error = format!("{}: unknown key {key:?}; there are {known}", self.file);
            section.errors.push(error);
        }
        let prefix = format!("{}: ", self.file);
        let named = |error: String| error.replacen(&prefix, &format!("{prefix}[{name}] "), 1);
        self.errors.extend(section.errors.into_iter().map(named));
    }

    /// A list of absolute paths; empty if not given.
    fn paths(&mut self, key: &str) -> Vec<PathBuf> {
        let paths = |value: &toml::Value| {
            let all = value.as_array()?.iter();
            all.map(|one| {
                let path = PathBuf::from(one.as_str()?);
                path.is_absolute().then_some(path)
            })
            .collect()
        };
        self.take(key, "a list of absolute paths", paths)
            .unwrap_or_default()
    }

    fn text(&mut self, key: &str) -> Option<String> {
        let text =
            |value: &toml::Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        self.take(key, "a text", text)
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &str) -> Option<T> {
        let text = self.text(key)?;
        text.parse().map_err(|error| self.error(key, error)).ok()
    }

    fn kind(&mut self) -> Option<NodeKind> {
        self.take("kind", "\"physical\" or \"virtual\"", |value| {
            match value.as_str()? {
                "physical" => Some(NodeKind::Physical),
                "virtual" => Some(NodeKind::Virtual),
                _ => None,
            }
        })
    }

    fn labels(&mut self) -> BTreeMap<String, String> {
        let labels = |value: &toml::Value| {
            let pairs = value.as_table()?.iter();
            pairs
                .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect()
        };
        self.take("labels", "a table of texts", labels)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for text in shipped(include_str!("../../systemd/agent.toml")) {
            Config::parse(&text, "agent.toml").unwrap();
        }
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let text = "endpoint = 5\nport_range = \"9-8\"\nkind = \"cloud\"\nlog_budget = \"1\"\ntypo = 1\n\
                    [labels]\na = 1\n";
        let ConfigErrors(errors) = Config::parse(text, "agent.toml").unwrap_err();
        assert_eq!(errors.len(), 6, "{errors:#?}");
        assert!(errors.iter().all(|error| error.starts_with("agent.toml: ")));
        assert!(
            errors
                .iter()
                .any(|error| error.contains("unknown key \"typo\""))
        );
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        assert_eq!(Config::parse("", "x").unwrap(), Config::default());
        let text = "endpoint = \"coordinator:7450\"\nexclusive = false\nkind = \"physical\"\n\
                    port_range = \"21000-21099\"\nlog_budget = \"8MiB\"\n[labels]\nrack = \"a\"\n";
        let config = Config::parse(text, "x").unwrap();
        assert_eq!(config.endpoint.as_deref(), Some("coordinator:7450"));
        assert_eq!(
            (config.exclusive, config.kind),
            (Some(false), Some(NodeKind::Physical))
        );
        assert_eq!(config.port_range.to_string(), "21000-21099");
        assert_eq!(config.labels["rack"], "a");
        assert_eq!(config.log_budget, Bytes(8 << 20));
    }
}
