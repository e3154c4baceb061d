//! `berth pool …`: named sets of nodes.

use std::collections::BTreeMap;

use anyhow::Result;
use berth_model::api::{List, PoolView};
use berth_model::time::Timestamp;

use crate::args::Pool;
use crate::client::Client;
use crate::{output, table, words};

pub(super) async fn run(client: &Client, pool: Pool) -> Result<()> {
    match pool {
        Pool::List(reading) => {
            let list: List<PoolView> = client.get("/v1/pools").await?;
            output::show(reading.output, &list.items, |width| {
                pools(&list.items, words::now(), width)
            })
        }
        Pool::Show { pool, reading } => {
            let view: PoolView = client.get(&format!("/v1/pools/{pool}")).await?;
            output::show(reading.output, &view, |_| show(&view))
        }
    }
}

fn pools(pools: &[PoolView], now: Timestamp, width: Option<usize>) -> String {
    if pools.is_empty() {
        return "No pools. [pool.NAME] in a fleet file makes one: docs/fleet-files.md\n".to_owned();
    }
    let rows: Vec<Vec<String>> = pools
        .iter()
        .map(|pool| {
            vec![
                pool.name.to_string(),
                labels(&pool.labels),
                pool.places.len().to_string(),
                pool.users.join(", "),
                pool.fleet
                    .as_ref()
                    .map_or("-".to_owned(), ToString::to_string),
                words::age(pool.updated, now),
            ]
        })
        .collect();
    let heading = ["NAME", "LABELS", "PLACES", "USED BY", "FLEET", "CHANGED"];
    table::render(&heading, &rows, width)
}

fn show(pool: &PoolView) -> String {
    let places: Vec<String> = pool.places.iter().map(ToString::to_string).collect();
    let or_none = |text: String| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text
        }
    };
    format!(
        "{}\n  labels   {}\n  places   {}\n  used by  {}\n  fleet    {}\n  changed  {}\n",
        pool.name,
        labels(&pool.labels),
        or_none(places.join(", ")),
        or_none(pool.users.join(", ")),
        pool.fleet
            .as_ref()
            .map_or("none: made by hand".to_owned(), ToString::to_string),
        pool.updated.rfc3339(),
    )
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_says_what_is_in_it_and_whose_it_is() {
        let view = PoolView {
            name: "gpu".parse().unwrap(),
            labels: [("rack".to_owned(), "a".to_owned())].into(),
            fleet: Some("soc".parse().unwrap()),
            places: vec!["n1".parse().unwrap(), "cluster:prod".parse().unwrap()],
            users: vec!["service/web".to_owned()],
            created: Timestamp(0),
            updated: Timestamp(0),
        };
        assert_eq!(
            pools(std::slice::from_ref(&view), Timestamp(60_000), None),
            "NAME  LABELS  PLACES  USED BY      FLEET  CHANGED\n\
             gpu   rack=a  2       service/web  soc    60s\n"
        );
        assert!(show(&view).contains("places   n1, cluster:prod"));
        let mut by_hand = view;
        by_hand.fleet = None;
        by_hand.users.clear();
        assert!(show(&by_hand).contains("used by  none"));
        assert!(show(&by_hand).contains("made by hand"));
    }
}
