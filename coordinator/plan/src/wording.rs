//! Reasons in words.

use std::fmt;

use crate::{Rejection, WaitReason};

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNode { missing, nodes, rejected, advice } => {
                let are = if *missing == 1 { "instance has" } else { "instances have" };
                write!(f, "{missing} {are} no node: ")?;
                places(f, *nodes, rejected)?;
                write!(f, "; {advice}")
            }
            Self::NoCluster {
                missing,
                clusters,
                rejected,
            } => {
                let are = if *missing == 1 { "instance has" } else { "instances have" };
                write!(f, "{missing} {are} no cluster: ")?;
                if *clusters == 0 {
                    return f.write_str(
                        "none is configured; add a [[cluster]] to coordinator.toml or deploy with another --runtime",
                    );
                }
                let s = if *clusters == 1 { "" } else { "s" };
                let rejected: Vec<String> =
                    rejected.iter().map(|(n, why)| format!("{n} {why}")).collect();
                write!(
                    f,
                    "{clusters} cluster{s}: {}; `berth cluster list` says more",
                    rejected.join(", ")
                )
            }
            Self::BackOff { id, failures } => {
                let times = if *failures == 1 { "once" } else { "several times in a row" };
                write!(f, "{id} ended by itself ({times}); another one takes its place after a pause")
            }
            Self::Hold { cluster, why } => write!(
                f,
                "cluster {cluster} is out of reach, so what runs there is left as it is: {why}"
            ),
            Self::TasksWait { missing, nodes, rejected, advice } => {
                let wait = if *missing == 1 { "task waits" } else { "tasks wait" };
                write!(f, "{missing} {wait} for a node: ")?;
                places(f, *nodes, rejected)?;
                match advice.as_str() {
                    "" => Ok(()),
                    advice => write!(f, "; {advice}"),
                }
            }
            Self::MassLoss { silent, nodes } => write!(
                f,
                "mass-loss: {silent} of {nodes} nodes fell silent together, so nothing is replaced; \
                 look at the network or remove nodes that are gone for good"
            ),
            Self::RolloutWaits { revision, healthy, instances } => write!(
                f,
                "revision {revision} has {healthy} of {instances} instances healthy; the rollout goes on when all are"
            ),
            Self::RolloutNeedsPlace { revision, healthy, max_unavailable } => write!(
                f,
                "revision {revision} needs a spare place: with {healthy} instances healthy none may be given \
                 up for it (max_unavailable {max_unavailable}); join or free a node, or allow more with \
                 --max-unavailable"
            ),
            Self::Moving { .. }
            | Self::NoSpareNode { .. }
            | Self::KeptServing { .. }
            | Self::TaskEnds { .. } => drained_node(self, f),
            Self::Draining { id, on } => write!(f, "{id} drains: waits for {on}"),
            Self::Stopping { id } => write!(f, "{id} is stopping"),
            Self::Settling => f.write_str(
                "restored from a backup: nothing is changed until the nodes have reported what runs",
            ),
        }
    }
}

/// About what is on a node that is drained.
fn drained_node(reason: &WaitReason, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match reason {
        WaitReason::Moving { id, node } => write!(
            f,
            "{id} leaves node {node}, which is drained, when the instance that takes its place is healthy"
        ),
        WaitReason::NoSpareNode {
            id,
            node,
            nodes,
            rejected,
        } => {
            write!(
                f,
                "no-spare-node: {id} stays on node {node}, which is drained: "
            )?;
            places(f, *nodes, rejected)?;
            f.write_str(
                "; join or uncordon a node, or wait for the deadline (`berth node show` tells it)",
            )
        }
        WaitReason::KeptServing {
            id,
            node,
            max_unavailable,
        } => write!(
            f,
            "{id} stays on node {node} although the drain's deadline is over: without it more than \
             max_unavailable ({max_unavailable}) of its service's instances would be missing; \
             `berth node drain {node} --force` stops it all the same"
        ),
        WaitReason::TaskEnds { id, node } => write!(
            f,
            "node {node} is drained: {id} may run to its end until the deadline, then it is begun anew elsewhere"
        ),
        _ => Ok(()),
    }
}

/// What was looked at and why none of it will do.
fn places(f: &mut fmt::Formatter<'_>, nodes: u32, rejected: &[(u32, Rejection)]) -> fmt::Result {
    if nodes == 0 {
        return write!(f, "there are no nodes");
    }
    let s = if nodes == 1 { "" } else { "s" };
    write!(f, "{nodes} node{s}: ")?;
    for (i, (count, why)) in rejected.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        write!(f, "{comma}{count} {why}")?;
    }
    Ok(())
}
