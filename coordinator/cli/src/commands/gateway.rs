//! `berth gateway …`.

use anyhow::Result;
use berth_model::api::{GatewayView, List};
use berth_model::id::NodeName;

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
            let view: GatewayView = client.post(&path, &()).await?;
            output::line(&format!(
                "{gateway} is revoked{}. Whoever has gateway.token can come as another one: if it may be known, \
                 delete it in the coordinator's data folder, restart the coordinator, and give the gateways \
                 the new one",
                still(&view)
            ))
        }
        Gateway::Remove { gateway } => {
            let _: GatewayView = client.delete(&format!("/v1/gateways/{gateway}")).await?;
            output::line(&format!("{gateway} is removed"))
        }
    }
}

/// Where one that was sent away may still get in.
fn still(view: &GatewayView) -> String {
    let nodes: Vec<&str> = view.untold.iter().map(NodeName::as_str).collect();
    match nodes.len() {
        0 => String::new(),
        1 => format!(
            ", but the relay of {} was not told yet and may let it in until the agent there is back",
            nodes.join(", ")
        ),
        n => format!(
            ", but {n} relays were not told yet and may let it in until the agents there are back: {}",
            nodes.join(", ")
        ),
    }
}

fn gateways(gateways: &[GatewayView], width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = gateways
        .iter()
        .map(|gateway| {
            let state = match gateway {
                GatewayView {
                    revoked: true,
                    untold,
                    ..
                } if !untold.is_empty() => "revoked, not yet everywhere",
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
            untold: Vec::new(),
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
        assert_eq!(still(&all[2]), "");
        let cut_off = GatewayView {
            untold: vec!["n1".parse().unwrap(), "n2".parse().unwrap()],
            ..view("c", false, true)
        };
        assert!(still(&cut_off).ends_with("there are back: n1, n2"));
        let text = gateways(&[cut_off], None);
        assert!(text.contains("revoked, not yet everywhere"), "{text}");
    }
}
