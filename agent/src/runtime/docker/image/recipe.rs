//! What an image is made of. Pure.

use std::collections::HashMap;

use berth_model::digest::PackageDigest;
use berth_model::instance::InstanceSpec;
use berth_model::manifest::{ModuleKind, Preset};
use sha2::{Digest, Sha256};

use crate::config::DockerConfig;

/// Label with the package's digest.
pub(super) const LABEL_DIGEST: &str = "io.berth.digest";

/// Label with the hash of how it was made: another base image makes another image.
pub(super) const LABEL_RECIPE: &str = "io.berth.recipe";

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// It has a name, and is pulled if need be.
    Named(String),
    /// It is built here, or was built elsewhere by the same recipe.
    Built(Recipe),
}

/// How an image is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    /// What it is called, with the tag.
    pub(super) tag: String,
    /// The package it is for.
    pub(super) digest: PackageDigest,
    /// Its Dockerfile.
    pub(super) dockerfile: Dockerfile,
}

/// What is built by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dockerfile {
    /// The package's own, with the whole package as its context.
    Own {
        /// Where it is in the package.
        path: String,
    },
    /// The preset of the package's kind.
    Preset {
        /// The image it begins from.
        base: String,
        /// It installs what `requirements.txt` says.
        python: bool,
    },
}

impl Source {
    /// The image of an instance.
    pub(super) fn of(wanted: &InstanceSpec, config: &DockerConfig) -> Self {
        let module = &wanted.manifest.module;
        if let Some(image) = &module.image {
            return Self::Named(image.clone());
        }
        let preset = |base: &String, python| Dockerfile::Preset {
            base: base.clone(),
            python,
        };
        let dockerfile = match (&module.dockerfile, module.kind, module.preset) {
            (Some(path), ..) => Dockerfile::Own { path: path.clone() },
            (None, ModuleKind::TfServing, _) => preset(&config.base_tf_serving, false),
            (None, _, Some(Preset::Python)) => preset(&config.base_python, true),
            (None, ..) => preset(&config.base_binary, false),
        };
        Self::Built(Recipe {
            tag: format!(
                "berth/{}:sha256-{}",
                wanted.manifest.package.name,
                &wanted.digest.hex()[..12]
            ),
            digest: wanted.digest,
            dockerfile,
        })
    }

    /// What the image is called.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Named(image) => image,
            Self::Built(recipe) => &recipe.tag,
        }
    }
}

impl Recipe {
    /// Whether an image with these labels was made by it.
    pub(super) fn made(&self, labels: &HashMap<String, String>) -> bool {
        let is = |label: &str, value: String| labels.get(label) == Some(&value);
        is(LABEL_DIGEST, self.digest.to_string()) && is(LABEL_RECIPE, self.hash())
    }

    /// Tells recipes of one package apart.
    pub(super) fn hash(&self) -> String {
        let text = match &self.dockerfile {
            Dockerfile::Own { path } => format!("own {path}"),
            // Whether there are wheels is a matter of the package.
            Dockerfile::Preset { base, python } => {
                format!("{base} {}", text(base, *python, true))
            }
        };
        hex::encode(&Sha256::digest(text)[..8])
    }
}

/// Where a preset image has its Python environment.
const VENV: &str = "/berth/venv";

/// The preset Dockerfile. With `wheels`, nothing is fetched.
pub(super) fn text(base: &str, python: bool, wheels: bool) -> String {
    let mut text = format!("FROM {base}\n");
    if !python {
        return text;
    }
    let (copy, find) = match wheels {
        true => ("requirements.txt wheels", " --no-index --find-links wheels"),
        false => ("requirements.txt", ""),
    };
    for word in copy.split(' ') {
        text.push_str(&format!("COPY {word} /berth/python/{word}\n"));
    }
    // An environment of its own, as on a node: not every base image has a pip, or lets it install among the system's
    // packages.
    text.push_str(&format!(
        "WORKDIR /berth/python\n\
         RUN python3 -m venv {VENV}\n\
         RUN {VENV}/bin/python3 -m pip install --no-cache-dir --disable-pip-version-check{find} -r requirements.txt\n\
         ENV VIRTUAL_ENV={VENV} PATH={VENV}/bin:$PATH\n"
    ));
    text
}

/// Name and tag of an image; `latest` if it has none. A digest counts as a tag.
pub(super) fn split(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        // A colon before a slash is that of a port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    #[test]
    fn the_manifest_decides_where_the_image_comes_from() {
        let config = DockerConfig::default();
        let mut wanted = spec("web.1.0.1");
        let Source::Built(binary) = Source::of(&wanted, &config) else {
            panic!("not built")
        };
        assert_eq!(binary.tag, "berth/web:sha256-abababababab");
        wanted.manifest.module.preset = Some(Preset::Python);
        let Source::Built(python) = Source::of(&wanted, &config) else {
            panic!("not built")
        };
        assert!(python.hash() != binary.hash());
        assert!(matches!(
            python.dockerfile,
            Dockerfile::Preset { python: true, .. }
        ));
        wanted.manifest.module.dockerfile = Some("docker/Dockerfile".into());
        assert!(matches!(
            Source::of(&wanted, &config),
            Source::Built(Recipe {
                dockerfile: Dockerfile::Own { .. },
                ..
            })
        ));
        wanted.manifest.module.image = Some("registry:5000/x".into());
        assert_eq!(
            Source::of(&wanted, &config),
            Source::Named("registry:5000/x".into())
        );
        wanted.manifest.module = spec("web.1.0.1").manifest.module;
        wanted.manifest.module.kind = ModuleKind::TfServing;
        let Source::Built(Recipe {
            dockerfile: Dockerfile::Preset { base, .. },
            ..
        }) = Source::of(&wanted, &config)
        else {
            panic!("not built")
        };
        assert_eq!(base, config.base_tf_serving);
    }

    #[test]
    fn another_base_is_another_image() {
        let recipe = |base: &str| Recipe {
            tag: "t".into(),
            digest: spec("a.1.0.1").digest,
            dockerfile: Dockerfile::Preset {
                base: base.into(),
                python: false,
            },
        };
        assert_ne!(recipe("a").hash(), recipe("b").hash());
        assert_eq!(recipe("a").hash(), recipe("a").hash());
    }

    #[test]
    fn with_wheels_nothing_is_fetched() {
        assert_eq!(text("x", false, true), "FROM x\n");
        assert!(
            text("x", true, true).contains("--no-index --find-links wheels -r requirements.txt")
        );
        assert!(!text("x", true, false).contains("wheels"));
    }

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(split("a"), ("a", "latest"));
        assert_eq!(split("h:5000/a"), ("h:5000/a", "latest"));
        assert_eq!(split("h:5000/a:1"), ("h:5000/a", "1"));
        assert_eq!(split("a@sha256:ff"), ("a", "sha256:ff"));
    }
}
