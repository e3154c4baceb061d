//! The store against a map in memory.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Commit(Txn),
    Reopen,
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..6_u8).prop_map(|i| format!("/a/{i}")),
        (0..3_u8).prop_map(|i| format!("/a{i}")),
        Just("/ä/\u{10ffff}".to_owned()),
        Just(String::new()),
    ]
}

fn guard() -> impl Strategy<Value = Guard> {
    prop_oneof![
        key().prop_map(Guard::Absent),
        key().prop_map(Guard::Exists),
        (key(), 0..12_u64).prop_map(|(key, at)| Guard::At(key, at)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (key(), proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(k, v)| Op::Put(k, v)),
        1 => key().prop_map(Op::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let guards = proptest::collection::vec(guard(), 0..2);
    let ops = proptest::collection::vec(op(), 0..4);
    prop_oneof![
        12 => (guards, ops).prop_map(|(guards, ops)| Step::Commit(Txn { guards, ops })),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<String, (Vec<u8>, u64)>,
    revision: u64,
    changes: Vec<Change>,
}

impl Model {
    /// The revision after the transaction, or the key whose guard does not hold.
    fn commit(&mut self, txn: &Txn) -> Result<u64, String> {
        for guard in &txn.guards {
            let found = self.entries.get(guard.key()).map(|(_, at)| *at);
            if !guard.holds(found) {
                return Err(guard.key().to_owned());
            }
        }
        let revision = self.revision + 1;
        for op in &txn.ops {
            let (key, value) = match op {
                Op::Put(key, value) => {
                    self.entries.insert(key.clone(), (value.clone(), revision));
                    (key, Some(value.clone()))
                }
                Op::Delete(key) if self.entries.remove(key).is_none() => continue,
                Op::Delete(key) => (key, None),
            };
            let key = key.clone();
            self.changes.push(Change {
                revision,
                key,
                value,
            });
            self.revision = revision;
        }
        Ok(self.revision)
    }
}

async fn compare(store: &SqliteStore, model: &Model) {
    for prefix in ["", "/a", "/a/", "/ä/\u{10ffff}", "/none"] {
        let listing = store.list(prefix).await.unwrap();
        assert_eq!(listing.revision, model.revision);
        let expected: Vec<_> = model
            .entries
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, (value, mod_revision))| Entry {
                key: key.clone(),
                value: value.clone(),
                mod_revision: *mod_revision,
            })
            .collect();
        assert_eq!(listing.entries, expected, "{prefix}");
    }
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let mut store = SqliteStore::open(&db).unwrap();
    let mut model = Model::default();
    let mut watch = store.watch("", 1).await.unwrap();
    for step in steps {
        match step {
            Step::Reopen => {
                drop(store);
                store = SqliteStore::open(&db).unwrap();
                watch = store.watch("", model.revision + 1).await.unwrap();
                model.changes.clear();
            }
            Step::Commit(txn) => match txn.check() {
                Err(_) => assert!(store.commit(txn).await.is_err()),
                Ok(()) => match (model.commit(&txn), store.commit(txn).await) {
                    (Ok(wanted), Ok(found)) => assert_eq!(wanted, found),
                    (Err(wanted), Err(StoreError::Conflict { key })) => assert_eq!(wanted, key),
                    (wanted, found) => panic!("{wanted:?} {found:?}"),
                },
            },
        }
        compare(&store, &model).await;
    }
    for change in &model.changes {
        assert_eq!(watch.recv().await.as_ref(), Some(change));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_with_revisions(steps in proptest::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
