//! What a relay counts, as a file of Prometheus' text format (for a textfile collector).

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// File with the figures, in the runtime folder.
pub(crate) const FILE: &str = "metrics.prom";

#[derive(Default)]
pub(crate) struct Metrics {
    /// Connections that came.
    pub(crate) accepted: AtomicU64,
    /// Closed at once, because too many handshakes were under way.
    pub(crate) crowded: AtomicU64,
    /// Handshakes that failed: strangers, mostly.
    pub(crate) refused: AtomicU64,
    /// Handshakes that resumed a session.
    pub(crate) resumed: AtomicU64,
    /// Callers that asked for what is not there, or does not answer.
    pub(crate) failed: AtomicU64,
    /// Connections passed on.
    pub(crate) passed: AtomicU64,
    /// Cut off: the caller or the instance was taken from the table.
    pub(crate) cut: AtomicU64,
    /// Bytes to instances and from them.
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

impl Metrics {
    /// One more.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Prometheus' text format.
    pub(crate) fn text(&self, open: usize) -> String {
        let counters = [
            ("connections_total", &self.accepted),
            ("crowded_out_total", &self.crowded),
            ("handshakes_refused_total", &self.refused),
            ("handshakes_resumed_total", &self.resumed),
            ("not_connected_total", &self.failed),
            ("passed_on_total", &self.passed),
            ("cut_off_total", &self.cut),
            ("bytes_to_instances_total", &self.bytes_in),
            ("bytes_from_instances_total", &self.bytes_out),
        ];
        let mut text = String::new();
        for (name, counter) in counters {
            let value = counter.load(Ordering::Relaxed);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# TYPE berth_relay_{name} counter\nberth_relay_{name} {value}"
            );
        }
        let _ = writeln!(
            text,
            "# TYPE berth_relay_open_connections gauge\nberth_relay_open_connections {open}"
        );
        text
    }
}

/// Replaces the file of figures.
pub(crate) fn write(runtime: &Path, text: &str) -> io::Result<()> {
    let path = runtime.join(FILE);
    let fresh = path.with_extension("prom.new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(fresh, path)
}
