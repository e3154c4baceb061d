//! Where other users cannot come to the data folder, modules stay root, and have little of it.

use crate::config::{IsolationConfig, LauncherChoice};
use crate::runtime::Runtime;
use crate::runtime::conformance::{self, lines, shell};
use crate::runtime::process::ProcessRuntime;

use super::{of_the_machine, tries};

/// What such a module said; `owner` has what is above the data folder.
async fn as_root(owner: u32) -> Option<Vec<String>> {
    if !rustix::process::geteuid().is_root() {
        berth_skipped::skip("isolation", "users and control groups need root");
        return None;
    }
    let closed = tempfile::tempdir().unwrap();
    let data = closed.path().canonicalize().unwrap().join("data");
    let work = data.join("instances/one/work");
    std::fs::create_dir_all(&work).unwrap();
    std::fs::write(data.join("key"), "agent's").unwrap();
    // As an earlier start left them that had a user.
    std::fs::write(work.join("file"), "x\n").unwrap();
    for path in [&work, &work.join("file")] {
        std::os::unix::fs::chown(path, Some(4712), Some(4712)).unwrap();
    }
    std::os::unix::fs::chown(closed.path(), Some(owner), Some(owner)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(closed.path(), mode).unwrap();
    let config = IsolationConfig {
        launcher: LauncherChoice::Fork,
        ..IsolationConfig::default()
    };
    let runtime = ProcessRuntime::isolated(conformance::shim(), &config, &data).unwrap();
    let told = runtime.isolation([127, 0, 0, 1].into()).unwrap().missing;
    assert!(
        told.iter().any(|told| told.starts_with("user: ")),
        "{told:?}"
    );
    let mut commands = of_the_machine();
    commands.push(format!("cat {}/key", data.display()));
    commands.push("test -w /etc && touch /etc/x".to_owned());
    let script = format!(
        "cd {} && echo y >> file && touch mine && cat file\n\
         grep CapEff /proc/self/status | cut -f 2\n{}",
        work.display(),
        tries(&commands)
    );
    let mut launch = shell(&data.join("instances/one/starts/1"), &script);
    launch.confinement.as_mut().unwrap().writable = vec![work];
    let handle = runtime.start(&launch).unwrap();
    runtime.ended(&handle).await;
    let mut said = lines(&handle);
    if runtime
        .isolation([127, 0, 0, 1].into())
        .unwrap()
        .enforced
        .contains(&"files".to_owned())
    {
        assert_eq!(said.split_off(3), vec!["no"; commands.len()]);
    }
    said.truncate(3);
    Some(said)
}

#[tokio::test]
async fn root_without_another_user_has_no_right_and_no_device() {
    let Some(said) = as_root(0).await else { return };
    assert_eq!(said, ["x", "y", "0000000000000000"]);
}

#[tokio::test]
async fn root_below_somebody_elses_folder_may_come_through_it_and_nothing_else() {
    let Some(said) = as_root(4711).await else {
        return;
    };
    // CAP_DAC_READ_SEARCH
    assert_eq!(said, ["x", "y", "0000000000000004"]);
}
