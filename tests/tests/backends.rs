//! The examples, pushed, deployed and asked on every backend they run on; official clients unmodified.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use berth_tests::{
    Backend, Cluster, Options, TfServing, copy_folder, docker_node, example, output_of,
    tests_folder, until_some,
};
use serde_json::{Value, json};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

/// An example: its folder, its model, a request and its answer.
struct Case {
    folder: &'static str,
    model: &'static str,
    request: Value,
    predictions: Value,
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            folder: "batch",
            model: "domain-scores",
            request: json!({"instances": ["wikipedia.org"]}),
            predictions: json!([{"domain": "wikipedia.org", "score": 0.156672, "verdict": "benign"}]),
        },
        Case {
            folder: "flask",
            model: "url-risk",
            request: json!({"instances": ["https://debian.org/"]}),
            predictions: json!([{"url": "https://debian.org/", "risk": 0.062973, "verdict": "clean"}]),
        },
        Case {
            folder: "onnx",
            model: "login-anomaly",
            request: json!({"instances": [[14, 0, 3, 0], [3, 9, 8200, 1]]}),
            predictions: json!([
                {"score": 0.047426, "verdict": "usual"}, {"score": 1.0, "verdict": "unusual"}
            ]),
        },
        Case {
            folder: "tf-serving-transform",
            model: "dga-tensors",
            request: json!({"instances": ["wikipedia.org", "oufdvwrrtewihcn.co.uk"]}),
            predictions: json!([
                {"domain": "wikipedia.org", "score": 0.1567, "verdict": "benign"},
                {"domain": "oufdvwrrtewihcn.co.uk", "score": 0.8848, "verdict": "dga"},
            ]),
        },
    ]
}

/// A cluster whose nodes have TensorFlow Serving, and Docker where the backend needs it.
async fn cluster(backend: Backend, nodes: usize) -> Result<Cluster> {
    let mut options = Options::nodes(nodes);
    if backend == Backend::Kubernetes {
        options = Options::nodes(0);
        options.kubernetes = true;
    }
    options.agent = TfServing::find()?.agent_toml()?;
    if backend == Backend::Docker {
        options.agent.push_str(&docker_node()?);
    }
    Cluster::start(options, MODULE).await
}

async fn serve(cluster: &Cluster, backend: Backend, case: &Case) -> Result<()> {
    let folder = example(cluster.home(), case.folder)?;
    cluster.push_folder(&folder)?;
    cluster.cli_text(&["deploy", case.model, "--runtime", backend.name(), "--wait"])?;
    cluster.wait_ready(case.model, 1).await?;
    let body = case.request.to_string();
    let asked = cluster.cli_text(&["predict", case.model, "-d", &body])?;
    let answer: Value = serde_json::from_str(&asked)?;
    assert_eq!(answer["predictions"], case.predictions, "{}", case.folder);
    let url = format!(
        "{}/v1/models/{}:predict",
        cluster.client.gateway, case.model
    );
    let by_curl = output_of(Command::new("curl").args(["-sS", "--fail", "-d", &body, &url]))?;
    let answer: Value = serde_json::from_str(&by_curl)?;
    assert_eq!(answer["predictions"], case.predictions, "{}", case.folder);
    // Waited for: a cluster keeps what a coordinator that has gone had there.
    cluster.cli_text(&["service", "delete", case.model, "--wait"])?;
    Ok(())
}

async fn serves(backend: Backend, folder: &str) -> Result<()> {
    if !backend.wanted()? {
        return Ok(());
    }
    let cluster = cluster(backend, 1).await?;
    let case = cases().into_iter().find(|case| case.folder == folder);
    serve(&cluster, backend, &case.context("a case of that name")?).await
}

macro_rules! served {
    ($($name:ident: $backend:ident $folder:literal,)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> Result<()> {
            serves(Backend::$backend, $folder).await
        })*
    };
}

served! {
    batch_example_serves_as_a_process: Process "batch",
    batch_example_serves_in_docker: Docker "batch",
    batch_example_serves_in_kubernetes: Kubernetes "batch",
    flask_example_serves_as_a_process: Process "flask",
    flask_example_serves_in_docker: Docker "flask",
    flask_example_serves_in_kubernetes: Kubernetes "flask",
    onnx_example_serves_as_a_process: Process "onnx",
    onnx_example_serves_in_docker: Docker "onnx",
    onnx_example_serves_in_kubernetes: Kubernetes "onnx",
    transform_example_serves_as_a_process: Process "tf-serving-transform",
    transform_example_serves_in_docker: Docker "tf-serving-transform",
    transform_example_serves_in_kubernetes: Kubernetes "tf-serving-transform",
}

/// A package around `half-plus-two`, made by TensorFlow itself.
fn half_plus_two(home: &Path, found: &TfServing) -> Result<PathBuf> {
    let dir = home.join("half");
    copy_folder(&found.model("half-plus-two")?, &dir.join("model"))?;
    std::fs::write(
        dir.join("berth.toml"),
        "[package]\nname = \"half\"\nversion = \"1.0.0\"\n[model]\npath = \"model\"\n[module]\nkind = \"tf-serving\"\n",
    )?;
    Ok(dir)
}

/// The instance's gRPC socket, below the node's data folder.
fn grpc_socket(node: &Path) -> Result<Option<PathBuf>> {
    let found =
        output_of(
            Command::new("find")
                .arg(node)
                .args(["-name", "grpc.sock", "-o", "-type", "s"]),
        )?;
    let mut sockets = found
        .lines()
        .filter(|path| path.ends_with("grpc.sock"))
        .filter_map(|path| std::fs::canonicalize(path).ok());
    Ok(sockets.next())
}

/// TensorFlow Serving's own clients: REST at the gateway, gRPC on the instance's socket.
async fn official_clients(backend: Backend) -> Result<()> {
    if !backend.wanted()? {
        return Ok(());
    }
    let found = TfServing::find()?;
    let mut cluster = cluster(backend, 1).await?;
    cluster.push_folder(&half_plus_two(cluster.home(), &found)?)?;
    cluster.cli_text(&["deploy", "half", "--runtime", backend.name(), "--wait"])?;
    cluster.wait_ready("half", 1).await?;
    let clients = tests_folder().join("tfserving/clients.py");
    let run = |kind: &str, target: &str| {
        output_of(
            Command::new(&found.python)
                .arg(&clients)
                .args([kind, target, "half"]),
        )
    };
    assert_eq!(run("rest", &cluster.client.gateway)?, "ok");
    let node = cluster.node_data(0);
    let socket = until_some("the instance's gRPC socket", || async {
        grpc_socket(&node)
    })
    .await?;
    let socket = format!("unix:{}", socket.display());
    assert_eq!(run("grpc", &socket)?, "ok");
    // The same after the agent was killed: nothing was started anew.
    let runs = cluster.runs("half").await?;
    cluster.agents[0].kill();
    assert_eq!(run("grpc", &socket)?, "ok");
    cluster.agents[0].restart()?;
    cluster.wait_connected().await?;
    cluster.wait_ready("half", 1).await?;
    assert_eq!(cluster.runs("half").await?, runs);
    assert_eq!(run("rest", &cluster.client.gateway)?, "ok");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn official_clients_work_unmodified() -> Result<()> {
    official_clients(Backend::Process).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn official_clients_work_unmodified_with_a_container() -> Result<()> {
    official_clients(Backend::Docker).await
}

/// The predictions of `names.jsonl`, scored by a model of an example: all outputs in the order of their indices.
async fn scored(backend: Backend, folder: &str, model: &str, shards: usize) -> Result<String> {
    let cluster = cluster(backend, shards).await?;
    cluster.push_folder(&example(cluster.home(), folder)?)?;
    let input = example(cluster.home(), "batch")?.join("names.jsonl");
    let out = cluster.home().join("scores");
    // Two fleets in one namespace cannot both have a Job of a name.
    let job = format!("scores-{:x}", std::process::id());
    cluster.cli_text(&[
        "job",
        "run",
        model,
        "--name",
        &job,
        "--runtime",
        backend.name(),
        "--input",
        &input.to_string_lossy(),
        "--completions",
        &shards.to_string(),
        "--follow",
    ])?;
    cluster.cli_text(&["job", "output", &job, "-o", &out.to_string_lossy()])?;
    cluster.cli_text(&["job", "delete", &job])?;
    let listed = output_of(Command::new("find").arg(&out).args(["-type", "f"]))?;
    let mut files: Vec<&str> = listed.lines().collect();
    files.sort_unstable();
    assert_eq!(files.len(), shards, "{files:?}");
    let mut all = String::new();
    for file in files {
        all.push_str(&std::fs::read_to_string(file)?);
    }
    let names = std::fs::read_to_string(&input)?;
    assert_eq!(all.lines().count(), names.lines().count());
    for (line, name) in all.lines().zip(names.lines()) {
        let (row, name): (Value, Value) =
            (serde_json::from_str(line)?, serde_json::from_str(name)?);
        assert_eq!(
            row["domain"], name,
            "predictions are in the order of the rows"
        );
    }
    Ok(all)
}

/// Scores on every backend, and finds the same everywhere.
async fn equal_everywhere(folder: &str, model: &str, shards: usize, first_row: &str) -> Result<()> {
    let mut outputs = Vec::new();
    for backend in [Backend::Process, Backend::Docker, Backend::Kubernetes] {
        if backend.wanted()? {
            outputs.push((backend, scored(backend, folder, model, shards).await?));
        }
    }
    let (first, wanted) = outputs.first().context("no backend at all")?;
    assert_eq!(wanted.lines().next(), Some(first_row));
    for (backend, output) in &outputs {
        assert_eq!(output, wanted, "{backend:?} differs from {first:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_job_has_equal_outputs_on_every_backend() -> Result<()> {
    let first = "{\"domain\":\"wikipedia.org\",\"score\":0.156672,\"verdict\":\"benign\"}";
    equal_everywhere("batch", "domain-scores", 4, first).await
}

/// Berth's driver before a transform before TensorFlow Serving.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tensorflow_job_has_equal_outputs_on_every_backend() -> Result<()> {
    let first = "{\"domain\":\"wikipedia.org\",\"score\":0.1567,\"verdict\":\"benign\"}";
    equal_everywhere("tf-serving-transform", "dga-tensors", 1, first).await
}
