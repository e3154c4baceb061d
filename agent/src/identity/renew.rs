//! Keeping the certificate alive.

use std::sync::Arc;
use std::time::Duration;

use berth_proto::v1;
use berth_proto::v1::enrollment_client::EnrollmentClient;
use futures_util::FutureExt;
use tokio::sync::{Notify, watch};

use super::join::answer;
use super::{Identity, IdentityError, Issued, accept};
use crate::backoff::Backoff;
use crate::clock;
use crate::data::DataDir;
use crate::rpc::connect::Dialer;

/// Asks for a new certificate for the node's key. Needs no valid certificate: the request's own signature
/// by the pinned key is the proof.
pub async fn renew(
    data: &DataDir,
    identity: &Identity,
    endpoint: &str,
    boot_id: &str,
) -> Result<Identity, IdentityError> {
    let dialer = Dialer::anonymous(endpoint, identity)?;
    let csr = identity.key.request(identity.name.as_str())?.into();
    let channel = dialer.connect().await?;
    let mut client = EnrollmentClient::new(channel);
    let asked = client.renew(v1::RenewRequest { csr });
    let reply = answer(tokio::time::timeout(Duration::from_secs(30), asked).await)?;
    let issued = Issued {
        name: identity.name.as_str(),
        endpoint: &identity.endpoint,
        certificate: &reply.certificate,
        ca: &reply.ca,
        ca_key_hash: &identity.ca_key_hash,
        renew_after: Duration::from_millis(reply.renew_after_ms),
    };
    accept(data, &identity.key, &issued, boot_id, clock::now())
}

/// Renews when the coordinator said that it is time, and when told that the certificate does not pass any more.
#[derive(Debug)]
pub struct Renewer {
    data: DataDir,
    endpoint: String,
    boot_id: String,
    current: watch::Sender<Arc<Identity>>,
    refused: Arc<Notify>,
}

impl Renewer {
    /// Of the identity in `current`, which it replaces. `refused`: the certificate does not pass any more, or may not,
    /// whatever this machine's clock says.
    pub fn new(
        data: DataDir,
        endpoint: String,
        boot_id: String,
        current: watch::Sender<Arc<Identity>>,
        refused: Arc<Notify>,
    ) -> Self {
        Self {
            data,
            endpoint,
            boot_id,
            current,
            refused,
        }
    }

    /// Runs for ever.
    pub async fn run(self) {
        loop {
            let identity = self.current.borrow().clone();
            let wait = identity.renewal_in(&self.boot_id, clock::now(), clock::wall());
            tokio::select! {
                () = clock::sleep_until(clock::now().after(wait)) => {}
                () = self.refused.notified() => {}
            }
            self.renew_until_done(&identity).await;
            // A certificate that is due as soon as it comes (a wrong clock) must not make this spin.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn renew_until_done(&self, identity: &Identity) {
        let most =
            (identity.renew_after / 20).clamp(Duration::from_secs(1), Duration::from_secs(300));
        let mut backoff = Backoff::new(Duration::from_millis(500), most);
        loop {
            match renew(&self.data, identity, &self.endpoint, &self.boot_id).await {
                Ok(renewed) => {
                    tracing::info!(
                        until = renewed.validity.until.rfc3339(),
                        "renewed the node's certificate"
                    );
                    // What was said of the old one until now is not said of this one.
                    let _ = self.refused.notified().now_or_never();
                    self.current.send_replace(Arc::new(renewed));
                    return;
                }
                Err(error) => {
                    let wait = match error {
                        IdentityError::Refused(_) => most,
                        _ => backoff.wait(),
                    };
                    let text = crate::chain(&error);
                    tracing::warn!(error = text, again_in = ?wait, "cannot renew the node's certificate");
                    pause(&error, wait, &self.refused).await;
                }
            }
        }
    }
}

/// Waits until the next try. The session tries more often, and so knows sooner that a coordinator is back that could not
/// be asked; but one that said no would say it again at each session that it refuses.
async fn pause(error: &IdentityError, wait: Duration, refused: &Notify) {
    let full = tokio::time::sleep(wait);
    if matches!(error, IdentityError::Refused(_)) {
        return full.await;
    }
    tokio::select! {
        () = full => {}
        () = refused.notified() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sessions_that_fail_hasten_nothing_that_was_refused() {
        const WAIT: Duration = Duration::from_secs(300);
        let waited = async |error: IdentityError| {
            let refused = Notify::new();
            refused.notify_one();
            let before = tokio::time::Instant::now();
            pause(&error, WAIT, &refused).await;
            before.elapsed()
        };
        let away = IdentityError::Unavailable("connection refused".to_owned());
        assert!(waited(away).await < WAIT);
        let removed = IdentityError::Refused("node n1 was removed".to_owned());
        assert!(waited(removed).await >= WAIT);
    }
}
