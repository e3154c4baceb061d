//! The control actor: the one owner of the fleet's state.

mod handle;

pub use handle::*;
