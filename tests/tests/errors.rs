//! Mistakes people make with models and modules: `berth service show` has the cause and the last lines.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use berth_tests::{Cluster, Options, TfServing, copy_folder, output_of, until};

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
    options.agent = format!("tensorflow_model_server = \"{}\"\n", found.server.display());
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
async fn python_import_error_is_shown() -> Result<()> {
    let cluster = Cluster::start(Options::nodes(1), MODULE).await?;
    let dir = cluster.home().join("importer");
    std::fs::create_dir_all(dir.join("model"))?;
    std::fs::write(dir.join("model/weights"), "1\n")?;
    std::fs::write(dir.join("server.py"), "import no_such_module\n")?;
    std::fs::write(
        dir.join("berth.toml"),
        "[package]\nname = \"importer\"\nversion = \"1.0.0\"\n[model]\npath = \"model\"\n[module]\nkind = \"custom\"\ncommand = [\"python3\", \"server.py\"]\n",
    )?;
    cluster.push_folder(&dir)?;
    cluster.cli_text(&["deploy", "importer"])?;
    let words = [
        "exited with code 1",
        "ModuleNotFoundError: No module named 'no_such_module'",
    ];
    shows(&cluster, "importer", &words).await
}
