//! What goes wrong with real containers while the daemon is well.

use std::sync::Arc;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptions;

use super::world::World;
use crate::runtime::conformance::{FOREVER, IMAGE, end, lines, nothing_is_left, shell, until};
use crate::runtime::docker::daemon::PATIENCE;
use crate::runtime::docker::{container, host, launch, sweep};
use crate::runtime::{Adopted, EndReason, Runtime};

#[tokio::test]
async fn want_of_memory_is_named_with_its_limit() {
    let Some(world) = World::new() else { return };
    let runtime: Arc<dyn Runtime> = Arc::new(world.runtime());
    let mut launch = shell(&world.dir(), "echo hungry; tail /dev/zero");
    let limit = 48 << 20;
    launch.container.as_mut().unwrap().resources.memory_bytes = limit;
    let handle = runtime.start(&launch).unwrap();
    let end = end(&runtime, &handle).await;
    let EndReason::OutOfMemory {
        process,
        limit: told,
        peak,
    } = end.reason
    else {
        panic!("{end:?}")
    };
    assert_eq!((process.as_str(), told), ("module", Some(limit)));
    assert!(peak.is_none_or(|peak| peak > limit / 2), "{peak:?}");
    assert_eq!(lines(&handle), ["hungry"]);
}

#[tokio::test]
async fn another_agent_adopts_the_same_container_and_no_line_is_lost() {
    let Some(world) = World::new() else { return };
    let count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.005; done";
    let handle = {
        let runtime = world.runtime();
        runtime.start(&shell(&world.dir(), count)).unwrap()
    };
    until("lines", || lines(&handle).len() > 20);
    // As if the agent had died before it could write down who the shim is.
    std::fs::write(handle.dir.join(host::SUPERVISOR_FILE), "").unwrap();
    let runtime: Arc<dyn Runtime> = Arc::new(world.runtime());
    let Adopted::Running(adopted) = runtime.adopt(&world.dir()).unwrap() else {
        panic!("not running")
    };
    assert_eq!(adopted, handle);
    let before = lines(&handle).len();
    until("more lines", || lines(&handle).len() > before + 20);
    runtime.stop(&adopted).unwrap();
    assert_eq!(end(&runtime, &adopted).await.reason, EndReason::Stopped);
    let lines = lines(&handle);
    let expected: Vec<String> = (1..=lines.len()).map(|n| n.to_string()).collect();
    assert_eq!(lines, expected);
    nothing_is_left(&handle);
}

#[tokio::test]
async fn a_module_has_no_rights_and_cannot_change_what_the_agent_believes() {
    let Some(world) = World::new() else { return };
    let runtime: Arc<dyn Runtime> = Arc::new(world.runtime());
    let script = "id -u; cat /proc/self/status | while read k v; do \
                  case $k in CapEff:|NoNewPrivs:) echo $k $v;; esac; done; \
                  touch /x 2>/dev/null || echo root is read-only; \
                  touch /berth/package/x 2>/dev/null || echo package is read-only; \
                  echo no >$BERTH_SHIM_DIR/runtime.json; rm -f $BERTH_SHIM_DIR/supervisor.json; \
                  touch /tmp/x && echo tmp";
    let handle = runtime.start(&shell(&world.dir(), script)).unwrap();
    let marker = handle.dir.join(crate::runtime::marker::MARKER_FILE);
    end(&runtime, &handle).await;
    let expected = [
        "65532",
        "CapEff: 0000000000000000",
        "NoNewPrivs: 1",
        "root is read-only",
        "package is read-only",
        "tmp",
    ];
    if rustix::process::geteuid().is_root() {
        assert_eq!(lines(&handle), expected);
    } else {
        assert_eq!(lines(&handle)[1..], expected[1..]);
    }
    assert!(std::fs::read_to_string(marker).unwrap().contains("docker"));
    assert!(handle.dir.join(host::SUPERVISOR_FILE).exists());
}

#[tokio::test]
async fn what_nobody_wants_is_removed_and_nothing_else_is_touched() {
    let Some(world) = World::new() else { return };
    let runtime = world.runtime();
    let handle = runtime.start(&shell(&world.dir(), FOREVER)).unwrap();
    let name = container::name(&handle.instance, handle.start, &handle.dir);
    // Somebody else's, in no relation to any agent.
    let stranger = format!("stranger-{}", &name[name.len() - 8..]);
    let options = CreateContainerOptions {
        name: Some(stranger.clone()),
        ..CreateContainerOptions::default()
    };
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(vec!["/bin/sh".to_owned()]),
        ..ContainerCreateBody::default()
    };
    let daemon = runtime.daemon.clone();
    daemon
        .call(PATIENCE, |docker| async move {
            docker.create_container(Some(options), body).await
        })
        .await
        .unwrap();
    let data = world.data();
    assert_eq!(sweep::sweep(&daemon, &data, false).await.unwrap(), 0);
    assert!(runtime.inspect(&name).is_ok());
    std::fs::remove_dir_all(&handle.dir).unwrap();
    sweep::sweep(&daemon, &data, false).await.unwrap();
    until("its end", || {
        runtime
            .inspect(&name)
            .is_err_and(|error| error.is_missing())
    });
    nothing_is_left(&handle);
    assert!(runtime.inspect(&stranger).is_ok());
    launch::remove(&daemon, &stranger).unwrap();
}

#[tokio::test]
async fn a_container_that_is_stopped_by_others_is_told_and_an_image_that_is_gone_too() {
    let Some(world) = World::new() else { return };
    let runtime: Arc<dyn Runtime> = Arc::new(world.runtime());
    let handle = runtime.start(&shell(&world.dir(), FOREVER)).unwrap();
    let name = container::name(&handle.instance, handle.start, &handle.dir);
    let daemon = world.runtime().daemon;
    let options = None::<bollard::query_parameters::StopContainerOptions>;
    daemon
        .call(PATIENCE, |docker| async move {
            docker.stop_container(&name, options).await
        })
        .await
        .unwrap();
    let end = end(&runtime, &handle).await;
    assert!(matches!(end.reason, EndReason::Outside { .. }), "{end:?}");
    let mut other = shell(&world.data().join("other"), FOREVER);
    other.container.as_mut().unwrap().image = "berth-absent:1".to_owned();
    let error = runtime.start(&other).unwrap_err();
    assert!(
        matches!(error, crate::runtime::RuntimeError::ImageGone { .. }),
        "{error:?}"
    );
}
