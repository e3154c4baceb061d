//! One gateway process from its first breath to its last: taking over, serving, handing over.

use std::time::Duration;

use berth_gateway::{Gateway, Handle, Sockets, persist};
use berth_handover::{Candidate, Claim, HandoverError, Offer, Ready, Socket, Taking};
use berth_model::id::GatewayName;
use berth_model::route::Order;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::follow::{Dial, Follower};
use super::identity::Identity;
use super::stance::{Helm, Stance};
use super::tables::Tables;
use super::{Config, GatewayRoleError, PROGRAM, TABLE_FILE, announce, default_url, tell_systemd};
use crate::chain;

/// For a new process to hear of the coordinator before it serves; without it, the table on disk will do.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// For the table in force to come to the disk before another process reads it from there.
const SAVE: Duration = Duration::from_secs(5);
/// For another process to get ready.
const PREPARE: Duration = Duration::from_secs(60);
/// For the coordinator to hear the goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// What processes of one gateway tell each other.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Process {
    pub(super) incarnation: String,
    /// Further processes of the gateway that may still serve.
    pub(super) beside: Vec<String>,
    /// The table in force.
    pub(super) table: Option<Order>,
    /// Whether control knows this process.
    pub(super) known: bool,
}

/// A process with its threads and its follower.
pub(super) struct Serving {
    pub(super) gateway: Gateway,
    handle: Handle,
    config: Config,
    incarnation: String,
    url: String,
    helm: Helm,
    follower: AbortOnDropHandle<()>,
}

impl Serving {
    /// Starts everything but accepting connections.
    pub(super) fn begin(
        config: Config,
        name: &GatewayName,
        me: Process,
        stance: Stance,
        sockets: Sockets,
    ) -> Result<Self, GatewayRoleError> {
        let path = config.data_dir.join(TABLE_FILE);
        let last = persist::load(&path)?;
        let gateway = Gateway::prepare(config.gateway.clone(), sockets)?;
        let handle = gateway.handle();
        // Before the table, which may lead through relays.
        let identity = Identity::open(&config.data_dir, &handle)?;
        let saved = last.as_ref().map(|table| table.version);
        if let Some(table) = last {
            tracing::info!(version = %table.version, services = table.services.len(),
                "serving by the route table on disk until the coordinator sends one");
            if let Err(error) = handle.publish(table) {
                tracing::error!(%error, "the route table on disk cannot be used");
            }
        }
        let (helm, watch) = Helm::new(stance, me.beside);
        let url = config.url.clone();
        let url = url.unwrap_or_else(|| default_url(&config, &gateway));
        let follower = Follower {
            dial: Dial {
                name: name.to_string(),
                incarnation: me.incarnation.clone(),
                url: url.clone(),
                endpoint: config.endpoint.clone(),
                ca_file: config.ca_file.clone(),
                token_file: config.token_file.clone(),
            },
            tables: Tables::new(handle.clone(), path, saved, watch),
            gateway: handle.clone(),
            identity,
        };
        Ok(Self {
            gateway,
            handle,
            config,
            incarnation: me.incarnation,
            url,
            helm,
            follower: AbortOnDropHandle::new(tokio::spawn(follower.run())),
        })
    }

    /// Serves in the place of the process that hands over. Errors: that one serves on.
    pub(super) async fn take_over(
        &self,
        taking: Taking,
        theirs: Option<Order>,
    ) -> Result<Claim, GatewayRoleError> {
        // Control shall wait for this process, too, before it stops an instance. Without a coordinator
        // there is nobody who stops any, and the old process acknowledges nothing new.
        let word = self.helm.until(|seen| seen.known.is_some());
        let seen = tokio::time::timeout(FIRST_WORD, word).await;
        let known = seen.is_ok_and(|seen| seen.known == Some(true));
        let mine = self.handle.table_version();
        if mine < theirs {
            return Err(GatewayRoleError::OlderTable {
                theirs: theirs.unwrap_or_default(),
                mine: mine.unwrap_or_default(),
            });
        }
        self.gateway.open();
        let me = Process {
            known,
            ..self.as_process()
        };
        match taking.ready(&me).await {
            Ok(claim) => {
                self.helm.take(Stance::Serving).await;
                Ok(claim)
            }
            Err(error) => {
                // Who was let in meanwhile is served; the other one goes on.
                self.handle
                    .drain_after_handover(self.config.gateway.drain_timeout.0)
                    .await;
                self.leave().await;
                Err(error.into())
            }
        }
    }

    fn as_process(&self) -> Process {
        Process {
            incarnation: self.incarnation.clone(),
            beside: self.helm.beside(),
            table: self.handle.table_version(),
            known: false,
        }
    }

    /// Serves until it is told to end or another process takes over.
    pub(super) async fn serve(
        self,
        claim: Claim,
        sockets: Vec<Socket>,
        shutdown: &CancellationToken,
    ) -> Result<(), GatewayRoleError> {
        announce(&self.config.data_dir, &self.gateway)?;
        tracing::info!(url = self.url, admin = %self.gateway.admin_addr(), "the gateway serves");
        let mut offer = claim.offer(PROGRAM, sockets)?;
        let timeout = self.config.gateway.drain_timeout.0;
        let listens = format!("serves at {}", self.url);
        let handed_over = tokio::select! {
            () = self.hand_over(&mut offer) => true,
            () = shutdown.cancelled() => false,
            never = tell_systemd(&self.handle, &listens) => match never {},
        };
        tracing::info!(handed_over, "draining");
        if !handed_over {
            // The unit goes on where another process serves.
            berth_notify::stopping("draining");
        }
        // Goes on following meanwhile, so that control hears of the last requests' ends.
        let clean = if handed_over {
            tokio::select! {
                (clean, ()) = async {
                    tokio::join!(self.handle.drain_after_handover(timeout), berth_notify::replaced())
                } => clean,
                () = shutdown.cancelled() => self.handle.drain(timeout).await,
            }
        } else {
            self.handle.drain(timeout).await
        };
        self.leave().await;
        tracing::info!(clean, "the gateway has ended");
        Ok(())
    }

    /// Offers everything until a process has taken it.
    async fn hand_over(&self, offer: &mut Offer) {
        loop {
            let candidate = offer.next().await;
            let (pid, program) = (candidate.pid(), candidate.program().to_owned());
            tracing::info!(pid, program, "another process wants to take over");
            let passed = match self.give(candidate).await {
                Ok(ready) => self.pass(offer, ready).await,
                Err(error) => Err(error),
            };
            match passed {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(
                        pid,
                        error = chain(&error),
                        "it did not take over; serving on"
                    );
                    self.helm.take(Stance::Serving).await;
                }
            }
        }
    }

    /// Gives a candidate everything and waits until it accepts connections.
    async fn give(&self, candidate: Candidate<'_>) -> Result<Ready, HandoverError> {
        let other: Process = candidate.state();
        self.helm.add(other.incarnation);
        self.helm.take(Stance::Handing).await;
        let saved = self.helm.until(|seen| !seen.unsaved);
        if tokio::time::timeout(SAVE, saved).await.is_err() {
            tracing::warn!(
                "the newest route table is not on disk; the other process needs the coordinator"
            );
        }
        candidate.give(&self.as_process(), PREPARE).await
    }

    /// Lets go. From here on the other process writes the table.
    async fn pass(&self, offer: &mut Offer, ready: Ready) -> Result<(), HandoverError> {
        let other: Process = ready.state();
        let known = other.known;
        self.helm.take(Stance::Leaving { known }).await;
        self.helm.until(|seen| !seen.saving).await;
        offer.confirm(ready).await
    }

    /// Tells the coordinator that nothing is under way here any more.
    async fn leave(&self) {
        self.helm.take(Stance::Gone).await;
        let over = async {
            while !self.follower.is_finished() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(GOODBYE, over).await.is_err() {
            tracing::debug!("the coordinator did not hear the goodbye");
        }
    }
}
