//! Killing what a shim cannot end any more.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_shim::identity::{self, Signal};
use berth_shim::state::ProcessIdentity;

/// How long processes may take to die of SIGKILL: they may have much memory to give back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills every process that carries the marker of a start, until there is none. Errors: `/proc` cannot be
/// read, or some do not die (they hang in the kernel).
pub(in crate::runtime) fn kill_marked(instance: &str, start: u32, dir: &Path) -> io::Result<()> {
    // A folder that is gone has no canonical path, and no start that anybody wants.
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let patience = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(500);
    loop {
        let left = identity::find_by_marker(instance, start, &dir)?;
        if left.is_empty() {
            return Ok(());
        }
        for process in &left {
            // One that cannot be signalled must not save the others.
            let _ = identity::send_signal(*process, Signal::KILL);
        }
        if Instant::now() > patience {
            let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
            let text = format!("processes do not die of SIGKILL: {}", pids.join(", "));
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Kills a shim that does not answer, with all below it.
pub(super) fn kill_tree(shim: ProcessIdentity) -> io::Result<()> {
    // Stopped first, so that it starts nothing meanwhile; the tree before the shim, as afterwards it is
    // no tree any more.
    if !identity::send_signal(shim, Signal::STOP)? {
        return Ok(());
    }
    for process in identity::descendants(shim.pid)? {
        let _ = identity::send_signal(process.identity(), Signal::KILL);
    }
    identity::send_signal(shim, Signal::KILL).map(|_| ())
}
