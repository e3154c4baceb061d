//! Against a real daemon: the one that `DOCKER_HOST` names, or this machine's own.

mod daemon;
mod faults;
mod images;
mod world;

use std::sync::Arc;

use crate::runtime::{Runtime, conformance};

conformance::suite!(|| {
    let world = world::World::new()?;
    Some(Arc::new(world.runtime()) as Arc<dyn Runtime>)
});
