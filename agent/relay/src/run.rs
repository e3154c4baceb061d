//! A relay at work: from the folder to the door, and on to the process that replaces this one.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_handover::{Claim, Entrance, HandoverError, Offer, Socket, Taking, enter};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::figures;
use crate::limits::Limits;
use crate::listen::Door;
use crate::metrics::Metrics;
use crate::session::Shared;
use crate::state::{Current, Loader};

/// Where a relay meets the one that replaces it, in the runtime folder.
pub const MEETING: &str = "handover.sock";

/// File with the address that it listens on, in the runtime folder.
pub const ENDPOINT: &str = "endpoint";

/// What the socket is called in a hand-over.
const SOCKET: &str = "relay";
const PROGRAM: &str = concat!("berth-relay ", env!("CARGO_PKG_VERSION"));
/// For another process to let go or take over.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what connections are left, and at what was counted.
const LOOK: Duration = Duration::from_millis(100);
const COUNT: Duration = Duration::from_secs(2);
/// Between attempts to listen where that is not possible.
const AGAIN: Duration = Duration::from_secs(2);

/// What a relay is told by its command line.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder that the agent writes.
    pub folder: PathBuf,
    /// Its own folder, for what is needed only while it runs.
    pub runtime: PathBuf,
    /// Callers' connections at a time.
    pub connections: usize,
    /// How long what is under way may go on when this process is told to end.
    pub stop: Duration,
    /// The same when another process has taken over.
    pub drain: Duration,
}

/// Why a relay does not work.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// TLS cannot be had.
    #[error("cannot set up TLS")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// It cannot take over, or be taken over from.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// A socket cannot be handed on.
    #[error("cannot hand a socket on")]
    Socket(#[source] io::Error),
    /// There is nothing to serve, though another relay serves.
    #[error("the folder holds no table, and the relay that runs serves by one: look at the agent")]
    NoTable,
}

/// Serves until `stop` resolves, or another process has taken over; then finishes what is under way. systemd is told
/// that it is ready once this process is the one that serves, or waits for a table.
pub async fn run(config: &Config, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let shared = Arc::new(Shared {
        loader: Loader::new(&config.folder)?,
        limits: Limits::new(config.connections),
        metrics: Metrics::default(),
        over: watch::Sender::new(false),
    });
    shared.loader.load();
    let meeting = config.runtime.join(MEETING);
    let (door, claim) = match enter(&meeting, PROGRAM, &(), PATIENCE).await? {
        Entrance::First(claim) => (None, claim),
        Entrance::Takeover(taking) => {
            let (door, claim) = take_over(&shared, taking).await?;
            (Some(door), claim)
        }
    };
    let status = match door {
        Some(_) => "serves",
        None => "serves once there is a table",
    };
    let alive = async {
        berth_notify::ready(status).await;
        berth_notify::watch(turning).await
    };
    let following = Arc::clone(&shared);
    let following = tokio::spawn(async move { following.loader.follow().await });
    let counting = tokio::spawn(count(Arc::clone(&shared), config.runtime.clone()));
    let mut relay = Relay {
        shared: Arc::clone(&shared),
        meeting,
        door,
    };
    tokio::pin!(stop);
    let (end, told) = tokio::select! {
        end = relay.serve(claim) => (end, false),
        () = &mut stop => {
            berth_notify::stopping("finishes what is under way");
            (Ok(config.stop), true)
        }
        never = alive => match never {},
    };
    // From here on nobody is accepted, and the list of callers is still followed.
    drop(relay);
    if !told {
        // The figures are those of the process that serves.
        counting.abort();
    }
    let patience = *end.as_ref().unwrap_or(&config.stop);
    let finishing = async {
        finish(&shared, patience.min(config.drain)).await;
        if end.is_ok() && !told {
            berth_notify::replaced().await;
        }
    };
    tokio::select! {
        () = finishing => {}
        () = &mut stop, if !told => finish(&shared, config.stop).await,
    }
    following.abort();
    counting.abort();
    end.map(|_| ())
}

/// Accepts beside the process that runs, and then in its place.
async fn take_over(shared: &Arc<Shared>, mut taking: Taking) -> Result<(Door, Claim), RunError> {
    let state = shared.loader.current().ok_or(RunError::NoTable)?;
    let address = state.table.listen;
    let given = taking.sockets(SOCKET, &address.to_string());
    let door = match given.into_iter().next() {
        Some(socket) => Door::of(shared, address, TcpListener::from(socket)),
        None => Door::open(shared, address),
    };
    let door = door.map_err(RunError::Socket)?;
    let owner = taking.owner();
    let claim = taking.ready(&()).await?;
    tracing::info!(from = owner, %address, "took over");
    Ok((door, claim))
}

/// A sign of life: the threads that pass bytes on take new work.
async fn turning() -> Result<(), String> {
    tokio::spawn(async {}).await.map_err(|e| e.to_string())
}

struct Relay {
    shared: Arc<Shared>,
    meeting: PathBuf,
    door: Option<Door>,
}

/// What ends a round.
enum Round {
    /// Another process serves now.
    Replaced,
    /// The table names another address.
    Moved,
}

impl Relay {
    /// Serves; returns how long what is under way may go on once another process serves.
    async fn serve(&mut self, claim: Claim) -> Result<Duration, RunError> {
        let mut claim = Some(claim);
        loop {
            self.listen().await;
            let sockets = match &self.door {
                Some(door) => vec![Socket {
                    name: SOCKET.to_owned(),
                    address: door.address.to_string(),
                    socket: door.socket().map_err(RunError::Socket)?,
                }],
                None => Vec::new(),
            };
            let mine = match claim.take() {
                Some(claim) => claim,
                None => match enter(&self.meeting, PROGRAM, &(), PATIENCE).await? {
                    Entrance::First(claim) => claim,
                    // Another one was faster; the supervisor starts this one anew.
                    Entrance::Takeover(taking) => {
                        let path = self.meeting.clone();
                        let why = format!("process {} was started meanwhile", taking.owner());
                        return Err(HandoverError::Held { path, why }.into());
                    }
                },
            };
            let mut offer = mine.offer(PROGRAM, sockets)?;
            match self.round(&mut offer).await {
                Round::Replaced => return Ok(Duration::MAX),
                Round::Moved => {}
            }
        }
    }

    /// Until there is a table, and its address can be listened on.
    async fn listen(&mut self) {
        let mut current = self.shared.loader.subscribe();
        loop {
            let wanted = address(&current.borrow_and_update());
            let open = self.door.as_ref().map(|door| door.address);
            let Some(wanted) = wanted else {
                tracing::info!("waiting for the agent's table");
                // Its sender is in `shared`, so that it cannot be gone.
                let _ = current.changed().await;
                continue;
            };
            if open == Some(wanted) {
                return;
            }
            match Door::open(&self.shared, wanted) {
                Ok(door) => {
                    let address = door.local().unwrap_or(wanted);
                    tracing::info!(%address, "listening");
                    self.announce(address);
                    self.door = Some(door);
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, address = %wanted, "cannot listen; trying again in {AGAIN:?}");
                    tokio::select! {
                        _ = current.changed() => {}
                        () = tokio::time::sleep(AGAIN) => {}
                    }
                }
            }
        }
    }

    /// Tells scripts where it listens.
    fn announce(&self, address: SocketAddr) {
        let path = self.meeting.with_file_name(ENDPOINT);
        if let Err(error) = std::fs::write(&path, format!("{address}\n")) {
            tracing::warn!(%error, path = %path.display(), "cannot say where it listens");
        }
    }

    async fn round(&self, offer: &mut Offer) -> Round {
        let mut current = self.shared.loader.subscribe();
        let open = self.door.as_ref().map(|door| door.address);
        loop {
            let candidate = tokio::select! {
                candidate = offer.next() => candidate,
                moved = current.wait_for(|now| address(now) != open) => {
                    drop(moved);
                    return Round::Moved;
                }
            };
            let (pid, program) = (candidate.pid(), candidate.program().to_owned());
            let ready = match candidate.give(&(), PATIENCE).await {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::warn!(%error, pid, "a process that came to take over did not; going on");
                    continue;
                }
            };
            match offer.confirm(ready).await {
                Ok(()) => {
                    tracing::info!(pid, program, "another process serves now");
                    return Round::Replaced;
                }
                Err(error) => tracing::warn!(%error, pid, "going on"),
            }
        }
    }
}

fn address(current: &Current) -> Option<SocketAddr> {
    current.as_ref().map(|state| state.table.listen)
}

/// Waits for what is under way, and cuts off what is left.
async fn finish(shared: &Shared, patience: Duration) {
    let until = Instant::now() + patience;
    while shared.limits.is_busy() && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
    let left = shared.limits.open();
    if left > 0 {
        tracing::warn!(connections = left, "cut off");
    }
    shared.over.send_replace(true);
}

/// Writes the figures whenever they have changed.
async fn count(shared: Arc<Shared>, runtime: PathBuf) {
    let mut last = String::new();
    loop {
        let text = figures::text(shared.metrics.figures(shared.limits.open()));
        if text != last {
            if let Err(error) = figures::write(&runtime, &text) {
                tracing::warn!(%error, "cannot write the figures");
            }
            last = text;
        }
        tokio::time::sleep(COUNT).await;
    }
}
