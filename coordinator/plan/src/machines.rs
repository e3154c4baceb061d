//! What every node has left, and the nodes in the orders in which they are searched.
//!
//! A node's [`Profile`] is everything that rejects it whatever room it has; nodes of one profile are judged
//! together. Of its labels only those count that something asks for, or every host name would be a profile.
//! What is left of a node is its [`Room`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::digest::PackageDigest;
use berth_model::id::NodeName;
use berth_model::node::RuntimeKind;
use berth_model::resources::Resources;

use crate::chooser::Holders;
use crate::layout::{Entry, Layout, Measure};
use crate::reject::{self, Rejection, Rejections};
use crate::{Needs, NodeSeen, Session};

/// Whether a node can be used at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Its agent is there.
    #[default]
    Ready,
    /// Its agent is not.
    Away,
    /// Its lease is over.
    Lost,
}

/// What nodes have in common that are accepted or rejected together.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Profile {
    pub(crate) standing: Standing,
    pub(crate) cordoned: bool,
    pub(crate) disk_full: bool,
    pub(crate) exclusive: bool,
    pub(crate) runtimes: Vec<RuntimeKind>,
    pub(crate) broken: Vec<RuntimeKind>,
    pub(crate) modules: Vec<String>,
    /// Only those that something asks for.
    pub(crate) labels: BTreeMap<String, String>,
}

/// What an instance holds on its node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Claim {
    pub(crate) resources: Resources,
    pub(crate) gpus: Vec<String>,
}

/// What a node still has to give.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Room {
    /// Instances that hold a place: everything that has not stopped, whatever its stage.
    pub(crate) held: u32,
    used: Resources,
    /// The GPUs that are held, each with how many hold it: one, unless two were adopted after a restore.
    gpus: BTreeMap<String, u32>,
}

impl Room {
    fn hold(&mut self, claim: &Claim) {
        self.held += 1;
        self.used = self.used.plus(&claim.resources);
        for gpu in &claim.gpus {
            *self.gpus.entry(gpu.clone()).or_default() += 1;
        }
    }

    fn release(&mut self, claim: &Claim) {
        self.held = self.held.saturating_sub(1);
        self.used = self.used.less(&claim.resources);
        for gpu in &claim.gpus {
            let holders = self.gpus.entry(gpu.clone()).or_default();
            *holders = holders.saturating_sub(1);
        }
        self.gpus.retain(|_, holders| *holders > 0);
    }
}

/// One node.
#[derive(Debug, Clone, Default)]
struct Machine {
    capacity: Resources,
    gpus: BTreeSet<String>,
    packages: Arc<BTreeSet<PackageDigest>>,
    profile: usize,
    room: Room,
}

impl Machine {
    fn free_gpus(&self) -> impl Iterator<Item = &String> {
        let held = &self.room.gpus;
        self.gpus.iter().filter(|gpu| !held.contains_key(*gpu))
    }

    fn free(&self) -> Resources {
        let gpus = u32::try_from(self.free_gpus().count()).unwrap_or(u32::MAX);
        Resources {
            gpus,
            ..self.capacity.less(&self.room.used)
        }
    }
}

/// All nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machines {
    all: BTreeMap<NodeName, Machine>,
    ids: BTreeMap<Profile, usize>,
    profiles: Vec<Profile>,
    /// Keys of the labels that something asks for.
    keys: BTreeSet<String>,
    layouts: BTreeMap<Vec<String>, Layout>,
    holders: Holders,
    /// Every node must be put anew, because the orders have changed.
    resort: bool,
    /// Counts every change of what a search can find.
    version: u64,
    /// Needs for which no node was found, and when that was.
    failed: BTreeMap<Needs, (u64, Rejections)>,
}

/// Most failed searches that are remembered.
const MAX_FAILED: usize = 256;

impl Machines {
    /// Counts every change of what a search can find.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Something else has changed that searches depend on.
    pub(crate) fn touch(&mut self) {
        self.version += 1;
    }

    pub(crate) fn contains(&self, node: &NodeName) -> bool {
        self.all.contains_key(node)
    }

    /// The profiles that will do, with their numbers.
    pub(crate) fn accepted(&self, needs: &Needs) -> Vec<(usize, &Profile)> {
        let profiles = self.profiles.iter().enumerate();
        profiles
            .filter(|(_, profile)| reject::by_profile(profile, needs).is_none())
            .collect()
    }

    /// The nodes that have a package.
    pub(crate) fn holders(
        &self,
        package: Option<&PackageDigest>,
    ) -> impl Iterator<Item = &NodeName> {
        let holders = package.and_then(|package| self.holders.get(package));
        holders.into_iter().flatten()
    }

    /// Takes what is seen of a node, with whether it counts as lost. Answers whether it is new.
    pub(crate) fn put(&mut self, name: &NodeName, seen: &NodeSeen, lost: bool) -> bool {
        let profile = self.intern(self.profile_of(seen, lost));
        let new = !self.all.contains_key(name);
        let machine = self.all.entry(name.clone()).or_default();
        machine.capacity = seen.capacity;
        machine.gpus = seen.gpus.iter().cloned().collect();
        machine.profile = profile;
        let packages = std::mem::replace(&mut machine.packages, Arc::clone(&seen.packages));
        if !Arc::ptr_eq(&packages, &seen.packages) {
            self.hold_packages(name, &packages, &seen.packages);
        }
        for layout in self.layouts.values_mut() {
            self.resort |= layout.place(name, &seen.labels);
        }
        self.index(name);
        new
    }

    fn hold_packages(
        &mut self,
        node: &NodeName,
        old: &BTreeSet<PackageDigest>,
        new: &BTreeSet<PackageDigest>,
    ) {
        for package in old.difference(new) {
            if let Some(holders) = self.holders.get_mut(package) {
                holders.remove(node);
                if holders.is_empty() {
                    self.holders.remove(package);
                }
            }
        }
        for package in new.difference(old) {
            let holders = self.holders.entry(*package).or_default();
            holders.insert(node.clone());
        }
        self.version += u64::from(old != new);
    }

    /// Whether every node must be put anew, because the orders have changed.
    pub(crate) fn resort(&mut self) -> bool {
        std::mem::take(&mut self.resort)
    }

    /// Forgets a node.
    pub(crate) fn remove(&mut self, name: &NodeName) {
        if let Some(machine) = self.all.remove(name) {
            self.hold_packages(name, &machine.packages, &BTreeSet::new());
            for layout in self.layouts.values_mut() {
                layout.remove(name);
            }
            self.version += 1;
        }
    }

    fn profile_of(&self, seen: &NodeSeen, lost: bool) -> Profile {
        let standing = match seen.session {
            _ if lost => Standing::Lost,
            Session::Connected => Standing::Ready,
            Session::Silent(_) | Session::NotYet => Standing::Away,
        };
        let asked_for = |(key, _): &(&String, &String)| self.keys.contains(*key);
        let labels = seen.labels.iter().filter(asked_for);
        Profile {
            standing,
            cordoned: seen.cordoned,
            disk_full: seen.disk_full,
            exclusive: seen.exclusive,
            runtimes: seen.runtimes.clone(),
            broken: seen.broken.clone(),
            modules: seen.modules.clone(),
            labels: labels.map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }

    fn intern(&mut self, profile: Profile) -> usize {
        if let Some(id) = self.ids.get(&profile) {
            return *id;
        }
        let id = self.profiles.len();
        self.profiles.push(profile.clone());
        self.ids.insert(profile, id);
        id
    }

    /// Notes what something asks for.
    pub(crate) fn ask(&mut self, needs: &Needs) {
        self.resort |= needs.labels.keys().any(|key| !self.keys.contains(key));
        self.keys.extend(needs.labels.keys().cloned());
        let layout = self.layouts.entry(needs.spread.clone());
        let layout = layout.or_insert_with(|| Layout::new(needs.spread.clone()));
        self.resort |= layout.ask(Measure::of(&needs.resources));
    }

    /// Drops the orders of nodes that nothing asks for any more.
    pub(crate) fn keep_layouts(&mut self, wanted: &BTreeSet<&Vec<String>>) {
        self.layouts.retain(|spread, _| wanted.contains(spread));
    }

    pub(crate) fn layout(&self, spread: &Vec<String>) -> Option<&Layout> {
        self.layouts.get(spread)
    }

    /// Takes a claim into a node's room; the orders follow with [`Machines::index`].
    pub(crate) fn hold(&mut self, node: &NodeName, claim: &Claim) {
        if let Some(machine) = self.all.get_mut(node) {
            machine.room.hold(claim);
        }
    }

    /// Gives a claim back; the orders follow with [`Machines::index`].
    pub(crate) fn release(&mut self, node: &NodeName, claim: &Claim) {
        if let Some(machine) = self.all.get_mut(node) {
            machine.room.release(claim);
        }
    }

    /// Puts a node where it belongs now, in every order.
    pub(crate) fn index(&mut self, node: &NodeName) {
        let Some(machine) = self.all.get(node) else {
            return;
        };
        let exclusive = self.profiles.get(machine.profile);
        let exclusive = exclusive.is_some_and(|p| p.exclusive);
        let entry = Entry {
            profile: machine.profile,
            open: !exclusive || machine.room.held == 0,
            held: machine.room.held,
            gpus: u32::try_from(machine.gpus.len()).unwrap_or(u32::MAX),
            free: machine.free(),
        };
        let mut changed = false;
        for layout in self.layouts.values_mut() {
            changed |= layout.index(node, &entry);
        }
        self.version += u64::from(changed);
    }

    /// The GPUs that an instance would get on a node.
    pub(crate) fn pick_gpus(&self, node: &NodeName, wanted: u32) -> Vec<String> {
        let machine = self.all.get(node);
        let free = machine.into_iter().flat_map(Machine::free_gpus);
        free.take(wanted as usize).cloned().collect()
    }

    /// Whether a node could take one more instance, whatever others of the service are there.
    pub(crate) fn takes(&self, node: &NodeName, needs: &Needs) -> bool {
        self.rejection(node, needs).is_none()
    }

    /// Why one node cannot take an instance; none if it can, or is not there.
    fn rejection(&self, node: &NodeName, needs: &Needs) -> Option<Rejection> {
        let machine = self.all.get(node)?;
        let profile = self.profiles.get(machine.profile)?;
        reject::by_profile(profile, needs).or_else(|| of_machine(machine, profile, needs))
    }

    /// Every node that cannot take an instance, with the reason.
    pub(crate) fn explain(&self, needs: &Needs) -> BTreeMap<NodeName, Rejection> {
        let why = |name: &NodeName| Some((name.clone(), self.rejection(name, needs)?));
        self.all.keys().filter_map(why).collect()
    }

    /// What of an instance's needs decides whether a node can be found.
    fn shape(&self, needs: &Needs) -> Needs {
        let any_full = self.profiles.iter().any(|p| p.disk_full);
        Needs {
            spread: Vec::new(),
            package: needs.package.filter(|_| any_full),
            ..needs.clone()
        }
    }

    /// The outcome of a search that found nothing, if nothing has changed since.
    pub(crate) fn failed(&self, needs: &Needs) -> Option<&Rejections> {
        let (version, rejections) = self.failed.get(&self.shape(needs))?;
        (*version == self.version).then_some(rejections)
    }

    /// Sums up why a search found nothing, and remembers it.
    pub(crate) fn fail(&mut self, needs: &Needs) -> Rejections {
        let profiles = self.profiles.iter();
        let by_profile: Vec<_> = profiles
            .map(|p| (p, reject::by_profile(p, needs)))
            .collect();
        let mut rejections = Rejections::new();
        for machine in self.all.values() {
            let why = match by_profile.get(machine.profile) {
                Some((_, Some(why))) => Some(why.clone()),
                Some((profile, None)) => of_machine(machine, profile, needs),
                None => None,
            };
            if let Some(why) = why {
                *rejections.entry(why).or_default() += 1;
            }
        }
        if self.failed.len() >= MAX_FAILED {
            self.failed.clear();
        }
        let outcome = (self.version, rejections.clone());
        self.failed.insert(self.shape(needs), outcome);
        rejections
    }
}

/// What rejects a node whose profile does not.
fn of_machine(machine: &Machine, profile: &Profile, needs: &Needs) -> Option<Rejection> {
    let has = |package| machine.packages.contains(package);
    let gpus = u32::try_from(machine.gpus.len()).unwrap_or(u32::MAX);
    if profile.disk_full && !needs.package.as_ref().is_some_and(has) {
        Some(Rejection::DiskFull)
    } else if profile.exclusive && machine.room.held > 0 {
        Some(Rejection::Taken)
    } else {
        reject::by_room(&machine.free(), gpus, &needs.resources)
    }
}
