//! The ports of instances: chosen, kept, written down.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_model::id::InstanceId;
use berth_model::instance::{InstanceSpec, Reason};

use super::{Reconciler, task};
use crate::ledger::Ports;
use crate::modules::{MODULE_HOST, needs_module_port};
use crate::ports::{NoPort, PortRange, choose, ephemeral_range, is_free};

/// Chooses the ports of one instance.
pub(super) struct Chooser<'a> {
    /// Which may be given out.
    pub(super) range: PortRange,
    /// Where instances listen.
    pub(super) address: IpAddr,
    /// Those that others have.
    pub(super) leased: BTreeSet<u16>,
    /// The one given out last.
    pub(super) last: &'a mut Option<u16>,
}

impl Chooser<'_> {
    /// The ports that are held if they can still be listened on, else others.
    pub(super) fn choose(
        &mut self,
        module_too: bool,
        port: Option<u16>,
        module: Option<u16>,
    ) -> Result<Ports, NoPort> {
        let port = self.one(port, self.address)?;
        let module = module_too
            .then(|| self.one(module, MODULE_HOST))
            .transpose()?;
        Ok(Ports { port, module })
    }

    fn one(&mut self, held: Option<u16>, address: IpAddr) -> Result<u16, NoPort> {
        let held = held.filter(|port| !self.leased.contains(port) && is_free(address, *port));
        let port = match held {
            Some(port) => port,
            None => {
                let free = |port| is_free(address, port);
                let ephemeral = ephemeral_range();
                let port = choose(self.range, &self.leased, *self.last, ephemeral, free)?;
                *self.last = Some(port);
                port
            }
        };
        self.leased.insert(port);
        Ok(port)
    }
}

impl Reconciler {
    /// The instance's ports: those it has if they still can be listened on.
    pub(super) fn ports(&mut self, spec: &InstanceSpec) -> Result<Ports, Reason> {
        let mut chooser = Chooser {
            range: self.parts.ports,
            address: self.host(),
            leased: self.parts.ledger.ports(&spec.id),
            last: &mut self.last_port,
        };
        let local = self.local.get_mut(&spec.id);
        let held = local.as_ref().map(|local| (local.port, local.module_port));
        let (port, module) = held.unwrap_or_default();
        let ports = chooser
            .choose(needs_module_port(spec), port, module)
            .map_err(|error| Reason::Node {
                error: error.to_string(),
            })?;
        if let Some(local) = local {
            local.port = Some(ports.port);
            local.module_port = ports.module;
        }
        Ok(ports)
    }

    /// Writes down what this start was given. Of a first start all is on disk with the desired set.
    pub(super) async fn lease(
        &mut self,
        id: &InstanceId,
        start: u32,
        ports: Ports,
    ) -> Result<(), Reason> {
        let known = self.parts.ledger.leases().get(id);
        let local = self.local.get(id).cloned().unwrap_or_default();
        // That a task's only start begins is never forgotten, whatever happens.
        if start == 1 && local.task.is_none() && known.is_some_and(|lease| lease.holds(ports)) {
            return Ok(());
        }
        let change = |leases: &mut std::collections::BTreeMap<_, crate::ledger::Lease>| {
            let lease = leases.entry(id.clone()).or_default();
            lease.give(ports);
            lease.start = lease.start.max(start);
            lease.restarts = local.restarts;
            lease.streak = local.streak;
            lease.task = task::lease(&local);
            lease.ended = local.ended;
        };
        self.parts
            .ledger
            .lease(change)
            .await
            .map_err(|error| Reason::Node {
                error: crate::chain(&error),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_differ_and_are_kept_while_they_are_free() {
        let mut last = None;
        let mut chooser = |leased: &[u16], module, held, held_module| {
            let mut chooser = Chooser {
                range: "11210-11290".parse().unwrap(),
                address: MODULE_HOST,
                leased: leased.iter().copied().collect(),
                last: &mut last,
            };
            chooser.choose(module, held, held_module).unwrap()
        };
        let first = chooser(&[], true, None, None);
        let module = first.module.unwrap();
        assert_ne!(first.port, module);
        assert_eq!(chooser(&[], true, Some(first.port), Some(module)), first);
        assert_eq!(chooser(&[], false, Some(first.port), None).module, None);
        // Never the same twice, and none that another instance has.
        let again = chooser(&[], true, Some(first.port), Some(first.port));
        assert_ne!(again.module, Some(first.port));
        let other = chooser(&[first.port, module], true, Some(first.port), Some(module));
        assert!(other.port != first.port && other.module != Some(module));
    }
}
