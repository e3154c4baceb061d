//! The ports that an agent gives to its instances.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::str::FromStr;

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self {
            first: 21_000,
            last: 21_999,
        }
    }
}

impl PortRange {
    /// Of a Pod, which has an address of its own: the first of them, nearly always.
    pub const fn of_pods() -> Self {
        Self {
            first: 8080,
            last: 8099,
        }
    }
}

/// A text that is not a range of ports.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of ports from 1024 on: write it as \"21000-21999\"")]
pub struct RangeError(String);

impl FromStr for PortRange {
    type Err = RangeError;
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let bad = || RangeError(text.to_owned());
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        let first = first.trim().parse().map_err(|_| bad())?;
        let last = last.trim().parse().map_err(|_| bad())?;
        if first < 1024 || first > last {
            return Err(bad());
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// No port can be given out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no free port in {range}: {leased} are leased to instances, the rest are held by other processes or \
     in the kernel's range for outgoing connections; set port_range in agent.toml"
)]
pub struct NoPort {
    range: PortRange,
    leased: usize,
}

/// The ports from which the kernel takes those of outgoing connections: an instance's port among
/// them could be gone at any moment. None where that cannot be read.
pub fn ephemeral_range() -> Option<(u16, u16)> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether a port can be listened on now.
pub fn is_free(address: IpAddr, port: u16) -> bool {
    TcpListener::bind(SocketAddr::new(address, port)).is_ok()
}

/// The first port of the range, from behind `after` on and around, that is not leased, not ephemeral,
/// and free. Going on behind the last one given out leaves a port alone for a while after its use.
pub fn choose(
    range: PortRange,
    leased: &BTreeSet<u16>,
    after: Option<u16>,
    ephemeral: Option<(u16, u16)>,
    free: impl Fn(u16) -> bool,
) -> Result<u16, NoPort> {
    let from = match after {
        Some(port) if port >= range.first && port < range.last => port + 1,
        _ => range.first,
    };
    let usable = |port: &u16| {
        !leased.contains(port)
            && ephemeral.is_none_or(|(low, high)| *port < low || *port > high)
            && free(*port)
    };
    (from..=range.last)
        .chain(range.first..from)
        .find(usable)
        .ok_or(NoPort {
            range,
            leased: leased.len(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_as_written() {
        assert_eq!("21000-21999".parse(), Ok(PortRange::default()));
        for bad in ["", "1-", "80-90", "3000-2000", "1024-70000", "x-y"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn leased_taken_and_ephemeral_ports_are_passed_over() {
        let range: PortRange = "3000-3004".parse().unwrap();
        let leased = BTreeSet::from([3000]);
        let go = |after, ephemeral| choose(range, &leased, after, ephemeral, |port| port != 3001);
        assert_eq!(go(None, None), Ok(3002));
        assert_eq!(go(Some(3002), None), Ok(3003));
        assert_eq!(go(Some(3004), None), Ok(3002));
        assert_eq!(go(Some(3003), Some((3004, 9999))), Ok(3002));
        let none = go(None, Some((1024, 9999))).unwrap_err();
        assert!(none.to_string().contains("3000-3004"), "{none}");
    }

    #[test]
    fn a_port_that_is_listened_on_is_not_free() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!is_free(address.ip(), address.port()));
    }
}
