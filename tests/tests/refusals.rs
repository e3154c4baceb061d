//! What cannot be done is refused, or waits, with a reason that tells what to do.

use anyhow::Result;
use berth_tests::{Cluster, Mode, Options, until};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_model_is_refused_with_what_there_is() -> Result<()> {
    let cluster = Cluster::start(Options::nodes(0), MODULE).await?;
    cluster.push("echo", "1.0.0", Mode::Good)?;
    for model in ["ehco", "echo@9.9.9", "echo@#7"] {
        let output = cluster.cli(&["deploy", model])?;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("echo"), "{text}");
    }
    assert!(cluster.client.services().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_free_node_waits_and_says_what_to_do() -> Result<()> {
    let mut cluster = Cluster::start(Options::nodes(1), MODULE).await?;
    cluster.deploy("echo", Mode::Good, 1).await?;
    cluster.push("other", "1.0.0", Mode::Good)?;
    let output = cluster.cli(&["deploy", "other", "--wait", "--timeout", "3s"])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("taken (exclusive)") && text.contains("berth node token create"),
        "{text}"
    );
    // A node more, and it runs: nothing needs to be said again.
    cluster.add_node().await?;
    cluster.wait_ready("other", 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_that_is_not_what_its_digest_says_is_never_run() -> Result<()> {
    let cluster = Cluster::start(Options::nodes(1), MODULE).await?;
    cluster.push("echo", "1.0.0", Mode::Good)?;
    // The archive on the coordinator's disk is damaged behind its back.
    let blobs = cluster.home().join("coordinator/blobs");
    let mut damaged = 0;
    for folder in std::fs::read_dir(&blobs)?
        .flatten()
        .filter(|f| f.path().is_dir())
    {
        for blob in std::fs::read_dir(folder.path())?
            .flatten()
            .filter(|f| f.path().is_file())
        {
            let mut bytes = std::fs::read(blob.path())?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x55;
            let mut permissions = std::fs::metadata(blob.path())?.permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
            std::fs::set_permissions(blob.path(), permissions)?;
            std::fs::write(blob.path(), bytes)?;
            damaged += 1;
        }
    }
    assert!(damaged > 0, "no blob under {}", blobs.display());
    cluster.client.deploy("echo", Some(1)).await?;
    until("the damage to be named", || async {
        let view = cluster.client.service("echo").await?;
        let named = view.instances.iter().any(|i| {
            i.status
                .reason
                .as_ref()
                .is_some_and(|r| r.to_string().starts_with("package:"))
        });
        Ok((named && view.ready == 0, view))
    })
    .await
}
