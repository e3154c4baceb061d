use std::collections::BTreeMap;

use berth_model::api::{
    BlobView, ClusterView, CreateJob, Deploy, DrainNode, DrainView, GatewayView, InstanceView,
    JobFile, JobInput, JobStatus, JobView, LabelNode, ModelVersionView, NodeView, RevisionView,
    ServiceState, ServiceView, ShardState, ShardView, StatusProblem, StatusView, TokenView,
};
use berth_model::event::{Event, Level};
use berth_model::instance::{InstanceStatus, Phase, Reason, Stage};
use berth_model::job::{TaskFailure, TaskOutput};
use berth_model::node::{
    Condition, Facts, Gpu, GpuStatistics, NodeState, NodeStatistics, RuntimeKind,
};
use berth_model::problem::Problem;
use berth_model::record::{LogLine, Stream};
use berth_model::relay::RelayFacts;
use berth_model::resources::Resources;
use berth_model::time::{Span, Timestamp};
use serde::Serialize;

use super::*;

mod declared;

/// Checks a value against the part of JSON Schema that the document uses.
fn check(schemas: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.rsplit('/').next().unwrap();
        assert!(schemas[name].is_object(), "{at}: no schema {name}");
        return check(schemas, &schemas[name], value, &format!("{at}<{name}>"));
    }
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is not in {words:?}");
    }
    match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap();
                assert!(fields.contains_key(name), "{at}: {name} is missing");
            }
            for (name, field) in fields {
                let known = &schema["properties"][name];
                let further = &schema["additionalProperties"];
                let known = if known.is_null() { further } else { known };
                assert!(!known.is_null(), "{at}: {name} is not described");
                check(schemas, known, field, &format!("{at}.{name}"));
            }
        }
        Value::Array(items) => {
            for item in items {
                check(schemas, &schema["items"], item, &format!("{at}[]"));
            }
        }
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let wanted = match value {
                Value::Bool(_) => "boolean",
                Value::String(_) => "string",
                _ => "integer or number",
            };
            let kind = schema["type"].to_string();
            let fits = kind
                .split('"')
                .any(|word| !word.is_empty() && wanted.contains(word));
            assert!(fits || *schema == json!(true), "{at}: {value} is no {kind}");
        }
    }
}

fn described<T: Serialize>(name: &str, value: &T) {
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap();
    let value = serde_json::to_value(value).unwrap();
    check(&schemas, &reference(name), &value, name);
}

fn status() -> InstanceStatus {
    InstanceStatus {
        id: "web.1.0.1".parse().unwrap(),
        phase: Phase::Backoff,
        start: 1,
        restarts: 1,
        address: Some("127.0.0.1:21000".parse().unwrap()),
        reason: Some(Reason::Exited {
            process: "module".to_owned(),
            code: 1,
        }),
        last_lines: vec!["oh".to_owned()],
        pid: Some(7),
        since: Timestamp(1),
        digest: Some(format!("sha256:{}", "0".repeat(64)).parse().unwrap()),
        output: None,
        gpus: vec!["GPU-1".to_owned()],
    }
}

fn service() -> ServiceView {
    let digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    ServiceView {
        name: "web".parse().unwrap(),
        state: ServiceState::Degraded,
        replicas: 2,
        ready: 1,
        revision: 1,
        model: "web".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        serial: 1,
        max_unavailable: 1,
        fleet: Some("soc".parse().unwrap()),
        revisions: vec![RevisionView {
            number: 1,
            model: "web".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            serial: 1,
            digest,
            runtime: RuntimeKind::Process,
            pool: Some("gpu".to_owned()),
            spread: Some(vec!["rack".to_owned()]),
            replicas: 2,
            ready: 1,
        }],
        instances: vec![InstanceView {
            node: "n1".parse().unwrap(),
            node_state: NodeState::Ready,
            stage: Stage::Running,
            gpus: vec!["GPU-1".to_owned()],
            status: status(),
            created: Timestamp(1),
        }],
        reasons: vec!["no room".to_owned()],
        rejected: [("n1".parse().unwrap(), "no GPU".to_owned())].into(),
        created: Timestamp(1),
        updated: Timestamp(1),
    }
}

#[test]
fn answers_of_services_and_models_are_as_described() {
    described("ServiceView", &service());
    described(
        "ModelVersionView",
        &ModelVersionView {
            name: "web".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            serial: 1,
            digest: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
            archive_bytes: 1,
            unpacked_bytes: 1,
            description: String::new(),
            task: String::new(),
            metrics: BTreeMap::from([("accuracy".to_owned(), 0.5)]),
            resources: Resources::default(),
            pushed: Timestamp(1),
        },
    );
    described(
        "BlobView",
        &BlobView {
            digest: format!("blake3:{}", "0".repeat(64)).parse().unwrap(),
            offset: 1,
            complete: false,
        },
    );
}

#[test]
fn answers_about_jobs_are_as_described() {
    let output = TaskOutput {
        blob: format!("blake3:{}", "0".repeat(64)).parse().unwrap(),
        bytes: 1,
        folder: true,
    };
    described(
        "JobView",
        &JobView {
            name: "score".parse().unwrap(),
            state: JobStatus::Failed,
            model: "web".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            serial: 1,
            digest: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
            runtime: RuntimeKind::Process,
            completions: 1,
            parallelism: 1,
            retries: 1,
            deadline: Some(Span::secs(1)),
            done: 1,
            running: 1,
            waiting: 1,
            failed: 1,
            shards: vec![ShardView {
                index: 0,
                state: ShardState::Done,
                input_bytes: 1,
                attempts: 1,
                task: service().instances.pop(),
                output: Some(output),
            }],
            reason: Some(Reason::SupervisorLost),
            reasons: vec!["no room".to_owned()],
            failures: vec![TaskFailure {
                task: "score.1.0.1".parse().unwrap(),
                reason: Reason::SupervisorLost,
                last_lines: vec!["oh".to_owned()],
                time: Timestamp(1),
            }],
            note: Some(String::new()),
            created: Timestamp(1),
            ended: Some(Timestamp(2)),
        },
    );
}

#[test]
fn requests_for_jobs_are_as_described() {
    described(
        "CreateJob",
        &CreateJob {
            model: "web".to_owned(),
            name: Some("score".parse().unwrap()),
            request: Some(String::new()),
            runtime: Some(RuntimeKind::Docker),
            pool: Some(String::new()),
            env: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            completions: Some(1),
            parallelism: Some(1),
            retries: Some(1),
            deadline: Some(Span::secs(1)),
            input: Some(JobInput {
                folder: true,
                files: vec![JobFile {
                    name: String::new(),
                    blob: format!("blake3:{}", "0".repeat(64)).parse().unwrap(),
                    bytes: 1,
                }],
            }),
        },
    );
}

#[test]
fn requests_for_services_and_nodes_are_as_described() {
    described(
        "Deploy",
        &Deploy {
            model: "web".to_owned(),
            max_unavailable: Some(0),
            ..Deploy::default()
        },
    );
    described(
        "DrainNode",
        &DrainNode {
            deadline: Some(Span::secs(1)),
            force: true,
        },
    );
    described(
        "LabelNode",
        &LabelNode {
            set: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            remove: vec!["c".to_owned()],
        },
    );
}

fn drain() -> DrainView {
    DrainView {
        started: Timestamp(1),
        total: 2,
        moved: 1,
        left: Span::secs(1),
        force: true,
        stuck: true,
        drained: Some(Timestamp(2)),
        reasons: vec!["no room".to_owned()],
    }
}

#[test]
fn answers_about_the_fleet_are_as_described() {
    let gateway = GatewayView {
        untold: vec!["n1".parse().unwrap()],
        name: "g".parse().unwrap(),
        url: String::new(),
        connected: true,
        revoked: false,
        current: true,
    };
    described(
        "NodeView",
        &NodeView {
            name: "n1".parse().unwrap(),
            state: NodeState::Silent,
            cordoned: false,
            drain: Some(drain()),
            facts: Facts {
                runtimes: vec![RuntimeKind::Process],
                conditions: vec![Condition::default()],
                gpus: vec![Gpu::default()],
                virtualization: Some("kvm".to_owned()),
                relay: Some(RelayFacts {
                    address: "10.0.0.7:7460".parse().unwrap(),
                    key: "00".to_owned(),
                }),
                isolation: Some(berth_model::node::Isolation {
                    launcher: "systemd".to_owned(),
                    enforced: vec!["memory".to_owned()],
                    missing: vec!["egress: ports are not looked at".to_owned()],
                }),
                ..Facts::default()
            },
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            instances: vec!["web.1.0.1".parse().unwrap()],
            joined: Timestamp(1),
            statistics: Some(NodeStatistics {
                gpus: vec![GpuStatistics {
                    busy_percent: Some(1),
                    ..GpuStatistics::default()
                }],
                relay: Some(berth_model::relay::RelayStatistics::default()),
                ..NodeStatistics::default()
            }),
        },
    );
    described(
        "ClusterView",
        &ClusterView {
            name: "prod".parse().unwrap(),
            state: "ready".into(),
            reason: String::new(),
            since: Timestamp(1),
            namespace: "berth".into(),
            labels: BTreeMap::from([("pool".to_owned(), "gpu".to_owned())]),
            instances: vec!["web.1.0.1".parse().unwrap()],
        },
    );
    described(
        "TokenView",
        &TokenView {
            token: String::new(),
            expires: Timestamp(1),
        },
    );
    described(
        "StatusView",
        &StatusView {
            version: String::new(),
            problems: vec![StatusProblem {
                level: Level::Warning,
                subject: String::new(),
                message: String::new(),
            }],
            nodes: BTreeMap::from([("ready".to_owned(), 1)]),
            services: BTreeMap::new(),
            instances: BTreeMap::new(),
            gateways: vec![gateway],
            jobs: BTreeMap::from([("running".to_owned(), 1)]),
            transport: "relay".to_owned(),
        },
    );
}

#[test]
fn problems_events_and_lines_are_as_described() {
    let mut problem = Problem::not_found("x");
    problem.errors.push("y".to_owned());
    described("Problem", &problem);
    described(
        "Event",
        &Event {
            seq: 1,
            time: Timestamp(1),
            level: Level::Info,
            kind: String::new(),
            subject: String::new(),
            message: String::new(),
        },
    );
    described(
        "LogLine",
        &LogLine {
            time_nanos: 1,
            instance: "web.1.0.1".parse().unwrap(),
            start: 1,
            process: String::new(),
            stream: Stream::Berth,
            text: String::new(),
            raw: Some(String::new()),
            partial: true,
            gap_lines: 3,
        },
    );
}

#[test]
fn every_endpoint_is_in_the_document_and_every_reference_leads_somewhere() {
    let document = document();
    let mut ids = std::collections::BTreeSet::new();
    for endpoint in endpoint::all() {
        let operation = &document["paths"][endpoint.path][endpoint.method.to_lowercase()];
        assert!(operation["summary"].is_string(), "{}", endpoint.path);
        let id = operation["operationId"].as_str().unwrap().to_owned();
        assert!(ids.insert(id), "{}", endpoint.path);
        let open = operation["security"] == json!([]);
        assert_eq!(open, endpoint.access == Access::Open, "{}", endpoint.path);
    }
    let text = document.to_string();
    for part in text.split("#/components/").skip(1) {
        let path = part.split('"').next().unwrap();
        let target = document.pointer(&format!("/components/{path}"));
        assert!(target.is_some(), "{path}");
    }
}
