//! Is a domain name made by a malware's domain generation algorithm (DGA)?
//!
//! The server (`dga-detector`) and the trainer (`dga-train`) share this library: the features are
//! computed by the same code in both, so that they cannot drift apart.

#![forbid(unsafe_code)]

pub mod domain;
pub mod features;
pub mod math;
pub mod model;
