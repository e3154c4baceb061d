//! What a Pod's containers are told by their environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use berth_model::time::Span;
use berth_model::token::JoinToken;

use crate::identity::Pod;
use crate::ports::PortRange;

/// Everything that is wrong with the environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct SettingsErrors(pub Vec<String>);

/// What a Pod's containers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `BERTH_ENDPOINT`: the coordinator as Pods reach it, `HOST:PORT`.
    pub endpoint: String,
    /// `POD_UID`, `POD_NAME`, `POD_IP`, `BERTH_JOB_UID`.
    pub pod: Pod,
    /// `BERTH_POD_BIN`: where the programs are copied to, and found.
    pub bin: PathBuf,
    /// `BERTH_POD_DATA`: the data folder of the agent in the Pod.
    pub data: PathBuf,
    /// `BERTH_POD_PORTS`: what the module may be told as PORT; the first free one is taken.
    pub ports: PortRange,
    /// `BERTH_POD_GRPC_PORT`: TensorFlow Serving's port for gRPC.
    pub grpc: u16,
    /// `BERTH_POD_PREPARE_TIMEOUT`: how long preparing is tried.
    pub patience: Duration,
    /// `BERTH_POD_LINGER`: how long an ended module's logs and status wait for the coordinator.
    pub linger: Duration,
    /// `BERTH_POD_TERMINATION_LOG`: where Kubernetes looks for why a container ended.
    pub termination_log: PathBuf,
    /// What is not Berth's or Kubernetes' doing: the image's, which is the module's, too.
    pub image_env: BTreeMap<String, String>,
}

/// The Pod's one-time join token, `BERTH_POD_TOKEN`. Only the init container has it.
pub fn token(env: &BTreeMap<String, String>) -> Result<JoinToken, SettingsErrors> {
    let mut read = Read::new(env);
    let token = read.required("BERTH_POD_TOKEN");
    read.done(token)
}

impl Settings {
    /// From the environment; every mistake is told at once.
    pub fn read(env: &BTreeMap<String, String>) -> Result<Self, SettingsErrors> {
        let mut read = Read::new(env);
        let endpoint = read.required("BERTH_ENDPOINT");
        let uid = read.required("POD_UID");
        let name = read.required("POD_NAME");
        let address = read.required("POD_IP");
        let job_uid = read.required("BERTH_JOB_UID");
        let ten_minutes = Span::secs(600);
        let rest = (
            read.or("BERTH_POD_BIN", PathBuf::from("/berth/bin")),
            read.or("BERTH_POD_DATA", PathBuf::from("/berth/data")),
            read.or("BERTH_POD_PORTS", PortRange::of_pods()),
            read.or("BERTH_POD_GRPC_PORT", 8500),
            read.or("BERTH_POD_PREPARE_TIMEOUT", ten_minutes),
            read.or("BERTH_POD_LINGER", ten_minutes),
            read.or(
                "BERTH_POD_TERMINATION_LOG",
                PathBuf::from("/dev/termination-log"),
            ),
        );
        let (bin, data, ports, grpc, patience, linger, termination_log) = rest;
        let all = (|| {
            Some(Self {
                endpoint: endpoint?,
                pod: Pod {
                    uid: uid?,
                    name: name?,
                    job_uid: job_uid?,
                    address: address?,
                },
                bin,
                data,
                ports,
                grpc,
                patience: patience.0,
                linger: linger.0,
                termination_log,
                image_env: image_env(env),
            })
        })();
        read.done(all)
    }
}

/// Variables that are neither Berth's nor Kubernetes' own.
fn image_env(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let others = ["BERTH_", "POD_", "KUBERNETES_"];
    env.iter()
        .filter(|(name, _)| !others.iter().any(|other| name.starts_with(other)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Reads variables and keeps what is wrong with them.
struct Read<'a> {
    env: &'a BTreeMap<String, String>,
    errors: Vec<String>,
}

impl<'a> Read<'a> {
    fn new(env: &'a BTreeMap<String, String>) -> Self {
        Self {
            env,
            errors: Vec::new(),
        }
    }

    fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.env.get(name).filter(|text| !text.is_empty())?;
        let read = text.parse();
        read.map_err(|error| self.errors.push(format!("{name}: {error}")))
            .ok()
    }

    fn required<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Option<T> {
        if self.env.get(name).is_none_or(String::is_empty) {
            self.errors.push(format!("{name} is not set"));
        }
        self.optional(name)
    }

    fn or<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, name: &str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    fn done<T>(self, value: Option<T>) -> Result<T, SettingsErrors> {
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(SettingsErrors(self.errors)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        pairs.collect()
    }

    const GOOD: [(&str, &str); 5] = [
        ("BERTH_ENDPOINT", "coordinator.example:7450"),
        ("POD_UID", "u"),
        ("POD_NAME", "web-1"),
        ("POD_IP", "10.0.0.7"),
        ("BERTH_JOB_UID", "j"),
    ];

    #[test]
    fn what_is_not_set_has_a_default_or_is_named_with_all_other_mistakes() {
        let settings = Settings::read(&env(&GOOD)).unwrap();
        assert_eq!(settings.pod.address.to_string(), "10.0.0.7");
        assert_eq!(settings.bin, PathBuf::from("/berth/bin"));
        assert_eq!(settings.ports.to_string(), "8080-8099");
        assert_eq!(settings.linger, Duration::from_secs(600));
        let wrong = env(&[
            ("POD_IP", "here"),
            ("BERTH_POD_LINGER", "soon"),
            ("POD_UID", ""),
        ]);
        let errors = Settings::read(&wrong).unwrap_err().0;
        for name in [
            "BERTH_ENDPOINT is",
            "POD_UID is",
            "POD_NAME is",
            "POD_IP: ",
            "BERTH_POD_LINGER: ",
        ] {
            assert!(
                errors.iter().any(|error| error.starts_with(name)),
                "{name}: {errors:?}"
            );
        }
    }

    #[test]
    fn the_images_variables_are_told_from_all_others() {
        let mut all = env(&GOOD);
        all.extend(env(&[("PYTHONPATH", "/app"), ("KUBERNETES_PORT", "x")]));
        let settings = Settings::read(&all).unwrap();
        assert_eq!(settings.image_env, env(&[("PYTHONPATH", "/app")]));
    }

    #[test]
    fn a_token_is_asked_for_where_it_is_needed() {
        assert!(token(&env(&GOOD)).is_err());
        assert!(token(&env(&[("BERTH_POD_TOKEN", "nonsense")])).is_err());
        token(&env(&[("BERTH_POD_TOKEN", "berth1.a.b.c")])).unwrap();
    }
}
