//! What a relay counts, as a file of Prometheus' text format: for a textfile collector, and for the agent.

use std::fmt::Write;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use berth_model::relay::RelayStatistics;

/// File with the figures, in the runtime folder.
pub const FILE: &str = "metrics.prom";

type Field = fn(&mut RelayStatistics) -> &mut u64;

const OPEN: (&str, Field) = ("open_connections", |s| &mut s.open);

const COUNTERS: [(&str, Field); 9] = [
    ("connections_total", |s| &mut s.accepted),
    ("crowded_out_total", |s| &mut s.crowded_out),
    ("handshakes_refused_total", |s| &mut s.refused),
    ("handshakes_resumed_total", |s| &mut s.resumed),
    ("not_connected_total", |s| &mut s.not_connected),
    ("passed_on_total", |s| &mut s.passed_on),
    ("cut_off_total", |s| &mut s.cut_off),
    ("bytes_to_instances_total", |s| &mut s.to_instances_bytes),
    ("bytes_from_instances_total", |s| {
        &mut s.from_instances_bytes
    }),
];

const PREFIX: &str = "berth_relay_";

/// As text.
pub fn text(mut figures: RelayStatistics) -> String {
    let mut text = String::new();
    let counters = COUNTERS.into_iter().map(|counter| (counter, "counter"));
    for ((name, field), kind) in counters.chain([(OPEN, "gauge")]) {
        let value = *field(&mut figures);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# TYPE {PREFIX}{name} {kind}\n{PREFIX}{name} {value}");
    }
    text
}

/// From text; what is not said is zero, and what is not known is passed over.
pub fn parse(text: &str) -> RelayStatistics {
    let mut figures = RelayStatistics::default();
    for line in text.lines() {
        let sample = line.strip_prefix(PREFIX).and_then(|l| l.split_once(' '));
        let Some((name, value)) = sample else {
            continue;
        };
        let mut all = COUNTERS.into_iter().chain([OPEN]);
        let field = all.find(|(known, _)| *known == name);
        if let (Some((_, field)), Ok(value)) = (field, value.parse()) {
            *field(&mut figures) = value;
        }
    }
    figures
}

/// Replaces the file. Everybody may read it, whatever the process's umask says: it holds no secret, and collectors run as
/// users of their own.
pub(crate) fn write(runtime: &Path, text: &str) -> io::Result<()> {
    let path = runtime.join(FILE);
    let fresh = path.with_extension("prom.new");
    std::fs::write(&fresh, text)?;
    std::fs::set_permissions(&fresh, Permissions::from_mode(0o644))?;
    std::fs::rename(fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_reads_the_file() {
        let runtime = tempfile::tempdir().unwrap();
        // What a umask of 0077 leaves of it.
        let fresh = runtime.path().join("metrics.prom.new");
        std::fs::write(&fresh, "").unwrap();
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o600)).unwrap();
        write(runtime.path(), &text(RelayStatistics::default())).unwrap();
        let file = std::fs::metadata(runtime.path().join(FILE)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o644);
        assert!(!fresh.exists());
    }

    #[test]
    fn figures_read_as_they_were_written() {
        let figures = RelayStatistics {
            open: 1,
            accepted: 2,
            refused: 3,
            crowded_out: 4,
            resumed: 5,
            not_connected: 6,
            passed_on: 7,
            cut_off: 8,
            to_instances_bytes: 9,
            from_instances_bytes: u64::MAX,
        };
        let written = text(figures);
        assert_eq!(parse(&written), figures);
        for sample in written.lines().filter(|line| !line.starts_with('#')) {
            let name = sample.split(' ').next().unwrap();
            assert!(written.contains(&format!("# TYPE {name} ")), "{sample}");
        }
        let odd = "rubbish\nberth_relay_newer_total 1\nberth_relay_passed_on_total many\n\0\n";
        assert_eq!(parse(odd), RelayStatistics::default());
    }
}
