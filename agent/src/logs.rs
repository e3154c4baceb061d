//! Shipping logs: from the shims' segment files to the coordinator's disk.
//!
//! The log of one (instance, start, boot) is one stream of bytes. The agent asks how much of it the
//! coordinator has on disk, sends what follows, a batch at a time, and deletes segments once they are
//! acknowledged. So whatever is killed in between, no line is lost or doubled.

mod echo;
mod last;
mod link;
mod shipper;
mod stream;
mod watch;

pub use echo::echo;
pub use last::{last_lines, last_lines_up_to};
pub use shipper::{Command, Key, Shipper};
