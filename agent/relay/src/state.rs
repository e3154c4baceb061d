//! All that a relay knows, as it is used: one immutable value, replaced as a whole.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_model::relay::Caller;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::server::ParsedCertificate;

use crate::folder::{FolderError, IDENTITY, Identity, Table};
use crate::tls::{self, Tickets};
use crate::watch::Watch;

/// What a folder says.
pub struct State {
    /// Where to listen, who may come, where the instances are.
    pub table: Table,
    identity: Identity,
    acceptor: TlsAcceptor,
}

impl State {
    /// Reads a folder; none while the agent has not written both files. What has not changed since `last` is used
    /// again, sessions that can be resumed above all.
    pub(crate) fn load(
        folder: &Path,
        tickets: &Tickets,
        last: Option<&Self>,
        current: &watch::Receiver<Current>,
    ) -> Result<Option<Self>, FolderError> {
        let (Some(table), Some(identity)) = (Table::read(folder)?, Identity::read(folder)?) else {
            return Ok(None);
        };
        let same = last.filter(|last| last.identity == identity && last.table.node == table.node);
        let acceptor = match same {
            Some(last) => last.acceptor.clone(),
            None => tls::acceptor(&identity, &table.node, tickets, current).map_err(|problem| {
                FolderError::Content {
                    path: folder.join(IDENTITY),
                    problem,
                }
            })?,
        };
        Ok(Some(Self {
            table,
            identity,
            acceptor,
        }))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Who a certificate makes its holder, if that one may come. The CA's signature is the handshake's business.
    pub(crate) fn admit(&self, certificate: &CertificateDer<'_>) -> Option<&Caller> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let key = hash(&parsed);
        let of_key = |caller: &&Caller| caller.key.eq_ignore_ascii_case(&key);
        let named = |caller: &&Caller| {
            let name = caller.certified_name();
            let name = name.and_then(|name| ServerName::try_from(name).ok());
            name.is_some_and(|name| verify_server_name(&parsed, &name).is_ok())
        };
        let callers = self.table.callers.iter();
        callers.filter(of_key).find(named)
    }

    /// Whether this and another say the same.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.table == other.table && self.identity == other.identity
    }
}

/// SHA-256 of a certificate's public key (SubjectPublicKeyInfo, DER), hexadecimal; none if it is no certificate.
pub fn key_hash(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    Some(hash(&parsed))
}

fn hash(certificate: &ParsedCertificate<'_>) -> String {
    let key = certificate.subject_public_key_info();
    hex::encode(ring::digest::digest(&ring::digest::SHA256, key.as_ref()))
}

/// The newest state; none while there is nothing to serve.
pub(crate) type Current = Option<Arc<State>>;

/// Reads the folder and publishes what it says.
pub(crate) struct Loader {
    folder: PathBuf,
    tickets: Tickets,
    current: watch::Sender<Current>,
    /// Held while the folder is read, so that an older content never replaces a newer one.
    reading: Mutex<()>,
}

impl Loader {
    pub(crate) fn new(folder: &Path) -> Result<Self, tokio_rustls::rustls::Error> {
        let current = watch::Sender::new(None);
        Ok(Self {
            folder: folder.to_owned(),
            tickets: Tickets::new()?,
            current,
            reading: Mutex::default(),
        })
    }

    /// Reads the folder. What cannot be used changes nothing: better the last that could.
    pub(crate) fn load(&self) {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.current();
        let fresh = State::load(
            &self.folder,
            &self.tickets,
            last.as_deref(),
            &self.current.subscribe(),
        );
        match (fresh, last) {
            (Ok(Some(fresh)), Some(last)) if fresh.same(&last) => {}
            (Ok(Some(fresh)), _) => {
                tracing::info!(
                    instances = fresh.table.instances.len(),
                    callers = fresh.table.callers.len(),
                    "took a new table"
                );
                self.current.send_replace(Some(Arc::new(fresh)));
            }
            (Ok(None), None) => {}
            (Ok(None), Some(_)) => {
                tracing::warn!(folder = %self.folder.display(), "the table is gone; serving by the last one");
            }
            (Err(error), _) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "the table is not taken; serving by the last one");
            }
        }
    }

    /// The newest state.
    pub(crate) fn current(&self) -> Current {
        self.current.borrow().clone()
    }

    /// To be told of changes from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Current> {
        self.current.subscribe()
    }

    /// Follows the folder for ever.
    pub(crate) async fn follow(&self) {
        let mut watch = Watch::of(&self.folder);
        loop {
            // After the watch has begun: what was written before is seen here, what comes later is told.
            self.load();
            watch.changed().await;
        }
    }
}
