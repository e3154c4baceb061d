use std::process::ExitCode;

use anyhow::Result;
use berth_model::api::ServiceView;

use super::service::wait;
use crate::args::Deploy;
use crate::client::Client;
use crate::commands::service::wait::Limit;
use crate::output;

pub(super) async fn run(client: &Client, deploy: Deploy) -> Result<ExitCode> {
    let body = berth_model::api::Deploy {
        model: deploy.model,
        service: deploy.service,
        replicas: deploy.replicas,
        runtime: deploy.runtime,
        pool: deploy.pool,
        spread: deploy.spread.map(|labels| labels.0),
        env: deploy.env.into_iter().collect(),
        max_unavailable: deploy.max_unavailable,
    };
    let view: ServiceView = client.post("/v1/services", &body).await?;
    output::line(&format!(
        "{} takes {}@{} (revision {}), {} wanted",
        view.name, view.model, view.version, view.revision, view.replicas
    ))?;
    if deploy.wait {
        return wait::until_ready(client, &view, Limit::of(deploy.timeout), output::line).await;
    }
    Ok(ExitCode::SUCCESS)
}
