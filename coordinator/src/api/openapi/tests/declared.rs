use berth_model::api::{
    ChangeAction, Deploy, Effect, EffectKind, FieldChange, Fleet, FleetChange, FleetPlan,
    FleetRequest, ModelWanted, NodeLabels, PoolView, PutPool,
};

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

fn fleet() -> Fleet {
    let labels = BTreeMap::from([("rack".to_owned(), "a".to_owned())]);
    let job = CreateJob {
        model: "web".to_owned(),
        ..CreateJob::default()
    };
    let deploy = Deploy {
        model: "web".to_owned(),
        service: None,
        replicas: Some(1),
        runtime: None,
        pool: Some("gpu".to_owned()),
        spread: Some(vec!["rack".to_owned()]),
        env: BTreeMap::new(),
        max_unavailable: Some(1),
    };
    let model = ModelWanted {
        version: "1.0.0".parse().unwrap(),
        digest: Some(format!("sha256:{}", "0".repeat(64)).parse().unwrap()),
        at_hand: true,
    };
    Fleet {
        fleet: "soc".parse().unwrap(),
        nodes: [(
            "n1".parse().unwrap(),
            NodeLabels {
                labels: labels.clone(),
            },
        )]
        .into(),
        pools: [("gpu".parse().unwrap(), PutPool { labels })].into(),
        models: [("web".parse().unwrap(), model)].into(),
        services: [("web".parse().unwrap(), deploy)].into(),
        jobs: [("score".parse().unwrap(), job)].into(),
    }
}

#[test]
fn fleets_are_as_described() {
    let texts = BTreeMap::from([("service/web".to_owned(), "0".to_owned())]);
    described(
        "FleetRequest",
        &FleetRequest {
            fleet: fleet(),
            prune: true,
            adopt: true,
            versions: Some(texts.clone()),
        },
    );
    let effect = Effect {
        kind: EffectKind::Stay,
        count: 1,
        instances: vec!["web.1.0.1".parse().unwrap()],
        message: String::new(),
    };
    let change = FleetChange {
        subject: "service/web".to_owned(),
        action: ChangeAction::Change,
        fields: vec![FieldChange {
            field: "replicas".to_owned(),
            old: Some("1".to_owned()),
            new: Some("2".to_owned()),
        }],
        effects: vec![effect],
    };
    described(
        "FleetPlan",
        &FleetPlan {
            fleet: "soc".parse().unwrap(),
            changes: vec![change],
            unchanged: 1,
            adopted: vec![String::new()],
            leftover: vec![String::new()],
            warnings: vec![String::new()],
            versions: texts,
        },
    );
}
