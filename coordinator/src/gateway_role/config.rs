//! `gateway.toml`: where the coordinator is, and all keys of the gateway itself.

use std::path::{Path, PathBuf};

use berth_gateway::GatewayConfig;
use berth_model::id::GatewayName;

use crate::config::{ConfigError, Keys};

/// What the role `gateway` can be told, with its defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The coordinator's `HOST:PORT`. Default `127.0.0.1:7450`.
    pub endpoint: String,
    /// The fleet's certificate authority (the coordinator's `ca.crt`). Default `/etc/berth/ca.crt`.
    pub ca_file: PathBuf,
    /// The gateway token (the coordinator's `gateway.token`). Default `/etc/berth/gateway.token`.
    pub token_file: PathBuf,
    /// Where the last route table is kept. Default `/var/lib/berth/gateway`.
    pub data_dir: PathBuf,
    /// This gateway's name, unique in the fleet. Default: the host name's first label.
    pub name: Option<GatewayName>,
    /// The URL at which clients reach it, for people and the CLI. Default: made from the address that it listens on.
    pub url: Option<String>,
    /// The data plane's own keys, on the same level of the file.
    pub gateway: GatewayConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: "127.0.0.1:7450".to_owned(),
            ca_file: "/etc/berth/ca.crt".into(),
            token_file: "/etc/berth/gateway.token".into(),
            data_dir: "/var/lib/berth/gateway".into(),
            name: default_name(),
            url: None,
            gateway: GatewayConfig::default(),
        }
    }
}

impl Config {
    /// Reads a file. Where `required` is false, a file that is not there gives the defaults.
    pub fn read(path: &Path, required: bool) -> Result<Self, ConfigError> {
        Self::from_keys(Keys::read(path, required)?)
    }

    fn from_keys(mut keys: Keys) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        keys.take("name", &mut config.name);
        if config.name.is_none() {
            keys.wrong("name", "is required: the host's own name will not do");
        }
        keys.take("endpoint", &mut config.endpoint);
        keys.take("ca_file", &mut config.ca_file);
        keys.take("token_file", &mut config.token_file);
        keys.take("data_dir", &mut config.data_dir);
        let mut url = String::new();
        keys.take("url", &mut url);
        config.url = (!url.is_empty()).then_some(url);
        if let Some(gateway) = keys.take_rest() {
            config.gateway = gateway;
        }
        if authority(&config.endpoint).is_none() {
            keys.wrong("endpoint", "must be HOST:PORT, as in \"10.0.0.1:7450\"");
        }
        keys.finish(config)
    }
}

/// The endpoint as an authority with a port; `https://` before it is allowed.
pub(super) fn authority(endpoint: &str) -> Option<http::uri::Authority> {
    let text = endpoint
        .strip_prefix("https://")
        .unwrap_or(endpoint)
        .trim_end_matches('/');
    let authority: http::uri::Authority = text.parse().ok()?;
    authority.port().is_some().then_some(authority)
}

/// None where the host's name is no name for a gateway; the configuration must say one then.
fn default_name() -> Option<GatewayName> {
    let host = crate::pki::host_name().to_lowercase();
    let label = host.split('.').next().unwrap_or_default();
    GatewayName::new(label).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::from_keys(Keys::parse(Path::new("g.toml"), text.to_owned())?)
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
        for text in shipped(include_str!("../../../systemd/gateway.toml")) {
            parse(&text).unwrap();
        }
    }

    #[test]
    fn its_own_keys_and_the_data_planes_are_on_one_level() {
        let config = parse("name = \"edge-1\"\nlisten = \"127.0.0.1:0\"\nthreads = 2\n").unwrap();
        assert_eq!(config.name.unwrap().as_str(), "edge-1");
        assert_eq!(config.gateway.threads, 2);
        parse("").unwrap();
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let error =
            parse("name = \"Edge 1\"\nendpoint = \"somewhere\"\nthreads = \"x\"\nthread = 1\n")
                .unwrap_err();
        assert_eq!(error.errors.len(), 4, "{error}");
        let endpoint = authority("https://[::1]:7450/").unwrap();
        assert_eq!(endpoint.port_u16(), Some(7450));
        assert_eq!(authority("host"), None);
    }
}
