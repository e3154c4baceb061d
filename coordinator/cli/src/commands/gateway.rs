//! `berth gateway …`.

use anyhow::Result;
use berth_model::api::{GatewayView, List};

use crate::args::Gateway;
use crate::client::Client;
use crate::{output, table};

pub(super) async fn run(client: &Client, gateway: Gateway) -> Result<()> {
    match gateway {
        Gateway::List(reading) => {
            let list: List<GatewayView> = client.get("/v1/gateways").await?;
            output::show(reading.output, &list.items, |width| {
                gateways(&list.items, width)
            })
        }
        Gateway::Revoke { gateway } => {
            let path = format!("/v1/gateways/{gateway}/revoke");
            let _: GatewayView = client.post(&path, &()).await?;
            output::line(&format!(
                "{gateway} is revoked. Whoever has gateway.token can come as another one: if it may be known, \
                 delete it in the coordinator's data folder, restart the coordinator, and give the gateways \
                 the new one"
            ))
        }
        Gateway::Remove { gateway } => {
            let _: GatewayView = client.delete(&format!("/v1/gateways/{gateway}")).await?;
            output::line(&format!("{gateway} is removed"))
        }
    }
}

fn gateways(gateways: &[GatewayView], width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = gateways
        .iter()
        .map(|gateway| {
            let state = match gateway {
                GatewayView { revoked: true, .. } => "revoked",
                GatewayView {
                    connected: false, ..
                } => "not connected",
                GatewayView { current: true, .. } => "follows",
                _ => "is behind",
            };
            vec![
                gateway.name.to_string(),
                state.to_owned(),
                gateway.url.clone(),
            ]
        })
        .collect();
    table::render(&["NAME", "STATE", "URL"], &rows, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_gateway_is_told_apart_from_one_that_is_away() {
        let view = |name: &str, connected, revoked| GatewayView {
            name: name.parse().unwrap(),
            url: format!("http://{name}"),
            connected,
            revoked,
            current: connected,
        };
        let all = [
            view("a", true, false),
            view("b", false, false),
            view("c", false, true),
        ];
        let text = gateways(&all, None);
        let states: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
        assert!(states[0].contains("follows"), "{text}");
        assert!(states[1].contains("not connected"), "{text}");
        assert!(states[2].contains("revoked"), "{text}");
    }
}
