//! Modules that misbehave end in a named state, say why, and leave no process behind.

use anyhow::Result;
use berth_model::api::ServiceView;
use berth_tests::{Cluster, Mode, Options, pids_with, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

async fn misbehave(
    mode: Mode,
    seen: impl Fn(&ServiceView) -> bool,
) -> Result<(Cluster, ServiceView)> {
    let cluster = Cluster::start(Options::nodes(1), MODULE).await?;
    cluster.push("echo", "1.0.0", mode)?;
    cluster.client.deploy("echo", Some(1)).await?;
    until(&format!("{mode:?} to be named"), || async {
        let view = cluster.client.service("echo").await?;
        Ok((seen(&view), view))
    })
    .await?;
    let view = cluster.client.service("echo").await?;
    Ok((cluster, view))
}

/// Deleting it ends everything that it started.
async fn delete_leaves_nothing(cluster: &Cluster) -> Result<()> {
    cluster.client.delete("echo").await?;
    let home = cluster.home().to_string_lossy().into_owned();
    until("no process to be left", || async {
        let services = cluster.client.services().await?;
        let left = pids_with(&home);
        Ok((services.is_empty() && left.is_empty(), (services, left)))
    })
    .await
}

fn reason(view: &ServiceView) -> String {
    let of_instances = view
        .instances
        .iter()
        .filter_map(|i| i.status.reason.as_ref())
        .map(ToString::to_string);
    of_instances.collect::<Vec<_>>().join("; ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exits_at_once() -> Result<()> {
    let seen = |view: &ServiceView| reason(view).contains("exited with code 3");
    let (cluster, _) = misbehave(Mode::Exit, seen).await?;
    let shown = cluster.cli(&["service", "show", "echo"])?;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        text.contains("code 3") && text.contains("cannot find my weights"),
        "{text}"
    );
    delete_leaves_nothing(&cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_gets_healthy() -> Result<()> {
    let seen = |view: &ServiceView| reason(view).contains("not healthy within 2s");
    let (cluster, _) = misbehave(Mode::NeverHealthy, seen).await?;
    delete_leaves_nothing(&cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listens_on_the_wrong_port() -> Result<()> {
    let seen = |view: &ServiceView| reason(view).contains("not on $PORT");
    let (cluster, _) = misbehave(Mode::WrongPort, seen).await?;
    delete_leaves_nothing(&cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignores_sigterm() -> Result<()> {
    let (cluster, _) = misbehave(Mode::IgnoreTerm, |view| view.ready == 1).await?;
    delete_leaves_nothing(&cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn double_forks() -> Result<()> {
    let (cluster, _) = misbehave(Mode::DoubleFork, |view| view.ready == 1).await?;
    delete_leaves_nothing(&cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_its_log() -> Result<()> {
    let (cluster, _) = misbehave(Mode::Flood, |view| view.ready == 1).await?;
    // It is never blocked by its logging: it goes on answering.
    for n in 0..20 {
        let (status, _, body) = cluster.client.predict("echo", n).await?;
        assert!(status.is_success(), "{body}");
    }
    delete_leaves_nothing(&cluster).await
}
