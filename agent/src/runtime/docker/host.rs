//! Who a container's shim is on this machine. What it says of itself is true in its own pid namespace only.
//!
//! The kernel is the same for both sides, so the start time that the shim read of itself is that of the process as
//! the machine sees it: pid, start time and boot id are an identity here as everywhere.

use std::io;
use std::path::Path;

use berth_shim::identity;
use berth_shim::state::{ProcessIdentity, State};
use serde::{Deserialize, Serialize};

/// File in a start folder, read-only in the container: who the shim is on the machine.
pub(super) const SUPERVISOR_FILE: &str = "supervisor.json";

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    boot_id: String,
    shim: ProcessIdentity,
}

/// Remembers who the shim is. In place, as the file is mounted into the container; without it the process is looked
/// for.
pub(super) fn remember(dir: &Path, state: &State, shim: ProcessIdentity) -> io::Result<()> {
    let known = Known {
        boot_id: state.boot_id.clone(),
        shim,
    };
    std::fs::write(dir.join(SUPERVISOR_FILE), serde_json::to_vec(&known)?)
}

/// Who the shim of a state is on this machine, if it runs.
pub(super) fn find(dir: &Path, state: &State) -> io::Result<Option<ProcessIdentity>> {
    if identity::boot_id()? != state.boot_id {
        return Ok(None);
    }
    let known = std::fs::read(dir.join(SUPERVISOR_FILE)).ok();
    let known: Option<Known> = known.and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(known) = known.filter(|known| known.boot_id == state.boot_id) {
        let alive = identity::is_alive(known.shim, &known.boot_id)?;
        return Ok(alive.then_some(known.shim));
    }
    // The last agent died before it could write that down.
    let found = identity::all()?.into_iter().find(|process| {
        process.start_ticks == state.shim.start_ticks
            && !process.is_zombie()
            && inner_pid(process.pid) == Some(state.shim.pid)
            && runs(process.pid, dir)
    });
    Ok(found.map(|process| process.identity()))
}

/// The pid of a process in its innermost namespace.
pub(super) fn inner_pid(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// Whether a process is the shim of a start folder.
fn runs(pid: u32, dir: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .any(|argument| argument == dir.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_of_containers_a_process_has_one_pid() {
        let me = std::process::id();
        assert_eq!(inner_pid(me), Some(me));
        assert_eq!(inner_pid(u32::MAX), None);
    }
}
