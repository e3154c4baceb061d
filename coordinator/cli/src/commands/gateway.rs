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
            ", but it is not known whether the relay of {} was told, which may let it in until then: its agent is not \
             connected or has trouble with it",
            nodes.join(", ")
        ),
        n => format!(
            ", but it is not known whether {n} relays were told, which may let it in until then: the agents there \
             are not connected or have trouble with them: {}",
            few(&nodes)
        ),
    }
}

/// The first of many names.
fn few(names: &[&str]) -> String {
    const FEW: usize = 5;
    match names.len().checked_sub(FEW) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..FEW].join(", ")),
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
                } if !untold.is_empty() => "revoked, perhaps not everywhere yet",
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
        assert!(still(&cut_off).ends_with("with them: n1, n2"));
        let many = GatewayView {
            untold: (1..=7).map(|n| format!("n{n}").parse().unwrap()).collect(),
            ..cut_off.clone()
        };
        assert!(still(&many).ends_with("with them: n1, n2, n3, n4, n5 and 2 more"));
        let text = gateways(&[cut_off], None);
        assert!(
            text.contains("revoked, perhaps not everywhere yet"),
            "{text}"
        );
    }
}
