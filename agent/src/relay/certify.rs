//! The relay's key and its certificate.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use berth_proto::v1;
use berth_proto::v1::agents_client::AgentsClient;
use berth_relay::folder::Identity;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::{Place, Relay, keep};
use crate::backoff::Backoff;
use crate::clock;

/// For the coordinator to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// When the next certificate is asked for, whatever the coordinator says.
const SOONEST: Duration = Duration::from_secs(2);
const LATEST: Duration = Duration::from_secs(30 * 86_400);
/// Between attempts.
const FIRST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(60);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum NoCertificate {
    #[error("the coordinator did not answer: {0}")]
    Coordinator(String),
    #[error("the coordinator's answer is wrong: {0}")]
    Answer(&'static str),
    #[error(transparent)]
    File(#[from] crate::files::FileError),
    #[error("cannot make a key or certificate request")]
    Crypto(#[from] rcgen::Error),
}

/// Hash of an identity's key, hexadecimal; none if it cannot be used.
pub(super) fn key_of(identity: &Identity) -> Option<String> {
    KeyPair::from_pem(&identity.key).ok().map(|key| hash(&key))
}

fn hash(key: &KeyPair) -> String {
    hex::encode(Sha256::digest(key.subject_public_key_info()))
}

/// Asks for a certificate with each start of the agent, and at two thirds of its life by a clock that does not jump.
pub(super) async fn keep_certified(
    relay: &Arc<Relay>,
    place: &Place,
    mut connected: watch::Receiver<Option<Channel>>,
) {
    let mut wake = relay.wake.subscribe();
    let mut backoff = Backoff::new(FIRST, MOST);
    loop {
        while !relay.is_active() {
            // Its sender is in `relay`.
            let _ = wake.changed().await;
        }
        let channel = connected.wait_for(Option::is_some).await;
        let Ok(channel) = channel.map(|channel| channel.clone()) else {
            // The agent is ending.
            return std::future::pending().await;
        };
        let Some(channel) = channel else { continue };
        match certify(relay, place, channel).await {
            Ok(next) => {
                backoff.reset();
                relay.trouble("certificate", None);
                clock::sleep_until(clock::now().after(next.clamp(SOONEST, LATEST))).await;
            }
            Err(error) => {
                let error = crate::chain(&error);
                let wait = backoff.wait();
                tracing::warn!(error, again_in = ?wait, "no certificate for the relay");
                // With one, it serves by that.
                let none = relay.lock().key.is_none();
                let trouble = none.then(|| format!("it has no certificate: {error}"));
                relay.trouble("certificate", trouble);
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Has the relay's key certified and keeps the certificate; tells when to do so again. The key is made once: gateways
/// know it by the route table, and those that get no new one must still know it.
async fn certify(
    relay: &Relay,
    place: &Place,
    channel: Channel,
) -> Result<Duration, NoCertificate> {
    let known = place
        .identity()
        .and_then(|i| KeyPair::from_pem(&i.key).ok());
    let key = match known {
        Some(key) => key,
        None => KeyPair::generate()?,
    };
    let csr = CertificateParams::default().serialize_request(&key)?;
    let request = v1::CertifyRelayRequest {
        csr: csr.der().to_vec().into(),
    };
    let mut client = AgentsClient::new(channel);
    let answer = tokio::time::timeout(PATIENCE, client.certify_relay(request)).await;
    let answer = answer
        .map_err(|_| NoCertificate::Coordinator(format!("nothing within {PATIENCE:?}")))?
        .map_err(|status| NoCertificate::Coordinator(status.message().to_owned()))?
        .into_inner();
    let certificate = CertificateDer::from_pem_slice(answer.certificate.as_bytes())
        .map_err(|_| NoCertificate::Answer("there is no certificate in it"))?;
    let hash = hash(&key);
    let certified = crate::identity::key_hash(&certificate);
    let own = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(Sha256::digest(key.subject_public_key_info()));
    if certified.as_deref() != Some(own.as_str()) {
        return Err(NoCertificate::Answer("it is for another key"));
    }
    let identity = Identity {
        certificate: answer.certificate,
        key: key.serialize_pem(),
        ca: answer.ca,
    };
    // Before it is told to anybody: the relay must have it by then.
    let folder = place.folder.clone();
    let kept = tokio::task::spawn_blocking(move || keep(&folder, &identity)).await;
    kept.map_err(|_| NoCertificate::Answer("keeping it broke off"))??;
    relay.write().await;
    relay.certified(hash);
    tracing::info!("the relay's certificate is fresh");
    Ok(Duration::from_millis(answer.renew_after_ms))
}
