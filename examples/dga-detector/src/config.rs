//! What Berth tells a module in its environment.

use std::net::IpAddr;
use std::path::PathBuf;

/// The settings; each has a default, so that the server can be tried by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// `HOST`, default 127.0.0.1.
    pub(crate) host: IpAddr,
    /// `PORT`, default 8501 as TensorFlow Serving's; 0 takes a free one.
    pub(crate) port: u16,
    /// `BERTH_MODEL_DIR`, default `model`.
    pub(crate) model_dir: PathBuf,
    /// `BERTH_MODEL_NAME`, default `dga-detector`.
    pub(crate) model_name: String,
    /// `BERTH_MODEL_SERIAL`, default 1.
    pub(crate) serial: u64,
    /// `BERTH_INSTANCE`, for the start-up line.
    pub(crate) instance: String,
}

/// A variable that does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value:?} is not {wanted}")]
pub(crate) struct ConfigError {
    name: &'static str,
    value: String,
    wanted: &'static str,
}

impl Config {
    /// Reads the settings through `variable`.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text = |name, default: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .unwrap_or_else(|| default.to_owned())
        };
        Ok(Self {
            host: parse("HOST", text("HOST", "127.0.0.1"), "an IP address")?,
            port: parse("PORT", text("PORT", "8501"), "a port")?,
            model_dir: text("BERTH_MODEL_DIR", "model").into(),
            model_name: text("BERTH_MODEL_NAME", "dga-detector"),
            serial: parse(
                "BERTH_MODEL_SERIAL",
                text("BERTH_MODEL_SERIAL", "1"),
                "a number",
            )?,
            instance: text("BERTH_INSTANCE", "by hand"),
        })
    }
}

fn parse<T: std::str::FromStr>(
    name: &'static str,
    value: String,
    wanted: &'static str,
) -> Result<T, ConfigError> {
    let text = if value == "localhost" {
        "127.0.0.1"
    } else {
        &value
    };
    text.parse().map_err(|_| ConfigError {
        name,
        value,
        wanted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_defaults_and_reads_the_environment() {
        let config = Config::read(|_| None).unwrap();
        assert_eq!(
            (config.host.to_string().as_str(), config.port),
            ("127.0.0.1", 8501)
        );
        let config = Config::read(|name| match name {
            "PORT" => Some("21007".to_owned()),
            "HOST" => Some("localhost".to_owned()),
            "BERTH_MODEL_SERIAL" => Some("7".to_owned()),
            _ => Some(String::new()),
        });
        let config = config.unwrap();
        assert_eq!((config.port, config.serial), (21007, 7));
        assert_eq!(config.model_name, "dga-detector");
    }

    #[test]
    fn says_which_variable_is_wrong() {
        let error = Config::read(|name| (name == "PORT").then(|| "http".to_owned())).unwrap_err();
        assert_eq!(error.to_string(), "PORT=\"http\" is not a port");
    }
}
