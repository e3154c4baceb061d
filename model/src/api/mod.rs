//! JSON bodies of the admin API `/v1`: what the coordinator answers and the CLI reads.

mod request;
mod view;

pub use request::*;
pub use view::*;
