//! Keys, certificates and secrets: Berth's own certificate authority, the server certificate,
//! nodes' certificates, and the bearer tokens.

mod authority;
mod credentials;
mod files;
mod server;

pub use authority::{Authority, CsrError, IssuedCertificate, VerifiedCsr, key_hash_of_certificate};
pub use credentials::{Credentials, Role};
pub use server::{ServerCertificate, server_config};

pub(crate) use authority::key_hash;
pub(crate) use files::{read, remove, replace};
pub(crate) use server::host_name;

use std::path::PathBuf;

/// Why keys or certificates cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("cannot use {path}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {problem}", path = path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A certificate or key cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The TLS library refuses what it was given.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

impl PkiError {
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
