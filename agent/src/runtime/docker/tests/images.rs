//! Images, made by a real daemon.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use berth_model::digest::PackageDigest;
use berth_model::instance::{InstanceSpec, Reason};
use berth_model::manifest::Preset;

use super::world::{World, skip};
use crate::runtime::conformance::{IMAGE, until};
use crate::runtime::docker::DockerRuntime;
use crate::runtime::docker::daemon::PATIENCE;
use crate::runtime::{PrepareError, Runtime};
use crate::testing::spec;

struct Made {
    world: World,
    package: tempfile::TempDir,
    wanted: InstanceSpec,
}

impl Made {
    fn new() -> Option<Self> {
        let mut world = World::new()?;
        world.config.base_binary = IMAGE.to_owned();
        world.config.base_python = IMAGE.to_owned();
        let mut wanted = spec("web.1.0.1");
        // A package that no other test and no earlier run has.
        wanted.digest = PackageDigest::from_bytes(rand::random());
        Some(Self {
            world,
            package: tempfile::tempdir().unwrap(),
            wanted,
        })
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.package.path().join(name), text).unwrap();
    }

    async fn prepare(&self, runtime: &DockerRuntime) -> Result<String, PrepareError> {
        let preparing = runtime.prepare(&self.wanted, self.package.path());
        preparing.unwrap().await
    }

    async fn id(&self, runtime: &DockerRuntime, image: &str) -> Option<String> {
        let image = image.to_owned();
        let seen = runtime.daemon.call(PATIENCE, |docker| async move {
            docker.inspect_image(&image).await
        });
        seen.await.ok()?.id
    }

    async fn forget(&self, runtime: &DockerRuntime, image: &str) {
        let image = image.to_owned();
        let removed = runtime.daemon.call(PATIENCE, |docker| async move {
            let options = None::<bollard::query_parameters::RemoveImageOptions>;
            docker.remove_image(&image, options, None).await
        });
        let _ = removed.await;
    }
}

#[tokio::test]
async fn an_image_is_built_once_shared_and_collected() {
    let Some(mut made) = Made::new() else { return };
    made.world.config.image_budget = berth_model::time::Bytes(0);
    made.wanted.manifest.module.dockerfile = Some("Dockerfile".into());
    // Each build would be another image.
    made.file(
        "Dockerfile",
        &format!("FROM {IMAGE}\nRUN head -c 8 /dev/urandom >/made\n"),
    );
    let runtime = made.world.runtime();
    let (one, other) = tokio::join!(made.prepare(&runtime), made.prepare(&runtime));
    let tag = one.unwrap();
    assert_eq!(other.unwrap(), tag);
    let hex = made.wanted.digest.hex();
    assert_eq!(tag, format!("berth/web:sha256-{}", &hex[..12]));
    let id = made.id(&runtime, &tag).await.unwrap();
    // Another agent process finds it.
    let again = made.world.runtime();
    assert_eq!(made.prepare(&again).await.unwrap(), tag);
    assert_eq!(made.id(&again, &tag).await.as_ref(), Some(&id));
    let log = made.world.data().join("images").join(format!("{hex}.log"));
    assert!(std::fs::read_to_string(log).unwrap().contains("Step 2/"));
    runtime
        .images
        .collect_now(&BTreeSet::from([made.wanted.digest]))
        .await;
    assert_eq!(made.id(&runtime, &tag).await, Some(id));
    runtime.images.collect_now(&BTreeSet::new()).await;
    assert_eq!(made.id(&runtime, &tag).await, None);
    assert!(
        made.id(&runtime, IMAGE).await.is_some(),
        "not ours to remove"
    );
}

#[tokio::test]
async fn a_failed_build_tells_its_step_and_last_lines() {
    let Some(mut made) = Made::new() else { return };
    made.wanted.manifest.module.dockerfile = Some("Dockerfile".into());
    made.file(
        "Dockerfile",
        &format!("FROM {IMAGE}\nRUN echo this is why >&2; exit 7\n"),
    );
    let runtime = made.world.runtime();
    let failed = made.prepare(&runtime).await.unwrap_err();
    let Reason::Image { error, .. } = &failed.reason else {
        panic!("{failed:?}")
    };
    assert!(
        error.contains("step 2/") && error.contains("exit 7"),
        "{error}"
    );
    assert!(error.contains("non-zero code: 7"), "{error}");
    assert!(
        failed.last_lines.iter().any(|line| line == "this is why"),
        "{failed:?}"
    );
    // Tried again, but not at once.
    assert!(made.prepare(&runtime).await.unwrap_err().retry > failed.retry);
    made.wanted.manifest.module.dockerfile = Some("absent".into());
    let missing = made.prepare(&runtime).await.unwrap_err();
    assert!(
        missing.reason.to_string().contains("has no absent"),
        "{missing:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_pulled_is_told() {
    let Some(mut made) = Made::new() else { return };
    let runtime = made.world.runtime();
    made.wanted.manifest.module.image = Some(IMAGE.to_owned());
    assert_eq!(made.prepare(&runtime).await.unwrap(), IMAGE);
    made.wanted.manifest.module.image = Some("127.0.0.1:1/absent:1".to_owned());
    let failed = made.prepare(&runtime).await.unwrap_err();
    let text = failed.reason.to_string();
    assert!(
        text.contains("127.0.0.1:1/absent:1") && text.contains("refused"),
        "{text}"
    );
    made.wanted.manifest.module.image = None;
    made.wanted.manifest.module.preset = Some(Preset::Python);
    let failed = made.prepare(&runtime).await.unwrap_err();
    assert!(
        failed.reason.to_string().contains("no requirements.txt"),
        "{failed:?}"
    );
}

/// A registry on a loopback port.
struct Registry {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Registry {
    fn start() -> Option<Self> {
        let program = PathBuf::from("/usr/bin/docker-registry");
        if !program.exists() {
            skip("a registry of a test's own needs the package docker-registry");
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .unwrap()
            .port();
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            folder.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new(program)
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self {
            process,
            port,
            _folder: folder,
        };
        until("a registry", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_built_image_is_pushed_and_found_in_the_registry() {
    let Some(mut made) = Made::new() else { return };
    let Some(registry) = Registry::start() else {
        return;
    };
    let name = format!("127.0.0.1:{}/models", registry.port);
    made.world.config.registry = Some(name.clone());
    made.world.config.push = true;
    made.wanted.manifest.module.dockerfile = Some("Dockerfile".into());
    made.file(
        "Dockerfile",
        &format!("FROM {IMAGE}\nRUN head -c 8 /dev/urandom >/made\n"),
    );
    let runtime = made.world.runtime();
    let tag = made.prepare(&runtime).await.unwrap();
    let id = made.id(&runtime, &tag).await.unwrap();
    for image in [tag.clone(), format!("{name}/{tag}")] {
        made.forget(&runtime, &image).await;
        assert_eq!(made.id(&runtime, &image).await, None);
    }
    // As on another node.
    assert_eq!(made.prepare(&runtime).await.unwrap(), tag);
    assert_eq!(
        made.id(&runtime, &tag).await.unwrap(),
        id,
        "it was built again"
    );
    for image in [tag.clone(), format!("{name}/{tag}")] {
        made.forget(&runtime, &image).await;
    }
}
