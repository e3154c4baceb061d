//! The adapter against a real API server, controllers, scheduler and kubelet.
//!
//! `BERTH_TEST_KUBECONFIG` names a cluster whose administrator the tests may be (they make and delete
//! namespaces), with `BERTH_TEST_POD_IMAGE` an image that its machines have; otherwise the one that
//! `tests/platform/kubernetes.sh` starts is used. Without any, the tests say so in the file `BERTH_SKIPPED`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod access;
mod away;
mod image;
mod lifecycle;
mod proxy;
mod reasons;
mod restart;
mod rights;
mod world;
