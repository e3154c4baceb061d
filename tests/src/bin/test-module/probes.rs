//! Tries to break out, and says what it could do: a line `probe WHAT: yes` or `no` each.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::var;

/// What it tries, one after the other.
pub(crate) fn run() {
    let package = package();
    // DATA/packages/HEX
    let data = package.ancestors().nth(2).unwrap_or(Path::new("/"));
    let start = PathBuf::from(var("BERTH_SHIM_DIR"));
    let work = PathBuf::from(var("HOME"));
    let victims = |path: &str| data.join("instances/victim.1.0.1").join(path);
    let tries: [(&str, bool); 14] = [
        ("read its package", reads(&package.join("model/weights"))),
        ("write its folder", writes(&work.join("mine"))),
        (
            "write its package",
            writes(&package.join("model/weights")) || writes(&package.join("new")),
        ),
        ("write its state", writes(&start.join("state.json"))),
        ("write its log", writes(&start.join("logs/forged"))),
        ("read its spec", reads(&start.join("spec.json"))),
        ("end its shim", ends(std::os::unix::process::parent_id())),
        (
            "read the agent's key",
            reads(&data.join("identity/node.key")),
        ),
        ("read the ledger", reads(&data.join("ledger.json"))),
        (
            "look around in the data folder",
            // Its own folder is there, too, where a unit's sandbox shows it nothing else.
            data.join("instances").read_dir().is_ok_and(|all| {
                all.flatten()
                    .any(|one| one.file_name() != var("BERTH_INSTANCE").as_str())
            }),
        ),
        ("read another's file", reads(&victims("work/secret"))),
        ("read another's log", reads(&victims("starts/1/state.json"))),
        (
            "write to the system",
            writes(Path::new("/etc/berth-probe")) || writes(Path::new("/usr/berth-probe")),
        ),
        (
            "be root",
            status("Uid:").starts_with("0\t") || status("CapEff:") != "0000000000000000",
        ),
    ];
    for (what, could) in tries {
        println!("probe {what}: {}", if could { "yes" } else { "no" });
    }
    println!(
        "probe gain privileges: {}",
        if status("NoNewPrivs:") == "1" {
            "no"
        } else {
            "yes"
        }
    );
}

/// Leaves a file that is nobody else's business, as open as it can be.
pub(crate) fn secret() {
    let path = PathBuf::from(var("HOME")).join("secret");
    let _ = fs::write(&path, "secret");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let _ = fs::set_permissions(path, open);
}

/// The folder of the package: it is `bin/test-module` there.
fn package() -> PathBuf {
    let me = std::env::current_exe().unwrap_or_default();
    me.ancestors().nth(2).unwrap_or(Path::new("/")).to_owned()
}

fn reads(path: &Path) -> bool {
    fs::read(path).is_ok()
}

fn writes(path: &Path) -> bool {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(b"x")).is_ok()
}

fn ends(pid: u32) -> bool {
    let status = Command::new("/bin/sh")
        .args(["-c", &format!("kill -KILL {pid}")])
        .status();
    status.is_ok_and(|status| status.success())
}

/// A line of this process's status.
fn status(name: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim().to_owned()
}
