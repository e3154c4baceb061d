//! `[network] egress` of a manifest as addresses.

use std::net::{IpAddr, ToSocketAddrs};

use crate::runtime::RuntimeError;

/// Addresses with a common beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Network {
    pub(super) address: IpAddr,
    /// How many bits they share.
    pub(super) bits: u8,
}

impl Network {
    fn one(address: IpAddr) -> Self {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Self { address, bits }
    }
}

/// The networks of a list; names are resolved now. Where a name is in it, the resolvers of `resolv_conf` are, too: whoever
/// may dial a name must be able to look it up. **Blocking** (asks the system's resolver).
pub(super) fn resolve(egress: &[String], resolv_conf: &str) -> Result<Vec<Network>, RuntimeError> {
    let mut found = Vec::new();
    let mut named = false;
    for entry in egress {
        let host = host(entry);
        match literal(host) {
            Some(networks) => found.extend(networks),
            None => {
                named = true;
                found.extend(look_up(entry, host)?);
            }
        }
    }
    if named {
        found.extend(resolvers(resolv_conf).map(Network::one));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// An entry without its port.
fn host(entry: &str) -> &str {
    match entry.rsplit_once(':') {
        Some((host, _)) if host.ends_with(']') || !host.contains(':') => host,
        _ => entry,
    }
}

/// What needs no look-up: everything, an address, addresses.
fn literal(host: &str) -> Option<Vec<Network>> {
    if host == "*" {
        let all = |address: &str| {
            address
                .parse()
                .ok()
                .map(|address| Network { address, bits: 0 })
        };
        return ["0.0.0.0", "::"].into_iter().map(all).collect();
    }
    let address = |text: &str| {
        let text = text.trim_start_matches('[').trim_end_matches(']');
        text.parse::<IpAddr>().ok()
    };
    let Some((first, bits)) = host.trim_end_matches(']').split_once('/') else {
        return address(host).map(|address| vec![Network::one(address)]);
    };
    let network = Network {
        address: address(first)?,
        bits: bits.trim_start_matches(']').parse().ok()?,
    };
    (network.bits <= Network::one(network.address).bits).then(|| vec![network])
}

fn look_up(entry: &str, host: &str) -> Result<Vec<Network>, RuntimeError> {
    let failed = |why: String| RuntimeError::Egress { why };
    if host.contains(['*', '/', '[']) {
        return Err(failed(format!(
            "{entry:?} of [network] egress is neither a name nor addresses that this node can filter by"
        )));
    }
    let addresses = (host, 0).to_socket_addrs().map_err(|error| {
        failed(format!(
            "{host} of [network] egress has no address here: {error}"
        ))
    })?;
    Ok(addresses
        .map(|address| Network::one(address.ip()))
        .collect())
}

/// The addresses that a `resolv.conf` names.
fn resolvers(resolv_conf: &str) -> impl Iterator<Item = IpAddr> {
    let lines = resolv_conf.lines();
    lines.filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(egress: &[&str]) -> Vec<String> {
        let egress: Vec<String> = egress.iter().map(ToString::to_string).collect();
        let found = resolve(&egress, "nameserver 10.1.1.1\n# x\nnameserver fd00::53\n").unwrap();
        let text = |network: &Network| format!("{}/{}", network.address, network.bits);
        found.iter().map(text).collect()
    }

    #[test]
    fn addresses_are_taken_as_they_are_and_ports_are_left_out() {
        assert_eq!(texts(&[]), [""; 0]);
        assert_eq!(
            texts(&["10.0.0.0/8", "10.9.0.1:80"]),
            ["10.0.0.0/8", "10.9.0.1/32"]
        );
        assert_eq!(
            texts(&["[fd00::1]:443", "fd00::1", "fd00::/16", "10.0.0.0/8:5432"]),
            ["10.0.0.0/8", "fd00::/16", "fd00::1/128"]
        );
        assert_eq!(texts(&["*"]), ["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn a_name_brings_its_addresses_and_the_resolvers() {
        let found = texts(&["localhost:5432"]);
        assert!(found.contains(&"127.0.0.1/32".to_owned()), "{found:?}");
        assert!(
            found.contains(&"10.1.1.1/32".to_owned()) && found.contains(&"fd00::53/128".to_owned())
        );
    }

    #[test]
    fn what_cannot_be_filtered_by_is_told() {
        for entry in ["*.example.com", "10.0.0.0/33", "a/b"] {
            let error = resolve(&[entry.to_owned()], "").unwrap_err().to_string();
            assert!(error.contains(entry), "{error}");
        }
    }
}
