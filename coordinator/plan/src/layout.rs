//! Nodes in the order in which a placement looks at them.
//!
//! A layout belongs to one list of failure-domain labels. Nodes of the same domains and the same profile are
//! one [`Cell`]; in it they stand in two orders: by what is left of them, for instances that claim memory or
//! processor time (the tightest fit comes first), and by how many instances they hold, for those that claim
//! nothing. What is left is counted in steps of a sixteenth of a core or 256 MiB, so that nodes that differ
//! only by a trifle are alike, and the package's being there decides between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::digest::PackageDigest;
use berth_model::id::NodeName;
use berth_model::resources::Resources;

/// A node's failure domains, from the widest to the narrowest; empty where it lacks the label.
pub(crate) type Path = Arc<[String]>;

/// Where nodes stand together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CellKey {
    pub(crate) path: Path,
    pub(crate) profile: usize,
}

/// A position in an order: GPUs left, then what else is left or how many instances are there.
pub(crate) type Rank = (u32, u64);

/// Nodes at each position, with what is left of them.
pub(crate) type Order = BTreeMap<Rank, BTreeMap<NodeName, Resources>>;

/// Nodes of the same domains and profile.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    members: usize,
    /// By what is left of them.
    pub(crate) tight: Order,
    /// By how many instances they hold.
    pub(crate) even: Order,
    /// Which of them have a package.
    pub(crate) packages: BTreeMap<PackageDigest, BTreeSet<NodeName>>,
}

/// What is known of a node here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) profile: usize,
    /// Whether it may take instances at all: exclusive nodes that have one are in no order.
    pub(crate) open: bool,
    pub(crate) held: u32,
    pub(crate) gpus: u32,
    pub(crate) free: Resources,
}

impl Entry {
    fn tight(&self) -> Rank {
        (self.free.gpus, slack(&self.free))
    }

    fn even(&self) -> Rank {
        (self.free.gpus, u64::from(self.held))
    }
}

/// How much is left, in sixteenths of a core, a core counted as 4 GiB. Never less for more.
pub(crate) fn slack(free: &Resources) -> u64 {
    (free.memory_bytes >> 28).saturating_add(free.cpu_millis.saturating_mul(16) / 1000)
}

#[derive(Debug, Clone)]
struct Spot {
    path: Path,
    entry: Option<Entry>,
    packages: Arc<BTreeSet<PackageDigest>>,
}

/// The nodes by one list of failure-domain labels.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    labels: Vec<String>,
    cells: BTreeMap<CellKey, Cell>,
    spots: BTreeMap<NodeName, Spot>,
}

impl Layout {
    pub(crate) fn new(labels: Vec<String>) -> Self {
        Self {
            labels,
            cells: BTreeMap::new(),
            spots: BTreeMap::new(),
        }
    }

    pub(crate) fn cells(&self) -> &BTreeMap<CellKey, Cell> {
        &self.cells
    }

    pub(crate) fn path(&self, node: &NodeName) -> Option<&Path> {
        self.spots.get(node).map(|spot| &spot.path)
    }

    /// Notes a node's failure domains.
    pub(crate) fn place(&mut self, node: &NodeName, labels: &BTreeMap<String, String>) {
        let values = self.labels.iter();
        let path: Path = values
            .map(|key| labels.get(key).cloned().unwrap_or_default())
            .collect();
        if self.path(node) != Some(&path) {
            self.remove(node);
            let spot = Spot {
                path,
                entry: None,
                packages: Arc::default(),
            };
            self.spots.insert(node.clone(), spot);
        }
    }

    pub(crate) fn remove(&mut self, node: &NodeName) {
        let Some(spot) = self.spots.remove(node) else {
            return;
        };
        let Some(entry) = spot.entry else {
            return;
        };
        let key = CellKey {
            path: spot.path,
            profile: entry.profile,
        };
        if let Some(cell) = self.cells.get_mut(&key) {
            cell.forget(node, &entry);
            cell.forget_packages(node, &spot.packages);
            cell.members -= 1;
            if cell.members == 0 {
                self.cells.remove(&key);
            }
        }
    }

    /// Puts a node at its position. Answers whether that is another one than before.
    pub(crate) fn index(
        &mut self,
        node: &NodeName,
        entry: &Entry,
        packages: &Arc<BTreeSet<PackageDigest>>,
    ) -> bool {
        let Some(spot) = self.spots.get_mut(node) else {
            return false;
        };
        let same_packages = Arc::ptr_eq(&spot.packages, packages) || spot.packages == *packages;
        if spot.entry.as_ref() == Some(entry) && same_packages {
            return false;
        }
        let old = spot.entry.replace(entry.clone());
        let old_packages = std::mem::replace(&mut spot.packages, Arc::clone(packages));
        let mut key = CellKey {
            path: Arc::clone(&spot.path),
            profile: entry.profile,
        };
        match old {
            Some(old) if old.profile == entry.profile => {
                let cell = self.cells.entry(key).or_default();
                cell.forget(node, &old);
                cell.enter(node, entry);
                if !same_packages {
                    cell.forget_packages(node, &old_packages);
                    cell.enter_packages(node, packages);
                }
            }
            old => {
                let cell = self.cells.entry(key.clone()).or_default();
                cell.members += 1;
                cell.enter(node, entry);
                cell.enter_packages(node, packages);
                if let Some(old) = old {
                    key.profile = old.profile;
                    if let Some(cell) = self.cells.get_mut(&key) {
                        cell.forget(node, &old);
                        cell.forget_packages(node, &old_packages);
                        cell.members -= 1;
                        if cell.members == 0 {
                            self.cells.remove(&key);
                        }
                    }
                }
            }
        }
        true
    }
}

impl Cell {
    fn enter(&mut self, node: &NodeName, entry: &Entry) {
        if entry.open {
            let orders = [
                (&mut self.tight, entry.tight()),
                (&mut self.even, entry.even()),
            ];
            for (order, rank) in orders {
                order
                    .entry(rank)
                    .or_default()
                    .insert(node.clone(), entry.free);
            }
        }
    }

    fn forget(&mut self, node: &NodeName, entry: &Entry) {
        if entry.open {
            let orders = [
                (&mut self.tight, entry.tight()),
                (&mut self.even, entry.even()),
            ];
            for (order, rank) in orders {
                if let Some(group) = order.get_mut(&rank) {
                    group.remove(node);
                    if group.is_empty() {
                        order.remove(&rank);
                    }
                }
            }
        }
    }

    fn enter_packages(&mut self, node: &NodeName, packages: &BTreeSet<PackageDigest>) {
        for package in packages {
            let holders = self.packages.entry(*package).or_default();
            holders.insert(node.clone());
        }
    }

    fn forget_packages(&mut self, node: &NodeName, packages: &BTreeSet<PackageDigest>) {
        for package in packages {
            if let Some(holders) = self.packages.get_mut(package) {
                holders.remove(node);
                if holders.is_empty() {
                    self.packages.remove(package);
                }
            }
        }
    }
}
