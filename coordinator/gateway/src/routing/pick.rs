//! Which instance gets a request: the less loaded of two random ones.

use std::sync::Arc;

use rand::Rng;

use super::instance::Standing;
use super::{Lease, Target};

/// The instances that a request has been sent to.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// They failed and are not tried again.
    failed: Vec<u64>,
    /// Only a kept connection to them turned out closed: others first, but they may be well.
    doubtful: Vec<u64>,
}

impl Tried {
    pub(crate) fn failed(&mut self, key: u64) {
        self.failed.push(key);
    }

    pub(crate) fn doubtful(&mut self, key: u64) {
        if self.doubtful.contains(&key) {
            self.failed.push(key);
        } else {
            self.doubtful.push(key);
        }
    }

    pub(crate) fn is_any(&self) -> bool {
        !self.failed.is_empty() || !self.doubtful.is_empty()
    }

    fn has(&self, key: u64) -> bool {
        self.failed.contains(&key) || self.doubtful.contains(&key)
    }
}

/// The outcome of a choice.
pub(crate) enum Picked {
    /// An instance; the request is counted against it.
    Lease(Lease),
    /// All that may be chosen have as many requests as they take.
    Full,
    /// There is none that was not tried.
    None,
}

/// Chooses an instance and counts the request against it. `now` is in the gateway's milliseconds.
pub(crate) fn pick(targets: &[Arc<Target>], tried: &Tried, now: u64, rng: &mut impl Rng) -> Picked {
    if !tried.is_any()
        && let Some(lease) = of_two(targets, now, rng)
    {
        return Picked::Lease(lease);
    }
    let untried = || targets.iter().filter(|t| !tried.has(t.instance.key));
    match best(untried(), now, rng) {
        Picked::None => {}
        found => return found,
    }
    match soonest_back(untried(), now) {
        Picked::None => {}
        found => return found,
    }
    let doubtful = || {
        targets.iter().filter(|t| {
            let key = t.instance.key;
            tried.doubtful.contains(&key) && !tried.failed.contains(&key)
        })
    };
    match best(doubtful(), now, rng) {
        Picked::None => soonest_back(doubtful(), now),
        found => found,
    }
}

/// The usual case, in constant time.
fn of_two(targets: &[Arc<Target>], now: u64, rng: &mut impl Rng) -> Option<Lease> {
    let chosen = match targets {
        [] => return None,
        [only] => only,
        _ => {
            let first = rng.random_range(0..targets.len());
            let mut second = rng.random_range(0..targets.len() - 1);
            if second >= first {
                second += 1;
            }
            let (first, second) = (&targets[first], &targets[second]);
            match (first.instance.standing(now), second.instance.standing(now)) {
                (Standing::Ready, Standing::Ready) => {
                    if second.instance.in_flight() < first.instance.in_flight() {
                        second
                    } else {
                        first
                    }
                }
                (Standing::Ready, Standing::SitsOut(_)) => first,
                (Standing::SitsOut(_), Standing::Ready) => second,
                _ => return None,
            }
        }
    };
    if chosen.instance.standing(now) != Standing::Ready {
        return None;
    }
    enter(chosen, false)
}

/// The least loaded one that does not sit out, beginning at a random place among equals.
fn best<'a>(
    targets: impl Iterator<Item = &'a Arc<Target>>,
    now: u64,
    rng: &mut impl Rng,
) -> Picked {
    let mut full = false;
    let mut ready: Vec<(u64, u32, &Arc<Target>)> = Vec::new();
    for target in targets {
        match target.instance.standing(now) {
            Standing::SitsOut(_) => {}
            Standing::Probe(until) => {
                if has_place(target) && target.instance.claim_probe(until, now) {
                    match enter(target, true) {
                        Some(lease) => return Picked::Lease(lease),
                        None => full = true,
                    }
                }
            }
            Standing::Ready => ready.push((target.instance.in_flight(), rng.random(), target)),
        }
    }
    ready.sort_unstable_by_key(|(load, random, _)| (*load, *random));
    for (_, _, target) in ready {
        match enter(target, false) {
            Some(lease) => return Picked::Lease(lease),
            None => full = true,
        }
    }
    if full { Picked::Full } else { Picked::None }
}

/// When all sit out: never none, so the one that would be back first.
fn soonest_back<'a>(targets: impl Iterator<Item = &'a Arc<Target>>, now: u64) -> Picked {
    let back = |target: &Arc<Target>| match target.instance.standing(now) {
        Standing::Ready => 0,
        Standing::Probe(until) | Standing::SitsOut(until) => until,
    };
    match targets.min_by_key(|t| back(t)) {
        None => Picked::None,
        Some(target) => enter(target, false).map_or(Picked::Full, Picked::Lease),
    }
}

fn has_place(target: &Target) -> bool {
    let limit = target.revision.concurrency;
    limit.is_none_or(|limit| target.instance.in_flight() < limit)
}

fn enter(target: &Arc<Target>, probe: bool) -> Option<Lease> {
    target
        .instance
        .enter(target.revision.concurrency)
        .then(|| Lease {
            target: Arc::clone(target),
            probe,
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use berth_model::route::{RevisionRoute, ServiceRoute, Table};
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::config::GatewayConfig;
    use crate::routing::{Registry, Routing};

    const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

    fn routing(instances: u32, concurrency: Option<u32>) -> Arc<Routing> {
        let limits = berth_model::manifest::Limits {
            concurrency,
            ..Default::default()
        };
        let revision = RevisionRoute {
            serial: 1,
            version: semver::Version::new(1, 0, 0),
            predict_path: None,
            protocol: Default::default(),
            limits,
            relayed: BTreeMap::new(),
            instances: (0..instances)
                .map(|i| {
                    let id = format!("dga.1.{i}.1").parse().unwrap();
                    (id, ([127, 0, 0, 1], 1000).into())
                })
                .collect(),
        };
        let mut table = Table::default();
        table.version.generation = 1;
        table.services.insert(
            "dga".parse().unwrap(),
            ServiceRoute {
                revisions: BTreeMap::from([(1, revision)]),
                ..Default::default()
            },
        );
        Registry::new(1, &GatewayConfig::default())
            .accept(table, &Routing::empty())
            .unwrap()
            .unwrap()
    }

    fn lease(picked: Picked) -> Lease {
        match picked {
            Picked::Lease(lease) => lease,
            Picked::Full => panic!("full"),
            Picked::None => panic!("none"),
        }
    }

    #[test]
    fn load_is_even() {
        let routing = routing(5, None);
        let targets = &routing.services["dga"].all.targets;
        let mut rng = SmallRng::seed_from_u64(1);
        let leases: Vec<Lease> = (0..100)
            .map(|_| lease(pick(targets, &Tried::default(), 0, &mut rng)))
            .collect();
        for target in targets {
            let count = target.instance.in_flight();
            assert!((17..=23).contains(&count), "{count}");
        }
        drop(leases);
        assert!(targets.iter().all(|t| t.instance.in_flight() == 0));
    }

    #[test]
    fn those_that_sit_out_are_left_out_until_none_else_is_there() {
        let routing = routing(3, None);
        let targets = &routing.services["dga"].all.targets;
        let mut rng = SmallRng::seed_from_u64(2);
        let mut choose = |tried: &Tried, now| {
            lease(pick(targets, tried, now, &mut rng))
                .target
                .instance
                .key
        };
        targets[0].instance.failed(1_000, false, BACK_OFF, 1.0);
        targets[1].instance.failed(1_010, false, BACK_OFF, 1.0);
        for _ in 0..50 {
            assert_eq!(choose(&Tried::default(), 1_100), targets[2].instance.key);
        }
        targets[2].instance.failed(1_020, false, BACK_OFF, 1.0);
        assert_eq!(choose(&Tried::default(), 1_100), targets[0].instance.key);
        let mut tried = Tried::default();
        tried.failed(targets[0].instance.key);
        assert_eq!(choose(&tried, 1_100), targets[1].instance.key);
    }

    #[test]
    fn the_tried_ones_are_not_chosen_again_except_the_doubtful() {
        let routing = routing(2, None);
        let targets = &routing.services["dga"].all.targets;
        let mut rng = SmallRng::seed_from_u64(3);
        let mut tried = Tried::default();
        tried.doubtful(targets[0].instance.key);
        for _ in 0..20 {
            let got = lease(pick(targets, &tried, 0, &mut rng));
            assert_eq!(got.target.instance.key, targets[1].instance.key);
        }
        tried.failed(targets[1].instance.key);
        let got = lease(pick(targets, &tried, 0, &mut rng));
        assert_eq!(got.target.instance.key, targets[0].instance.key);
        tried.doubtful(targets[0].instance.key);
        assert!(matches!(pick(targets, &tried, 0, &mut rng), Picked::None));
    }

    #[test]
    fn full_is_not_none() {
        let routing = routing(2, Some(1));
        let targets = &routing.services["dga"].all.targets;
        let mut rng = SmallRng::seed_from_u64(4);
        let mut choose = || pick(targets, &Tried::default(), 0, &mut rng);
        let first = lease(choose());
        let second = lease(choose());
        assert_ne!(first.target.instance.key, second.target.instance.key);
        assert!(matches!(choose(), Picked::Full));
        drop(first);
        assert!(matches!(choose(), Picked::Lease(_)));
        assert!(matches!(
            pick(&[], &Tried::default(), 0, &mut rng),
            Picked::None
        ));
    }
}
