//! From a service's route to what requests read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use berth_model::id::ServiceName;
use berth_model::manifest::{Limits, Protocol};
use berth_model::route::{RevisionRoute, ServiceRoute};
use http::HeaderValue;

use super::{Candidates, Endpoint, Registry, Revision, Routing, Rules, Service, Target};
use crate::config::GatewayConfig;

impl Routing {
    /// The state before the first table.
    pub(crate) fn empty() -> Self {
        Self {
            sequence: 0,
            services: HashMap::default(),
        }
    }
}

pub(super) fn service(
    registry: &mut Registry,
    name: &ServiceName,
    route: &ServiceRoute,
) -> Service {
    let kept = registry.kept(name);
    let (queue, errors) = (Arc::clone(&kept.queue), Arc::clone(&kept.errors));
    let mut reason = route.unavailable_reason.clone();
    let mut all = Vec::new();
    let mut serials: BTreeMap<u64, (Vec<Arc<Target>>, Vec<&Limits>)> = BTreeMap::new();
    for (number, from) in &route.revisions {
        let entry = serials.entry(from.serial).or_default();
        entry.1.push(&from.limits);
        if from.protocol != Protocol::Http1 {
            // Better no instance than garbage; HTTP/2 comes with the gateway's own issue.
            reason = format!("revision {number} speaks h2c, which this gateway does not speak yet");
            continue;
        }
        let revision = Arc::new(Revision {
            number: HeaderValue::from(*number),
            service: header(name),
            predict_path: from.predict_path.clone(),
            concurrency: from.limits.concurrency.map(u64::from),
            queue: Arc::clone(&queue),
            metrics: registry.revision(name, *number),
        });
        let targets = targets(registry, &revision, from);
        entry.0.extend(targets.iter().cloned());
        all.extend(targets);
    }
    let config = &registry.config;
    let every: Vec<&Limits> = route.revisions.values().map(|r| &r.limits).collect();
    Service {
        name: header(name),
        all: Candidates {
            targets: all,
            rules: rules(&every, config),
        },
        by_serial: serials
            .into_iter()
            .map(|(serial, (targets, limits))| {
                let rules = rules(&limits, config);
                (serial, Candidates { targets, rules })
            })
            .collect(),
        unavailable_reason: reason,
        queue,
        errors,
    }
}

fn targets(
    registry: &mut Registry,
    revision: &Arc<Revision>,
    from: &RevisionRoute,
) -> Vec<Arc<Target>> {
    let direct = from.instances.iter();
    let direct = direct.map(|(id, address)| (id, Endpoint::Direct(*address)));
    let relayed = from.relayed.iter();
    let relayed = relayed.filter_map(|(id, by)| Some((id, Endpoint::relay(id, by)?)));
    direct
        .chain(relayed)
        .map(|(id, endpoint)| {
            let (instance, endpoint) = registry.instance(id, endpoint);
            Arc::new(Target {
                instance,
                host: header(&endpoint.local()),
                endpoint,
                id: header(id),
                revision: Arc::clone(revision),
            })
        })
        .collect()
}

/// Names, identities and addresses are plain ASCII by their types.
fn header(value: &impl ToString) -> HeaderValue {
    HeaderValue::try_from(value.to_string()).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

fn rules(limits: &[&Limits], config: &GatewayConfig) -> Rules {
    let timeouts: Option<Vec<Duration>> = limits.iter().map(|l| l.timeout.map(|t| t.0)).collect();
    let whole_timeout = timeouts.and_then(|all| all.into_iter().max());
    let head_timeout = limits
        .iter()
        .map(|l| l.timeout.unwrap_or(config.request_timeout).0)
        .max()
        .unwrap_or(config.request_timeout.0);
    let max_body = limits
        .iter()
        .map(|l| l.max_body.unwrap_or(config.max_body).0)
        .max()
        .unwrap_or(config.max_body.0);
    let queue = limits.iter().map(|l| l.queue.unwrap_or(config.queue)).max();
    Rules {
        max_body,
        head_timeout,
        whole_timeout,
        queue: queue
            .unwrap_or(config.queue)
            .try_into()
            .unwrap_or(usize::MAX),
        retryable: limits.iter().all(|l| l.retryable.unwrap_or(true)),
    }
}

#[cfg(test)]
mod tests {
    use berth_model::time::{Bytes, Span};

    use super::*;

    #[test]
    fn the_most_generous_limit_counts() {
        let config = GatewayConfig::default();
        let plain = Limits::default();
        let strict = Limits {
            timeout: Some(Span::secs(5)),
            max_body: Some(Bytes(10)),
            queue: Some(3),
            retryable: Some(false),
            ..Limits::default()
        };
        let one = rules(&[&strict], &config);
        assert_eq!(one.max_body, 10);
        assert_eq!(one.head_timeout, Duration::from_secs(5));
        assert_eq!(one.whole_timeout, Some(Duration::from_secs(5)));
        assert_eq!((one.queue, one.retryable), (3, false));
        let both = rules(&[&strict, &plain], &config);
        assert_eq!(both.max_body, config.max_body.0);
        assert_eq!(both.head_timeout, Duration::from_secs(60));
        assert_eq!(both.whole_timeout, None);
        assert!(!both.retryable);
    }
}
