//! Small texts for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_model::time::Timestamp;

/// Now.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long ago, in the largest unit that says something: `45s`, `12m`, `3h`, `9d`.
pub(crate) fn age(of: Timestamp, now: Timestamp) -> String {
    duration(of.age(now))
}

/// A length of time in one unit.
pub(crate) fn duration(d: Duration) -> String {
    match d.as_secs() {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7199 => format!("{}m", s / 60),
        s @ 7200..=172_799 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// Bytes in one unit with one decimal: `12.3 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n;
    let mut tenths = 0;
    let mut unit = "";
    for name in units {
        unit = name;
        tenths = (value % 1024) * 10 / 1024;
        value /= 1024;
        if value < 1024 {
            break;
        }
    }
    format!("{value}.{tenths} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(duration(Duration::from_secs(90)), "90s");
        assert_eq!(duration(Duration::from_secs(7200)), "2h");
    }
}
