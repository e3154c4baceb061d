//! What a manifest says, after validation. The JSON form is what the store and the wire carry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::ModelName;
use crate::resources::Resources;
use crate::time::{Bytes, Span};

/// A validated manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// `[package]`.
    pub package: Package,
    /// `[model]`.
    pub model: Model,
    /// `[module]`.
    pub module: Module,
    /// `[tf-serving]`, for `kind = "tf-serving"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tf_serving: Option<TfServing>,
    /// `[transform]`: pre- and post-processing beside the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<Transform>,
    /// `[health]`.
    pub health: Health,
    /// `[job]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// `[resources]`.
    #[serde(default)]
    pub resources: Resources,
    /// `[network] egress`: what the module may dial; empty means nothing.
    #[serde(default)]
    pub egress: Vec<String>,
    /// `[[golden]]`: requests with their expected responses.
    #[serde(default)]
    pub golden: Vec<Golden>,
    /// `[limits]`.
    #[serde(default)]
    pub limits: Limits,
}

/// `[package]`: whose package this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// The model's name.
    pub name: ModelName,
    /// The model's version.
    pub version: semver::Version,
    /// For people; may be empty.
    #[serde(default)]
    pub description: String,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// `[model]`: the model's files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Folder or file inside the package, relative, `/`-separated; `.` is the package itself.
    pub path: String,
    /// What kind of files.
    pub format: ModelFormat,
    /// What the model does, as in `classification`; free text, may be empty.
    #[serde(default)]
    pub task: String,
    /// Measured quality, such as `accuracy = 0.97`.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// Inputs, as the author describes them (free TOML carried as JSON).
    #[serde(default)]
    pub inputs: serde_json::Value,
    /// Outputs, likewise.
    #[serde(default)]
    pub outputs: serde_json::Value,
}

/// `[model] format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelFormat {
    /// TensorFlow's SavedModel.
    SavedModel,
    /// ONNX.
    Onnx,
    /// Anything else; only the module knows.
    Custom,
}

/// `[module]`: the serving code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// TensorFlow Serving or the package's own.
    pub kind: ModuleKind,
    /// Program and arguments, relative programs from the package's folder. `${NAME}` of the
    /// variables that Berth provides is replaced. Empty only with `tf-serving`.
    #[serde(default)]
    pub command: Vec<String>,
    /// How the command is prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Further environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where predictions are posted if not at TF Serving's path, as in `/invocations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predict_path: Option<String>,
    /// What the module speaks.
    #[serde(default)]
    pub protocol: Protocol,
    /// Time between SIGTERM and SIGKILL.
    #[serde(default = "default_stop_grace")]
    pub stop_grace: Span,
    /// Dockerfile inside the package, for the docker and kubernetes runtimes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// Ready-made image, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Ten seconds, as long as Docker waits.
pub fn default_stop_grace() -> Span {
    Span::secs(10)
}

/// `[module] kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleKind {
    /// `tensorflow_model_server`.
    TfServing,
    /// The package's own server.
    Custom,
}

/// `[module] preset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The command is a program in the package.
    Binary,
    /// The command runs in a virtual environment made from `requirements.txt`.
    Python,
}

/// `[module] protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 in the clear.
    H2c,
}

/// `[tf-serving]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TfServing {
    /// Batching parameters by TF Serving's own names.
    pub batching: BTreeMap<String, serde_json::Value>,
    /// Further command-line flags.
    pub extra_flags: Vec<String>,
    /// Whether warm-up records of the SavedModel are replayed.
    pub warmup: bool,
}

/// No batching, no further flags, warm-up as TensorFlow Serving itself does it.
impl Default for TfServing {
    fn default() -> Self {
        Self {
            batching: BTreeMap::new(),
            extra_flags: Vec::new(),
            warmup: true,
        }
    }
}

/// `[transform]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transform {
    /// Program and arguments, as in [`Module::command`].
    pub command: Vec<String>,
}

/// `[health]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is asked.
    pub check: HealthCheck,
    /// Longest time from start to the first success.
    pub start_timeout: Span,
    /// Time between checks.
    pub interval: Span,
    /// Failures in a row that make a healthy instance unhealthy.
    pub unhealthy_after: u32,
}

/// One minute to start, a check every two seconds, three failures.
impl Default for Health {
    fn default() -> Self {
        Self {
            check: HealthCheck::Tcp,
            start_timeout: Span::secs(60),
            interval: Span::secs(2),
            unhealthy_after: 3,
        }
    }
}

/// What a health check asks of the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthCheck {
    /// `http = "/path"`: GET answers 2xx.
    Http(String),
    /// `grpc = true`: the gRPC health service says SERVING.
    Grpc,
    /// `tcp = true` (the default): the port accepts.
    Tcp,
}

/// `[job]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Program and arguments, as in [`Module::command`]. Empty: Berth's batch driver runs the module.
    #[serde(default)]
    pub command: Vec<String>,
    /// Rows that the batch driver puts into one request; none means its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// Requests that the batch driver has under way at a time; none means its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
}

/// `[[golden]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// Body to send.
    pub request: serde_json::Value,
    /// Body to expect.
    pub response: serde_json::Value,
    /// Largest difference of two numbers that count as equal.
    #[serde(default)]
    pub tolerance: f64,
}

/// `[limits]`, enforced by the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Requests at a time per instance; none means no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Requests that may wait for a place per service; none means the gateway's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// Longest time for a whole request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Largest request body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<Bytes>,
    /// Whether predictions may be sent to a second instance; none means yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
}
