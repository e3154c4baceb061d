//! Mistakes people make with models and modules: `berth service show` has the cause and the last lines.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use berth_tests::{
    Backend, Cluster, Options, TfServing, copy_folder, docker_node, output_of, until,
};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

/// A TF Serving package around a model of `tests/tfserving/models.py`.
fn tf_package(home: &Path, found: &TfServing, model: &str) -> Result<PathBuf> {
    let dir = home.join(model);
    copy_folder(&found.model(model)?, &dir.join("model"))?;
    std::fs::write(
        dir.join("berth.toml"),
        format!(
            "[package]\nname = \"{model}\"\nversion = \"1.0.0\"\n[model]\npath = \"model\"\n[module]\nkind = \"tf-serving\"\n"
        ),
    )?;
    Ok(dir)
}

async fn start(found: &TfServing) -> Result<Cluster> {
    let mut options = Options::nodes(1);
    options.agent = found.agent_toml()?;
    Cluster::start(options, MODULE).await
}

/// Waits until `berth service show` says all of `words`.
async fn shows(cluster: &Cluster, service: &str, words: &[&str]) -> Result<()> {
    until(
        &format!("service show {service} to say {words:?}"),
        || async {
            let text = cluster.cli_text(&["service", "show", service])?;
            let all = words.iter().all(|word| text.contains(word));
            Ok((all, text))
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupt_model_is_told_in_tensorflows_words() -> Result<()> {
    let found = TfServing::find()?;
    let cluster = start(&found).await?;
    cluster.push_folder(&tf_package(cluster.home(), &found, "corrupt")?)?;
    cluster.cli_text(&["deploy", "corrupt"])?;
    shows(
        &cluster,
        "corrupt",
        &["OUT_OF_RANGE: Read less bytes than requested"],
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_without_a_saved_model_is_told() -> Result<()> {
    let found = TfServing::find()?;
    let cluster = start(&found).await?;
    let dir = tf_package(cluster.home(), &found, "keras-weights")?;
    let pushed = cluster.cli(&["model", "push", &dir.to_string_lossy()])?;
    // Told when it is pushed, or else when it is started.
    if pushed.status.success() {
        cluster.cli_text(&["deploy", "keras-weights"])?;
        let words = ["the model cannot be loaded", "Could not find SavedModel"];
        return shows(&cluster, "keras-weights", &words).await;
    }
    let error = String::from_utf8_lossy(&pushed.stderr).into_owned();
    assert!(error.contains("saved_model"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_type_and_shape_come_back_as_the_models_own_error() -> Result<()> {
    let found = TfServing::find()?;
    let cluster = start(&found).await?;
    cluster.push_folder(&tf_package(cluster.home(), &found, "vector")?)?;
    cluster.cli_text(&["deploy", "vector", "--wait"])?;
    cluster.wait_ready("vector", 1).await?;
    let url = format!("{}/v1/models/vector:predict", cluster.client.gateway);
    for (body, says) in [
        (
            "{\"instances\":[[\"a\",1,1,1]]}",
            "is not of expected type: float",
        ),
        (
            "{\"instances\":[[1,2]]}",
            "Matrix size-incompatible: In[0]: [1,2], In[1]: [4,1]",
        ),
        ("{\"rows\":[[1,2]]}", "Missing 'inputs' or 'instances' key"),
    ] {
        let answer =
            output_of(Command::new("curl").args(["-sS", "-w", " %{http_code}", "-d", body, &url]))?;
        assert!(
            answer.ends_with(" 400") && answer.contains(says),
            "{body}: {answer}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_folder_that_is_no_number_is_told_at_the_push() -> Result<()> {
    let found = TfServing::find()?;
    let cluster = Cluster::start(Options::nodes(1), MODULE).await?;
    let dir = tf_package(cluster.home(), &found, "half-plus-two")?;
    std::fs::rename(dir.join("model"), dir.join("saved"))?;
    copy_folder(&dir.join("saved"), &dir.join("model/v1"))?;
    std::fs::remove_dir_all(dir.join("saved"))?;
    let pushed = cluster.cli(&["model", "push", &dir.to_string_lossy()])?;
    let error = String::from_utf8_lossy(&pushed.stderr).into_owned();
    assert!(!pushed.status.success());
    for words in [
        "the SavedModel is in \"model/v1\", whose name is no version number",
        "write path = \"model/v1\"",
    ] {
        assert!(error.contains(words), "{error}");
    }
    Ok(())
}

/// A package of files beside a model and a manifest, whose `[module]` is given.
fn package(home: &Path, name: &str, module: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    let dir = home.join(name);
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\n[model]\npath = \"model\"\n\
         [module]\nkind = \"custom\"\n{module}\n"
    );
    let own = [("model/weights", "1\n"), ("berth.toml", &manifest)];
    for (path, text) in own.iter().chain(files) {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(&dir))?;
        std::fs::write(path, text)?;
    }
    Ok(dir)
}

/// Deploys it and waits until `berth service show` says all of `words`.
async fn fails_with(
    cluster: &Cluster,
    runtime: Backend,
    package: &Path,
    words: &[&str],
) -> Result<()> {
    let name = package.file_name().unwrap_or_default().to_string_lossy();
    cluster.push_folder(package)?;
    cluster.cli_text(&["deploy", &name, "--runtime", runtime.name()])?;
    shows(cluster, &name, words).await
}

const SERVER: &str = "command = [\"python3\", \"server.py\"]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_import_error_is_shown_and_stays_while_it_is_tried_again() -> Result<()> {
    let cluster = Cluster::start(Options::nodes(1), MODULE).await?;
    let files = [("server.py", "import no_such_module\n")];
    let dir = package(cluster.home(), "importer", SERVER, &files)?;
    let words = [
        "exited with code 1",
        "ModuleNotFoundError: No module named 'no_such_module'",
    ];
    fails_with(&cluster, Backend::Process, &dir, &words).await?;
    // Whatever phase it is in from now on.
    until("several starts, each showing why", || async {
        let text = cluster.cli_text(&["service", "show", "importer"])?;
        for word in words {
            assert!(text.contains(word), "{word:?} is not shown: {text}");
        }
        let view = cluster.client.service("importer").await?;
        let starts = view.instances.iter().map(|i| i.status.start).max();
        Ok((starts >= Some(4), text))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_wheel_is_told_in_pips_words() -> Result<()> {
    let cluster = Cluster::start(Options::nodes(1), MODULE).await?;
    let module = format!("preset = \"python\"\n{SERVER}");
    let files = [
        ("requirements.txt", "berth-test-absent==1.0\n"),
        ("wheels/README", "none\n"),
        ("server.py", ""),
    ];
    let dir = package(cluster.home(), "wheels", &module, &files)?;
    let words = [
        "pip cannot install requirements.txt",
        "No matching distribution found for berth-test-absent==1.0",
        "make wheels/ complete",
    ];
    fails_with(&cluster, Backend::Process, &dir, &words).await
}

/// A cluster of one node with Docker; none if that is not to be tested.
async fn with_docker() -> Result<Option<Cluster>> {
    if !Backend::Docker.wanted()? {
        return Ok(None);
    }
    let mut options = Options::nodes(1);
    options.agent = docker_node()?;
    Ok(Some(Cluster::start(options, MODULE).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn image_that_cannot_be_built_is_told_with_its_step_and_output() -> Result<()> {
    let Some(cluster) = with_docker().await? else {
        return Ok(());
    };
    let module = format!("dockerfile = \"Dockerfile\"\n{SERVER}");
    let docker = "FROM localhost/berth-test/python:1\nRUN echo this is why >&2; exit 7\n";
    let files = [("Dockerfile", docker), ("server.py", "")];
    let dir = package(cluster.home(), "dockerfile", &module, &files)?;
    let words = [
        "building failed in step 2/",
        "RUN echo this is why >&2; exit 7",
        "non-zero code: 7",
        "| this is why",
    ];
    fails_with(&cluster, Backend::Docker, &dir, &words).await?;
    let module = format!("preset = \"python\"\n{SERVER}");
    let files = [
        ("requirements.txt", "berth-test-absent==1.0\n"),
        ("wheels/README", "none\n"),
        ("server.py", ""),
    ];
    cluster.client.delete("dockerfile").await?;
    let dir = package(cluster.home(), "wheels", &module, &files)?;
    let words = [
        "building failed in step ",
        "No matching distribution found for berth-test-absent==1.0",
    ];
    fails_with(&cluster, Backend::Docker, &dir, &words).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn image_that_cannot_be_pulled_is_told() -> Result<()> {
    let Some(cluster) = with_docker().await? else {
        return Ok(());
    };
    let module = format!("image = \"127.0.0.1:1/absent:1\"\n{SERVER}");
    let dir = package(cluster.home(), "puller", &module, &[("server.py", "")])?;
    let words = [
        "image 127.0.0.1:1/absent:1: it is not on this node and cannot be pulled",
        "connection refused",
    ];
    fails_with(&cluster, Backend::Docker, &dir, &words).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory_is_told_with_the_limit() -> Result<()> {
    let Some(cluster) = with_docker().await? else {
        return Ok(());
    };
    let module = format!("{SERVER}\n[resources]\nmemory = \"64MiB\"");
    let eater = "print('eating', flush=True)\nfood = []\nwhile True:\n    food.append(bytearray(1 << 20))\n";
    let dir = package(cluster.home(), "eater", &module, &[("server.py", eater)])?;
    let words = [
        "out of memory: module was ended",
        "limit is 64MiB",
        "| eating",
    ];
    fails_with(&cluster, Backend::Docker, &dir, &words).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_that_ends_in_a_container_is_named() -> Result<()> {
    let Some(cluster) = with_docker().await? else {
        return Ok(());
    };
    let module = format!("{SERVER}\n[transform]\ncommand = [\"python3\", \"transform.py\"]");
    let files = [
        ("server.py", "import time\ntime.sleep(600)\n"),
        ("transform.py", "import sys\nsys.exit('no vocabulary')\n"),
    ];
    let dir = package(cluster.home(), "vocabulary", &module, &files)?;
    let words = ["transform exited with code 1", "| no vocabulary"];
    fails_with(&cluster, Backend::Docker, &dir, &words).await?;
    cluster.client.delete("vocabulary").await?;
    let absent = "command = [\"no-such-program\"]";
    let dir = package(cluster.home(), "nothing", absent, &[])?;
    let words = ["no-such-program", "No such file or directory"];
    fails_with(&cluster, Backend::Docker, &dir, &words).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_that_does_not_answer_is_told() -> Result<()> {
    let mut options = Options::nodes(1);
    options.agent = "[docker]\nsocket = \"/nonexistent/docker.sock\"\n".to_owned();
    let cluster = Cluster::start(options, MODULE).await?;
    let dir = package(cluster.home(), "waiter", SERVER, &[("server.py", "")])?;
    let words = [
        "1 node: 1 whose docker does not work now",
        "`berth node list`",
    ];
    fails_with(&cluster, Backend::Docker, &dir, &words).await?;
    for what in [&["node", "show", "node-1"][..], &["status"]] {
        let text = cluster.cli_text(what)?;
        let all = ["Docker does not answer", "/nonexistent/docker.sock"];
        assert!(all.iter().all(|words| text.contains(words)), "{text}");
    }
    Ok(())
}
