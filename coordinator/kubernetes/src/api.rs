//! How requests are made: bounded in number and time, tried again where that helps.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::error::Error;
use crate::meter::Meter;
use crate::words::{Asked, from_kube};

/// Requests in flight, watches not counted.
const AT_ONCE: usize = 16;
/// How long one command may take with all its tries and waits.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// A connection that was closed while idle is made anew at once; an API server that is away is reported soon.
const RECONNECTS: u32 = 2;

/// The client that is in use, or why there is none.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) server: String,
}

/// Makes requests.
pub(crate) struct Caller {
    namespace: String,
    /// None until the configuration was read for the first time.
    connection: watch::Sender<Option<Result<Connection, Error>>>,
    permits: Semaphore,
    meter: Meter,
}

impl Caller {
    pub(crate) fn new(namespace: String, meter: Meter) -> Arc<Self> {
        Arc::new(Self {
            namespace,
            connection: watch::channel(None).0,
            permits: Semaphore::new(AT_ONCE),
            meter,
        })
    }

    pub(crate) fn connected(&self, connection: Result<Connection, Error>) {
        self.connection.send_replace(Some(connection));
    }

    async fn connection(&self) -> Result<Connection, Error> {
        let mut connection = self.connection.subscribe();
        let known = connection.wait_for(Option::is_some).await;
        match known.map(|known| known.clone()) {
            Ok(Some(connection)) => connection,
            _ => Err(Error::Closed),
        }
    }

    /// The API server's address, for messages.
    pub(crate) fn server(&self) -> String {
        match &*self.connection.borrow() {
            Some(Ok(connection)) => connection.server.clone(),
            _ => "(not yet known)".to_owned(),
        }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(crate) fn asked(&self, server: &str, what: &str) -> Asked {
        Asked {
            server: server.to_owned(),
            namespace: self.namespace.clone(),
            what: what.to_owned(),
        }
    }

    /// Makes one request that may safely be made twice. `what` is "creating Job x".
    pub(crate) async fn call<T, F>(
        &self,
        what: &str,
        mut request: impl FnMut(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let until = Instant::now() + DEADLINE;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let mut unreached = 0;
        loop {
            let connection = self.connection().await?;
            let asked = self.asked(&connection.server, what);
            let late = || Error::Timeout {
                server: connection.server.clone(),
                what: what.to_owned(),
                after_ms: u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX),
            };
            let answer = tokio::time::timeout_at(until, async {
                let _permit = self.permits.acquire().await.map_err(|_| Error::Closed)?;
                tokio::time::sleep(self.meter.pause()).await;
                request(connection.client.clone())
                    .await
                    .map_err(|error| from_kube(&asked, error))
            })
            .await;
            let error = match answer {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => error,
                Err(_) => return Err(late()),
            };
            match &error {
                Error::Throttled { .. } | Error::Server { .. } | Error::Garbled { .. } => {}
                Error::Unreachable { .. } if unreached < RECONNECTS => unreached += 1,
                _ => return Err(error),
            }
            let wait = backoff.step().max(self.meter.pause());
            if Instant::now() + wait >= until {
                return Err(error);
            }
            tracing::debug!(%error, ?wait, "trying again");
            tokio::time::sleep(wait).await;
        }
    }
}
