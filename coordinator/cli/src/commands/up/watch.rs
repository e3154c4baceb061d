//! Keeping a local Berth running until Ctrl-C.

use std::time::Duration;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use super::local::Local;
use super::process;
use super::record::Record;
use crate::progress::note;

const LOOK: Duration = Duration::from_millis(500);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(30);

/// Starts again what ends by itself, waiting longer each time, until SIGINT or SIGTERM, or until
/// somebody else ran `berth down`.
pub(super) async fn until_interrupted(local: &Local) -> Result<()> {
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let mut backoff = FIRST_BACKOFF;
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        let record = Record::read(local)?;
        if record.processes.is_empty() {
            return Ok(());
        }
        let Some((name, started)) = record
            .processes
            .iter()
            .find(|(name, _)| !record.runs(name))
            .map(|(n, s)| (n.clone(), s.clone()))
        else {
            continue;
        };
        note(&format!(
            "{name} has ended; starting it again in {} s (log/{name}.log tells why)",
            backoff.as_secs()
        ));
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            () = tokio::time::sleep(backoff) => {}
        }
        backoff = (backoff * 2).min(LAST_BACKOFF);
        let Ok(_lock) = local.lock() else { continue };
        let mut record = Record::read(local)?;
        if record.processes.contains_key(&name) && !record.runs(&name) {
            process::start(local, &mut record, &name, started.program, started.args)?;
        }
    }
}
