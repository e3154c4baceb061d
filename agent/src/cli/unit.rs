//! The unit that runs the agent of a machine that has just joined.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

const UNIT: &str = "berth-agent.service";

/// Whether systemd runs this machine and knows the unit.
pub(super) fn is_installed() -> bool {
    Path::new("/run/systemd/system").is_dir()
        && Command::new("systemctl")
            .args(["show", "--property=LoadState", "--value", UNIT])
            .output()
            .is_ok_and(|output| output.stdout.trim_ascii() == b"loaded")
}

/// Has systemd run the agent, now and at every boot. Returns when the agent is ready.
pub(super) fn start() -> Result<()> {
    // The package has enabled it, unless somebody has disabled it since.
    if systemctl(&["--quiet", "is-enabled", UNIT]).is_err() {
        systemctl(&["--quiet", "enable", UNIT])?;
    }
    systemctl(&["restart", UNIT])
}

fn systemctl(args: &[&str]) -> Result<()> {
    let asked = format!("systemctl {}", args.join(" "));
    let output = Command::new("systemctl")
        .args(args)
        .output()
        .with_context(|| format!("cannot run {asked}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{asked}: {}; see journalctl -u {UNIT}", said.trim());
    }
    Ok(())
}
