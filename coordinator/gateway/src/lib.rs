//! The gateway: Berth's data plane.
//!
//! One thread with its own single-threaded runtime per core; each has its own listening socket
//! (`SO_REUSEPORT`), its own upstream connections and its own view of the route table, so that no
//! request waits for a lock that another thread holds. All threads read one immutable table
//! (one `ArcSwap`), and every *attempt* to send a request chooses an instance from the newest one.
//!
//! # What an acknowledged table means
//!
//! Control stops an instance only when every gateway has acknowledged a table without it and
//! reports none of its requests in flight ([`Handle::report`]). The argument that no request can
//! reach the instance after that:
//!
//! 1. A thread chooses an instance and counts the request against it in one synchronous step: no
//!    `await` lies between reading the table and the increment. A replay chooses anew, from the
//!    table of that moment; a request that waits for a place in a queue holds no table.
//! 2. A thread that meets a newer table stores that table's number in its own `seen` counter
//!    (release). Threads are woken by each publication, so idle ones move on as well. What a thread
//!    chose from an older table was counted before that store, and it never chooses from an older
//!    one again.
//! 3. The report takes the smallest `seen` of all threads (acquire) *first* and the counts after.
//!    A count covers the whole exchange, from before the connection is taken or dialled until the
//!    response's last byte is passed on or given up.
//!
//! So `acknowledged ≥ V` together with a zero count read after it, where table V lacks the instance,
//! means that nothing is under way to it and nothing will be. Counts of instances that left the table
//! are reported until they are zero. A thread that hangs keeps `acknowledged` back: the safe side.
//!
//! # Not here
//!
//! Where tables come from (the process `berth-coordinator --role gateway` follows control's stream
//! and calls [`Handle::publish`]), HTTP/2, gRPC, and protocol upgrades: a request with `Upgrade`
//! is refused with `bad-request`, except that the offer of `h2c` is ignored, as RFC 9110 allows.
#![forbid(unsafe_code)]

mod admin;
mod body;
mod config;
mod downstream;
mod error;
mod exchange;
mod forward;
mod gateway;
mod hash;
mod headers;
mod listen;
mod metrics;
mod path;
mod patience;
pub mod persist;
mod pulse;
mod queue;
mod refusal;
mod routing;
mod service;
mod shared;
mod tls;
mod upstream;
mod worker;

pub use config::{GatewayConfig, TlsConfig};
pub use error::{GatewayError, PublishError};
pub use gateway::{Gateway, Handle};
pub use listen::Sockets;
pub use upstream::RelayIdentity;
