//! Instances: what is wanted of them, what agents report, and why things are as they are.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, PackageDigest};
use crate::id::InstanceId;
use crate::job::{TaskOutput, TaskSpec};
use crate::manifest::Manifest;
use crate::node::RuntimeKind;
use crate::place::Place;
use crate::resources::Resources;
use crate::time::{Bytes, Span, Timestamp};

/// What an agent needs to run one instance: one entry of its desired set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Which instance.
    pub id: InstanceId,
    /// The package to run.
    pub digest: PackageDigest,
    /// The archive that holds the package.
    pub blob: BlobDigest,
    /// The archive's size in bytes.
    pub blob_bytes: u64,
    /// The model's semantic version.
    pub version: semver::Version,
    /// The model version's serial.
    pub serial: u64,
    /// What starts it.
    pub runtime: RuntimeKind,
    /// The package's manifest.
    pub manifest: Manifest,
    /// The service's environment variables; they win over the manifest's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Whether it shall run or stop.
    pub intent: Intent,
    /// Set for a task of a job: it runs once, to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskSpec>,
    /// UUIDs of the GPUs that are its own; it sees no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
}

/// What the coordinator wants of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// Run, and restart when it ends.
    Run,
    /// Stop in order, stay stopped, keep what is needed to ship the logs.
    Stop,
}

/// Where an instance is in its life, as its agent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Committed by the coordinator; its agent has not reported it yet.
    #[default]
    Assigned,
    /// The package is fetched and unpacked.
    Preparing,
    /// The process runs, no check has passed yet.
    Starting,
    /// The check passes and the socket is the instance's own.
    Healthy,
    /// It was healthy and its checks fail now.
    Unhealthy,
    /// It ended and waits to be started again.
    Backoff,
    /// It is being stopped.
    Stopping,
    /// It has ended for good and holds no place any more.
    Stopped,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Assigned => "assigned",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Backoff => "backoff",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        })
    }
}

/// Why an instance's last start ended or why it is not healthy: typed, with what people need to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// A process exited by itself.
    Exited {
        /// Which named process.
        process: String,
        /// Its exit code.
        code: i32,
    },
    /// A process was ended by a signal that Berth did not send.
    Signaled {
        /// Which named process.
        process: String,
        /// The signal's number.
        signal: i32,
    },
    /// A process could not be started.
    FailedToStart {
        /// Which named process.
        process: String,
        /// The system's words.
        error: String,
    },
    /// No check passed within the start time-out.
    StartTimeout {
        /// The last check's outcome.
        last_check: String,
        /// The time-out in milliseconds.
        after_ms: u64,
    },
    /// Nothing of the instance listens on its port, but it listens elsewhere.
    WrongPort {
        /// The port it was told.
        expected: u16,
        /// What it listens on instead.
        found: Vec<u16>,
    },
    /// The port it was told is held by a process that is not the instance's.
    PortTaken {
        /// The port.
        port: u16,
        /// The other process, if it can be seen.
        pid: Option<u32>,
    },
    /// Its checks failed while it ran.
    ChecksFailed {
        /// The last check's outcome.
        last_check: String,
    },
    /// The shim that looked after it was killed.
    SupervisorLost,
    /// The machine was restarted under it.
    Rebooted,
    /// The package cannot be had or is not what it should be.
    Package {
        /// What is wrong with it and what to do.
        error: String,
    },
    /// The node cannot run it as it is.
    Node {
        /// What is wrong and what to do.
        error: String,
    },
    /// It used more memory than it may.
    OutOfMemory {
        /// Which named process was ended.
        process: String,
        /// Its limit in bytes, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
        /// The most it used in bytes, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peak: Option<u64>,
    },
    /// The model cannot be loaded.
    ModelLoad {
        /// The model server's own words.
        error: String,
    },
    /// The container image cannot be had.
    Image {
        /// The image.
        image: String,
        /// What building or pulling said, and what to do.
        error: String,
    },
    /// Kubernetes finds no place for its Pod.
    Unschedulable {
        /// The scheduler's words.
        error: String,
    },
    /// Kubernetes refuses to make its Pod: a quota, an admission rule, a missing right.
    Refused {
        /// Its words, and what to do.
        error: String,
    },
    /// Its Pod was evicted from its machine.
    Evicted {
        /// The kubelet's words.
        error: String,
    },
    /// Somebody else deleted what it ran in.
    Deleted {
        /// What is gone, as in `Job berth-web-1-0-1`.
        what: String,
    },
    /// It ran longer than its deadline.
    DeadlineExceeded {
        /// The deadline in milliseconds.
        after_ms: u64,
    },
    /// A task's input cannot be had.
    Input {
        /// What is wrong with it, and what to do.
        error: String,
    },
    /// A task ended well, and what it left as its output cannot be used.
    Output {
        /// What is wrong with it, and what to do.
        error: String,
    },
    /// A task did all of its work.
    Completed,
    /// It was stopped because that was wanted.
    StopRequested,
    /// It had to be killed after the stop grace.
    KilledAfterGrace,
    /// A reason from a newer version that this one does not know.
    #[serde(other)]
    Unknown,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited { process, code } => write!(f, "{process} exited with code {code}"),
            Self::Signaled { process, signal } => {
                write!(f, "{process} was ended by signal {signal}")
            }
            Self::FailedToStart { process, error } => {
                write!(f, "{process} could not be started: {error}")
            }
            Self::StartTimeout {
                last_check,
                after_ms,
            } => write!(
                f,
                "not healthy within {} (last check: {last_check})",
                Span::millis(*after_ms)
            ),
            Self::WrongPort { expected, found } => {
                let found: Vec<String> = found.iter().map(u16::to_string).collect();
                write!(
                    f,
                    "listens on port {}, not on $PORT ({expected})",
                    found.join(", ")
                )
            }
            Self::PortTaken {
                port,
                pid: Some(pid),
            } => {
                write!(f, "port {port} is held by another process (pid {pid})")
            }
            Self::PortTaken { port, pid: None } => {
                write!(f, "port {port} is held by another process")
            }
            Self::ChecksFailed { last_check } => write!(f, "health checks fail: {last_check}"),
            Self::SupervisorLost => f.write_str("supervisor-lost: the instance's shim was killed"),
            Self::Rebooted => f.write_str("the machine was restarted"),
            Self::Package { error } => write!(f, "package: {error}"),
            Self::Node { error } => write!(f, "node: {error}"),
            Self::OutOfMemory {
                process,
                limit,
                peak,
            } => {
                write!(f, "out of memory: {process} was ended")?;
                if let Some(limit) = limit {
                    write!(f, "; its limit is {}", Bytes(*limit))?;
                }
                if let Some(peak) = peak {
                    write!(f, ", the most it used {}", Bytes(*peak))?;
                }
                Ok(())
            }
            Self::ModelLoad { error } => write!(f, "the model cannot be loaded: {error}"),
            Self::Image { image, error } => write!(f, "image {image}: {error}"),
            Self::Unschedulable { error } => write!(f, "unschedulable: {error}"),
            Self::Refused { error } => write!(f, "refused by Kubernetes: {error}"),
            Self::Evicted { error } => write!(f, "evicted: {error}"),
            Self::Deleted { what } => write!(f, "{what} was deleted by somebody else"),
            Self::DeadlineExceeded { after_ms } => {
                write!(
                    f,
                    "deadline: it ran longer than {}",
                    Span::millis(*after_ms)
                )
            }
            Self::Input { error } => write!(f, "input: {error}"),
            Self::Output { error } => write!(f, "output: {error}"),
            Self::Completed => f.write_str("completed"),
            Self::StopRequested => f.write_str("stopped as requested"),
            Self::KilledAfterGrace => f.write_str("killed: it ignored SIGTERM for its stop grace"),
            Self::Unknown => f.write_str("a reason that this version does not know"),
        }
    }
}

/// What an agent reports of one instance. Order within an agent: (agent incarnation, `seq`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Which instance.
    pub id: InstanceId,
    /// Where it is in its life.
    pub phase: Phase,
    /// Number of its current or last start, from 1; 0 before the first.
    #[serde(default)]
    pub start: u32,
    /// Restarts after a start that ended by itself.
    #[serde(default)]
    pub restarts: u32,
    /// The address a gateway dials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Why it is not healthy, or why the last start ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Last lines of its output, when it ended or does not get healthy.
    #[serde(default)]
    pub last_lines: Vec<String>,
    /// Process id of the module, for people and tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When it took this phase.
    pub since: Timestamp,
    /// The spec it runs, so that a restored coordinator can adopt it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<PackageDigest>,
    /// Of a task that ended well: what it left, already on the coordinator's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<TaskOutput>,
    /// UUIDs of the GPUs that are its own, so that a restored coordinator gives them to no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
}

/// What the store keeps of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Which instance.
    pub id: InstanceId,
    /// Where it runs.
    #[serde(alias = "node")]
    pub place: Place,
    /// In a cluster: the Job and the Pod it is in, once they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRecord>,
    /// What is reserved for it on its node; none in a record from before reservations were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Resources>,
    /// UUIDs of the node's GPUs that are its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// How far its stopping has come; only ever moves forward.
    pub stage: Stage,
    /// Latest status from its agent.
    pub status: InstanceStatus,
    /// When it was created.
    pub created: Timestamp,
}

/// What is known of an instance's Job and Pod. Neither is ever exchanged for another: what is not of this
/// Job is not this instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PodRecord {
    /// The Kubernetes Job's UID.
    pub job_uid: String,
    /// The Pod's name.
    #[serde(default)]
    pub name: String,
    /// The Pod's UID.
    #[serde(default)]
    pub uid: String,
    /// SHA-256 of the Pod's public key, hexadecimal, once it has joined.
    #[serde(default)]
    pub key_hash: String,
}

/// The coordinator's side of an instance's life; only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It shall run, and takes traffic when healthy.
    Running,
    /// Out of the route table; still runs until gateways have let go of it.
    Draining,
    /// Told to stop; waits for its agent's word.
    Stopping,
    /// Its node was declared lost; fenced: when the node returns, it is stopped.
    Lost,
}
