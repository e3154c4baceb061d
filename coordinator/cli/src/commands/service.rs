mod show;
pub(super) mod wait;

use std::process::ExitCode;

use anyhow::Result;
use berth_model::api::{List, Scale, ServiceView};

use self::wait::Limit;
use crate::args::Service;
use crate::client::Client;
use crate::{output, table, words};

pub(super) async fn run(client: &Client, service: Service) -> Result<ExitCode> {
    match service {
        Service::List(reading) => {
            let list: List<ServiceView> = client.get("/v1/services").await?;
            output::show(reading.output, &list.items, |width| {
                services(&list.items, width)
            })?;
        }
        Service::Show { service, reading } => {
            let view: ServiceView = client.get(&format!("/v1/services/{service}")).await?;
            output::show(reading.output, &view, |width| {
                show::service(&view, words::now(), width)
            })?;
        }
        Service::Scale {
            service,
            replicas,
            waiting,
        } => {
            let path = format!("/v1/services/{service}/scale");
            let view: ServiceView = client.post(&path, &Scale { replicas }).await?;
            output::line(&format!("{service} scaled to {replicas}"))?;
            if waiting.wait {
                return wait::until_ready(client, &view, Limit::of(waiting.timeout), output::line)
                    .await;
            }
        }
        Service::Delete { service, waiting } => {
            let _: ServiceView = client.delete(&format!("/v1/services/{service}")).await?;
            output::line(&format!("{service} is being deleted"))?;
            if waiting.wait {
                return wait::until_gone(
                    client,
                    &service,
                    Limit::of(waiting.timeout),
                    output::line,
                )
                .await;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn services(services: &[ServiceView], width: Option<usize>) -> String {
    if services.is_empty() {
        return "No services. `berth deploy MODEL` makes one\n".to_owned();
    }
    let now = words::now();
    let rows: Vec<Vec<String>> = services
        .iter()
        .map(|s| {
            vec![
                s.name.to_string(),
                s.state.to_string(),
                format!("{}/{}", s.ready, s.replicas),
                format!("{}@{}", s.model, s.version),
                s.revision.to_string(),
                words::age(s.updated, now),
                s.reasons.first().cloned().unwrap_or_default(),
            ]
        })
        .collect();
    let heading = [
        "NAME", "STATE", "READY", "MODEL", "REVISION", "CHANGED", "WHY",
    ];
    table::render(&heading, &rows, width)
}
