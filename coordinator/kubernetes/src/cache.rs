//! What the watches have seen. Pure: fed with events, asked for pictures; counts instead of clocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event as ApiEvent, Pod};
use kube::runtime::watcher::Event;

use crate::picture::Seen;
use crate::verdict::{Facts, LostPod, Warning, judge, last_ending, owner};

/// Warnings kept of one object.
const WARNINGS: usize = 8;
/// Objects whose warnings are kept. Those of a namespace's other tenants are not.
const WARNED: usize = 4096;

/// Kind and name.
type About = (String, String);

#[derive(Debug)]
struct Entry {
    job: Job,
    /// A watch has seen it. Until then, only the answer to its creation says that it exists.
    confirmed: bool,
    /// In the how manieth listing it was added.
    born: u64,
    /// Ticks for which a watch that works has not shown it.
    unseen: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    jobs: BTreeMap<String, Entry>,
    pods: BTreeMap<String, Pod>,
    warnings: BTreeMap<About, VecDeque<Warning>>,
    warned: VecDeque<About>,
    /// By Job's UID: Pods that are not there any more.
    lost: BTreeMap<String, Vec<LostPod>>,
    /// UIDs of Jobs whose deletion was accepted.
    deleting: BTreeSet<String>,
    /// UIDs of Jobs seen deleted, so that a late answer to a create does not bring one back.
    buried: VecDeque<String>,
    listing: u64,
    listed_jobs: BTreeSet<String>,
    listed_pods: BTreeSet<String>,
    dirty: BTreeSet<String>,
    seen: BTreeMap<String, Arc<Seen>>,
}

/// Lost Pods that are told of one Job.
const LOST: usize = 16;
const BURIED: usize = 1024;
/// Ticks after which a created Job that no watch has shown is taken for gone.
const UNSEEN: u32 = 6;

impl Cache {
    pub(crate) fn jobs(&mut self, event: Event<Job>) {
        match event {
            Event::Apply(job) => self.put_job(job, true),
            Event::Delete(job) => {
                if let Some(uid) = job.metadata.uid.clone() {
                    self.bury(uid);
                }
                let name = job.metadata.name.unwrap_or_default();
                let same = |entry: &Entry| entry.job.metadata.uid == job.metadata.uid;
                if self.jobs.get(&name).is_some_and(same) {
                    self.drop_job(&name);
                }
            }
            Event::Init => {
                self.listing += 1;
                self.listed_jobs.clear();
            }
            Event::InitApply(job) => {
                self.listed_jobs.extend(job.metadata.name.clone());
                self.put_job(job, true);
            }
            Event::InitDone => {
                let absent: Vec<String> = self
                    .jobs
                    .iter()
                    // One that was created while the list was under way need not be in it.
                    .filter(|(name, entry)| {
                        !self.listed_jobs.contains(*name)
                            && (entry.confirmed || entry.born < self.listing)
                    })
                    .map(|(name, _)| name.clone())
                    .collect();
                for name in absent {
                    self.drop_job(&name);
                }
            }
        }
    }

    pub(crate) fn pods(&mut self, event: Event<Pod>) {
        match event {
            Event::Apply(pod) => self.put_pod(pod),
            Event::Delete(pod) => {
                let name = pod.metadata.name.clone().unwrap_or_default();
                // Its last state says whether it ended before it was removed.
                self.put_pod(pod);
                self.drop_pod(&name);
            }
            Event::Init => self.listed_pods.clear(),
            Event::InitApply(pod) => {
                self.listed_pods.extend(pod.metadata.name.clone());
                self.put_pod(pod);
            }
            Event::InitDone => {
                let known = self.pods.keys();
                let absent: Vec<String> = known
                    .filter(|name| !self.listed_pods.contains(*name))
                    .cloned()
                    .collect();
                for name in absent {
                    self.drop_pod(&name);
                }
            }
        }
    }

    pub(crate) fn events(&mut self, event: Event<ApiEvent>) {
        let (Event::Apply(event) | Event::InitApply(event)) = event else {
            return;
        };
        let about = event.involved_object;
        let (Some(kind), Some(name)) = (about.kind, about.name) else {
            return;
        };
        if !name.starts_with("berth-") {
            return;
        }
        let at = event.last_timestamp.map(|t| t.0);
        let at = at.or_else(|| event.event_time.map(|t| t.0));
        let warning = Warning {
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
            at: at.or_else(|| event.metadata.creation_timestamp.map(|t| t.0)),
        };
        match kind.as_str() {
            "Job" => self.dirty.insert(name.clone()),
            "Pod" => match self.pods.get(&name).and_then(owner) {
                Some((job, _)) => self.dirty.insert(job),
                None => false,
            },
            _ => return,
        };
        self.warn((kind, name), warning);
    }

    fn warn(&mut self, about: About, warning: Warning) {
        if !self.warnings.contains_key(&about) {
            self.warned.push_back(about.clone());
            if self.warned.len() > WARNED
                && let Some(oldest) = self.warned.pop_front()
            {
                self.warnings.remove(&oldest);
            }
        }
        let all = self.warnings.entry(about).or_default();
        // A repeated event counts up; only its latest words and time matter.
        all.retain(|w| (&w.reason, &w.message) != (&warning.reason, &warning.message));
        all.push_back(warning);
        if all.len() > WARNINGS {
            all.pop_front();
        }
    }

    /// The answer to a create.
    pub(crate) fn created(&mut self, job: Job) {
        let uid = job.metadata.uid.as_ref();
        if uid.is_some_and(|uid| self.buried.contains(uid)) {
            return;
        }
        let name = job.metadata.name.clone().unwrap_or_default();
        let known = self
            .jobs
            .get(&name)
            .and_then(|entry| entry.job.metadata.uid.as_ref());
        if known != uid {
            self.put_job(job, false);
        }
    }

    /// The answer to a delete: accepted, or there was nothing to delete.
    pub(crate) fn deleted(&mut self, name: &str, uid: &str, absent: bool) {
        let ours = |entry: &Entry| entry.job.metadata.uid.as_deref() == Some(uid);
        if absent {
            self.bury(uid.to_owned());
            if self.jobs.get(name).is_some_and(ours) {
                self.drop_job(name);
            }
        } else if self.jobs.get(name).is_some_and(ours) {
            self.deleting.insert(uid.to_owned());
            self.dirty.insert(name.to_owned());
        }
    }

    /// Called now and then while the watches work: a Job that was created and never shown is gone.
    pub(crate) fn tick(&mut self) {
        let mut gone = Vec::new();
        for (name, entry) in self.jobs.iter_mut().filter(|(_, entry)| !entry.confirmed) {
            entry.unseen += 1;
            if entry.unseen > UNSEEN {
                gone.push(name.clone());
            }
        }
        for name in gone {
            self.drop_job(&name);
        }
    }

    /// The current picture, and whether it differs from the last.
    pub(crate) fn settle(&mut self) -> Option<BTreeMap<String, Arc<Seen>>> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut changed = false;
        for name in dirty {
            let fresh = self.look(&name);
            changed |= match fresh {
                Some(seen) if self.seen.get(&name).is_none_or(|old| **old != seen) => {
                    self.seen.insert(name, Arc::new(seen));
                    true
                }
                Some(_) => false,
                None => self.seen.remove(&name).is_some(),
            };
        }
        changed.then(|| self.seen.clone())
    }

    fn look(&self, name: &str) -> Option<Seen> {
        let job = self.jobs.get(name).map(|entry| &entry.job);
        let mut pods: Vec<&Pod> = self
            .pods
            .values()
            .filter(|pod| owner(pod).is_some_and(|(job, _)| job == name))
            .collect();
        let uid = match job {
            Some(job) => job.metadata.uid.clone(),
            None => pods.first().and_then(|pod| owner(pod)).map(|(_, uid)| uid),
        }?;
        // Those of an earlier Job of that name are not this one's.
        pods.retain(|pod| owner(pod).is_some_and(|(_, of)| of == uid));
        pods.sort_by_key(|pod| {
            let born = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (born, pod.metadata.name.clone())
        });
        let about = |kind: &str, name: &str| -> Vec<Warning> {
            let about = (kind.to_owned(), name.to_owned());
            self.warnings
                .get(&about)
                .into_iter()
                .flatten()
                .cloned()
                .collect()
        };
        let warnings: Vec<Vec<Warning>> = pods
            .iter()
            .map(|pod| about("Pod", pod.metadata.name.as_deref().unwrap_or_default()))
            .collect();
        let pods: Vec<(&Pod, &[Warning])> = pods
            .into_iter()
            .zip(warnings.iter().map(Vec::as_slice))
            .collect();
        Some(judge(Facts {
            name,
            job,
            pods: &pods,
            warnings: &about("Job", name),
            lost_pods: self.lost.get(&uid).map_or(&[], Vec::as_slice),
            deleting: self.deleting.contains(&uid),
        }))
    }

    fn put_job(&mut self, mut job: Job, confirmed: bool) {
        job.metadata.managed_fields = None;
        let Some(name) = job.metadata.name.clone() else {
            return;
        };
        let before = self
            .jobs
            .get(&name)
            .and_then(|entry| entry.job.metadata.uid.clone());
        if before.is_some() && before != job.metadata.uid {
            self.drop_job(&name);
        }
        self.dirty.insert(name.clone());
        let entry = Entry {
            job,
            confirmed,
            born: self.listing,
            unseen: 0,
        };
        self.jobs.insert(name, entry);
    }

    fn drop_job(&mut self, name: &str) {
        if let Some(uid) = self
            .jobs
            .remove(name)
            .and_then(|entry| entry.job.metadata.uid)
        {
            self.lost.remove(&uid);
            self.deleting.remove(&uid);
        }
        self.forget(&("Job".to_owned(), name.to_owned()));
        self.dirty.insert(name.to_owned());
    }

    fn put_pod(&mut self, mut pod: Pod) {
        pod.metadata.managed_fields = None;
        let Some(name) = pod.metadata.name.clone() else {
            return;
        };
        self.dirty.extend(owner(&pod).map(|(job, _)| job));
        self.pods.insert(name, pod);
    }

    fn drop_pod(&mut self, name: &str) {
        let Some(pod) = self.pods.remove(name) else {
            return;
        };
        self.forget(&("Pod".to_owned(), name.to_owned()));
        let Some((job, uid)) = owner(&pod) else {
            return;
        };
        self.dirty.insert(job.clone());
        let entry = self.jobs.get(&job);
        let same = entry.is_some_and(|entry| entry.job.metadata.uid.as_ref() == Some(&uid));
        if !same {
            return;
        }
        let lost = self.lost.entry(uid).or_default();
        if lost.len() < LOST {
            lost.push(LostPod {
                name: name.to_owned(),
                ending: last_ending(&pod),
            });
        }
    }

    fn forget(&mut self, about: &About) {
        if self.warnings.remove(about).is_some() {
            self.warned.retain(|other| other != about);
        }
    }

    fn bury(&mut self, uid: String) {
        self.buried.push_back(uid);
        if self.buried.len() > BURIED {
            self.buried.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
