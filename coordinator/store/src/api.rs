//! The trait that every engine implements, and its words.

use std::collections::BTreeSet;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::StoreError;

/// Most operations, and most guards, in one transaction (etcd's `--max-txn-ops`).
pub const MAX_TXN_OPS: usize = 128;

/// Most bytes of keys and values in one transaction, in all (below etcd's `--max-request-bytes`).
pub const MAX_TXN_BYTES: usize = 1 << 20;

/// A key-value store with revisions, compare-and-swap and watch.
///
/// Keys are UTF-8 paths such as `/services/web`, ordered by their bytes. Each commit that changes
/// anything has the next revision, the same for all of its operations.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// All entries whose key begins with `prefix`, in key order, and the revision at which they were
    /// read: one consistent view.
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// One entry, if it is there.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// Applies all of a transaction or nothing, and answers with the store's revision after it. The
    /// answer comes only once the change would survive a power cut.
    ///
    /// A transaction that changes nothing (no operations, or deletions of what is not there) leaves the
    /// revision as it is. Errors: [`StoreError::Conflict`] if a guard does not hold;
    /// [`StoreError::TooLarge`] and [`StoreError::DuplicateKey`] before anything is tried; otherwise the
    /// change is not acknowledged, and whether it happened shows only by reading.
    async fn commit(&self, txn: Txn) -> Result<u64, StoreError>;

    /// Every change of a key that begins with `prefix`, with revision `from_revision` or later, in the
    /// order of their commits. To follow a [`Listing`], watch from its revision + 1.
    ///
    /// The channel is bounded. It closes when the store does, or when the receiver has fallen so far
    /// behind that changes are no longer kept: list again, and watch from there. Errors:
    /// [`StoreError::Compacted`] if changes of `from_revision` are not kept already.
    async fn watch(
        &self,
        prefix: &str,
        from_revision: u64,
    ) -> Result<mpsc::Receiver<Change>, StoreError>;

    /// Which store this is, and where it stands.
    async fn identity(&self) -> Result<Identity, StoreError>;
}

/// One key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// Revision of the commit that last put it.
    pub mod_revision: u64,
}

/// What [`Store::list`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The store's revision at which this was true.
    pub revision: u64,
    /// The entries in key order.
    pub entries: Vec<Entry>,
}

/// One changed key, as watchers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Revision of the commit.
    pub revision: u64,
    /// The key.
    pub key: String,
    /// The new value; none if it was deleted.
    pub value: Option<Vec<u8>>,
}

/// Which store this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Rises with every restore from a backup, so that commands of a past that was undone can be told
    /// from those of the present. Only its order has a meaning: it begins at the Unix time in seconds.
    pub epoch: u64,
    /// Revision of the last commit; 0 in an empty store. Goes on through a restore from the backup's.
    pub revision: u64,
    /// Version of the engine's schema.
    pub schema: u32,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The key is not there.
    Absent(String),
    /// The key is there and was last put by the commit of this revision.
    At(String, u64),
    /// The key is there.
    Exists(String),
}

impl Guard {
    /// The key it looks at.
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::At(key, _) | Self::Exists(key) => key,
        }
    }

    /// Whether it holds for a key that was last put at `mod_revision`, or is not there.
    pub fn holds(&self, mod_revision: Option<u64>) -> bool {
        match self {
            Self::Absent(_) => mod_revision.is_none(),
            Self::At(_, wanted) => mod_revision == Some(*wanted),
            Self::Exists(_) => mod_revision.is_some(),
        }
    }
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Puts a value, whether the key is there or not.
    Put(String, Vec<u8>),
    /// Takes the key away, if it is there.
    Delete(String),
}

impl Op {
    /// The key it changes.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// Bytes that it counts towards [`MAX_TXN_BYTES`].
    pub fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
        }
    }
}

/// Conditions, and the changes to make if all of them hold. At most [`MAX_TXN_OPS`] of either and
/// [`MAX_TXN_BYTES`] in all, on every engine; no key is changed twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// All must hold.
    pub guards: Vec<Guard>,
    /// What changes then.
    pub ops: Vec<Op>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a guard.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// Adds a put.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.ops.push(Op::Put(key.into(), value.into()));
        self
    }

    /// Adds a deletion.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.ops.push(Op::Delete(key.into()));
        self
    }

    /// Bytes of all keys and values, guards included.
    pub fn bytes(&self) -> usize {
        let guards: usize = self.guards.iter().map(|guard| guard.key().len()).sum();
        guards + self.ops.iter().map(Op::bytes).sum::<usize>()
    }

    /// Checks what every engine demands of a transaction, whatever the store holds. Errors:
    /// [`StoreError::TooLarge`], [`StoreError::DuplicateKey`].
    pub fn check(&self) -> Result<(), StoreError> {
        let (ops, guards, bytes) = (self.ops.len(), self.guards.len(), self.bytes());
        if ops > MAX_TXN_OPS || guards > MAX_TXN_OPS || bytes > MAX_TXN_BYTES {
            return Err(StoreError::TooLarge { ops, guards, bytes });
        }
        let mut seen = BTreeSet::new();
        match self.ops.iter().find(|op| !seen.insert(op.key())) {
            Some(op) => Err(StoreError::DuplicateKey {
                key: op.key().to_owned(),
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_hold_to_the_byte() {
        let ops = |n: usize| Txn {
            guards: Vec::new(),
            ops: (0..n).map(|i| Op::Delete(format!("/{i}"))).collect(),
        };
        assert!(ops(MAX_TXN_OPS).check().is_ok());
        assert!(matches!(
            ops(MAX_TXN_OPS + 1).check(),
            Err(StoreError::TooLarge { ops: 129, .. })
        ));
        let put = |bytes: usize| Txn::new().put("/k", vec![0; bytes - 2]);
        assert!(put(MAX_TXN_BYTES).check().is_ok());
        assert!(put(MAX_TXN_BYTES + 1).check().is_err());
    }

    #[test]
    fn a_key_is_changed_once() {
        let txn = Txn::new().put("/a", "1").delete("/a");
        assert!(matches!(txn.check(), Err(StoreError::DuplicateKey { key }) if key == "/a"));
    }
}
