use berth_model::api::{PoolView, PutPool};

use super::*;

#[test]
fn pools_are_as_described() {
    let labels = BTreeMap::from([("rack".to_owned(), "a".to_owned())]);
    described(
        "PutPool",
        &PutPool {
            labels: labels.clone(),
        },
    );
    described(
        "PoolView",
        &PoolView {
            name: "gpu".parse().unwrap(),
            labels,
            fleet: Some("soc".parse().unwrap()),
            places: vec!["n1".parse().unwrap()],
            users: vec!["service/web".to_owned()],
            created: Timestamp(1),
            updated: Timestamp(1),
        },
    );
}
