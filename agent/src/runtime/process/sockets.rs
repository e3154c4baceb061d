//! Who listens: the kernel's tables of TCP sockets, and the processes that hold them.
//!
//! A health check that is answered says nothing about *who* answered. A port is an instance's only if the
//! socket to which its address leads is held by one of its processes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use berth_shim::identity;

use crate::runtime::PortOwner;

/// A listening TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listener {
    address: IpAddr,
    port: u16,
    inode: u64,
}

impl Listener {
    /// How well it fits connections to an address; the best fit gets them. None: it never does.
    fn fit(&self, to: IpAddr) -> Option<u8> {
        match self.address.to_canonical() {
            own if own == to => Some(2),
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) if to.is_ipv4() => Some(1),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some(0),
            _ => None,
        }
    }
}

/// Where a connection to an address leads: that to none in particular to this machine.
fn destination(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

/// Who gets connections to an address, as seen by the processes in `tree`.
pub(in crate::runtime) fn owner(at: SocketAddr, tree: &[u32]) -> io::Result<PortOwner> {
    let mut inodes = best(&listeners()?, at);
    if inodes.is_empty() {
        return Ok(PortOwner::Nobody);
    }
    for pid in tree {
        for inode in sockets_of(*pid) {
            inodes.remove(&inode);
        }
    }
    if inodes.is_empty() {
        return Ok(PortOwner::Instance);
    }
    // Somebody else's, or somebody else's too. One that closed it meanwhile is found by nobody.
    let mut everybody = identity::all()?.into_iter().map(|process| process.pid);
    let pid = everybody.find(|pid| sockets_of(*pid).any(|inode| inodes.contains(&inode)));
    Ok(PortOwner::Other { pid })
}

/// The ports on which the processes in `tree` listen.
pub(in crate::runtime) fn ports(tree: &[u32]) -> io::Result<Vec<u16>> {
    let held: BTreeSet<u64> = tree.iter().flat_map(|pid| sockets_of(*pid)).collect();
    let mine = listeners()?
        .into_iter()
        .filter(|listener| held.contains(&listener.inode));
    let ports: BTreeSet<u16> = mine.map(|listener| listener.port).collect();
    Ok(ports.into_iter().collect())
}

/// The sockets among which the kernel chooses for a connection to an address.
fn best(listeners: &[Listener], at: SocketAddr) -> BTreeSet<u64> {
    let to = destination(at.ip());
    let fitting = || listeners.iter().filter(|l| l.port == at.port());
    let best = fitting().filter_map(|listener| listener.fit(to)).max();
    let chosen = fitting().filter(|listener| best.is_some() && listener.fit(to) == best);
    chosen.map(|listener| listener.inode).collect()
}

/// The sockets that a process holds; none of one that is gone or may not be seen.
fn sockets_of(pid: u32) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    entries.filter_map(|entry| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        let inode = target
            .to_str()?
            .strip_prefix("socket:[")?
            .strip_suffix(']')?;
        inode.parse().ok()
    })
}

fn listeners() -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match File::open(table) {
            Ok(file) => read_table(BufReader::new(file), &mut found)?,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Reads a table up to the last listener: the kernel lists them before all connections, of which there
/// may be very many.
fn read_table(table: impl BufRead, found: &mut Vec<Listener>) -> io::Result<()> {
    for line in table.lines().skip(1) {
        let line = line?;
        let mut fields = line.split_ascii_whitespace();
        let (local, state) = (fields.nth(1), fields.nth(1));
        if state != Some("0A") {
            break;
        }
        let inode = fields.nth(5).and_then(|inode| inode.parse().ok());
        if let (Some((address, port)), Some(inode)) = (local.and_then(endpoint), inode) {
            found.push(Listener {
                address,
                port,
                inode,
            });
        }
    }
    Ok(())
}

/// An address as `/proc/net/tcp` writes it: words of 32 bits in the machine's byte order, in hexadecimal.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let address = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn tables_are_read_up_to_the_last_listener() {
        let v4 = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:5208 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0        0 4711 1 0 100 0 0 10 0\n\
            \x20  1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0        0 4712 1 0\n\
            \x20  2: 0100007F:5208 0100007F:8000 01 00000000:00000000 00:00000000 00000000  0        0 4713 1 0\n\
            \x20  3: 00000000:0017 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0        0 4714 1 0\n";
        let v6 = "header\n   0: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A \
            00000000:00000000 00:00000000 00000000  0        0 99 1 0\nrubbish\n";
        let mut found = Vec::new();
        read_table(v4.as_bytes(), &mut found).unwrap();
        read_table(v6.as_bytes(), &mut found).unwrap();
        let listener = |address: &str, port, inode| Listener {
            address: address.parse().unwrap(),
            port,
            inode,
        };
        let expected = [
            listener("127.0.0.1", 21000, 4711),
            listener("0.0.0.0", 22, 4712),
            listener("::ffff:127.0.0.1", 8080, 99),
        ];
        assert_eq!(found, expected);
        assert_eq!(found[2].fit(Ipv4Addr::LOCALHOST.into()), Some(2));
    }

    #[test]
    fn the_socket_that_gets_the_connections_decides() {
        let listener = |address: &str, inode| Listener {
            address: address.parse().unwrap(),
            port: 80,
            inode,
        };
        let all = [
            listener("0.0.0.0", 1),
            listener("::", 2),
            listener("127.0.0.1", 3),
            listener("::1", 4),
            listener("10.0.0.1", 5),
            listener("127.0.0.1", 6),
        ];
        let best = |from: &[Listener], at: &str| best(from, at.parse().unwrap());
        assert_eq!(best(&all, "127.0.0.1:80"), BTreeSet::from([3, 6]));
        assert_eq!(best(&all, "0.0.0.0:80"), BTreeSet::from([3, 6]));
        assert_eq!(best(&all[..2], "127.0.0.1:80"), BTreeSet::from([1]));
        assert_eq!(best(&all[1..2], "127.0.0.1:80"), BTreeSet::from([2]));
        assert_eq!(best(&all[3..5], "127.0.0.1:80"), BTreeSet::new());
        assert_eq!(best(&all, "127.0.0.1:81"), BTreeSet::new());
        // Where a module is told another address than loopback, only that counts.
        assert_eq!(best(&all, "10.0.0.1:80"), BTreeSet::from([5]));
        assert_eq!(best(&all, "10.0.0.2:80"), BTreeSet::from([1]));
        assert_eq!(best(&all[2..], "10.0.0.2:80"), BTreeSet::new());
        assert_eq!(best(&all, "[::1]:80"), BTreeSet::from([4]));
        assert_eq!(best(&all[..3], "[::1]:80"), BTreeSet::from([2]));
    }

    #[test]
    fn this_process_is_seen_and_told_from_others() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let port = at.port();
        let me = std::process::id();
        assert_eq!(owner(at, &[me]).unwrap(), PortOwner::Instance);
        assert_eq!(owner(at, &[]).unwrap(), PortOwner::Other { pid: Some(me) });
        assert!(ports(&[me]).unwrap().contains(&port));
        drop(socket);
        // A child that another test is just forking may hold it until it executes something.
        while owner(at, &[me]).unwrap() != PortOwner::Nobody {
            std::thread::yield_now();
        }
        let elsewhere = TcpListener::bind(("::1", port));
        if elsewhere.is_ok() {
            assert_eq!(owner(at, &[me]).unwrap(), PortOwner::Nobody);
        }
    }
}
