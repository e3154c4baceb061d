//! `kind = "tf-serving"`: `tensorflow_model_server` with configuration files of Berth's own.
//!
//! It wants its models at `BASE/VERSION/`, and a version is the model version's serial. So the work folder gets
//! `models/NAME/SERIAL`, a link to the model in the package, where NAME is the service's name, as in every URL.
//! The flags are those of tensorflow/serving's `model_servers/main.cc`.

mod config;
mod textproto;
pub mod words;

use std::path::PathBuf;

use berth_model::instance::InstanceSpec;
use berth_model::manifest::TfServing;
use berth_shim::spec::ProcessSpec;

use super::environment::{environment, model_dir};
use super::{Address, Grpc, Item, MODULE, Place};

/// Where it publishes its own metrics, on the REST port.
pub const METRICS_PATH: &str = "/monitoring/prometheus/metrics";

/// Name in the work folder under which its gRPC socket is found.
pub const SOCKET_LINK: &str = "grpc.sock";

const MODELS: &str = "models";
const MODEL_CONFIG: &str = "tf-serving/models.pbtxt";
const BATCHING: &str = "tf-serving/batching.pbtxt";
const MONITORING: &str = "tf-serving/monitoring.pbtxt";

/// What it asks of REST to learn whether its model can be used.
pub fn status_path(spec: &InstanceSpec) -> String {
    let name = &spec.id.slot.service;
    format!("/v1/models/{name}/versions/{}", spec.serial)
}

/// The models' folder, the configuration files and the way to its socket.
pub(super) fn layout(spec: &InstanceSpec, place: &Place<'_>) -> Vec<Item> {
    let base = PathBuf::from(MODELS).join(spec.id.slot.service.as_str());
    let file = |path: &str, content| Item::File {
        path: path.into(),
        content,
    };
    let mut items = vec![
        Item::Folder(MODELS.into()),
        Item::Link {
            path: base.join(spec.serial.to_string()),
            target: model_dir(spec, place.package),
        },
        file(
            MODEL_CONFIG,
            config::models(spec, &place.work.join(base).to_string_lossy()),
        ),
        file(MONITORING, config::monitoring(METRICS_PATH)),
    ];
    if let Some(batching) = batching(spec) {
        items.push(file(BATCHING, config::batching(batching)));
    }
    if let Grpc::Socket(path) = place.grpc {
        items.push(Item::Link {
            path: SOCKET_LINK.into(),
            target: path.to_owned(),
        });
    }
    items
}

/// Batching is on where the manifest says how: a model whose inputs have no batch dimension cannot be batched.
fn batching(spec: &InstanceSpec) -> Option<&TfServing> {
    let said = spec.manifest.tf_serving.as_ref();
    said.filter(|said| !said.batching.is_empty())
}

/// The process: REST at `at`.
pub(super) fn process(spec: &InstanceSpec, place: &Place<'_>, at: Address) -> ProcessSpec {
    ProcessSpec {
        name: MODULE.to_owned(),
        argv: argv(spec, place, at.port),
        env: environment(spec, place, at),
        cwd: place.work.to_owned(),
        primary: true,
    }
}

fn argv(spec: &InstanceSpec, place: &Place<'_>, rest: u16) -> Vec<String> {
    let default = TfServing::default();
    let said = spec.manifest.tf_serving.as_ref().unwrap_or(&default);
    let work = |path: &str| place.work.join(path).to_string_lossy().into_owned();
    let mut argv = vec![place.model_server.to_owned()];
    match place.grpc {
        Grpc::Socket(path) => argv.extend([
            "--port=0".to_owned(),
            format!("--grpc_socket_path={}", path.display()),
        ]),
        Grpc::Port(port) => argv.push(format!("--port={port}")),
    }
    argv.extend([
        format!("--rest_api_port={rest}"),
        format!("--model_config_file={}", work(MODEL_CONFIG)),
        format!("--monitoring_config_file={}", work(MONITORING)),
        "--allow_version_labels_for_unavailable_models=true".to_owned(),
        format!("--enable_model_warmup={}", said.warmup),
        // One more try a minute later would only hide the error for a minute.
        "--max_num_load_retries=0".to_owned(),
    ]);
    if batching(spec).is_some() {
        argv.push("--enable_batching=true".to_owned());
        argv.push(format!("--batching_parameters_file={}", work(BATCHING)));
    }
    argv.extend(parallelism(spec, said));
    // Last: of a flag that is given twice, the second counts.
    argv.extend(said.extra_flags.iter().cloned());
    argv
}

/// As many threads as the instance has cores, unless the manifest says otherwise. (Saying both the session's
/// parallelism and these is an error to it.)
fn parallelism(spec: &InstanceSpec, said: &TfServing) -> Vec<String> {
    let cores = spec.manifest.resources.cpu_millis.div_ceil(1000);
    let own = |flag: &String| {
        let name = flag.split('=').next().unwrap_or_default();
        name.starts_with("--tensorflow_") && name.ends_with("_parallelism")
    };
    if cores == 0 || said.extra_flags.iter().any(own) {
        return Vec::new();
    }
    vec![
        format!("--tensorflow_intra_op_parallelism={cores}"),
        format!("--tensorflow_inter_op_parallelism={cores}"),
    ]
}
