//! The task behind a cluster: one watch per kind of object, shared by everything, and the picture made of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::stream::{BoxStream, SelectAll, StreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event as ApiEvent, Pod};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::access;
use crate::api::{Caller, Connection};
use crate::backoff::Backoff;
use crate::cache::Cache;
use crate::config::{Access, ClusterConfig};
use crate::error::Error;
use crate::health::{Health, Topic};
use crate::names::selector;
use crate::picture::Picture;
use crate::words::{from_kube, from_status};

/// How long the API server keeps a watch before it is taken up again; a dead connection is noticed by then.
const WATCH_SECS: u32 = 60;
const TICK: Duration = Duration::from_secs(5);

/// Topics whose watch the API server has taken up (again). A watch that resumes says nothing by itself until
/// something changes, so the transport tells.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    topics: Mutex<BTreeSet<Topic>>,
    notify: Notify,
}

impl Resumed {
    pub(crate) fn add(&self, topic: Topic) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.insert(topic);
        self.notify.notify_one();
    }

    fn take(&self) -> BTreeSet<Topic> {
        std::mem::take(&mut *self.topics.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What commands tell the task, each acknowledged when the picture shows it.
pub(crate) enum Notice {
    Created(Box<Job>),
    Deleted {
        name: String,
        uid: String,
        absent: bool,
    },
}

pub(crate) type Notices = mpsc::Receiver<(Notice, oneshot::Sender<()>)>;

type Watched<K> = Box<Result<Event<K>, watcher::Error>>;

enum Seen {
    Jobs(Watched<Job>),
    Pods(Watched<Pod>),
    Events(Watched<ApiEvent>),
}

pub(crate) struct Task {
    pub(crate) config: Arc<ClusterConfig>,
    pub(crate) caller: Arc<Caller>,
    pub(crate) resumed: Arc<Resumed>,
    pub(crate) notices: Notices,
    pub(crate) picture: watch::Sender<Arc<Picture>>,
    pub(crate) cache: Cache,
    pub(crate) health: Health,
}

/// Why the watches are begun anew.
enum Again {
    /// With a new client.
    Access,
    /// Not at all: all handles are gone.
    Closed,
}

impl Task {
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        loop {
            let print = self.fingerprint().await;
            match access::client(&self.config, self.caller.meter(), SystemTime::now()).await {
                Ok((client, server)) => {
                    self.health.access(None, SystemTime::now());
                    let connection = Connection {
                        client: client.clone(),
                        server,
                    };
                    self.caller.connected(Ok(connection));
                    let again = self.follow(client, &mut backoff, print).await;
                    if matches!(again, Again::Closed) {
                        return;
                    }
                }
                Err(error) => {
                    let cluster = &self.config.name;
                    tracing::warn!(%cluster, %error, "this cluster cannot be used");
                    self.caller.connected(Err(error.clone()));
                    self.health.access(Some(error), SystemTime::now());
                    self.publish(true);
                }
            }
            if self.pause(backoff.step()).await.is_none() {
                return;
            }
        }
    }

    /// Waits, while commands are still heard. None: all handles are gone.
    async fn pause(&mut self, wait: Duration) -> Option<()> {
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Some(()),
                notice = self.notices.recv() => self.notice(notice?),
            }
        }
    }

    async fn fingerprint(&self) -> Option<blake3::Hash> {
        let Access::Kubeconfig { path, .. } = &self.config.access else {
            return None;
        };
        let text = tokio::fs::read(path).await.ok()?;
        Some(blake3::hash(&text))
    }

    fn streams(&self, client: &Client) -> SelectAll<BoxStream<'static, Seen>> {
        let backoff = || Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
        let namespace = &self.config.namespace;
        let ours = watcher::Config::default()
            .timeout(WATCH_SECS)
            .labels(&selector(&self.config.fleet));
        // Events have no labels of ours; the cache keeps those of ours only.
        let warnings = watcher::Config::default()
            .timeout(WATCH_SECS)
            .fields("type=Warning");
        let jobs = Api::<Job>::namespaced(client.clone(), namespace);
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        let events = Api::<ApiEvent>::namespaced(client.clone(), namespace);
        let mut all = SelectAll::new();
        let jobs = watcher(jobs, ours.clone()).backoff(backoff());
        all.push(jobs.map(|event| Seen::Jobs(Box::new(event))).boxed());
        let pods = watcher(pods, ours).backoff(backoff());
        all.push(pods.map(|event| Seen::Pods(Box::new(event))).boxed());
        let events = watcher(events, warnings).backoff(backoff());
        all.push(events.map(|event| Seen::Events(Box::new(event))).boxed());
        all
    }

    async fn follow(
        &mut self,
        client: Client,
        backoff: &mut Backoff,
        print: Option<blake3::Hash>,
    ) -> Again {
        let mut streams = self.streams(&client);
        let mut tick = tokio::time::interval(TICK);
        let resumed = Arc::clone(&self.resumed);
        // What was said of earlier watches means nothing for these.
        resumed.take();
        loop {
            let failed = tokio::select! {
                seen = streams.next() => match seen {
                    Some(seen) => self.take(seen).err().flatten(),
                    None => return Again::Access,
                },
                notice = self.notices.recv() => match notice {
                    Some(notice) => {
                        self.notice(notice);
                        None
                    }
                    None => return Again::Closed,
                },
                () = resumed.notify.notified() => {
                    for topic in resumed.take() {
                        self.health.resumed(topic, SystemTime::now());
                    }
                    None
                }
                _ = tick.tick() => {
                    if self.health.state().is_reachable() {
                        backoff.start_over();
                        self.cache.tick();
                    } else if print != self.fingerprint().await {
                        return Again::Access;
                    }
                    None
                }
            };
            // Everything that is there already goes into the same picture.
            let mut refused = matches!(failed, Some(Error::Unauthorized { .. }));
            while let Some(Some(seen)) = futures_util::FutureExt::now_or_never(streams.next()) {
                refused |= matches!(self.take(seen), Err(Some(Error::Unauthorized { .. })));
            }
            self.publish(false);
            if refused {
                return Again::Access;
            }
        }
    }

    /// Takes in what a watch says. Answers the error, if that is what it was.
    fn take(&mut self, seen: Seen) -> Result<(), Option<Error>> {
        match seen {
            Seen::Jobs(event) => {
                let event = self.heard(Topic::Jobs, *event)?;
                self.cache.jobs(event);
            }
            Seen::Pods(event) => {
                let event = self.heard(Topic::Pods, *event)?;
                self.cache.pods(event);
            }
            Seen::Events(event) => {
                let event = self.heard(Topic::Events, *event)?;
                self.cache.events(event);
            }
        }
        Ok(())
    }

    fn heard<K>(
        &mut self,
        topic: Topic,
        event: Result<Event<K>, watcher::Error>,
    ) -> Result<Event<K>, Option<Error>> {
        let now = SystemTime::now();
        match event {
            Err(error) => return Err(self.bad(topic, error)),
            Ok(Event::InitDone) => self.health.listed(topic, now),
            // A list is about to be asked for; nothing was heard yet.
            Ok(Event::Init) => {}
            Ok(_) => self.health.resumed(topic, now),
        }
        event.map_err(|_| None)
    }

    fn bad(&mut self, topic: Topic, error: watcher::Error) -> Option<Error> {
        let verb = match &error {
            watcher::Error::InitialListFailed(_) => "listing",
            _ => "watching",
        };
        let what = format!("{verb} {}", topic.resource());
        let server = self.caller.server();
        let asked = self.caller.asked(&server, &what);
        let error = match error {
            watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
                from_kube(&asked, error)
            }
            // The resource version is too old: a new list follows by itself.
            watcher::Error::WatchError(status) if status.code == 410 => return None,
            watcher::Error::WatchError(status) => from_status(&asked, &status),
            // A broken connection is taken up again; only if that fails, the API server is away.
            watcher::Error::WatchFailed(error) => {
                tracing::debug!(cluster = %self.config.name, %error, what, "watch broke off");
                return None;
            }
            watcher::Error::NoResourceVersion => Error::Garbled {
                server,
                what,
                why: "no resource version".to_owned(),
            },
        };
        self.health.failed(topic, error.clone(), SystemTime::now());
        Some(error)
    }

    fn notice(&mut self, (notice, done): (Notice, oneshot::Sender<()>)) {
        match notice {
            Notice::Created(job) => self.cache.created(*job),
            Notice::Deleted { name, uid, absent } => self.cache.deleted(&name, &uid, absent),
        }
        self.publish(false);
        // Whoever asked may be gone.
        let _ = done.send(());
    }

    fn publish(&mut self, state_changed: bool) {
        let jobs = self.cache.settle();
        let old = Arc::clone(&self.picture.borrow());
        let complete = self.health.complete();
        let state = self.health.state();
        let same = jobs.is_none()
            && !state_changed
            && old.complete == complete
            && old.state.to_string() == state.to_string();
        if same {
            return;
        }
        if old.state.is_reachable() != state.is_reachable() {
            tracing::info!(cluster = %self.config.name, %state, "cluster");
        }
        self.picture.send_replace(Arc::new(Picture {
            state: state.clone(),
            complete,
            version: old.version + 1,
            jobs: jobs.unwrap_or_else(|| old.jobs.clone()),
        }));
    }
}
