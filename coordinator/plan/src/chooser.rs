//! The search for nodes of several instances of one revision, one after the other.
//!
//! The order in which nodes are preferred, the first difference decides:
//!
//! 1. few instances of the service on the node;
//! 2. few of its instances that shall run in the node's failure domains, the widest domain first;
//! 3. the fit: few GPUs to spare, an exclusive node before a shared one, little left over on it (for an
//!    instance that claims no memory and no processor time: few instances there);
//! 4. the package is there already;
//! 5. the node's name.
//!
//! The failure domains make a tree. Every branch knows its best node, and its branches stand in the order of
//! theirs, so that an instance placed changes only the branches above its node: placing one more costs the
//! logarithm of the domains, not a look at every node.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::id::NodeName;

use crate::Needs;
use crate::input::MAX_SPREAD;
use crate::layout::{Cell, CellKey, Layout, Order, Path, Rank, slack};
use crate::machines::Machines;

/// What there is of the service so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spread {
    /// Its instances by node.
    pub(crate) on: BTreeMap<NodeName, u32>,
    /// The nodes of those that shall run, each as often as it has some.
    pub(crate) live: Vec<NodeName>,
}

/// A node's place in the order of preference, among nodes with equally many of the service's instances.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    /// Instances of the service by level of failure domain, below the branch that compares.
    domains: [u32; MAX_SPREAD],
    gpus: u32,
    shared: bool,
    left: u64,
    lacks_package: bool,
    node: NodeName,
    leaf: usize,
}

#[derive(Debug, Default)]
struct Branch {
    parent: usize,
    /// The level of its failure domain; none for the whole fleet.
    level: Option<usize>,
    value: String,
    /// Instances of the service in it.
    count: u32,
    best: Option<Preference>,
    /// The branches below, in the order of their values.
    below: Vec<usize>,
    /// The branches below that have a node to offer, the best first.
    order: BTreeSet<(Preference, usize)>,
    leaves: Vec<usize>,
}

/// The nodes of one cell.
#[derive(Debug)]
struct Leaf {
    key: CellKey,
    branch: usize,
    shared: bool,
    disk_full: bool,
    /// Where the search goes on: before it nothing suits any more.
    from: Option<(Rank, NodeName)>,
    best: Option<Preference>,
}

/// A search that goes on.
#[derive(Debug)]
pub(crate) struct Chooser {
    needs: Needs,
    spread: Spread,
    /// How many instances of the service the nodes have that are looked at now.
    tier: u32,
    branches: Vec<Branch>,
    leaves: Vec<Leaf>,
}

impl Chooser {
    /// Begins a search.
    pub(crate) fn new(machines: &Machines, needs: &Needs, spread: Spread) -> Self {
        let mut chooser = Self {
            needs: needs.clone(),
            spread,
            tier: 0,
            branches: Vec::new(),
            leaves: Vec::new(),
        };
        chooser.grow(machines);
        chooser
    }

    /// The best node for one more; none if no node suits.
    pub(crate) fn best(&mut self, machines: &Machines) -> Option<NodeName> {
        loop {
            if let Some(best) = self.branches.first().and_then(|root| root.best.as_ref()) {
                return Some(best.node.clone());
            }
            // Every node that suits has so many already: look at those that have more.
            let on = self.spread.on.iter();
            let more = on.filter(|(node, n)| **n > self.tier && machines.takes(node, &self.needs));
            self.tier = more.map(|(_, n)| *n).min()?;
            self.grow(machines);
        }
    }

    /// The best node has got an instance.
    pub(crate) fn took(&mut self, machines: &Machines) {
        let Some(best) = self.branches.first().and_then(|root| root.best.clone()) else {
            return;
        };
        *self.spread.on.entry(best.node.clone()).or_default() += 1;
        self.spread.live.push(best.node);
        let Some(layout) = machines.layout(&self.needs.spread) else {
            return;
        };
        self.search(layout, best.leaf);
        let mut at = self.leaves.get(best.leaf).map_or(0, |leaf| leaf.branch);
        self.gather(at);
        while let Some(parent) = self.count(at) {
            at = parent;
        }
    }

    /// Builds the tree of all domains that have nodes to look at.
    fn grow(&mut self, machines: &Machines) {
        self.branches = vec![Branch::default()];
        self.leaves.clear();
        let Some(layout) = machines.layout(&self.needs.spread) else {
            return;
        };
        let accepted = machines.accepted(&self.needs);
        // Cells come in the order of their paths, so a branch is either the last one or new.
        for key in layout.cells().keys() {
            if accepted.get(key.profile) != Some(&true) {
                continue;
            }
            let branch = self.branch(&key.path);
            let profile = machines.profile(key.profile);
            self.leaves.push(Leaf {
                key: key.clone(),
                branch,
                shared: !profile.is_some_and(|p| p.exclusive),
                disk_full: profile.is_some_and(|p| p.disk_full),
                from: None,
                best: None,
            });
            let leaf = self.leaves.len() - 1;
            if let Some(branch) = self.branches.get_mut(branch) {
                branch.leaves.push(leaf);
            }
            self.search(layout, leaf);
        }
        for node in std::mem::take(&mut self.spread.live) {
            if let Some(path) = layout.path(&node) {
                self.add(path);
            }
            self.spread.live.push(node);
        }
        // The narrowest first: a branch comes after the one above it.
        for at in (0..self.branches.len()).rev() {
            self.gather(at);
            self.stand(at);
        }
    }

    /// The branch of a path that is not before any path so far.
    fn branch(&mut self, path: &Path) -> usize {
        let mut at = 0;
        for (level, value) in path.iter().enumerate() {
            let last = self.branches.get(at).and_then(|b| b.below.last()).copied();
            let same = last.filter(|b| self.branches.get(*b).is_some_and(|b| b.value == *value));
            at = same.unwrap_or_else(|| {
                let new = self.branches.len();
                self.branches.push(Branch {
                    parent: at,
                    level: Some(level),
                    value: value.clone(),
                    ..Branch::default()
                });
                if let Some(above) = self.branches.get_mut(at) {
                    above.below.push(new);
                }
                new
            });
        }
        at
    }

    /// Counts an instance of the service in the domains of a path, as far as they are in the tree.
    fn add(&mut self, path: &Path) {
        let mut at = 0;
        for value in path.iter() {
            let below = self.branches.get(at).map(|b| &b.below);
            let found = below.and_then(|below| {
                let value_of = |b: &usize| self.branches.get(*b).map(|b| b.value.as_str());
                let position = below.binary_search_by(|b| value_of(b).cmp(&Some(value)));
                below.get(position.ok()?).copied()
            });
            let Some(next) = found else { return };
            at = next;
            if let Some(branch) = self.branches.get_mut(at) {
                branch.count += 1;
            }
        }
    }

    /// Looks for the best node of a leaf.
    fn search(&mut self, layout: &Layout, at: usize) {
        let Some(leaf) = self.leaves.get_mut(at) else {
            return;
        };
        leaf.best = None;
        let Some(cell) = layout.cells().get(&leaf.key) else {
            return;
        };
        let view = Sight {
            cell,
            needs: &self.needs,
            on: &self.spread.on,
            tier: self.tier,
        };
        let found = if leaf.disk_full {
            view.with_package_only()
        } else {
            let found = view.first(leaf.from.as_ref());
            leaf.from.clone_from(&found);
            found.map(|(rank, node)| match view.with_package(rank) {
                Some(other) => (rank, other, false),
                None => (rank, node, true),
            })
        };
        leaf.best = found.map(|((gpus, left), node, lacks_package)| Preference {
            domains: [0; MAX_SPREAD],
            gpus,
            shared: leaf.shared,
            left,
            lacks_package,
            node,
            leaf: at,
        });
    }

    /// Takes the best of what is directly below a branch.
    fn gather(&mut self, at: usize) {
        let Some(branch) = self.branches.get_mut(at) else {
            return;
        };
        let leaves = branch
            .leaves
            .iter()
            .filter_map(|leaf| self.leaves.get(*leaf));
        let of_leaves = leaves.filter_map(|leaf| leaf.best.as_ref()).min();
        let below = branch.order.first().map(|(preference, _)| preference);
        branch.best = of_leaves.into_iter().chain(below).min().cloned();
    }

    /// Puts a branch in its place among its siblings.
    fn stand(&mut self, at: usize) {
        let Some((parent, preference)) = self.preference(at) else {
            return;
        };
        if let (Some(above), Some(preference)) = (self.branches.get_mut(parent), preference) {
            above.order.insert((preference, at));
        }
    }

    /// The branch above one, and what this one has to offer to it.
    fn preference(&self, at: usize) -> Option<(usize, Option<Preference>)> {
        let branch = self.branches.get(at)?;
        let level = branch.level?;
        let mut best = branch.best.clone();
        if let Some(count) = best.as_mut().and_then(|b| b.domains.get_mut(level)) {
            *count = branch.count;
        }
        Some((branch.parent, best))
    }

    /// One more instance is in a branch whose best node may be another one: it takes another place among
    /// its siblings, and the branch above another best. Answers with that branch.
    fn count(&mut self, at: usize) -> Option<usize> {
        let parent = self.branches.get(at).filter(|b| b.level.is_some())?.parent;
        // It was the first of its siblings: its node was the best of all.
        self.branches.get_mut(parent)?.order.pop_first();
        self.branches.get_mut(at)?.count += 1;
        self.stand(at);
        self.gather(parent);
        Some(parent)
    }
}

/// One cell as a search sees it.
struct Sight<'a> {
    cell: &'a Cell,
    needs: &'a Needs,
    on: &'a BTreeMap<NodeName, u32>,
    tier: u32,
}

impl Sight<'_> {
    /// The order that matters, and where in it to begin.
    fn order(&self) -> (&Order, Rank) {
        let wanted = &self.needs.resources;
        if wanted.memory_bytes == 0 && wanted.cpu_millis == 0 {
            (&self.cell.even, (wanted.gpus, 0))
        } else {
            (&self.cell.tight, (wanted.gpus, slack(wanted)))
        }
    }

    fn suits(&self, node: &NodeName, free: &berth_model::resources::Resources) -> bool {
        let on = self.on.get(node).copied().unwrap_or(0);
        on == self.tier && self.needs.resources.fits(free)
    }

    /// The first node from a position on.
    fn first(&self, from: Option<&(Rank, NodeName)>) -> Option<(Rank, NodeName)> {
        let (order, begin) = self.order();
        for (rank, group) in order.range(from.map_or(begin, |(rank, _)| *rank)..) {
            let node = match from.filter(|(begin, _)| begin == rank) {
                Some((_, node)) => self.in_group(group.range(node.clone()..)),
                None => self.in_group(group.range::<NodeName, _>(..)),
            };
            if let Some(node) = node {
                return Some((*rank, node));
            }
        }
        None
    }

    fn in_group<'a>(
        &self,
        mut group: impl Iterator<Item = (&'a NodeName, &'a berth_model::resources::Resources)>,
    ) -> Option<NodeName> {
        group
            .find(|(node, free)| self.suits(node, free))
            .map(|(node, _)| node.clone())
    }

    /// A node at a position that has the package.
    fn with_package(&self, rank: Rank) -> Option<NodeName> {
        let holders = self.cell.packages.get(self.needs.package.as_ref()?)?;
        let group = self.order().0.get(&rank)?;
        let suits = |node: &&NodeName| group.get(*node).is_some_and(|free| self.suits(node, free));
        holders.iter().find(suits).cloned()
    }

    /// The first node that has the package, where others cannot take it.
    fn with_package_only(&self) -> Option<(Rank, NodeName, bool)> {
        let holders = self.cell.packages.get(self.needs.package.as_ref()?)?;
        let (order, begin) = self.order();
        for (rank, group) in order.range(begin..) {
            let has = group.iter().filter(|(node, _)| holders.contains(*node));
            if let Some(node) = self.in_group(has) {
                return Some((*rank, node, false));
            }
        }
        None
    }
}
