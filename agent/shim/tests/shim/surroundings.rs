//! What a process finds around itself.

use std::process::Command;

use berth_logfile::Stream;
use berth_shim::spec::Spec;

use crate::harness::{Log, Start, command, script, spec};

fn output(spec: &Spec) -> Vec<String> {
    let mut start = Start::new(spec);
    start.ended();
    start.log().texts(Stream::Stdout)
}

#[test]
fn the_environment_is_the_specs() {
    let mut module = command("module", &["/usr/bin/env"]);
    module.env.insert("PORT".into(), "21000".into());
    module.env.insert("PATH".into(), "/bin".into());
    let mut start = Start::new(&spec(vec![module]));
    start.ended();
    let mut lines = start.log().texts(Stream::Stdout);
    lines.sort();
    let dir = format!("BERTH_SHIM_DIR={}", start.dir.display());
    assert_eq!(
        lines,
        [
            "BERTH_SHIM=shim-test.1.0.1/1",
            &dir,
            "PATH=/bin",
            "PORT=21000"
        ]
    );
}

#[test]
fn each_process_leads_a_session() {
    let lines = output(&spec(vec![command(
        "module",
        &["cut", "-d ", "-f1,5,6", "/proc/self/stat"],
    )]));
    let numbers: Vec<&str> = lines[0].split(' ').collect();
    assert!(
        numbers[0] == numbers[1] && numbers[1] == numbers[2],
        "{lines:?}"
    );
}

#[test]
fn nothing_of_the_launcher_is_inherited() {
    let dir = tempfile::tempdir().unwrap();
    let mut launcher = Command::new("sh");
    let launch =
        "trap '' HUP USR2 PIPE QUIT; exec 7</dev/null 9>/dev/null; exec \"$0\" run --dir \"$1\"";
    launcher
        .args(["-c", launch, env!("CARGO_BIN_EXE_berth-shim")])
        .arg(dir.path());
    let files = command("files", &["ls", "/proc/self/fd"]);
    let signals = command(
        "signals",
        &["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"],
    );
    let stdin = command("stdin", &["readlink", "/proc/self/fd/0"]);
    let mut processes = vec![files, signals, stdin, script("wait", "sleep 600")];
    for process in &mut processes[..3] {
        process.primary = false;
    }
    let mut start = Start::by(launcher, dir.path(), &spec(processes));
    crate::harness::until("all output", || {
        (start.log().lines.len() >= 7).then_some(())
    });
    start.signal(berth_shim::identity::Signal::TERM);
    start.ended();
    let log = start.log();
    let of = |process: u8| -> Vec<String> {
        let lines = log.lines.iter().filter(|line| line.process == process);
        lines
            .map(|line| String::from_utf8_lossy(&line.text).into_owned())
            .collect()
    };
    // The fourth is the listing's own.
    assert_eq!(of(0), ["0", "1", "2", "3"]);
    // Signals 32 and 33 are the C library's own, and nobody else's to set.
    let mask = |line: &String| u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
    let masks: Vec<u64> = of(1).iter().map(|line| mask(line) & !(3 << 31)).collect();
    assert_eq!(masks, [0, 0]);
    assert_eq!(of(2), ["/dev/null"]);
}

#[test]
fn names_of_processes_stand_in_the_log() {
    let mut start = Start::new(&spec(vec![
        script("module", "echo a"),
        script("transform", "sleep 600"),
    ]));
    start.ended();
    let names: Vec<String> = Log::read(&start.dir).names.into_values().collect();
    assert_eq!(names, ["module", "transform"]);
}

#[test]
fn usage_and_version() {
    let shim = || Command::new(env!("CARGO_BIN_EXE_berth-shim"));
    let version = shim().arg("version").output().unwrap();
    assert_eq!(
        version.stdout,
        concat!("berth-shim ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()
    );
    assert_eq!(shim().output().unwrap().status.code(), Some(2));
    let missing = shim()
        .args(["run", "--dir", "/no/such/folder"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).starts_with("berth-shim: "));
}
