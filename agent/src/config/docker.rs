//! `[docker]` of `agent.toml`.

use std::path::PathBuf;

use berth_model::time::Bytes;

use super::Reader;

/// How the agent uses Docker. Everything has a default that works where the registry of Docker's own images
/// can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerConfig {
    /// There is a `[docker]` section: without Docker the node is not what it should be.
    pub wanted: bool,
    /// `socket`: Docker's socket.
    pub socket: PathBuf,
    /// `user`: who modules run as, `"UID:GID"`; none: as the agent, or as 65532:65532 if that is root.
    pub user: Option<(u32, u32)>,
    /// `pids`: most processes and threads of an instance.
    pub pids: u32,
    /// `base_python`: image for `preset = "python"`.
    pub base_python: String,
    /// `base_tf_serving`: image for `kind = "tf-serving"`.
    pub base_tf_serving: String,
    /// `base_binary`: image for everything else.
    pub base_binary: String,
    /// `registry`: where built images are looked for first, as in `"registry.example:5000/berth"`.
    pub registry: Option<String>,
    /// `push`: built images are pushed there.
    pub push: bool,
    /// `credentials`: a file as `docker login` writes it.
    pub credentials: Option<PathBuf>,
    /// `image_budget`: most bytes of built and pulled images that no instance uses.
    pub image_budget: Bytes,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            wanted: false,
            socket: PathBuf::from("/var/run/docker.sock"),
            user: None,
            pids: 4096,
            base_python: "python:3.12-slim".to_owned(),
            base_tf_serving: "tensorflow/serving:2.19.1".to_owned(),
            base_binary: "debian:12-slim".to_owned(),
            registry: None,
            push: false,
            credentials: None,
            image_budget: Bytes(20 << 30),
        }
    }
}

const KEYS: [&str; 10] = [
    "socket",
    "user",
    "pids",
    "base_python",
    "base_tf_serving",
    "base_binary",
    "registry",
    "push",
    "credentials",
    "image_budget",
];

impl DockerConfig {
    /// Takes the section out of the configuration; mistakes are added to the reader's.
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let Some(mut inner) = reader.section("docker") else {
            return default;
        };
        let config = Self {
            wanted: true,
            socket: inner.text("socket").map_or(default.socket, |text| {
                PathBuf::from(text.strip_prefix("unix://").unwrap_or(&text))
            }),
            user: inner.take("user", "\"UID:GID\" in numbers", |value| {
                let (uid, gid) = value.as_str()?.split_once(':')?;
                Some((uid.parse().ok()?, gid.parse().ok()?))
            }),
            pids: inner
                .take("pids", "a number from 16 on", |value| {
                    let pids = u32::try_from(value.as_integer()?).ok()?;
                    (pids >= 16).then_some(pids)
                })
                .unwrap_or(default.pids),
            base_python: inner.text("base_python").unwrap_or(default.base_python),
            base_tf_serving: inner
                .text("base_tf_serving")
                .unwrap_or(default.base_tf_serving),
            base_binary: inner.text("base_binary").unwrap_or(default.base_binary),
            registry: inner
                .text("registry")
                .map(|text| text.trim_end_matches('/').to_owned()),
            push: inner
                .take("push", "true or false", |value| value.as_bool())
                .unwrap_or(default.push),
            credentials: inner.text("credentials").map(PathBuf::from),
            image_budget: inner.parsed("image_budget").unwrap_or(default.image_budget),
        };
        if config.push && config.registry.is_none() {
            inner.error("push", "there is no registry to push to: set registry too");
        }
        reader.close("docker", inner, &KEYS);
        config
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigErrors};

    use super::*;

    #[test]
    fn the_section_is_read_and_its_mistakes_are_named() {
        let text = "[docker]\nsocket = \"unix:///run/d.sock\"\nuser = \"10:20\"\nregistry = \"r:5000/b/\"\n\
                    push = true\nimage_budget = \"5GiB\"\n";
        let docker = Config::parse(text, "x").unwrap().docker;
        assert_eq!(docker.socket, PathBuf::from("/run/d.sock"));
        assert_eq!(docker.user, Some((10, 20)));
        assert_eq!(docker.registry.as_deref(), Some("r:5000/b"));
        assert_eq!(docker.image_budget, Bytes(5 << 30));
        assert!(docker.wanted && docker.push);
        assert!(!Config::parse("", "x").unwrap().docker.wanted);
        let text = "[docker]\npush = true\nuser = \"root\"\npids = 1\nbase_java = \"x\"\n";
        let ConfigErrors(errors) = Config::parse(text, "x").unwrap_err();
        assert_eq!(errors.len(), 4, "{errors:#?}");
        assert!(
            errors.iter().all(|error| error.starts_with("x: [docker] ")),
            "{errors:#?}"
        );
    }
}
