//! JSON bodies of the admin API `/v1`: what the coordinator answers and the CLI reads.

mod job;
mod request;
mod view;

pub use job::*;
pub use request::*;
pub use view::*;
