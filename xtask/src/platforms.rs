//! The real parts that tests need: Docker, Kubernetes, hosts, TensorFlow. The scripts of `tests/platform` and
//! `tests/tfserving` set them up; what cannot be had is told as a skip by the tests that want it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::{deb, image, run};

/// What is slow to make and is kept in `~/.cache/berth`, on its way while cargo builds.
pub(crate) struct Cached {
    made: JoinHandle<Vec<(&'static str, Result<String>)>>,
}

/// The platforms that run, and what tests are told of them.
pub(crate) struct Platforms {
    /// Environment variables.
    pub(crate) env: Vec<(&'static str, String)>,
    up: Vec<&'static str>,
}

const HOSTS: &str = "Hosts";
const IMAGES: &str = "Base images";

fn script(name: &str) -> Command {
    Command::new(run::root().join("tests").join(name))
}

impl Cached {
    /// Begins to make it.
    pub(crate) fn start() -> Self {
        let made = std::thread::spawn(|| {
            [
                ("TensorFlow", "tfserving/setup.sh", &[][..]),
                (IMAGES, "platform/base-image.sh", &[]),
                (HOSTS, "platform/hosts.sh", &["build"]),
                ("Kubernetes", "platform/kubernetes.sh", &["build"]),
            ]
            .map(|(what, path, args)| (what, run::output(script(path).args(args))))
            .into()
        });
        Self { made }
    }

    /// What was made, each with its script's output.
    fn wait(self) -> BTreeMap<&'static str, String> {
        let mut all = BTreeMap::new();
        for (what, result) in self.made.join().unwrap_or_default() {
            match result {
                Ok(text) => {
                    all.insert(what, text.trim().to_owned());
                }
                Err(error) => println!("{what} cannot be had here: {error:#}"),
            }
        }
        all
    }
}

impl Platforms {
    /// Starts what can be started; what cannot is told.
    pub(crate) fn start(cached: Cached) -> Self {
        let mut platforms = Self {
            env: Vec::new(),
            up: Vec::new(),
        };
        let mut backends = vec!["process"];
        let made = cached.wait();
        let images = made.get(IMAGES).map(PathBuf::from);
        if made.contains_key(HOSTS) {
            match platforms.hosts() {
                Ok(()) => {}
                Err(error) => println!("{HOSTS} cannot be had here: {error:#}"),
            }
        }
        match platforms.docker() {
            Ok(()) => backends.push("docker"),
            Err(error) => println!("Docker cannot be had here: {error:#}"),
        }
        match platforms.kubernetes(images) {
            Ok(()) => backends.push("kubernetes"),
            Err(error) => println!("Kubernetes cannot be had here: {error:#}"),
        }
        let backends = backends.join(",");
        platforms.env.push(("BERTH_TEST_BACKENDS", backends));
        platforms
    }

    /// Hosts are booted by the tests that want them; what they install is made here, once.
    fn hosts(&mut self) -> Result<()> {
        let debs = deb::run(&deb::Options::for_tests())?;
        self.env
            .push(("BERTH_TEST_DEBS", debs.display().to_string()));
        self.env.push(("BERTH_TEST_HOSTS", "1".to_owned()));
        Ok(())
    }

    fn docker(&mut self) -> Result<()> {
        const SCRIPT: &str = "platform/docker.sh";
        let host = run::output(script(SCRIPT).arg("up"))?.trim().to_owned();
        self.up.push(SCRIPT);
        run::output(script("platform/base-image.sh").args(["docker", &host]))?;
        self.env.push(("DOCKER_HOST", host));
        Ok(())
    }

    fn kubernetes(&mut self, images: Option<PathBuf>) -> Result<()> {
        const SCRIPT: &str = "platform/kubernetes.sh";
        let images = images.context("there are no base images")?;
        let pod = image::run(&image::Options::for_tests())?;
        let kubeconfig = run::output(script(SCRIPT).arg("up"))?.trim().to_owned();
        self.up.push(SCRIPT);
        for archive in [images, pod] {
            run::output(script(SCRIPT).arg("load").arg(archive))?;
        }
        self.env.push(("BERTH_TEST_KUBECONFIG", kubeconfig));
        Ok(())
    }
}

impl Drop for Platforms {
    fn drop(&mut self) {
        for path in &self.up {
            if let Err(error) = run::output(script(path).arg("down")) {
                println!("{path} down: {error:#}");
            }
        }
    }
}
