//! The route table as requests read it: immutable, with everything a request needs worked out
//! beforehand.

mod build;
mod endpoint;
mod instance;
mod pick;
mod registry;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use berth_model::id::ServiceName;
use http::HeaderValue;

pub(crate) use endpoint::{Endpoint, Via};
pub(crate) use instance::{Instance, Lease};
pub(crate) use pick::{Picked, Tried, pick};
pub(crate) use registry::Registry;

use crate::hash::Quick;
use crate::metrics::{ErrorCounts, RevisionMetrics};
use crate::path::Version;
use crate::queue::Queue;

/// One published table.
pub(crate) struct Routing {
    /// Counts publications in this process; 0 is the state before the first.
    pub(crate) sequence: u64,
    pub(crate) services: HashMap<ServiceName, Arc<Service>, Quick>,
}

/// One service of a table.
pub(crate) struct Service {
    pub(crate) name: HeaderValue,
    /// For requests that want no special version.
    pub(crate) all: Candidates,
    /// For requests that want a serial; few per service, so a list.
    pub(crate) by_serial: Vec<(u64, Candidates)>,
    pub(crate) unavailable_reason: String,
    /// Requests that wait for a place; outlives the table.
    pub(crate) queue: Arc<Queue>,
    /// The gateway's own answers for this service; outlives the table.
    pub(crate) errors: Arc<ErrorCounts>,
}

impl Service {
    /// Where a request for `version` may go; none if the service has no such version.
    pub(crate) fn candidates(&self, version: Version) -> Option<&Candidates> {
        match version {
            Version::Any => Some(&self.all),
            Version::Serial(wanted) => self
                .by_serial
                .iter()
                .find(|(serial, _)| *serial == wanted)
                .map(|(_, candidates)| candidates),
        }
    }
}

/// The instances that a request may go to, and the rules it is under.
pub(crate) struct Candidates {
    pub(crate) targets: Vec<Arc<Target>>,
    pub(crate) rules: Rules,
}

/// Limits of a request, before its instance is known: where several revisions take part, the most
/// generous of each, except that predictions are sent again only if all revisions allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) max_body: u64,
    /// Until the response's head.
    pub(crate) head_timeout: Duration,
    /// The whole exchange, if the manifest limits it.
    pub(crate) whole_timeout: Option<Duration>,
    /// Requests that may wait.
    pub(crate) queue: usize,
    pub(crate) retryable: bool,
}

/// One ready instance as one table describes it.
pub(crate) struct Target {
    pub(crate) instance: Arc<Instance>,
    pub(crate) endpoint: Endpoint,
    /// `host` of requests to it.
    pub(crate) host: HeaderValue,
    /// `berth-instance`.
    pub(crate) id: HeaderValue,
    pub(crate) revision: Arc<Revision>,
}

/// One revision as one table describes it.
pub(crate) struct Revision {
    /// `berth-revision`.
    pub(crate) number: HeaderValue,
    /// `berth-service`.
    pub(crate) service: HeaderValue,
    pub(crate) predict_path: Option<String>,
    /// Requests at a time per instance.
    pub(crate) concurrency: Option<u64>,
    /// The service's waiting requests, told when a place becomes free.
    pub(crate) queue: Arc<Queue>,
    pub(crate) metrics: Arc<RevisionMetrics>,
}
