//! How the changes of many commands become as few transactions as the store's limits allow.

use std::collections::BTreeMap;

use berth_store::Op;

/// Under the store's limits (128 operations, 1 MiB), with room for the fencing guard.
const MAX_OPS: usize = 120;
const MAX_BYTES: usize = 900 * 1024;

/// One transaction's changes, each key once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// What to write.
    pub(crate) ops: Vec<Op>,
    /// How many groups are wholly on disk once this part is.
    pub(crate) groups: usize,
    /// Some of the next group, which does not fit into one transaction, is in this part already.
    pub(crate) torn: bool,
}

/// Packs groups (each one command's changes, or one planned action's) into transactions in order. A
/// group is split only when it does not fit into a transaction of its own; then its order holds.
pub(crate) fn pack(groups: Vec<Vec<Op>>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut open = Open::default();
    for (done, group) in groups.into_iter().enumerate() {
        if !open.fits(&group) {
            open.close(&mut parts, done, false);
        }
        let mut begun = false;
        for change in group {
            if !open.fits(std::slice::from_ref(&change)) {
                open.close(&mut parts, done, begun);
            }
            open.add(change);
            begun = true;
        }
        open.groups = done + 1;
    }
    let done = open.groups;
    open.close(&mut parts, done, false);
    parts
}

#[derive(Default)]
struct Open {
    changes: BTreeMap<String, Op>,
    bytes: usize,
    groups: usize,
}

impl Open {
    fn fits(&self, more: &[Op]) -> bool {
        let bytes: usize = more.iter().map(Op::bytes).sum();
        // Counted as if every key were new: a little early is as good.
        self.changes.len() + more.len() <= MAX_OPS && self.bytes + bytes <= MAX_BYTES
    }

    fn add(&mut self, change: Op) {
        self.bytes += change.bytes();
        self.changes.insert(change.key().to_owned(), change);
    }

    fn close(&mut self, parts: &mut Vec<Part>, groups: usize, torn: bool) {
        if self.changes.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.changes).into_values().collect();
        parts.push(Part {
            ops: changes,
            groups,
            torn,
        });
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change(key: usize, bytes: usize) -> Op {
        Op::Put(format!("/k/{key}"), vec![0; bytes])
    }

    #[test]
    fn small_groups_share_a_transaction_and_the_last_value_wins() {
        let groups = vec![vec![change(1, 1)], vec![], vec![change(1, 2), change(2, 1)]];
        let parts = pack(groups);
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].groups, 3);
        assert_eq!(parts[0].ops, vec![change(1, 2), change(2, 1)]);
        assert!(pack(vec![vec![], vec![]]).is_empty());
    }

    #[test]
    fn a_group_is_kept_whole_when_it_can_be() {
        let group = |from: usize| (from..from + 100).map(|k| change(k, 1)).collect::<Vec<_>>();
        let parts = pack(vec![group(0), group(100)]);
        assert_eq!(
            parts.iter().map(|p| p.groups).collect::<Vec<_>>(),
            vec![1, 2]
        );
    }

    #[test]
    fn a_group_that_is_split_is_told_as_torn_until_its_last_part() {
        let group = (0..300).map(|k| change(k, 1)).collect::<Vec<_>>();
        let parts = pack(vec![vec![change(900, 1)], group, vec![change(901, 1)]]);
        let told: Vec<(usize, bool)> = parts.iter().map(|p| (p.groups, p.torn)).collect();
        assert_eq!(told, [(1, false), (1, true), (1, true), (3, false)]);
    }

    proptest! {
        #[test]
        fn packing_loses_nothing_and_keeps_limits(
            groups in prop::collection::vec(prop::collection::vec((0usize..400, 1usize..20_000), 0..150), 0..12),
        ) {
            let groups: Vec<Vec<Op>> = groups
                .into_iter()
                .map(|g| g.into_iter().map(|(k, b)| change(k, b)).collect())
                .collect();
            let mut wanted = BTreeMap::new();
            for change in groups.iter().flatten() {
                wanted.insert(change.key().to_owned(), change.clone());
            }
            let parts = pack(groups.clone());
            let mut found = BTreeMap::new();
            let mut last = 0;
            for part in &parts {
                prop_assert!(part.ops.len() <= MAX_OPS);
                prop_assert!(part.groups >= last && part.groups <= groups.len());
                last = part.groups;
                for change in &part.ops {
                    found.insert(change.key().to_owned(), change.clone());
                }
            }
            prop_assert_eq!(found, wanted);
        }
    }
}
