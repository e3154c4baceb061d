//! A cluster as the rest of Berth uses it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, LogParams, PostParams, Preconditions};
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::Caller;
use crate::cache::Cache;
use crate::config::ClusterConfig;
use crate::error::Error;
use crate::health::{Health, Topic};
use crate::manifest;
use crate::meter::{Meter, Outcome, Requests};
use crate::names::{LABEL_FLEET, LABEL_MANAGED_BY, LABEL_WORK, job_name};
use crate::picture::Picture;
use crate::verdict::Verdict;
use crate::watch::{Notice, Resumed, Task};
use crate::work::Work;

/// Longest wait for the head of any answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Longest log tail in bytes.
const TAIL_BYTES: i64 = 256 * 1024;

/// A Job that exists now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// It was there already: an earlier create whose answer was lost.
    pub adopted: bool,
}

/// A deletion is through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The Pods that the Job had when it was last seen.
    pub pods: Vec<String>,
}

/// A handle to a cluster; the task behind it ends with the last one.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<ClusterConfig>,
    caller: Arc<Caller>,
    notices: mpsc::Sender<(Notice, oneshot::Sender<()>)>,
    picture: watch::Receiver<Arc<Picture>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// Begins to watch a cluster. A wrong kubeconfig or an API server that is away is no error here: the
    /// picture's state says so, and it is tried again, a changed kubeconfig being read anew.
    ///
    /// Must be called within a Tokio runtime.
    pub fn start(config: ClusterConfig) -> Self {
        let config = Arc::new(config);
        let resumed = Arc::new(Resumed::default());
        let told = Arc::clone(&resumed);
        let listener = move |(verb, resource): (&str, &str), outcome| {
            let topic = Topic::ALL.into_iter().find(|t| t.resource() == resource);
            if let (Some(topic), "watch", Outcome::Ok) = (topic, verb, outcome) {
                told.add(topic);
            }
        };
        let meter = Meter::new(ANSWER_WITHIN, Arc::new(listener));
        let caller = Caller::new(config.namespace.clone(), meter);
        let (notices, heard) = mpsc::channel(64);
        let (shown, picture) = watch::channel(Arc::new(Picture::empty()));
        let task = Task {
            config: Arc::clone(&config),
            caller: Arc::clone(&caller),
            resumed,
            notices: heard,
            picture: shown,
            cache: Cache::default(),
            health: Health::new(),
        };
        Self {
            inner: Arc::new(Inner {
                config,
                caller,
                notices,
                picture,
                task: tokio::spawn(task.run()),
            }),
        }
    }

    /// What it was configured with.
    pub fn config(&self) -> &ClusterConfig {
        &self.inner.config
    }

    /// What is seen, now and from now on.
    pub fn picture(&self) -> watch::Receiver<Arc<Picture>> {
        self.inner.picture.clone()
    }

    /// Requests sent so far.
    pub fn requests(&self) -> Vec<Requests> {
        self.inner.caller.meter().requests()
    }

    fn api<K>(&self, client: kube::Client) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        <K as kube::Resource>::DynamicType: Default,
    {
        Api::namespaced(client, &self.inner.config.namespace)
    }

    /// Makes the Job for some work, or finds the one that an earlier create has made. When this returns, the
    /// picture shows it. On an error of class [`Hold`](crate::Class::Hold) it may have been made all the same:
    /// call again with the same work until there is an answer.
    pub async fn create(&self, work: &Work) -> Result<Created, Error> {
        let job = manifest::job(work, &self.inner.config);
        let name = job_name(&work.id);
        let what = format!("creating Job {name}");
        let params = PostParams::default();
        let made = self
            .inner
            .caller
            .call(&what, |client| {
                let (api, job, params) = (self.api::<Job>(client), &job, &params);
                async move {
                    match api.create(params, job).await {
                        Ok(made) => Ok(Some(made)),
                        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
                        Err(error) => Err(error),
                    }
                }
            })
            .await?;
        let (made, adopted) = match made {
            Some(made) => (made, false),
            None => (self.existing(&name, &job).await?, true),
        };
        let uid = made.metadata.uid.clone().unwrap_or_default();
        self.tell(Notice::Created(Box::new(made))).await?;
        Ok(Created { name, uid, adopted })
    }

    /// The Job that has the name already, if it is ours and stays.
    async fn existing(&self, name: &str, wanted: &Job) -> Result<Job, Error> {
        let Some(found) = self.get(name).await? else {
            // It went away in between.
            return Err(Error::StillDeleting {
                name: name.to_owned(),
            });
        };
        let label = |job: &Job, key: &str| job.metadata.labels.as_ref()?.get(key).cloned();
        let differs = [LABEL_MANAGED_BY, LABEL_FLEET, LABEL_WORK]
            .iter()
            .find(|key| label(&found, key) != label(wanted, key));
        let deleting = found.metadata.deletion_timestamp.is_some();
        match differs {
            // An earlier job of that name, which we deleted ourselves.
            Some(&LABEL_WORK) if deleting => Err(Error::StillDeleting {
                name: name.to_owned(),
            }),
            Some(key) => Err(Error::NameTaken {
                name: name.to_owned(),
                whose: match label(&found, key) {
                    Some(value) => format!("its label {key} is {value:?}"),
                    None => format!("it has no label {key}"),
                },
            }),
            None if deleting => Err(Error::StillDeleting {
                name: name.to_owned(),
            }),
            None => Ok(found),
        }
    }

    async fn get(&self, name: &str) -> Result<Option<Job>, Error> {
        let what = format!("reading Job {name}");
        self.inner
            .caller
            .call(&what, |client| {
                let api = self.api::<Job>(client);
                async move { api.get_opt(name).await }
            })
            .await
    }

    /// Asks for the deletion of a Job and all its Pods. Its UID keeps another Job of the same name safe. What is
    /// gone already counts as deleted. When this returns, the picture shows it.
    pub async fn delete(&self, name: &str, uid: &str) -> Result<(), Error> {
        let what = format!("deleting Job {name}");
        // The Job stays until its last Pod is gone, so a restart of the coordinator forgets nothing of it.
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::foreground()
        };
        let absent = self
            .inner
            .caller
            .call(&what, |client| {
                let (api, params) = (self.api::<Job>(client), &params);
                async move {
                    match api.delete(name, params).await {
                        Ok(_) => Ok(false),
                        Err(kube::Error::Api(status))
                            if status.is_not_found()
                                || (status.is_conflict() && status.message.contains("UID")) =>
                        {
                            Ok(true)
                        }
                        Err(error) => Err(error),
                    }
                }
            })
            .await?;
        let (name, uid) = (name.to_owned(), uid.to_owned());
        self.tell(Notice::Deleted { name, uid, absent }).await
    }

    /// Deletes a Job and waits until it and all its Pods are gone.
    pub async fn delete_and_wait(
        &self,
        name: &str,
        uid: &str,
        within: Duration,
    ) -> Result<Gone, Error> {
        let mut picture = self.picture();
        let pods = |picture: &Picture| -> Vec<String> {
            let seen = picture.jobs.get(name).filter(|seen| seen.uid == uid);
            seen.map(|seen| seen.pods.iter().map(|pod| pod.name.clone()).collect())
                .unwrap_or_default()
        };
        let before = pods(&picture.borrow());
        self.delete(name, uid).await?;
        let gone = picture.wait_for(|picture| match picture.jobs.get(name) {
            Some(seen) => seen.uid != uid,
            None => picture.verdict(name) == Some(Verdict::Gone),
        });
        match tokio::time::timeout(within, gone).await {
            Ok(Ok(_)) => Ok(Gone { pods: before }),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::Timeout {
                server: self.inner.caller.server(),
                what: format!("waiting until Job {name} and its Pods are gone"),
                after_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// The last lines of a Pod's container, for one that never reached the coordinator. A container that has not
    /// started has none.
    pub async fn tail(&self, pod: &str, container: &str, lines: u32) -> Result<Vec<String>, Error> {
        let what = format!("reading the log of Pod {pod}");
        let params = LogParams {
            container: Some(container.to_owned()),
            tail_lines: Some(i64::from(lines)),
            limit_bytes: Some(TAIL_BYTES),
            ..LogParams::default()
        };
        let text = self
            .inner
            .caller
            .call(&what, |client| {
                let (api, params) = (self.api::<Pod>(client), &params);
                async move {
                    match api.logs(pod, params).await {
                        Ok(text) => Ok(text),
                        // "container … is waiting to start".
                        Err(kube::Error::Api(status)) if status.code == 400 => Ok(String::new()),
                        Err(error) => Err(error),
                    }
                }
            })
            .await?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    async fn tell(&self, notice: Notice) -> Result<(), Error> {
        let (done, shown) = oneshot::channel();
        let sent = self.inner.notices.send((notice, done)).await;
        sent.map_err(|_| Error::Closed)?;
        shown.await.map_err(|_| Error::Closed)
    }
}
