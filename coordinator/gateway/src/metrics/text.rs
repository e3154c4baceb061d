//! Metrics as Prometheus reads them (text format 0.0.4).

use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use berth_model::id::{InstanceId, ServiceName};
use berth_model::route::Order;

use super::{BOUNDS, ErrorCounts, ProcessMetrics, RevisionMetrics, Totals};
use crate::refusal::ErrorKind;

/// Everything a scrape shows.
pub(crate) struct Scrape<'a> {
    pub(crate) process: &'a ProcessMetrics,
    pub(crate) revisions: Vec<Arc<RevisionMetrics>>,
    pub(crate) services: Vec<ServiceFigures>,
    pub(crate) in_flight: Vec<(InstanceId, u64)>,
    pub(crate) current: Option<Order>,
    pub(crate) acknowledged: Option<Order>,
}

/// What is counted by service.
pub(crate) struct ServiceFigures {
    pub(crate) name: ServiceName,
    pub(crate) errors: Arc<ErrorCounts>,
    /// Requests in line.
    pub(crate) queued: usize,
    /// Requests that wait for a relay.
    pub(crate) away: usize,
}

/// Writing to a `String` cannot fail, so results of `writeln!` are not looked at here.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP berth_gateway_{name} {help}");
        let _ = writeln!(self.0, "# TYPE berth_gateway_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "berth_gateway_{name} {value}")
        } else {
            writeln!(self.0, "berth_gateway_{name}{{{labels}}} {value}")
        };
    }
}

pub(crate) fn render(scrape: &Scrape<'_>) -> String {
    let mut text = Text(String::with_capacity(4096));
    let revisions: Vec<(String, Totals)> = scrape
        .revisions
        .iter()
        .map(|m| {
            let labels = format!("service=\"{}\",revision=\"{}\"", m.service, m.revision);
            (labels, m.totals())
        })
        .collect();
    requests(&mut text, &revisions);
    per_revision(&mut text, &revisions);
    errors(&mut text, scrape);
    text.family("in_flight", "gauge", "Requests in flight by instance.");
    for (id, count) in &scrape.in_flight {
        let slot = &id.slot;
        let labels = format!(
            "service=\"{}\",revision=\"{}\",instance=\"{id}\"",
            slot.service, slot.revision
        );
        text.sample("in_flight", &labels, count);
    }
    connections(&mut text, scrape.process);
    table(&mut text, "table", "in force", scrape.current);
    table(
        &mut text,
        "table_acknowledged",
        "that every thread uses",
        scrape.acknowledged,
    );
    text.0
}

fn requests(text: &mut Text, revisions: &[(String, Totals)]) {
    text.family(
        "requests_total",
        "counter",
        "Requests by revision and class of status code.",
    );
    for (labels, totals) in revisions {
        for (class, count) in totals.classes.iter().enumerate() {
            if *count > 0 {
                let labels = format!("{labels},code=\"{}xx\"", class + 1);
                text.sample("requests_total", &labels, count);
            }
        }
    }
    let name = "request_duration_seconds";
    text.family(
        name,
        "histogram",
        "Time from a request's head to its response's last byte.",
    );
    for (labels, totals) in revisions {
        let mut sum = 0;
        for (bound, count) in BOUNDS.iter().zip(&totals.buckets) {
            sum += count;
            let labels = format!("{labels},le=\"{}\"", seconds(*bound));
            text.sample("request_duration_seconds_bucket", &labels, sum);
        }
        sum += totals.buckets[BOUNDS.len()];
        let open = format!("{labels},le=\"+Inf\"");
        text.sample("request_duration_seconds_bucket", &open, sum);
        text.sample(
            "request_duration_seconds_sum",
            labels,
            seconds(totals.sum_us),
        );
        text.sample("request_duration_seconds_count", labels, sum);
    }
}

/// Exact, where a float would round.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn per_revision(text: &mut Text, revisions: &[(String, Totals)]) {
    type Field = (&'static str, &'static str, fn(&Totals) -> u64);
    const FIELDS: [Field; 3] = [
        (
            "retries_total",
            "Requests sent again after an instance failed.",
            |t| t.retries,
        ),
        (
            "sit_outs_total",
            "Times an instance was left out after a failure.",
            |t| t.sit_outs,
        ),
        (
            "upstream_connect_errors_total",
            "Failed connections to instances.",
            |t| t.connect_errors,
        ),
    ];
    for (name, help, get) in FIELDS {
        text.family(name, "counter", help);
        for (labels, totals) in revisions {
            text.sample(name, labels, get(totals));
        }
    }
}

fn errors(text: &mut Text, scrape: &Scrape<'_>) {
    let help = "The gateway's own answers by berth-error; no service where it is not known.";
    text.family("errors_total", "counter", help);
    let unknown = ("", &scrape.process.errors);
    let known = scrape
        .services
        .iter()
        .map(|s| (s.name.as_str(), &*s.errors));
    for (service, counts) in std::iter::once(unknown).chain(known) {
        for kind in ErrorKind::ALL {
            let count = counts.get(kind);
            if count > 0 {
                let labels = format!("service=\"{service}\",error=\"{}\"", kind.as_str());
                text.sample("errors_total", &labels, count);
            }
        }
    }
    text.family(
        "queued",
        "gauge",
        "Requests that wait for a place at an instance.",
    );
    for s in &scrape.services {
        text.sample("queued", &format!("service=\"{}\"", s.name), s.queued);
    }
    text.family(
        "waiting_for_relay",
        "gauge",
        "Requests that met a relay that is away and have no answer yet.",
    );
    for s in &scrape.services {
        let labels = format!("service=\"{}\"", s.name);
        text.sample("waiting_for_relay", &labels, s.away);
    }
}

fn connections(text: &mut Text, process: &ProcessMetrics) {
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    text.family("connections", "gauge", "Open client connections.");
    text.sample("connections", "", read(&process.open));
    text.family(
        "connections_total",
        "counter",
        "Client connections accepted.",
    );
    text.sample("connections_total", "", read(&process.accepted));
    text.family(
        "connections_refused_total",
        "counter",
        "Client connections over the limit.",
    );
    text.sample("connections_refused_total", "", read(&process.refused));
}

fn table(text: &mut Text, name: &str, which: &str, version: Option<Order>) {
    let Some(Order {
        epoch,
        term,
        generation,
    }) = version
    else {
        return;
    };
    for (part, value) in [("epoch", epoch), ("term", term), ("generation", generation)] {
        let name = format!("{name}_{part}");
        text.family(
            &name,
            "gauge",
            &format!("The {part} of the route table {which}."),
        );
        text.sample(&name, "", value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;

    #[test]
    fn prometheus_text() {
        let process = ProcessMetrics::default();
        process.errors.count(ErrorKind::NoService);
        let service: ServiceName = "dga".parse().unwrap();
        let revision = Arc::new(RevisionMetrics::new(&service, 2, 1));
        revision.request(0, StatusCode::OK, Duration::from_millis(2));
        let text = render(&Scrape {
            process: &process,
            revisions: vec![revision],
            services: vec![ServiceFigures {
                name: service,
                errors: Arc::default(),
                queued: 4,
                away: 2,
            }],
            in_flight: vec![("dga.2.0.1".parse().unwrap(), 3)],
            current: Some(Order {
                epoch: 1,
                term: 2,
                generation: 7,
            }),
            acknowledged: None,
        });
        for line in [
            "berth_gateway_requests_total{service=\"dga\",revision=\"2\",code=\"2xx\"} 1",
            "berth_gateway_request_duration_seconds_bucket{service=\"dga\",revision=\"2\",le=\"0.001\"} 0",
            "berth_gateway_request_duration_seconds_bucket{service=\"dga\",revision=\"2\",le=\"0.002\"} 1",
            "berth_gateway_request_duration_seconds_bucket{service=\"dga\",revision=\"2\",le=\"+Inf\"} 1",
            "berth_gateway_request_duration_seconds_sum{service=\"dga\",revision=\"2\"} 0.002",
            "berth_gateway_in_flight{service=\"dga\",revision=\"2\",instance=\"dga.2.0.1\"} 3",
            "berth_gateway_errors_total{service=\"\",error=\"no-service\"} 1",
            "berth_gateway_queued{service=\"dga\"} 4",
            "berth_gateway_waiting_for_relay{service=\"dga\"} 2",
            "berth_gateway_table_generation 7",
            "berth_gateway_connections 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in:\n{text}");
        }
        assert!(!text.contains("table_acknowledged"));
    }

    #[test]
    fn seconds_are_exact() {
        assert_eq!(seconds(500), "0.0005");
        assert_eq!(seconds(30_000_000), "30");
        assert_eq!(seconds(0), "0");
        assert_eq!(seconds(1_234_567), "1.234567");
    }
}
