//! JSON bodies of the admin API `/v1`: what the coordinator answers and the CLI reads.

mod fleet;
mod job;
mod request;
pub mod rules;
mod view;

pub use fleet::*;
pub use job::*;
pub use request::*;
pub use view::*;
