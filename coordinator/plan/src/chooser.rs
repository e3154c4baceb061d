//! The search for nodes of several instances of one revision, one after the other.
//!
//! The order in which nodes are preferred, the first difference decides:
//!
//! 1. few instances of the service on the node;
//! 2. few of its instances that shall run in the node's failure domains, the widest domain first;
//! 3. the fit: few GPUs to spare, an exclusive node before a shared one, little left on it (for an instance
//!    that claims no memory and no processor time: few instances there);
//! 4. the package is there already;
//! 5. the node's name.
//!
//! The failure domains make a tree. A domain is looked into only when the number of instances in it alone makes
//! it the best so far; the many domains that have none are looked at together, in the order of the nodes in
//! the domain around them. So placing one more costs some steps in ordered sets, not a look at every node.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::digest::PackageDigest;
use berth_model::id::NodeName;

use crate::Needs;
use crate::input::MAX_SPREAD;
use crate::layout::{FLEET, Layout, Measure, Position};
use crate::machines::Machines;

/// So many domains, or fewer, are looked at one by one even if nothing of the service is in them.
const FEW: usize = 8;

/// What there is of the service so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spread {
    /// Its instances by node.
    pub(crate) on: BTreeMap<NodeName, u32>,
    /// The nodes of those that shall run, each as often as it has some.
    pub(crate) live: Vec<NodeName>,
}

/// A node's place in the order of preference, among nodes with equally many of the service's instances. Without
/// a node: no node of a domain with so many instances is better.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    /// Instances of the service by level of failure domain, below the domain that compares.
    domains: [u32; MAX_SPREAD],
    gpus: u32,
    shared: bool,
    left: u64,
    lacks_package: bool,
    node: Option<NodeName>,
}

/// A domain as this search sees it.
#[derive(Debug, Default)]
struct Local {
    /// Instances of the service in it that shall run.
    count: u32,
    /// The domains in it that have some.
    used: BTreeSet<usize>,
    /// It was looked into.
    open: bool,
    /// The domains in it that are looked at one by one, the best first.
    order: BTreeSet<(Preference, usize)>,
    /// Where the search of its nodes goes on, by profile: before that nothing suits any more.
    from: BTreeMap<usize, Position>,
    /// The best of its nodes that are not in a domain looked at by itself.
    own: Option<Preference>,
    best: Option<Preference>,
}

/// A search that goes on.
#[derive(Debug)]
pub(crate) struct Chooser {
    needs: Needs,
    spread: Spread,
    /// How many instances of the service the nodes have that are looked at now.
    tier: u32,
    /// The profiles that will do.
    profiles: Vec<Profile>,
    /// The nodes that have the package, by domain.
    holders: BTreeMap<usize, Vec<NodeName>>,
    locals: BTreeMap<usize, Local>,
    /// The node that was proposed has got an instance; whether there is a next one is not looked for yet.
    taken: bool,
}

/// A profile that will do.
#[derive(Debug, Clone, Copy)]
struct Profile {
    id: usize,
    shared: bool,
    /// Only nodes that have the package can take it.
    holders_only: bool,
}

impl Chooser {
    /// Begins a search.
    pub(crate) fn new(machines: &Machines, needs: &Needs, spread: Spread) -> Self {
        let accepted = machines.accepted(needs).into_iter();
        let mut chooser = Self {
            needs: needs.clone(),
            spread,
            tier: 0,
            profiles: accepted
                .map(|(id, profile)| Profile {
                    id,
                    shared: !profile.exclusive,
                    holders_only: profile.disk_full,
                })
                .collect(),
            holders: BTreeMap::new(),
            locals: BTreeMap::new(),
            taken: false,
        };
        if let Some(layout) = machines.layout(&needs.spread) {
            for node in machines.holders(needs.package.as_ref()) {
                for domain in layout.domains_of(node) {
                    let holders = chooser.holders.entry(*domain).or_default();
                    holders.push(node.clone());
                }
            }
            chooser.begin(layout);
        }
        chooser
    }

    /// The best node for one more; none if no node suits.
    pub(crate) fn best(&mut self, machines: &Machines) -> Option<NodeName> {
        let layout = machines.layout(&self.needs.spread)?;
        if std::mem::take(&mut self.taken) {
            self.go_on(layout);
        }
        loop {
            let best = self
                .locals
                .get(&FLEET)
                .and_then(|fleet| fleet.best.as_ref());
            if let Some(best) = best {
                return best.node.clone();
            }
            // Every node that suits has so many already: look at those that have more.
            let on = self.spread.on.iter();
            let more = on.filter(|(node, n)| **n > self.tier && machines.takes(node, &self.needs));
            self.tier = more.map(|(_, n)| *n).min()?;
            self.begin(layout);
        }
    }

    /// The node that was proposed has got an instance.
    pub(crate) fn took(&mut self) {
        self.taken = true;
    }

    /// Counts the instance on the node that was proposed, and looks for the next one.
    fn go_on(&mut self, layout: &Layout) {
        let best = self.locals.get(&FLEET).and_then(|fleet| fleet.best.clone());
        let Some(node) = best.and_then(|best| best.node) else {
            return;
        };
        *self.spread.on.entry(node.clone()).or_default() += 1;
        self.spread.live.push(node.clone());
        let path = layout.domains_of(&node).to_vec();
        // The narrowest first: what is above is made of it.
        for level in (0..path.len()).rev() {
            self.counted(layout, &path, level);
        }
    }

    /// Counts what there is of the service, and looks for the best node.
    fn begin(&mut self, layout: &Layout) {
        self.locals.clear();
        for node in &self.spread.live {
            let mut above = None;
            for domain in layout.domains_of(node) {
                self.locals.entry(*domain).or_default().count += 1;
                if let Some(above) = above.replace(*domain) {
                    let above: &mut Local = self.locals.entry(above).or_default();
                    above.used.insert(*domain);
                }
            }
        }
        self.look_into(layout, FLEET, 0);
    }

    /// Looks for the best node of a domain, whose own level is the one above `level`.
    fn look_into(&mut self, layout: &Layout, id: usize, level: usize) {
        let Some(domain) = layout.domain(id) else {
            return;
        };
        let local = self.locals.entry(id).or_default();
        local.open = true;
        let alone: Vec<usize> = if domain.below.len() <= FEW {
            domain.below.values().copied().collect()
        } else {
            local.used.iter().copied().collect()
        };
        for below in alone {
            self.enter(id, below, level);
        }
        self.search(layout, id, level);
        self.settle(layout, id, level);
    }

    /// Puts a domain in its place in the one around it, by what is known of it.
    fn enter(&mut self, above: usize, id: usize, level: usize) {
        let local = self.locals.get(&id);
        let count = local.map_or(0, |local| local.count);
        let mut preference = match local.filter(|local| local.open) {
            Some(open) => match &open.best {
                Some(best) => best.clone(),
                None => return,
            },
            None => Preference::default(),
        };
        if let Some(domain) = preference.domains.get_mut(level) {
            *domain = count;
        }
        let above = self.locals.entry(above).or_default();
        above.order.insert((preference, id));
    }

    /// Finds the best of a domain: looks into those in it for as long as one may have a better node.
    fn settle(&mut self, layout: &Layout, id: usize, level: usize) {
        loop {
            let Some(local) = self.locals.get_mut(&id) else {
                return;
            };
            let first = local.order.first();
            match (first, &local.own) {
                (Some((preference, below)), own)
                    if own.as_ref().is_none_or(|own| preference < own) =>
                {
                    if preference.node.is_some() {
                        local.best = Some(preference.clone());
                        return;
                    }
                    let below = *below;
                    local.order.pop_first();
                    self.look_into(layout, below, level + 1);
                    self.enter(id, below, level);
                }
                (_, own) => {
                    local.best.clone_from(own);
                    return;
                }
            }
        }
    }

    /// One more instance is in a domain of a path, on the node that was the best of all.
    fn counted(&mut self, layout: &Layout, path: &[usize], level: usize) {
        let Some(id) = path.get(level).copied() else {
            return;
        };
        let local = self.locals.entry(id).or_default();
        local.count += 1;
        let below = path.get(level + 1).copied();
        let known = below.is_some_and(|below| !local.used.insert(below));
        if !local.open {
            return;
        }
        let few = layout.domain(id).is_some_and(|d| d.below.len() <= FEW);
        if let Some(below) = below {
            if known || few {
                // It had the best node: it stood first.
                local.order.pop_first();
            }
            self.enter(id, below, level);
        }
        if !(known || few) || below.is_none() {
            self.search(layout, id, level);
        }
        self.settle(layout, id, level);
    }

    /// Looks for the best of a domain's nodes that are not in a domain looked at by itself.
    fn search(&mut self, layout: &Layout, id: usize, level: usize) {
        let Some(domain) = layout.domain(id) else {
            return;
        };
        let Some(local) = self.locals.get_mut(&id) else {
            return;
        };
        local.own = None;
        let inner = !domain.below.is_empty();
        if inner && domain.below.len() <= FEW {
            return;
        }
        let sight = Sight {
            layout,
            needs: &self.needs,
            measure: Measure::of(&self.needs.resources),
            on: &self.spread.on,
            tier: self.tier,
            holders: self.holders.get(&id).map_or(&[], Vec::as_slice),
            below: inner.then_some((level + 1, &local.used)),
        };
        for profile in &self.profiles {
            let order = domain.nodes.get(&profile.id);
            let Some(order) = order.and_then(|orders| orders.get(&sight.measure)) else {
                continue;
            };
            let found = if profile.holders_only {
                sight.holder(profile.id, None).map(|p| (p, false))
            } else {
                let begin = local.from.get(&profile.id).cloned();
                let begin = begin.unwrap_or_else(|| sight.begin());
                let found = sight.first(order, begin);
                if let Some(found) = &found {
                    local.from.insert(profile.id, found.clone());
                }
                found.map(|first| match sight.holder(profile.id, Some(&first)) {
                    Some(holder) => (holder, false),
                    None => (first, true),
                })
            };
            let preference = found.map(|((gpus, left, node), lacks_package)| Preference {
                domains: [0; MAX_SPREAD],
                gpus,
                shared: profile.shared,
                left,
                lacks_package,
                node,
            });
            local.own = local.own.take().into_iter().chain(preference).min();
        }
    }
}

/// One domain's nodes as a search sees them.
struct Sight<'a> {
    layout: &'a Layout,
    needs: &'a Needs,
    measure: Measure,
    on: &'a BTreeMap<NodeName, u32>,
    tier: u32,
    /// The nodes in it that have the package.
    holders: &'a [NodeName],
    /// The level of the domains in it, and which of them are looked at by themselves.
    below: Option<(usize, &'a BTreeSet<usize>)>,
}

impl Sight<'_> {
    /// Before this nothing can suit.
    fn begin(&self) -> Position {
        let wanted = &self.needs.resources;
        (wanted.gpus, self.measure.amount(wanted, 0), None)
    }

    /// The first node of an order that suits, from a position on.
    fn first(&self, order: &crate::layout::Order, begin: Position) -> Option<Position> {
        let mut rest = order.range(begin..);
        let suits = |(position, free): &(&Position, &berth_model::resources::Resources)| {
            let node = position.2.as_ref();
            self.needs.resources.fits(free) && node.is_some_and(|node| self.is_here(node))
        };
        rest.find(suits).map(|(position, _)| position.clone())
    }

    /// Whether a node has as many of the service's instances as is looked for, and is in no domain looked at by
    /// itself.
    fn is_here(&self, node: &NodeName) -> bool {
        self.on.get(node).copied().unwrap_or(0) == self.tier
            && self.below.is_none_or(|(level, used)| {
                used.is_empty()
                    || self
                        .layout
                        .domains_of(node)
                        .get(level)
                        .is_none_or(|domain| !used.contains(domain))
            })
    }

    /// The first node that has the package, at a position like another one's or wherever it is.
    fn holder(&self, profile: usize, like: Option<&Position>) -> Option<Position> {
        let positions = self.holders.iter().filter_map(|node| {
            let entry = self.layout.entry(node)?;
            let suits = entry.profile == profile
                && entry.open
                && self.needs.resources.fits(&entry.free)
                && self.is_here(node);
            suits.then(|| entry.position(self.measure, node))
        });
        positions
            .filter(|p| like.is_none_or(|like| (p.0, p.1) == (like.0, like.1)))
            .min()
    }
}

/// The nodes that have each package.
pub(crate) type Holders = BTreeMap<PackageDigest, BTreeSet<NodeName>>;
