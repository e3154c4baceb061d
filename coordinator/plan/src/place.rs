//! Where an instance goes: filter the places, score what is left.

use berth_model::id::ServiceName;
use berth_model::instance::Phase;
use berth_model::node::RuntimeKind;
use berth_model::place::Place;

use crate::Needs;
use crate::chooser::{Chooser, Spread};
use crate::reject::{self, Rejections};
use crate::view::View;

/// The search that the view keeps for the revision whose instances are placed just now.
#[derive(Debug)]
pub(crate) struct Search {
    service: ServiceName,
    revision: u32,
    /// The machines' version that it is true of.
    version: u64,
    chooser: Chooser,
}

impl Search {
    /// The node that it proposed last has got the instance; nothing else has changed.
    pub(crate) fn took(
        &mut self,
        view: &crate::state::State,
        service: &ServiceName,
        revision: u32,
    ) {
        if self.service == *service && self.revision == revision {
            self.chooser.took();
            self.version = view.machines.version();
        }
    }
}

/// The best place for one more instance of a service's revision, or why there is none.
pub(crate) fn choose(
    view: &mut View<'_>,
    service: &ServiceName,
    revision: u32,
) -> Result<Place, Rejections> {
    let default = Needs::default();
    let needs = view.desired.needs.get(&(service.clone(), revision));
    let needs = needs.unwrap_or(&default);
    let chosen = if needs.runtime == RuntimeKind::Kubernetes {
        cluster(view, service, needs)
    } else {
        node(view, service, revision, needs)
    };
    view.hungry |= chosen.is_err();
    chosen
}

fn node(
    view: &mut View<'_>,
    service: &ServiceName,
    revision: u32,
    needs: &Needs,
) -> Result<Place, Rejections> {
    if let Some(rejections) = view.state.machines.failed(needs) {
        return Err(rejections.clone());
    }
    let version = view.state.machines.version();
    let same = |search: &Search| {
        search.service == *service && search.revision == revision && search.version == version
    };
    let mut search = match view.search.take().filter(same) {
        Some(search) => search,
        None => Search {
            service: service.clone(),
            revision,
            version,
            chooser: Chooser::new(&view.state.machines, needs, spread(view, service)),
        },
    };
    match search.chooser.best(&view.state.machines) {
        Some(node) => {
            view.search = Some(search);
            Ok(Place::Node(node))
        }
        None => Err(view.state.machines.fail(needs)),
    }
}

/// Where the service's instances are.
fn spread(view: &View<'_>, service: &ServiceName) -> Spread {
    let mut spread = Spread::default();
    for (_, placed) in view.of(service) {
        let Some(node) = placed
            .place
            .node()
            .filter(|_| placed.phase != Phase::Stopped)
        else {
            continue;
        };
        *spread.on.entry(node.clone()).or_default() += 1;
        if placed.is_live() {
            spread.live.push(node.clone());
        }
    }
    spread
}

/// The cluster that has the fewest instances of the service. Room in it is the cluster's own business.
fn cluster(view: &View<'_>, service: &ServiceName, needs: &Needs) -> Result<Place, Rejections> {
    let mut rejections = Rejections::new();
    let mut best = None;
    for (name, cluster) in &view.observed.clusters {
        if let Some(rejection) = reject::by_cluster(cluster, needs) {
            *rejections.entry(rejection).or_default() += 1;
            continue;
        }
        let place = Place::Cluster(name.clone());
        let same = view
            .of(service)
            .filter(|(_, p)| p.is_live() && p.place == place)
            .count();
        if best.as_ref().is_none_or(|(least, _)| same < *least) {
            best = Some((same, place));
        }
    }
    best.map(|(_, place)| place).ok_or(rejections)
}
