//! Modules are kept from each other and from the node where no systemd does it.

use anyhow::Result;
use berth_tests::{Cluster, Options, isolation, skip};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_is_forked_cannot_break_out() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return skip("isolation", "users and control groups need root");
    }
    let options = Options {
        agent: "exclusive = false\n[isolation]\nlauncher = \"fork\"\n".to_owned(),
        ..Options::nodes(1)
    };
    let cluster = Cluster::start(options, env!("CARGO_BIN_EXE_test-module")).await?;
    isolation::nothing_breaks_out(&cluster).await?;
    let node = cluster.cli_text(&["node", "show", "node-1"])?;
    assert!(node.contains("isolation  fork: privileges, user"), "{node}");
    assert!(node.contains("not egress: "), "{node}");
    let memory = cluster.client.nodes().await?.into_iter().any(|node| {
        let isolation = node.facts.isolation.unwrap_or_default();
        isolation.enforced.iter().any(|what| what == "memory")
    });
    match memory {
        true => isolation::too_much_memory_is_told(&cluster).await,
        false => skip("isolation of memory", "no control groups can be made here"),
    }
}
