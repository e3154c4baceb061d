//! The main container: an agent that starts its only instance once, and ends with it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use berth_agent_plan::Settings as Numbers;
use berth_model::instance::InstanceSpec;
use berth_model::node::RuntimeKind;
use berth_model::route::Order;
use berth_shim::state::LOGS_DIR;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::prepare::pod_facts;
use super::{PodError, Settings, exit, load_spec};
use crate::config::Config;
use crate::data::DataDir;
use crate::ledger::Ledger;
use crate::logs::echo;
use crate::reconcile::{Event, Inside, Progress};
use crate::rpc::board::Board;
use crate::run::{Agent, Role};
use crate::runtime::process::ProcessRuntime;
use crate::runtime::{Runtime, Runtimes};

/// Beyond the stop grace, how long a Pod that is told to end ships logs. Kubernetes gives it the stop grace and
/// fifteen seconds.
const AFTER_STOP: Duration = Duration::from_secs(12);

/// Beyond the stop grace, when the module's tree is killed past its shim: early enough to ship its last lines.
const STOP_MARGIN: Duration = Duration::from_secs(2);

/// How long the last lines may take to get to standard output.
const ECHO: Duration = Duration::from_secs(2);

/// The order of what the token was for: any set of the coordinator comes after it.
const FIRST: Order = Order {
    epoch: 0,
    term: 0,
    generation: 0,
};

/// Runs what `prepare` left to its end; tells the exit code.
pub async fn run(settings: &Settings) -> Result<u8, PodError> {
    let mut signals = Signals::new().map_err(|source| PodError::System {
        what: "listen for signals",
        source,
    })?;
    let data = DataDir::open(&settings.data)?;
    let _lock = data.lock()?;
    let spec = InstanceSpec {
        runtime: RuntimeKind::Process,
        ..load_spec(&data)?
    };
    let stop_grace = spec.manifest.module.stop_grace.0;
    let mut ledger = Ledger::open(data.ledger())?;
    if ledger.desired().is_none() {
        ledger
            .accept(FIRST, vec![spec], |_, _| BTreeMap::new())
            .await?;
    }
    let address = settings.pod.address;
    let config = Config {
        endpoint: Some(settings.endpoint.clone()),
        port_range: settings.ports,
        address,
        ..Config::default()
    };
    let (progress, watched) = watch::channel(Progress::default());
    let board = Arc::new(Board::insisting());
    let role = Role {
        facts: pod_facts(settings, data.root()),
        settings: Numbers {
            address,
            exclusive: true,
            once: true,
            stop_margin: STOP_MARGIN,
            ..Numbers::default()
        },
        ledger,
        board: board.clone(),
        inside: Some(Inside {
            host: every_address(address),
            grpc: settings.grpc,
            env: settings.image_env.clone(),
        }),
        progress: Some(progress),
    };
    let runtime: Arc<dyn Runtime> = Arc::new(ProcessRuntime::new(settings.bin.join("berth-shim")));
    let runtimes = Arc::new(Runtimes::new([runtime]));
    let agent = Agent::set_up(&config, &data, runtimes, role).await?;
    let mut life = Life {
        events: agent.events.clone(),
        board,
        echo: tokio::spawn(echo_all(watched.clone())),
        progress: watched,
        connected: agent.connected.clone(),
        stop_grace,
        linger: settings.linger,
    };
    tokio::select! {
        error = agent.work() => Err(error.into()),
        end = life.follow(&mut signals) => {
            exit::note_failure(&settings.termination_log, &exit::text(&end));
            Ok(exit::code(&end))
        }
    }
}

/// What listens on every address, of the family in which the Pod is reached.
fn every_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Copies the start's lines to standard output.
async fn echo_all(mut progress: watch::Receiver<Progress>) {
    let dir = match progress.wait_for(|p| p.dir.is_some() || p.stopped).await {
        Ok(progress) => progress.dir.clone(),
        Err(_) => None,
    };
    let Some(dir) = dir else { return };
    let ended = async { _ = progress.wait_for(|p| p.end.is_some() || p.stopped).await };
    echo(dir.join(LOGS_DIR), ended, std::io::stdout()).await;
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The Pod's life, seen from outside the agent.
struct Life {
    events: mpsc::Sender<Event>,
    board: Arc<Board>,
    progress: watch::Receiver<Progress>,
    connected: watch::Receiver<Option<Channel>>,
    echo: JoinHandle<()>,
    stop_grace: Duration,
    linger: Duration,
}

impl Life {
    /// To the end: all lines and the last status are on the coordinator's disk, or nobody will take them.
    async fn follow(&mut self, signals: &mut Signals) -> Progress {
        let kept = kept(self.progress.clone(), self.board.clone());
        let alone = alone(self.progress.clone(), self.connected.clone(), self.linger);
        tokio::pin!(kept, alone);
        let mut until: Option<Instant> = None;
        loop {
            tokio::select! {
                () = &mut kept => break,
                () = &mut alone => {
                    tracing::error!("the coordinator is away: its last lines and its end are not with it");
                    break;
                }
                () = sleep_until(until) => {
                    tracing::error!("no more time: its last lines and its end are not with the coordinator");
                    break;
                }
                () = signals.next() => {
                    tracing::warn!("told to end: what runs is stopped in order");
                    let runs = !self.progress.borrow().stopped;
                    let grace = if runs { self.stop_grace } else { Duration::ZERO };
                    let limit = Instant::now() + grace + AFTER_STOP;
                    until = Some(until.map_or(limit, |until| until.min(limit)));
                    // If nobody hears it, the agent's end is told in its own way.
                    let _ = self.events.send(Event::End).await;
                }
            }
        }
        if tokio::time::timeout(ECHO, &mut self.echo).await.is_err() {
            tracing::warn!("standard output is not read: its last lines are not there");
        }
        self.progress.borrow().clone()
    }
}

/// Resolves when everything is told, or the coordinator wants to hear nothing of it.
async fn kept(mut progress: watch::Receiver<Progress>, board: Arc<Board>) {
    let shipped = |p: &Progress| p.stopped && (p.shipped || p.disowned.is_some());
    match progress.wait_for(shipped).await {
        Ok(progress) if progress.disowned.is_some() => return,
        Ok(_) => {}
        // The agent's end is told in its own way.
        Err(_) => return std::future::pending().await,
    }
    board.settled().await;
}

/// Resolves when, after the end of what ran, the coordinator was away for so long.
async fn alone(
    mut progress: watch::Receiver<Progress>,
    mut connected: watch::Receiver<Option<Channel>>,
    linger: Duration,
) {
    // What is waited for must not be held: it could not change any more.
    let ended = |p: &Progress| p.end.is_some() || p.stopped;
    if progress.wait_for(ended).await.is_err() {
        return std::future::pending().await;
    }
    loop {
        // Both ends of it live as long as the agent, whose end is told in its own way.
        if connected.wait_for(Option::is_none).await.is_err() {
            return std::future::pending().await;
        }
        let back = connected.wait_for(Option::is_some);
        if tokio::time::timeout(linger, back).await.is_err() {
            return;
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
