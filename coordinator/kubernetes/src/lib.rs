//! Berth's adapter to Kubernetes: the only code that talks to API servers.
//!
//! An instance of a service, or a whole job, is one Kubernetes **Job**. [`manifest`] says what such a Job looks
//! like (pure), a [`Cluster`] makes and deletes them, and its [`Picture`] is what shared watches have seen of
//! them. [`verdict`] turns API objects into Berth's words (pure).
//!
//! A cluster that cannot be reached *holds*: its picture stays as it was last seen, and nothing in it is ever
//! taken for gone. Placement, retries of instances and everything else that decides is the planner's.

#![forbid(unsafe_code)]

mod access;
mod api;
mod backoff;
mod cache;
mod cluster;
mod config;
mod error;
mod health;
pub mod manifest;
mod meter;
mod names;
mod picture;
pub mod verdict;
mod watch;
mod words;
mod work;

pub use cluster::{Cluster, Created, Gone};
pub use config::{Access, ClusterConfig, Images};
pub use error::{Class, Error};
pub use meter::{Outcome, Requests};
pub use names::{ANNOTATION_WORK, LABEL_FLEET, LABEL_MANAGED_BY, LABEL_WORK, MANAGED_BY, job_name};
pub use picture::{ClusterState, Picture, PodSeen, Seen};
pub use verdict::{Ending, LostPod, Verdict};
pub use work::{Base, Shape, Work, WorkId};
