//! Nodes in the orders in which a placement looks at them.
//!
//! A layout belongs to one list of failure-domain labels. The domains make a tree, from the whole fleet down to
//! the narrowest, and every [`Domain`] has all nodes in it in order, apart by profile. There is one order for
//! each [`Measure`] of what is left of a node that something asks for. What is left is counted in steps, so
//! that nodes that differ only by a trifle are alike, and the package's being there decides between them.

use std::collections::BTreeMap;

use berth_model::id::NodeName;
use berth_model::resources::Resources;

/// By what nodes stand in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// What is left of memory or processor time, whichever is less, a core counted as 4 GiB.
    Scarcest,
    /// What is left of memory.
    Memory,
    /// How many instances are there.
    Count,
}

impl Measure {
    /// What matters to an instance that claims so much.
    pub(crate) fn of(wanted: &Resources) -> Self {
        match (wanted.cpu_millis, wanted.memory_bytes) {
            (0, 0) => Self::Count,
            (0, _) => Self::Memory,
            _ => Self::Scarcest,
        }
    }

    /// So much, in sixteenths of a core or of 4 GiB. Never less for more, but for the count.
    pub(crate) fn amount(self, free: &Resources, held: u32) -> u64 {
        let memory = free.memory_bytes >> 28;
        match self {
            Self::Scarcest => memory.min(free.cpu_millis.saturating_mul(16) / 1000),
            Self::Memory => memory,
            Self::Count => u64::from(held),
        }
    }
}

/// A place in an order: GPUs left, then the measure; without a node the first of its like.
pub(crate) type Position = (u32, u64, Option<NodeName>);

/// Nodes in order, with what is left of them.
pub(crate) type Order = BTreeMap<Position, Resources>;

/// The nodes of one profile in one domain. Exclusive ones that have an instance are in no order.
pub(crate) type Orders = BTreeMap<Measure, Order>;

/// A failure domain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Domain {
    /// The domains in it, by the value of their label.
    pub(crate) below: BTreeMap<String, usize>,
    /// The nodes in it, by profile.
    pub(crate) nodes: BTreeMap<usize, Orders>,
}

/// What is known of a node here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) profile: usize,
    /// Whether it may take instances at all.
    pub(crate) open: bool,
    pub(crate) held: u32,
    pub(crate) gpus: u32,
    pub(crate) free: Resources,
}

impl Entry {
    /// Its place among nodes of its profile.
    pub(crate) fn position(&self, measure: Measure, node: &NodeName) -> Position {
        let amount = measure.amount(&self.free, self.held);
        (self.free.gpus, amount, Some(node.clone()))
    }
}

#[derive(Debug, Clone, Default)]
struct Spot {
    labels: Vec<String>,
    /// Its domains, the whole fleet first.
    domains: Vec<usize>,
    entry: Option<Entry>,
}

/// The nodes by one list of failure-domain labels. Domains are never removed: there are few, and their labels'
/// values come back.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    labels: Vec<String>,
    /// Levels that some node has a label for; the narrower ones are left out.
    depth: usize,
    measures: Vec<Measure>,
    domains: Vec<Domain>,
    spots: BTreeMap<NodeName, Spot>,
}

/// The whole fleet among the domains.
pub(crate) const FLEET: usize = 0;

impl Layout {
    pub(crate) fn new(labels: Vec<String>) -> Self {
        Self {
            labels,
            depth: 0,
            measures: Vec::new(),
            domains: vec![Domain::default()],
            spots: BTreeMap::new(),
        }
    }

    pub(crate) fn domain(&self, id: usize) -> Option<&Domain> {
        self.domains.get(id)
    }

    /// A node's domains, the whole fleet first.
    pub(crate) fn domains_of(&self, node: &NodeName) -> &[usize] {
        self.spots.get(node).map_or(&[], |spot| &spot.domains)
    }

    pub(crate) fn entry(&self, node: &NodeName) -> Option<&Entry> {
        self.spots.get(node)?.entry.as_ref()
    }

    /// Keeps an order by this measure from now on. Answers whether every node must be put anew.
    pub(crate) fn ask(&mut self, measure: Measure) -> bool {
        let new = !self.measures.contains(&measure);
        if new {
            self.clear();
            self.measures.push(measure);
        }
        new
    }

    fn clear(&mut self) {
        self.domains = vec![Domain::default()];
        for spot in self.spots.values_mut() {
            spot.domains.clear();
            spot.entry = None;
        }
    }

    /// Notes a node's failure domains. Answers whether every node must be put anew, as a narrower kind of
    /// domain is new.
    pub(crate) fn place(&mut self, node: &NodeName, labels: &BTreeMap<String, String>) -> bool {
        let values = self.labels.iter();
        let values: Vec<String> = values
            .map(|key| labels.get(key).cloned().unwrap_or_default())
            .collect();
        let depth = values.iter().rposition(|v| !v.is_empty());
        let depth = depth.map_or(0, |level| level + 1);
        let deeper = depth > self.depth;
        if deeper {
            self.depth = depth;
            self.clear();
        }
        let spot = self.spots.get(node);
        if spot.is_none_or(|spot| spot.labels != values || spot.domains.is_empty()) {
            self.remove(node);
            let domains = self.path(&values);
            let spot = Spot {
                labels: values,
                domains,
                entry: None,
            };
            self.spots.insert(node.clone(), spot);
        }
        deeper
    }

    fn path(&mut self, values: &[String]) -> Vec<usize> {
        let mut path = vec![FLEET];
        let mut at = FLEET;
        for value in values.iter().take(self.depth) {
            let known = self.domains.get(at).and_then(|d| d.below.get(value));
            at = known.copied().unwrap_or_else(|| {
                let id = self.domains.len();
                self.domains.push(Domain::default());
                if let Some(domain) = self.domains.get_mut(at) {
                    domain.below.insert(value.clone(), id);
                }
                id
            });
            path.push(at);
        }
        path
    }

    pub(crate) fn remove(&mut self, node: &NodeName) {
        if let Some(spot) = self.spots.remove(node)
            && let Some(entry) = &spot.entry
        {
            self.leave(&spot.domains, node, entry);
        }
    }

    /// Puts a node in its place. Answers whether that is another one than before.
    pub(crate) fn index(&mut self, node: &NodeName, entry: &Entry) -> bool {
        let Some(spot) = self.spots.get_mut(node) else {
            return false;
        };
        if spot.entry.as_ref() == Some(entry) {
            return false;
        }
        let old = spot.entry.replace(entry.clone());
        let domains = std::mem::take(&mut spot.domains);
        if let Some(old) = old {
            self.leave(&domains, node, &old);
        }
        self.enter(&domains, node, entry);
        if let Some(spot) = self.spots.get_mut(node) {
            spot.domains = domains;
        }
        true
    }

    fn enter(&mut self, domains: &[usize], node: &NodeName, entry: &Entry) {
        if !entry.open {
            return;
        }
        for id in domains {
            let Some(domain) = self.domains.get_mut(*id) else {
                continue;
            };
            let orders = domain.nodes.entry(entry.profile).or_default();
            for measure in &self.measures {
                let order = orders.entry(*measure).or_default();
                order.insert(entry.position(*measure, node), entry.free);
            }
        }
    }

    fn leave(&mut self, domains: &[usize], node: &NodeName, entry: &Entry) {
        if !entry.open {
            return;
        }
        for id in domains {
            let domain = self.domains.get_mut(*id);
            let Some(orders) = domain.and_then(|d| d.nodes.get_mut(&entry.profile)) else {
                continue;
            };
            for (measure, order) in orders {
                order.remove(&entry.position(*measure, node));
            }
        }
    }
}
