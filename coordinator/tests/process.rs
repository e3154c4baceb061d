//! The program itself: its files, its signals, its subcommands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_berth-coordinator");
const LONG: Duration = Duration::from_secs(30);

/// A running program; killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdin(Stdio::null());
    command
}

/// Starts it and waits until it serves.
fn start(data: &Path) -> (Process, String) {
    let endpoint = data.join("endpoint");
    let _ = std::fs::remove_file(&endpoint);
    let mut process = Process(command(data).stderr(Stdio::null()).spawn().unwrap());
    let until = Instant::now() + LONG;
    loop {
        if let Ok(text) = std::fs::read_to_string(&endpoint) {
            return (process, text.trim().to_owned());
        }
        assert!(process.0.try_wait().unwrap().is_none(), "it ended");
        assert!(Instant::now() < until, "it does not serve");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(process: &mut Process, signal: Signal) -> std::process::ExitStatus {
    let pid = Pid::from_raw(i32::try_from(process.0.id()).unwrap());
    kill(pid, signal).unwrap();
    process.0.wait().unwrap()
}

fn task(data: &Path, words: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("--data")
        .arg(data)
        .args(words)
        .output()
        .unwrap()
}

#[test]
fn it_writes_where_it_listens_and_ends_in_order_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (mut process, address) = start(&data);
    std::net::TcpStream::connect(&address).unwrap();
    for name in [
        "ca.key",
        "admin.token",
        "gateway.token",
        "metrics.token",
        "server.key",
    ] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(data.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // The folder is its own while it runs.
    let second = command(&data).output().unwrap();
    assert!(!second.status.success());
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(words.contains("another berth-coordinator"), "{words}");
    assert!(signal(&mut process, Signal::SIGTERM).success());
    std::net::TcpStream::connect(&address).unwrap_err();
}

#[test]
fn a_backup_is_made_while_it_runs_and_restored_when_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("backup"));
    let (mut process, _) = start(&data);
    let path = file.to_str().unwrap();
    let made = task(&data, &["backup", path]);
    assert!(made.status.success(), "{made:?}");
    let refused = task(&data, &["restore", path]);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(signal(&mut process, Signal::SIGINT).success());
    let restored = task(&data, &["restore", path]);
    assert!(restored.status.success(), "{restored:?}");
    let (mut process, _) = start(&data);
    assert!(signal(&mut process, Signal::SIGTERM).success());
}

#[test]
fn configuration_mistakes_are_all_told_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("c.toml"));
    std::fs::write(&file, "nodelease = \"5s\"\nheartbeat = 5\n").unwrap();
    for role in ["control", "gateway"] {
        let config = file.to_str().unwrap();
        let output = task(&data, &["--config", config, "--role", role]);
        assert_eq!(output.status.code(), Some(1));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words.contains("c.toml:1: nodelease: unknown"), "{words}");
        assert!(words.contains("c.toml:2: heartbeat"), "{words}");
    }
    assert!(!data.exists());
    let output = task(&data, &["--config", "/no/such/file.toml"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/file.toml"));
}

#[test]
fn a_gateway_serves_with_no_coordinator_to_be_found() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("gateway");
    let mut process = Process(
        command(&data)
            .args(["--role", "gateway", "--admin-listen", "127.0.0.1:0"])
            .args(["--endpoint", "127.0.0.1:1", "--ca-file", "/nonexistent"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let until = Instant::now() + LONG;
    while !data.join("gateway-admin-endpoint").exists() {
        assert!(Instant::now() < until, "it does not serve");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(signal(&mut process, Signal::SIGTERM).success());
}
