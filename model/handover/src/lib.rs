//! A process hands its listening sockets to the one that replaces it, so that no client meets a closed
//! door: the sockets stay open all the time, with whoever waits in their queues.
//!
//! Both meet at a unix socket ([`enter`]). Beside it lies a lock file: whoever holds its lock is the
//! **owner**, and the lock is handed over like the sockets, so there is never a moment without an owner,
//! nor with two.
//!
//! ```text
//!   new                                owner
//!    │── take: versions, who I am ───────►│
//!    │◄─ give, lock, sockets, all ────────│   the owner serves on
//!    │   prepares; accepts                │
//!    │── ready ──────────────────────────►│
//!    │◄─ yours ───────────────────────────│   accepts no more, finishes what is under way
//! ```
//!
//! - The new one ends before `ready`, or is not ready in time: the owner goes on untouched.
//! - The owner ends before `yours`: the new one holds the lock and the sockets, and is the owner.
//! - Two want to take over: one after the other; the second takes over from the first.
//! - A socket file that a killed process left is nothing but a name: the lock tells.
//!
//! Each side only talks to a process of its own user or of root. A socket carries the name and the
//! address that it was configured by, so that a new process with another configuration takes what it
//! still wants and binds the rest anew.
//!
//! [`reload`] is what a unit's `ExecReload=` runs: it starts the program anew beside the running one and
//! returns when the new one is the owner.
#![forbid(unsafe_code)]

mod claim;
mod enter;
mod error;
mod link;
mod offer;
mod reload;

pub use claim::Claim;
pub use enter::{Entrance, Taking, enter};
pub use error::HandoverError;
pub use offer::{Candidate, Offer, Ready, Socket};
pub use reload::{Owner, owner, reload};
