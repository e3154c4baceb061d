//! The coordinator: desired state, planning, registry, agents' sessions, admin API, logs; and the
//! gateway role's process around `berth-gateway`.
#![forbid(unsafe_code)]

pub mod control;
