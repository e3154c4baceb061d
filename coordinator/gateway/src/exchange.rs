//! What belongs to one request while an instance is sought for it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, Response, Uri};

use crate::body::{Fault, GatewayBody, RequestBody};
use crate::headers::{BERTH_SERVICE, Said};
use crate::metrics::{ErrorCounts, RevisionMetrics};
use crate::path::{Call, Version, shown};
use crate::queue::Ticket;
use crate::refusal::Refusal;
use crate::routing::{Candidates, Lease, Picked, Routing, Rules, Service, Tried, pick};
use crate::worker::Worker;

pub(crate) struct Exchange<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) call: Call<'a>,
    /// The client's headers.
    pub(crate) given: &'a HeaderMap,
    pub(crate) said: Said<'a>,
    pub(crate) body: &'a RequestBody,
    pub(crate) rules: Rules,
    pub(crate) started: Instant,
    service: http::HeaderValue,
    errors: Arc<ErrorCounts>,
    /// The revision last tried: a failed request counts as its.
    tried: RefCell<Option<Arc<RevisionMetrics>>>,
}

/// What a request is made of, before its service is known.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) given: &'a HeaderMap,
    pub(crate) said: Said<'a>,
    pub(crate) body: &'a RequestBody,
    pub(crate) started: Instant,
}

/// What follows from a look at the table.
enum Step {
    Go(Lease),
    Wait,
    Join(Ticket),
    /// There is no instance that was not tried; with the reason.
    None(Refusal),
}

impl<'a> Exchange<'a> {
    /// Finds the service. Errors: there is none, it lacks the version, there is no table yet.
    pub(crate) fn new(
        worker: &'a Rc<Worker>,
        asked: Asked<'a>,
        call: Call<'a>,
    ) -> Result<Self, Refusal> {
        worker.with_table(|routing| {
            let (service, candidates) = find(routing, &call)?;
            Ok(Self {
                worker,
                method: asked.method,
                uri: asked.uri,
                given: asked.given,
                said: asked.said,
                body: asked.body,
                started: asked.started,
                call,
                rules: candidates.rules,
                service: service.name.clone(),
                errors: Arc::clone(&service.errors),
                tried: RefCell::new(None),
            })
        })
    }

    /// Looks at the announced length.
    pub(crate) fn admit_body(&self) -> Result<(), Refusal> {
        if self.body.limit(self.rules.max_body) {
            Ok(())
        } else {
            Err(Refusal::too_large(self.rules.max_body))
        }
    }

    pub(crate) fn head_deadline(&self) -> tokio::time::Instant {
        (self.started + self.rules.head_timeout).into()
    }

    /// When the response's body must be over, if the manifest says so.
    pub(crate) fn whole_deadline(&self) -> Option<tokio::time::Instant> {
        let timeout = self.rules.whole_timeout?;
        Some((self.started + timeout).into())
    }

    pub(crate) fn retryable(&self) -> bool {
        self.call.retryable(self.method, self.rules.retryable)
    }

    pub(crate) fn too_slow(&self) -> Refusal {
        Refusal::timeout(format!(
            "No response from service {:?} within {} ms.",
            shown(self.call.service),
            self.rules.head_timeout.as_millis()
        ))
    }

    /// What the client did wrong while an attempt was under way, if anything.
    pub(crate) fn client_fault(&self) -> Option<Refusal> {
        Some(match self.body.fault()? {
            Fault::TooLarge => Refusal::too_large(self.rules.max_body),
            Fault::Stalled => Refusal::slow_client(),
            Fault::Broken => Refusal::bad_request("The request's body broke off or is malformed."),
        })
    }

    /// Counts the gateway's own answer.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        self.errors.count(refusal.kind);
        if let Some(metrics) = &*self.tried.borrow() {
            metrics.request(self.worker.index, refusal.status, self.started.elapsed());
        }
    }

    pub(crate) fn label(&self, response: &mut Response<GatewayBody>) {
        response
            .headers_mut()
            .insert(BERTH_SERVICE, self.service.clone());
    }

    /// Chooses an instance, counted against it; waits in line if all have as much as they take.
    pub(crate) async fn place(&self, tried: &Tried) -> Result<Lease, Refusal> {
        let look = |in_line| {
            self.worker
                .with_table(|routing| self.step(routing, tried, in_line))
        };
        let mut ticket: Option<Ticket> = None;
        let lease = loop {
            match look(ticket.is_some())? {
                Step::Go(lease) => break lease,
                Step::None(refusal) => return Err(refusal),
                Step::Join(joined) => ticket = Some(joined),
                Step::Wait => {}
            }
            if let Some(ticket) = &ticket {
                ticket.turn().await;
            }
        };
        let metrics = Arc::clone(&lease.target.revision.metrics);
        *self.tried.borrow_mut() = Some(metrics);
        Ok(lease)
    }

    /// The time, near enough: that of the request where it has not waited yet.
    fn now(&self, in_line: bool, tried: &Tried) -> Instant {
        if in_line || tried.is_any() {
            Instant::now()
        } else {
            self.started
        }
    }

    /// One synchronous look: what it chooses is counted before the table is let go.
    fn step(&self, routing: &Routing, tried: &Tried, in_line: bool) -> Result<Step, Refusal> {
        let (service, candidates) = find(routing, &self.call)?;
        let others_wait = !in_line && service.queue.len() > 0;
        if !others_wait {
            let now = self.worker.shared.millis(self.now(in_line, tried));
            let mut rng = self.worker.rng.borrow_mut();
            match pick(&candidates.targets, tried, now, &mut *rng) {
                Picked::Lease(lease) => return Ok(Step::Go(lease)),
                Picked::None => return Ok(Step::None(no_instance(service, &self.call))),
                Picked::Full => {}
            }
        }
        if in_line {
            return Ok(Step::Wait);
        }
        match service.queue.join(candidates.rules.queue) {
            Some(ticket) => Ok(Step::Join(ticket)),
            None => Err(Refusal::overloaded(format!(
                "Service {:?} has no place left and {} requests waiting.",
                self.call.service,
                service.queue.len()
            ))),
        }
    }
}

fn find<'t>(
    routing: &'t Routing,
    call: &Call<'_>,
) -> Result<(&'t Service, &'t Candidates), Refusal> {
    if routing.sequence == 0 {
        return Err(Refusal::no_instance(
            "This gateway has no route table yet; it waits for the coordinator.",
        ));
    }
    let service = routing.services.get(call.service);
    let service = service.ok_or_else(|| Refusal::no_service(shown(call.service)))?;
    match (service.candidates(call.version), call.version) {
        (Some(candidates), _) => Ok((service, candidates)),
        (None, Version::Serial(serial)) => Err(Refusal::no_version(call.service, serial)),
        (None, Version::Any) => Err(no_instance(service, call)),
    }
}

fn no_instance(service: &Service, call: &Call<'_>) -> Refusal {
    let name = call.service;
    Refusal::no_instance(match service.unavailable_reason.as_str() {
        "" => format!("Service {name:?} has no instance that is ready."),
        reason => format!("Service {name:?} has no instance that is ready: {reason}"),
    })
}
