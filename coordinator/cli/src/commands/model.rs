mod push;

use anyhow::Result;
use berth_model::api::{List, ModelVersionView, ModelView};

use crate::args::Model;
use crate::client::Client;
use crate::{output, table, words};

pub(super) async fn run(client: &Client, model: Model) -> Result<()> {
    match model {
        Model::Push { package } => push::run(client, &package).await,
        Model::List(reading) => {
            let list: List<ModelView> = client.get("/v1/models").await?;
            output::show(reading.output, &list.items, |width| {
                models(&list.items, width)
            })
        }
        Model::Show { name, reading } => {
            let model: ModelView = client.get(&format!("/v1/models/{name}")).await?;
            output::show(reading.output, &model, |width| versions(&model, width))
        }
    }
}

fn models(models: &[ModelView], width: Option<usize>) -> String {
    if models.is_empty() {
        return "No models. `berth model push DIR` registers one\n".to_owned();
    }
    let now = words::now();
    let rows: Vec<Vec<String>> = models
        .iter()
        .filter_map(|model| {
            let newest = model.versions.first()?;
            Some(vec![
                model.name.to_string(),
                newest.version.to_string(),
                model.versions.len().to_string(),
                newest.task.clone(),
                metrics(newest),
                words::age(newest.pushed, now),
            ])
        })
        .collect();
    table::render(
        &["NAME", "NEWEST", "VERSIONS", "TASK", "METRICS", "PUSHED"],
        &rows,
        width,
    )
}

fn versions(model: &ModelView, width: Option<usize>) -> String {
    let now = words::now();
    let rows: Vec<Vec<String>> = model
        .versions
        .iter()
        .map(|version| {
            vec![
                version.version.to_string(),
                format!("#{}", version.serial),
                words::bytes(version.unpacked_bytes),
                metrics(version),
                words::age(version.pushed, now),
                version.digest.to_string(),
            ]
        })
        .collect();
    let description = model
        .versions
        .first()
        .map(|v| v.description.as_str())
        .unwrap_or_default();
    format!(
        "{}  {description}\n\n{}",
        model.name,
        table::render(
            &["VERSION", "SERIAL", "SIZE", "METRICS", "PUSHED", "DIGEST"],
            &rows,
            width
        )
    )
}

fn metrics(version: &ModelVersionView) -> String {
    let all: Vec<String> = version
        .metrics
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    all.join(" ")
}
