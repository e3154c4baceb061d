//! Images: the manifest's own, or built from the package's Dockerfile or from the preset of its kind.
//!
//! An image holds what the module runs *with*; the package itself is mounted. What is built is tagged by the
//! package's digest and labelled with it in full, so that it is built once, shared by all instances and found again.

mod build;
mod collect;
mod context;
mod credentials;
mod recipe;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_model::digest::PackageDigest;
use berth_model::instance::{InstanceSpec, Reason};
use bollard::query_parameters::{CreateImageOptions, PushImageOptions, TagImageOptions};
use futures_util::TryStreamExt;
use tokio::sync::Semaphore;

use self::recipe::{Recipe, Source};
use super::daemon::{Daemon, PATIENCE};
use super::error::DaemonError;
use crate::config::DockerConfig;
use crate::runtime::{PrepareError, Preparing};

/// Longest time for pulling or pushing an image.
const TRANSFER: Duration = Duration::from_secs(3600);

/// Lines of what a build said that are reported.
const LAST_LINES: usize = 10;

/// Prepares images, and forgets them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Images {
    daemon: Daemon,
    config: Arc<DockerConfig>,
    /// What builds said, and when images were used last.
    folder: PathBuf,
    /// One at a time: a build takes the machine's full attention, and those who wait for the same image find it made.
    turn: Arc<Semaphore>,
    failures: Arc<Mutex<HashMap<PackageDigest, u32>>>,
}

/// Why there is no image.
#[derive(Debug)]
pub(super) struct Problem {
    /// What happened and what to do.
    pub(super) error: String,
    /// The end of what was said.
    pub(super) lines: Vec<String>,
    /// It may well be different in a moment.
    pub(super) passing: bool,
}

impl Problem {
    fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            lines: Vec::new(),
            passing: false,
        }
    }

    fn of(what: &str, error: &DaemonError) -> Self {
        Self {
            error: format!("{what}: {}", crate::chain(error)),
            lines: Vec::new(),
            passing: error.is_passing(),
        }
    }
}

impl Images {
    pub(super) fn new(daemon: Daemon, config: DockerConfig, data: &Path) -> Self {
        Self {
            daemon,
            config: Arc::new(config),
            folder: data.join("images"),
            turn: Arc::new(Semaphore::new(1)),
            failures: Arc::default(),
        }
    }

    /// See [`crate::runtime::Runtime::prepare`].
    pub(super) fn prepare(&self, wanted: &InstanceSpec, package: &Path) -> Preparing {
        let (images, wanted, package) = (self.clone(), wanted.clone(), package.to_owned());
        Box::pin(async move {
            let digest = wanted.digest;
            let source = Source::of(&wanted, &images.config);
            let name = source.name().to_owned();
            match images.have(source, &package).await {
                Ok(()) => {
                    images.failed(digest, false);
                    collect::touch(&images.folder, &name);
                    Ok(name)
                }
                Err(problem) => {
                    let failures = images.failed(digest, true);
                    let first = Duration::from_secs(if problem.passing { 2 } else { 30 });
                    let most = Duration::from_secs(if problem.passing { 60 } else { 600 });
                    let retry = first.saturating_mul(1 << failures.min(16)).min(most);
                    Err(PrepareError {
                        reason: Reason::Image {
                            image: name,
                            error: problem.error,
                        },
                        passing: problem.passing,
                        last_lines: problem.lines,
                        retry,
                    })
                }
            }
        })
    }

    /// How often it failed before.
    fn failed(&self, digest: PackageDigest, failed: bool) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if !failed {
            failures.remove(&digest);
            return 0;
        }
        let count = failures.entry(digest).or_default();
        *count += 1;
        *count - 1
    }

    /// Has the image here, whatever it takes.
    async fn have(&self, source: Source, package: &Path) -> Result<(), Problem> {
        if self.is_here(&source).await? {
            return Ok(());
        }
        // The semaphore is never closed; without a permit it would only be less orderly.
        let _turn = self.turn.clone().acquire_owned().await;
        if self.is_here(&source).await? {
            return Ok(());
        }
        match source {
            Source::Named(image) => self.pull(&image).await,
            Source::Built(recipe) => self.make(&recipe, package).await,
        }
    }

    async fn is_here(&self, source: &Source) -> Result<bool, Problem> {
        let labels = self.labels(source.name()).await?;
        Ok(labels.is_some_and(|labels| match source {
            Source::Named(_) => true,
            Source::Built(recipe) => recipe.made(&labels),
        }))
    }

    async fn make(&self, recipe: &Recipe, package: &Path) -> Result<(), Problem> {
        let remote = self
            .config
            .registry
            .as_ref()
            .map(|registry| format!("{registry}/{}", recipe.tag));
        if let Some(remote) = &remote
            && self.fetched(remote, recipe).await
        {
            return Ok(());
        }
        tracing::info!(image = recipe.tag, "building");
        build::build(&self.daemon, recipe, package, &self.folder).await?;
        if let Some(remote) = remote.filter(|_| self.config.push)
            && let Err(problem) = self.push(&recipe.tag, &remote).await
        {
            // It is here; that others will not find it is not this instance's problem.
            tracing::warn!(image = remote, error = problem.error, "cannot push");
        }
        Ok(())
    }

    /// Whether the registry had it.
    async fn fetched(&self, remote: &str, recipe: &Recipe) -> bool {
        if let Err(problem) = self.pull(remote).await {
            tracing::info!(image = remote, why = problem.error, "not in the registry");
            return false;
        }
        let labels = self.labels(remote).await.ok().flatten();
        labels.is_some_and(|labels| recipe.made(&labels))
            && self.tag(remote, &recipe.tag).await.is_ok()
    }

    /// The labels of an image; none if it is not here.
    async fn labels(&self, image: &str) -> Result<Option<HashMap<String, String>>, Problem> {
        let name = image.to_owned();
        let seen = self.daemon.call(PATIENCE, |docker| async move {
            docker.inspect_image(&name).await
        });
        match seen.await {
            Ok(seen) => Ok(Some(seen.config.and_then(|c| c.labels).unwrap_or_default())),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(Problem::of("cannot look for it", &error)),
        }
    }

    async fn pull(&self, image: &str) -> Result<(), Problem> {
        let credentials =
            credentials::of(self.config.credentials.as_deref(), image).map_err(Problem::new)?;
        let (repo, tag) = recipe::split(image);
        let options = CreateImageOptions {
            from_image: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
            ..CreateImageOptions::default()
        };
        let pulled = self.daemon.call(TRANSFER, |docker| async move {
            let news = docker.create_image(Some(options), None, credentials);
            news.try_for_each(|_| async { Ok(()) }).await
        });
        pulled.await.map_err(|error| {
            Problem::of(
                "it is not on this node and cannot be pulled (is its name right, is the registry reachable, are \
                 credentials needed? see [docker] in agent.toml)",
                &error,
            )
        })
    }

    async fn tag(&self, image: &str, name: &str) -> Result<(), Problem> {
        let (repo, tag) = recipe::split(name);
        let options = TagImageOptions {
            repo: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
        };
        let image = image.to_owned();
        let tagged = self.daemon.call(PATIENCE, |docker| async move {
            docker.tag_image(&image, Some(options)).await
        });
        tagged
            .await
            .map_err(|error| Problem::of("cannot tag it", &error))
    }

    async fn push(&self, local: &str, remote: &str) -> Result<(), Problem> {
        self.tag(local, remote).await?;
        let credentials =
            credentials::of(self.config.credentials.as_deref(), remote).map_err(Problem::new)?;
        let (repo, tag) = recipe::split(remote);
        let (repo, tag) = (repo.to_owned(), tag.to_owned());
        let pushed = self.daemon.call(TRANSFER, |docker| async move {
            let options = PushImageOptions {
                tag: Some(tag),
                ..PushImageOptions::default()
            };
            let news = docker.push_image(&repo, Some(options), credentials);
            news.try_for_each(|_| async { Ok(()) }).await
        });
        pushed
            .await
            .map_err(|error| Problem::of("cannot push it", &error))
    }

    /// See [`crate::runtime::Runtime::collect`].
    pub(super) fn collect(&self, used: &BTreeSet<PackageDigest>) {
        let (images, used) = (self.clone(), used.clone());
        self.daemon
            .spawn(async move { images.collect_now(&used).await });
    }

    /// Collects, and returns when that is done.
    pub(super) async fn collect_now(&self, used: &BTreeSet<PackageDigest>) {
        let budget = self.config.image_budget.0;
        // Not while one is being made.
        let _turn = self.turn.clone().acquire_owned().await;
        if let Err(error) = collect::collect(&self.daemon, &self.folder, used, budget).await {
            tracing::debug!(error = crate::chain(&error), "cannot collect images");
        }
    }
}
